//! The distinct keys of a batch: a guest is handed each key, and its state, once per call.

use regraft_model::batch::{Batch, Keys};

/// Finds distinct keys; keeps its tables from batch to batch.
#[derive(Debug, Default)]
pub struct Grouper {
    /// Open addressing: (stamp of the batch, position of the distinct key).
    table: Vec<(u32, u32)>,
    stamp: u32,
    /// Distinct position of each entry of the batch's key column.
    distinct_of: Vec<u32>,
}

impl Grouper {
    /// Rewrites a batch's keys: the column becomes distinct, in order of first appearance, and every record gets an
    /// index into it. Computes hashes where they are missing.
    pub fn group(&mut self, batch: &mut Batch) {
        batch.keys.ensure_hashes();
        let keys = std::mem::take(&mut batch.keys);
        batch.keys = self.distinct(&keys, batch.values.len());
    }

    fn distinct(&mut self, keys: &Keys, records: usize) -> Keys {
        let entries = keys.column.len();
        let size = (entries * 2).next_power_of_two().max(16);
        if self.table.len() < size {
            self.table.clear();
            self.table.resize(size, (0, 0));
            self.stamp = 0;
        }
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.table.fill((0, 0));
            self.stamp = 1;
        }
        let mask = self.table.len() - 1;
        let mut out = Keys::default();
        out.column.data.reserve(keys.column.data.len());
        out.column.ends.reserve(entries);
        out.hashes.reserve(entries);
        self.distinct_of.clear();
        self.distinct_of.reserve(entries);
        for entry in 0..entries {
            let (key, hash) = (keys.column.get(entry), keys.hashes[entry]);
            let mut at = (hash.wrapping_mul(0x9e37_79b1) >> 4) as usize & mask;
            let position = loop {
                let (stamp, position) = self.table[at];
                if stamp != self.stamp {
                    let position = out.hashes.len() as u32;
                    self.table[at] = (self.stamp, position);
                    out.column.push(key);
                    out.hashes.push(hash);
                    break position;
                }
                if out.hashes[position as usize] == hash && out.column.get(position as usize) == key {
                    break position;
                }
                at = (at + 1) & mask;
            };
            self.distinct_of.push(position);
        }
        if keys.index.is_empty() {
            out.index = std::mem::take(&mut self.distinct_of);
            debug_assert_eq!(out.index.len(), records);
        } else {
            out.index
                .extend(keys.index.iter().map(|entry| self.distinct_of[*entry as usize]));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn grouping_keeps_every_records_key(keys in prop::collection::vec("[ab]{0,3}", 1..60), twice: bool) {
            let mut batch = Batch::default();
            for key in &keys {
                batch.keys.column.push(key.as_bytes());
                batch.values.push(b"");
            }
            let mut grouper = Grouper::default();
            grouper.group(&mut batch);
            if twice {
                grouper.group(&mut batch);
            }
            for (i, key) in keys.iter().enumerate() {
                prop_assert_eq!(batch.key(i), key.as_bytes());
            }
            let distinct: std::collections::HashSet<&[u8]> = batch.keys.column.iter().collect();
            prop_assert_eq!(distinct.len(), batch.keys.column.len());
        }
    }
}
