//! Pushes batches through the operators of one chain, in one thread, and what the last one emits to the exchange.
//!
//! Watermarks, idleness and the end of input follow the records, node by node: a node hands them on when it has done all
//! that they ask of it. That may be much (a million timers), so it is done in parts, and the owner asks for the next one.

use std::collections::VecDeque;

use regraft_guest_runtime::call::OperatorState;
use regraft_model::batch::Batch;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::TimeDomain;

use super::control::{NodeCounters, SwapGap};
use super::element::{CheckpointBarrier, Element};
use super::exchange::partitioner::OutputEdge;
use super::failure::{Cause, SubtaskFailure};
use super::operator::node::{OperatorNode, Outputs};
use super::sink::SinkWriter;
use super::watermark::Signal;

/// The nodes of a chain after its source or gate, in order, and the edges that leave it.
pub struct Chain {
    nodes: Vec<ChainedNode>,
    edges: Vec<OutputEdge>,
    /// What is under way, in order.
    steps: VecDeque<Step>,
    /// Signals on their way from a node, reused.
    signals: Vec<Signal>,
}

/// Something that follows the records through the chain.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The node that it has come to; beyond the last one: the edges.
    at: usize,
    what: What,
    /// Whether the node has begun with it.
    begun: bool,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Signal(Signal),
    End,
}

/// One link of a chain.
pub struct ChainedNode {
    /// The output port of the node before it that it reads.
    pub port: u32,
    /// What it is.
    pub kind: ChainedKind,
}

/// What can be chained.
pub enum ChainedKind {
    /// An operator.
    Operator(Box<OperatorNode>),
    /// A sink.
    Sink(SinkNode),
}

/// A sink in one subtask.
pub struct SinkNode {
    /// Its uid.
    pub uid: OperatorUid,
    /// Its subtask.
    pub subtask: u32,
    /// What writes.
    pub writer: Box<dyn SinkWriter>,
    /// Where it counts.
    pub counters: std::sync::Arc<NodeCounters>,
}

impl SinkNode {
    /// Puts the sink's name to an error.
    pub fn failed(&self, doing: &'static str, cause: impl Into<Cause>) -> SubtaskFailure {
        SubtaskFailure::new(self.uid.clone(), self.subtask, doing, cause)
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SubtaskFailure> {
        self.writer.write(batch).map_err(|error| self.failed("write", error))?;
        NodeCounters::add(&self.counters.records_in, batch.len() as u64);
        NodeCounters::add(&self.counters.records_out, batch.len() as u64);
        Ok(())
    }

    /// Takes the new shape of its input, if a barrier brings one.
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
    /// `nodes`: operators, and a sink at most at the end. `edges`: from the last node; with no nodes, from the source.
    #[must_use]
    pub const fn new(nodes: Vec<ChainedNode>, edges: Vec<OutputEdge>) -> Self {
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

    /// Pushes a batch in from the gate whose key column is distinct.
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

    /// Outputs of the node at `at`: to the next node of the chain, or to the edges.
    fn route(&mut self, at: usize, outputs: Outputs) -> Result<(), SubtaskFailure> {
        for (port, batch) in outputs {
            match self.nodes.get(at + 1) {
                Some(next) if next.port == port => self.push_at(at + 1, 0, batch, false)?,
                // A port that nothing reads.
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

    /// Whether anything after the node looks at keys: all but sinks do.
    fn keys_needed_after(&self, at: usize) -> bool {
        match self.nodes.get(at + 1) {
            Some(next) => matches!(next.kind, ChainedKind::Operator(_)),
            None => !self.edges.is_empty(),
        }
    }

    /// What follows the records from the source or the gate.
    pub fn signal(&mut self, signal: Signal) {
        self.begin(0, What::Signal(signal));
    }

    /// The end of all inputs: the last timers and `finish` of every operator, each after those before it.
    pub fn end(&mut self) {
        self.begin(0, What::End);
    }

    fn begin(&mut self, at: usize, what: What) {
        let begun = false;
        self.steps.push_back(Step { at, what, begun });
    }

    /// Whether something is under way that comes before more records.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Does a part of what is under way.
    ///
    /// # Errors
    /// [`SubtaskFailure`].
    pub fn work(&mut self) -> Result<(), SubtaskFailure> {
        let Some(step) = self.steps.front_mut() else {
            return Ok(());
        };
        let Step { at, what, begun } = *step;
        step.begun = true;
        let keys_needed = self.keys_needed_after(at);
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
                if take(node, what, begun, keys_needed, &mut out)? {
                    return self.route(at, out);
                }
                // What an operator with a strategy of its own tells of event time, it tells by itself.
                node.watermarks().is_none() || matches!(what, What::End)
            }
        };
        match self.steps.front_mut() {
            Some(step) if hand_on => (step.at, step.begun) = (at + 1, false),
            _ => _ = self.steps.pop_front(),
        }
        self.route(at, out)
    }

    /// Tells what the event times of emitted records give. `at_rest`: nothing waits to be processed.
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

    /// Fires some of the processing timers that were due at `up_to`. False: none was.
    ///
    /// # Errors
    /// [`SubtaskFailure`].
    pub fn fire(&mut self, up_to: i64) -> Result<bool, SubtaskFailure> {
        for at in 0..self.nodes.len() {
            let keys_needed = self.keys_needed_after(at);
            let ChainedKind::Operator(node) = &mut self.nodes[at].kind else {
                continue;
            };
            if node.next_timer().is_some_and(|next| next <= up_to) {
                let mut out = vec![];
                if node.fire(TimeDomain::Processing, up_to, keys_needed, &mut out)? {
                    self.route(at, out)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// When the first processing timer is due, milliseconds since the Unix epoch.
    #[must_use]
    pub fn next_timer(&self) -> Option<i64> {
        let of = |node: &ChainedNode| match &node.kind {
            ChainedKind::Operator(node) => node.next_timer(),
            ChainedKind::Sink(_) => None,
        };
        self.nodes.iter().filter_map(of).min()
    }

    /// When an operator's output becomes idle if nothing comes, monotonic nanoseconds.
    pub fn idle_at_ns(&mut self) -> Option<u64> {
        let of = |node: &mut OperatorNode| node.watermarks().and_then(|watermarks| watermarks.idle_at_ns());
        self.operators().filter_map(of).min()
    }

    /// Nothing could be sent for so long: nobody is idle for it.
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

    /// Puts new modules in place where the barrier brings some. `own`: the operator state and private state of operators that
    /// have some.
    ///
    /// # Errors
    /// [`SubtaskFailure`] where a new module does not take the state, or a sink cannot write what it emits.
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

    /// The round is completed: what it swapped out goes, what it prepared has been committed.
    pub fn completed(&mut self, id: CheckpointId, committed: bool) {
        for node in &mut self.nodes {
            match &mut node.kind {
                ChainedKind::Operator(node) => node.completed(id, committed),
                ChainedKind::Sink(sink) if committed => sink.writer.committed(id),
                ChainedKind::Sink(_) => {}
            }
        }
    }

    /// The round was given up.
    pub fn aborted(&mut self, id: CheckpointId) {
        for node in self.operators() {
            node.aborted(id);
        }
    }

    /// The job was cancelled: unprepared output is dropped.
    pub fn cancel(&mut self) {
        for node in &mut self.nodes {
            match &mut node.kind {
                ChainedKind::Operator(node) => node.cancel(),
                ChainedKind::Sink(sink) => sink.writer.abort(),
            }
        }
    }

    /// All operators in order.
    pub fn operators(&mut self) -> impl Iterator<Item = &mut OperatorNode> {
        self.nodes.iter_mut().filter_map(|node| match &mut node.kind {
            ChainedKind::Operator(node) => Some(node.as_mut()),
            ChainedKind::Sink(_) => None,
        })
    }

    /// The sink at the end, if any.
    pub fn sink(&mut self) -> Option<&mut SinkNode> {
        match self.nodes.last_mut().map(|node| &mut node.kind) {
            Some(ChainedKind::Sink(sink)) => Some(sink),
            _ => None,
        }
    }

    /// Swaps whose first output has come.
    pub fn take_gaps(&mut self) -> Vec<SwapGap> {
        self.operators().filter_map(OperatorNode::take_gap).collect()
    }

    /// Makes buffered records ready to go.
    pub fn flush(&mut self) {
        for edge in &mut self.edges {
            edge.flush();
        }
    }

    /// Whether records wait in buffers.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        self.edges.iter().any(OutputEdge::has_buffered)
    }

    /// Sends what is ready. True when nothing is left waiting for room.
    pub fn send(&mut self) -> bool {
        let mut all = true;
        for edge in &mut self.edges {
            all &= edge.send();
        }
        all
    }
}

/// What an operator does about something that has come to it. True: there is more to do.
fn take(
    node: &mut OperatorNode,
    what: What,
    begun: bool,
    keys_needed: bool,
    out: &mut Outputs,
) -> Result<bool, SubtaskFailure> {
    match what {
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
            }
            if node.fire(TimeDomain::Event, watermark, keys_needed, out)? {
                return Ok(true);
            }
            node.on_watermark(keys_needed, out)?;
            Ok(false)
        }
    }
}
