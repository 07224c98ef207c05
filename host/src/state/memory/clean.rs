//! Removes values that have expired, and removals that every base has recorded.
//!
//! This happens when a key group is swept, and otherwise a little with each call, in proportion to its keys.
//! A key is always examined as a whole; if that exceeds the budget, following calls do less.

use super::super::blob::{LINK, items, link_in, push_removal, push_value};
use super::super::entries::{Cleaning, Counts};
use super::super::mark::Stamp;
use super::super::rows::{NEVER, REMOVED};
use super::MemoryBackend;

/// Number of slots that a call without keys still examines.
const LEAST: i64 = 8;
/// Number of calls after which removals are counted again.
const COUNT_CALLS: u32 = 64;
/// Number of removals that are remembered beyond the number of live items.
const REMOVALS_MIN: usize = 4096;

impl MemoryBackend {
    /// Returns the stamp below which no base and no sweep needs a removal.
    fn settled(&self) -> Stamp {
        let sweep = self.snapshot.as_ref().filter(|sweep| sweep.increment);
        self.marks.settled().min(sweep.map_or(Stamp::MAX, |sweep| sweep.from))
    }

    fn cleaning(&self, table: usize) -> Cleaning {
        Cleaning {
            now: self.now,
            settled: self.settled(),
            mark: self.mark(table),
        }
    }

    /// Returns the numbers of live items and of removals, of all kinds.
    pub(super) fn counts(&self) -> Counts {
        let (entries, timers) = (self.shared.read().counts(), self.timers.counts());
        Counts {
            live: self.keys + entries.live + timers.live,
            removed: self.removed + entries.removed + timers.removed,
        }
    }

    /// Cleans a little, after a call with `keys` keys.
    pub(super) fn clean_some(&mut self, keys: usize) {
        self.cleaner.calls += 1;
        if self.cleaner.calls >= COUNT_CALLS {
            self.cleaner.calls = 0;
            let counts = self.counts();
            // An increment would be larger than a full snapshot, so give up these rounds as bases.
            if counts.removed > counts.live + REMOVALS_MIN {
                self.marks.forget();
            }
            self.cleaner.forgotten = counts.removed > 0 && !self.marks.keep();
        }
        if !self.cleaner.expiring && !self.cleaner.forgotten {
            return;
        }
        let credit = LEAST + 2 * keys as i64;
        self.cleaner.credit = (self.cleaner.credit + credit).min(credit);
        while self.cleaner.credit > 0 {
            self.clean_next();
        }
    }

    fn clean_next(&mut self) {
        let (table, slot) = (self.cleaner.table, self.cleaner.slot);
        if (slot as usize) < self.tables[table].slots() {
            let (looked, gone) = self.clean_slot(table, slot);
            self.cleaner.credit -= looked as i64;
            // If the entry is gone, another one may have moved into its slot.
            self.cleaner.slot += u32::from(!gone);
        } else {
            let settled = self.settled();
            self.timers.clean(table, settled);
            self.cleaner.credit -= 1;
            self.cleaner.slot = 0;
            self.cleaner.table = (table + 1) % self.tables.len();
        }
    }

    /// Cleans a key group that has just been swept.
    pub(super) fn clean_table(&mut self, table: usize) {
        let settled = self.settled();
        self.timers.clean(table, settled);
        let removed = self.removed + self.shared.read().groups[table].counts().removed;
        if !self.cleaner.expiring && removed == 0 {
            return;
        }
        let mut slot = 0;
        while (slot as usize) < self.tables[table].slots() {
            let (_, gone) = self.clean_slot(table, slot);
            slot += u32::from(!gone);
        }
    }

    /// Cleans one slot and the entries of its key.
    ///
    /// Returns the number of items examined, and true if the slot's entry is gone.
    fn clean_slot(&mut self, table: usize, slot: u32) -> (usize, bool) {
        let how = self.cleaning(table);
        let Some((hash, key, old, stamp)) = self.tables[table].entry(slot) else {
            return (1, false);
        };
        let link = link_in(old);
        let (mut blob, mut changed, mut written) = (std::mem::take(&mut self.blob), false, false);
        blob.clear();
        for item in items(old) {
            let ttl = if item.state == LINK || item.schema == REMOVED {
                None
            } else {
                self.bound.iter().find(|bound| bound.number == item.state)
            };
            if item.state != LINK && item.schema == REMOVED && stamp < how.settled {
                changed = true;
            } else if item.state != LINK && item.schema != REMOVED && item.expires <= how.now {
                changed = true;
                if how.remembers(stamp) {
                    push_removal(&mut blob, item.state);
                }
            } else if let Some(bound) = ttl.filter(|bound| bound.ttl_ms.is_some() && item.expires == NEVER) {
                written = true;
                push_value(&mut blob, item.state, item.schema, bound.expires(how.now), item.value);
            } else {
                blob.extend_from_slice(item.raw);
            }
        }
        let mut looked = 1;
        let key: Box<[u8]> = if changed || written || link.is_some() {
            key.into()
        } else {
            Box::default()
        };
        let gone = blob.is_empty();
        if changed || written {
            self.count(table, slot, &blob);
            let table = &mut self.tables[table];
            match (gone, written) {
                (true, _) => table.remove(slot, how.mark),
                (_, true) => table.update(slot, &blob, how.mark),
                // The blob means the same, or its old stamp records the change.
                (_, false) => table.rewrite(slot, &blob),
            }
        }
        self.blob = blob;
        if let Some(entries) = link {
            looked += self.clean_entries(table, hash, &key, entries);
        }
        (
            looked,
            gone || self.tables[table].find(hash, &key) != Some(slot) && link.is_some(),
        )
    }

    fn clean_entries(&mut self, table: usize, hash: u32, key: &[u8], entries: u32) -> usize {
        let how = self.cleaning(table);
        let bound = &self.bound;
        let ttl = |state: u16| {
            let bound = bound.iter().find(|bound| bound.number == state)?;
            i64::try_from(bound.ttl_ms?).ok()
        };
        let shared = self.shared.clone();
        let mut store = shared.write();
        let before = store.groups[table].counts_of(entries);
        let looked = store.groups[table].clean(entries, key, &how, ttl);
        let after = store.groups[table].counts_of(entries);
        drop(store);
        if (before.live > 0) != (after.live > 0) || after == Counts::default() {
            self.link(table, hash, key, entries);
        }
        looked
    }
}
