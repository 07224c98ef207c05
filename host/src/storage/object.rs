//! Objects at a location, over `object_store`.
//!
//! The name of an object is relative to the location, with `/` between its parts.
//! Objects are written whole: a reader sees all of an object or none of it.

use std::fs::Permissions;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{StoreError, location};
use crate::environment::cancel::Cancellation;

/// Size of the blocks in which a local file is written that may be cancelled, in bytes.
const BLOCK: usize = 8 << 20;

/// A location in a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    pub(super) store: Arc<dyn ObjectStore>,
    base: Path,
    kind: StoreKind,
    /// True if only this user can read what is written, whatever the umask.
    is_private: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreKind {
    /// Files of this machine, where directories exist and empty ones are removed.
    Local,
    /// A store that the caller provided.
    Given,
}

/// An object found by [`Storage::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Name relative to the location.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Opens locations as users write them. A simulation implements it with a store that fails.
pub trait Stores: Send + Sync {
    /// Opens a location without reading or creating anything.
    ///
    /// # Errors
    /// - [`StoreError::UnsupportedScheme`] if it is a URL of a scheme that is not supported.
    /// - [`StoreError::InvalidLocation`] if the text is not a location.
    fn open(&self, location: &str) -> Result<Storage, StoreError>;
}

/// The stores that [`Storage::open`] supports.
#[derive(Debug, Clone, Default)]
pub struct LocalStores {
    /// Absolute path of a directory in which what is written is private.
    private: Option<PathBuf>,
}

impl LocalStores {
    /// Returns stores that keep what is written below a directory private to this user.
    #[must_use]
    pub fn private_below(dir: &std::path::Path) -> Self {
        Self {
            private: Some(dir.to_owned()),
        }
    }
}

impl Stores for LocalStores {
    fn open(&self, location: &str) -> Result<Storage, StoreError> {
        let storage = Storage::open(location)?;
        let is_private = match (&self.private, storage.local_dir()) {
            (Some(private), Some(dir)) => dir.starts_with(private),
            _ => false,
        };
        Ok(if is_private { storage.private() } else { storage })
    }
}

impl Storage {
    /// Opens a plain path (absolute or relative) or a `file:` URL without reading or creating anything.
    ///
    /// # Errors
    /// - [`StoreError::UnsupportedScheme`], which lists the supported ones, if it is a URL of another scheme.
    /// - [`StoreError::InvalidLocation`] if the text is not a location, or its path is not UTF-8 or has control
    ///   characters.
    pub fn open(location: &str) -> Result<Self, StoreError> {
        let path = location::local_path(location)?;
        let text = path.to_str().ok_or_else(|| StoreError::InvalidLocation {
            location: location.to_owned(),
            reason: "it is not UTF-8".into(),
        })?;
        let base = Path::parse(text).map_err(|e| StoreError::InvalidLocation {
            location: location.to_owned(),
            reason: e.to_string(),
        })?;
        Ok(Self {
            store: Arc::new(LocalFileSystem::new().with_fsync(true)),
            base,
            kind: StoreKind::Local,
            is_private: false,
        })
    }

    /// Returns a location in a given store, such as the faulty one of a simulation. Its URLs are `store:///…`.
    ///
    /// # Errors
    /// Returns [`StoreError::InvalidLocation`] if `base` has control characters, an empty part, or one of `.` and `..`.
    pub fn with_store(store: Arc<dyn ObjectStore>, base: &str) -> Result<Self, StoreError> {
        let base = Path::parse(base).map_err(|e| StoreError::InvalidLocation {
            location: base.to_owned(),
            reason: e.to_string(),
        })?;
        Ok(Self {
            store,
            base,
            kind: StoreKind::Given,
            is_private: false,
        })
    }

    /// Returns the same location, where objects that are written can be read by this user only, if they are files.
    #[must_use]
    pub fn private(self) -> Self {
        Self {
            is_private: true,
            ..self
        }
    }

    /// Returns a location in a new in-memory store.
    #[cfg(test)]
    pub(crate) fn in_memory(base: &str) -> Self {
        let store = Arc::new(object_store::memory::InMemory::new());
        Self::with_store(store, base).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns the location `name` within this one.
    ///
    /// # Errors
    /// Returns [`StoreError::InvalidLocation`] if `name` has control characters, an empty part, or one of `.` and `..`.
    pub fn child(&self, name: &str) -> Result<Self, StoreError> {
        Ok(Self {
            base: self.path(name)?,
            ..self.clone()
        })
    }

    /// Returns the parent location, or `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.base.as_ref().rsplit_once('/').unwrap_or(("", ""));
        (!self.base.as_ref().is_empty())
            .then(|| Path::parse(parent).ok().map(|base| Self { base, ..self.clone() }))
            .flatten()
    }

    /// Returns the last part of the location; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.base.as_ref().rsplit('/').next().unwrap_or_default()
    }

    /// Returns the URL of the location, `file:///…`, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("")
    }

    /// Returns the URL of the object `name`.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        let base = self.base.as_ref();
        let separator = if name.is_empty() || base.is_empty() { "" } else { "/" };
        match self.kind {
            StoreKind::Local => location::file_url(&format!("/{base}{separator}{name}")),
            StoreKind::Given => format!("store:///{base}{separator}{name}"),
        }
    }

    /// Returns the directory of the location if it is on this machine.
    #[must_use]
    pub fn local_dir(&self) -> Option<PathBuf> {
        (self.kind == StoreKind::Local).then(|| PathBuf::from(format!("/{}", self.base)))
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the object does not exist; otherwise the store's error.
    pub async fn read(&self, name: &str) -> Result<Bytes, StoreError> {
        let error = |e| StoreError::from_object_store(e, "read", self.url_of(name), 0);
        self.store
            .get(&self.path(name)?)
            .await
            .map_err(error)?
            .bytes()
            .await
            .map_err(error)
    }

    /// Reads the given byte ranges of an object. Each result has the length of its range.
    ///
    /// # Errors
    /// As [`Storage::read`]; also fails if the object is shorter than a range.
    pub async fn read_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let error = |e| StoreError::from_object_store(e, "read", self.url_of(name), 0);
        self.store.get_ranges(&self.path(name)?, ranges).await.map_err(error)
    }

    /// Writes an object, replacing an existing one. The object is durable on return.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Permission`] or another error of the store.
    /// The object is then absent, or has its old content.
    pub async fn put(&self, name: &str, bytes: impl Into<Bytes> + Send) -> Result<(), StoreError> {
        self.put_as(name, bytes.into(), PutMode::Overwrite).await
    }

    /// Writes an object as [`Storage::put`] does, and stops between two blocks once it is cancelled.
    ///
    /// # Errors
    /// Those of [`Storage::put`], and [`StoreError::Cancelled`]; the object is then absent, or has its old content.
    pub async fn put_unless_cancelled(
        &self,
        name: &str,
        bytes: Bytes,
        cancellation: &Cancellation,
    ) -> Result<(), StoreError> {
        let path = || self.url_of(name);
        if cancellation.is_cancelled() {
            return Err(StoreError::Cancelled { path: path() });
        }
        if self.kind == StoreKind::Given || bytes.len() <= BLOCK {
            return self.put(name, bytes).await;
        }
        let len = bytes.len();
        let failed = |error| StoreError::from_object_store(error, "write", path(), len);
        let mut upload = self.store.put_multipart(&self.path(name)?).await.map_err(failed)?;
        let mut written = 0;
        let stopped = loop {
            if cancellation.is_cancelled() {
                break StoreError::Cancelled { path: path() };
            }
            if written == len {
                upload.complete().await.map_err(failed)?;
                return self.keep_private(name);
            }
            let end = len.min(written + BLOCK);
            let block = PutPayload::from_bytes(bytes.slice(written..end));
            if let Err(error) = upload.put_part(block).await {
                break failed(error);
            }
            written = end;
        };
        if let Err(error) = upload.abort().await {
            tracing::debug!("the half-written {} stays: {error}", path());
        }
        Err(stopped)
    }

    /// Writes an object that must not exist yet. Of several concurrent calls exactly one succeeds.
    ///
    /// The object is durable on return.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the object exists; otherwise as [`Storage::put`].
    pub async fn create_if_absent(&self, name: &str, bytes: impl Into<Bytes> + Send) -> Result<(), StoreError> {
        self.put_as(name, bytes.into(), PutMode::Create).await
    }

    async fn put_as(&self, name: &str, bytes: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let len = bytes.len();
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        match self
            .store
            .put_opts(&self.path(name)?, PutPayload::from_bytes(bytes), options)
            .await
        {
            Ok(_) => self.keep_private(name),
            Err(e) => Err(StoreError::from_object_store(e, "write", self.url_of(name), len)),
        }
    }

    /// Takes the access of other users to an object that has been written, where the location is private. The directory
    /// above keeps them out meanwhile.
    fn keep_private(&self, name: &str) -> Result<(), StoreError> {
        let Some(dir) = self.local_dir().filter(|_| self.is_private) else {
            return Ok(());
        };
        match std::fs::set_permissions(dir.join(name), Permissions::from_mode(0o600)) {
            // Another process has removed or replaced it meanwhile.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::from_io(error, "write", self.url_of(name)))
            }
            _ => Ok(()),
        }
    }

    /// Lists all objects under a prefix (`""` for all), ordered by name. A missing location has none.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, StoreError> {
        let error = |e| StoreError::from_object_store(e, "list", self.url_of(prefix), 0);
        let at = self.path(prefix)?;
        let found: Vec<_> = match self.store.list(Some(&at)).try_collect().await {
            Ok(found) => found,
            Err(e) => return none_if_absent(error(e)),
        };
        let mut objects: Vec<StoredObject> = found
            .into_iter()
            .filter_map(|meta| {
                Some(StoredObject {
                    name: self.relative(&meta.location)?,
                    bytes: meta.size,
                })
            })
            .collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Lists the names directly at the location: those of sub-locations, and those of objects, each in order.
    ///
    /// A missing location has none.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn list_names(&self) -> Result<(Vec<String>, Vec<String>), StoreError> {
        match self.store.list_with_delimiter(Some(&self.base)).await {
            Ok(found) => {
                let mut dirs: Vec<String> = found.common_prefixes.iter().filter_map(|p| self.relative(p)).collect();
                let mut names: Vec<String> = found
                    .objects
                    .iter()
                    .filter_map(|meta| self.relative(&meta.location))
                    .collect();
                dirs.sort();
                names.sort();
                Ok((dirs, names))
            }
            Err(e) => match StoreError::from_object_store(e, "list", self.url(), 0) {
                StoreError::NotFound { .. } => Ok((Vec::new(), Vec::new())),
                other => Err(other),
            },
        }
    }

    /// Deletes an object; a missing one is no error.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(StoreError::from_object_store(e, "delete", self.url_of(name), 0)),
        }
    }

    /// Deletes an object directly at the location, so that it does not reappear after a power loss.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn delete_durably(&self, name: &str) -> Result<(), StoreError> {
        self.delete(name).await?;
        let Some(dir) = self.local_dir() else { return Ok(()) };
        let sync = move || std::fs::File::open(dir)?.sync_all();
        delete_blocking(self.url_of(name), is_absent, sync).await
    }

    /// Deletes all objects under a prefix (`""` for all), and their directories. A missing prefix is no error.
    ///
    /// # Errors
    /// Returns the store's error; some of the objects may then be deleted.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let at = self.path(prefix)?;
        if self.kind == StoreKind::Given {
            for object in self.list(prefix).await? {
                self.delete(&object.name).await?;
            }
            return Ok(());
        }
        // Not object by object: what a killed writer left half-written is not listed, but has to go too.
        let dir = PathBuf::from(format!("/{at}"));
        delete_blocking(self.url_of(prefix), is_absent, || std::fs::remove_dir_all(dir)).await
    }

    /// Removes files that killed writers left half-written, at the location and below.
    ///
    /// Must not be called while something writes there.
    ///
    /// # Errors
    /// Returns the file system's error.
    pub async fn delete_half_written(&self) -> Result<(), StoreError> {
        let Some(dir) = self.local_dir() else { return Ok(()) };
        delete_blocking(self.url(), |_| false, move || remove_staged(&dir)).await
    }

    /// Removes the location's own directory if it is empty. Does nothing in a store without directories.
    ///
    /// # Errors
    /// Returns the file system's error.
    pub async fn remove_if_empty(&self) -> Result<(), StoreError> {
        let Some(dir) = self.local_dir() else { return Ok(()) };
        delete_blocking(self.url(), is_absent_or_full, || std::fs::remove_dir(dir)).await
    }

    /// Returns true if the object exists.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn exists(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.size(name).await?.is_some())
    }

    /// Returns the size of an object in bytes, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        match self.store.head(&self.path(name)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(e) => match StoreError::from_object_store(e, "read", self.url_of(name), 0) {
                StoreError::NotFound { .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Copies an object to another location, possibly in another store. The copy is durable on return.
    ///
    /// It copies the bytes, because a local store's own copy is a hard link and two savepoints must not share a file.
    ///
    /// # Errors
    /// Those of [`Storage::read`] and [`Storage::put`].
    pub async fn copy(&self, name: &str, to: &Self, to_name: &str) -> Result<(), StoreError> {
        to.put(to_name, self.read(name).await?).await
    }

    pub(super) fn path(&self, name: &str) -> Result<Path, StoreError> {
        if name.is_empty() {
            return Ok(self.base.clone());
        }
        let base = self.base.as_ref();
        let whole = if base.is_empty() {
            name.to_owned()
        } else {
            format!("{base}/{name}")
        };
        if name.starts_with('/') || name.ends_with('/') {
            return Err(StoreError::InvalidLocation {
                location: name.to_owned(),
                reason: "it has an empty part".into(),
            });
        }
        Path::parse(whole).map_err(|e| StoreError::InvalidLocation {
            location: name.to_owned(),
            reason: e.to_string(),
        })
    }

    fn relative(&self, path: &Path) -> Option<String> {
        let rest = path.as_ref().strip_prefix(self.base.as_ref())?;
        Some(rest.strip_prefix('/').unwrap_or(rest).to_owned())
    }
}

/// Removes temporary files of `object_store`, which are named `<name>#<number>`.
///
/// `object_store` neither lists them nor lets them be read.
fn remove_staged(dir: &std::path::Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| Some(name.rsplit_once('#')?.1));
        let staged = number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        match entry.file_type()? {
            kind if kind.is_dir() => remove_staged(&entry.path())?,
            kind if kind.is_file() && staged => std::fs::remove_file(entry.path())?,
            _ => {}
        }
    }
    Ok(())
}

fn none_if_absent(error: StoreError) -> Result<Vec<StoredObject>, StoreError> {
    if error.is_not_found() {
        Ok(Vec::new())
    } else {
        Err(error)
    }
}

/// Runs the blocking work of a deletion. An error that `is_done` accepts means that there is nothing left to do.
async fn delete_blocking(
    url: String,
    is_done: fn(std::io::ErrorKind) -> bool,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<(), StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    match done.unwrap_or_else(|panicked| Err(panicked.into())) {
        Err(error) if !is_done(error.kind()) => Err(StoreError::from_io(error, "delete", url)),
        _ => Ok(()),
    }
}

const fn is_absent(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::NotFound)
}

const fn is_absent_or_full(kind: std::io::ErrorKind) -> bool {
    matches!(
        kind,
        std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
    )
}
