//! The entries of one map or list of one key, as short runs sorted by entry key.
//!
//! Most maps have few entries and are one run.
//! In a large map an operation costs a search among the runs, and a write moves at most a run's entries.

use super::mark::Stamp;
use super::rows::REMOVED;

/// Maximum number of entries in a run.
const RUN: usize = 64;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key; empty for a plain value.
    pub key: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
    /// Time of expiry, or `NEVER`.
    pub expires: i64,
    /// Stamp of the last write.
    pub stamp: Stamp,
    /// Number of the value's schema; 0 for a removal that a later increment still has to record.
    pub schema: u16,
}

impl Entry {
    /// Returns true if this is a value that has not expired at `now`.
    #[must_use]
    pub const fn is_live(&self, now: i64) -> bool {
        self.schema != REMOVED && self.expires > now
    }
}

/// Entries in order of their keys, which are distinct.
#[derive(Debug, Default)]
pub struct Ordered {
    /// Sorted runs, none of which is empty.
    runs: Vec<Vec<Entry>>,
}

impl Ordered {
    /// Returns true if there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns the run of a key and its position in the run, or as an error those where it would be inserted.
    fn find(&self, key: &[u8]) -> Result<(usize, usize), (usize, usize)> {
        let first = |run: &Vec<Entry>| run.first().is_some_and(|entry| *entry.key <= *key);
        let at = self.runs.partition_point(first).saturating_sub(1);
        let Some(run) = self.runs.get(at) else {
            return Err((0, 0));
        };
        match run.binary_search_by(|entry| (*entry.key).cmp(key)) {
            Ok(position) => Ok((at, position)),
            Err(position) => Err((at, position)),
        }
    }

    /// Returns the entry of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        let (run, at) = self.find(key).ok()?;
        Some(&self.runs[run][at])
    }

    /// Returns the entry of a key for changes. The caller must not change its key.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let (run, at) = self.find(key).ok()?;
        Some(&mut self.runs[run][at])
    }

    /// Inserts an entry. Returns the entry with the same key that it replaced, if any.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        let (at, position) = match self.find(&entry.key) {
            Ok((run, at)) => return Some(std::mem::replace(&mut self.runs[run][at], entry)),
            Err(place) => place,
        };
        let last = at + 1 == self.runs.len();
        match self.runs.get_mut(at) {
            None => self.runs.push(vec![entry]),
            Some(run) if run.len() < RUN => run.insert(position, entry),
            // Appending, as lists do, leaves full runs full.
            Some(run) if last && position == run.len() => self.runs.push(vec![entry]),
            Some(run) => {
                let mut upper = run.split_off(RUN / 2);
                if position <= RUN / 2 {
                    run.insert(position, entry);
                } else {
                    upper.insert(position - RUN / 2, entry);
                }
                self.runs.insert(at + 1, upper);
            }
        }
        None
    }

    /// Removes and returns the entry of a key.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let (run, at) = self.find(key).ok()?;
        let entry = self.runs[run].remove(at);
        self.merge(run);
        Some(entry)
    }

    /// Merges a run that has become short with its successor.
    fn merge(&mut self, at: usize) {
        if self.runs[at].is_empty() {
            self.runs.remove(at);
        } else if let Some(next) = self.runs.get(at + 1)
            && self.runs[at].len() + next.len() <= RUN / 2
        {
            let next = self.runs.remove(at + 1);
            self.runs[at].extend(next);
        }
    }

    /// Iterates over all entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.runs.iter().flatten()
    }

    /// Iterates over the entries from `key` on, inclusive.
    pub fn from<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let (run, at) = self.find(key).unwrap_or_else(|place| place);
        self.tail(run, at)
    }

    /// Iterates over the entries after `key`, exclusive.
    pub fn after<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let (run, at) = match self.find(key) {
            Ok((run, at)) => (run, at + 1),
            Err(place) => place,
        };
        self.tail(run, at)
    }

    fn tail(&self, run: usize, at: usize) -> impl Iterator<Item = &Entry> {
        let first = self.runs.get(run).map_or(&[][..], |run| &run[at..]);
        let rest = self.runs.get(run + 1..).unwrap_or_default();
        first.iter().chain(rest.iter().flatten())
    }

    /// Keeps the entries that `keep` accepts. `keep` may change all of an entry but its key.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Entry) -> bool) {
        for run in &mut self.runs {
            run.retain_mut(&mut keep);
        }
        self.runs.retain(|run| !run.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::rows::NEVER;
    use super::*;

    fn entry(key: u16, value: u8) -> Entry {
        Entry {
            key: key.to_be_bytes().into(),
            value: [value].into(),
            expires: NEVER,
            stamp: 2,
            schema: 1,
        }
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map(ops in prop::collection::vec((0u16..400, any::<u8>(), 0u8..4), 1..900), from in 0u16..400) {
            let (mut ordered, mut model) = (Ordered::default(), BTreeMap::new());
            for (key, value, op) in ops {
                if op == 0 {
                    let gone = ordered.remove(&key.to_be_bytes());
                    prop_assert_eq!(gone.map(|entry| entry.value[0]), model.remove(&key));
                } else {
                    let old = ordered.insert(entry(key, value));
                    prop_assert_eq!(old.map(|entry| entry.value[0]), model.insert(key, value));
                }
                prop_assert!(ordered.runs.iter().all(|run| !run.is_empty() && run.len() <= RUN));
            }
            let all = |entries: &mut dyn Iterator<Item = &Entry>| -> Vec<(u16, u8)> {
                entries.map(|entry| (u16::from_be_bytes([entry.key[0], entry.key[1]]), entry.value[0])).collect()
            };
            let expected = |first: u16| -> Vec<(u16, u8)> { model.range(first..).map(|(k, v)| (*k, *v)).collect() };
            prop_assert_eq!(all(&mut ordered.iter()), expected(0));
            prop_assert_eq!(all(&mut ordered.from(&from.to_be_bytes())), expected(from));
            prop_assert_eq!(all(&mut ordered.after(&from.to_be_bytes())), expected(from + 1));
            prop_assert_eq!(ordered.get(&from.to_be_bytes()).map(|entry| entry.value[0]), model.get(&from).copied());
            ordered.retain(|entry| entry.value[0] % 2 == 0);
            model.retain(|_, value| *value % 2 == 0);
            prop_assert_eq!(all(&mut ordered.iter()), model.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_growing_list_is_kept_in_full_runs(items in 1u16..600) {
            let mut ordered = Ordered::default();
            for i in 0..items {
                ordered.insert(entry(i, 0));
            }
            prop_assert_eq!(ordered.runs.len(), usize::from(items).div_ceil(RUN));
        }
    }
}
