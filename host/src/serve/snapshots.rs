//! The snapshots of a job: its checkpoints, and the savepoints that were taken through its host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regraft_model::id::{CheckpointId, JobId, OperatorUid};
use regraft_model::snapshot::SnapshotKind;

use super::catalog::KnownSavepoint;
use crate::jobs::durable::records::JobDirectory;
use crate::jobs::observe::{ObservedJob, RoundSummary};
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Owner, Trigger};
use crate::storage::{Storage, StoreError, Stores, paths};

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

/// Lists the complete snapshots of a job in order of their rounds, without those that are removed meanwhile.
/// `checkpoint_dir` is `None` where it is not known.
///
/// # Errors
/// [`StoreError`] where the checkpoint directory cannot be read.
pub async fn snapshots_in(
    stores: &dyn Stores,
    checkpoint_dir: Option<&str>,
    job: JobId,
    savepoints: &[KnownSavepoint],
) -> Result<Vec<ListedSnapshot>, StoreError> {
    let mut listed = vec![];
    if let Some(dir) = checkpoint_dir {
        listed = checkpoints(&JobDirectory::new(&stores.open(dir)?, job)?).await?;
    }
    for savepoint in savepoints {
        // The user may have moved it away.
        listed.extend(read_one(stores.open(&savepoint.path)?).await);
    }
    listed.sort_by_key(|snapshot| snapshot.checkpoint_id);
    Ok(listed)
}

/// Shows the checkpoints among these snapshots in the description of a job that does not run.
pub fn show_checkpoints(snapshots: &[ListedSnapshot], job: &mut ObservedJob) {
    let mut checkpoints = snapshots.iter().filter(|snapshot| snapshot.owner == Owner::Host);
    job.rounds = checkpoints.clone().count() as u64;
    // The times of its parts are in no record.
    job.last_round = checkpoints.next_back().map(|newest| RoundSummary {
        checkpoint_id: newest.checkpoint_id,
        kind: SnapshotKind::Checkpoint,
        completed_at: newest.completed_at_ms,
        bytes: newest.bytes,
        full_bytes: newest.bytes,
        duration_ms: 0,
        sync_ms: 0.0,
        align_ms: 0.0,
        path: newest.url.clone(),
    });
}

/// Returns the component of each operator that an upgrade has changed since the job started, by its path on this machine. What
/// cannot be read is left out.
pub async fn upgraded_in(
    stores: &dyn Stores,
    checkpoint_dir: Option<&str>,
    job: JobId,
) -> BTreeMap<OperatorUid, PathBuf> {
    let storage = checkpoint_dir.and_then(|dir| stores.open(dir).ok());
    let Some(directory) = storage.and_then(|storage| JobDirectory::new(&storage, job).ok()) else {
        return BTreeMap::new();
    };
    let upgraded = directory.upgraded().await.unwrap_or_default();
    let on_disk = |(uid, sha256): (OperatorUid, String)| Some((uid, directory.module_path(&sha256)?));
    upgraded.into_iter().filter_map(on_disk).collect()
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
