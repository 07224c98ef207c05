//! Batches of records, laid out as columns.
//!
//! Their layout is defined here and nowhere else.
//! A batch allocates nothing per record.
//! Keys are a column of their own with one index per record, so records with the same key share its bytes.
//! The key column carries the hash of each key once it has been computed.

use std::ops::Range;

use crate::key_group::hash32;
use crate::origin::Origin;
use crate::time::{EventTime, NO_TIMESTAMP};

/// A column of byte strings: the concatenated bytes, and the end offset of each item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BytesColumn {
    /// All items, concatenated.
    pub data: Vec<u8>,
    /// End offset of each item in `data`.
    pub ends: Vec<u32>,
}

impl BytesColumn {
    /// Returns the number of items.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns true if the column has no items.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the byte range of item `i` in `data`.
    ///
    /// # Panics
    /// Panics if `i` is not less than [`BytesColumn::len`].
    #[must_use]
    #[inline]
    pub fn range(&self, i: usize) -> Range<usize> {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        start..self.ends[i] as usize
    }

    /// Returns item `i`.
    ///
    /// # Panics
    /// Panics if `i` is not less than [`BytesColumn::len`].
    #[must_use]
    #[inline]
    pub fn get(&self, i: usize) -> &[u8] {
        &self.data[self.range(i)]
    }

    /// Appends an item.
    #[inline]
    pub fn push(&mut self, item: &[u8]) {
        self.data.extend_from_slice(item);
        self.ends.push(self.data.len() as u32);
    }

    /// Appends all items of `other`.
    pub fn extend(&mut self, other: &Self) {
        let base = self.data.len() as u32;
        self.data.extend_from_slice(&other.data);
        self.ends.extend(other.ends.iter().map(|end| base + end));
    }

    /// Removes all items and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
    }

    /// Iterates over the items in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Builds a column from data of outside the host, after checking it with [`check_ends`].
    ///
    /// # Errors
    /// Returns the message of [`check_ends`] if `ends` does not describe `data`.
    pub fn checked(data: Vec<u8>, ends: Vec<u32>) -> Result<Self, String> {
        check_ends(data.len(), &ends)?;
        Ok(Self { data, ends })
    }
}

/// Checks that end offsets never decrease and that the last one equals the length of the data.
///
/// # Errors
/// Returns a message that names the wrong entry, with the expected and the actual value.
pub fn check_ends(data_len: usize, ends: &[u32]) -> Result<(), String> {
    let mut previous = 0;
    let mut ordered = true;
    for &end in ends {
        ordered &= end >= previous;
        previous = end;
    }
    if !ordered {
        let at = ends.windows(2).position(|w| w[1] < w[0]).map_or(0, |i| i + 1);
        return Err(format!(
            "end offset {at} is {}, less than the one before it ({})",
            ends[at],
            ends[at - 1]
        ));
    }
    if previous as usize != data_len {
        return Err(format!(
            "the last end offset is {previous}, but there are {data_len} bytes of data"
        ));
    }
    Ok(())
}

/// The keys of a batch's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The keys, each one once if the batch has been grouped by key.
    pub column: BytesColumn,
    /// [`hash32`] of each key in `column`; empty if not computed yet.
    pub hashes: Vec<u32>,
    /// For each record the index of its key in `column`; empty if record `i` has key `i`.
    pub index: Vec<u32>,
}

impl Keys {
    /// Computes the hashes unless they are there already.
    pub fn ensure_hashes(&mut self) {
        if self.hashes.len() != self.column.len() {
            self.hashes.clear();
            self.hashes.extend(self.column.iter().map(hash32));
        }
    }

    /// Returns the index in `column` of the key of record `i`.
    #[must_use]
    #[inline]
    pub fn at(&self, i: usize) -> usize {
        if self.index.is_empty() {
            i
        } else {
            self.index[i] as usize
        }
    }

    /// Returns true if the records have no keys.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.column.is_empty()
    }
}

/// Records in order, as columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Keys of the records; empty if they have none.
    pub keys: Keys,
    /// Values of the records; its length is the number of records.
    pub values: BytesColumn,
    /// Event times of the records; empty if none of them has one.
    pub timestamps: Vec<EventTime>,
    /// Source positions of the records; `None` if no position is known.
    pub origin: Option<Origin>,
}

impl Batch {
    /// Returns the number of records.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns true if the batch has no records.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns the key of record `i`; empty if the records have no keys.
    #[must_use]
    pub fn key(&self, i: usize) -> &[u8] {
        if self.keys.is_none() {
            &[]
        } else {
            self.keys.column.get(self.keys.at(i))
        }
    }

    /// Returns the event time of record `i`; [`NO_TIMESTAMP`] if it has none.
    #[must_use]
    #[inline]
    pub fn timestamp(&self, i: usize) -> EventTime {
        if self.timestamps.is_empty() {
            NO_TIMESTAMP
        } else {
            self.timestamps[i]
        }
    }

    /// Returns the approximate size of the batch in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.column.data.len()
            + self.values.data.len()
            + 4 * (self.keys.column.ends.len()
                + self.keys.hashes.len()
                + self.keys.index.len()
                + self.values.ends.len())
            + 8 * self.timestamps.len()
            + self.origin.as_ref().map_or(0, Origin::bytes)
    }

    /// Appends the records of `other`.
    ///
    /// Either both batches have keys, or neither has.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let own = self.len();
        self.origin = Origin::joined(self.origin.take(), own, other.origin.as_ref(), other.len());
        if !self.timestamps.is_empty() || !other.timestamps.is_empty() {
            self.timestamps.resize(own, NO_TIMESTAMP);
            if other.timestamps.is_empty() {
                self.timestamps.resize(own + other.len(), NO_TIMESTAMP);
            } else {
                self.timestamps.extend_from_slice(&other.timestamps);
            }
        }
        let base = self.keys.column.len();
        if !self.keys.index.is_empty() || !other.keys.index.is_empty() {
            if self.keys.index.is_empty() {
                self.keys.index.extend(0..own as u32);
            }
            if other.keys.index.is_empty() {
                self.keys.index.extend((0..other.len()).map(|i| (base + i) as u32));
            } else {
                self.keys.index.extend(other.keys.index.iter().map(|i| base as u32 + i));
            }
        }
        if self.keys.hashes.len() == base && other.keys.hashes.len() == other.keys.column.len() {
            self.keys.hashes.extend_from_slice(&other.keys.hashes);
        } else {
            self.keys.hashes.clear();
        }
        self.keys.column.extend(&other.keys.column);
        self.values.extend(&other.values);
    }

    /// Copies the records in `range` into a new batch.
    ///
    /// Its key column has one entry per record, and nothing of records outside the range.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let mut part = Self::default();
        for i in range.clone() {
            part.values.push(self.values.get(i));
        }
        if !self.timestamps.is_empty() {
            part.timestamps.extend_from_slice(&self.timestamps[range.clone()]);
        }
        if !self.keys.is_none() {
            let hashed = self.keys.hashes.len() == self.keys.column.len();
            for i in range.clone() {
                let at = self.keys.at(i);
                part.keys.column.push(self.keys.column.get(at));
                if hashed {
                    part.keys.hashes.push(self.keys.hashes[at]);
                }
            }
        }
        part.origin = self.origin.as_ref().map(|origin| origin.slice(range));
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Record = (Vec<u8>, Vec<u8>, i64);

    fn batch(records: &[Record], indexed: bool) -> Batch {
        let mut batch = Batch::default();
        for (i, (key, value, time)) in records.iter().enumerate() {
            batch.keys.column.push(key);
            batch.values.push(value);
            batch.timestamps.push(*time);
            if indexed {
                batch.keys.index.push(i as u32);
            }
        }
        batch
    }

    fn records(batch: &Batch) -> Vec<Record> {
        (0..batch.len())
            .map(|i| (batch.key(i).to_vec(), batch.values.get(i).to_vec(), batch.timestamp(i)))
            .collect()
    }

    fn arb_records() -> impl Strategy<Value = Vec<Record>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..5);
        prop::collection::vec((bytes(), bytes(), any::<i64>()), 1..20)
    }

    proptest! {
        #[test]
        fn append_concatenates(a in arb_records(), b in arb_records(), ai: bool, bi: bool, hash_a: bool, hash_b: bool) {
            let (mut left, mut right) = (batch(&a, ai), batch(&b, bi));
            if hash_a { left.keys.ensure_hashes(); }
            if hash_b { right.keys.ensure_hashes(); }
            left.append(right);
            let expected: Vec<Record> = a.into_iter().chain(b).collect();
            prop_assert_eq!(records(&left), expected);
            left.keys.ensure_hashes();
            let hashes: Vec<u32> = left.keys.column.iter().map(hash32).collect();
            prop_assert_eq!(left.keys.hashes, hashes);
        }

        #[test]
        fn slice_takes_a_part(a in arb_records(), from in 0usize..20, len in 0usize..20, indexed: bool) {
            let from = from.min(a.len());
            let to = (from + len).min(a.len());
            prop_assert_eq!(records(&batch(&a, indexed).slice(from..to)), a[from..to].to_vec());
        }
    }

    #[test]
    fn lying_ends_are_told() {
        assert_eq!(check_ends(3, &[1, 3]), Ok(()));
        assert_eq!(
            check_ends(3, &[2, 1, 3]),
            Err("end offset 1 is 1, less than the one before it (2)".to_owned())
        );
        assert_eq!(
            check_ends(3, &[1, 9]),
            Err("the last end offset is 9, but there are 3 bytes of data".to_owned())
        );
        assert_eq!(
            check_ends(3, &[]),
            Err("the last end offset is 0, but there are 3 bytes of data".to_owned())
        );
    }
}
