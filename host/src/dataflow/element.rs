//! The items that flow between subtasks. Control is in-band: an element never overtakes another one of its channel.

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
    /// Records, in order, whose key column is distinct. Edges partitioned by key send these.
    Grouped(Batch),
    /// A watermark: no record with an event time at or below it is still to come.
    Watermark(EventTime),
    /// True: nothing is expected from this channel for now, and its watermark does not hold back its consumer. False:
    /// it is active again.
    Idle(bool),
    /// The marker of one checkpoint: records before it are in the snapshot, records after it are not.
    Barrier(Arc<CheckpointBarrier>),
    /// The end of the channel; nothing follows.
    EndOfInput,
}

impl Element {
    /// Returns the approximate size of its records in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) | Self::Grouped(batch) => batch.bytes(),
            _ => 0,
        }
    }
}

/// The in-band marker of one checkpoint, as in Flink's `CheckpointBarrier`.
#[derive(Debug)]
pub struct CheckpointBarrier {
    /// Id of the round.
    pub id: CheckpointId,
    /// Kind of the snapshot.
    pub kind: SnapshotKind,
    /// Modules to swap in right after the barrier.
    pub swaps: Option<SwapSet>,
    /// Base of an increment: the completed round since which state is to give its changes, where its backend can.
    /// `None` for a full snapshot.
    pub base: Option<CheckpointId>,
    /// True if a channel that has delivered the barrier is held back until all others have. If false, records after
    /// the barrier may get into the snapshot and are read again after a recovery (at least once).
    pub aligned: bool,
}

/// The changes that take effect at a barrier.
#[derive(Debug, Default)]
pub struct SwapSet {
    /// For each changed uid, one opened instance per subtask, by subtask index. Each is taken once.
    pub operators: BTreeMap<OperatorUid, Vec<Mutex<Option<PreparedOperator>>>>,
    /// New input value of each sink that reads from a changed operator.
    pub sink_inputs: BTreeMap<OperatorUid, PortValue>,
}

/// An opened operator, ready to take over.
#[derive(Debug)]
pub struct PreparedOperator {
    /// The instance.
    pub operator: Box<dyn Operator>,
    /// Its module's description.
    pub description: Arc<Description>,
    /// Context that it was opened with; an instance that replaces it is opened with the same one.
    pub context: OpenContext,
}
