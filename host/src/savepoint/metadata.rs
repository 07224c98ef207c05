//! `_metadata`: the content of a savepoint or checkpoint and the paths of its files (`docs/formats/savepoint.md`).
//!
//! It is JSON in an envelope with the format version and a checksum.
//! [`Metadata::problems`] checks it before it is written and after it is read, so that invalid metadata is neither made
//! nor accepted.

use std::collections::BTreeMap;

use regraft_model::describe::{Description, StateKind};
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid, SubtaskIndex};
use regraft_model::key_group::KeyGroupRange;
use regraft_model::schema::{Field, Type};
pub use regraft_model::snapshot::SnapshotKind;
use serde::{Deserialize, Serialize};

use crate::graph::job_graph::SettingOrigin;
use crate::savepoint::rows::{Entries, GroupExtent, Layout, Place};

mod error;
mod check;
mod size;
mod envelope;
mod declared;

pub use crate::savepoint::rows::checksum;
pub use declared::{DECLARED_BYTES_MAX, declared_bytes};
pub use envelope::{FORMAT_VERSION, METADATA_BYTES_MAX, seal};
pub use error::MetadataError;

#[cfg(test)]
mod tests;

/// The content of a savepoint or checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Layout of the state files.
    pub format: Layout,
    /// Purpose of the snapshot, which decides if it commits.
    pub kind: SnapshotKind,
    /// Cause of the snapshot.
    pub trigger: Trigger,
    /// Party that may delete it.
    pub owner: Owner,
    /// Label for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Name of the job.
    pub job_name: String,
    /// Job that made it.
    pub job_id: JobId,
    /// Attempt of the job that made it.
    pub attempt: AttemptId,
    /// Version of the job that made it.
    pub job_version: JobVersion,
    /// Jobs that this one descends from by restoring their savepoints; newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<Ancestor>,
    /// Id of the checkpoint or savepoint.
    pub checkpoint_id: CheckpointId,
    /// Time at which the round began, in milliseconds since the Unix epoch.
    pub triggered_at_ms: i64,
    /// Time at which all state was durable, in milliseconds since the Unix epoch.
    pub completed_at_ms: i64,
    /// Version of Regraft that wrote it.
    pub host_version: String,
    /// Version of the WIT package.
    pub wit_version: String,
    /// Text of the job file.
    pub job_file: String,
    /// The job graph in effect, in topological order.
    pub graph: Vec<GraphNode>,
    /// Arguments that followed `--`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Settings in effect. Absent before format version 3.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: SavedSettings,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// The components, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModuleFile>,
    /// The saved content of each uid.
    pub operators: Vec<OperatorEntry>,
}

/// Settings in effect by the layer that they come from: their keys, and their values as TOML.
pub type SavedSettings = BTreeMap<SettingOrigin, BTreeMap<String, String>>;

/// The cause of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract's own words")]
pub enum Trigger {
    Manual,
    Periodic,
    Stop,
    Upgrade,
    EndOfInput,
}

/// The party that may delete a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract's own words")]
pub enum Owner {
    User,
    Host,
}

macro_rules! words {
    ($($name:ident { $($variant:ident => $word:literal),+ })+) => {$(
        /// Writes the word that `_metadata` has.
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
    )+};
}

words! {
    Trigger {
        Manual => "manual", Periodic => "periodic", Stop => "stop", Upgrade => "upgrade", EndOfInput => "end-of-input"
    }
    Owner { User => "user", Host => "host" }
    EntryKind { Source => "source", Operator => "operator", Sink => "sink" }
    SavedStateKind {
        Value => "value", List => "list", Map => "map", Reducing => "reducing", Aggregating => "aggregating",
        Timers => "timers", Positions => "positions", OperatorList => "operator-list", OperatorUnion => "operator-union",
        OperatorBroadcast => "operator-broadcast"
    }
}

/// A job that this one descends from, and the savepoint between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    /// The earlier job.
    pub job_id: JobId,
    /// URL of its savepoint when it was restored.
    pub savepoint: String,
}

/// A node of the job graph, as far as people and `plan` need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphNode {
    /// Its uid.
    pub uid: OperatorUid,
    /// Its kind.
    pub kind: EntryKind,
    /// Number of subtasks.
    pub parallelism: u32,
    /// Incoming edges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<GraphEdge>,
}

/// An edge of the job graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphEdge {
    /// The upstream node.
    pub from: OperatorUid,
    /// Output port; `None` for the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// `forward`, `key`, `rebalance` or `broadcast`.
    pub by: String,
}

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the job file's own words")]
pub enum EntryKind {
    Source,
    Operator,
    Sink,
}

/// The file of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleFile {
    /// SHA-256 of the component, 64 hex digits.
    pub sha256: String,
    /// Path relative to the savepoint.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// XXH3-64, 16 hex digits.
    pub checksum: String,
}

/// The saved content of one uid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorEntry {
    /// The uid, which is all that ties the content to a job.
    pub uid: OperatorUid,
    /// Kind of the node.
    pub kind: EntryKind,
    /// Number of subtasks that wrote it.
    pub parallelism: u32,
    /// SHA-256 of the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Declarations of that component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Keyed states, timers and operator states; of a source, its positions if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StateEntry>,
    /// Positions of a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceEntry>,
    /// Uncommitted output of a sink, or of an operator's dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkEntry>,
    /// Watermark of each subtask, in order; empty if none is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watermarks: Vec<i64>,
    /// True if all inputs had ended and `finish` had run, which it does not do again unless more records come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
    /// Indices, in order, of the subtasks for which that is true, if it is not for all. Meaningless at another
    /// parallelism.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finished_subtasks: Vec<u32>,
    /// Record of each subtask, in order; empty if not recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtasks: Vec<SubtaskRecord>,
}

/// Sizes and times of one subtask of a uid in a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubtaskRecord {
    /// Size of the state files written for this snapshot, in bytes.
    pub written_bytes: u64,
    /// Size of all its state files, in bytes.
    pub state_bytes: u64,
    /// Time from the first barrier to the last, in microseconds. The times are those of the whole operator chain.
    pub align_us: u64,
    /// Time for which processing was blocked, in microseconds.
    pub sync_us: u64,
    /// Time from the barrier until the last row was written out, in microseconds; records were processed meanwhile.
    pub async_us: u64,
}

/// One state of a uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateEntry {
    /// Name, which is unique among the states of the uid, those among timers, and those among operator states.
    pub name: String,
    /// Its kind.
    pub kind: SavedStateKind,
    /// Newest type of its values.
    pub schema: Type,
    /// Digest of `schema`, 16 hex digits.
    pub digest: String,
    /// Types that its values may have. Schema number n is entry n - 1, and the last one is the newest.
    pub schemas: Vec<Type>,
    /// Name and type of the key: of a record, or `split` for positions; `None` for operator state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Field>,
    /// Digest of the key's type, 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_digest: Option<String>,
    /// Type of a map's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_key: Option<Type>,
    /// For timers: the names that occur in the rows, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<String>,
    /// Files of its entries. Rows of a subtask's later files replace those of its earlier ones.
    pub files: Vec<StateFile>,
    /// Key-group ranges of subtasks that had no entry, and so have no file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty: Vec<KeyGroupRange>,
}

/// The kinds of saved state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(
    missing_docs,
    reason = "as declared, with timers, positions and operator state beside the keyed kinds"
)]
pub enum SavedStateKind {
    Value,
    List,
    Map,
    Reducing,
    Aggregating,
    Timers,
    Positions,
    OperatorList,
    OperatorUnion,
    OperatorBroadcast,
}

impl SavedStateKind {
    /// Returns true if its entries belong to key groups.
    #[must_use]
    pub const fn is_keyed(self) -> bool {
        !matches!(
            self,
            Self::Positions | Self::OperatorList | Self::OperatorUnion | Self::OperatorBroadcast
        )
    }

    /// Returns true if its entries have keys, so that a checkpoint may have increments of it.
    #[must_use]
    pub const fn has_keys(self) -> bool {
        self.is_keyed() || matches!(self, Self::Positions)
    }

    /// Returns true if it is a state of the component itself, beside keyed state.
    #[must_use]
    pub const fn is_of_operator(self) -> bool {
        !self.has_keys()
    }

    /// Returns the kind of an operator state from the word of its declaration. Admission refuses any other word.
    #[must_use]
    pub fn of_operator(word: &str) -> Self {
        match word {
            "union" => Self::OperatorUnion,
            "broadcast" => Self::OperatorBroadcast,
            _ => Self::OperatorList,
        }
    }
}

impl From<StateKind> for SavedStateKind {
    fn from(kind: StateKind) -> Self {
        match kind {
            StateKind::Value => Self::Value,
            StateKind::List => Self::List,
            StateKind::Map => Self::Map,
            StateKind::Reducing => Self::Reducing,
            StateKind::Aggregating => Self::Aggregating,
        }
    }
}

/// One file of a state. Paths are relative to the savepoint; those of a checkpoint may be in `../shared/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// Path relative to the savepoint.
    pub path: String,
    /// Subtask that wrote it.
    pub subtask: SubtaskIndex,
    /// Number in [`StateEntry::schemas`] of all its values; 0 if each value carries its own (native layout).
    pub schema: u16,
    /// Key groups that the subtask owned.
    pub key_groups: KeyGroupRange,
    /// The row groups of the file, with the key groups that have entries.
    pub groups: Vec<GroupExtent>,
    /// Number of rows.
    pub entries: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// XXH3-64, 16 hex digits.
    pub checksum: String,
    /// The rest of the file after its row groups, which is read with any of them; `None` if the file can only be read
    /// as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<Place>,
    /// True if it holds changes only: its rows replace those of the files before it, and a row with schema 0 removes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub increment: bool,
}

/// The position of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Connector, as in the job file.
    pub connector: String,
    /// Settings that identify the source.
    pub identity: serde_json::Value,
    /// Its splits, in order of their names, but for those in the state `positions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<SplitEntry>,
    /// Further state of the connector; null for none.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub state: serde_json::Value,
}

/// The position of a source in one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitEntry {
    /// Id of the split.
    pub split: String,
    /// Position from which the connector goes on.
    pub position: serde_json::Value,
    /// True if the split was read to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

/// The uncommitted output of a sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkEntry {
    /// Connector, as in the job file.
    pub connector: String,
    /// Settings that identify the sink.
    pub identity: serde_json::Value,
    /// Handles of output that is written but not committed.
    pub handles: Vec<serde_json::Value>,
    /// Further state of the connector; null for none.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub state: serde_json::Value,
}

impl Metadata {
    /// Iterates over all files that it lists, with their sizes: state files in order, then components.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        let states = self
            .operators
            .iter()
            .flat_map(|entry| &entry.states)
            .flat_map(|state| &state.files);
        let states = states.map(|file| (file.path.as_str(), file.bytes));
        states.chain(self.modules.iter().map(|module| (module.path.as_str(), module.bytes)))
    }

    /// Returns the saved content of a uid.
    #[must_use]
    pub fn operator(&self, uid: &str) -> Option<&OperatorEntry> {
        self.operators.iter().find(|entry| entry.uid.as_str() == uid)
    }
}

impl OperatorEntry {
    /// Returns true if something is lost when it is not restored.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        let sink = self
            .sink
            .as_ref()
            .is_some_and(|sink| !sink.handles.is_empty() || !sink.state.is_null());
        let source = self
            .source
            .as_ref()
            .is_some_and(|source| !source.splits.is_empty() || !source.state.is_null());
        !self.states.is_empty() || source || sink
    }

    /// Returns the number of uncommitted parts of output.
    #[must_use]
    pub fn pending_parts(&self) -> usize {
        self.sink.as_ref().map_or(0, |sink| sink.handles.len())
    }

    /// Returns a lower bound of the number of keys: the number of entries in its largest keyed state.
    #[must_use]
    pub fn keys(&self) -> u64 {
        let keyed = |state: &&StateEntry| state.kind.is_keyed() && state.kind != SavedStateKind::Timers;
        self.states
            .iter()
            .filter(keyed)
            .map(StateEntry::entries)
            .max()
            .unwrap_or(0)
    }

    /// Returns the size of its state files, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.states.iter().map(StateEntry::bytes).sum()
    }
}

impl StateEntry {
    /// Returns the number of rows in its files.
    ///
    /// With [increments](Self::has_increments), that is at least the number of entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.files.iter().map(|file| file.entries).sum()
    }

    /// Returns true if some of its files hold changes only.
    #[must_use]
    pub fn has_increments(&self) -> bool {
        self.files.iter().any(|file| file.increment)
    }

    /// Returns the size of its files, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Returns the key of its rows: the declared one, or for operator state the position of each item, as a `u64` named
    /// `index`.
    #[must_use]
    pub fn key_field(&self) -> Field {
        self.key.clone().unwrap_or_else(|| Field {
            name: "index".to_owned(),
            ty: Type::U64,
            aliases: Vec::new(),
            default: false,
        })
    }

    /// Returns the part of its rows beside key and value. The check of `_metadata` refuses a map without a type of its
    /// keys.
    #[must_use]
    pub fn entries_of_key(&self) -> Entries<'_> {
        match (self.kind, &self.map_key) {
            (SavedStateKind::List, _) => Entries::List,
            (SavedStateKind::Map, Some(key)) => Entries::Map(key),
            (SavedStateKind::Timers, _) => Entries::Timers,
            (kind, _) if kind.is_of_operator() => Entries::Items,
            _ => Entries::None,
        }
    }

    /// Returns the type of a file's values; the newest one if each value carries its own number.
    #[must_use]
    pub fn schema_of(&self, file: &StateFile) -> &Type {
        let older = usize::from(file.schema)
            .checked_sub(1)
            .and_then(|index| self.schemas.get(index));
        older.unwrap_or(&self.schema)
    }
}
