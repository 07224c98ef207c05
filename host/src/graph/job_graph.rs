//! The checked job graph, with every default filled in. All code after parsing works on this.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regraft_model::id::OperatorUid;

use crate::connector::sink::SinkConnector;
use crate::connector::source::SourceConnector;

/// A checked job.
#[derive(Debug, Clone)]
pub struct JobGraph {
    /// Name of the job, for people and for commands; not part of any state.
    pub name: String,
    /// Default parallelism.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Settings of periodic checkpoints.
    pub checkpoint: CheckpointSettings,
    /// Strategy of restarts after a failure that may pass.
    pub restart: RestartStrategy,
    /// Directory of savepoints if the command names none: a path or the URL of an object store.
    pub savepoint_dir: Option<String>,
    /// Sources, operators and sinks in topological order.
    pub nodes: Vec<Node>,
    /// Arguments that followed `--` on the command line.
    pub arguments: Vec<String>,
    /// Value and origin of every setting that is in effect.
    pub settings: BTreeMap<String, EffectiveSetting>,
    /// Text of the job file as it was read, for `_metadata`.
    pub text: String,
    /// Directory to which paths in the job file are relative.
    pub base_dir: PathBuf,
}

/// The value of a setting, and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// Value as TOML.
    pub value: String,
    /// Layer that it comes from.
    pub origin: SettingOrigin,
}

/// Layer of settings that a value comes from, in the words of `info --json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingOrigin {
    /// Regraft itself.
    Default,
    /// The job file.
    #[serde(rename = "job file")]
    JobFile,
    /// The host's `config.toml`.
    Config,
    /// An environment variable.
    Environment,
    /// An argument.
    #[serde(rename = "command line")]
    CommandLine,
}

impl SettingOrigin {
    /// Returns the word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::JobFile => "job file",
            Self::Config => "config",
            Self::Environment => "environment",
            Self::CommandLine => "command line",
        }
    }
}

/// The table `[checkpoint]`.
///
/// Exactly-once barriers are always aligned; `unaligned` is not implemented yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Time from one checkpoint's start to the next; `None` if there are no periodic checkpoints.
    pub interval: Option<Duration>,
    /// Processing guarantee after a restart.
    pub mode: CheckpointMode,
    /// Minimum time from the end of one checkpoint to the start of the next.
    pub min_pause: Duration,
    /// Time after which a round is given up.
    pub timeout: Duration,
    /// Number of consecutive checkpoints that may fail; one more is a failure of the job.
    pub tolerable_failures: u32,
    /// Maximum number of checkpoints in progress at once, at least 1.
    pub max_concurrent: u32,
    /// Number of completed checkpoints that are kept, at least 1; older ones are deleted.
    pub retain: u32,
    /// Treatment of the checkpoints when the job is cancelled.
    pub on_cancel: OnCancel,
    /// Directory of checkpoints; `None` for the host's data directory.
    pub dir: Option<String>,
}

/// The processing guarantee for records read after the checkpoint that a restart goes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMode {
    /// Barriers are aligned: each record counts once.
    ExactlyOnce,
    /// Barriers hold back no records: after a restart a record may count twice.
    AtLeastOnce,
}

/// The treatment of a cancelled job's checkpoints. Those of a failed job are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCancel {
    /// They are deleted.
    Delete,
    /// They are kept.
    Retain,
}

/// The table `[restart]`, with Flink's strategies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RestartStrategy {
    /// Never restarts: the first failure fails the job.
    None,
    /// Waits for the same time before each restart.
    FixedDelay {
        /// Total number of restarts; one more failure fails the job.
        attempts: u32,
        /// Wait before each restart.
        delay: Duration,
    },
    /// Waits for a time that grows with each failure, until the job has run for a while.
    ExponentialDelay {
        /// First wait; greater than zero.
        initial_backoff: Duration,
        /// Upper bound of the wait; at least the first one.
        max_backoff: Duration,
        /// Factor by which the wait grows; at least 1.
        backoff_multiplier: f64,
        /// Time without a failure after which the wait is the first one again; greater than zero.
        reset_backoff_threshold: Duration,
        /// Fraction of the wait that is added or subtracted at random, from 0 to 1.
        jitter_factor: f64,
        /// Number of restarts until the wait is reset, after which one more failure fails the job; `None` for any
        /// number.
        attempts: Option<u32>,
    },
}

/// A source, operator or sink.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its uid.
    pub uid: OperatorUid,
    /// Number of subtasks.
    pub parallelism: u32,
    /// Incoming edges; empty for a source.
    pub inputs: Vec<Input>,
    /// Generation of watermarks from the event times of emitted records; `None` if the node generates none.
    ///
    /// The strategy of a source without event times has been moved to the operators that read it.
    pub watermark: Option<WatermarkStrategy>,
    /// Kind of the node, with its settings.
    pub kind: NodeKind,
}

impl Node {
    /// Returns what it writes to: a sink its records, an operator its dead letters.
    #[must_use]
    pub const fn output(&self) -> Option<&Arc<dyn SinkConnector>> {
        match &self.kind {
            NodeKind::Sink(sink) => Some(&sink.connector),
            NodeKind::Operator(Operator {
                dead_letter: Some(letters),
                ..
            }) => Some(&letters.connector),
            NodeKind::Operator(_) | NodeKind::Source(_) => None,
        }
    }

    /// Returns the directory that it writes to; `None` where it writes no files.
    #[must_use]
    pub fn output_dir(&self) -> Option<&Path> {
        self.output()?.directory()
    }
}

/// The table `watermark` of a source or an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatermarkStrategy {
    /// Maximum delay of a record behind the greatest event time so far.
    pub max_out_of_orderness: Duration,
    /// Time without records after which it is idle and holds back no watermark, greater than zero; `None` for never.
    pub idleness: Option<Duration>,
    /// Position of the field that is a record's event time, in milliseconds; only of a source that has such fields.
    pub timestamp: Option<usize>,
}

/// An edge into a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Position of the upstream node in [`JobGraph::nodes`].
    pub from: usize,
    /// Name of the output port; `None` for the first one.
    pub port: Option<String>,
    /// Partitioning of the edge.
    pub by: Partitioning,
}

/// The assignment of an edge's records to subtasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioning {
    /// Subtask i to subtask i.
    Forward,
    /// By key group.
    Key,
    /// Round-robin.
    Rebalance,
    /// Every record to every subtask.
    Broadcast,
}

/// The kind of a node.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// Reads records.
    Source(Source),
    /// Runs a component.
    Operator(Operator),
    /// Writes records.
    Sink(Sink),
}

/// A source.
#[derive(Debug, Clone)]
pub struct Source {
    /// Opens its readers.
    pub connector: Arc<dyn SourceConnector>,
    /// Records per second, all subtasks together.
    pub rate: Option<u64>,
}

/// An operator.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Origin of its component.
    pub artifact: Artifact,
    /// Configuration handed to the guest as JSON; null for none.
    pub config: serde_json::Value,
    /// Upper bound of the memory of an instance, its tables included, in bytes.
    pub memory_max: u64,
    /// Upper bound of the bytes that the host holds for one call of a subtask.
    pub host_memory_max: u64,
    /// Upper bound of keyed state and timers over all subtasks, in bytes; `None` for the limit of the host alone.
    pub state_max: Option<u64>,
    /// Upper bound of the time that one call computes.
    pub time_per_batch_max: Duration,
    /// Policy for a record whose call traps or exceeds a limit.
    pub on_trap: Policy,
    /// Policy for a record whose call returns an error that the guest declared.
    pub on_failure: Policy,
    /// Output for such records; present if one of the policies needs it.
    pub dead_letter: Option<DeadLetter>,
}

/// The policy for a record that an operator cannot process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The job fails.
    Fail,
    /// The record goes to the dead letters, and the job goes on.
    DeadLetter,
}

/// `dead-letter` of an operator: an output for the records that it cannot process.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Opens its writers.
    pub connector: Arc<dyn SinkConnector>,
    /// Limit of dead letters of the operator, over all its subtasks: one more fails the job. `None` for no limit.
    pub budget: Option<u64>,
}

/// The origin of an operator's component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artifact {
    /// `module = PATH`: a component file.
    Module(PathBuf),
    /// `crate = PATH`: a guest crate, built by `regraft build`.
    Crate(PathBuf),
}

/// A sink.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Opens its writers.
    pub connector: Arc<dyn SinkConnector>,
}

impl JobGraph {
    /// Returns the node with this uid.
    #[must_use]
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.uid.as_str() == uid)
    }
}
