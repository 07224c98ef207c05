//! Objects at a location, over `object_store`.
//!
//! A name is relative to the location, with `/` between its parts. Writes are whole objects: a reader sees all of it or none.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{StoreError, location};

/// A location in a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    base: Path,
    kind: StoreKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreKind {
    /// Files of this machine: directories exist, and empty ones are removed.
    Local,
    /// A store that was given to us.
    Given,
}

/// An object that [`Storage::list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Relative to the location.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Opens locations by what users write. A simulation has its own, whose store fails.
pub trait Stores: Send + Sync {
    /// A location. Nothing is read or made.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedScheme`], [`StoreError::InvalidLocation`].
    fn open(&self, location: &str) -> Result<Storage, StoreError>;
}

/// What [`Storage::open`] knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalStores;

impl Stores for LocalStores {
    fn open(&self, location: &str) -> Result<Storage, StoreError> {
        Storage::open(location)
    }
}

impl Storage {
    /// Opens a plain path (absolute or relative) or a `file:///` URL. Nothing is read or made.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedScheme`] lists what is supported; [`StoreError::InvalidLocation`].
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
        })
    }

    /// A location in a given store, for instance a faulty one in a simulation. Its URLs are `store:///…`.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`].
    pub fn with_store(store: Arc<dyn ObjectStore>, base: &str) -> Result<Self, StoreError> {
        let base = Path::parse(base).map_err(|e| StoreError::InvalidLocation {
            location: base.to_owned(),
            reason: e.to_string(),
        })?;
        Ok(Self {
            store,
            base,
            kind: StoreKind::Given,
        })
    }

    /// A location in a new store that lives in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(base: &str) -> Self {
        let store = Arc::new(object_store::memory::InMemory::new());
        Self::with_store(store, base).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The location `name` within this one.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`] for a name with `..` or empty parts.
    pub fn child(&self, name: &str) -> Result<Self, StoreError> {
        Ok(Self {
            base: self.path(name)?,
            ..self.clone()
        })
    }

    /// The location that this one is in; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.base.as_ref().rsplit_once('/').unwrap_or(("", ""));
        (!self.base.as_ref().is_empty())
            .then(|| Path::parse(parent).ok().map(|base| Self { base, ..self.clone() }))
            .flatten()
    }

    /// The last part of the location.
    #[must_use]
    pub fn name(&self) -> &str {
        self.base.as_ref().rsplit('/').next().unwrap_or_default()
    }

    /// The location as a URL, `file:///…`, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("")
    }

    /// The URL of an object.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        let base = self.base.as_ref();
        let separator = if name.is_empty() || base.is_empty() { "" } else { "/" };
        match self.kind {
            StoreKind::Local => location::file_url(&format!("/{base}{separator}{name}")),
            StoreKind::Given => format!("store:///{base}{separator}{name}"),
        }
    }

    /// The directory, where the location is one of this machine.
    #[must_use]
    pub fn local_dir(&self) -> Option<PathBuf> {
        (self.kind == StoreKind::Local).then(|| PathBuf::from(format!("/{}", self.base)))
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and the others of reading.
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

    /// Reads parts of an object, each as long as it was asked for.
    ///
    /// # Errors
    /// As [`Storage::read`]; also where the object is too short.
    pub async fn read_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let error = |e| StoreError::from_object_store(e, "read", self.url_of(name), 0);
        self.store.get_ranges(&self.path(name)?, ranges).await.map_err(error)
    }

    /// Writes an object, over one that is there. When it returns, the object is durable.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Permission`] and the others of writing; then no object is seen, or the old one.
    pub async fn put(&self, name: &str, bytes: impl Into<Bytes> + Send) -> Result<(), StoreError> {
        self.put_as(name, bytes.into(), PutMode::Overwrite).await
    }

    /// Writes an object that must not be there. Of several at once, exactly one succeeds. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], else as [`Storage::put`].
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
            Ok(_) => Ok(()),
            Err(e) => Err(StoreError::from_object_store(e, "write", self.url_of(name), len)),
        }
    }

    /// All objects under a prefix (`""`: all), ordered by name. A location that is not there has none.
    ///
    /// # Errors
    /// As the store says.
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

    /// The names of what is directly at the location: sub-locations, then objects, each ordered.
    ///
    /// # Errors
    /// As the store says.
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

    /// Deletes an object. One that is not there is no error.
    ///
    /// # Errors
    /// As the store says.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(StoreError::from_object_store(e, "delete", self.url_of(name), 0)),
        }
    }

    /// Deletes an object that is directly at the location, so that it does not come back after a power loss.
    ///
    /// # Errors
    /// As the store says.
    pub async fn delete_durably(&self, name: &str) -> Result<(), StoreError> {
        self.delete(name).await?;
        let Some(dir) = self.local_dir() else { return Ok(()) };
        let error = |e| StoreError::from_io(e, "delete", self.url_of(name));
        match tokio::task::spawn_blocking(move || std::fs::File::open(dir)?.sync_all()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Ok(Err(e)) => Err(error(e)),
            Err(e) => Err(error(e.into())),
        }
    }

    /// Deletes all objects under a prefix (`""`: all), and the directories. A prefix that is not there is no error.
    ///
    /// # Errors
    /// As the store says; some objects may then be deleted.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let at = self.path(prefix)?;
        if self.kind == StoreKind::Given {
            for object in self.list(prefix).await? {
                self.delete(&object.name).await?;
            }
            return Ok(());
        }
        // Not object by object: what a killed writer left half-written is not listed, but has to go too.
        let error = |e| StoreError::from_io(e, "delete", self.url_of(prefix));
        let dir = PathBuf::from(format!("/{at}"));
        match tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Ok(Err(e)) => Err(error(e)),
            Err(e) => Err(error(e.into())),
        }
    }

    /// Removes what killed writers have left half-written at the location and below. To be called where nobody writes.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn delete_half_written(&self) -> Result<(), StoreError> {
        let Some(dir) = self.local_dir() else { return Ok(()) };
        let error = |e| StoreError::from_io(e, "delete", self.url());
        match tokio::task::spawn_blocking(move || remove_staged(&dir)).await {
            Ok(removed) => removed.map_err(error),
            Err(e) => Err(error(e.into())),
        }
    }

    /// Removes the location's own directory where it is empty. Stores without directories have nothing to do.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn remove_if_empty(&self) -> Result<(), StoreError> {
        let Some(dir) = self.local_dir() else { return Ok(()) };
        let error = |e| StoreError::from_io(e, "delete", self.url());
        match tokio::task::spawn_blocking(move || std::fs::remove_dir(dir)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) if is_absent_or_full(e.kind()) => Ok(()),
            Ok(Err(e)) => Err(error(e)),
            Err(e) => Err(error(e.into())),
        }
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// As the store says.
    pub async fn exists(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.size(name).await?.is_some())
    }

    /// The size of an object; none where it is not there.
    ///
    /// # Errors
    /// As the store says.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        match self.store.head(&self.path(name)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(e) => match StoreError::from_object_store(e, "read", self.url_of(name), 0) {
                StoreError::NotFound { .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Copies an object to another location, maybe in another store. Durable when it returns.
    ///
    /// The bytes are copied: a local store's own copy is a hard link, and two savepoints must not share a file.
    ///
    /// # Errors
    /// Those of [`Storage::read`] and [`Storage::put`].
    pub async fn copy(&self, name: &str, to: &Self, to_name: &str) -> Result<(), StoreError> {
        to.put(to_name, self.read(name).await?).await
    }

    fn path(&self, name: &str) -> Result<Path, StoreError> {
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

/// Removes files that `object_store` was writing: `<name>#<number>`. It lists no such file, and gives none of them to readers.
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

const fn is_absent_or_full(kind: std::io::ErrorKind) -> bool {
    matches!(
        kind,
        std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
    )
}
