//! `ended.json` of the catalog. Hosts are upgraded in place: a file of an earlier version is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::snapshot::SnapshotKind;
use serde::{Deserialize, Serialize};

use super::EndedJob;
use crate::graph::job_graph::{EffectiveSetting, SettingOrigin};
use crate::jobs::observe::{GoOn, NodeRole, ObservedJob, ObservedNode, PastRound, RoundSummary, SubtaskRound};
use crate::jobs::status::JobStatus;

/// `ended.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct EndedFile {
    ended_at: i64,
    view: JobRecord,
}

/// A job as it was at its end.
#[derive(Serialize, Deserialize)]
struct JobRecord {
    job_id: JobId,
    name: String,
    status: JobStatus,
    parallelism: u32,
    max_parallelism: u32,
    started_at: i64,
    restored_from: Option<String>,
    version: JobVersion,
    records_in: u64,
    records_out: u64,
    #[serde(default)]
    dead_letters: u64,
    last_checkpoint: Option<LastRoundRecord>,
    checkpoints: u64,
    #[serde(default)]
    recent_checkpoints: Vec<RoundRecord>,
    #[serde(default = "first")]
    attempt: AttemptId,
    #[serde(default)]
    restarts: u64,
    #[serde(default)]
    last_failure: Option<String>,
    failure: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    go_on: Option<GoOnRecord>,
    operators: Vec<NodeRecord>,
    settings: BTreeMap<String, SettingRecord>,
}

/// The way on after a failure.
#[derive(Serialize, Deserialize)]
struct GoOnRecord {
    path: String,
    command: String,
}

const fn first() -> AttemptId {
    AttemptId(1)
}

/// Newest completed round.
#[derive(Serialize, Deserialize)]
struct LastRoundRecord {
    checkpoint_id: CheckpointId,
    kind: SnapshotKind,
    completed_at: i64,
    bytes: u64,
    #[serde(default)]
    full_bytes: u64,
    duration_ms: u64,
    sync_ms: f64,
    align_ms: f64,
    path: String,
}

/// One of the last rounds.
#[derive(Serialize, Deserialize)]
struct RoundRecord {
    checkpoint_id: CheckpointId,
    kind: SnapshotKind,
    status: RoundStatus,
    triggered_at: i64,
    duration_ms: u64,
    bytes: u64,
    #[serde(default)]
    full_bytes: u64,
    path: Option<String>,
    failure: Option<String>,
    subtasks: Vec<SubtaskRecord>,
}

/// Result of a round; `failure` says the same.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum RoundStatus {
    Completed,
    Failed,
}

/// Part of one subtask in a round.
#[derive(Serialize, Deserialize)]
struct SubtaskRecord {
    uid: OperatorUid,
    subtask: u32,
    align_ms: f64,
    sync_ms: f64,
    async_ms: f64,
    bytes: u64,
    #[serde(default)]
    state_bytes: u64,
}

/// One node.
#[derive(Serialize, Deserialize)]
struct NodeRecord {
    uid: OperatorUid,
    kind: RoleRecord,
    parallelism: u32,
    module: Option<String>,
    states: Vec<String>,
    #[serde(default)]
    target: Option<String>,
    records_in: u64,
    records_out: u64,
    keys: u64,
    #[serde(default)]
    dead_letters: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watermark: Option<i64>,
    #[serde(default, skip_serializing_if = "is_none")]
    late: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    counters: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    gauges: BTreeMap<String, Vec<Option<f64>>>,
}

/// Returns true if there is nothing to write.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_none(late: &u64) -> bool {
    *late == 0
}

/// Role of a node.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleRecord {
    Source,
    Operator,
    Sink,
}

/// A setting in effect.
#[derive(Serialize, Deserialize)]
struct SettingRecord {
    value: String,
    origin: SettingOrigin,
}

impl From<&EndedJob> for EndedFile {
    fn from(ended: &EndedJob) -> Self {
        let job = ended.job.clone();
        Self {
            ended_at: ended.ended_at,
            view: JobRecord {
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
                last_checkpoint: job.last_round.map(LastRoundRecord::from),
                checkpoints: job.rounds,
                recent_checkpoints: job.recent.into_iter().map(RoundRecord::from).collect(),
                attempt: job.attempt,
                restarts: job.restarts,
                last_failure: job.last_failure,
                failure: job.failure,
                go_on: job.go_on.map(|GoOn { path, command }| GoOnRecord { path, command }),
                operators: job.nodes.into_iter().map(NodeRecord::from).collect(),
                settings: job
                    .settings
                    .into_iter()
                    .map(|(key, EffectiveSetting { value, origin })| (key, SettingRecord { value, origin }))
                    .collect(),
            },
        }
    }
}

impl From<EndedFile> for EndedJob {
    fn from(file: EndedFile) -> Self {
        let job = file.view;
        Self {
            ended_at: file.ended_at,
            job: ObservedJob {
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
                last_round: job.last_checkpoint.map(RoundSummary::from),
                rounds: job.checkpoints,
                recent: job.recent_checkpoints.into_iter().map(PastRound::from).collect(),
                attempt: job.attempt,
                restarts: job.restarts,
                last_failure: job.last_failure,
                failure: job.failure,
                go_on: job.go_on.map(|GoOnRecord { path, command }| GoOn { path, command }),
                nodes: job.operators.into_iter().map(ObservedNode::from).collect(),
                settings: job
                    .settings
                    .into_iter()
                    .map(|(key, SettingRecord { value, origin })| (key, EffectiveSetting { value, origin }))
                    .collect(),
            },
        }
    }
}

impl From<RoundSummary> for LastRoundRecord {
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

impl From<LastRoundRecord> for RoundSummary {
    fn from(round: LastRoundRecord) -> Self {
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

impl From<PastRound> for RoundRecord {
    fn from(round: PastRound) -> Self {
        let status = if round.failure.is_some() {
            RoundStatus::Failed
        } else {
            RoundStatus::Completed
        };
        let subtask = |part: SubtaskRound| SubtaskRecord {
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
            status,
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

impl From<RoundRecord> for PastRound {
    fn from(round: RoundRecord) -> Self {
        let subtask = |part: SubtaskRecord| SubtaskRound {
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

impl From<ObservedNode> for NodeRecord {
    fn from(node: ObservedNode) -> Self {
        Self {
            uid: node.uid,
            kind: match node.role {
                NodeRole::Source => RoleRecord::Source,
                NodeRole::Operator => RoleRecord::Operator,
                NodeRole::Sink => RoleRecord::Sink,
            },
            parallelism: node.parallelism,
            module: node.module,
            states: node.states,
            target: node.target.map(|dir| dir.display().to_string()),
            records_in: node.records_in,
            records_out: node.records_out,
            keys: node.keys,
            dead_letters: node.dead_letters,
            watermark: node.watermark,
            late: node.late,
            counters: node.counters,
            gauges: node.gauges,
        }
    }
}

impl From<NodeRecord> for ObservedNode {
    fn from(node: NodeRecord) -> Self {
        Self {
            uid: node.uid,
            role: match node.kind {
                RoleRecord::Source => NodeRole::Source,
                RoleRecord::Operator => NodeRole::Operator,
                RoleRecord::Sink => NodeRole::Sink,
            },
            parallelism: node.parallelism,
            module: node.module,
            states: node.states,
            target: node.target.map(PathBuf::from),
            records_in: node.records_in,
            records_out: node.records_out,
            keys: node.keys,
            // A job that has ended holds none.
            state_bytes: 0,
            dead_letters: node.dead_letters,
            watermark: node.watermark,
            late: node.late,
            counters: node.counters,
            gauges: node.gauges,
        }
    }
}
