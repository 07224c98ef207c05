//! Reports of complete savepoints and upgrades.

use regraft_model::id::{CheckpointId, JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};

use crate::jobs::handle;
use crate::upgrade::report;

/// A complete savepoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Id of the job.
    pub job_id: JobId,
    /// Location, as a URL.
    pub path: String,
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// `canonical` or `native`.
    pub format: String,
    /// Size of all its files.
    pub bytes: u64,
    /// Time from trigger to durable.
    pub duration_ms: u64,
    /// Longest time that a subtask waited between its first barrier and its last, milliseconds.
    pub align_ms: f64,
    /// Longest time that processing waited for the snapshot, milliseconds.
    pub sync_ms: f64,
    /// Longest time that replacing modules took, milliseconds.
    pub swap_ms: f64,
    /// Time without output of each swapped operator; empty unless modules were swapped.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Version of the job after it.
    pub version: JobVersion,
}

/// Time without output of one subtask of a swapped operator, milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Uid of the operator.
    pub uid: OperatorUid,
    /// Index of its subtask.
    pub subtask: u32,
    /// Time from the last output before the swap to the first one after it.
    pub gap_ms: f64,
    /// Longest time between two outputs before the swap.
    pub usual_ms: f64,
}

/// A complete upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// Id of the job, the same as before.
    pub job_id: JobId,
    /// Version that it runs now.
    pub version: JobVersion,
    /// Round whose barrier carried the modules.
    pub checkpoint_id: CheckpointId,
    /// Changed uids.
    pub uids: Vec<ChangedUid>,
    /// Time for loading, compiling and opening, while the old version ran, milliseconds.
    pub prepare_ms: f64,
    /// Longest alignment of a subtask, milliseconds.
    pub align_ms: f64,
    /// Longest replacement in a subtask, milliseconds.
    pub swap_ms: f64,
    /// Longest time without output of a changed operator around the swap, milliseconds.
    pub gap_ms: f64,
    /// Longest time between two outputs of a changed operator just before the swap, milliseconds.
    pub usual_gap_ms: f64,
}

/// A changed uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedUid {
    /// Uid of the operator.
    pub uid: OperatorUid,
    /// First six digits of the old module's digest.
    pub from: String,
    /// First six digits of the new one's.
    pub to: String,
}

impl From<handle::SnapshotReport> for SnapshotReport {
    fn from(report: handle::SnapshotReport) -> Self {
        let gap = |gap: handle::Gap| Gap {
            uid: gap.uid,
            subtask: gap.subtask,
            gap_ms: gap.gap_ms,
            usual_ms: gap.usual_ms,
        };
        Self {
            job_id: report.job_id,
            path: report.path,
            checkpoint_id: report.checkpoint_id,
            format: report.format,
            bytes: report.bytes,
            duration_ms: report.duration_ms,
            align_ms: report.align_ms,
            sync_ms: report.sync_ms,
            swap_ms: report.swap_ms,
            gaps: report.gaps.into_iter().map(gap).collect(),
            version: report.version,
        }
    }
}

impl From<report::UpgradeReport> for UpgradeReport {
    fn from(report: report::UpgradeReport) -> Self {
        let uid = |changed: report::ChangedUid| ChangedUid {
            uid: changed.uid,
            from: changed.from,
            to: changed.to,
        };
        Self {
            job_id: report.job_id,
            version: report.version,
            checkpoint_id: report.checkpoint_id,
            uids: report.uids.into_iter().map(uid).collect(),
            prepare_ms: report.prepare_ms,
            align_ms: report.align_ms,
            swap_ms: report.swap_ms,
            gap_ms: report.gap_ms,
            usual_gap_ms: report.usual_gap_ms,
        }
    }
}
