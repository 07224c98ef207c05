//! A job as `GET /api/v1/jobs/{job}` and `regraft info --json` show it.

use std::collections::BTreeMap;

use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::snapshot::SnapshotKind;
use serde::{Deserialize, Serialize};

use crate::graph::job_graph::{EffectiveSetting, SettingOrigin};
use crate::jobs::observe::{GoOn, NodeRole, ObservedJob, ObservedNode, PastRound, RoundSummary, SubtaskRound};
use crate::jobs::status::JobStatus;

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Id of the job.
    pub job_id: JobId,
    /// Name of the job.
    pub name: String,
    /// Stage of the job.
    pub status: JobStatus,
    /// Default parallelism.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Start time, milliseconds since the Unix epoch.
    pub started_at: i64,
    /// Savepoint that it started from.
    pub restored_from: Option<String>,
    /// Version of the job.
    pub version: JobVersion,
    /// Records read by sources.
    pub records_in: u64,
    /// Records written by sinks.
    pub records_out: u64,
    /// Records and timers that went to dead letters.
    #[serde(default)]
    pub dead_letters: u64,
    /// Newest completed round.
    pub last_checkpoint: Option<CheckpointView>,
    /// Number of completed rounds.
    pub checkpoints: u64,
    /// Last rounds, completed or failed, oldest first.
    #[serde(default)]
    pub recent_checkpoints: Vec<RoundView>,
    /// Number of times it has been started with this id.
    #[serde(default = "first")]
    pub attempt: AttemptId,
    /// Number of restarts in this process.
    #[serde(default)]
    pub restarts: u64,
    /// Failure before the last restart.
    #[serde(default)]
    pub last_failure: Option<String>,
    /// Reason why it failed, or could not be brought back.
    pub failure: Option<String>,
    /// The way on after it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_on: Option<GoOnView>,
    /// Nodes in order of the graph.
    pub operators: Vec<NodeView>,
    /// Settings in effect.
    pub settings: BTreeMap<String, EffectiveSettingView>,
}

/// The way on after a job has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoOnView {
    /// Newest checkpoint or savepoint, as a URL.
    pub path: String,
    /// Command line that starts a job from it.
    pub command: String,
}

const fn first() -> AttemptId {
    AttemptId(1)
}

/// A completed checkpoint or savepoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// Purpose of the round.
    pub kind: SnapshotKind,
    /// Time at which it was durable, milliseconds since the Unix epoch.
    pub completed_at: i64,
    /// Size of the files that were written for it.
    pub bytes: u64,
    /// Size of all files that it refers to.
    #[serde(default)]
    pub full_bytes: u64,
    /// Time from trigger to durable.
    pub duration_ms: u64,
    /// Longest time that processing waited, milliseconds.
    pub sync_ms: f64,
    /// Longest alignment, milliseconds.
    pub align_ms: f64,
    /// Location, as a URL.
    pub path: String,
}

/// A round that has completed or failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundView {
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// Purpose of the round.
    pub kind: SnapshotKind,
    /// Result of the round.
    pub status: RoundStatus,
    /// Trigger time, milliseconds since the Unix epoch.
    pub triggered_at: i64,
    /// Time from trigger to end.
    pub duration_ms: u64,
    /// Size of the files that were written for it.
    pub bytes: u64,
    /// Size of all files that it refers to, including those that it shares with earlier checkpoints.
    #[serde(default)]
    pub full_bytes: u64,
    /// Location as a URL, also of a round that failed.
    pub path: Option<String>,
    /// Reason why it failed.
    pub failure: Option<String>,
    /// Part of each subtask; empty unless all have acknowledged.
    pub subtasks: Vec<SubtaskRoundView>,
}

/// Result of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RoundStatus {
    /// It is durable.
    Completed,
    /// It was given up.
    Failed,
}

impl RoundStatus {
    /// Returns the word for it in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }
}

/// Part of one subtask in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubtaskRoundView {
    /// Uid of the node; the nodes of one chain share their times.
    pub uid: OperatorUid,
    /// Index of its subtask.
    pub subtask: u32,
    /// Time from its first barrier to its last, milliseconds.
    pub align_ms: f64,
    /// Time that processing waited, milliseconds.
    pub sync_ms: f64,
    /// Time spent on writing state out between records, milliseconds.
    pub async_ms: f64,
    /// Size of the state files that were written for the round.
    pub bytes: u64,
    /// Size of all state files that the round refers to.
    #[serde(default)]
    pub state_bytes: u64,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Uid of the node.
    pub uid: OperatorUid,
    /// Role of the node.
    pub kind: NodeKind,
    /// Number of subtasks.
    pub parallelism: u32,
    /// First six digits of its module's digest.
    pub module: Option<String>,
    /// Names of its states.
    pub states: Vec<String>,
    /// Directory that a file sink writes to, or an operator its dead letters.
    #[serde(default)]
    pub target: Option<String>,
    /// Records in.
    pub records_in: u64,
    /// Records out.
    pub records_out: u64,
    /// Keys held.
    pub keys: u64,
    /// Approximate bytes of keyed state and timers, as they count towards `limits.state`.
    #[serde(default)]
    pub state_bytes: u64,
    /// Records and timers that went to its dead letters.
    #[serde(default)]
    pub dead_letters: u64,
    /// Least watermark of an operator's subtasks, milliseconds; the greatest number at the end of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Records that came to an operator after its watermark had reached their event time.
    #[serde(default)]
    pub late: u64,
    /// Counters of an operator's guest, each summed over the subtasks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// Gauges of an operator's guest: one value per subtask, null where it has not been set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gauges: BTreeMap<String, Vec<Option<f64>>>,
}

/// Role of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the job file's own words")]
pub enum NodeKind {
    Source,
    Operator,
    Sink,
}

impl NodeKind {
    /// Returns the word for it in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Operator => "operator",
            Self::Sink => "sink",
        }
    }
}

/// A setting in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveSettingView {
    /// Value, as TOML.
    pub value: String,
    /// Origin of the value.
    pub origin: SettingOrigin,
}

impl From<ObservedJob> for JobView {
    fn from(job: ObservedJob) -> Self {
        let setting = |(key, EffectiveSetting { value, origin })| (key, EffectiveSettingView { value, origin });
        Self {
            job_id: job.job_id,
            name: job.name,
            status: job.status,
            parallelism: job.parallelism,
            max_parallelism: job.max_parallelism,
            started_at: job.started_at,
            restored_from: job.restored_from,
            version: job.version,
            records_in: job.records_in,
            records_out: job.records_out,
            dead_letters: job.dead_letters,
            last_checkpoint: job.last_round.map(CheckpointView::from),
            checkpoints: job.rounds,
            recent_checkpoints: job.recent.into_iter().map(RoundView::from).collect(),
            attempt: job.attempt,
            restarts: job.restarts,
            last_failure: job.last_failure,
            failure: job.failure,
            go_on: job.go_on.map(|GoOn { path, command }| GoOnView { path, command }),
            operators: job.nodes.into_iter().map(NodeView::from).collect(),
            settings: job.settings.into_iter().map(setting).collect(),
        }
    }
}

impl From<RoundSummary> for CheckpointView {
    fn from(round: RoundSummary) -> Self {
        Self {
            checkpoint_id: round.checkpoint_id,
            kind: round.kind,
            completed_at: round.completed_at,
            bytes: round.bytes,
            full_bytes: round.full_bytes,
            duration_ms: round.duration_ms,
            sync_ms: round.sync_ms,
            align_ms: round.align_ms,
            path: round.path,
        }
    }
}

impl From<PastRound> for RoundView {
    fn from(round: PastRound) -> Self {
        let subtask = |part: SubtaskRound| SubtaskRoundView {
            uid: part.uid,
            subtask: part.subtask,
            align_ms: part.align_ms,
            sync_ms: part.sync_ms,
            async_ms: part.async_ms,
            bytes: part.bytes,
            state_bytes: part.state_bytes,
        };
        Self {
            checkpoint_id: round.checkpoint_id,
            kind: round.kind,
            status: match round.failure {
                None => RoundStatus::Completed,
                Some(_) => RoundStatus::Failed,
            },
            triggered_at: round.triggered_at,
            duration_ms: round.duration_ms,
            bytes: round.bytes,
            full_bytes: round.full_bytes,
            path: round.path,
            failure: round.failure,
            subtasks: round.subtasks.into_iter().map(subtask).collect(),
        }
    }
}

impl From<ObservedNode> for NodeView {
    fn from(node: ObservedNode) -> Self {
        Self {
            uid: node.uid,
            kind: match node.role {
                NodeRole::Source => NodeKind::Source,
                NodeRole::Operator => NodeKind::Operator,
                NodeRole::Sink => NodeKind::Sink,
            },
            parallelism: node.parallelism,
            module: node.module,
            states: node.states,
            target: node.target.map(|dir| dir.display().to_string()),
            records_in: node.records_in,
            records_out: node.records_out,
            keys: node.keys,
            state_bytes: node.state_bytes,
            dead_letters: node.dead_letters,
            watermark: node.watermark,
            late: node.late,
            counters: node.counters,
            gauges: node.gauges,
        }
    }
}
