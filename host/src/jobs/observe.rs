//! The state that a job shares with its process while it runs, and a job at one moment: its stage, its nodes with their
//! counters, its rounds.
//!
//! Plain values. Other modules turn them into what they write to disk or send over the wire.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::time::NO_TIMESTAMP;

use super::admission::Descriptions;
use super::deploy::Counters;
use super::status::JobStatus;
use crate::dataflow::control::{NodeCounters, locked};
use crate::dataflow::operator::Modules;
use crate::graph::job_graph::{EffectiveSetting, JobGraph, Node, NodeKind};
use regraft_model::snapshot::SnapshotKind;

/// The newest completed checkpoint or savepoint of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundSummary {
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// Purpose of the round.
    pub kind: SnapshotKind,
    /// Time at which it was durable, milliseconds since the Unix epoch.
    pub completed_at: i64,
    /// Size of the files that were written for it.
    pub bytes: u64,
    /// Size of all files that it refers to.
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

/// Part of a job's shared state that changes while it runs.
#[derive(Debug)]
pub struct JobState {
    /// Stage of the job.
    pub status: JobStatus,
    /// Version of the job, which numbers its modules.
    pub version: JobVersion,
    /// Modules of this version.
    pub modules: Modules,
    /// Declarations of these modules.
    pub descriptions: Descriptions,
    /// Newest completed round.
    pub last_round: Option<RoundSummary>,
    /// Number of completed rounds.
    pub rounds: u64,
    /// Reason of the failure that ended the job.
    pub failure: Option<String>,
    /// Kind of that failure, which decides the exit status.
    pub failure_kind: Option<ErrorKind>,
    /// Uid that failed, where one is to blame.
    pub failed_uid: Option<String>,
    /// Totals of each sink that counts what it is given, from the last round: records and checksum.
    pub sink_totals: BTreeMap<OperatorUid, (u64, u64)>,
    /// Savepoint that ended the job, as a URL.
    pub final_savepoint: Option<String>,
    /// Attempt that runs, or ran last.
    pub attempt: AttemptId,
    /// Number of restarts in this process.
    pub restarts: u64,
    /// Failure before the last restart.
    pub last_failure: Option<String>,
    /// Last rounds, completed or failed, oldest first.
    pub recent: VecDeque<PastRound>,
    /// True if another host runs the job: this one writes no end of it anywhere.
    pub lost: bool,
}

/// Number of rounds that are remembered.
const RECENT_MAX: usize = 100;

impl JobState {
    /// Remembers a round, and forgets the oldest one where there are too many.
    pub fn remember(&mut self, round: PastRound) {
        while self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(round);
    }
}

/// A round that has completed or failed.
#[derive(Debug, Clone, PartialEq)]
pub struct PastRound {
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// Purpose of the round.
    pub kind: SnapshotKind,
    /// Trigger time, milliseconds since the Unix epoch.
    pub triggered_at: i64,
    /// Time from trigger to end.
    pub duration_ms: u64,
    /// Size of the files that were written for it.
    pub bytes: u64,
    /// Size of all files that it refers to, including those that it shares with earlier checkpoints.
    pub full_bytes: u64,
    /// Location as a URL, also of a round that failed; `None` before it has one.
    pub path: Option<String>,
    /// Reason why it failed; `None` for a completed one.
    pub failure: Option<String>,
    /// Part of each subtask; empty unless all have acknowledged.
    pub subtasks: Vec<SubtaskRound>,
}

/// Part of one subtask in a round.
#[derive(Debug, Clone, PartialEq)]
pub struct SubtaskRound {
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
    pub state_bytes: u64,
}

/// State that a running job shares with the holders of its handle.
#[derive(Debug)]
pub struct JobShared {
    /// Id of the job.
    pub job_id: JobId,
    /// Graph that it runs.
    pub graph: Arc<JobGraph>,
    /// Start time, milliseconds since the Unix epoch.
    pub started_at: i64,
    /// Savepoint that it started from, as a URL.
    pub restored_from: Option<String>,
    /// Counters of each node, by subtask.
    pub counters: Counters,
    /// Part that changes.
    pub state: Mutex<JobState>,
}

/// Target of the log lines about periodic checkpoints, which a terminal may leave out.
pub const PERIODIC: &str = "regraft::periodic";

/// Role of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// Reads records.
    Source,
    /// Runs a module.
    Operator,
    /// Writes records.
    Sink,
}

/// One node of a job at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedNode {
    /// Uid of the node.
    pub uid: OperatorUid,
    /// Role of the node.
    pub role: NodeRole,
    /// Number of subtasks.
    pub parallelism: u32,
    /// First six digits of its module's digest; `None` for sources and sinks, and where nothing runs.
    pub module: Option<String>,
    /// Names of its states.
    pub states: Vec<String>,
    /// Directory that a file sink writes to, or an operator its dead letters.
    pub target: Option<PathBuf>,
    /// Records in.
    pub records_in: u64,
    /// Records out.
    pub records_out: u64,
    /// Keys held.
    pub keys: u64,
    /// Approximate bytes of keyed state and timers, as they count towards `limits.state`.
    pub state_bytes: u64,
    /// Records and timers that went to its dead letters.
    pub dead_letters: u64,
    /// Least watermark of its subtasks, milliseconds; `None` before there is one, and for sources and sinks.
    pub watermark: Option<i64>,
    /// Records that came to an operator late: after its watermark had reached their event time.
    pub late: u64,
    /// Counters of an operator's guest, each summed over the subtasks.
    pub counters: BTreeMap<String, u64>,
    /// Gauges of an operator's guest: the value of each subtask, where it has been set.
    pub gauges: Gauges,
}

/// Gauges by their names: the value of each subtask, where it has been set.
pub type Gauges = BTreeMap<String, Vec<Option<f64>>>;

/// A job at one moment, whether it runs or not.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedJob {
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
    pub dead_letters: u64,
    /// Newest completed round.
    pub last_round: Option<RoundSummary>,
    /// Number of completed rounds.
    pub rounds: u64,
    /// Last rounds, completed or failed, oldest first.
    pub recent: Vec<PastRound>,
    /// Number of times it has been started with this id.
    pub attempt: AttemptId,
    /// Number of restarts in this process.
    pub restarts: u64,
    /// Failure before the last restart.
    pub last_failure: Option<String>,
    /// Reason why it failed, or could not be brought back.
    pub failure: Option<String>,
    /// The way on after it failed; `None` where it did not, or has left nothing to go on from.
    pub go_on: Option<GoOn>,
    /// Nodes in order of the graph.
    pub nodes: Vec<ObservedNode>,
    /// Settings in effect.
    pub settings: BTreeMap<String, EffectiveSetting>,
}

/// The way on after a job has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoOn {
    /// Newest checkpoint or savepoint, as a URL.
    pub path: String,
    /// Command line that starts a job from it.
    pub command: String,
}

impl std::fmt::Display for GoOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the newest snapshot is {}; go on from it with `{}`",
            self.path, self.command
        )
    }
}

impl JobShared {
    /// Switches to a stage if it may follow the present one.
    pub fn set_status(&self, status: JobStatus) {
        let mut state = locked(&self.state);
        if state.status.may_become(status) {
            let (name, before) = (&self.graph.name, state.status);
            tracing::info!("Job {name} ({}) switched from state {before} to {status}.", self.job_id);
            state.status = status;
        }
    }

    /// Sums a counter over the subtasks of a node.
    fn sum(&self, uid: &OperatorUid, of: impl Fn(&NodeCounters) -> u64) -> u64 {
        self.counters
            .get(uid)
            .map_or(0, |all| all.iter().map(|counters| of(counters)).sum())
    }

    /// Returns the least watermark of an operator's subtasks.
    fn watermark(&self, node: &Node) -> Option<i64> {
        if !matches!(node.kind, NodeKind::Operator(_)) {
            return None;
        }
        let all = self.counters.get(&node.uid)?.iter();
        let least = all.map(|counters| counters.watermark.load(Ordering::Relaxed)).min()?;
        (least != NO_TIMESTAMP).then_some(least)
    }

    /// Returns the counters of a node's guest, summed over the subtasks, and its gauges, one value per subtask.
    fn figures(&self, uid: &OperatorUid) -> (BTreeMap<String, u64>, Gauges) {
        let (mut counters, mut gauges) = (BTreeMap::new(), Gauges::new());
        let all = self.counters.get(uid).map_or(&[][..], Vec::as_slice);
        for (subtask, of_subtask) in all.iter().enumerate() {
            let figures = locked(&of_subtask.guest).clone();
            for (name, count) in figures.counters {
                let sum: &mut u64 = counters.entry(name).or_default();
                *sum = sum.saturating_add(count);
            }
            for (name, value) in figures.gauges {
                gauges.entry(name).or_insert_with(|| vec![None; all.len()])[subtask] = Some(value);
            }
        }
        (counters, gauges)
    }

    /// Returns the job as it is now.
    #[must_use]
    pub fn observe(&self) -> ObservedJob {
        let state = locked(&self.state);
        let mut nodes = vec![];
        let (mut records_in, mut records_out, mut dead_letters) = (0, 0, 0);
        for node in &self.graph.nodes {
            let uid = &node.uid;
            let (counters, gauges) = self.figures(uid);
            let observed = ObservedNode {
                module: state.modules.get(uid).map(|module| module.digest().short()),
                states: state.descriptions.get(uid).map_or_else(Vec::new, |description| {
                    description.states.iter().map(|state| state.name.clone()).collect()
                }),
                records_in: self.sum(uid, |c| c.records_in.load(Ordering::Relaxed)),
                records_out: self.sum(uid, |c| c.records_out.load(Ordering::Relaxed)),
                keys: self.sum(uid, |c| c.keys.load(Ordering::Relaxed)),
                // All subtasks share it.
                state_bytes: self
                    .counters
                    .get(uid)
                    .and_then(|all| all.first())
                    .map_or(0, |counters| counters.state.used()),
                dead_letters: self.sum(uid, |c| c.dead_letters.load(Ordering::Relaxed)),
                watermark: self.watermark(node),
                late: self.sum(uid, |c| c.late.load(Ordering::Relaxed)),
                counters,
                gauges,
                ..ObservedNode::from(node)
            };
            match node.kind {
                NodeKind::Source(_) => records_in += observed.records_in,
                NodeKind::Sink(_) => records_out += observed.records_out,
                NodeKind::Operator(_) => dead_letters += observed.dead_letters,
            }
            nodes.push(observed);
        }
        ObservedJob {
            status: state.status,
            restored_from: self.restored_from.clone(),
            version: state.version,
            records_in,
            records_out,
            dead_letters,
            last_round: state.last_round.clone(),
            rounds: state.rounds,
            recent: state.recent.iter().cloned().collect(),
            attempt: state.attempt,
            restarts: state.restarts,
            last_failure: state.last_failure.clone(),
            failure: state.failure.clone(),
            nodes,
            ..ObservedJob::bare(self.job_id, &self.graph.name, self.started_at, Some(&self.graph))
        }
    }
}

impl From<&Node> for ObservedNode {
    /// A node of which nothing runs.
    fn from(node: &Node) -> Self {
        let role = match node.kind {
            NodeKind::Source(_) => NodeRole::Source,
            NodeKind::Operator(_) => NodeRole::Operator,
            NodeKind::Sink(_) => NodeRole::Sink,
        };
        Self {
            uid: node.uid.clone(),
            role,
            parallelism: node.parallelism,
            module: None,
            states: vec![],
            target: node.output_dir().map(PathBuf::from),
            records_in: 0,
            records_out: 0,
            keys: 0,
            state_bytes: 0,
            dead_letters: 0,
            watermark: None,
            late: 0,
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
        }
    }
}

impl ObservedJob {
    /// A job of which nothing runs. `graph` is `None` where its job file does not parse any more.
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
            last_round: None,
            rounds: 0,
            recent: vec![],
            attempt: AttemptId(0),
            restarts: 0,
            last_failure: None,
            failure: None,
            go_on: None,
            nodes: graph.map_or_else(Vec::new, |graph| graph.nodes.iter().map(ObservedNode::from).collect()),
            settings: graph.map_or_else(BTreeMap::new, |graph| graph.settings.clone()),
        }
    }
}
