//! Read access of instances to states that do not travel with a call, as of before the call.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use regraft_guest_runtime::state_access::{Entries, ReadError, StateAccess, Values};
use regraft_model::batch::BytesColumn;

use super::entries::{Counts, Group};
use super::ordered::{Entry, Ordered};
use super::short::push;

/// Link of a key that has no entries.
pub const NONE: u32 = u32::MAX;

/// All entries of a backend, and the links to those of the present call's keys.
#[derive(Debug, Default)]
pub struct Store {
    /// One group per key group, in order of the range.
    pub groups: Vec<Group>,
    /// For each key of the call the position of its key group and the index of its entries, or [`NONE`].
    pub links: Vec<(u32, u32)>,
    /// Time of the call, in milliseconds since the Unix epoch.
    pub now: i64,
}

impl Store {
    /// Returns the number of entries in all key groups.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let each = self.groups.iter().map(Group::counts);
        each.fold(Counts::default(), |sum, counts| Counts {
            live: sum.live + counts.live,
            removed: sum.removed + counts.removed,
        })
    }

    /// Returns the approximate memory of the entries in all key groups, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.groups.iter().map(Group::bytes).sum()
    }

    fn entries(&self, key: u32, state: u16) -> Result<Option<&Ordered>, String> {
        let (group, entries) = self.link(key)?;
        if entries == NONE {
            return Ok(None);
        }
        Ok(self.groups[group as usize].entries(entries, state))
    }

    fn link(&self, key: u32) -> Result<(u32, u32), String> {
        let link = self.links.get(key as usize).copied();
        link.ok_or_else(|| format!("key {key} of {} keys of the call", self.links.len()))
    }
}

/// The store, which the backend writes between calls and instances read during a call.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<RwLock<Store>>);

impl Shared {
    /// Locks the store for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the store for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The [`StateAccess`] handed to an instance.
#[derive(Debug)]
pub struct MemoryAccess {
    shared: Shared,
    /// Number of each declared state.
    numbers: Vec<u16>,
}

impl MemoryAccess {
    /// Makes the access of an operator that declares states with these numbers.
    #[must_use]
    pub const fn new(shared: Shared, numbers: Vec<u16>) -> Self {
        Self { shared, numbers }
    }

    fn number(&self, state: u32) -> Result<u16, String> {
        let number = self.numbers.get(state as usize).copied();
        number.ok_or_else(|| format!("state {state} of {} declared states", self.numbers.len()))
    }
}

/// Returns true if a column can take in so many more bytes.
const fn has_room(column: &BytesColumn, more: usize, bytes_max: usize) -> bool {
    column.data.len().saturating_add(more) <= bytes_max
}

fn push_value(values: &mut Values, entry: Option<&Entry>, bytes_max: usize) -> Result<(), ReadError> {
    let value = entry.map_or(&[][..], |entry| &*entry.value);
    if !has_room(&values.values, value.len(), bytes_max) {
        return Err(ReadError::TooLarge);
    }
    push(&mut values.values, value);
    values.present.push(entry.is_some().into());
    Ok(())
}

impl StateAccess for MemoryAccess {
    fn value_get_many(&self, state: u32, keys: &[u32], bytes_max: usize) -> Result<Values, ReadError> {
        let (number, store) = (self.number(state)?, self.shared.read());
        let mut values = Values::default();
        for &key in keys {
            let entry = store.entries(key, number)?.and_then(|entries| entries.get(&[]));
            push_value(&mut values, entry.filter(|entry| entry.is_live(store.now)), bytes_max)?;
        }
        Ok(values)
    }

    fn map_get_many(
        &self,
        state: u32,
        keys: &[u32],
        entry_keys: &BytesColumn,
        bytes_max: usize,
    ) -> Result<Values, ReadError> {
        let (number, store) = (self.number(state)?, self.shared.read());
        let mut values = Values::default();
        for (&key, entry_key) in keys.iter().zip(entry_keys.iter()) {
            let entry = store.entries(key, number)?.and_then(|entries| entries.get(entry_key));
            push_value(&mut values, entry.filter(|entry| entry.is_live(store.now)), bytes_max)?;
        }
        Ok(values)
    }

    fn map_scan(
        &self,
        state: u32,
        key: u32,
        after: Option<&[u8]>,
        limit_bytes: u32,
        bytes_max: usize,
    ) -> Result<Entries, ReadError> {
        let (number, store) = (self.number(state)?, self.shared.read());
        let mut found = Entries::default();
        let Some(entries) = store.entries(key, number)? else {
            return Ok(found);
        };
        let from: Box<dyn Iterator<Item = &Entry>> = match after {
            Some(after) => Box::new(entries.after(after)),
            None => Box::new(entries.iter()),
        };
        for entry in from.filter(|entry| entry.is_live(store.now)) {
            if !found.keys.is_empty() && found.keys.data.len() + found.values.data.len() >= limit_bytes as usize {
                found.more = true;
                break;
            }
            let room = bytes_max.saturating_sub(found.keys.data.len());
            if !has_room(&found.values, entry.value.len().saturating_add(entry.key.len()), room) {
                return Err(ReadError::TooLarge);
            }
            push(&mut found.keys, &entry.key);
            push(&mut found.values, &entry.value);
        }
        Ok(found)
    }

    fn list_scan(
        &self,
        state: u32,
        key: u32,
        first: u32,
        limit_bytes: u32,
        bytes_max: usize,
    ) -> Result<BytesColumn, ReadError> {
        let (number, store) = (self.number(state)?, self.shared.read());
        let mut found = BytesColumn::default();
        let Some(entries) = store.entries(key, number)? else {
            return Ok(found);
        };
        let (group, at) = store.link(key)?;
        // An index counts live items. If none can expire, that is the number under which an item is stored.
        let from: Box<dyn Iterator<Item = &Entry>> = if store.groups[group as usize].is_expiring(at, number) {
            let live = entries.iter().filter(|entry| entry.is_live(store.now));
            Box::new(live.skip(first as usize))
        } else {
            Box::new(entries.from(&u64::from(first).to_be_bytes()))
        };
        for entry in from.filter(|entry| entry.is_live(store.now)) {
            if !found.is_empty() && found.data.len() >= limit_bytes as usize {
                break;
            }
            if !has_room(&found, entry.value.len(), bytes_max) {
                return Err(ReadError::TooLarge);
            }
            push(&mut found, &entry.value);
        }
        Ok(found)
    }
}
