//! How the rest of the host talks to a job: commands in, reports and a view of its state out.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{CheckpointId, JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::Descriptions;
use super::status::JobStatus;
use crate::dataflow::control::{NodeCounters, SwapGap, locked};
use crate::dataflow::element::SwapSet;
use crate::dataflow::operator::Modules;
use crate::environment::Environment;
use crate::graph::job_graph::{EffectiveSetting, JobGraph, NodeKind, SinkConnector};
use crate::savepoint::rows::Layout;
use regraft_model::snapshot::SnapshotKind;

/// A command to a job's control loop.
#[derive(Debug)]
pub enum Command {
    /// Take a snapshot.
    Snapshot(SnapshotRequest),
    /// End at once, with no snapshot.
    Cancel,
}

/// A snapshot somebody asks for.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// What for.
    pub kind: SnapshotKind,
    /// The directory for the savepoint, a path or URL; none: a checkpoint, in the host's own directory.
    pub savepoint_dir: Option<String>,
    /// How state files are laid out.
    pub layout: Layout,
    /// Whether sources end first, and `finish` runs (`stop --drain`).
    pub drain: bool,
    /// Modules to swap in at its barrier.
    pub swap: Option<SwapRequest>,
    /// Where the result goes.
    pub reply: Option<oneshot::Sender<Result<SnapshotReport, JobError>>>,
}

/// Modules to swap in.
#[derive(Debug)]
pub struct SwapRequest {
    /// What the barrier carries.
    pub set: SwapSet,
    /// What is recorded once it is durable.
    pub modules: Modules,
}

/// A completed snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// The job.
    pub job_id: JobId,
    /// Where it is, as a URL.
    pub path: String,
    /// The round.
    pub checkpoint_id: CheckpointId,
    /// `canonical` or `native`.
    pub format: String,
    /// Size of all its files.
    pub bytes: u64,
    /// From trigger to durable.
    pub duration_ms: u64,
    /// The longest time a subtask waited between its first barrier and its last, milliseconds.
    pub align_ms: f64,
    /// The longest time processing waited for the snapshot, milliseconds.
    pub sync_ms: f64,
    /// The longest time replacing modules took, milliseconds.
    pub swap_ms: f64,
    /// How long each swapped operator gave no output; empty for any other snapshot.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// The job's version after it.
    pub version: JobVersion,
}

/// How long a swapped operator gave no output, milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The operator.
    pub uid: OperatorUid,
    /// Its subtask.
    pub subtask: u32,
    /// From the last output before the swap to the first after it.
    pub gap_ms: f64,
    /// The longest among the outputs before the swap.
    pub usual_ms: f64,
}

impl From<&SwapGap> for Gap {
    fn from(gap: &SwapGap) -> Self {
        Self {
            uid: gap.uid.clone(),
            subtask: gap.index,
            gap_ms: gap.gap_ns as f64 / 1e6,
            usual_ms: gap.usual_ns as f64 / 1e6,
        }
    }
}

/// An operation on a job that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct JobError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// The operator it is about.
    #[serde(default)]
    pub uid: Option<String>,
    /// The file it is about.
    #[serde(default)]
    pub path: Option<String>,
}

impl JobError {
    /// An operation that failed.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Failed,
            message: message.into(),
            uid: None,
            path: None,
        }
    }

    /// Input that is wrong.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Usage,
            message: message.into(),
            uid: None,
            path: None,
        }
    }

    /// About an operator.
    #[must_use]
    pub fn on(mut self, uid: &OperatorUid) -> Self {
        self.uid = Some(uid.to_string());
        self
    }
}

/// A completed checkpoint or savepoint, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundSummary {
    /// The round.
    pub checkpoint_id: CheckpointId,
    /// What for.
    pub kind: SnapshotKind,
    /// When it was durable, milliseconds since the Unix epoch.
    pub completed_at: i64,
    /// Size of its files.
    pub bytes: u64,
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
    /// The uid that failed.
    pub failed_uid: Option<String>,
    /// Totals of each blackhole sink, from the last round: records and checksum.
    pub sink_totals: BTreeMap<OperatorUid, (u64, u64)>,
    /// The savepoint that ended it.
    pub final_savepoint: Option<SnapshotReport>,
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
    pub counters: BTreeMap<OperatorUid, Vec<Arc<NodeCounters>>>,
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
    /// The directory that a file sink writes to.
    #[serde(default)]
    pub target: Option<String>,
    /// Records in.
    pub records_in: u64,
    /// Records out.
    pub records_out: u64,
    /// Keys held.
    pub keys: u64,
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
    /// The newest completed round.
    pub last_checkpoint: Option<RoundSummary>,
    /// Completed rounds in all.
    pub checkpoints: u64,
    /// Why it failed.
    pub failure: Option<String>,
    /// Its nodes.
    pub operators: Vec<NodeView>,
    /// Settings in effect.
    pub settings: BTreeMap<String, EffectiveSettingView>,
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
        let (mut records_in, mut records_out) = (0, 0);
        for node in &self.graph.nodes {
            let uid = &node.uid;
            let kind = match node.kind {
                NodeKind::Source(_) => "source",
                NodeKind::Operator(_) => "operator",
                NodeKind::Sink(_) => "sink",
            };
            let view = NodeView {
                uid: uid.clone(),
                kind: kind.to_owned(),
                parallelism: node.parallelism,
                module: state.modules.get(uid).map(|module| module.digest().short()),
                states: state.descriptions.get(uid).map_or_else(Vec::new, |description| {
                    description.states.iter().map(|state| state.name.clone()).collect()
                }),
                target: target(&node.kind),
                records_in: self.sum(uid, |c| c.records_in.load(Ordering::Relaxed)),
                records_out: self.sum(uid, |c| c.records_out.load(Ordering::Relaxed)),
                keys: self.sum(uid, |c| c.keys.load(Ordering::Relaxed)),
            };
            match node.kind {
                NodeKind::Source(_) => records_in += view.records_in,
                NodeKind::Sink(_) => records_out += view.records_out,
                NodeKind::Operator(_) => {}
            }
            operators.push(view);
        }
        JobView {
            job_id: self.job_id,
            name: self.graph.name.clone(),
            status: state.status,
            parallelism: self.graph.parallelism,
            max_parallelism: self.graph.max_parallelism,
            started_at: self.started_at,
            restored_from: self.restored_from.clone(),
            version: state.version,
            records_in,
            records_out,
            last_checkpoint: state.last_round.clone(),
            checkpoints: state.rounds,
            failure: state.failure.clone(),
            operators,
            settings: self
                .graph
                .settings
                .iter()
                .map(|(key, setting)| (key.clone(), setting.into()))
                .collect(),
        }
    }
}

fn target(kind: &NodeKind) -> Option<String> {
    match kind {
        NodeKind::Sink(sink) => match &sink.connector {
            SinkConnector::File(file) => Some(file.path.display().to_string()),
            SinkConnector::Print | SinkConnector::Blackhole => None,
        },
        NodeKind::Source(_) | NodeKind::Operator(_) => None,
    }
}

/// A running job.
#[derive(Clone)]
pub struct JobHandle {
    /// What it shares.
    pub shared: Arc<JobShared>,
    pub(super) environment: Arc<dyn Environment>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) done: watch::Receiver<bool>,
}

impl JobHandle {
    /// Its id.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        self.shared.job_id
    }

    /// The machine it runs on.
    #[must_use]
    pub fn environment(&self) -> &Arc<dyn Environment> {
        &self.environment
    }

    /// Its stage.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        locked(&self.shared.state).status
    }

    /// Asks for a snapshot and waits for it.
    ///
    /// # Errors
    /// [`JobError`] where the job is not running, or the snapshot failed.
    pub async fn snapshot(&self, mut request: SnapshotRequest) -> Result<SnapshotReport, JobError> {
        let (reply, result) = oneshot::channel();
        request.reply = Some(reply);
        let sent = self.commands.send(Command::Snapshot(request));
        sent.map_err(|_| self.not_running())?;
        result.await.map_err(|_| self.not_running())?
    }

    fn not_running(&self) -> JobError {
        JobError::failed(format!(
            "job {} is {}, not RUNNING: nothing can be saved",
            self.job_id(),
            self.status()
        ))
    }

    /// Ends the job at once.
    pub fn cancel(&self) {
        let _ = self.commands.send(Command::Cancel);
    }

    /// Waits until the job has ended.
    pub async fn done(&self) {
        let mut done = self.done.clone();
        // An error: the control loop is gone, so the job has ended too.
        let _ = done.wait_for(|done| *done).await;
    }
}
