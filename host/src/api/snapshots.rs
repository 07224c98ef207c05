//! The snapshots of a job: its checkpoints, and the savepoints that are known to be its own.

use regraft_model::id::CheckpointId;

use super::entries::Entry;
use super::types::SnapshotRow;
use crate::jobs::durable::job::HostContext;
use crate::jobs::durable::records::JobDirectory;
use crate::jobs::handle::JobError;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::Owner;
use crate::storage::{Storage, paths};

/// Checkpoints come and go while they are read: they are listed anew at most so often.
const LISTINGS: u32 = 5;

/// All snapshots of a job that are complete, in order of their rounds. What has been removed meanwhile is not listed.
///
/// # Errors
/// [`JobError`] where the checkpoint directory cannot be read.
pub async fn snapshots(host: &HostContext, entry: &Entry) -> Result<Vec<SnapshotRow>, JobError> {
    let failed = |error: crate::storage::StoreError| JobError::failed(error.to_string());
    let mut rows = vec![];
    if let Some(graph) = &entry.graph {
        let all = host.stores.open(&host.checkpoint_dir_of(graph)).map_err(failed)?;
        let directory = JobDirectory::new(&all, entry.job_id).map_err(failed)?;
        rows = checkpoints(&directory).await.map_err(failed)?;
    }
    for savepoint in &entry.savepoints {
        let place = host.stores.open(&savepoint.path).map_err(failed)?;
        // The user may have moved it away.
        rows.extend(row(place).await);
    }
    rows.sort_by_key(|row| row.checkpoint_id);
    Ok(rows)
}

/// The checkpoints that are complete. One that is under way has no `_metadata` yet, and one that a newer one has replaced
/// none any more: then there is a newer one to be listed.
async fn checkpoints(directory: &JobDirectory) -> Result<Vec<SnapshotRow>, crate::storage::StoreError> {
    let mut ids = directory.checkpoints().await?;
    for _ in 1..LISTINGS {
        let rows = read(directory, &ids).await?;
        let now = directory.checkpoints().await?;
        if now == ids {
            return Ok(rows);
        }
        ids = now;
    }
    read(directory, &ids).await
}

async fn read(directory: &JobDirectory, ids: &[CheckpointId]) -> Result<Vec<SnapshotRow>, crate::storage::StoreError> {
    let mut rows = vec![];
    for id in ids {
        rows.extend(row(directory.checkpoint(*id)?).await);
    }
    Ok(rows)
}

/// None: it is not there, or is no snapshot.
async fn row(place: Storage) -> Option<SnapshotRow> {
    let found = Savepoint::load(place).await.ok()?;
    let itself = found.storage.size(paths::METADATA).await.ok()??;
    let metadata = &found.metadata;
    let kind = if metadata.owner == Owner::Host {
        "checkpoint"
    } else {
        "savepoint"
    };
    Some(SnapshotRow {
        kind: kind.to_owned(),
        owner: metadata.owner.to_string(),
        trigger: metadata.trigger.to_string(),
        checkpoint_id: metadata.checkpoint_id,
        completed_at: metadata.completed_at_ms,
        bytes: itself + metadata.files().map(|(_, bytes)| bytes).sum::<u64>(),
        path: found.url(),
    })
}
