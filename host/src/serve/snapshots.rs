//! The snapshots of a job: its checkpoints, and the savepoints that were taken through its host.

use regraft_model::id::CheckpointId;

use super::host::Host;
use crate::jobs::durable::records::JobDirectory;
use crate::jobs::handle::JobError;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Owner, Trigger};
use crate::storage::{Storage, StoreError, paths};

/// Number of times the checkpoints are listed while they come and go.
const LISTINGS: u32 = 5;

/// A complete snapshot of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSnapshot {
    /// Owner: the host owns checkpoints, the user savepoints.
    pub owner: Owner,
    /// Trigger.
    pub trigger: Trigger,
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// Time at which it was complete, milliseconds since the Unix epoch.
    pub completed_at_ms: i64,
    /// Size of its `_metadata` and of the files that this names.
    pub bytes: u64,
    /// Location, as a URL.
    pub url: String,
}

impl Host {
    /// Lists the complete snapshots of a job in order of their rounds, without those that are removed meanwhile.
    ///
    /// # Errors
    /// [`JobError`]: of kind usage where there is no such job; else the checkpoint directory cannot be read.
    pub async fn snapshots(&self, id: &str) -> Result<Vec<ListedSnapshot>, JobError> {
        let entry = self.entry(id)?;
        let failed = |error: StoreError| JobError::failed(error.to_string());
        let stores = &self.context.stores;
        let mut listed = vec![];
        if let Some(graph) = &entry.graph {
            let all = stores.open(&self.context.checkpoint_dir_of(graph)).map_err(failed)?;
            let directory = JobDirectory::new(&all, entry.job_id).map_err(failed)?;
            listed = checkpoints(&directory).await.map_err(failed)?;
        }
        for savepoint in &entry.savepoints {
            let place = stores.open(&savepoint.path).map_err(failed)?;
            // The user may have moved it away.
            listed.extend(read_one(place).await);
        }
        listed.sort_by_key(|snapshot| snapshot.checkpoint_id);
        Ok(listed)
    }
}

/// Lists the complete checkpoints. One that is under way has no `_metadata` yet, and one that was replaced has none any more:
/// then there is a newer one, and they are listed again.
async fn checkpoints(directory: &JobDirectory) -> Result<Vec<ListedSnapshot>, StoreError> {
    let mut ids = directory.checkpoints().await?;
    for _ in 1..LISTINGS {
        let listed = read(directory, &ids).await?;
        let now = directory.checkpoints().await?;
        if now == ids {
            return Ok(listed);
        }
        ids = now;
    }
    read(directory, &ids).await
}

async fn read(directory: &JobDirectory, ids: &[CheckpointId]) -> Result<Vec<ListedSnapshot>, StoreError> {
    let mut listed = vec![];
    for id in ids {
        listed.extend(read_one(directory.checkpoint(*id)?).await);
    }
    Ok(listed)
}

/// Reads one snapshot; `None` where there is no complete one.
async fn read_one(place: Storage) -> Option<ListedSnapshot> {
    let found = Savepoint::load(place).await.ok()?;
    let own_bytes = found.storage.size(paths::METADATA).await.ok()??;
    let metadata = &found.metadata;
    Some(ListedSnapshot {
        owner: metadata.owner,
        trigger: metadata.trigger,
        checkpoint_id: metadata.checkpoint_id,
        completed_at_ms: metadata.completed_at_ms,
        bytes: own_bytes + metadata.files().map(|(_, bytes)| bytes).sum::<u64>(),
        url: found.url(),
    })
}
