//! The bytes that the writes of a call would add. Asked only near a limit, so it may look up every write.

use regraft_guest_runtime::call::{ENTRY_APPEND, ENTRY_PUT, EntryWrites};
use regraft_model::batch::Keys;

use super::super::access::NONE;
use super::super::backend::{Cells, Writes};
use super::{MemoryBackend, NOWHERE, split};

/// Approximate memory of a new key or entry without its bytes.
const NEW_BYTES: u64 = 128;

impl MemoryBackend {
    /// Returns an upper bound of the bytes that the writes would add.
    pub(super) fn growth_of(&self, keys: &Keys, cells: &Cells, writes: &Writes<'_>) -> u64 {
        let (mut more, mut less) = (0u64, 0u64);
        for written in writes.cells {
            let old = cells.columns.iter().find(|column| column.state == written.state);
            let old = |key: u32| old.map_or(0, |column| column.values.range(key as usize).len() as u64);
            for &key in &written.keys {
                less += old(key);
                if split(cells.places[key as usize]).1 == NOWHERE {
                    more += keys.column.range(key as usize).len() as u64 + NEW_BYTES;
                }
            }
            more += written.values.data.len() as u64;
            less += written.cleared.iter().map(|key| old(*key)).sum::<u64>();
        }
        let entries = writes
            .entries
            .map_or(0, |entries| self.growth_of_entries(keys, entries));
        // A key of a call that has room for its entries is one already.
        more.saturating_sub(less) + entries + writes.timers.bytes_max(keys)
    }

    /// Adds up the growth of each entry. Shrinking entries are not subtracted: the same one may be written several times.
    fn growth_of_entries(&self, keys: &Keys, writes: &EntryWrites) -> u64 {
        let store = self.shared.read();
        let mut more = 0;
        for (i, &op) in writes.ops.iter().enumerate() {
            if op != ENTRY_PUT && op != ENTRY_APPEND {
                continue;
            }
            let (number, key) = (self.bound[writes.states[i] as usize].number, writes.keys[i]);
            let (table, link) = store.links[key as usize];
            let entry_key = if writes.entry_keys.is_empty() {
                &[][..]
            } else {
                writes.entry_keys.get(i)
            };
            let group = (link != NONE && op == ENTRY_PUT).then(|| &store.groups[table as usize]);
            let old = group
                .and_then(|group| group.entries(link, number))
                .and_then(|entries| entries.get(entry_key));
            let new = if writes.values.is_empty() {
                0
            } else {
                writes.values.range(i).len() as u64
            };
            more += match old {
                Some(entry) => new.saturating_sub(entry.value.len() as u64),
                None => {
                    let key = if link == NONE {
                        keys.column.range(key as usize).len()
                    } else {
                        0
                    };
                    new + (entry_key.len() + key) as u64 + NEW_BYTES
                }
            };
        }
        more
    }
}
