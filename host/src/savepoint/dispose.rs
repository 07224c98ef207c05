//! Removal of a user's savepoint.

use super::load::Savepoint;
use super::metadata::Owner;
use super::publish;
use crate::storage::StoreError;

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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes a savepoint.
///
/// `_metadata` goes first: without it the savepoint does not exist, and any remainder is only files.
///
/// # Errors
/// - [`DisposeError::Checkpoint`] if it is a checkpoint; nothing is removed.
/// - [`DisposeError::Store`] if the store fails; the remainder stays.
pub async fn dispose(savepoint: &Savepoint) -> Result<(), DisposeError> {
    let (storage, metadata) = (&savepoint.storage, &savepoint.metadata);
    if metadata.owner == Owner::Host {
        return Err(DisposeError::Checkpoint {
            path: savepoint.url(),
            job_id: metadata.job_id.to_string(),
            parent: storage.parent().map_or_else(String::new, |parent| parent.url()),
        });
    }
    Ok(publish::dispose(storage).await?)
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
        dispose(&savepoint).await.expect("disposed");
        let left = storage.list("").await.expect("listed");
        let left: Vec<&str> = left.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(left, ["notes.txt"]);
        dispose(&savepoint).await.expect("what is gone is no error");
    }
}
