//! A job as it is shown: its stage, its nodes and what they count, its rounds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};

use super::admission::Descriptions;
use super::deploy::Counters;
use super::status::JobStatus;
use crate::dataflow::control::{NodeCounters, locked};
use crate::dataflow::operator::Modules;
use crate::graph::job_graph::{EffectiveSetting, JobGraph, Node, NodeKind};
use regraft_model::snapshot::SnapshotKind;

/// A completed checkpoint or savepoint, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundSummary {
    /// The round.
    pub checkpoint_id: CheckpointId,
    /// What for.
    pub kind: SnapshotKind,
    /// When it was durable, milliseconds since the Unix epoch.
    pub completed_at: i64,
    /// Size of the files that were written for it.
    pub bytes: u64,
    /// Size of all files that it refers to.
    #[serde(default)]
    pub full_bytes: u64,
    /// From trigger to durable.
    pub duration_ms: u64,
    /// The longest time processing waited, milliseconds.
    pub sync_ms: f64,
    /// The longest alignment, milliseconds.
    pub align_ms: f64,
    /// Where it is.
    pub path: String,
}

/// What changes while a job runs.
#[derive(Debug)]
pub struct JobState {
    /// Its stage.
    pub status: JobStatus,
    /// Which modules it runs.
    pub version: JobVersion,
    /// The modules.
    pub modules: Modules,
    /// What they declare.
    pub descriptions: Descriptions,
    /// The newest completed round.
    pub last_round: Option<RoundSummary>,
    /// Completed rounds in all.
    pub rounds: u64,
    /// Why it failed.
    pub failure: Option<String>,
    /// The kind of that failure, which decides the exit status.
    pub failure_kind: Option<ErrorKind>,
    /// The uid that failed.
    pub failed_uid: Option<String>,
    /// Totals of each blackhole sink, from the last round: records and checksum.
    pub sink_totals: BTreeMap<OperatorUid, (u64, u64)>,
    /// The savepoint that ended it, as a URL.
    pub final_savepoint: Option<String>,
    /// The attempt that runs, or ran last.
    pub attempt: AttemptId,
    /// Restarts in this process.
    pub restarts: u64,
    /// What the last restart followed.
    pub last_failure: Option<String>,
    /// The last rounds, completed or not, oldest first.
    pub recent: VecDeque<RoundView>,
}

/// So many rounds are remembered.
const RECENT_MAX: usize = 100;

impl JobState {
    /// Remembers a round.
    pub fn remember(&mut self, round: RoundView) {
        while self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(round);
    }
}

/// How a round went, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundView {
    /// The round.
    pub checkpoint_id: CheckpointId,
    /// What for.
    pub kind: SnapshotKind,
    /// `COMPLETED` or `FAILED`.
    pub status: String,
    /// Milliseconds since the Unix epoch.
    pub triggered_at: i64,
    /// From trigger to its end.
    pub duration_ms: u64,
    /// Size of the files that were written for it.
    pub bytes: u64,
    /// Size of all files that it refers to: those that it shares with earlier checkpoints too.
    #[serde(default)]
    pub full_bytes: u64,
    /// Where it is, or would be.
    pub path: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// What each subtask took part with; only of a round that all have acknowledged.
    pub subtasks: Vec<SubtaskRound>,
}

/// One subtask's part in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubtaskRound {
    /// The node; the nodes of one chain share their times.
    pub uid: OperatorUid,
    /// Its subtask.
    pub subtask: u32,
    /// From its first barrier to its last, milliseconds.
    pub align_ms: f64,
    /// What processing waited for, milliseconds.
    pub sync_ms: f64,
    /// What was written out while records were processed, milliseconds.
    pub async_ms: f64,
    /// Size of the state files that were written for the round.
    pub bytes: u64,
    /// Size of all state files that the round refers to.
    #[serde(default)]
    pub state_bytes: u64,
}

/// What a job shares with those who hold its handle.
#[derive(Debug)]
pub struct JobShared {
    /// Its id.
    pub job_id: JobId,
    /// The graph it runs.
    pub graph: Arc<JobGraph>,
    /// When it started, milliseconds since the Unix epoch.
    pub started_at: i64,
    /// The savepoint it started from, as a URL.
    pub restored_from: Option<String>,
    /// What each node counts, subtask by subtask.
    pub counters: Counters,
    /// What changes.
    pub state: Mutex<JobState>,
}

/// One node, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its uid.
    pub uid: OperatorUid,
    /// `source`, `operator` or `sink`.
    pub kind: String,
    /// How many subtasks.
    pub parallelism: u32,
    /// The module's digest, first six digits.
    pub module: Option<String>,
    /// Names of its states.
    pub states: Vec<String>,
    /// The directory that a file sink writes to, or an operator's dead letters.
    #[serde(default)]
    pub target: Option<String>,
    /// Records in.
    pub records_in: u64,
    /// Records out.
    pub records_out: u64,
    /// Keys held.
    pub keys: u64,
    /// Records and timers that went to its dead letters.
    #[serde(default)]
    pub dead_letters: u64,
}

/// A job, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Its stage.
    pub status: JobStatus,
    /// The default parallelism.
    pub parallelism: u32,
    /// Key groups.
    pub max_parallelism: u32,
    /// Milliseconds since the Unix epoch.
    pub started_at: i64,
    /// The savepoint it started from.
    pub restored_from: Option<String>,
    /// Which modules it runs.
    pub version: JobVersion,
    /// Records read by sources.
    pub records_in: u64,
    /// Records written by sinks.
    pub records_out: u64,
    /// Records and timers that went to dead letters.
    #[serde(default)]
    pub dead_letters: u64,
    /// The newest completed round.
    pub last_checkpoint: Option<RoundSummary>,
    /// Completed rounds in all.
    pub checkpoints: u64,
    /// The last rounds, completed or not, oldest first.
    #[serde(default)]
    pub recent_checkpoints: Vec<RoundView>,
    /// How often it has been started with this id.
    #[serde(default = "first")]
    pub attempt: AttemptId,
    /// Restarts in this process.
    #[serde(default)]
    pub restarts: u64,
    /// What the last restart followed.
    #[serde(default)]
    pub last_failure: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// Its nodes.
    pub operators: Vec<NodeView>,
    /// Settings in effect.
    pub settings: BTreeMap<String, EffectiveSettingView>,
}

const fn first() -> AttemptId {
    AttemptId(1)
}

/// A setting in effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectiveSettingView {
    /// Its value, as TOML.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

impl From<&EffectiveSetting> for EffectiveSettingView {
    fn from(setting: &EffectiveSetting) -> Self {
        Self {
            value: setting.value.clone(),
            origin: setting.origin.clone(),
        }
    }
}

impl JobShared {
    /// Goes over to a stage, where it may follow the present one.
    pub fn set_status(&self, status: JobStatus) {
        let mut state = locked(&self.state);
        if state.status.may_become(status) {
            let (name, before) = (&self.graph.name, state.status);
            tracing::info!("Job {name} ({}) switched from state {before} to {status}.", self.job_id);
            state.status = status;
        }
    }

    /// Adds up a counter of a node's subtasks.
    fn sum(&self, uid: &OperatorUid, of: impl Fn(&NodeCounters) -> u64) -> u64 {
        self.counters
            .get(uid)
            .map_or(0, |all| all.iter().map(|counters| of(counters)).sum())
    }

    /// The job as it is now.
    #[must_use]
    pub fn view(&self) -> JobView {
        let state = locked(&self.state);
        let mut operators = vec![];
        let (mut records_in, mut records_out, mut dead_letters) = (0, 0, 0);
        for node in &self.graph.nodes {
            let uid = &node.uid;
            let view = NodeView {
                module: state.modules.get(uid).map(|module| module.digest().short()),
                states: state.descriptions.get(uid).map_or_else(Vec::new, |description| {
                    description.states.iter().map(|state| state.name.clone()).collect()
                }),
                records_in: self.sum(uid, |c| c.records_in.load(Ordering::Relaxed)),
                records_out: self.sum(uid, |c| c.records_out.load(Ordering::Relaxed)),
                keys: self.sum(uid, |c| c.keys.load(Ordering::Relaxed)),
                dead_letters: self.sum(uid, |c| c.dead_letters.load(Ordering::Relaxed)),
                ..NodeView::from(node)
            };
            match node.kind {
                NodeKind::Source(_) => records_in += view.records_in,
                NodeKind::Sink(_) => records_out += view.records_out,
                NodeKind::Operator(_) => dead_letters += view.dead_letters,
            }
            operators.push(view);
        }
        JobView {
            status: state.status,
            restored_from: self.restored_from.clone(),
            version: state.version,
            records_in,
            records_out,
            dead_letters,
            last_checkpoint: state.last_round.clone(),
            checkpoints: state.rounds,
            recent_checkpoints: state.recent.iter().cloned().collect(),
            attempt: state.attempt,
            restarts: state.restarts,
            last_failure: state.last_failure.clone(),
            failure: state.failure.clone(),
            operators,
            ..JobView::bare(self.job_id, &self.graph.name, self.started_at, Some(&self.graph))
        }
    }
}

impl From<&Node> for NodeView {
    /// A node of which nothing runs.
    fn from(node: &Node) -> Self {
        let kind = match node.kind {
            NodeKind::Source(_) => "source",
            NodeKind::Operator(_) => "operator",
            NodeKind::Sink(_) => "sink",
        };
        Self {
            uid: node.uid.clone(),
            kind: kind.to_owned(),
            parallelism: node.parallelism,
            module: None,
            states: vec![],
            target: node.output_dir().map(|dir| dir.display().to_string()),
            records_in: 0,
            records_out: 0,
            keys: 0,
            dead_letters: 0,
        }
    }
}

impl JobView {
    /// A job of which nothing runs. `graph` is none where its job file does not read any more.
    #[must_use]
    pub fn bare(job_id: JobId, name: &str, started_at: i64, graph: Option<&JobGraph>) -> Self {
        Self {
            job_id,
            name: name.to_owned(),
            status: JobStatus::Created,
            parallelism: graph.map_or(0, |graph| graph.parallelism),
            max_parallelism: graph.map_or(0, |graph| graph.max_parallelism),
            started_at,
            restored_from: None,
            version: JobVersion(1),
            records_in: 0,
            records_out: 0,
            dead_letters: 0,
            last_checkpoint: None,
            checkpoints: 0,
            recent_checkpoints: vec![],
            attempt: AttemptId(0),
            restarts: 0,
            last_failure: None,
            failure: None,
            operators: graph.map_or_else(Vec::new, |graph| graph.nodes.iter().map(NodeView::from).collect()),
            settings: graph.map_or_else(BTreeMap::new, |graph| {
                let settings = graph.settings.iter();
                settings.map(|(key, setting)| (key.clone(), setting.into())).collect()
            }),
        }
    }
}
