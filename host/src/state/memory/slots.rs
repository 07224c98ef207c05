//! The content of slots: values, counted as they come and go, and links to the entries of keys.

use super::super::access::NONE;
use super::super::blob::{LINK, copy_values, items, link_in, push_link, tally};
use super::super::rows::REMOVED;
use super::{MemoryBackend, NOWHERE, split};

impl MemoryBackend {
    /// Records the links to the entries of the call's keys, for [`MemoryAccess`](super::super::access::MemoryAccess).
    pub(super) fn link_call(&self, places: &[u64]) {
        let mut store = self.shared.write();
        store.now = self.now;
        store.links.clear();
        for &place in places {
            let (table, slot) = split(place);
            let link = (slot != NOWHERE)
                .then(|| link_in(self.tables[table].blob(slot)))
                .flatten();
            store.links.push((table as u32, link.unwrap_or(NONE)));
        }
    }

    /// Replaces the blob of a key and updates the counts. An empty blob removes the key.
    ///
    /// May move other entries unless the key has a slot and the blob is not empty.
    pub(super) fn replace(&mut self, table: usize, slot: u32, hash: u32, key: &[u8], blob: &[u8]) {
        let mark = self.mark(table);
        self.count(table, slot, blob);
        let table = &mut self.tables[table];
        match (slot, blob.is_empty()) {
            (NOWHERE, true) => {}
            (NOWHERE, false) => table.insert(hash, key, blob, mark.now),
            (_, true) => table.remove(slot, mark),
            (_, false) => table.update(slot, blob, mark),
        }
    }

    /// Updates the counts of keys and removals for the replacement of a slot's blob.
    pub(super) fn count(&mut self, table: usize, slot: u32, blob: &[u8]) {
        let old = if slot == NOWHERE {
            (false, 0)
        } else {
            tally(self.tables[table].blob(slot))
        };
        let new = tally(blob);
        self.keys = self.keys + usize::from(new.0) - usize::from(old.0);
        self.removed = self.removed + new.1 - old.1;
    }

    /// Updates the link from the slot of a key to its entries, or removes it if there are none.
    pub(super) fn link(&mut self, table: usize, hash: u32, key: &[u8], entries: u32) {
        let counts = self.shared.read().groups[table].counts_of(entries);
        let live = (counts.live + counts.removed > 0).then_some(counts.live > 0);
        let slot = self.tables[table].find(hash, key).unwrap_or(NOWHERE);
        let old = if slot == NOWHERE {
            &[][..]
        } else {
            self.tables[table].blob(slot)
        };
        let linked = items(old)
            .find(|item| item.state == LINK)
            .map(|item| item.schema != REMOVED);
        if live != linked || link_in(old).is_some_and(|old| old != entries) {
            let mut blob = vec![];
            copy_values(old, &mut blob, |state| state != LINK);
            if let Some(live) = live {
                push_link(&mut blob, entries, live);
            }
            self.count(table, slot, &blob);
            let mark = self.mark(table);
            let table = &mut self.tables[table];
            match (slot, blob.is_empty()) {
                (NOWHERE, true) => {}
                (NOWHERE, false) => table.insert(hash, key, &blob, mark.now),
                (_, true) => table.remove(slot, mark),
                // No value has changed, so the slot keeps its stamp.
                (_, false) => table.rewrite(slot, &blob),
            }
        }
        if live.is_none() {
            self.shared.write().groups[table].release(entries);
        }
    }
}
