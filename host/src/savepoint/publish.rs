//! The order of writes that makes a savepoint visible at once: state files and components first, each durable, `_metadata` last.
//!
//! A host that is killed at any moment leaves either no `_metadata`, or a complete savepoint.

use bytes::Bytes;
use regraft_model::id::SubtaskIndex;
use regraft_model::key_group::KeyGroupRange;

use crate::savepoint::metadata::{Metadata, MetadataError, ModuleFile, StateFile, checksum};
use crate::savepoint::rows::EncodedStateFile;
use crate::storage::{Storage, StoreError, paths};

/// Writes a state file and answers how `_metadata` lists it. `schema` is as in [`StateFile::schema`].
///
/// # Errors
/// Those of [`Storage::put`].
pub async fn write_state_file(
    storage: &Storage,
    path: String,
    file: EncodedStateFile,
    subtask: SubtaskIndex,
    schema: u16,
    key_groups: KeyGroupRange,
) -> Result<StateFile, StoreError> {
    let EncodedStateFile {
        bytes,
        groups,
        footer,
        entries,
    } = file;
    let (size, checksum) = (bytes.len() as u64, checksum(&bytes));
    storage.put(&path, bytes).await?;
    Ok(StateFile {
        path,
        subtask,
        schema,
        key_groups,
        groups,
        entries,
        bytes: size,
        checksum,
        footer: Some(footer),
        increment: false,
    })
}

/// Writes a component, whose digest the caller knows, and answers how `_metadata` lists it.
///
/// # Errors
/// Those of [`Storage::put`].
pub async fn write_module(storage: &Storage, sha256: &str, component: Bytes) -> Result<ModuleFile, StoreError> {
    let path = paths::module(sha256);
    let module = ModuleFile {
        sha256: sha256.to_owned(),
        path: path.clone(),
        bytes: component.len() as u64,
        checksum: checksum(&component),
    };
    storage.put(&path, component).await?;
    Ok(module)
}

/// Makes a savepoint visible. All files that `metadata` lists must have been written to the same location.
/// Answers the size of the whole savepoint in bytes. Doing it again with the same metadata is no error.
///
/// # Errors
/// [`MetadataError::Invalid`], [`MetadataError::FileMissing`], [`MetadataError::FileSize`]: nothing was made visible.
/// [`MetadataError::Store`]: it may or may not be visible; publish again, or [`remove_partial`].
pub async fn publish(storage: &Storage, metadata: &Metadata) -> Result<u64, MetadataError> {
    let path = storage.url_of(paths::METADATA);
    let text = metadata.to_text(&path)?;
    let mut bytes = text.len() as u64;
    for (name, expected) in metadata.files() {
        match storage.size(name).await? {
            None => {
                return Err(MetadataError::FileMissing {
                    path: storage.url_of(name),
                });
            }
            Some(found) if found != expected => {
                return Err(MetadataError::FileSize {
                    path: storage.url_of(name),
                    expected,
                    found,
                });
            }
            Some(found) => bytes += found,
        }
    }
    match storage.create_if_absent(paths::METADATA, text.clone()).await {
        Ok(()) => Ok(bytes),
        // A put whose answer was lost.
        Err(StoreError::AlreadyExists { .. }) if storage.read(paths::METADATA).await? == text.as_bytes() => Ok(bytes),
        Err(error) => Err(error.into()),
    }
}

/// Removes what a failed round has written. One that is complete after all is left alone: the answer is then false.
///
/// # Errors
/// As the store says; the rest of it stays.
pub async fn remove_partial(storage: &Storage) -> Result<bool, StoreError> {
    if storage.exists(paths::METADATA).await? {
        return Ok(false);
    }
    storage.delete_prefix("").await?;
    Ok(true)
}

/// Deletes a savepoint: `_metadata` first, so that at no moment an incomplete one looks complete, then what a savepoint holds.
/// Other files in the directory stay, and the directory with them.
///
/// # Errors
/// As the store says; the rest of it stays.
pub async fn dispose(storage: &Storage) -> Result<(), StoreError> {
    storage.delete(paths::METADATA).await?;
    storage.delete_prefix(paths::OPERATORS).await?;
    storage.delete_prefix(paths::MODULES).await?;
    storage.remove_if_empty().await
}

#[cfg(test)]
mod tests;
