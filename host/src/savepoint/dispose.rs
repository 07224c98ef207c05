//! Removal of a user's savepoint: of the files that its `_metadata` names, and of nothing else.

use super::load::Savepoint;
use super::metadata::Owner;
use crate::storage::{Refusal, StoreError, paths};

/// Number of files that are reported to be kept, at most.
const FOREIGN_MOST: usize = 1000;

/// A savepoint was not removed.
#[derive(Debug, thiserror::Error)]
pub enum DisposeError {
    /// It is a checkpoint, which belongs to the host.
    #[error(
        "{path} is a checkpoint of job {job_id}, not a savepoint: other checkpoints of the job may share its files. Remove the whole directory of the job, {parent}, once none of them is needed."
    )]
    Checkpoint {
        /// URL of the checkpoint.
        path: String,
        /// Job of the checkpoint.
        job_id: String,
        /// URL of the directory with all checkpoints of the job.
        parent: String,
    },
    /// Its directory is a link.
    #[error(
        "{path} is a symbolic link, and what it points to is not removed over it. Give the savepoint's own directory, and remove the link yourself."
    )]
    Link {
        /// URL of the link.
        path: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes a savepoint, and returns the names of files in its directory that are not its own: they stay, and so do the
/// directories that they are in.
///
/// `_metadata` goes first: without it the savepoint does not exist, and any remainder is only files.
///
/// # Errors
/// - [`DisposeError::Checkpoint`] if it is a checkpoint.
/// - [`DisposeError::Link`], and [`StoreError::Refused`] if its directory or one of its files is a link. Nothing is removed
///   in these cases.
/// - [`DisposeError::Store`] if the store fails; the remainder stays.
pub async fn dispose(savepoint: &Savepoint) -> Result<Vec<String>, DisposeError> {
    let (storage, metadata) = (&savepoint.storage, &savepoint.metadata);
    if metadata.owner == Owner::Host {
        return Err(DisposeError::Checkpoint {
            path: savepoint.url(),
            job_id: metadata.job_id.to_string(),
            parent: storage.parent().map_or_else(String::new, |parent| parent.url()),
        });
    }
    let names: Vec<&str> = metadata.files().map(|(name, _)| name).collect();
    refuse_links(savepoint, &names).await?;
    storage.delete_durably(paths::METADATA).await?;
    for name in &names {
        storage.remove(name).await?;
    }
    let foreign = storage.names(FOREIGN_MOST).await?;
    // A file with the name of one of our directories is not ours.
    let is_foreign = |dir: &&str| foreign.iter().any(|name| name == dir);
    for dir in [paths::OPERATORS, paths::MODULES].iter().filter(|dir| !is_foreign(dir)) {
        storage.child(dir)?.remove_if_empty().await?;
    }
    storage.remove_if_empty().await?;
    Ok(foreign)
}

/// Checks that neither the directory nor one of the files is a link.
async fn refuse_links(savepoint: &Savepoint, names: &[&str]) -> Result<(), DisposeError> {
    let storage = &savepoint.storage;
    if let Some(parent) = storage.parent() {
        // A directory is no file, as it has to be.
        if let Err(StoreError::Refused {
            refusal: Refusal::Link, ..
        }) = parent.is_plain_file(storage.name()).await
        {
            let path = savepoint.url();
            return Err(DisposeError::Link { path });
        }
    }
    for name in [paths::METADATA].iter().chain(names) {
        storage.is_plain_file(name).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::savepoint::test_data;
    use crate::storage::paths;

    #[tokio::test]
    async fn only_what_is_its_own_goes() {
        let mut savepoint = test_data::savepoint().await;
        let storage = savepoint.storage.clone();
        storage.put("notes.txt", "the user's").await.expect("put");
        savepoint.metadata.owner = Owner::Host;
        let refused = dispose(&savepoint).await.expect_err("the host's").to_string();
        let (url, job) = (savepoint.url(), savepoint.metadata.job_id);
        assert!(
            refused.starts_with(&format!("{url} is a checkpoint of job {job}, not a savepoint: ")),
            "{refused}"
        );
        assert!(storage.exists(paths::METADATA).await.expect("asked"));
        savepoint.metadata.owner = Owner::User;
        storage.put("operators/notes.txt", "the user's").await.expect("put");
        let foreign = ["notes.txt", "operators/notes.txt"];
        assert_eq!(dispose(&savepoint).await.expect("disposed"), foreign);
        let left = storage.list("").await.expect("listed");
        let left: Vec<&str> = left.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(left, foreign);
        dispose(&savepoint).await.expect("what is gone is no error");
    }
}
