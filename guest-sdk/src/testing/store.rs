//! Keyed state at rest, as encoded bytes, and how a call reads it.

use crate::bytes::item;
use crate::native::{Cells, Entries, EntryWrites, Found, Keyed, Outcome, StateReads, Values};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A declared state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) kind: String,
    /// JSON of the values' type.
    pub(super) schema: String,
    /// JSON of a map's keys' type.
    pub(super) map_key: String,
    travels: bool,
    ttl_ms: Option<i64>,
}

impl Declared {
    pub(super) fn read(state: &Value) -> Self {
        let text = |key: &str| state[key].as_str().unwrap_or_default().to_owned();
        Declared {
            name: text("name"),
            kind: text("kind"),
            schema: state["schema"].to_string(),
            map_key: state["map_key"].to_string(),
            travels: state["travels"] == true,
            ttl_ms: state["ttl_ms"].as_i64(),
        }
    }
}

/// A value and when it expires, in milliseconds of processing time; `i64::MAX`: never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    expires: i64,
}

/// One state of one key. A plain value is the entry of the empty map key, an item that of its number.
pub(super) type Entry = BTreeMap<Vec<u8>, Stored>;

/// Keyed state at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) states: Vec<Declared>,
    pub(super) keys: BTreeMap<Vec<u8>, Vec<Entry>>,
    /// The processing time.
    pub(super) now: i64,
    /// The keys of the call.
    call: Vec<Vec<u8>>,
}

impl Store {
    pub(super) fn new(states: Vec<Declared>) -> Self {
        Store {
            states,
            keys: BTreeMap::new(),
            now: 0,
            call: Vec::new(),
        }
    }

    /// Returns the kept state, without the parts that belong to a call.
    pub(super) fn at_rest(&self) -> Self {
        Store {
            call: Vec::new(),
            ..self.clone()
        }
    }

    /// Begins a call with these keys.
    pub(super) fn begin(&mut self, keys: &[Vec<u8>]) -> Keyed {
        self.call = keys.to_vec();
        let mut keyed = Keyed {
            key_data: keys.concat(),
            key_ends: Vec::new(),
            cells: Vec::new(),
        };
        let mut end = 0;
        for key in keys {
            end += key.len() as u32;
            keyed.key_ends.push(end);
        }
        for state in (0..self.states.len()).filter(|state| self.states[*state].travels) {
            let mut found = NOTHING;
            for key in keys {
                push(self.value(state, key, b""), &mut found);
            }
            keyed.cells.push(Cells {
                state: state as u32,
                present: found.present,
                data: found.data,
                ends: found.ends,
            });
        }
        keyed
    }

    /// Keeps what a call has written.
    pub(super) fn apply(&mut self, outcome: &Outcome) {
        for writes in &outcome.cells {
            let state = writes.state as usize;
            for (at, key) in writes.keys.iter().enumerate() {
                let value = item(&writes.data, &writes.ends, at).to_vec();
                self.put(state, *key as usize, Vec::new(), value);
            }
            for key in &writes.cleared {
                self.entry(state, *key as usize).clear();
            }
        }
        if let Some(entries) = &outcome.entries {
            self.apply_entries(entries);
        }
        self.keys
            .retain(|_, states| states.iter().any(|state| !state.is_empty()));
    }

    fn apply_entries(&mut self, writes: &EntryWrites) {
        for (at, op) in writes.ops.iter().enumerate() {
            let (state, key) = (writes.states[at] as usize, writes.keys[at] as usize);
            let entry_key = item(&writes.entry_key_data, &writes.entry_key_ends, at).to_vec();
            let value = item(&writes.value_data, &writes.value_ends, at).to_vec();
            match op {
                0 => self.put(state, key, entry_key, value),
                1 => {
                    let last = self.entry(state, key).keys().next_back();
                    let next = last.map_or(0, |last| number(last) + 1);
                    self.put(state, key, next.to_be_bytes().to_vec(), value);
                }
                2 => _ = self.entry(state, key).remove(&entry_key),
                _ => self.entry(state, key).clear(),
            }
        }
    }

    fn put(&mut self, state: usize, key: usize, entry_key: Vec<u8>, bytes: Vec<u8>) {
        let ttl_ms = self.states[state].ttl_ms;
        let expires = ttl_ms.map_or(i64::MAX, |ttl_ms| self.now.saturating_add(ttl_ms));
        self.entry(state, key).insert(entry_key, Stored { bytes, expires });
    }

    fn entry(&mut self, state: usize, key: usize) -> &mut Entry {
        let (key, states) = (self.call[key].clone(), self.states.len());
        &mut self.keys.entry(key).or_insert_with(|| vec![Entry::new(); states])[state]
    }

    /// The live entries of a state of a key, in order.
    pub(super) fn live(&self, state: usize, key: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
        let entries = self.keys.get(key).into_iter().flat_map(move |states| &states[state]);
        entries
            .filter(|(_, stored)| stored.expires > self.now)
            .map(|(entry_key, stored)| (entry_key.as_slice(), stored.bytes.as_slice()))
    }

    fn value(&self, state: usize, key: &[u8], entry_key: &[u8]) -> Option<&[u8]> {
        let stored = self.keys.get(key)?[state].get(entry_key)?;
        (stored.expires > self.now).then_some(&stored.bytes)
    }
}

fn push(value: Option<&[u8]>, to: &mut Found) {
    to.data.extend_from_slice(value.unwrap_or_default());
    to.ends.push(to.data.len() as u32);
    to.present.push(value.is_some().into());
}

/// The number that a list's item is kept by.
fn number(entry_key: &[u8]) -> u64 {
    entry_key.try_into().map_or(0, u64::from_be_bytes)
}

const NOTHING: Found = Found {
    present: Vec::new(),
    data: Vec::new(),
    ends: Vec::new(),
};

/// A store that calls read while a harness keeps it.
#[derive(Debug)]
pub(super) struct SharedStore(pub(super) Mutex<Store>);

impl SharedStore {
    pub(super) fn get(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateReads for SharedStore {
    fn value_get_many(&self, state: u32, keys: &[u32]) -> Result<Found, String> {
        let (store, state, mut found) = (self.get(), state as usize, NOTHING);
        for key in keys {
            push(store.value(state, &store.call[*key as usize], b""), &mut found);
        }
        Ok(found)
    }

    fn map_get_many(
        &self,
        state: u32,
        keys: &[u32],
        entry_key_data: &[u8],
        entry_key_ends: &[u32],
    ) -> Result<Found, String> {
        let (store, state, mut found) = (self.get(), state as usize, NOTHING);
        for (at, key) in keys.iter().enumerate() {
            let entry_key = item(entry_key_data, entry_key_ends, at);
            push(store.value(state, &store.call[*key as usize], entry_key), &mut found);
        }
        Ok(found)
    }

    fn map_scan(&self, state: u32, key: u32, after: Option<&[u8]>, limit_bytes: u32) -> Result<Entries, String> {
        let (store, state) = (self.get(), state as usize);
        let mut page = Entries {
            key_data: Vec::new(),
            key_ends: Vec::new(),
            value_data: Vec::new(),
            value_ends: Vec::new(),
            more: false,
        };
        let entries = store.live(state, &store.call[key as usize]);
        for (entry_key, value) in entries.skip_while(|(entry_key, _)| after.is_some_and(|after| *entry_key <= after)) {
            if page.key_data.len() + page.value_data.len() >= limit_bytes as usize && !page.key_ends.is_empty() {
                page.more = true;
                break;
            }
            page.key_data.extend_from_slice(entry_key);
            page.key_ends.push(page.key_data.len() as u32);
            page.value_data.extend_from_slice(value);
            page.value_ends.push(page.value_data.len() as u32);
        }
        Ok(page)
    }

    fn list_scan(&self, state: u32, key: u32, first: u32, limit_bytes: u32) -> Result<Values, String> {
        let (store, state) = (self.get(), state as usize);
        let mut values = Values {
            data: Vec::new(),
            ends: Vec::new(),
        };
        let items = store.live(state, &store.call[key as usize]).skip(first as usize);
        for (_, value) in items {
            if values.data.len() >= limit_bytes as usize && !values.ends.is_empty() {
                break;
            }
            values.data.extend_from_slice(value);
            values.ends.push(values.data.len() as u32);
        }
        Ok(values)
    }
}
