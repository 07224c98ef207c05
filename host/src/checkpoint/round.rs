//! A round that every subtask has acknowledged: what a checkpoint or savepoint is written from.
//!
//! How it came about is decided by the job's protocol (`jobs::life`).

use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use crate::dataflow::control::SubtaskSnapshot;

/// A round that every subtask has acknowledged.
#[derive(Debug)]
pub struct Acknowledged {
    /// Its number.
    pub id: CheckpointId,
    /// What it is for.
    pub kind: SnapshotKind,
    /// Milliseconds since the Unix epoch.
    pub triggered_ms: i64,
    /// In order of subtask.
    pub snapshots: Vec<SubtaskSnapshot>,
}
