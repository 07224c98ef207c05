//! Publishes savepoints: the order of writes that makes one visible atomically.
//!
//! State files and components are written first, each durable, and `_metadata` last.
//! A host killed at any moment leaves either no `_metadata` or a complete savepoint.

use bytes::Bytes;
use regraft_model::id::SubtaskIndex;
use regraft_model::key_group::KeyGroupRange;

use crate::environment::Environment;
use crate::environment::cancel::Cancellation;
use crate::savepoint::metadata::{METADATA_BYTES_MAX, Metadata, MetadataError, ModuleFile, StateFile, checksum};
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::rows::EncodedStateFile;
use crate::storage::retry::{retried, retried_until};
use crate::storage::{Storage, StoreError, paths};

/// Returns the entry of a state file in `_metadata`. `schema` is as in [`StateFile::schema`].
#[must_use]
pub fn state_file(
    path: String,
    file: EncodedStateFile,
    subtask: SubtaskIndex,
    schema: u16,
    key_groups: KeyGroupRange,
) -> StateFile {
    StateFile {
        path,
        subtask,
        schema,
        key_groups,
        groups: file.groups,
        entries: file.entries,
        bytes: file.bytes.len() as u64,
        checksum: checksum(&file.bytes),
        footer: Some(file.footer),
        increment: false,
    }
}

/// Returns the entry of a component in `_metadata`. `sha256` is the component's digest.
#[must_use]
pub fn module_file(path: String, sha256: &str, component: &[u8]) -> ModuleFile {
    ModuleFile {
        sha256: sha256.to_owned(),
        path,
        bytes: component.len() as u64,
        checksum: checksum(component),
    }
}

/// Writes a file, and retries if the store fails for a moment and the work is not cancelled.
///
/// # Errors
/// Those of [`Storage::put_unless_cancelled`].
pub async fn write_file(
    environment: &dyn Environment,
    storage: &Storage,
    name: &str,
    bytes: Bytes,
    cancellation: &Cancellation,
) -> Result<(), StoreError> {
    let put = || storage.put_unless_cancelled(name, bytes.clone(), cancellation);
    retried_until(environment, cancellation, put).await
}

/// A snapshot that is durable.
#[derive(Debug, PartialEq)]
pub struct Published {
    /// Size of its `_metadata`.
    pub bytes: u64,
    /// Permission to commit the output that it names.
    pub permit: CommitPermit,
}

/// Makes a savepoint or checkpoint visible. All files that `metadata` lists must have been written; those in the directory
/// itself are looked at. Doing it again with the same metadata is no error.
///
/// # Errors
/// - [`MetadataError::Invalid`], [`MetadataError::FileMissing`], [`MetadataError::FileSize`]: nothing was made visible.
/// - [`MetadataError::Store`]: it may or may not be visible; publish again, or call [`remove_partial`].
pub async fn publish(
    environment: &dyn Environment,
    storage: &Storage,
    metadata: &Metadata,
) -> Result<Published, MetadataError> {
    let path = storage.url_of(paths::METADATA);
    let text = Bytes::from(metadata.to_text(&path)?);
    // Shared files existed before, or their put was confirmed.
    for (name, expected) in metadata.files().filter(|(name, _)| paths::in_shared(name).is_none()) {
        let path = storage.url_of(name);
        match retried(environment, || storage.size(name)).await? {
            None => return Err(MetadataError::FileMissing { path }),
            Some(found) if found != expected => return Err(MetadataError::FileSize { path, expected, found }),
            Some(_) => {}
        }
    }
    let create = || async {
        match storage.create_if_absent(paths::METADATA, text.clone()).await {
            // An earlier put succeeded, but its answer was lost.
            Err(StoreError::AlreadyExists { .. })
                if storage.read_at_most(paths::METADATA, METADATA_BYTES_MAX).await? == text =>
            {
                Ok(())
            }
            created => created,
        }
    };
    retried(environment, create).await?;
    Ok(Published {
        bytes: text.len() as u64,
        permit: CommitPermit::of(metadata),
    })
}

/// Removes the files of a failed round. Returns false, and removes nothing, if the savepoint is complete after all.
///
/// # Errors
/// Returns the store's error; the remaining files stay.
pub async fn remove_partial(storage: &Storage) -> Result<bool, StoreError> {
    if storage.exists(paths::METADATA).await? {
        return Ok(false);
    }
    storage.delete_prefix("").await?;
    Ok(true)
}

#[cfg(test)]
mod tests;
