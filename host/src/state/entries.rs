//! The entries of one key group: maps, lists, and values that do not travel with each call.
//!
//! A slot of the key group's table links to the entries of its key.
//! Each entry carries the stamp of its last write.
//! The first write to an entry that belongs to the sweep in progress saves the old one, as in the table (design notes
//! 0003 and 0007).

use super::mark::{Mark, Stamp};
use super::ordered::{Entry, Ordered};
use super::rows::{NEVER, REMOVED};

/// Numbers of entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries that have a value, expired or not.
    pub live: usize,
    /// Removals that a later increment still has to record.
    pub removed: usize,
}

/// The entries of one state of one key.
#[derive(Debug)]
struct StateEntries {
    state: u16,
    /// Index of the next list item.
    next: u64,
    /// True if an entry may expire.
    expiring: bool,
    entries: Ordered,
}

/// All entries of one key.
#[derive(Debug, Default)]
struct KeyEntries {
    states: Vec<StateEntries>,
    /// Stamp of the last write to any of them.
    stamp: Stamp,
    counts: Counts,
    /// True if the present call has written to them.
    touched: bool,
}

/// An entry as it was at the mark.
#[derive(Debug)]
pub struct Saved {
    /// Key of the state.
    pub key: Box<[u8]>,
    /// Number of the state.
    pub state: u16,
    /// The entry.
    pub entry: Entry,
}

/// The address of one state of one key.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// Index of the key's entries in the group.
    pub entries: u32,
    /// The key.
    pub key: &'a [u8],
    /// Number of the state.
    pub state: u16,
}

/// A value to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewValue<'a> {
    /// Encoded value.
    pub value: &'a [u8],
    /// Number of its schema.
    pub schema: u16,
    /// Time of expiry, or `NEVER`.
    pub expires: i64,
}

/// Parameters of cleaning.
#[derive(Debug, Clone, Copy)]
pub struct Cleaning {
    /// Values that expire at or before this time are dropped.
    pub now: i64,
    /// Removals with a lesser stamp are no longer needed.
    pub settled: Stamp,
    /// The marks.
    pub mark: Mark,
}

impl Cleaning {
    /// Returns true if the expiry of a value with this stamp must be remembered as a removal.
    ///
    /// It need not be if every base has this very value, since the value expires there by itself.
    #[must_use]
    pub const fn remembers(&self, stamp: Stamp) -> bool {
        self.mark.remembers(stamp) && stamp >= self.settled
    }
}

/// The entries of one key group.
#[derive(Debug, Default)]
pub struct Group {
    keys: Vec<KeyEntries>,
    free: Vec<u32>,
    saved: Vec<Saved>,
    /// Totals of all keys.
    counts: Counts,
    /// Approximate memory of all entries, in bytes.
    bytes: usize,
}

/// Approximate memory of a key's entries, without the entries themselves, in bytes.
pub(super) const KEY_BYTES: usize = 160;
/// Approximate memory of an entry without its key and value, in bytes.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>() + 32;

fn weight(entry: &Entry) -> usize {
    entry.key.len() + entry.value.len() + ENTRY_BYTES
}

impl Group {
    /// Returns the numbers of entries in the group.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the numbers of entries of a key.
    #[must_use]
    pub fn counts_of(&self, entries: u32) -> Counts {
        self.keys[entries as usize].counts
    }

    /// Returns the approximate memory of the group, in bytes, without what is saved for a sweep.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes + self.keys.len() * KEY_BYTES
    }

    /// Allocates an index for the entries of another key.
    pub fn add(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.keys.push(KeyEntries::default());
            (self.keys.len() - 1) as u32
        })
    }

    /// Frees the index of a key that has no entries left.
    pub fn release(&mut self, entries: u32) {
        self.keys[entries as usize] = KeyEntries::default();
        self.free.push(entries);
    }

    /// Flags a key as written by the present call. Returns true if it was not flagged before.
    pub fn touch(&mut self, entries: u32) -> bool {
        !std::mem::replace(&mut self.keys[entries as usize].touched, true)
    }

    /// Clears the flag of [`Group::touch`], at the end of a call.
    pub fn untouch(&mut self, entries: u32) {
        self.keys[entries as usize].touched = false;
    }

    fn count(&mut self, entries: u32, live: isize, removed: isize) {
        for counts in [&mut self.counts, &mut self.keys[entries as usize].counts] {
            counts.live = counts.live.wrapping_add_signed(live);
            counts.removed = counts.removed.wrapping_add_signed(removed);
        }
    }

    /// Writes an entry.
    pub fn put(&mut self, at: At<'_>, entry_key: &[u8], new: NewValue<'_>, mark: Mark) {
        let key = &mut self.keys[at.entries as usize];
        key.stamp = mark.now + 1;
        let state = key.state(at.state);
        state.expiring |= new.expires != NEVER;
        let (live, removed) = match state.entries.get_mut(entry_key) {
            Some(entry) => {
                let was_removed = entry.schema == REMOVED;
                if mark.saves(entry.stamp) {
                    self.saved.push(saved(at, entry.clone()));
                }
                entry.stamp = mark.rewritten(entry.stamp);
                self.bytes = self.bytes - entry.value.len() + new.value.len();
                (entry.value, entry.schema, entry.expires) = (new.value.into(), new.schema, new.expires);
                (isize::from(was_removed), -isize::from(was_removed))
            }
            None => {
                let entry = Entry {
                    key: entry_key.into(),
                    value: new.value.into(),
                    expires: new.expires,
                    stamp: mark.now,
                    schema: new.schema,
                };
                self.bytes += weight(&entry);
                state.entries.insert(entry);
                (1, 0)
            }
        };
        self.count(at.entries, live, removed);
    }

    /// Appends an item to a list.
    pub fn append(&mut self, at: At<'_>, new: NewValue<'_>, mark: Mark) {
        let state = self.keys[at.entries as usize].state(at.state);
        let index = state.next;
        state.next += 1;
        self.put(at, &index.to_be_bytes(), new, mark);
    }

    /// Removes an entry.
    pub fn remove(&mut self, at: At<'_>, entry_key: &[u8], mark: Mark) {
        let key = &mut self.keys[at.entries as usize];
        let Some(state) = key.states.iter_mut().find(|state| state.state == at.state) else {
            return;
        };
        let Some(entry) = state.entries.get_mut(entry_key).filter(|entry| entry.schema != REMOVED) else {
            return;
        };
        key.stamp = mark.now + 1;
        if mark.saves(entry.stamp) {
            self.saved.push(saved(at, entry.clone()));
        }
        let remembered = mark.remembers(entry.stamp);
        if remembered {
            self.bytes -= entry.value.len();
            forget_value(entry);
            entry.stamp = mark.rewritten(entry.stamp);
        } else {
            self.bytes -= weight(entry);
            state.entries.remove(entry_key);
        }
        key.states.retain(|state| !state.entries.is_empty());
        self.count(at.entries, -1, isize::from(remembered));
    }

    /// Takes out an entry that is stored elsewhere from now on, without remembering a removal.
    pub fn take(&mut self, at: At<'_>, entry_key: &[u8], mark: Mark) -> Option<Entry> {
        let key = &mut self.keys[at.entries as usize];
        let state = key.states.iter_mut().find(|state| state.state == at.state)?;
        let entry = state.entries.remove(entry_key)?;
        self.bytes -= weight(&entry);
        if mark.saves(entry.stamp) {
            self.saved.push(saved(at, entry.clone()));
        }
        key.states.retain(|state| !state.entries.is_empty());
        let removed = isize::from(entry.schema == REMOVED);
        self.count(at.entries, removed - 1, -removed);
        Some(entry)
    }

    /// Removes all entries of a state.
    pub fn clear(&mut self, at: At<'_>, mark: Mark) {
        let key = &mut self.keys[at.entries as usize];
        let Some(state) = key.states.iter_mut().find(|state| state.state == at.state) else {
            return;
        };
        key.stamp = mark.now + 1;
        state.next = 0;
        let (mut live, mut removed) = (0, 0);
        let (save, bytes) = (&mut self.saved, &mut self.bytes);
        state.entries.retain(|entry| {
            if entry.schema == REMOVED {
                return true;
            }
            live -= 1;
            if mark.saves(entry.stamp) {
                save.push(saved(at, entry.clone()));
            }
            let remembered = mark.remembers(entry.stamp);
            *bytes -= if remembered { entry.value.len() } else { weight(entry) };
            if remembered {
                removed += 1;
                forget_value(entry);
                entry.stamp = mark.rewritten(entry.stamp);
            }
            remembered
        });
        key.states.retain(|state| !state.entries.is_empty());
        self.count(at.entries, live, removed);
    }

    /// Sets the next index of a list to follow its last item, after items have been loaded.
    pub fn settle_list(&mut self, at: At<'_>) {
        let key = &mut self.keys[at.entries as usize];
        if let Some(state) = key.states.iter_mut().find(|state| state.state == at.state) {
            let last = state.entries.iter().next_back();
            let index = last.and_then(|entry| Some(u64::from_be_bytes(*entry.key.first_chunk()?)));
            state.next = index.map_or(0, |index| index + 1);
        }
    }

    /// Returns the entries of a state of a key.
    #[must_use]
    pub fn entries(&self, entries: u32, state: u16) -> Option<&Ordered> {
        self.state_of(entries, state).map(|state| &state.entries)
    }

    /// Returns true if entries of a state of a key may expire.
    #[must_use]
    pub fn is_expiring(&self, entries: u32, state: u16) -> bool {
        self.state_of(entries, state).is_some_and(|state| state.expiring)
    }

    fn state_of(&self, entries: u32, state: u16) -> Option<&StateEntries> {
        self.keys[entries as usize].states.iter().find(|s| s.state == state)
    }

    /// Returns true if a key has an entry that has not expired at `now`.
    #[must_use]
    pub fn is_live(&self, entries: u32, now: i64) -> bool {
        let states = &self.keys[entries as usize].states;
        states
            .iter()
            .any(|state| state.entries.iter().any(|entry| entry.is_live(now)))
    }

    /// Calls `each` with the state and the entry, for all entries of a key that belong to the sweep.
    pub fn sweep(&self, entries: u32, mark: Mark, mut each: impl FnMut(u16, &Entry)) {
        let key = &self.keys[entries as usize];
        if key.stamp < mark.from {
            return;
        }
        for state in &key.states {
            for entry in state.entries.iter().filter(|entry| mark.saves(entry.stamp)) {
                each(state.state, entry);
            }
        }
    }

    /// Returns the entries saved for the sweep, and forgets them.
    pub fn take_saved(&mut self) -> Vec<Saved> {
        std::mem::take(&mut self.saved)
    }

    /// Drops expired entries of a key and removals that are no longer needed.
    ///
    /// Also gives a time of expiry to entries without one if their state has a time to live; `ttl` returns it, in
    /// milliseconds, by the state's number.
    /// Returns the number of entries that were examined.
    pub fn clean(&mut self, at: u32, key_bytes: &[u8], how: &Cleaning, ttl: impl Fn(u16) -> Option<i64>) -> usize {
        let key = &mut self.keys[at as usize];
        let looks = |state: &StateEntries| state.expiring || ttl(state.state).is_some();
        if key.counts.removed == 0 && !key.states.iter().any(looks) {
            return 1;
        }
        let (mut live, mut removed, mut looked) = (0, 0, 0);
        let (save, bytes) = (&mut self.saved, &mut self.bytes);
        for state in &mut key.states {
            let (number, ttl) = (state.state, ttl(state.state));
            let place = At {
                entries: at,
                key: key_bytes,
                state: number,
            };
            let expiring = &mut state.expiring;
            state.entries.retain(|entry| {
                looked += 1;
                if entry.schema == REMOVED {
                    let kept = entry.stamp >= how.settled;
                    removed -= isize::from(!kept);
                    *bytes -= if kept { 0 } else { weight(entry) };
                    return kept;
                }
                if entry.expires <= how.now {
                    // The sweep would leave the value out, but hands out the removal, by the old stamp.
                    let remembered = how.remembers(entry.stamp);
                    *bytes -= if remembered { entry.value.len() } else { weight(entry) };
                    forget_value(entry);
                    live -= 1;
                    removed += isize::from(remembered);
                    return remembered;
                }
                if let (NEVER, Some(ttl)) = (entry.expires, ttl) {
                    if how.mark.saves(entry.stamp) {
                        save.push(saved(place, entry.clone()));
                    }
                    entry.stamp = how.mark.rewritten(entry.stamp);
                    entry.expires = how.now.saturating_add(ttl);
                    *expiring = true;
                    key.stamp = how.mark.now + 1;
                }
                true
            });
        }
        key.states.retain(|state| !state.entries.is_empty());
        self.count(at, live, removed);
        looked
    }
}

impl KeyEntries {
    fn state(&mut self, state: u16) -> &mut StateEntries {
        let at = self.states.iter().position(|s| s.state == state).unwrap_or_else(|| {
            self.states.push(StateEntries {
                state,
                next: 0,
                expiring: false,
                entries: Ordered::default(),
            });
            self.states.len() - 1
        });
        &mut self.states[at]
    }
}

fn saved(at: At<'_>, entry: Entry) -> Saved {
    Saved {
        key: at.key.into(),
        state: at.state,
        entry,
    }
}

fn forget_value(entry: &mut Entry) {
    entry.value = Box::default();
    entry.schema = REMOVED;
    entry.expires = NEVER;
}
