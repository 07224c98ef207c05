//! Groups a batch by key, so that a guest gets each distinct key, and its state, once per call.

use regraft_model::batch::{Batch, Keys};

use super::short::{equal, push};

/// Finds the distinct keys of batches; keeps its tables from one batch to the next.
#[derive(Debug, Default)]
pub struct Grouper {
    /// Open-addressing table of distinct keys: hash, and position from 1. Position 0 is a free slot.
    table: Vec<(u32, u32)>,
    /// Position of the distinct key for each item of the batch's key column.
    distinct_of: Vec<u32>,
}

impl Grouper {
    /// Rewrites a batch's keys so that the column has each key once, in order of first appearance, and every record an
    /// index into it.
    ///
    /// Computes the hashes if they are missing.
    pub fn group(&mut self, batch: &mut Batch) {
        batch.keys.ensure_hashes();
        let keys = std::mem::take(&mut batch.keys);
        batch.keys = self.distinct(&keys, batch.values.len());
    }

    fn distinct(&mut self, keys: &Keys, records: usize) -> Keys {
        let entries = keys.column.len();
        // At most three quarters full, and mostly far less, since keys repeat.
        let mask = (entries * 4 / 3 + 1).next_power_of_two().max(16) - 1;
        self.table.clear();
        self.table.resize(mask + 1, (0, 0));
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
                let (known, next) = self.table[at];
                if next == 0 {
                    let position = out.hashes.len() as u32;
                    self.table[at] = (hash, position + 1);
                    push(&mut out.column, key);
                    out.hashes.push(hash);
                    break position;
                }
                if known == hash && equal(out.column.get(next as usize - 1), key) {
                    break next - 1;
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
