//! Messages from the coordinator into a subtask, and the events that it reports back. The dataflow knows these messages
//! and no coordinator.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use regraft_guest_runtime::call::OperatorState;
use regraft_guest_runtime::events::LogBudget;
use regraft_guest_runtime::profile::Profiler;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::NO_TIMESTAMP;

use super::element::CheckpointBarrier;
use super::failure::SubtaskFailure;
use crate::connector::sink::SinkSnapshot;
use crate::connector::source::SplitState;
pub use crate::graph::plan::SubtaskId;
use crate::state::budget::OperatorStateBytes;
use crate::state::rows::StateRows;

/// A message into a subtask.
#[derive(Debug, Clone)]
pub enum Control {
    /// To sources: start the round. To a subtask whose inputs have all ended: take the snapshot at once.
    Trigger(Arc<CheckpointBarrier>),
    /// The round's files are durable and, if the round commits, its sinks have committed.
    Completed {
        /// Id of the round.
        id: CheckpointId,
        /// True if the round committed.
        committed: bool,
    },
    /// The round was aborted; a stop is undone. Never sent for a round that swaps modules, since aborting that
    /// restarts the whole job.
    Aborted(CheckpointId),
    /// To sources: end the input here, as if it were exhausted.
    Drain,
    /// Everything is done and saved: end.
    Terminate,
}

/// An event that a subtask reports.
#[derive(Debug)]
pub enum Event {
    /// A source has reached the end of its input and waits, since the job is to be cut before it
    /// (`--savepoint-at-end`).
    Exhausted(SubtaskId),
    /// All inputs have ended, and `finish` has run.
    Ended(SubtaskId),
    /// The subtask's part of a snapshot.
    Snapshot(Box<SubtaskSnapshot>),
    /// The first output after a swap.
    SwapGap(SwapGap),
    /// The subtask failed; it has ended.
    Failed(Box<SubtaskFailure>),
    /// The subtask has ended as requested.
    Finished(SubtaskId),
}

/// The part of a snapshot that one subtask took at one barrier.
#[derive(Debug)]
pub struct SubtaskSnapshot {
    /// The subtask.
    pub subtask: SubtaskId,
    /// Id of the round.
    pub id: CheckpointId,
    /// Positions of its source.
    pub source: Option<(OperatorUid, Positions)>,
    /// Keyed state of its operators.
    pub keyed: Vec<KeyedSnapshot>,
    /// Operator state and private state, of the operators that have some.
    pub operator: Vec<(OperatorUid, Vec<OperatorState>)>,
    /// Uncommitted output and own state: of the sink, and of the operators' dead letters, which stand under the
    /// operators' uids.
    pub sinks: Vec<(OperatorUid, SinkSnapshot)>,
    /// Watermarks in milliseconds: of a source, the last one emitted; of an operator, the last one received.
    pub watermarks: Vec<(OperatorUid, i64)>,
    /// Operators whose `finish` has run, with no record since.
    pub finished: Vec<OperatorUid>,
    /// Time from the first barrier of the round to the last, in nanoseconds.
    pub align_ns: u64,
    /// Time for which processing was paused by the snapshot, in nanoseconds.
    pub sync_ns: u64,
    /// Time taken by replacing modules, in nanoseconds; part of `sync_ns`.
    pub swap_ns: u64,
    /// Time from the end of the pause until the last row was written out, in nanoseconds. Records were processed
    /// meanwhile.
    pub async_ns: u64,
}

impl SubtaskSnapshot {
    /// Returns the empty snapshot of a subtask for a round.
    pub(crate) const fn new(subtask: SubtaskId, id: CheckpointId) -> Self {
        Self {
            subtask,
            id,
            source: None,
            keyed: vec![],
            operator: vec![],
            sinks: vec![],
            watermarks: vec![],
            finished: vec![],
            align_ns: 0,
            sync_ns: 0,
            swap_ns: 0,
            async_ns: 0,
        }
    }
}

/// The positions of a source in one subtask, as they were at a barrier.
#[derive(Debug)]
pub enum Positions {
    /// All of them, to be listed in `_metadata`.
    Listed(Vec<SplitState>),
    /// Positions for a file of their own.
    Filed {
        /// Base of this increment; `None` if these are all positions.
        base: Option<CheckpointId>,
        /// Positions, in no particular order.
        splits: Vec<SplitState>,
        /// Splits of the base that are not there any more.
        removed: Vec<Arc<str>>,
    },
}

/// The keyed state of one operator in one subtask, as it was at a barrier.
#[derive(Debug)]
pub struct KeyedSnapshot {
    /// The operator.
    pub uid: OperatorUid,
    /// Base of this increment: the completed round that the rows are the changes since. `None` if they are the whole
    /// state.
    pub base: Option<CheckpointId>,
    /// Rows, one key group after the other.
    pub rows: Vec<StateRows>,
}

/// The silence of an operator around a swap.
#[derive(Debug, Clone)]
pub struct SwapGap {
    /// The operator.
    pub uid: OperatorUid,
    /// Index of the subtask.
    pub index: u32,
    /// The round that swapped it.
    pub id: CheckpointId,
    /// Time from the last output before the swap to the first one after it, in nanoseconds.
    pub gap_ns: u64,
    /// The longest such pause among the recent outputs before the swap, in nanoseconds.
    pub usual_ns: u64,
}

/// A flag that wakes one subtask.
#[derive(Default)]
pub struct Wake {
    raised: AtomicBool,
    waiter: OnceLock<Weak<dyn Waiter>>,
}

/// Receives the wake-ups of a subtask that does not poll its flag.
pub trait Waiter: Send + Sync {
    /// Handles a flag that has just been raised.
    fn woken(self: Arc<Self>);
}

impl Wake {
    /// Raises the flag, and tells the waiter if it was not raised yet.
    pub fn wake(&self) {
        if !self.raised.swap(true, Ordering::SeqCst)
            && let Some(waiter) = self.waiter.get().and_then(Weak::upgrade)
        {
            waiter.woken();
        }
    }

    /// Sets the waiter. Only the first call has an effect.
    pub fn set_waiter(&self, waiter: Weak<dyn Waiter>) {
        let _ = self.waiter.set(waiter);
    }

    /// Returns true if the flag is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Returns true if the flag was raised, and clears it.
    pub fn take(&self) -> bool {
        self.raised.swap(false, Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wake")
            .field("raised", &self.raised)
            .finish_non_exhaustive()
    }
}

/// Locks a mutex, ignoring poisoning: no critical section here leaves its data half-changed when it panics.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The inbound side of a subtask: its messages, its wake-up flag and its progress with rounds.
#[derive(Debug, Default)]
pub struct Mailbox {
    messages: Mutex<VecDeque<Control>>,
    /// Wakes the subtask.
    pub wake: Wake,
    /// Progress of the subtask with rounds.
    pub progress: RoundProgress,
}

/// The newest round that a subtask has begun, and the newest whose state it has marked. Tells where it stands with a
/// round that it has not acknowledged.
#[derive(Debug, Default)]
pub struct RoundProgress {
    begun: AtomicU64,
    marked: AtomicU64,
}

impl RoundProgress {
    /// Records that the barrier of the round has arrived from all inputs.
    pub fn begin(&self, id: CheckpointId) {
        self.begun.store(id.0, Ordering::Relaxed);
    }

    /// Records that the round's state is marked and that records flow again.
    pub fn mark(&self, id: CheckpointId) {
        self.marked.store(id.0, Ordering::Relaxed);
    }

    /// Returns the stage at which a round is pending that the subtask has not acknowledged.
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

/// The stage at which a round is pending in a subtask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitsFor {
    /// The barrier has not arrived from all inputs.
    Barrier,
    /// The state is not marked yet.
    Mark,
    /// The marked state has not been handed over.
    State,
}

impl Mailbox {
    /// Sends a message, and wakes the subtask.
    pub fn send(&self, message: Control) {
        locked(&self.messages).push_back(message);
        self.wake.wake();
    }

    /// Takes the next message. Without `triggers`, a trigger at the front stays, and so do all messages after it.
    pub fn receive(&self, triggers: bool) -> Option<Control> {
        let mut messages = locked(&self.messages);
        messages.pop_front_if(|message| triggers || !matches!(message, Control::Trigger(_)))
    }
}

/// Receives the events of all subtasks of a job.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// Running counters of one node in one subtask.
#[derive(Debug)]
pub struct NodeCounters {
    /// Records received; for a source, records read.
    pub records_in: AtomicU64,
    /// Records emitted; for a sink, records written.
    pub records_out: AtomicU64,
    /// Keys with state.
    pub keys: AtomicU64,
    /// Records and timers written to the dead letters since this attempt began.
    pub dead_letters: AtomicU64,
    /// Current watermark of an operator, in milliseconds.
    pub watermark: AtomicI64,
    /// Records whose event time the operator's watermark had reached before they came.
    pub late: AtomicU64,
    /// Counters and gauges of an operator's guest.
    pub guest: Mutex<GuestFigures>,
    /// Bytes of the operator's keyed state, over all its subtasks, and their limits.
    pub state: Arc<OperatorStateBytes>,
    /// Log lines of the operator's guest, over all its subtasks.
    pub log_budget: Arc<LogBudget>,
    /// Profiles the operator's guest.
    pub profiler: Arc<Profiler>,
}

/// Counters and gauges that a guest keeps, by their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GuestFigures {
    /// Sums of what was added to each counter.
    pub counters: BTreeMap<String, u64>,
    /// Last value of each gauge.
    pub gauges: BTreeMap<String, f64>,
}

impl GuestFigures {
    /// Adds to a counter. A new one beyond the limit is left out.
    pub fn add(&mut self, name: &str, delta: u64) {
        if let Some(sum) = self.counters.get_mut(name) {
            *sum = sum.saturating_add(delta);
        } else if self.has_room() {
            self.counters.insert(name.to_owned(), delta);
        }
    }

    /// Sets a gauge. A new one beyond the limit is left out.
    pub fn set(&mut self, name: &str, value: f64) {
        if let Some(gauge) = self.gauges.get_mut(name) {
            *gauge = value;
        } else if self.has_room() {
            self.gauges.insert(name.to_owned(), value);
        }
    }

    fn has_room(&self) -> bool {
        self.counters.len() + self.gauges.len() < NAMES_MAX
    }
}

/// The most counters and gauges that are kept of one subtask, over all instances of its guest.
const NAMES_MAX: usize = 1000;

impl Default for NodeCounters {
    fn default() -> Self {
        Self {
            records_in: AtomicU64::default(),
            records_out: AtomicU64::default(),
            keys: AtomicU64::default(),
            dead_letters: AtomicU64::default(),
            watermark: AtomicI64::new(NO_TIMESTAMP),
            late: AtomicU64::default(),
            guest: Mutex::default(),
            state: Arc::default(),
            log_budget: Arc::default(),
            profiler: Arc::default(),
        }
    }
}

impl NodeCounters {
    /// Returns the counters of a subtask, which shares what is counted over all subtasks of its operator.
    #[must_use]
    pub fn sharing(state: &Arc<OperatorStateBytes>, log_budget: &Arc<LogBudget>) -> Self {
        Self {
            state: state.clone(),
            log_budget: log_budget.clone(),
            ..Self::default()
        }
    }

    /// Adds to a counter that only the calling thread writes, so that no locked instruction is needed.
    #[inline]
    pub fn add(counter: &AtomicU64, delta: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(delta), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_a_thousand_names_whatever_its_instances_ask_for() {
        let mut figures = GuestFigures::default();
        for n in 0..600 {
            figures.add(&format!("c{n}"), 2);
            figures.set(&format!("g{n}"), f64::from(n));
        }
        figures.add("c7", u64::MAX);
        figures.set("g7", -1.0);
        assert_eq!(figures.counters.len() + figures.gauges.len(), 1000);
        assert_eq!((figures.counters["c7"], figures.gauges["g7"]), (u64::MAX, -1.0));
    }

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
