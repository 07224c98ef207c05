//! Plans a restore: from `_metadata` and the new job, what each new subtask loads.
//!
//! Pure: nothing is read or written. [`compat`](super::compat) decides whether the restore is possible at all; a refusal lists
//! all problems at once.

use std::ops::Range;

use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::key_group::KeyGroupRange;
use regraft_model::time::EventTime;

use crate::savepoint::metadata::{EntryKind, SavedStateKind, SinkEntry, SplitEntry, StateFile};

mod assign;
mod plan;

pub use super::compat::{NewJob, NewNode, RestoreOptions};
pub use plan::plan_restore;

#[cfg(test)]
mod tests;

/// A restore that is possible: what each subtask of the new job loads.
#[derive(Debug, Clone, PartialEq)]
pub struct RestorePlan {
    /// The first checkpoint id of the new run.
    pub next_checkpoint: CheckpointId,
    /// The uids that have something to load, in the order of the new job.
    pub operators: Vec<RestoredOperator>,
    /// Uids of the new job that start empty.
    pub empty: Vec<OperatorUid>,
    /// State that is not restored, as the user allows.
    pub dropped: Vec<DroppedState>,
}

/// A uid that has something to load.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredOperator {
    /// Its uid.
    pub uid: OperatorUid,
    /// Source, operator or sink.
    pub kind: EntryKind,
    /// The least watermark of the old subtasks; `NO_TIMESTAMP` where none is known.
    pub watermark: EventTime,
    /// The new subtasks for which `finish` has run already.
    pub finished: Vec<u32>,
    /// Its new subtasks, in order.
    pub subtasks: Vec<RestoredSubtask>,
    /// Keyed states that the new job declares and the savepoint does not have: they start empty.
    pub new_states: Vec<String>,
    /// Operator states of the savepoint; one without items for a subtask is empty there.
    pub operator_states: Vec<String>,
    /// Names of timers whose pending entries are dropped.
    pub dropped_timers: Vec<String>,
    /// State of a source beside its splits; null where it keeps none.
    pub source_state: serde_json::Value,
    /// State and pending output of a sink, or of an operator's dead letters.
    pub sink: Option<SinkEntry>,
}

/// The state that one new subtask loads.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredSubtask {
    /// The key groups that it owns.
    pub key_groups: KeyGroupRange,
    /// Parts of state files, by state and then by old subtask.
    pub reads: Vec<StateRead>,
    /// Splits of a source, in sorted order; a subtask without any is idle at once.
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
    /// The rows to read.
    pub part: Part,
}

/// A selection of a file's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The rows of these key groups.
    KeyGroups(KeyGroupRange),
    /// Items of operator state by position.
    Items(Range<u64>),
}

/// State that is not restored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DroppedState {
    /// The uid.
    pub uid: OperatorUid,
    /// The state; `None` for all of the uid.
    pub state: Option<String>,
    /// Keys, or items of operator state.
    pub keys: u64,
    /// Bytes of state files.
    pub bytes: u64,
}
