//! Decides, from what a savepoint says and what a new job is, what each new subtask loads, or why that cannot be.
//!
//! Pure: nothing is read or written. A refusal lists all problems at once.

use std::ops::Range;

use regraft_model::describe::Description;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::key_group::KeyGroupRange;
use regraft_model::time::EventTime;

use crate::savepoint::metadata::{EntryKind, SavedStateKind, SinkEntry, SplitEntry, StateFile};

mod assign;
mod compare;
mod refusal;

pub use compare::plan_restore;
pub use refusal::{RestoreProblem, RestoreRefusal};

#[cfg(test)]
mod tests;

/// A job that is to be restored into, as far as its state is concerned.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Every source, operator and sink.
    pub nodes: Vec<NewNode>,
    /// The number of key groups.
    pub max_parallelism: u32,
}

/// A node of such a job.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Its uid.
    pub uid: OperatorUid,
    /// What it is.
    pub kind: EntryKind,
    /// How many subtasks.
    pub parallelism: u32,
    /// What its component declares; none for a source or sink.
    pub description: Option<Description>,
    /// The connector of a source or sink, or of an operator's dead letters.
    pub connector: Option<String>,
    /// The settings that make it the same source, sink or output for dead letters; null where it has none.
    pub identity: serde_json::Value,
}

/// What the user allows to be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// `-n`: uids that the new job does not have.
    pub allow_non_restored: bool,
    /// `--drop-state`: `uid`, or `uid/state`.
    pub drop_state: Vec<String>,
}

/// What each subtask of the new job loads.
#[derive(Debug, Clone, PartialEq)]
pub struct RestorePlan {
    /// The first checkpoint id of the new run.
    pub next_checkpoint: CheckpointId,
    /// Those uids that have something to load, in order of the new job.
    pub operators: Vec<RestoredOperator>,
    /// Uids of the new job that start empty.
    pub empty: Vec<OperatorUid>,
    /// What is not restored, as the user allowed.
    pub dropped: Vec<DroppedState>,
}

/// What one uid loads.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredOperator {
    /// Its uid.
    pub uid: OperatorUid,
    /// What it is.
    pub kind: EntryKind,
    /// The least watermark of the old subtasks; `NO_TIMESTAMP` where none is known.
    pub watermark: EventTime,
    /// Those of its new subtasks for which `finish` had run.
    pub finished: Vec<u32>,
    /// Its new subtasks, in order.
    pub subtasks: Vec<RestoredSubtask>,
    /// States that the new job declares and the savepoint does not have: they start empty.
    pub new_states: Vec<String>,
    /// Operator states that it had: those without items for a subtask are empty there.
    pub operator_states: Vec<String>,
    /// Timers whose pending entries are dropped.
    pub dropped_timers: Vec<String>,
    /// What a source keeps beside its splits; null: nothing.
    pub source_state: serde_json::Value,
    /// What a sink had pending: rename what is pending, accept what is final, refuse what is neither.
    pub sink: Option<SinkEntry>,
}

/// What one new subtask loads.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredSubtask {
    /// The key groups that it owns.
    pub key_groups: KeyGroupRange,
    /// Parts of state files, by state and then by old subtask.
    pub reads: Vec<StateRead>,
    /// Splits of a source, in sorted order; none: the subtask is idle at once.
    pub splits: Vec<SplitEntry>,
}

/// A part of a state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRead {
    /// The state's name.
    pub state: String,
    /// Its kind.
    pub kind: SavedStateKind,
    /// The file.
    pub file: StateFile,
    /// Which of its rows.
    pub part: Part,
}

/// Which rows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Those of some key groups.
    KeyGroups(KeyGroupRange),
    /// Items of operator state by position.
    Items(Range<u64>),
}

/// State that is not restored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DroppedState {
    /// The uid.
    pub uid: OperatorUid,
    /// The state; none: all of the uid.
    pub state: Option<String>,
    /// How many keys.
    pub keys: u64,
    /// How many bytes of state files.
    pub bytes: u64,
}
