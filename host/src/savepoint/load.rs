//! From what a user gave with `-s` to a savepoint that can be read. Whatever is read of a file is checked: its size and checksum,
//! or those of the parts that are wanted.

use bytes::Bytes;
use regraft_model::key_group::KeyGroupRange;

use crate::savepoint::metadata::{Metadata, MetadataError, ModuleFile, StateEntry, StateFile, checksum};
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::rows::{FileParts, Place, StateFileSpec, StateRows, read_state_file};
use crate::storage::{Storage, StoreError, Stores, paths};

/// A complete savepoint or checkpoint, wherever it is now.
#[derive(Debug, Clone)]
pub struct Savepoint {
    /// Where it is: all paths are relative to this.
    pub storage: Storage,
    /// What it holds.
    pub metadata: Metadata,
}

impl Savepoint {
    /// Opens a savepoint: its directory or its `_metadata` file, as a path or URL.
    ///
    /// # Errors
    /// [`MetadataError`]; [`MetadataError::Missing`] where there is none.
    pub async fn open(stores: &dyn Stores, location: &str) -> Result<Self, MetadataError> {
        let storage = stores.open(location)?;
        match storage.parent() {
            Some(directory) if storage.name() == paths::METADATA => Self::load(directory).await,
            _ => Self::load(storage).await,
        }
    }

    /// Reads the `_metadata` of a directory.
    ///
    /// # Errors
    /// [`MetadataError`].
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

    /// The URL of a file that `_metadata` names.
    #[must_use]
    pub fn url_of(&self, path: &str) -> String {
        match self.locate(path) {
            Ok((storage, name)) => storage.url_of(name),
            Err(_) => self.storage.url_of(path),
        }
    }

    /// Where a file is that `_metadata` names: in its directory, or in the one that checkpoints of a job share.
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
    /// [`MetadataError::FileMissing`], [`MetadataError::SharedMissing`], [`MetadataError::FileSize`],
    /// [`MetadataError::Damaged`].
    pub async fn read_file(&self, file: &StateFile) -> Result<Bytes, MetadataError> {
        self.read(&file.path, file.bytes, &file.checksum).await
    }

    /// Reads what of a state file is needed for some key groups; all of it where its parts are not known.
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

    /// What is wrong with a file that could not be read.
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

    /// Reads the rows of some key groups. Decoding takes the calling thread: a few million rows a second.
    ///
    /// # Errors
    /// As [`Savepoint::read_file`], and [`MetadataError::Rows`].
    pub async fn read_rows(
        &self,
        state: &StateEntry,
        file: &StateFile,
        range: KeyGroupRange,
    ) -> Result<Vec<StateRows>, MetadataError> {
        let parts = self.read_parts(file, range).await?;
        self.decode_rows(state, file, range, parts)
    }

    /// Decodes the rows of some key groups from what was read of a state file.
    ///
    /// # Errors
    /// [`MetadataError::Rows`].
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
