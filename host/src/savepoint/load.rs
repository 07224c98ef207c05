//! Opens the savepoint that a user names, and reads its files.
//!
//! All data that is read is checked: size and checksum of the file, or of the parts that are needed.

use bytes::Bytes;
use regraft_model::key_group::KeyGroupRange;

use crate::savepoint::metadata::{Metadata, MetadataError, ModuleFile, StateEntry, StateFile, checksum};
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::rows::{FileParts, Place, StateFileSpec, StateRows, read_state_file};
use crate::storage::{Storage, StoreError, Stores, paths};

/// A complete savepoint or checkpoint at its present location.
#[derive(Debug, Clone)]
pub struct Savepoint {
    /// Its location, to which all paths are relative.
    pub storage: Storage,
    /// Its content.
    pub metadata: Metadata,
}

/// Returns the directory of a savepoint from a path or URL of the directory or of its `_metadata` file.
///
/// # Errors
/// [`StoreError::InvalidLocation`].
pub fn directory(stores: &dyn Stores, location: &str) -> Result<Storage, StoreError> {
    let storage = stores.open(location)?;
    Ok(match storage.parent() {
        Some(directory) if storage.name() == paths::METADATA => directory,
        _ => storage,
    })
}

impl Savepoint {
    /// Opens a savepoint, given its directory or its `_metadata` file as a path or URL.
    ///
    /// # Errors
    /// - [`MetadataError::Missing`] if there is none.
    /// - [`MetadataError::Store`] if the location is not valid or cannot be read.
    /// - Those of [`Metadata::from_text`].
    pub async fn open(stores: &dyn Stores, location: &str) -> Result<Self, MetadataError> {
        Self::load(directory(stores, location)?).await
    }

    /// Reads the `_metadata` of a directory.
    ///
    /// # Errors
    /// - [`MetadataError::Missing`] if there is none.
    /// - [`MetadataError::Store`] if it cannot be read.
    /// - Those of [`Metadata::from_text`].
    pub async fn load(storage: Storage) -> Result<Self, MetadataError> {
        let path = storage.url_of(paths::METADATA);
        let text = match storage.read(paths::METADATA).await {
            Ok(text) => text,
            Err(StoreError::NotFound { path }) => return Err(MetadataError::Missing { path }),
            Err(error) => return Err(error.into()),
        };
        let metadata = Metadata::from_text(&text, &path)?;
        Ok(Self { storage, metadata })
    }

    /// Permission to commit the output that it names.
    #[must_use]
    pub fn permit(&self) -> CommitPermit {
        CommitPermit::of(&self.metadata)
    }

    /// Its location as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.storage.url()
    }

    /// Returns the URL of a file that `_metadata` lists.
    #[must_use]
    pub fn url_of(&self, path: &str) -> String {
        match self.locate(path) {
            Ok((storage, name)) => storage.url_of(name),
            Err(_) => self.storage.url_of(path),
        }
    }

    /// Resolves a path in `_metadata` to a location and a name: the savepoint's directory, or that which the
    /// checkpoints of a job share.
    fn locate<'a>(&self, path: &'a str) -> Result<(Storage, &'a str), StoreError> {
        let Some(name) = paths::in_shared(path) else {
            return Ok((self.storage.clone(), path));
        };
        let job = self.storage.parent().ok_or_else(|| StoreError::InvalidLocation {
            location: self.storage.url(),
            reason: format!("its _metadata refers to {path}"),
        })?;
        Ok((job.child(paths::SHARED_DIR)?, name))
    }

    /// Reads a state file.
    ///
    /// # Errors
    /// - [`MetadataError::FileMissing`], [`MetadataError::SharedMissing`] if the file does not exist.
    /// - [`MetadataError::FileSize`] if it has another size.
    /// - [`MetadataError::Damaged`] if its checksum is wrong.
    /// - [`MetadataError::Store`] if it cannot be read.
    pub async fn read_file(&self, file: &StateFile) -> Result<Bytes, MetadataError> {
        self.read(&file.path, file.bytes, &file.checksum).await
    }

    /// Reads the parts of a state file that `range` needs, or all of it if `_metadata` does not list its parts.
    ///
    /// # Errors
    /// As [`Savepoint::read_file`].
    pub async fn read_parts(&self, file: &StateFile, range: KeyGroupRange) -> Result<FileParts, MetadataError> {
        let Some(footer) = &file.footer else {
            return Ok(self.read_file(file).await?.into());
        };
        let wanted = file
            .groups
            .iter()
            .filter(|extent| extent.range().intersect(range).is_some());
        let places: Vec<&Place> = wanted
            .filter_map(|extent| extent.place.as_ref())
            .chain([footer])
            .collect();
        let (storage, name) = self.locate(&file.path)?;
        let path = storage.url_of(name);
        let ranges: Vec<_> = places.iter().map(|place| place.range()).collect();
        let read = match storage.read_ranges(name, &ranges).await {
            Ok(read) => read,
            Err(error) => return Err(self.read_error(&file.path, file.bytes, error).await),
        };
        let mut parts = vec![];
        for (place, bytes) in places.into_iter().zip(read) {
            check_bytes(&path, &bytes, place.bytes, &place.checksum)?;
            parts.push((place.offset, bytes));
        }
        Ok(FileParts::new(file.bytes, parts))
    }

    /// Finds the error to report for a file that could not be read.
    async fn read_error(&self, path: &str, size: u64, error: StoreError) -> MetadataError {
        if let StoreError::NotFound { path: url } = error {
            return match paths::in_shared(path) {
                Some(_) => MetadataError::SharedMissing { path: url },
                None => MetadataError::FileMissing { path: url },
            };
        }
        let found = match self.locate(path) {
            Ok((storage, name)) => storage.size(name).await.ok().flatten(),
            Err(_) => None,
        };
        match found.filter(|found| *found != size) {
            Some(found) => MetadataError::FileSize {
                path: self.url_of(path),
                expected: size,
                found,
            },
            None => error.into(),
        }
    }

    /// Reads a component.
    ///
    /// # Errors
    /// As [`Savepoint::read_file`].
    pub async fn read_module(&self, module: &ModuleFile) -> Result<Bytes, MetadataError> {
        self.read(&module.path, module.bytes, &module.checksum).await
    }

    /// Reads the rows of the key groups in `range`. Decodes them on the calling thread, a few million per second.
    ///
    /// # Errors
    /// As [`Savepoint::read_file`], and [`MetadataError::Rows`] if the rows cannot be decoded.
    pub async fn read_rows(
        &self,
        state: &StateEntry,
        file: &StateFile,
        range: KeyGroupRange,
    ) -> Result<Vec<StateRows>, MetadataError> {
        let parts = self.read_parts(file, range).await?;
        self.decode_rows(state, file, range, parts)
    }

    /// Decodes the rows of the key groups in `range` from parts of a state file.
    ///
    /// # Errors
    /// Returns [`MetadataError::Rows`] if the rows cannot be decoded.
    pub fn decode_rows(
        &self,
        state: &StateEntry,
        file: &StateFile,
        range: KeyGroupRange,
        parts: impl Into<FileParts>,
    ) -> Result<Vec<StateRows>, MetadataError> {
        let spec = StateFileSpec {
            layout: self.metadata.format,
            state: &state.name,
            key: &state.key_field(),
            entries: state.entries_of_key(),
            value: state.schema_of(file),
            schema: file.schema,
            expires: true,
        };
        read_state_file(parts, &spec, range, &file.groups).map_err(|source| MetadataError::Rows {
            path: self.url_of(&file.path),
            source: Box::new(source),
        })
    }

    async fn read(&self, path: &str, size: u64, expected: &str) -> Result<Bytes, MetadataError> {
        let (storage, name) = self.locate(path)?;
        let bytes = match storage.read(name).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.read_error(path, size, error).await),
        };
        check_bytes(&storage.url_of(name), &bytes, size, expected)?;
        Ok(bytes)
    }
}

fn check_bytes(path: &str, bytes: &Bytes, size: u64, expected: &str) -> Result<(), MetadataError> {
    if bytes.len() as u64 != size {
        return Err(MetadataError::FileSize {
            path: path.to_owned(),
            expected: size,
            found: bytes.len() as u64,
        });
    }
    let found = checksum(bytes);
    if found != expected {
        return Err(MetadataError::Damaged {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        });
    }
    Ok(())
}
