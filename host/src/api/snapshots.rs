//! The snapshots of a job: its checkpoints, and the savepoints that are known to be its own.

use super::entries::Entry;
use super::types::SnapshotRow;
use crate::jobs::handle::JobError;
use crate::jobs::job::HostContext;
use crate::jobs::records::JobDirectory;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::Owner;

/// All snapshots of a job that are complete, in order of their rounds. What has been removed meanwhile is not listed.
///
/// # Errors
/// [`JobError`] where the checkpoint directory cannot be read.
pub async fn snapshots(host: &HostContext, entry: &Entry) -> Result<Vec<SnapshotRow>, JobError> {
    let failed = |error: crate::storage::StoreError| JobError::failed(error.to_string());
    let mut places = vec![];
    if let Some(graph) = &entry.graph {
        let all = host.stores.open(&host.checkpoint_dir_of(graph)).map_err(failed)?;
        let directory = JobDirectory::new(&all, entry.job_id).map_err(failed)?;
        for id in directory.checkpoints().await.map_err(failed)? {
            places.push(directory.checkpoint(id).map_err(failed)?);
        }
    }
    for savepoint in &entry.savepoints {
        places.push(host.stores.open(&savepoint.path).map_err(failed)?);
    }
    let mut rows = vec![];
    for place in places {
        // One under way has no `_metadata` yet, and one that is replaced none any more.
        if let Ok(found) = Savepoint::load(place).await {
            rows.push(row(&found));
        }
    }
    rows.sort_by_key(|row| row.checkpoint_id);
    Ok(rows)
}

fn row(found: &Savepoint) -> SnapshotRow {
    let metadata = &found.metadata;
    let kind = if metadata.owner == Owner::Host {
        "checkpoint"
    } else {
        "savepoint"
    };
    SnapshotRow {
        kind: kind.to_owned(),
        owner: metadata.owner.to_string(),
        trigger: metadata.trigger.to_string(),
        checkpoint_id: metadata.checkpoint_id,
        completed_at: metadata.completed_at_ms,
        bytes: metadata.files().map(|(_, bytes)| bytes).sum(),
        path: found.url(),
    }
}
