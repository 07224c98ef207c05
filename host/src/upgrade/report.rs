//! The report of an upgrade: what changed, at which round, and for how long nothing came out.

use regraft_model::id::{CheckpointId, JobId, JobVersion, OperatorUid};

use crate::jobs::handle::SnapshotReport;

/// Report of an upgrade that is in effect and durable.
#[derive(Debug, Clone, PartialEq)]
pub struct UpgradeReport {
    /// The job, the same as before.
    pub job_id: JobId,
    /// The version that it runs now.
    pub version: JobVersion,
    /// The round whose barrier carried the new modules.
    pub checkpoint_id: CheckpointId,
    /// The changed uids.
    pub uids: Vec<ChangedUid>,
    /// Milliseconds of loading, compiling and opening; the old version ran meanwhile.
    pub prepare_ms: f64,
    /// The longest alignment of a subtask, in milliseconds.
    pub align_ms: f64,
    /// The longest replacement in a subtask, in milliseconds.
    pub swap_ms: f64,
    /// The longest time without output of a changed operator around the swap, in milliseconds.
    pub gap_ms: f64,
    /// The longest time between two outputs of a changed operator just before the swap, in milliseconds.
    pub usual_gap_ms: f64,
}

/// A changed uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedUid {
    /// The operator.
    pub uid: OperatorUid,
    /// First six digits of the old module's digest.
    pub from: String,
    /// First six digits of the new module's digest.
    pub to: String,
}

impl UpgradeReport {
    /// Makes the report from that of the round.
    pub(super) fn new(round: &SnapshotReport, uids: Vec<ChangedUid>, prepare_ms: f64) -> Self {
        let measured = round.gaps.iter().map(|gap| gap.gap_ms).reduce(f64::max);
        Self {
            job_id: round.job_id,
            version: round.version,
            checkpoint_id: round.checkpoint_id,
            uids,
            prepare_ms,
            align_ms: round.align_ms,
            swap_ms: round.swap_ms,
            // Where no record came by in time, the time that the subtasks were busy with the swap is all that is known.
            gap_ms: measured.unwrap_or(round.align_ms + round.sync_ms),
            usual_gap_ms: round.gaps.iter().map(|gap| gap.usual_ms).fold(0.0, f64::max),
        }
    }
}
