//! `_metadata`: what a savepoint or checkpoint holds and where (`docs/formats/savepoint.md`).
//!
//! JSON in an envelope with the format version and a checksum. The same [`Metadata::problems`] run before it is written and
//! after it is read, so that a wrong one is neither made nor believed.

use regraft_model::describe::{Description, StateKind};
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid, SubtaskIndex};
use regraft_model::key_group::KeyGroupRange;
use regraft_model::schema::{Field, Type};
pub use regraft_model::snapshot::SnapshotKind;
use serde::{Deserialize, Serialize};

use crate::savepoint::rows::{Entries, GroupExtent, Layout, Place};

mod check;
mod envelope;
mod error;

pub use crate::savepoint::rows::checksum;
pub use envelope::FORMAT_VERSION;
pub use error::MetadataError;

#[cfg(test)]
mod tests;

/// Everything about a savepoint or checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// How state files are laid out.
    pub format: Layout,
    /// What it was made for; decides what it commits.
    pub kind: SnapshotKind,
    /// Why it was made.
    pub trigger: Trigger,
    /// Who may delete it.
    pub owner: Owner,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The job's name.
    pub job_name: String,
    /// The run that made it.
    pub job_id: JobId,
    /// How often that run had been started.
    pub attempt: AttemptId,
    /// Which modules it ran.
    pub job_version: JobVersion,
    /// What the run was restored from, and that run in turn; newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<Ancestor>,
    /// The round that made it.
    pub checkpoint_id: CheckpointId,
    /// When the round began, in milliseconds since the Unix epoch.
    pub triggered_at_ms: i64,
    /// When all state was durable.
    pub completed_at_ms: i64,
    /// The version of Regraft that wrote it.
    pub host_version: String,
    /// The version of the WIT package.
    pub wit_version: String,
    /// The job file's text.
    pub job_file: String,
    /// What was in effect, in order: every node after its inputs.
    pub graph: Vec<GraphNode>,
    /// What stood after `--`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// The components, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModuleFile>,
    /// What was saved, by uid.
    pub operators: Vec<OperatorEntry>,
}

/// Why a snapshot was made.
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

/// Who may delete a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract's own words")]
pub enum Owner {
    User,
    Host,
}

macro_rules! words {
    ($($name:ident { $($variant:ident => $word:literal),+ })+) => {$(
        /// As in `_metadata`.
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
        Timers => "timers", OperatorList => "operator-list", OperatorUnion => "operator-union",
        OperatorBroadcast => "operator-broadcast"
    }
}

/// A run that a job goes back to, and the savepoint between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    /// The earlier run.
    pub job_id: JobId,
    /// Where its savepoint was, as a URL.
    pub savepoint: String,
}

/// A node of the job graph, as far as people and `plan` need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphNode {
    /// Its uid.
    pub uid: OperatorUid,
    /// What it is.
    pub kind: EntryKind,
    /// How many subtasks.
    pub parallelism: u32,
    /// Where its records come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<GraphEdge>,
}

/// An edge of the job graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphEdge {
    /// The node it comes from.
    pub from: OperatorUid,
    /// The output port; none: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// `forward`, `key`, `rebalance` or `broadcast`.
    pub by: String,
}

/// What a uid is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the job file's own words")]
pub enum EntryKind {
    Source,
    Operator,
    Sink,
}

/// A component's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleFile {
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
    /// Relative to the savepoint.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// XXH3-64, 16 hex digits.
    pub checksum: String,
}

/// What was saved of one uid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorEntry {
    /// The only tie between this and a job.
    pub uid: OperatorUid,
    /// What it was.
    pub kind: EntryKind,
    /// How many subtasks wrote it.
    pub parallelism: u32,
    /// The SHA-256 of its component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// What that component declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Keyed states, timers and operator states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StateEntry>,
    /// Where a source stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceEntry>,
    /// What a sink has pending, or an operator of its dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkEntry>,
    /// The watermark of each subtask, in order; empty: none is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watermarks: Vec<i64>,
    /// Whether all inputs had ended and `finish` had run: it does not run again unless more records come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
    /// Where that holds for some subtasks and not for all: which, in order. At another parallelism it says nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finished_subtasks: Vec<u32>,
    /// What each subtask did for this snapshot, in order; empty: not recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtasks: Vec<SubtaskRecord>,
}

/// What one subtask of a uid did for a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubtaskRecord {
    /// The size of the state files that were written for this snapshot.
    pub written_bytes: u64,
    /// The size of all its state files.
    pub state_bytes: u64,
    /// From the first barrier to the last, in microseconds. The times are those of all operators of its chain together.
    pub align_us: u64,
    /// What processing waited for.
    pub sync_us: u64,
    /// From the barrier until the last row was written out; records were processed meanwhile.
    pub async_us: u64,
}

/// One state of a uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateEntry {
    /// Unique in the uid.
    pub name: String,
    /// Its kind.
    pub kind: SavedStateKind,
    /// The newest type of its values.
    pub schema: Type,
    /// Its digest, 16 hex digits.
    pub digest: String,
    /// The types that values may have: number n is entry n - 1. The newest is the last one.
    pub schemas: Vec<Type>,
    /// The key; none for operator state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Field>,
    /// The digest of the key's type, 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_digest: Option<String>,
    /// The type of a map's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_key: Option<Type>,
    /// Timers: the names that its rows have, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<String>,
    /// Where the entries are. Of one subtask, rows of later files replace those of earlier ones.
    pub files: Vec<StateFile>,
    /// Key groups of subtasks that had no entry, and so no file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty: Vec<KeyGroupRange>,
}

/// The kinds of saved state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(
    missing_docs,
    reason = "as declared, with timers and operator state beside the keyed kinds"
)]
pub enum SavedStateKind {
    Value,
    List,
    Map,
    Reducing,
    Aggregating,
    Timers,
    OperatorList,
    OperatorUnion,
    OperatorBroadcast,
}

impl SavedStateKind {
    /// Whether its entries lie in key groups.
    #[must_use]
    pub const fn is_keyed(self) -> bool {
        !matches!(self, Self::OperatorList | Self::OperatorUnion | Self::OperatorBroadcast)
    }

    /// The kind of an operator state by the word of its declaration. Admission has refused any other word.
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

/// One file of a state. Its path is relative to the savepoint; that of a checkpoint may be in `../shared/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// Relative to the savepoint.
    pub path: String,
    /// The subtask that wrote it.
    pub subtask: SubtaskIndex,
    /// The number in [`StateEntry::schemas`] of all its values; 0: each value carries its own (native layout).
    pub schema: u16,
    /// What the subtask owned.
    pub key_groups: KeyGroupRange,
    /// Where those key groups that have entries are in the file.
    pub groups: Vec<GroupExtent>,
    /// How many rows.
    pub entries: u64,
    /// Its size.
    pub bytes: u64,
    /// XXH3-64, 16 hex digits.
    pub checksum: String,
    /// All behind its row groups, which is read together with any of them; none: the file can only be read as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<Place>,
    /// Whether it holds changes only: its rows replace those of the files before it, and a row with schema 0 removes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub increment: bool,
}

/// Where a source stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// As in the job file.
    pub connector: String,
    /// The settings that make it the same source.
    pub identity: serde_json::Value,
    /// Its splits, in order of their names.
    pub splits: Vec<SplitEntry>,
    /// What else the connector keeps; null: nothing.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub state: serde_json::Value,
}

/// Where a source stands in one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitEntry {
    /// Its id.
    pub split: String,
    /// What the connector needs to go on.
    pub position: serde_json::Value,
    /// Whether it was read to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

/// What a sink has pending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkEntry {
    /// As in the job file.
    pub connector: String,
    /// The settings that make it the same sink.
    pub identity: serde_json::Value,
    /// What is written and not yet committed.
    pub handles: Vec<serde_json::Value>,
    /// What else the connector keeps; null: nothing.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub state: serde_json::Value,
}

impl Metadata {
    /// Every file that it lists, with its size: state files in order, then components.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        let states = self
            .operators
            .iter()
            .flat_map(|entry| &entry.states)
            .flat_map(|state| &state.files);
        let states = states.map(|file| (file.path.as_str(), file.bytes));
        states.chain(self.modules.iter().map(|module| (module.path.as_str(), module.bytes)))
    }

    /// What was saved of a uid.
    #[must_use]
    pub fn operator(&self, uid: &str) -> Option<&OperatorEntry> {
        self.operators.iter().find(|entry| entry.uid.as_str() == uid)
    }
}

impl OperatorEntry {
    /// Whether anything is lost when it is not restored.
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

    /// How many parts of output it has pending.
    #[must_use]
    pub fn pending_parts(&self) -> usize {
        self.sink.as_ref().map_or(0, |sink| sink.handles.len())
    }

    /// At least how many keys: as many as its largest keyed state has.
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

    /// The size of its state files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.states.iter().map(StateEntry::bytes).sum()
    }
}

impl StateEntry {
    /// How many rows its files have. With [`increments`](Self::has_increments), at least as many as there are entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.files.iter().map(|file| file.entries).sum()
    }

    /// Whether some of its files hold changes only.
    #[must_use]
    pub fn has_increments(&self) -> bool {
        self.files.iter().any(|file| file.increment)
    }

    /// The size of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The key of its rows: the declared one, or for operator state the position of each item, as a `u64` named `index`.
    #[must_use]
    pub fn key_field(&self) -> Field {
        self.key.clone().unwrap_or_else(|| Field {
            name: "index".to_owned(),
            ty: Type::U64,
            aliases: Vec::new(),
            default: false,
        })
    }

    /// What its rows have beside the key. A map without the type of its keys is refused when `_metadata` is checked.
    #[must_use]
    pub fn entries_of_key(&self) -> Entries<'_> {
        match (self.kind, &self.map_key) {
            (SavedStateKind::List, _) => Entries::List,
            (SavedStateKind::Map, Some(key)) => Entries::Map(key),
            (SavedStateKind::Timers, _) => Entries::Timers,
            (kind, _) if !kind.is_keyed() => Entries::Items,
            _ => Entries::None,
        }
    }

    /// The type of a file's values; of one in which each carries its own number, the newest.
    #[must_use]
    pub fn schema_of(&self, file: &StateFile) -> &Type {
        let older = usize::from(file.schema)
            .checked_sub(1)
            .and_then(|index| self.schemas.get(index));
        older.unwrap_or(&self.schema)
    }
}
