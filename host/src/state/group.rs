//! Groups a batch by key, so that a guest gets each distinct key, and its state, once per call.

use regraft_model::batch::{Batch, BytesColumn, Keys};

use super::short::{HEAD, gather, head};

/// Finds the distinct keys of batches; keeps its tables from one batch to the next.
#[derive(Debug, Default)]
pub struct Grouper {
    /// Open-addressing table of distinct keys: hash, and position from 1. Position 0 is a free slot.
    table: Vec<(u32, u32)>,
    /// Beginning and length of each distinct key.
    heads: Vec<(u128, usize)>,
    /// Entry of the first appearance of each distinct key.
    firsts: Vec<u32>,
    /// Position of the distinct key for each entry of the batch's key column.
    distinct_of: Vec<u32>,
}

impl Grouper {
    /// Rewrites a batch's keys so that the column has each key once, in order of first appearance, and every record an
    /// index into it.
    ///
    /// Computes the hashes if they are missing.
    pub fn group(&mut self, batch: &mut Batch) {
        batch.keys.ensure_hashes();
        self.find_distinct(&batch.keys);
        let keys = &mut batch.keys;
        if keys.index.is_empty() {
            keys.index.clone_from(&self.distinct_of);
        } else {
            for entry in &mut keys.index {
                *entry = self.distinct_of[*entry as usize];
            }
        }
        if self.firsts.len() < keys.column.len() {
            let mut column = BytesColumn::default();
            gather(&mut column, &keys.column, &self.firsts);
            keys.column = column;
            keys.hashes = self.firsts.iter().map(|entry| keys.hashes[*entry as usize]).collect();
        }
    }

    fn find_distinct(&mut self, keys: &Keys) {
        let entries = keys.column.len();
        // At most three quarters full, and mostly far less, since keys repeat.
        let mask = (entries * 4 / 3 + 1).next_power_of_two().max(16) - 1;
        self.table.clear();
        self.table.resize(mask + 1, (0, 0));
        self.heads.clear();
        self.firsts.clear();
        self.distinct_of.clear();
        self.distinct_of.reserve(entries);
        let mut start = 0;
        for (entry, (&hash, &end)) in keys.hashes.iter().zip(&keys.column.ends).enumerate() {
            let range = start..end as usize;
            start = range.end;
            let own = (head(&keys.column.data, &range), range.len());
            let mut at = (hash.wrapping_mul(0x9e37_79b1) >> 4) as usize & mask;
            let position = loop {
                let (known, next) = self.table[at];
                if next == 0 {
                    let position = self.firsts.len() as u32;
                    self.table[at] = (hash, position + 1);
                    self.heads.push(own);
                    self.firsts.push(entry as u32);
                    break position;
                }
                let position = next - 1;
                if known == hash
                    && self.heads[position as usize] == own
                    && (own.1 <= HEAD
                        || keys.column.get(self.firsts[position as usize] as usize) == &keys.column.data[range.clone()])
                {
                    break position;
                }
                at = (at + 1) & mask;
            };
            self.distinct_of.push(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn grouping_keeps_every_records_key(
            // Also longer ones than a head, which are equal or not behind it.
            keys in prop::collection::vec("(a{15}|)[ab]{0,3}", 1..60), twice: bool,
        ) {
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
