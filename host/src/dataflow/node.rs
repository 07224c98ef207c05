//! The host's part of every call of an operator: group by key, fetch state, call, apply writes, make batches of the
//! outputs.
//!
//! - [`outputs`]: batches from what an operator emitted.
//! - [`bounds`]: how much a call may make the host hold.
//! - [`gap`]: the times without output.
//! - [`calls`]: calls for records and timers, and reruns after one has failed.
//! - [`ending`]: the end of all inputs.

mod outputs;
mod bounds;
mod gap;
mod calls;
mod ending;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regraft_guest_runtime::call::{Header, KeyedView, OpenContext, OperatorState, Outcome};
use regraft_guest_runtime::trap::GuestError;
use regraft_model::batch::{Batch, Keys};
use regraft_model::describe::Description;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::{Clock, MAX_WATERMARK, TimeDomain};

use crate::connector::sink::SinkSnapshot;
use crate::dataflow::control::{NodeCounters, SwapGap};
use crate::dataflow::element::PreparedOperator;
use crate::dataflow::failure::{Cause, SubtaskFailure, policy};
use crate::dataflow::operator::dead_letters::DeadLetters;
use crate::dataflow::watermark::{Signal, Watermarks};
use crate::graph::job_graph::{Policy, WatermarkStrategy};
use crate::state::backend::{Cells, StateBackend, bindings};
use crate::state::budget::Account;
use crate::state::group::Grouper;
use bounds::writes_of;
use ending::{Finishing, LastTimers};
use gap::Silence;
use outputs::output_batch;

/// Outputs of a node, as pairs of port and records, in order.
pub type Outputs = Vec<(u32, Batch)>;

/// One operator in one subtask.
pub struct OperatorNode {
    uid: OperatorUid,
    subtask: u32,
    instance: PreparedOperator,
    /// True if the instance must be reset before its next call.
    broken: bool,
    /// Operator state and private state from before the call under way; kept where the node is careful.
    own_state: Vec<OperatorState>,
    policy: NodePolicy,
    backend: Option<Box<dyn StateBackend>>,
    /// Bytes of its state.
    account: Account,
    /// Number of copies that are made of its output.
    copies: u64,
    clock: Arc<dyn Clock>,
    counters: Arc<NodeCounters>,
    cancelled: Arc<AtomicBool>,
    grouper: Grouper,
    cells: Cells,
    no_timestamps: Vec<i64>,
    schemas: Vec<u16>,
    seed: u64,
    calls: u64,
    watermark: i64,
    /// Generates the watermarks of its output, where it has a strategy.
    watermarks: Option<Watermarks>,
    /// Time of the first processing timer, in milliseconds.
    next_timer: Option<i64>,
    /// True once all inputs have ended.
    ended: bool,
    finishing: Option<Finishing>,
    last_timers: LastTimers,
    finished: bool,
    parked: Option<(CheckpointId, PreparedOperator)>,
    silence: Silence,
}

/// The policies for records that the operator cannot process.
pub struct NodePolicy {
    /// Policy for a call that traps.
    pub on_trap: Policy,
    /// Policy for a call that returns an error of the operator's own.
    pub on_failure: Policy,
    /// The output for such records; present where a policy needs it.
    pub dead_letters: Option<DeadLetters>,
    /// True if an operator with state of its own is asked for it before every call, so that a failed call can be
    /// undone. Where a policy needs that, it is done in any case.
    pub careful: bool,
    /// Limit of the bytes that the host holds for one call.
    pub host_memory_max: u64,
}

impl Default for NodePolicy {
    fn default() -> Self {
        Self {
            on_trap: Policy::Fail,
            on_failure: Policy::Fail,
            dead_letters: None,
            careful: false,
            host_memory_max: u64::MAX,
        }
    }
}

/// The parts that a node is built from.
pub struct NodeParts {
    /// Uid of the operator.
    pub uid: OperatorUid,
    /// Index of the subtask.
    pub subtask: u32,
    /// An opened instance, with its operator state restored.
    pub prepared: PreparedOperator,
    /// Keyed state; `None` where the operator has none.
    pub backend: Option<Box<dyn StateBackend>>,
    /// Source of times for calls and watermarks.
    pub clock: Arc<dyn Clock>,
    /// Counters of the node.
    pub counters: Arc<NodeCounters>,
    /// Watermark to start from, in milliseconds.
    pub watermark: i64,
    /// Strategy by which it generates the watermarks of its output; `None`: it passes on those of its input.
    pub strategy: Option<WatermarkStrategy>,
    /// Policies for records that it cannot process.
    pub policy: NodePolicy,
    /// The job's random seed.
    pub seed: u64,
}

/// Builds the context in which the instances of an operator are opened.
#[must_use]
pub fn open_context(uid: &OperatorUid, subtask: u32, parallelism: u32, max_parallelism: u32) -> OpenContext {
    OpenContext {
        uid: uid.to_string(),
        subtask,
        parallelism,
        max_parallelism,
    }
}

/// Returns the header of a call that is about no records: it draws no random numbers of its own.
#[must_use]
pub const fn plain_header(now: i64, watermark: i64) -> Header {
    Header {
        now,
        watermark,
        seed: 0,
        first_row: 0,
    }
}

/// Returns true if instances keep something between calls that only they can save.
fn has_own_state(description: &Description) -> bool {
    !description.operator_states.is_empty() || description.private_state
}

impl OperatorNode {
    /// Creates a node that is ready to process.
    #[must_use]
    pub fn new(parts: NodeParts) -> Self {
        let now = parts.clock.monotonic_ns();
        parts.counters.watermark.store(parts.watermark, Ordering::Relaxed);
        let keys = parts.backend.as_ref().map_or(0, |backend| backend.len());
        parts.counters.keys.store(keys as u64, Ordering::Relaxed);
        let bytes = parts.backend.as_ref().map_or(0, |backend| backend.bytes());
        let watermarks = parts.strategy.as_ref();
        let mut node = Self {
            uid: parts.uid,
            subtask: parts.subtask,
            instance: parts.prepared,
            broken: false,
            own_state: vec![],
            policy: parts.policy,
            backend: parts.backend,
            account: Account::new(parts.counters.state.clone(), bytes),
            copies: 1,
            clock: parts.clock,
            counters: parts.counters,
            cancelled: Arc::default(),
            grouper: Grouper::default(),
            cells: Cells::default(),
            no_timestamps: vec![],
            schemas: vec![],
            seed: parts.seed,
            calls: 0,
            watermark: parts.watermark,
            watermarks: watermarks.map(|strategy| Watermarks::of_operator(strategy, parts.watermark, now)),
            next_timer: None,
            ended: false,
            finishing: None,
            last_timers: LastTimers::default(),
            finished: false,
            parked: None,
            silence: Silence::default(),
        };
        node.bind();
        node
    }

    /// Returns the uid of the operator.
    #[must_use]
    pub const fn uid(&self) -> &OperatorUid {
        &self.uid
    }

    /// Sets the number of copies that are made of its output.
    pub fn set_copies(&mut self, copies: usize) {
        self.copies = copies.max(1) as u64;
    }

    /// Returns its keyed state.
    pub fn backend(&mut self) -> Option<&mut (dyn StateBackend + 'static)> {
        self.backend.as_deref_mut()
    }

    /// Takes its keyed state out, when it has ended.
    pub fn take_backend(&mut self) -> Option<Box<dyn StateBackend>> {
        self.backend.take()
    }

    /// Sets the flag that ends the job's calls early, also the one under way.
    pub fn set_cancelled(&mut self, cancelled: Arc<AtomicBool>) {
        self.instance.operator.interrupt_by(cancelled.clone());
        self.cancelled = cancelled;
    }

    /// Returns its watermark, in milliseconds. The end of all inputs does not count as one: a job that goes on from
    /// there may read more.
    #[must_use]
    pub const fn watermark(&self) -> i64 {
        self.watermark
    }

    /// Advances its watermark.
    pub fn set_watermark(&mut self, watermark: i64) {
        self.watermark = watermark;
        self.counters.watermark.store(watermark, Ordering::Relaxed);
    }

    /// Returns the generator of its output's watermarks, where it has a strategy.
    pub const fn watermarks(&mut self) -> Option<&mut Watermarks> {
        self.watermarks.as_mut()
    }

    /// Sets whether `finish` ran before the savepoint that the job starts from. Its output exists then, and it does not
    /// run again unless more records come.
    pub const fn set_finished(&mut self, finished: bool) {
        self.finished = finished;
    }

    /// Returns true if `finish` has run and no record has come since.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    fn bind(&mut self) {
        let (states, timers) = bindings(&self.instance.description);
        self.schemas = vec![1; states.len()];
        if let Some(backend) = &mut self.backend {
            backend.bind(&states, &timers);
            self.instance.operator.set_state(backend.access());
        }
        self.look_at_timers();
    }

    fn look_at_timers(&mut self) {
        let backend = self.backend.as_ref();
        self.next_timer = backend.and_then(|backend| backend.next_timer(TimeDomain::Processing));
    }

    /// Returns the time of its first processing timer, in milliseconds.
    #[must_use]
    pub const fn next_timer(&self) -> Option<i64> {
        self.next_timer
    }

    /// Returns the operator state and private state of its instance; empty if it keeps nothing between calls.
    ///
    /// # Errors
    /// [`SubtaskFailure`] where the instance cannot save them.
    pub fn snapshot(&mut self, id: CheckpointId) -> Result<Vec<OperatorState>, SubtaskFailure> {
        if !has_own_state(&self.instance.description) {
            return Ok(vec![]);
        }
        let header = self.plain_header();
        let states = self.instance.operator.snapshot(header, id);
        states.map_err(|error| self.failed_without_rows("snapshot", error))
    }

    /// Prepares the dead letters written since the last barrier. Returns `None` where the operator has no dead letters.
    ///
    /// # Errors
    /// [`SubtaskFailure`] where they cannot be prepared.
    pub fn prepare_dead_letters(&mut self, id: CheckpointId) -> Result<Option<SinkSnapshot>, SubtaskFailure> {
        let prepared = self.policy.dead_letters.as_mut().map(|letters| letters.prepare(id));
        prepared.transpose().map_err(|error| self.failed("prepare", error))
    }

    /// Replaces the instance. The old one is parked until the round is completed, since dropping it takes time. An
    /// aborted swap restarts the whole job, so the parked instance is never put back here. `own`: operator state and
    /// private state of the old instance.
    ///
    /// # Errors
    /// [`SubtaskFailure`] where the new instance does not accept the state or cannot save its own; the job then goes
    /// back to its last checkpoint.
    pub fn swap(
        &mut self,
        id: CheckpointId,
        mut new: PreparedOperator,
        own: &[OperatorState],
    ) -> Result<(), SubtaskFailure> {
        new.operator.interrupt_by(self.cancelled.clone());
        let header = self.plain_header();
        if !own.is_empty() {
            let restored = new.operator.restore(header, own);
            restored.map_err(|error| self.failed("swap", Cause::of_swap(error)))?;
        }
        if has_own_state(&new.description) {
            // One that cannot save itself would fail the job at its next round, when there is no way back.
            let saved = new.operator.snapshot(header, CheckpointId(0));
            saved.map_err(|error| self.failed("swap", Cause::of_swap(error)))?;
        }
        let old = std::mem::replace(&mut self.instance, new);
        self.parked = Some((id, old));
        self.bind();
        self.silence.swapped(id, self.clock.monotonic_ns());
        Ok(())
    }

    /// Handles the completion of a round: drops the instance parked by it, and if it committed, notes the commit of the
    /// dead letters.
    pub fn completed(&mut self, id: CheckpointId, committed: bool) {
        self.parked.take_if(|(parked, _)| *parked == id);
        if let Some(backend) = &mut self.backend {
            backend.completed(id);
            // Publishes removals since the last count to the shared counters.
            self.account.count(backend.bytes());
        }
        if let (Some(letters), true) = (&mut self.policy.dead_letters, committed) {
            letters.committed(id);
        }
    }

    /// Handles the abort of a round.
    pub fn aborted(&mut self, id: CheckpointId) {
        if let Some(backend) = &mut self.backend {
            backend.aborted(id);
        }
    }

    /// Drops unprepared output, since the job has ended early.
    pub fn cancel(&mut self) {
        if let Some(letters) = &mut self.policy.dead_letters {
            letters.abort();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Resets a broken instance, opens it, and restores the state of its own that is kept here.
    fn revive(&mut self) -> Result<(), (&'static str, GuestError)> {
        let header = self.plain_header();
        let PreparedOperator { operator, context, .. } = &mut self.instance;
        operator.reset().map_err(|error| ("reset", error))?;
        operator.open(header, context).map_err(|error| ("open", error))?;
        if !self.own_state.is_empty() {
            operator
                .restore(header, &self.own_state)
                .map_err(|error| ("restore", error))?;
        }
        self.broken = false;
        Ok(())
    }

    fn plain_header(&self) -> Header {
        plain_header(self.clock.now_ms(), self.watermark)
    }

    fn header(&mut self) -> Header {
        self.calls += 1;
        let seed = self.seed.wrapping_add(self.calls.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Header {
            now: self.clock.now_ms(),
            watermark: if self.ended { MAX_WATERMARK } else { self.watermark },
            seed,
            first_row: 0,
        }
    }

    fn failed(&self, doing: &'static str, cause: impl Into<Cause>) -> SubtaskFailure {
        SubtaskFailure::new(self.uid.clone(), self.subtask, doing, cause)
    }

    /// Wraps a guest's failure that names no record.
    fn failed_without_rows(&self, doing: &'static str, error: GuestError) -> SubtaskFailure {
        SubtaskFailure {
            policy: Some(policy::NO_ROWS),
            ..self.failed(doing, error)
        }
    }

    fn apply(&mut self, keys: &Keys, now: i64, outcome: &Outcome) {
        let Some(backend) = &mut self.backend else { return };
        backend.apply(keys, &self.cells, now, writes_of(outcome, &self.schemas));
        self.counters.keys.store(backend.len() as u64, Ordering::Relaxed);
        if !outcome.timer_ops.is_empty() {
            self.look_at_timers();
        }
    }

    fn take_outputs(&mut self, outcome: Outcome, rows: &Batch, keys_needed: bool, out: &mut Outputs) {
        let before = out.len();
        for output in outcome.outputs {
            if !output.is_empty() {
                NodeCounters::add(&self.counters.records_out, output.len() as u64);
                let port = output.port;
                let batch = output_batch(output, rows, keys_needed);
                if let Some(watermarks) = &mut self.watermarks {
                    watermarks.observe(&batch, self.clock.monotonic_ns());
                }
                out.push((port, batch));
            }
        }
        if out.len() > before {
            self.silence.output(self.clock.monotonic_ns());
        }
    }

    /// Appends the watermarks and changes of idleness of its output that are due to `tell`. `at_rest`: no record waits
    /// to be processed.
    pub fn advance(&mut self, at_rest: bool, tell: &mut Vec<Signal>) {
        if let Some(watermarks) = &mut self.watermarks {
            watermarks.advance(self.clock.monotonic_ns(), at_rest, tell);
        }
    }

    /// Takes the gap of a swap, once it is known.
    pub fn take_gap(&mut self) -> Option<SwapGap> {
        let (id, gap_ns, usual_ns) = self.silence.take_gap()?;
        Some(SwapGap {
            uid: self.uid.clone(),
            index: self.subtask,
            id,
            gap_ns,
            usual_ns,
        })
    }
}

fn keyed_view<'a>(keys: &'a Keys, cells: &'a Cells, has_state: bool) -> KeyedView<'a> {
    let empty = KeyedView {
        key_data: &keys.column.data,
        key_ends: &keys.column.ends,
        ..KeyedView::default()
    };
    if !has_state {
        return empty;
    }
    KeyedView {
        cells: &cells.columns,
        ..empty
    }
}

#[cfg(test)]
mod tests;
