//! The entries of one key group: maps, lists, and values that do not travel with each call.
//!
//! A slot of the key group's table leads to a key's entries. Each entry carries the stamp of its last write, and the first
//! write to one that belongs to the sweep under way saves the old one, as the table does (design notes 0003 and 0007).

use super::mark::{Mark, Stamp};
use super::ordered::{Entry, Ordered};
use super::rows::{NEVER, REMOVED};

/// How many entries there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// That have a value, expired or not.
    pub live: usize,
    /// Removals that some increment has still to tell.
    pub removed: usize,
}

/// The entries of one state of one key.
#[derive(Debug)]
struct StateEntries {
    state: u16,
    /// The index of the next list item.
    next: u64,
    /// Whether any entry may expire.
    expiring: bool,
    entries: Ordered,
}

/// All entries of one key.
#[derive(Debug, Default)]
struct KeyEntries {
    states: Vec<StateEntries>,
    /// Of the last write to any of them.
    stamp: Stamp,
    counts: Counts,
    /// Whether the present call has written to them.
    touched: bool,
}

/// An entry as it was at the mark.
#[derive(Debug)]
pub struct Saved {
    /// Its key.
    pub key: Box<[u8]>,
    /// The number of its state.
    pub state: u16,
    /// It.
    pub entry: Entry,
}

/// Which state of which key.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// Where the key's entries are.
    pub entries: u32,
    /// The key.
    pub key: &'a [u8],
    /// The number of the state.
    pub state: u16,
}

/// A value to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewValue<'a> {
    /// Encoded.
    pub value: &'a [u8],
    /// The number of its schema.
    pub schema: u16,
    /// When it expires, or `NEVER`.
    pub expires: i64,
}

/// What cleaning needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Cleaning {
    /// What expires until then goes.
    pub now: i64,
    /// Removals with a lesser stamp are not needed any more.
    pub settled: Stamp,
    /// The marks.
    pub mark: Mark,
}

impl Cleaning {
    /// Whether the removal of what has expired must be remembered. Where the bases have just this value, it expires there
    /// by itself.
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
    /// Of all keys.
    counts: Counts,
}

impl Group {
    /// How many entries there are.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// How many entries a key has.
    #[must_use]
    pub fn counts_of(&self, entries: u32) -> Counts {
        self.keys[entries as usize].counts
    }

    /// A place for the entries of one more key.
    pub fn add(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.keys.push(KeyEntries::default());
            (self.keys.len() - 1) as u32
        })
    }

    /// The key has no entries any more.
    pub fn release(&mut self, entries: u32) {
        self.keys[entries as usize] = KeyEntries::default();
        self.free.push(entries);
    }

    /// Whether the present call writes to this key for the first time.
    pub fn touch(&mut self, entries: u32) -> bool {
        !std::mem::replace(&mut self.keys[entries as usize].touched, true)
    }

    /// The present call is over.
    pub fn untouch(&mut self, entries: u32) {
        self.keys[entries as usize].touched = false;
    }

    fn count(&mut self, entries: u32, live: isize, removed: isize) {
        for counts in [&mut self.counts, &mut self.keys[entries as usize].counts] {
            counts.live = counts.live.wrapping_add_signed(live);
            counts.removed = counts.removed.wrapping_add_signed(removed);
        }
    }

    /// Writes one entry.
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
                (entry.value, entry.schema, entry.expires) = (new.value.into(), new.schema, new.expires);
                (isize::from(was_removed), -isize::from(was_removed))
            }
            None => {
                state.entries.insert(Entry {
                    key: entry_key.into(),
                    value: new.value.into(),
                    expires: new.expires,
                    stamp: mark.now,
                    schema: new.schema,
                });
                (1, 0)
            }
        };
        self.count(at.entries, live, removed);
    }

    /// Adds an item at the end of a list.
    pub fn append(&mut self, at: At<'_>, new: NewValue<'_>, mark: Mark) {
        let state = self.keys[at.entries as usize].state(at.state);
        let index = state.next;
        state.next += 1;
        self.put(at, &index.to_be_bytes(), new, mark);
    }

    /// Removes one entry.
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
            forget_value(entry);
            entry.stamp = mark.rewritten(entry.stamp);
        } else {
            state.entries.remove(entry_key);
        }
        key.states.retain(|state| !state.entries.is_empty());
        self.count(at.entries, -1, isize::from(remembered));
    }

    /// Takes an entry out without a trace: it goes on elsewhere.
    pub fn take(&mut self, at: At<'_>, entry_key: &[u8], mark: Mark) -> Option<Entry> {
        let key = &mut self.keys[at.entries as usize];
        let state = key.states.iter_mut().find(|state| state.state == at.state)?;
        let entry = state.entries.remove(entry_key)?;
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
        let save = &mut self.saved;
        state.entries.retain(|entry| {
            if entry.schema == REMOVED {
                return true;
            }
            live -= 1;
            if mark.saves(entry.stamp) {
                save.push(saved(at, entry.clone()));
            }
            let remembered = mark.remembers(entry.stamp);
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

    /// The list goes on behind its last item: to be called when items have been loaded.
    pub fn settle_list(&mut self, at: At<'_>) {
        let key = &mut self.keys[at.entries as usize];
        if let Some(state) = key.states.iter_mut().find(|state| state.state == at.state) {
            let last = state.entries.iter().next_back();
            let index = last.and_then(|entry| Some(u64::from_be_bytes(*entry.key.first_chunk()?)));
            state.next = index.map_or(0, |index| index + 1);
        }
    }

    /// The entries of a state of a key.
    #[must_use]
    pub fn entries(&self, entries: u32, state: u16) -> Option<&Ordered> {
        self.state_of(entries, state).map(|state| &state.entries)
    }

    /// Whether entries of a state of a key may expire.
    #[must_use]
    pub fn is_expiring(&self, entries: u32, state: u16) -> bool {
        self.state_of(entries, state).is_some_and(|state| state.expiring)
    }

    fn state_of(&self, entries: u32, state: u16) -> Option<&StateEntries> {
        self.keys[entries as usize].states.iter().find(|s| s.state == state)
    }

    /// Whether a key has any entry that has not expired.
    #[must_use]
    pub fn is_live(&self, entries: u32, now: i64) -> bool {
        let states = &self.keys[entries as usize].states;
        states
            .iter()
            .any(|state| state.entries.iter().any(|entry| entry.is_live(now)))
    }

    /// Calls `each` with the state and the entry of all of a key's entries that belong to the sweep.
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

    /// What was saved for the sweep; it is forgotten here.
    pub fn take_saved(&mut self) -> Vec<Saved> {
        std::mem::take(&mut self.saved)
    }

    /// Drops what has expired in a key's entries, and removals that nobody needs. Gives an expiry to what has none though
    /// its state has a time to live (`ttl`, by state). Answers how many entries were looked at.
    pub fn clean(&mut self, at: u32, key_bytes: &[u8], how: &Cleaning, ttl: impl Fn(u16) -> Option<i64>) -> usize {
        let key = &mut self.keys[at as usize];
        let looks = |state: &StateEntries| state.expiring || ttl(state.state).is_some();
        if key.counts.removed == 0 && !key.states.iter().any(looks) {
            return 1;
        }
        let (mut live, mut removed, mut looked) = (0, 0, 0);
        let save = &mut self.saved;
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
                    return kept;
                }
                if entry.expires <= how.now {
                    // The sweep would not hand it out; a removal it does, by its old stamp.
                    let remembered = how.remembers(entry.stamp);
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
