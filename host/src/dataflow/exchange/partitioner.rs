//! Assigns records to subtasks, by key group, in turn or all to all. Batch sizes adapt: full under load, and sent at
//! once when the subtask has nothing else to do.

use std::collections::VecDeque;

use regraft_model::batch::{Batch, Keys};
use regraft_model::key_group::{KeyGroup, key_group, subtask_of};
use regraft_model::origin::Origin;
use regraft_model::time::NO_TIMESTAMP;

use super::super::element::Element;
use super::channel::Sender;
use crate::graph::job_graph::Partitioning;
use crate::state::group::Grouper;
use crate::state::short::gather;

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
    /// Target that owns each key group; empty where keys do not decide.
    target_of_group: Vec<u16>,
    /// Target of each entry of the key column; scratch space.
    target_of: Vec<u16>,
    /// Rows of a batch for each target; scratch space.
    rows: Vec<Vec<u32>>,
}

#[derive(Debug)]
struct Target {
    sender: Sender,
    buffer: Batch,
    pending: VecDeque<Element>,
    /// Groups batches of an edge by key. Done here rather than in the consumer, which has more to do than most
    /// producers.
    grouper: Option<Grouper>,
    /// Entries of the key column that records are taken with; scratch space.
    entries: Vec<u32>,
}

impl OutputEdge {
    /// Creates an edge. `targets` are the channels to the subtasks of the consumer, in order; a forward edge has only
    /// one.
    #[must_use]
    pub fn new(port: u32, by: Partitioning, max_parallelism: u32, subtask: u32, targets: Vec<Sender>) -> Self {
        let next = subtask as usize % targets.len().max(1);
        let parallelism = targets.len() as u32;
        let groups = if by == Partitioning::Key { max_parallelism } else { 0 };
        let owner = |group: u32| subtask_of(KeyGroup(group as u16), parallelism, max_parallelism) as u16;
        let rows = vec![vec![]; targets.len()];
        let target = |sender| Target {
            sender,
            buffer: Batch::default(),
            pending: VecDeque::new(),
            grouper: (by == Partitioning::Key).then(Grouper::default),
            entries: vec![],
        };
        Self {
            port,
            by,
            max_parallelism,
            targets: targets.into_iter().map(target).collect(),
            next,
            target_of_group: (0..groups).map(owner).collect(),
            target_of: vec![],
            rows,
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
                    self.scatter(batch);
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

    /// Appends each record to the buffer of the target that owns its key, one column after the other.
    fn scatter(&mut self, batch: Batch) {
        let max = self.max_parallelism;
        let target_of = |hash: u32| self.target_of_group[usize::from(key_group(hash, max).0)];
        for rows in &mut self.rows {
            rows.clear();
        }
        let Keys { hashes, index, .. } = &batch.keys;
        if index.is_empty() {
            for (row, hash) in hashes.iter().enumerate() {
                self.rows[usize::from(target_of(*hash))].push(row as u32);
            }
        } else {
            self.target_of.clear();
            self.target_of.extend(hashes.iter().map(|hash| target_of(*hash)));
            for (row, entry) in index.iter().enumerate() {
                self.rows[usize::from(self.target_of[*entry as usize])].push(row as u32);
            }
        }
        // All records may go to one target. Where they share keys, there may be keys of none of them, which must not go there.
        let all = |rows: &Vec<u32>| rows.len() == batch.len() && batch.keys.index.is_empty();
        if let Some(at) = self.rows.iter().position(all) {
            return self.targets[at].append(batch);
        }
        for (target, rows) in self.targets.iter_mut().zip(&self.rows) {
            if !rows.is_empty() {
                target.take(&batch, rows);
                target.send_if_full();
            }
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

    /// Appends some records of a batch to the buffer.
    fn take(&mut self, batch: &Batch, rows: &[u32]) {
        let buffer = &mut self.buffer;
        let own = buffer.len();
        let origin = batch.origin.as_ref().map(|origin| origin.select(rows));
        buffer.origin = Origin::joined(buffer.origin.take(), own, origin.as_ref(), rows.len());
        if !batch.timestamps.is_empty() {
            buffer.timestamps.resize(own, NO_TIMESTAMP);
            buffer
                .timestamps
                .extend(rows.iter().map(|row| batch.timestamps[*row as usize]));
        } else if !buffer.timestamps.is_empty() {
            buffer.timestamps.resize(own + rows.len(), NO_TIMESTAMP);
        }
        // One entry for each record: keys that repeat are found when the buffer is grouped.
        let Keys { column, hashes, index } = &mut buffer.keys;
        let entries = column.len();
        if !index.is_empty() {
            index.extend((entries..entries + rows.len()).map(|entry| entry as u32));
        }
        let of_entry = |entry: &u32| batch.keys.hashes[*entry as usize];
        if batch.keys.index.is_empty() {
            gather(column, &batch.keys.column, rows);
            hashes.extend(rows.iter().map(of_entry));
        } else {
            self.entries.clear();
            self.entries
                .extend(rows.iter().map(|row| batch.keys.index[*row as usize]));
            gather(column, &batch.keys.column, &self.entries);
            hashes.extend(self.entries.iter().map(of_entry));
        }
        gather(&mut buffer.values, &batch.values, rows);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use regraft_model::key_group::hash32;

    use super::super::channel::{Receiver, channel};
    use super::*;

    /// Key, value, event time and position of a record.
    type Record = (Vec<u8>, Vec<u8>, i64, Option<String>);

    fn records(batch: &Batch) -> Vec<Record> {
        let of = |i: usize| {
            let position = batch.origin.as_ref().and_then(|origin| origin.text(i as u32));
            (
                batch.key(i).to_vec(),
                batch.values.get(i).to_vec(),
                batch.timestamp(i),
                position,
            )
        };
        (0..batch.len()).map(of).collect()
    }

    fn receive(receiver: &Receiver, received: &mut Vec<Record>) {
        while let Some(element) = receiver.try_receive() {
            match element {
                Element::Grouped(batch) => {
                    let distinct: std::collections::HashSet<&[u8]> = batch.keys.column.iter().collect();
                    assert_eq!(distinct.len(), batch.keys.column.len());
                    received.extend(records(&batch));
                    // No key of another subtask, not even one without a record.
                    let mut used = batch.keys.index.clone();
                    used.sort_unstable();
                    used.dedup();
                    assert_eq!(used.len(), batch.keys.column.len());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// A batch of records with keys that are shared or not, of which some belong to no record.
    fn arb_batch() -> impl Strategy<Value = Batch> {
        let keys = prop::collection::vec("(a{16}|)[a-c]{0,2}", 1..5);
        let rows = prop::collection::vec((any::<prop::sample::Index>(), "[x-z]{0,40}", 0i64..9), 1..12);
        (keys, rows, any::<[bool; 3]>()).prop_map(|(keys, rows, [shared, timed, known])| {
            let mut batch = Batch::default();
            if shared {
                keys.iter().for_each(|key| batch.keys.column.push(key.as_bytes()));
            }
            for (key, value, time) in &rows {
                let key = key.index(keys.len());
                if shared {
                    batch.keys.index.push(key as u32);
                } else {
                    batch.keys.column.push(keys[key].as_bytes());
                }
                batch.values.push(value.as_bytes());
                if timed {
                    batch.timestamps.push(*time);
                }
            }
            batch.origin = known.then(|| Origin::sequence("in".into(), 7));
            batch
        })
    }

    proptest! {
        #[test]
        fn each_record_goes_to_the_owner_of_its_key_in_order(
            batches in prop::collection::vec(arb_batch(), 1..6), parallelism in 2u32..4, flush_at in 0usize..6,
        ) {
            let (senders, receivers): (Vec<_>, Vec<_>) =
                (0..parallelism).map(|_| channel(Arc::default(), Arc::default())).unzip();
            let mut edge = OutputEdge::new(0, Partitioning::Key, 128, 0, senders);
            let mut expected = vec![vec![]; parallelism as usize];
            for (i, batch) in batches.into_iter().enumerate() {
                for record in records(&batch) {
                    let owner = subtask_of(key_group(hash32(&record.0), 128), parallelism, 128);
                    expected[owner as usize].push(record);
                }
                edge.push(batch);
                if i == flush_at {
                    edge.flush();
                }
            }
            edge.flush();
            prop_assert!(edge.send());
            for (receiver, expected) in receivers.iter().zip(expected) {
                let mut received = vec![];
                receive(receiver, &mut received);
                prop_assert_eq!(received, expected);
            }
        }
    }
}
