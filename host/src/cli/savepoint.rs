//! Savepoints as verbs are given them: opening one, and finding the jobs that would miss it.

use super::failure::Failure;
use crate::api::client::{Client, FoundJob};
use crate::api::types::{SnapshotList, SnapshotRowKind};
use crate::jobs::handle::JobError;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::MetadataError;
use crate::storage::LocalStores;

/// Opens a savepoint by its directory or its `_metadata` file.
///
/// # Errors
/// [`Failure`] where there is none, or it is damaged.
pub(super) async fn open(path: &str) -> Result<Savepoint, Failure> {
    let opened = Savepoint::open(&LocalStores, path).await;
    opened.map_err(|error: MetadataError| Failure {
        path: Some(path.to_owned()),
        ..Failure::new(error.kind(), error.to_string())
    })
}

/// Returns true if a job would go back to this savepoint if it failed now: it started from it, and has no checkpoint of its
/// own.
pub(super) fn is_needed_by(client: &Client, job: &FoundJob, savepoint: &Savepoint) -> Result<bool, JobError> {
    let url = savepoint.url();
    let from = job.summary.restored_from.as_ref() == Some(&url);
    let own = |list: SnapshotList| list.snapshots.iter().any(|row| row.kind == SnapshotRowKind::Checkpoint);
    Ok(from && !own(client.snapshots(job)?))
}
