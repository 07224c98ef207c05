//! From what a user gave with `-s` to a savepoint that can be read. Every file's size and checksum are checked as it is read.

use bytes::Bytes;
use regraft_model::key_group::KeyGroupRange;

use crate::savepoint::metadata::{Metadata, MetadataError, ModuleFile, StateEntry, StateFile, checksum};
use crate::savepoint::rows::{StateFileSpec, StateRows, read_state_file};
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

    /// Its location as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.storage.url()
    }

    /// Reads a state file.
    ///
    /// # Errors
    /// [`MetadataError::FileMissing`], [`MetadataError::FileSize`], [`MetadataError::Damaged`].
    pub async fn read_file(&self, file: &StateFile) -> Result<Bytes, MetadataError> {
        self.read(&file.path, file.bytes, &file.checksum).await
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
        let bytes = self.read_file(file).await?;
        self.decode_rows(state, file, range, bytes)
    }

    /// Decodes the rows of some key groups from a state file's bytes, which were read before.
    ///
    /// # Errors
    /// [`MetadataError::Rows`].
    pub fn decode_rows(
        &self,
        state: &StateEntry,
        file: &StateFile,
        range: KeyGroupRange,
        bytes: Bytes,
    ) -> Result<Vec<StateRows>, MetadataError> {
        let spec = StateFileSpec {
            layout: self.metadata.format,
            state: &state.name,
            key: &state.key_field(),
            value: state.schema_of(file),
            schema: file.schema,
        };
        read_state_file(bytes, &spec, range, &file.groups).map_err(|source| MetadataError::Rows {
            path: self.storage.url_of(&file.path),
            source: Box::new(source),
        })
    }

    async fn read(&self, name: &str, size: u64, expected: &str) -> Result<Bytes, MetadataError> {
        let bytes = match self.storage.read(name).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { path }) => return Err(MetadataError::FileMissing { path }),
            Err(error) => return Err(error.into()),
        };
        let path = self.storage.url_of(name);
        if bytes.len() as u64 != size {
            return Err(MetadataError::FileSize {
                path,
                expected: size,
                found: bytes.len() as u64,
            });
        }
        let found = checksum(&bytes);
        if found != expected {
            return Err(MetadataError::Damaged {
                path,
                expected: expected.to_owned(),
                found,
            });
        }
        Ok(bytes)
    }
}
