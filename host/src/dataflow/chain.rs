//! Pushes batches through the operators of one chain, in one thread, and what the last one emits to the exchange.

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::{CheckpointId, OperatorUid};

use super::control::{NodeCounters, SwapGap};
use super::element::{CheckpointBarrier, Element};
use super::exchange::partitioner::OutputEdge;
use super::failure::{Cause, SubtaskFailure};
use super::operator::node::OperatorNode;
use super::sink::SinkWriter;

/// The nodes of a chain after its source or gate, in order, and the edges that leave it.
pub struct Chain {
    /// Operators, and a sink at most at the end.
    pub nodes: Vec<ChainedNode>,
    /// Edges from the last node; with no nodes, from the source.
    pub edges: Vec<OutputEdge>,
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
    /// The shape of its input, and the one before a swap that is not completed.
    pub input: PortValue,
    /// Input to go back to when the round is given up.
    pub parked: Option<(CheckpointId, PortValue)>,
}

impl SinkNode {
    /// Puts the sink's name to an error.
    pub fn failed(&self, doing: &'static str, cause: impl Into<Cause>) -> SubtaskFailure {
        SubtaskFailure {
            uid: self.uid.clone(),
            subtask: self.subtask,
            doing,
            record: None,
            cause: cause.into(),
        }
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
        self.writer
            .set_input(input)
            .map_err(|error| self.failed("swap", error))?;
        self.parked = Some((barrier.id, std::mem::replace(&mut self.input, input.clone())));
        Ok(())
    }
}

impl Chain {
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
    fn route(&mut self, at: usize, outputs: Vec<(u32, Batch)>) -> Result<(), SubtaskFailure> {
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

    /// The end of all inputs: `finish` of every operator, each after those before it.
    ///
    /// # Errors
    /// [`SubtaskFailure`].
    pub fn finish(&mut self) -> Result<(), SubtaskFailure> {
        for at in 0..self.nodes.len() {
            let keys_needed = self.keys_needed_after(at);
            if let ChainedKind::Operator(node) = &mut self.nodes[at].kind {
                let mut out = vec![];
                node.finish(keys_needed, &mut out)?;
                self.route(at, out)?;
            }
        }
        Ok(())
    }

    /// Event time has advanced.
    pub fn watermark(&mut self, watermark: i64) {
        for node in self.operators() {
            node.set_watermark(watermark);
        }
        self.control(&Element::Watermark(watermark));
    }

    /// Sends a control element to all consumers, after all records.
    pub fn control(&mut self, element: &Element) {
        for edge in &mut self.edges {
            edge.control(element);
        }
    }

    /// Puts new modules in place where the barrier brings some.
    ///
    /// # Errors
    /// [`SubtaskFailure`] where a sink cannot write what a new module emits.
    pub fn swap(&mut self, subtask: u32, barrier: &CheckpointBarrier) -> Result<(), SubtaskFailure> {
        let Some(swaps) = &barrier.swaps else { return Ok(()) };
        for node in &mut self.nodes {
            match &mut node.kind {
                ChainedKind::Operator(node) => {
                    let slot = swaps
                        .operators
                        .get(node.uid())
                        .and_then(|slots| slots.get(subtask as usize));
                    if let Some(new) = slot.and_then(|slot| super::control::locked(slot).take()) {
                        node.swap(barrier.id, new);
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
                ChainedKind::Operator(node) => node.forget_parked(id),
                ChainedKind::Sink(sink) => {
                    sink.parked.take_if(|(parked, _)| *parked == id);
                    if committed {
                        sink.writer.committed(id);
                    }
                }
            }
        }
    }

    /// The round was given up: what it swapped out comes back.
    ///
    /// # Errors
    /// [`SubtaskFailure`].
    pub fn aborted(&mut self, id: CheckpointId) -> Result<(), SubtaskFailure> {
        for node in &mut self.nodes {
            match &mut node.kind {
                ChainedKind::Operator(node) => node.unpark(id),
                ChainedKind::Sink(sink) => {
                    if let Some((_, input)) = sink.parked.take_if(|(parked, _)| *parked == id) {
                        sink.writer
                            .set_input(&input)
                            .map_err(|error| sink.failed("swap", error))?;
                        sink.input = input;
                    }
                }
            }
        }
        Ok(())
    }

    /// The job was cancelled: unprepared output is dropped.
    pub fn cancel(&mut self) {
        if let Some(ChainedKind::Sink(sink)) = self.nodes.last_mut().map(|node| &mut node.kind) {
            sink.writer.abort();
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
