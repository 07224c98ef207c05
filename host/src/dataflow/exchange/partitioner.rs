//! Assigns records to subtasks, by key group, in turn or all to all. Batch sizes adapt: full under load, and sent at
//! once when the subtask has nothing else to do.

use std::collections::VecDeque;

use regraft_model::batch::Batch;
use regraft_model::key_group::{key_group, subtask_of};
use regraft_model::origin::Origin;
use regraft_model::time::NO_TIMESTAMP;

use super::super::element::Element;
use super::channel::Sender;
use crate::graph::job_graph::Partitioning;
use crate::state::group::Grouper;

/// A buffer is sent when it holds this many records.
const BATCH_RECORDS: usize = 2048;
/// A buffer is sent when it holds this many bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// The outgoing edge of a subtask to all subtasks of one consumer.
#[derive(Debug)]
pub struct OutputEdge {
    /// Output port that the edge carries.
    pub port: u32,
    by: Partitioning,
    max_parallelism: u32,
    targets: Vec<Target>,
    /// Next target of a rebalance.
    next: usize,
    /// Target of each entry of the key column; scratch space.
    target_of: Vec<u32>,
    /// Length of each target's buffer before the present batch; scratch space.
    counts: Vec<usize>,
    /// Origins of the targets' buffers while they are filled; scratch space.
    origins: Vec<Option<Origin>>,
}

#[derive(Debug)]
struct Target {
    sender: Sender,
    buffer: Batch,
    pending: VecDeque<Element>,
    /// Groups batches of an edge by key. Done here rather than in the consumer, which has more to do than most
    /// producers.
    grouper: Option<Grouper>,
}

impl OutputEdge {
    /// Creates an edge. `targets` are the channels to the subtasks of the consumer, in order; a forward edge has only
    /// one.
    #[must_use]
    pub fn new(port: u32, by: Partitioning, max_parallelism: u32, subtask: u32, targets: Vec<Sender>) -> Self {
        let next = subtask as usize % targets.len().max(1);
        let target = |sender| Target {
            sender,
            buffer: Batch::default(),
            pending: VecDeque::new(),
            grouper: (by == Partitioning::Key).then(Grouper::default),
        };
        Self {
            port,
            by,
            max_parallelism,
            targets: targets.into_iter().map(target).collect(),
            next,
            target_of: vec![],
            counts: vec![],
            origins: vec![],
        }
    }

    /// Returns the number of copies that it makes of a batch.
    #[must_use]
    pub fn copies(&self) -> usize {
        match self.by {
            Partitioning::Broadcast => self.targets.len(),
            _ => 1,
        }
    }

    /// Takes in a batch. It may stay in a buffer until `flush`.
    pub fn push(&mut self, mut batch: Batch) {
        if batch.is_empty() {
            return;
        }
        match self.by {
            Partitioning::Key => {
                batch.keys.ensure_hashes();
                if let [target] = self.targets.as_mut_slice() {
                    target.append(batch);
                } else {
                    self.scatter(&batch);
                }
            }
            Partitioning::Forward => self.targets[0].append(batch),
            Partitioning::Rebalance => {
                let at = self.next;
                self.next = (self.next + 1) % self.targets.len();
                self.targets[at].append(batch);
            }
            Partitioning::Broadcast => {
                for target in &mut self.targets {
                    target.append(batch.clone());
                }
            }
        }
    }

    fn scatter(&mut self, batch: &Batch) {
        let (parallelism, max) = (self.targets.len() as u32, self.max_parallelism);
        self.target_of.clear();
        self.target_of.extend(
            batch
                .keys
                .hashes
                .iter()
                .map(|hash| subtask_of(key_group(*hash, max), parallelism, max)),
        );
        self.counts.clear();
        self.counts
            .extend(self.targets.iter().map(|target| target.buffer.len()));
        for i in 0..batch.len() {
            let entry = batch.keys.at(i);
            let target = &mut self.targets[self.target_of[entry] as usize];
            let buffer = &mut target.buffer;
            if !buffer.keys.index.is_empty() {
                buffer.keys.index.push(buffer.keys.column.len() as u32);
            }
            if buffer.keys.hashes.len() == buffer.keys.column.len() {
                buffer.keys.hashes.push(batch.keys.hashes[entry]);
            }
            buffer.keys.column.push(batch.keys.column.get(entry));
            if !batch.timestamps.is_empty() && buffer.timestamps.len() < buffer.values.len() {
                buffer.timestamps.resize(buffer.values.len(), NO_TIMESTAMP);
            }
            if !batch.timestamps.is_empty() || !buffer.timestamps.is_empty() {
                buffer.timestamps.push(batch.timestamp(i));
            }
            buffer.values.push(batch.values.get(i));
        }
        self.scatter_origin(batch);
        for target in &mut self.targets {
            target.send_if_full();
        }
    }

    /// Assigns the source position of each record to the target buffer that the record has just been added to.
    fn scatter_origin(&mut self, batch: &Batch) {
        let targets = &self.targets;
        if batch.origin.is_none() && targets.iter().all(|target| target.buffer.origin.is_none()) {
            return;
        }
        let target_of = |row| self.target_of[batch.keys.at(row)] as usize;
        self.origins.clear();
        self.origins
            .extend(self.targets.iter_mut().map(|target| target.buffer.origin.take()));
        let origin = batch.origin.as_ref();
        Origin::deal(origin, batch.len(), &mut self.origins, &self.counts, target_of);
        for (target, origin) in self.targets.iter_mut().zip(&mut self.origins) {
            target.buffer.origin = origin.take();
        }
    }

    /// Queues a control element for every target, after all records pushed before it.
    pub fn control(&mut self, element: &Element) {
        self.flush();
        for target in &mut self.targets {
            target.pending.push_back(element.clone());
        }
    }

    /// Makes all buffered records ready to be sent.
    pub fn flush(&mut self) {
        for target in &mut self.targets {
            target.flush();
        }
    }

    /// Returns true if records wait in a buffer.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        self.targets.iter().any(|target| !target.buffer.is_empty())
    }

    /// Sends pending elements as far as there is room. Returns true if none is left.
    pub fn send(&mut self) -> bool {
        let mut all = true;
        for target in &mut self.targets {
            while let Some(element) = target.pending.pop_front() {
                if let Err(element) = target.sender.try_send(element) {
                    target.pending.push_front(element);
                    all = false;
                    break;
                }
            }
        }
        all
    }
}

impl Target {
    fn append(&mut self, batch: Batch) {
        if self.buffer.is_empty() && batch.len() >= BATCH_RECORDS / 2 {
            self.ready(batch);
        } else {
            self.buffer.append(batch);
            self.send_if_full();
        }
    }

    fn send_if_full(&mut self) {
        if self.buffer.len() >= BATCH_RECORDS || self.buffer.bytes() >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            let batch = std::mem::take(&mut self.buffer);
            self.ready(batch);
        }
    }

    /// Makes a batch ready to be sent.
    fn ready(&mut self, mut batch: Batch) {
        let element = match &mut self.grouper {
            Some(grouper) if !batch.keys.is_none() => {
                grouper.group(&mut batch);
                Element::Grouped(batch)
            }
            _ => Element::Batch(batch),
        };
        self.pending.push_back(element);
    }
}
