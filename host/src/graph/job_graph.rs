//! The job as the user means it: checked, with every default filled in. Everything after parsing works on this.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regraft_model::id::OperatorUid;
use regraft_model::schema::Type;

/// A checked job.
#[derive(Debug, Clone)]
pub struct JobGraph {
    /// For people and for naming the job; not part of any state.
    pub name: String,
    /// The default parallelism.
    pub parallelism: u32,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// Periodic checkpoints.
    pub checkpoint: CheckpointSettings,
    /// What follows a failure that a restart may get over.
    pub restart: RestartStrategy,
    /// Where savepoints go when the command names no directory: a path or an object store's URL.
    pub savepoint_dir: Option<String>,
    /// Sources, operators and sinks, every one after all of its inputs.
    pub nodes: Vec<Node>,
    /// What stood after `--`.
    pub arguments: Vec<String>,
    /// For each setting that is in effect: its value, and where it came from.
    pub settings: BTreeMap<String, EffectiveSetting>,
    /// The job file's text as it was read, for `_metadata`.
    pub text: String,
    /// The directory that relative paths in it are relative to.
    pub base_dir: PathBuf,
}

/// A setting's value, as in the job file, and what set it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EffectiveSetting {
    /// As TOML.
    pub value: String,
    /// `default`, `job file`, `config`, `environment` or `command line`.
    pub origin: String,
}

/// `[checkpoint]`. Barriers are always aligned where records are not to be seen twice: `unaligned` is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// From one start to the next; none: no periodic checkpoints.
    pub interval: Option<Duration>,
    /// Whether a record may count twice after a restart.
    pub mode: CheckpointMode,
    /// From the end of one checkpoint to the start of the next, at least.
    pub min_pause: Duration,
    /// A round that takes longer is given up.
    pub timeout: Duration,
    /// How many checkpoints in a row may fail; one more fails the job over.
    pub tolerable_failures: u32,
    /// How many checkpoints may be under way at once; at least 1.
    pub max_concurrent: u32,
    /// How many of the newest completed checkpoints are kept; at least 1.
    pub retain: u32,
    /// What happens to them when the job is cancelled.
    pub on_cancel: OnCancel,
    /// Where checkpoints go; none: the host's data directory.
    pub dir: Option<String>,
}

/// What a restart from a checkpoint does to records that were read behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMode {
    /// Barriers are aligned: each record counts once.
    ExactlyOnce,
    /// Barriers hold nothing back: a record may count twice after a restart.
    AtLeastOnce,
}

/// What happens to the checkpoints of a job that is cancelled. Those of a job that failed are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCancel {
    /// They are deleted.
    Delete,
    /// They stay.
    Retain,
}

/// `[restart]`, with Flink's strategies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RestartStrategy {
    /// The first failure fails the job.
    None,
    /// The same wait before each restart.
    FixedDelay {
        /// How many restarts in all; one failure more fails the job.
        attempts: u32,
        /// The wait.
        delay: Duration,
    },
    /// A wait that grows with each failure, until the job has run for a while.
    ExponentialDelay {
        /// The first wait; above zero.
        initial_backoff: Duration,
        /// The longest wait; at least the first one.
        max_backoff: Duration,
        /// What the wait grows by; at least 1.
        backoff_multiplier: f64,
        /// After so long without a failure, the wait is the first one again; above zero.
        reset_backoff_threshold: Duration,
        /// How much of the wait is random, up and down; 0 to 1.
        jitter_factor: f64,
        /// How many restarts until the wait is reset; one failure more fails the job; none: any number.
        attempts: Option<u32>,
    },
}

/// A source, operator or sink.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its uid.
    pub uid: OperatorUid,
    /// How many subtasks.
    pub parallelism: u32,
    /// Where its records come from; none for a source.
    pub inputs: Vec<Input>,
    /// How it makes watermarks from the event times of the records that it emits; none: it makes none. What a source
    /// without event times was given has been handed to the operators that read it.
    pub watermark: Option<WatermarkStrategy>,
    /// What it is.
    pub kind: NodeKind,
}

impl Node {
    /// Where it writes to: a sink its records, an operator its dead letters.
    #[must_use]
    pub const fn output(&self) -> Option<&SinkConnector> {
        match &self.kind {
            NodeKind::Sink(sink) => Some(&sink.connector),
            NodeKind::Operator(Operator {
                dead_letter: Some(letters),
                ..
            }) => Some(&letters.connector),
            NodeKind::Operator(_) | NodeKind::Source(_) => None,
        }
    }

    /// The directory that it writes to, where it writes files.
    #[must_use]
    pub fn output_dir(&self) -> Option<&Path> {
        match self.output()? {
            SinkConnector::File(file) => Some(&file.path),
            SinkConnector::Print | SinkConnector::Blackhole => None,
        }
    }
}

/// `watermark` of a source or an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatermarkStrategy {
    /// How far behind the greatest event time so far a record may come.
    pub max_out_of_orderness: Duration,
    /// Without records for so long, it is idle and holds nobody back; above zero; none: never.
    pub idleness: Option<Duration>,
    /// Position of the generator's field that is a record's event time, in milliseconds; only of a generator.
    pub timestamp: Option<usize>,
}

/// One edge into a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Position in [`JobGraph::nodes`] of what it comes from.
    pub from: usize,
    /// The output port, by name; none: the first one.
    pub port: Option<String>,
    /// How records find their subtask.
    pub by: Partitioning,
}

/// How records of an edge find their subtask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioning {
    /// Subtask i to subtask i.
    Forward,
    /// By key group.
    Key,
    /// In turn.
    Rebalance,
    /// All to all.
    Broadcast,
}

/// What a node is.
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
    /// What it reads.
    pub connector: SourceConnector,
    /// Records per second, all subtasks together.
    pub rate: Option<u64>,
}

/// The built-in source connectors.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceConnector {
    /// Lines of files.
    File(FileSource),
    /// Made-up records.
    Generator(GeneratorSource),
}

/// `connector = "file"` of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// A glob. Identity.
    pub path: String,
    /// Whether to go on looking for more. Tuning.
    pub watch: bool,
    /// How often to look. Tuning.
    pub poll: Duration,
    /// What the key of a record is. Identity.
    pub key: LineKey,
}

/// The key of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKey {
    /// Lines have no key.
    None,
    /// `key = "line"`: the line itself.
    Line,
}

/// `connector = "generator"` of a source: a record is a function of (seed, split, offset).
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorSource {
    /// Identity.
    pub seed: u64,
    /// Independent of parallelism. Identity.
    pub splits: u32,
    /// In all; none: endless. Identity.
    pub rows: Option<u64>,
    /// In order; they make up the value. Identity.
    pub fields: Vec<GeneratorField>,
    /// Position of the field that is the key; it is not part of the value. Identity.
    pub key: Option<usize>,
}

impl GeneratorSource {
    /// The fields that make up the value.
    pub fn value_fields(&self) -> impl Iterator<Item = &GeneratorField> {
        self.fields
            .iter()
            .enumerate()
            .filter(|(i, _)| self.key != Some(*i))
            .map(|(_, field)| field)
    }

    /// Whether the value is one text or bytes field as it is, rather than a record of named columns.
    #[must_use]
    pub fn value_is_raw(&self) -> bool {
        let mut fields = self.value_fields();
        matches!((fields.next(), fields.next()), (Some(field), None) if field.ty != Type::U64)
    }
}

/// One field of generated records.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorField {
    /// Its name.
    pub name: String,
    /// `u64`, `string` or `bytes`.
    pub ty: Type,
    /// What it holds.
    pub values: GeneratorValues,
}

/// How a field's values are drawn. A text field shows the drawn number in base 26, or pads it to `len`.
#[derive(Debug, Clone, PartialEq)]
pub enum GeneratorValues {
    /// `range = [first, last]`: uniform, inclusive.
    Range {
        /// The least.
        first: u64,
        /// The greatest.
        last: u64,
    },
    /// `zipf = { n = N, exponent = S }`: ranks 0 to N-1, rank r with weight 1/(r+1)^S.
    Zipf {
        /// How many ranks.
        n: u64,
        /// The exponent.
        exponent: f64,
    },
    /// `sequence = FIRST`: FIRST, FIRST+1, … over all splits (split s of n: FIRST + offset × n + s).
    Sequence {
        /// The first.
        first: u64,
    },
    /// `len = N` of a `bytes` or `string` field: N random bytes (letters).
    Random {
        /// How many.
        len: u32,
    },
}

/// An operator.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The component.
    pub artifact: Artifact,
    /// Handed to the guest as JSON; null: none.
    pub config: serde_json::Value,
    /// Greatest linear memory, in bytes.
    pub memory_max: u64,
    /// Greatest time one call computes.
    pub time_per_batch_max: Duration,
    /// What follows a record whose call traps or goes beyond a limit.
    pub on_trap: Policy,
    /// What follows a record whose call ends with an error that the guest declared.
    pub on_failure: Policy,
    /// Where such records go; there where one of the policies needs it.
    pub dead_letter: Option<DeadLetter>,
}

/// What follows a record that an operator cannot process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The job fails.
    Fail,
    /// The record goes to the dead letters, and the job goes on.
    DeadLetter,
}

/// `dead-letter` of an operator: an output for the records that it cannot process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it writes.
    pub connector: SinkConnector,
    /// How many dead letters the operator may have, all its subtasks together; one more fails the job; none: any number.
    pub budget: Option<u64>,
}

/// Where an operator's component comes from.
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
    /// Where it writes.
    pub connector: SinkConnector,
}

/// The built-in sink connectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkConnector {
    /// Parts in a directory, committed with checkpoints.
    File(FileSink),
    /// Lines on stdout.
    Print,
    /// Counts and checksums.
    Blackhole,
}

/// `connector = "file"` of a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSink {
    /// The directory. Identity.
    pub path: PathBuf,
    /// How a record is written. Identity.
    pub format: TextFormat,
}

/// How a sink writes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// The raw text value.
    Lines,
    /// Columns of the value, tab-separated.
    Tsv,
    /// Columns of the value, comma-separated.
    Csv,
    /// One object a line.
    Json,
}

impl TextFormat {
    /// The file name's extension.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Lines => "txt",
            Self::Tsv => "tsv",
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }
}

impl JobGraph {
    /// The node of a uid.
    #[must_use]
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.uid.as_str() == uid)
    }
}
