//! What flows between subtasks. Control is in-band: an element never overtakes another of its channel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use regraft_guest_runtime::call::OpenContext;
use regraft_model::batch::Batch;
use regraft_model::describe::{Description, PortValue};
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::snapshot::SnapshotKind;
use regraft_model::time::EventTime;

use super::operator::Operator;

/// One item of a channel.
#[derive(Debug, Clone)]
pub enum Element {
    /// Records, in order.
    Batch(Batch),
    /// Records, in order, whose key column is distinct: what every edge by key sends.
    Grouped(Batch),
    /// No event time at or below it is still to come.
    Watermark(EventTime),
    /// Whether nothing is to be expected of this channel for now: then its watermark holds nobody back.
    Idle(bool),
    /// The marker of one checkpoint: what came before it is in the snapshot, what comes after it is not.
    Barrier(Arc<CheckpointBarrier>),
    /// Nothing comes after this.
    EndOfInput,
}

/// The in-band marker of one checkpoint.
#[derive(Debug)]
pub struct CheckpointBarrier {
    /// The round.
    pub id: CheckpointId,
    /// What it is for.
    pub kind: SnapshotKind,
    /// The modules to swap in behind it.
    pub swaps: Option<SwapSet>,
    /// The completed round that state is to be the changes since, where its backend can tell; none: all of it.
    pub base: Option<CheckpointId>,
    /// Whether a channel that has delivered it waits for the others. If not, records behind it may be in the snapshot,
    /// and come again after a recovery: at least once.
    pub aligned: bool,
}

/// What changes at a barrier.
#[derive(Debug, Default)]
pub struct SwapSet {
    /// For each changed uid an opened instance per subtask, to be taken once.
    pub operators: BTreeMap<OperatorUid, Vec<Mutex<Option<PreparedOperator>>>>,
    /// The new input of each sink that reads from a changed operator.
    pub sink_inputs: BTreeMap<OperatorUid, PortValue>,
}

/// An opened operator, ready to take over.
#[derive(Debug)]
pub struct PreparedOperator {
    /// The instance.
    pub operator: Box<dyn Operator>,
    /// What it declares.
    pub description: Arc<Description>,
    /// What it was opened with: an instance in its place is told the same.
    pub context: OpenContext,
}
