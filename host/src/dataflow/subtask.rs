//! One subtask as a step function: take control messages, send what waits, sweep a key group, process one batch.
//!
//! It never blocks and reads no clock but the one it is given: an executor of threads or a simulation drives it.

use std::sync::Arc;

use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::Clock;

use super::chain::Chain;
use super::control::{Control, Event, EventSink, KeyedSnapshot, Mailbox, NodeCounters, SubtaskId, SubtaskSnapshot};
use super::element::{CheckpointBarrier, Element};
use super::exchange::gate::{Delivered, Gate};
use super::failure::SubtaskFailure;
use super::source::rate::Rate;
use super::source::{Polled, SourceReader};
use regraft_model::snapshot::SnapshotKind;

/// Records a source reads in one step.
const SOURCE_RECORDS: usize = 1024;

/// Where a chain's records come from.
pub enum Head {
    /// A source.
    Source(SourceHead),
    /// Other subtasks.
    Gate(Gate),
}

/// A source at the head of a chain.
pub struct SourceHead {
    /// Its uid.
    pub uid: OperatorUid,
    /// What reads.
    pub reader: Box<dyn SourceReader>,
    /// Its pace, where it is limited.
    pub rate: Option<Rate>,
    /// Where it counts.
    pub counters: Arc<NodeCounters>,
    /// Whether to wait at the end of input rather than to end (`--savepoint-at-end`).
    pub hold_at_end: bool,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something; call again.
    Progress,
    /// Nothing; call again when woken, or at this monotonic time in nanoseconds.
    Idle(Option<u64>),
    /// It has ended.
    Finished,
}

/// How far a subtask is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// A source behind the barrier of a stop.
    Stopped(CheckpointId),
    /// A source that has nothing left, and is held.
    Held,
    /// All inputs have ended and `finish` has run.
    Ended,
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
    watermark: i64,
    /// The last round it took part in.
    last_round: CheckpointId,
    aligning_since: Option<u64>,
    snapshot: Option<Box<SubtaskSnapshot>>,
    /// When its sweep began, monotonic nanoseconds.
    swept_since: u64,
}

impl Subtask {
    /// A subtask that has not run yet.
    #[must_use]
    pub fn new(
        id: SubtaskId,
        head: Head,
        chain: Chain,
        mailbox: Arc<Mailbox>,
        events: EventSink,
        clock: Arc<dyn Clock>,
        watermark: i64,
    ) -> Self {
        Self {
            id,
            head,
            chain,
            mailbox,
            events,
            clock,
            stage: Stage::Running,
            watermark,
            last_round: CheckpointId(0),
            aligning_since: None,
            snapshot: None,
            swept_since: 0,
        }
    }

    /// Which subtask it is.
    #[must_use]
    pub const fn id(&self) -> SubtaskId {
        self.id
    }

    /// Its mailbox, which also wakes it.
    #[must_use]
    pub fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// The uid to name when the whole subtask is meant: that of its first node.
    pub fn uid(&mut self) -> OperatorUid {
        if let Head::Source(source) = &self.head {
            return source.uid.clone();
        }
        let first = self.chain.operators().next().map(|node| node.uid().clone());
        first
            .or_else(|| self.chain.sink().map(|sink| sink.uid.clone()))
            .unwrap_or_else(|| unreachable!("empty chain"))
    }

    /// Does a little work.
    ///
    /// # Errors
    /// [`SubtaskFailure`]: the subtask must not be stepped again.
    pub fn step(&mut self) -> Result<Step, SubtaskFailure> {
        while let Some(message) = self.mailbox.receive() {
            if self.control(message)? {
                return Ok(Step::Finished);
            }
        }
        let swept = self.sweep();
        if !self.chain.send() {
            return Ok(if swept { Step::Progress } else { Step::Idle(None) });
        }
        if self.stage != Stage::Running {
            return Ok(if swept { Step::Progress } else { Step::Idle(None) });
        }
        let idle = match &mut self.head {
            Head::Source(_) => self.poll_source()?,
            Head::Gate(_) => self.poll_gate()?,
        };
        for gap in self.chain.take_gaps() {
            (self.events)(Event::SwapGap(gap));
        }
        match idle {
            None => {
                self.chain.send();
                Ok(Step::Progress)
            }
            // Nothing to read: what is buffered goes now, rather than wait for more.
            Some(_) if self.chain.has_buffered() => {
                self.chain.flush();
                self.chain.send();
                Ok(Step::Progress)
            }
            Some(_) if swept => Ok(Step::Progress),
            Some(until) => Ok(Step::Idle(until)),
        }
    }

    /// Handles a message; true: the subtask ends.
    fn control(&mut self, message: Control) -> Result<bool, SubtaskFailure> {
        match message {
            Control::Trigger(barrier) => {
                let direct = matches!(self.head, Head::Source(_)) || self.stage == Stage::Ended;
                if direct && barrier.id > self.last_round {
                    self.barrier(&barrier, 0)?;
                }
            }
            Control::Completed { id, committed } => self.chain.completed(id, committed),
            Control::Aborted(id) => {
                self.last_round = self.last_round.max(id);
                if self.stage == Stage::Stopped(id) {
                    self.stage = Stage::Running;
                }
                if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.id == id) {
                    self.finish_sweep();
                    self.snapshot = None;
                }
                if let Head::Gate(gate) = &mut self.head {
                    gate.abort(id);
                }
                self.chain.aborted(id)?;
            }
            Control::Drain => {
                if let Head::Source(source) = &mut self.head {
                    source.hold_at_end = false;
                    if matches!(self.stage, Stage::Running | Stage::Held) {
                        self.end()?;
                    }
                }
            }
            Control::Terminate => return Ok(true),
        }
        Ok(false)
    }

    /// `None`: something was read. `Some`: nothing, ask again then.
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
        let polled = source.reader.poll(due, now).map_err(|error| SubtaskFailure {
            uid: source.uid.clone(),
            subtask: self.id.index,
            doing: "read",
            record: None,
            cause: error.into(),
        })?;
        match polled {
            Polled::Batch(batch) => {
                if let Some(rate) = &mut source.rate {
                    rate.spend(batch.len());
                }
                NodeCounters::add(&source.counters.records_in, batch.len() as u64);
                NodeCounters::add(&source.counters.records_out, batch.len() as u64);
                self.chain.push(0, batch)?;
                Ok(None)
            }
            Polled::Idle(until) => Ok(Some(Some(until))),
            Polled::Exhausted if source.hold_at_end => {
                self.stage = Stage::Held;
                (self.events)(Event::Exhausted(self.id));
                Ok(None)
            }
            Polled::Exhausted => self.end().map(|()| None),
        }
    }

    fn poll_gate(&mut self) -> Result<Option<Option<u64>>, SubtaskFailure> {
        let Head::Gate(gate) = &mut self.head else {
            return Ok(Some(None));
        };
        match gate.poll() {
            Delivered::Batch(input, batch) => self.chain.push(input, batch)?,
            Delivered::Grouped(input, batch) => self.chain.push_grouped(input, batch)?,
            Delivered::Watermark(watermark) => {
                self.watermark = watermark;
                self.chain.watermark(watermark);
            }
            Delivered::Aligning => self.aligning_since = Some(self.clock.monotonic_ns()),
            Delivered::Barrier(barrier) => {
                let now = self.clock.monotonic_ns();
                let align_ns = self.aligning_since.take().map_or(0, |since| now - since);
                if barrier.id > self.last_round {
                    self.barrier(&barrier, align_ns)?;
                }
            }
            Delivered::End => self.end()?,
            Delivered::Nothing => return Ok(Some(None)),
        }
        Ok(None)
    }

    /// All inputs have ended.
    fn end(&mut self) -> Result<(), SubtaskFailure> {
        self.chain.finish()?;
        self.chain.control(&Element::EndOfInput);
        self.stage = Stage::Ended;
        (self.events)(Event::Ended(self.id));
        Ok(())
    }

    /// Takes the snapshot of a barrier, swaps what it brings, and passes it on.
    fn barrier(&mut self, barrier: &Arc<CheckpointBarrier>, align_ns: u64) -> Result<(), SubtaskFailure> {
        let start = self.clock.monotonic_ns();
        self.last_round = barrier.id;
        // A new mark needs the old sweep to be over.
        self.finish_sweep();
        let source = match &self.head {
            Head::Source(source) => Some((source.uid.clone(), source.reader.snapshot())),
            Head::Gate(_) => None,
        };
        let (mut keyed, mut operator, mut finished) = (vec![], vec![], vec![]);
        for node in self.chain.operators() {
            let uid = node.uid().clone();
            if node.is_finished() {
                finished.push(uid.clone());
            }
            let states = node.snapshot(barrier.id)?;
            if !states.is_empty() {
                operator.push((uid.clone(), states));
            }
            if let Some(backend) = node.backend() {
                let base = backend.begin_snapshot(barrier.id, None);
                let rows = vec![];
                keyed.push(KeyedSnapshot { uid, base, rows });
            }
        }
        let mut sinks = vec![];
        if let Some(sink) = self.chain.sink() {
            let snapshot = sink
                .writer
                .prepare(barrier.id)
                .map_err(|error| sink.failed("prepare", error))?;
            sink.writer.begin().map_err(|error| sink.failed("begin", error))?;
            sinks.push((sink.uid.clone(), snapshot));
        }
        let before_swap = self.clock.monotonic_ns();
        self.chain.swap(self.id.index, barrier)?;
        let end = self.clock.monotonic_ns();
        if self.stage != Stage::Ended {
            self.chain.control(&Element::Barrier(barrier.clone()));
        }
        if barrier.kind == SnapshotKind::Stop && matches!(self.head, Head::Source(_)) && self.stage != Stage::Ended {
            self.stage = Stage::Stopped(barrier.id);
        }
        self.snapshot = Some(Box::new(SubtaskSnapshot {
            subtask: self.id,
            id: barrier.id,
            source,
            keyed,
            operator,
            sinks,
            watermark: self.watermark,
            finished,
            align_ns,
            sync_ns: end - start,
            swap_ns: if barrier.swaps.is_some() { end - before_swap } else { 0 },
            async_ns: 0,
        }));
        self.swept_since = end;
        Ok(())
    }

    /// Writes out one key group of the snapshot under way; tells the coordinator when that was the last.
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

    fn finish_sweep(&mut self) {
        while self.snapshot.is_some() {
            self.sweep();
        }
    }

    /// The job was cancelled or has failed: drops what is not prepared.
    pub fn cancel(&mut self) {
        self.chain.cancel();
    }
}
