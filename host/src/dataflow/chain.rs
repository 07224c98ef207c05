//! Pushes batches through the operators of one chain, on one thread, and sends the output of the last one to the
//! exchange.
//!
//! Watermarks, idleness and the end of input follow the records from node to node: a node passes them on when it has
//! done all the work that they cause. That can be much (a million timers), so it is done in parts, and the owner calls
//! [`Chain::work`] for each one.

use std::collections::VecDeque;

use regraft_guest_runtime::call::OperatorState;
use regraft_model::batch::Batch;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::TimeDomain;

use super::control::{NodeCounters, SwapGap};
use super::element::{CheckpointBarrier, Element};
use super::exchange::partitioner::OutputEdge;
use super::failure::{Cause, SubtaskFailure};
use super::node::{OperatorNode, Outputs};
use super::watermark::Signal;
use crate::connector::sink::SinkWriter;

/// Limit of calls, one after the other, that fire timers which other timers have set for a time that has come. Those that come
/// later than the one that sets them are fired before the next record up to here, as a timer that repeats itself has to
/// catch up with a watermark; others take turns with the input at once.
pub const AGAIN_MAX: u32 = 100_000;

/// The nodes of a chain after its source or gate, in order, and the edges that leave it.
pub struct Chain {
    nodes: Vec<ChainedNode>,
    edges: Vec<OutputEdge>,
    /// Steps under way, in order.
    steps: VecDeque<Step>,
    /// Scratch space for signals on their way from a node.
    signals: Vec<Signal>,
}

/// A signal or end of input on its way through the chain, after the records.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Index of the node that it has reached; beyond the last node, the edges.
    at: usize,
    what: What,
    /// True once the node has begun to handle it.
    begun: bool,
    /// Number of timers that the node has to fire for it: those that were due when it began.
    due: usize,
    /// Number of calls that have fired timers which these have set, for a time that had come as well.
    again: u32,
}

impl Step {
    const fn new(at: usize, what: What) -> Self {
        Self {
            at,
            what,
            begun: false,
            due: 0,
            again: 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum What {
    Signal(Signal),
    End,
}

/// A node of a chain, with the port that feeds it.
pub struct ChainedNode {
    /// Output port of the preceding node that it reads.
    pub port: u32,
    /// The node.
    pub kind: ChainedKind,
}

/// The kinds of node that a chain holds.
pub enum ChainedKind {
    /// An operator.
    Operator(Box<OperatorNode>),
    /// A sink.
    Sink(SinkNode),
}

/// A sink in one subtask.
pub struct SinkNode {
    /// Uid of the sink.
    pub uid: OperatorUid,
    /// Index of the subtask.
    pub subtask: u32,
    /// Writes the records.
    pub writer: Box<dyn SinkWriter>,
    /// Counters of the sink.
    pub counters: std::sync::Arc<NodeCounters>,
}

impl SinkNode {
    /// Wraps an error into a failure of this sink.
    pub fn failed(&self, doing: &'static str, cause: impl Into<Cause>) -> SubtaskFailure {
        SubtaskFailure::new(self.uid.clone(), self.subtask, doing, cause)
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SubtaskFailure> {
        self.writer.write(batch).map_err(|error| self.failed("write", error))?;
        NodeCounters::add(&self.counters.records_in, batch.len() as u64);
        NodeCounters::add(&self.counters.records_out, batch.len() as u64);
        Ok(())
    }

    /// Sets the new input value of the sink, if the barrier carries one.
    fn swap(&mut self, barrier: &CheckpointBarrier) -> Result<(), SubtaskFailure> {
        let Some(input) = barrier
            .swaps
            .as_ref()
            .and_then(|swaps| swaps.sink_inputs.get(&self.uid))
        else {
            return Ok(());
        };
        self.writer.set_input(input).map_err(|error| self.failed("swap", error))
    }
}

impl Chain {
    /// Creates a chain. `nodes`: operators, with at most one sink, at the end. `edges`: those of the last node, or of
    /// the source where there are no nodes.
    #[must_use]
    pub fn new(mut nodes: Vec<ChainedNode>, edges: Vec<OutputEdge>) -> Self {
        if let Some(ChainedKind::Operator(last)) = nodes.last_mut().map(|node| &mut node.kind) {
            last.set_copies(edges.iter().map(OutputEdge::copies).sum());
        }
        Self {
            nodes,
            edges,
            steps: VecDeque::new(),
            signals: vec![],
        }
    }

    /// Pushes a batch in from the source or the gate.
    ///
    /// # Errors
    /// [`SubtaskFailure`] of the node that failed.
    pub fn push(&mut self, input: u32, batch: Batch) -> Result<(), SubtaskFailure> {
        if self.nodes.is_empty() {
            self.emit(0, batch);
            return Ok(());
        }
        self.push_at(0, input, batch, false)
    }

    /// Pushes in a batch from the gate whose key column is distinct.
    ///
    /// # Errors
    /// [`SubtaskFailure`] of the node that failed.
    pub fn push_grouped(&mut self, input: u32, batch: Batch) -> Result<(), SubtaskFailure> {
        self.push_at(0, input, batch, true)
    }

    fn push_at(&mut self, at: usize, input: u32, batch: Batch, grouped: bool) -> Result<(), SubtaskFailure> {
        let keys_needed = self.keys_needed_after(at);
        match &mut self.nodes[at].kind {
            ChainedKind::Sink(sink) => sink.write(&batch),
            ChainedKind::Operator(node) => {
                let mut out = vec![];
                node.process(input, batch, grouped, keys_needed, &mut out)?;
                self.route(at, out)
            }
        }
    }

    /// Routes the outputs of the node at `at` to the next node of the chain, or to the edges.
    fn route(&mut self, at: usize, outputs: Outputs) -> Result<(), SubtaskFailure> {
        for (port, batch) in outputs {
            match self.nodes.get(at + 1) {
                Some(next) if next.port == port => self.push_at(at + 1, 0, batch, false)?,
                // Nothing reads this port.
                Some(_) => {}
                None => self.emit(port, batch),
            }
        }
        Ok(())
    }

    fn emit(&mut self, port: u32, batch: Batch) {
        let mut readers = self.edges.iter_mut().filter(|edge| edge.port == port).peekable();
        while let Some(edge) = readers.next() {
            if readers.peek().is_none() {
                edge.push(batch);
                return;
            }
            edge.push(batch.clone());
        }
    }

    /// Returns true if anything downstream of the node uses keys; everything but a sink does.
    fn keys_needed_after(&self, at: usize) -> bool {
        match self.nodes.get(at + 1) {
            Some(next) => matches!(next.kind, ChainedKind::Operator(_)),
            None => !self.edges.is_empty(),
        }
    }

    /// Begins to pass a signal through the chain, after the records pushed so far.
    pub fn signal(&mut self, signal: Signal) {
        self.begin(0, What::Signal(signal));
    }

    /// Begins the end of all inputs: each operator fires its last timers and runs `finish`, after those before it.
    pub fn end(&mut self) {
        self.begin(0, What::End);
    }

    fn begin(&mut self, at: usize, what: What) {
        // A watermark says all that an earlier one says which waits at the same node.
        if let (Some(last), What::Signal(Signal::Watermark(_))) = (self.steps.back_mut(), what)
            && let (What::Signal(Signal::Watermark(_)), false) = (last.what, last.begun)
            && last.at == at
        {
            last.what = what;
            return;
        }
        self.steps.push_back(Step::new(at, what));
    }

    /// Returns true if the step under way goes on only because its timers set themselves again and again for a time that has
    /// come. They may do so without end, so barriers and records get a turn between them. To come later than a record is
    /// right for any watermark; for the end of input it is not.
    #[must_use]
    pub fn yields(&self) -> bool {
        self.steps.front().is_some_and(|step| step.again >= AGAIN_MAX)
    }

    /// Returns true if a step is under way, which comes before any further record.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Does a part of the first step under way.
    ///
    /// # Errors
    /// [`SubtaskFailure`] of the node that failed.
    pub fn work(&mut self) -> Result<(), SubtaskFailure> {
        let Some(Step { at, what, begun, .. }) = self.steps.front().copied() else {
            return Ok(());
        };
        let keys_needed = self.keys_needed_after(at);
        let Some(step) = self.steps.front_mut() else {
            return Ok(());
        };
        step.begun = true;
        let mut out = vec![];
        let hand_on = match self.nodes.get_mut(at).map(|node| &mut node.kind) {
            None => {
                self.control(&match what {
                    What::Signal(Signal::Watermark(watermark)) => Element::Watermark(watermark),
                    What::Signal(Signal::Idle(idle)) => Element::Idle(idle),
                    What::End => Element::EndOfInput,
                });
                false
            }
            Some(ChainedKind::Sink(_)) => false,
            Some(ChainedKind::Operator(node)) => {
                let goes_on = take(node, step, begun, keys_needed, &mut out)?;
                // The end of input, where it waits behind, fires what is left, and finds timers that go on without end.
                let gives_way = step.again >= AGAIN_MAX && self.steps.iter().any(|step| matches!(step.what, What::End));
                if goes_on && !gives_way {
                    return self.route(at, out);
                }
                // An operator with a watermark strategy emits its own watermarks and idleness.
                node.watermarks().is_none() || matches!(what, What::End)
            }
        };
        match self.steps.front_mut() {
            Some(step) if hand_on => *step = Step::new(at + 1, what),
            _ => _ = self.steps.pop_front(),
        }
        self.route(at, out)
    }

    /// Begins to pass on the watermarks that follow from the event times of emitted records. `at_rest`: no record waits
    /// to be processed.
    pub fn advance(&mut self, at_rest: bool) {
        for at in 0..self.nodes.len() {
            if let ChainedKind::Operator(node) = &mut self.nodes[at].kind {
                node.advance(at_rest, &mut self.signals);
            }
            while !self.signals.is_empty() {
                let signal = self.signals.remove(0);
                self.begin(at + 1, What::Signal(signal));
            }
        }
    }

    /// Returns the number of processing timers that are due at `up_to`, in milliseconds.
    #[must_use]
    pub fn due_count(&mut self, up_to: i64) -> usize {
        let due = |node: &mut OperatorNode| node.due_count(TimeDomain::Processing, up_to);
        self.operators().map(due).sum()
    }

    /// Fires some of the processing timers that are due at `up_to`, in milliseconds. Returns their number, or `None` if there
    /// are none. With `again`, also returns true if the next one was set for a time that these had reached.
    ///
    /// # Errors
    /// [`SubtaskFailure`] of the node that failed.
    pub fn fire(&mut self, up_to: i64, again: bool) -> Result<Option<(usize, bool)>, SubtaskFailure> {
        for at in 0..self.nodes.len() {
            let keys_needed = self.keys_needed_after(at);
            let ChainedKind::Operator(node) = &mut self.nodes[at].kind else {
                continue;
            };
            if node.next_timer().is_some_and(|next| next <= up_to) {
                let mut out = vec![];
                let fired = node.fire(TimeDomain::Processing, up_to, keys_needed, &mut out)?;
                if let Some(fired) = fired {
                    let is_behind = again && node.is_behind(TimeDomain::Processing, &fired, up_to);
                    self.route(at, out)?;
                    return Ok(Some((fired.times.len(), is_behind)));
                }
            }
        }
        Ok(None)
    }

    /// Returns the time of the first processing timer, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn next_timer(&self) -> Option<i64> {
        let of = |node: &ChainedNode| match &node.kind {
            ChainedKind::Operator(node) => node.next_timer(),
            ChainedKind::Sink(_) => None,
        };
        self.nodes.iter().filter_map(of).min()
    }

    /// Returns the earliest time at which an operator's output becomes idle if no record comes, in monotonic
    /// nanoseconds.
    pub fn idle_at_ns(&mut self) -> Option<u64> {
        let of = |node: &mut OperatorNode| node.watermarks().and_then(|watermarks| watermarks.idle_at_ns());
        self.operators().filter_map(of).min()
    }

    /// Notes that nothing could be sent for `nanos`, which does not count as idleness.
    pub fn was_blocked(&mut self, nanos: u64) {
        for node in self.operators() {
            if let Some(watermarks) = node.watermarks() {
                watermarks.was_blocked(nanos);
            }
        }
    }

    /// Sends a control element to all consumers, after all records.
    pub fn control(&mut self, element: &Element) {
        for edge in &mut self.edges {
            edge.control(element);
        }
    }

    /// Swaps in the modules that the barrier carries. `own`: operator state and private state of the operators that
    /// have some.
    ///
    /// # Errors
    /// [`SubtaskFailure`] where a new module does not accept the state, or a sink cannot write the records that it
    /// emits.
    pub fn swap(
        &mut self,
        subtask: u32,
        barrier: &CheckpointBarrier,
        own: &[(OperatorUid, Vec<OperatorState>)],
    ) -> Result<(), SubtaskFailure> {
        let Some(swaps) = &barrier.swaps else { return Ok(()) };
        for node in &mut self.nodes {
            match &mut node.kind {
                ChainedKind::Operator(node) => {
                    let slot = swaps
                        .operators
                        .get(node.uid())
                        .and_then(|slots| slots.get(subtask as usize));
                    if let Some(new) = slot.and_then(|slot| super::control::locked(slot).take()) {
                        let own = own.iter().find(|(uid, _)| uid == node.uid());
                        node.swap(barrier.id, new, own.map_or(&[], |(_, own)| own))?;
                    }
                }
                ChainedKind::Sink(sink) => sink.swap(barrier)?,
            }
        }
        Ok(())
    }

    /// Handles the completion of a round: parked instances are dropped, and what the round prepared counts as committed
    /// where it commits.
    pub fn completed(&mut self, id: CheckpointId, committed: bool) {
        for node in &mut self.nodes {
            match &mut node.kind {
                ChainedKind::Operator(node) => node.completed(id, committed),
                ChainedKind::Sink(sink) if committed => sink.writer.committed(id),
                ChainedKind::Sink(_) => {}
            }
        }
    }

    /// Handles the abort of a round.
    pub fn aborted(&mut self, id: CheckpointId) {
        for node in self.operators() {
            node.aborted(id);
        }
    }

    /// Drops unprepared output, since the job was cancelled.
    pub fn cancel(&mut self) {
        for node in &mut self.nodes {
            match &mut node.kind {
                ChainedKind::Operator(node) => node.cancel(),
                ChainedKind::Sink(sink) => sink.writer.abort(),
            }
        }
    }

    /// Iterates over the operators, in order.
    pub fn operators(&mut self) -> impl Iterator<Item = &mut OperatorNode> {
        self.nodes.iter_mut().filter_map(|node| match &mut node.kind {
            ChainedKind::Operator(node) => Some(node.as_mut()),
            ChainedKind::Sink(_) => None,
        })
    }

    /// Returns the sink at the end, if any.
    pub fn sink(&mut self) -> Option<&mut SinkNode> {
        match self.nodes.last_mut().map(|node| &mut node.kind) {
            Some(ChainedKind::Sink(sink)) => Some(sink),
            _ => None,
        }
    }

    /// Takes the gaps of the swaps whose first output has come.
    pub fn take_gaps(&mut self) -> Vec<SwapGap> {
        self.operators().filter_map(OperatorNode::take_gap).collect()
    }

    /// Makes buffered records ready to be sent.
    pub fn flush(&mut self) {
        for edge in &mut self.edges {
            edge.flush();
        }
    }

    /// Returns true if records wait in buffers.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        self.edges.iter().any(OutputEdge::has_buffered)
    }

    /// Sends pending elements as far as there is room. Returns true if none is left.
    pub fn send(&mut self) -> bool {
        let mut all = true;
        for edge in &mut self.edges {
            all &= edge.send();
        }
        all
    }
}

/// Does an operator's next part of a step. Returns true if there is more to do.
fn take(
    node: &mut OperatorNode,
    step: &mut Step,
    begun: bool,
    keys_needed: bool,
    out: &mut Outputs,
) -> Result<bool, SubtaskFailure> {
    match step.what {
        What::End => node.end(keys_needed, out),
        What::Signal(Signal::Idle(idle)) => {
            if let Some(watermarks) = node.watermarks() {
                watermarks.set_input_idle(idle);
            }
            Ok(false)
        }
        What::Signal(Signal::Watermark(watermark)) => {
            if !begun {
                if watermark <= node.watermark() {
                    return Ok(false);
                }
                node.set_watermark(watermark);
                step.due = node.due_count(TimeDomain::Event, watermark);
            }
            if let Some(fired) = node.fire(TimeDomain::Event, watermark, keys_needed, out)? {
                if step.due == 0 {
                    let is_behind = node.is_behind(TimeDomain::Event, &fired, watermark);
                    step.again = if is_behind {
                        AGAIN_MAX
                    } else {
                        step.again.saturating_add(1)
                    };
                }
                step.due = step.due.saturating_sub(fired.times.len());
                return Ok(true);
            }
            node.on_watermark(keys_needed, out)?;
            Ok(false)
        }
    }
}
