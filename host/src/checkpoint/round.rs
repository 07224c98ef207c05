//! A round that every subtask has acknowledged: what a checkpoint or savepoint is written from.
//!
//! The protocol of the job (`jobs::life`) decides when rounds begin.

use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use crate::dataflow::control::SubtaskSnapshot;

/// A round that every subtask has acknowledged.
#[derive(Debug)]
pub struct Acknowledged {
    /// Its number.
    pub id: CheckpointId,
    /// Its purpose.
    pub kind: SnapshotKind,
    /// Milliseconds since the Unix epoch.
    pub triggered_ms: i64,
    /// In order of subtask.
    pub snapshots: Vec<SubtaskSnapshot>,
}
