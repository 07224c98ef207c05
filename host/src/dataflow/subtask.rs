//! One subtask as a step function: take control messages, sweep a key group, send pending output, fire timers, process
//! one batch.
//!
//! It never blocks and reads no clock but the one that is passed in: a thread executor or a simulation drives it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use regraft_model::batch::Batch;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::Clock;

use super::chain::{AGAIN_MAX, Chain};
use super::control::{Control, Event, EventSink, KeyedSnapshot, Mailbox, NodeCounters, SubtaskId, SubtaskSnapshot};
use super::element::{CheckpointBarrier, Element};
use super::exchange::gate::{Delivered, Gate};
use super::failure::SubtaskFailure;
use super::node::OperatorNode;
use super::positions::PositionLog;
use super::rate::Rate;
use super::watermark::{Signal, Watermarks};
use crate::connector::source::{Polled, SourceReader};
use crate::state::backend::StateBackend;
use regraft_model::snapshot::SnapshotKind;

/// Limit of records that a source reads in one step.
const SOURCE_RECORDS: usize = 1024;

/// The input of a chain.
pub enum Head {
    /// A source.
    Source(SourceHead),
    /// Channels from other subtasks.
    Gate(Gate),
}

/// A source at the head of a chain.
pub struct SourceHead {
    /// Uid of the source.
    pub uid: OperatorUid,
    /// Reads the records.
    pub reader: Box<dyn SourceReader>,
    /// Rate limit, if any.
    pub rate: Option<Rate>,
    /// Generates watermarks from the records' event times, where the source has a strategy.
    pub watermarks: Option<Watermarks>,
    /// Changes of its positions between snapshots.
    pub positions: PositionLog,
    /// Counters of the source.
    pub counters: Arc<NodeCounters>,
    /// True if the subtask waits at the end of input instead of ending (`--savepoint-at-end`).
    pub hold_at_end: bool,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Work was done; call again.
    Progress,
    /// Nothing to do; call again when woken, or at this monotonic time in nanoseconds.
    Idle(Option<u64>),
    /// The subtask has ended.
    Finished,
}

/// The stage of a subtask's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Behind the barrier of a stop: nothing more is emitted.
    Stopped(CheckpointId),
    /// The source is exhausted and is held at the end of its input.
    Held,
    /// All inputs have ended; the last timers fire, and `finish` runs.
    Ending,
    /// All of that is done.
    Ended,
}

/// Processing timers that are being fired. All that were due come before the next record. Those that they set, for a time
/// that has come as well, take turns with the input after [`AGAIN_MAX`] calls: they could keep it waiting for ever.
#[derive(Debug, Clone, Copy)]
struct Firing {
    /// Limit up to which they are due, milliseconds.
    up_to: i64,
    /// Number that is left of those that were due at the beginning.
    left: usize,
    /// Number of calls that have fired others.
    again: u32,
}

/// One subtask of a job.
pub struct Subtask {
    id: SubtaskId,
    head: Head,
    chain: Chain,
    mailbox: Arc<Mailbox>,
    events: EventSink,
    clock: Arc<dyn Clock>,
    stage: Stage,
    /// Current watermark at the head, in milliseconds.
    watermark: i64,
    /// For a source without a watermark strategy: true while its stream is declared idle for want of a split.
    without_splits: Option<bool>,
    /// The processing timers that are being fired.
    firing: Option<Firing>,
    /// Time since which output is blocked for want of room, monotonic nanoseconds.
    blocked_since: Option<u64>,
    /// The last round that it took part in.
    last_round: CheckpointId,
    /// Rounds after `last_round` that were aborted.
    aborted: Vec<CheckpointId>,
    aligning_since: Option<u64>,
    snapshot: Option<Box<SubtaskSnapshot>>,
    /// Start of the sweep, monotonic nanoseconds.
    swept_since: u64,
}

impl Subtask {
    /// Creates a subtask that has not run yet. `watermark` is the current one at its head, in milliseconds.
    #[must_use]
    pub fn new(
        id: SubtaskId,
        mut head: Head,
        chain: Chain,
        mailbox: Arc<Mailbox>,
        events: EventSink,
        clock: Arc<dyn Clock>,
        watermark: i64,
    ) -> Self {
        let mut without_splits = None;
        if let Head::Source(source) = &mut head {
            without_splits = Some(false);
            if source.hold_at_end {
                source.reader.cut_before_end();
            }
            if let Some(watermarks) = &mut source.watermarks {
                watermarks.set_splits(source.reader.open_splits(), clock.monotonic_ns());
            }
        }
        Self {
            id,
            head,
            chain,
            mailbox,
            events,
            clock,
            stage: Stage::Running,
            watermark,
            without_splits,
            firing: None,
            blocked_since: None,
            last_round: CheckpointId(0),
            aborted: vec![],
            aligning_since: None,
            snapshot: None,
            swept_since: 0,
        }
    }

    /// Returns the id of the subtask.
    #[must_use]
    pub const fn id(&self) -> SubtaskId {
        self.id
    }

    /// Returns its mailbox, whose flag wakes it.
    #[must_use]
    pub fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// Sets the flag that ends the subtask between two guest calls; one step can make many.
    pub fn set_cancelled(&mut self, cancelled: &Arc<AtomicBool>) {
        if let Head::Source(source) = &mut self.head {
            source.reader.interrupt_by(cancelled.clone());
        }
        for node in self.chain.operators() {
            node.set_cancelled(cancelled.clone());
        }
        if let Some(sink) = self.chain.sink() {
            sink.writer.set_cancelled(cancelled.clone());
        }
    }

    /// Returns the uid that stands for the whole subtask: that of its first node.
    pub fn uid(&mut self) -> OperatorUid {
        if let Head::Source(source) = &self.head {
            return source.uid.clone();
        }
        let first = self.chain.operators().next().map(|node| node.uid().clone());
        first
            .or_else(|| self.chain.sink().map(|sink| sink.uid.clone()))
            .unwrap_or_else(|| unreachable!("empty chain"))
    }

    /// Does a small amount of work.
    ///
    /// # Errors
    /// [`SubtaskFailure`]; the subtask must not be stepped again.
    pub fn step(&mut self) -> Result<Step, SubtaskFailure> {
        // A barrier is not taken in the middle of a step: what follows from a record belongs to the same side of it.
        while let Some(message) = self
            .mailbox
            .receive((!self.chain.is_busy() || self.chain.yields()) && self.stage != Stage::Ending)
        {
            if self.control(message)? {
                return Ok(Step::Finished);
            }
        }
        let swept = self.sweep();
        let waiting = if swept { Step::Progress } else { Step::Idle(None) };
        if !self.send() {
            return Ok(waiting);
        }
        if self.chain.is_busy() && !matches!(self.stage, Stage::Stopped(_)) {
            self.chain.work()?;
            let sent = self.chain.send();
            if !(sent && self.stage == Stage::Running && self.chain.yields()) {
                return Ok(Step::Progress);
            }
        }
        match self.stage {
            Stage::Running => {}
            Stage::Ending => {
                self.stage = Stage::Ended;
                (self.events)(Event::Ended(self.id));
                return Ok(Step::Progress);
            }
            Stage::Held => {}
            Stage::Stopped(_) | Stage::Ended => return Ok(waiting),
        }
        if self.fire()? {
            return Ok(Step::Progress);
        }
        if self.stage == Stage::Held {
            return Ok(self.idle(swept, None));
        }
        let idle = match &mut self.head {
            Head::Source(_) => self.poll_source()?,
            Head::Gate(_) => self.poll_gate()?,
        };
        for gap in self.chain.take_gaps() {
            (self.events)(Event::SwapGap(gap));
        }
        self.advance(idle.is_some());
        match idle {
            None => {
                self.chain.send();
                Ok(Step::Progress)
            }
            // Nothing to read: buffered records are sent now, rather than wait for more.
            Some(_) if self.chain.is_busy() || self.chain.has_buffered() => {
                self.chain.flush();
                self.chain.send();
                Ok(Step::Progress)
            }
            Some(until) => Ok(self.idle(swept, until)),
        }
    }

    /// Sends pending output, and returns true if nothing is left. Time without room does not count towards idleness.
    fn send(&mut self) -> bool {
        let sent = self.chain.send();
        if !sent && self.blocked_since.is_none() {
            self.blocked_since = Some(self.clock.monotonic_ns());
        } else if let (true, Some(since)) = (sent, self.blocked_since.take_if(|_| sent)) {
            let blocked_ns = self.clock.monotonic_ns() - since;
            if let Head::Source(SourceHead {
                watermarks: Some(watermarks),
                ..
            }) = &mut self.head
            {
                watermarks.was_blocked(blocked_ns);
            }
            self.chain.was_blocked(blocked_ns);
        }
        sent
    }

    /// Returns the step for a subtask that has read nothing: asking again helps at `until`, or when a timer is due or a
    /// stream becomes idle.
    fn idle(&mut self, swept: bool, until: Option<u64>) -> Step {
        if swept {
            return Step::Progress;
        }
        let timer = self.chain.next_timer().map(|due| {
            let wait_ms = u64::try_from(due.saturating_sub(self.clock.now_ms())).unwrap_or(0);
            self.clock
                .monotonic_ns()
                .saturating_add(wait_ms.saturating_mul(1_000_000))
        });
        let source = match &self.head {
            Head::Source(source) => source.watermarks.as_ref().and_then(Watermarks::idle_at_ns),
            Head::Gate(_) => None,
        };
        let deadlines = [until, timer, source, self.chain.idle_at_ns()];
        Step::Idle(deadlines.into_iter().flatten().min())
    }

    /// Fires some of the due processing timers, and returns true if the input is to wait for more of them.
    fn fire(&mut self) -> Result<bool, SubtaskFailure> {
        let Some(next) = self.chain.next_timer() else {
            self.firing = None;
            return Ok(false);
        };
        let firing = match self.firing {
            Some(firing) => firing,
            None => {
                let up_to = self.clock.now_ms();
                if next > up_to {
                    return Ok(false);
                }
                let left = self.chain.due_count(up_to);
                Firing { up_to, left, again: 0 }
            }
        };
        self.firing = None;
        if firing.again >= AGAIN_MAX {
            return Ok(false);
        }
        let Some((fired, is_behind)) = self.chain.fire(firing.up_to, firing.left == 0)? else {
            return Ok(false);
        };
        self.chain.send();
        let again = match (firing.left, is_behind) {
            (0, true) => AGAIN_MAX,
            (0, false) => firing.again.saturating_add(1),
            _ => firing.again,
        };
        self.firing = Some(Firing {
            left: firing.left.saturating_sub(fired),
            again,
            ..firing
        });
        Ok(true)
    }

    /// Emits the watermarks and changes of idleness that are due.
    fn advance(&mut self, at_rest: bool) {
        if let Head::Source(source) = &mut self.head
            && let Some(watermarks) = &mut source.watermarks
        {
            let mut tell = vec![];
            watermarks.advance(self.clock.monotonic_ns(), at_rest, &mut tell);
            self.watermark = watermarks.told();
            for signal in tell {
                self.chain.signal(signal);
            }
        }
        self.chain.advance(at_rest);
    }

    /// Handles a message. Returns true if the subtask is to end.
    fn control(&mut self, message: Control) -> Result<bool, SubtaskFailure> {
        match message {
            Control::Trigger(barrier) => {
                let direct = matches!(self.head, Head::Source(_)) || self.stage == Stage::Ended;
                if direct && self.takes_part(barrier.id) {
                    self.barrier(&barrier, 0)?;
                }
            }
            Control::Completed { id, committed } => {
                if let Head::Source(source) = &mut self.head {
                    source.positions.completed(id);
                }
                self.chain.completed(id, committed);
            }
            Control::Aborted(id) => {
                if id > self.last_round && !self.aborted.contains(&id) {
                    self.aborted.push(id);
                }
                if self.stage == Stage::Stopped(id) {
                    self.stage = Stage::Running;
                }
                match &mut self.head {
                    Head::Gate(gate) => gate.abort(id),
                    Head::Source(source) => source.positions.aborted(id),
                }
                self.chain.aborted(id);
                if self.snapshot.take_if(|snapshot| snapshot.id == id).is_some() {
                    self.drop_sweep();
                }
            }
            Control::Drain => {
                if let Head::Source(source) = &mut self.head {
                    source.hold_at_end = false;
                    if matches!(self.stage, Stage::Running | Stage::Held) {
                        self.end();
                    }
                }
            }
            Control::Terminate => return Ok(true),
        }
        Ok(false)
    }

    fn takes_part(&self, id: CheckpointId) -> bool {
        id > self.last_round && !self.aborted.contains(&id)
    }

    /// Polls the source. Returns `None` if something was read, else `Some` with the time to ask again.
    fn poll_source(&mut self) -> Result<Option<Option<u64>>, SubtaskFailure> {
        let now = self.clock.monotonic_ns();
        let Head::Source(source) = &mut self.head else {
            return Ok(Some(None));
        };
        let due = match &mut source.rate {
            Some(rate) => match rate.due(now) {
                Ok(due) => due.min(SOURCE_RECORDS),
                Err(at) => return Ok(Some(Some(at))),
            },
            None => SOURCE_RECORDS,
        };
        let failed = |error| SubtaskFailure::new(source.uid.clone(), self.id.index, "read", error);
        match source.reader.poll(due, now).map_err(failed)? {
            Polled::Batch(batch) => {
                if let Some(rate) = &mut source.rate {
                    rate.spend(batch.len());
                }
                NodeCounters::add(&source.counters.records_in, batch.len() as u64);
                NodeCounters::add(&source.counters.records_out, batch.len() as u64);
                self.read(batch, now)?;
                Ok(None)
            }
            Polled::Idle(until) => {
                self.look_at_splits(now);
                Ok(Some(Some(until)))
            }
            Polled::Exhausted if source.hold_at_end => {
                self.stage = Stage::Held;
                (self.events)(Event::Exhausted(self.id));
                Ok(None)
            }
            Polled::Exhausted => {
                self.end();
                Ok(None)
            }
        }
    }

    /// Pushes records of a source into the chain, and takes in their event times.
    fn read(&mut self, batch: Batch, now: u64) -> Result<(), SubtaskFailure> {
        if let Head::Source(source) = &mut self.head
            && let Some(watermarks) = &mut source.watermarks
        {
            watermarks.set_splits(source.reader.open_splits(), now);
            watermarks.observe(&batch, now);
        } else if self.without_splits == Some(true) {
            self.without_splits = Some(false);
            self.chain.signal(Signal::Idle(false));
            while self.chain.is_busy() && !self.chain.yields() {
                self.chain.work()?;
            }
        }
        self.chain.push(0, batch)
    }

    /// Declares a source's subtask without splits idle, so that it does not hold back event time.
    fn look_at_splits(&mut self, now: u64) {
        let Head::Source(source) = &mut self.head else { return };
        if let Some(watermarks) = &mut source.watermarks {
            watermarks.set_splits(source.reader.open_splits(), now);
        } else if self.without_splits == Some(false) && !source.reader.has_splits() {
            self.without_splits = Some(true);
            self.chain.signal(Signal::Idle(true));
        }
    }

    fn poll_gate(&mut self) -> Result<Option<Option<u64>>, SubtaskFailure> {
        let Head::Gate(gate) = &mut self.head else {
            return Ok(Some(None));
        };
        match gate.poll() {
            Delivered::Batch(input, batch) => self.chain.push(input, batch)?,
            Delivered::Grouped(input, batch) => self.chain.push_grouped(input, batch)?,
            Delivered::Signal(signal) => {
                if let Signal::Watermark(watermark) = signal {
                    self.watermark = watermark;
                }
                self.chain.signal(signal);
            }
            Delivered::Aligning => self.aligning_since = Some(self.clock.monotonic_ns()),
            Delivered::Barrier(barrier) => {
                let now = self.clock.monotonic_ns();
                let align_ns = self.aligning_since.take().map_or(0, |since| now - since);
                if self.takes_part(barrier.id) {
                    self.barrier(&barrier, align_ns)?;
                }
            }
            Delivered::End => self.end(),
            Delivered::Nothing => return Ok(Some(None)),
        }
        Ok(None)
    }

    /// Begins the end of input: all inputs have ended.
    fn end(&mut self) {
        self.chain.end();
        self.stage = Stage::Ending;
    }

    /// Takes the snapshot of a barrier, swaps in the modules that it carries, and passes it on.
    fn barrier(&mut self, barrier: &Arc<CheckpointBarrier>, align_ns: u64) -> Result<(), SubtaskFailure> {
        let start = self.clock.monotonic_ns();
        self.mailbox.progress.begin(barrier.id);
        self.last_round = barrier.id;
        self.aborted.retain(|aborted| *aborted > barrier.id);
        // A new mark requires the previous sweep to be over.
        while self.snapshot.is_some() {
            self.sweep();
        }
        let mut snapshot = self.mark(barrier)?;
        let before_swap = self.clock.monotonic_ns();
        self.chain.swap(self.id.index, barrier, &snapshot.operator)?;
        let end = self.clock.monotonic_ns();
        self.mailbox.progress.mark(barrier.id);
        if self.stage != Stage::Ended {
            self.chain.control(&Element::Barrier(barrier.clone()));
            if barrier.kind == SnapshotKind::Stop {
                self.stage = Stage::Stopped(barrier.id);
            }
        }
        snapshot.align_ns = align_ns;
        snapshot.sync_ns = end - start;
        snapshot.swap_ns = if barrier.swaps.is_some() { end - before_swap } else { 0 };
        self.snapshot = Some(snapshot);
        self.swept_since = end;
        Ok(())
    }

    /// Collects the snapshot at the barrier. Keyed state is only marked; its rows are swept later.
    fn mark(&mut self, barrier: &CheckpointBarrier) -> Result<Box<SubtaskSnapshot>, SubtaskFailure> {
        let mut snapshot = Box::new(SubtaskSnapshot::new(self.id, barrier.id));
        if let Head::Source(source) = &mut self.head {
            let positions = source.positions.snapshot(&mut *source.reader, barrier.id, barrier.base);
            snapshot.source = Some((source.uid.clone(), positions));
            snapshot.watermarks.push((source.uid.clone(), self.watermark));
        }
        for node in self.chain.operators() {
            let uid = node.uid().clone();
            snapshot.watermarks.push((uid.clone(), node.watermark()));
            if node.is_finished() {
                snapshot.finished.push(uid.clone());
            }
            let states = node.snapshot(barrier.id)?;
            if !states.is_empty() {
                snapshot.operator.push((uid.clone(), states));
            }
            if let Some(letters) = node.prepare_dead_letters(barrier.id)? {
                snapshot.sinks.push((uid.clone(), letters));
            }
            if let Some(backend) = node.backend() {
                let base = backend.begin_snapshot(barrier.id, barrier.base);
                let rows = vec![];
                snapshot.keyed.push(KeyedSnapshot { uid, base, rows });
            }
        }
        if let Some(sink) = self.chain.sink() {
            let prepared = sink
                .writer
                .prepare(barrier.id)
                .map_err(|error| sink.failed("prepare", error))?;
            sink.writer.begin().map_err(|error| sink.failed("begin", error))?;
            snapshot.sinks.push((sink.uid.clone(), prepared));
        }
        Ok(snapshot)
    }

    /// Writes out one key group of the snapshot under way, and reports the snapshot once all are written. Returns false
    /// if there is no snapshot.
    fn sweep(&mut self) -> bool {
        let Some(snapshot) = &mut self.snapshot else {
            return false;
        };
        for node in self.chain.operators() {
            let Some(backend) = node.backend() else { continue };
            if let Some(rows) = backend.next_snapshot_rows() {
                if let Some(keyed) = snapshot.keyed.iter_mut().find(|keyed| keyed.uid == *node.uid()) {
                    keyed.rows.extend(rows);
                }
                return true;
            }
        }
        if let Some(mut snapshot) = self.snapshot.take() {
            snapshot.async_ns = self.clock.monotonic_ns() - self.swept_since;
            (self.events)(Event::Snapshot(snapshot));
        }
        true
    }

    /// Discards the rest of an aborted round's sweep.
    fn drop_sweep(&mut self) {
        for node in self.chain.operators() {
            if let Some(backend) = node.backend() {
                while backend.next_snapshot_rows().is_some() {}
            }
        }
    }

    /// Ends the subtask, and returns the keyed state of its operators.
    #[must_use]
    pub fn into_state(mut self) -> Vec<Box<dyn StateBackend>> {
        self.chain.operators().filter_map(OperatorNode::take_backend).collect()
    }

    /// Drops output that is not prepared, since the job was cancelled or has failed.
    pub fn cancel(&mut self) {
        self.chain.cancel();
    }
}
