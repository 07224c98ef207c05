//! The order of writes that makes a savepoint visible at once: state files and components first, each durable, `_metadata` last.
//!
//! A host that is killed at any moment leaves either no `_metadata`, or a complete savepoint.

use bytes::Bytes;
use regraft_model::id::SubtaskIndex;
use regraft_model::key_group::KeyGroupRange;

use crate::environment::Environment;
use crate::savepoint::metadata::{Metadata, MetadataError, ModuleFile, StateFile, checksum};
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::rows::EncodedStateFile;
use crate::storage::retry::retried;
use crate::storage::{Storage, StoreError, paths};

/// How `_metadata` lists a state file. `schema` is as in [`StateFile::schema`].
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

/// How `_metadata` lists a component, whose digest the caller knows.
#[must_use]
pub fn module_file(path: String, sha256: &str, component: &[u8]) -> ModuleFile {
    ModuleFile {
        sha256: sha256.to_owned(),
        path,
        bytes: component.len() as u64,
        checksum: checksum(component),
    }
}

/// Writes a file, again where the store fails for a moment.
///
/// # Errors
/// Those of [`Storage::put`].
pub async fn write_file(
    environment: &dyn Environment,
    storage: &Storage,
    name: &str,
    bytes: Bytes,
) -> Result<(), StoreError> {
    retried(environment, || storage.put(name, bytes.clone())).await
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
/// [`MetadataError::Invalid`], [`MetadataError::FileMissing`], [`MetadataError::FileSize`]: nothing was made visible.
/// [`MetadataError::Store`]: it may or may not be visible; publish again, or [`remove_partial`].
pub async fn publish(
    environment: &dyn Environment,
    storage: &Storage,
    metadata: &Metadata,
) -> Result<Published, MetadataError> {
    let path = storage.url_of(paths::METADATA);
    let text = Bytes::from(metadata.to_text(&path)?);
    // What is shared was there before, or its put was answered.
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
            // A put whose answer was lost.
            Err(StoreError::AlreadyExists { .. }) if storage.read(paths::METADATA).await? == text => Ok(()),
            created => created,
        }
    };
    retried(environment, create).await?;
    Ok(Published {
        bytes: text.len() as u64,
        permit: CommitPermit::of(metadata),
    })
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
