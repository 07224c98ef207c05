//! Messages into a subtask from its coordinator, and what it tells back. The dataflow knows these, and no coordinator.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regraft_guest_runtime::call::OperatorState;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::NO_TIMESTAMP;

use super::element::CheckpointBarrier;
use super::failure::SubtaskFailure;
use super::sink::SinkSnapshot;
use super::source::SplitState;
pub use crate::graph::plan::SubtaskId;
use crate::state::rows::StateRows;

/// A message into a subtask.
#[derive(Debug, Clone)]
pub enum Control {
    /// To sources: start the round. To a subtask whose inputs have all ended: snapshot at once.
    Trigger(Arc<CheckpointBarrier>),
    /// The round's files are durable and its sinks, if it commits, have committed.
    Completed {
        /// The round.
        id: CheckpointId,
        /// Whether it committed.
        committed: bool,
    },
    /// The round was given up: a stop is undone. Never told of a round that swaps modules: that takes the whole job back.
    Aborted(CheckpointId),
    /// To sources: end your input here, as if it had none left.
    Drain,
    /// All is done and saved: end.
    Terminate,
}

/// What a subtask tells.
#[derive(Debug)]
pub enum Event {
    /// A source has nothing left and waits, since the job is to be cut before the end of its input.
    Exhausted(SubtaskId),
    /// All inputs have ended, and `finish` has run.
    Ended(SubtaskId),
    /// The subtask's part of a snapshot.
    Snapshot(Box<SubtaskSnapshot>),
    /// The first output after a swap.
    SwapGap(SwapGap),
    /// The subtask failed; it has ended.
    Failed(Box<SubtaskFailure>),
    /// The subtask has ended, as it was told to.
    Finished(SubtaskId),
}

/// What one subtask saved for one barrier.
#[derive(Debug)]
pub struct SubtaskSnapshot {
    /// Which one.
    pub subtask: SubtaskId,
    /// The round.
    pub id: CheckpointId,
    /// Positions of its source's splits.
    pub source: Option<(OperatorUid, Vec<SplitState>)>,
    /// Keyed state of its operators.
    pub keyed: Vec<KeyedSnapshot>,
    /// Operator state and private state of those operators that have some.
    pub operator: Vec<(OperatorUid, Vec<OperatorState>)>,
    /// Uncommitted output and own state: of its sink, and of its operators' dead letters under the operators' uids.
    pub sinks: Vec<(OperatorUid, SinkSnapshot)>,
    /// Where event time stands: of its source what it has told, of each operator what it has been told.
    pub watermarks: Vec<(OperatorUid, i64)>,
    /// Operators whose `finish` had run, and no record had come since.
    pub finished: Vec<OperatorUid>,
    /// From the first barrier of the round to the last, nanoseconds.
    pub align_ns: u64,
    /// What processing waited for, nanoseconds.
    pub sync_ns: u64,
    /// What replacing modules took, nanoseconds.
    pub swap_ns: u64,
    /// From the barrier until the last row was written out, nanoseconds; records were processed meanwhile.
    pub async_ns: u64,
}

/// The keyed state of one operator in one subtask, as it was at a barrier.
#[derive(Debug)]
pub struct KeyedSnapshot {
    /// The operator.
    pub uid: OperatorUid,
    /// The completed round that the rows are the changes since; none: they are all there is.
    pub base: Option<CheckpointId>,
    /// Its rows, group by group.
    pub rows: Vec<StateRows>,
}

/// How long a swapped operator gave no output.
#[derive(Debug, Clone)]
pub struct SwapGap {
    /// The operator.
    pub uid: OperatorUid,
    /// Its subtask.
    pub index: u32,
    /// The round that swapped it.
    pub id: CheckpointId,
    /// From its last output before the swap to its first one after, nanoseconds.
    pub gap_ns: u64,
    /// The longest such time among its last outputs before the swap, nanoseconds.
    pub usual_ns: u64,
}

/// Wakes one subtask.
#[derive(Debug, Default)]
pub struct Wake {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// Wakes the subtask, or lets its next wait return at once.
    pub fn wake(&self) {
        *locked(&self.raised) = true;
        self.changed.notify_one();
    }

    /// Whether it has been woken since this was last asked or waited for: for an executor that never waits.
    pub fn take(&self) -> bool {
        std::mem::take(&mut *locked(&self.raised))
    }

    /// Waits until woken, at most `limit`.
    pub fn wait(&self, limit: Duration) {
        let mut raised = locked(&self.raised);
        if !*raised {
            raised = self
                .changed
                .wait_timeout(raised, limit)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *raised = false;
    }
}

/// A lock whose data stays good when a holder panicked: every critical section here leaves it whole.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way into a subtask.
#[derive(Debug, Default)]
pub struct Mailbox {
    messages: Mutex<VecDeque<Control>>,
    /// Wakes the subtask.
    pub wake: Wake,
    /// How far the subtask is with rounds.
    pub progress: RoundProgress,
}

/// The newest rounds that a subtask has begun, and whose state it has marked: where it is with one that it owes.
#[derive(Debug, Default)]
pub struct RoundProgress {
    begun: AtomicU64,
    marked: AtomicU64,
}

impl RoundProgress {
    /// Its barrier has come from all inputs.
    pub fn begin(&self, id: CheckpointId) {
        self.begun.store(id.0, Ordering::Relaxed);
    }

    /// What is to be saved is marked, and records flow again.
    pub fn mark(&self, id: CheckpointId) {
        self.marked.store(id.0, Ordering::Relaxed);
    }

    /// What a round waits for that the subtask has not acknowledged.
    pub fn waits_for(&self, id: CheckpointId) -> WaitsFor {
        if self.begun.load(Ordering::Relaxed) < id.0 {
            WaitsFor::Barrier
        } else if self.marked.load(Ordering::Relaxed) < id.0 {
            WaitsFor::Mark
        } else {
            WaitsFor::State
        }
    }
}

/// What holds up a round at a subtask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitsFor {
    /// Its barrier has not come from all inputs.
    Barrier,
    /// What is to be saved is not marked.
    Mark,
    /// State has not been handed over.
    State,
}

impl Mailbox {
    /// Sends a message.
    pub fn send(&self, message: Control) {
        locked(&self.messages).push_back(message);
        self.wake.wake();
    }

    /// The next message. Without `triggers`, a trigger stays, and with it what came after it.
    pub fn receive(&self, triggers: bool) -> Option<Control> {
        let mut messages = locked(&self.messages);
        messages.pop_front_if(|message| triggers || !matches!(message, Control::Trigger(_)))
    }
}

/// Takes the events of all subtasks of a job.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// Running counts of one node in one subtask.
#[derive(Debug)]
pub struct NodeCounters {
    /// Records that came in (a source: that it read).
    pub records_in: AtomicU64,
    /// Records that went out (a sink: that it wrote).
    pub records_out: AtomicU64,
    /// Keys held.
    pub keys: AtomicU64,
    /// Records and timers that went to the dead letters, since this attempt began.
    pub dead_letters: AtomicU64,
    /// Where its watermark stands, of an operator.
    pub watermark: AtomicI64,
}

impl Default for NodeCounters {
    fn default() -> Self {
        Self {
            records_in: AtomicU64::default(),
            records_out: AtomicU64::default(),
            keys: AtomicU64::default(),
            dead_letters: AtomicU64::default(),
            watermark: AtomicI64::new(NO_TIMESTAMP),
        }
    }
}

impl NodeCounters {
    /// Adds to a counter that only its own thread writes: no locked instruction is needed.
    #[inline]
    pub fn add(counter: &AtomicU64, delta: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(delta), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_waits_for_the_barrier_and_then_for_the_state() {
        let progress = RoundProgress::default();
        let waits_for = |id| progress.waits_for(CheckpointId(id));
        assert_eq!(waits_for(1), WaitsFor::Barrier);
        progress.begin(CheckpointId(1));
        assert_eq!((waits_for(1), waits_for(2)), (WaitsFor::Mark, WaitsFor::Barrier));
        progress.mark(CheckpointId(1));
        assert_eq!((waits_for(1), waits_for(2)), (WaitsFor::State, WaitsFor::Barrier));
        progress.begin(CheckpointId(3));
        assert_eq!((waits_for(1), waits_for(3)), (WaitsFor::State, WaitsFor::Mark));
    }
}
