//! The plain model of a backend: maps, and the rules of expiry.

use std::collections::{BTreeMap, BTreeSet};

use regraft_guest_runtime::state_access::StateAccess;
use regraft_model::batch::BytesColumn;
use regraft_model::describe::StateKind;

use super::script::{Op, domain, entry_key, kind, timers};
use crate::state::backend::{BoundState, TimeDomain};
use crate::state::rows::{NEVER, RowsOf, StateRows, split_timer_entry};

/// State, key, entry key.
type Place = (String, Vec<u8>, Vec<u8>);
/// Name, key, time.
type Timer = (String, Vec<u8>, i64);

/// State and key.
type Of = (String, Vec<u8>);
/// A value and its time of expiry.
type Timed = (Vec<u8>, i64);
/// Entry key and value.
type Pair = (Vec<u8>, Vec<u8>);

/// Keyed state as maps, with the time of expiry of each value.
#[derive(Debug, Clone, Default)]
pub struct Model {
    values: BTreeMap<Place, Timed>,
    lists: BTreeMap<Of, Vec<Timed>>,
    /// Pending timers.
    pub timers: BTreeSet<Timer>,
}

/// The live state at some time: entries by state and key. Those of lists have empty entry keys, and are in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visible(BTreeMap<Of, Vec<Pair>>);

impl Visible {
    /// Returns all entries of a key.
    pub fn entries(&self, state: &str, key: &[u8]) -> &[Pair] {
        let all = self.0.get(&(state.to_owned(), key.to_vec()));
        all.map_or(&[], Vec::as_slice)
    }

    /// Returns the only value of a key.
    pub fn value(&self, state: &str, key: &[u8]) -> Option<&[u8]> {
        self.entries(state, key).first().map(|(_, value)| value.as_slice())
    }

    /// Returns all keys.
    pub fn keys(&self) -> BTreeSet<Vec<u8>> {
        self.0.keys().map(|(_, key)| key.clone()).collect()
    }

    fn push(&mut self, state: &str, key: &[u8], entry: &[u8], value: &[u8]) {
        let entries = self.0.entry((state.to_owned(), key.to_vec())).or_default();
        entries.push((entry.to_vec(), value.to_vec()));
    }
}

impl Model {
    /// Applies the operations of a call on one key.
    pub fn apply(&mut self, key: &[u8], ops: &[Op], bound: &[BoundState], declared: usize, now: i64) {
        for op in ops {
            let (name, entry) = match op {
                Op::Put { state, entry, .. } | Op::Remove { state, entry } => (*state, *entry),
                Op::Clear { state } => (*state, 0),
                Op::Timer { register, id, time } => {
                    if let Some(timer) = timers(declared).get(usize::from(*id)) {
                        let timer = (timer.name.clone(), key.to_vec(), *time);
                        if *register {
                            self.timers.insert(timer);
                        } else {
                            self.timers.remove(&timer);
                        }
                    }
                    continue;
                }
            };
            let Some(state) = bound.iter().find(|state| state.name == name) else {
                continue;
            };
            let expires = state.ttl_ms.map_or(NEVER, |ttl| now + ttl as i64);
            let place = |entry: Vec<u8>| (name.to_owned(), key.to_vec(), entry);
            let entry = if state.kind == StateKind::Map {
                entry_key(entry)
            } else {
                vec![]
            };
            match (op, state.kind) {
                (Op::Put { value, .. }, StateKind::List) => {
                    let list = self.lists.entry((name.to_owned(), key.to_vec())).or_default();
                    list.push((value.clone(), expires));
                }
                (Op::Put { value, .. }, _) => {
                    self.values.insert(place(entry), (value.clone(), expires));
                }
                (Op::Remove { .. }, StateKind::Map) => {
                    self.values.remove(&place(entry));
                }
                _ => {
                    self.lists.remove(&(name.to_owned(), key.to_vec()));
                    self.values.retain(|(s, k, _), _| s != name || k != key);
                }
            }
        }
    }

    /// Returns the state that has not expired at `now`.
    pub fn visible(&self, now: i64) -> Visible {
        let mut visible = Visible::default();
        for ((state, key, entry), (value, expires)) in &self.values {
            if *expires > now {
                visible.push(state, key, entry, value);
            }
        }
        for ((state, key), list) in &self.lists {
            for (value, _) in list.iter().filter(|(_, expires)| *expires > now) {
                visible.push(state, key, &[], value);
            }
        }
        visible
    }

    /// Returns the declared timers that are due, as (time, key, name) in order.
    pub fn due(&self, of: TimeDomain, up_to: i64, declared: usize) -> Vec<(i64, Vec<u8>, String)> {
        let names: Vec<_> = timers(declared).into_iter().map(|timer| timer.name).collect();
        let is_due = |(name, _, time): &&Timer| names.contains(name) && domain(name) == of && *time <= up_to;
        let due = self.timers.iter().filter(is_due);
        let mut due: Vec<_> = due
            .map(|(name, key, time)| (*time, key.clone(), name.clone()))
            .collect();
        due.sort();
        due
    }
}

/// Converts rows to the live state that they describe, and the pending timers.
pub fn from_rows(all: &[StateRows], bound: &[BoundState], now: i64) -> (Visible, BTreeSet<Timer>) {
    let (mut places, mut timers) = (BTreeMap::new(), BTreeSet::new());
    for rows in all {
        for i in 0..rows.len() {
            let (key, entry) = (rows.keys.get(i).to_vec(), rows.entry_key(i).unwrap_or_default());
            if let RowsOf::State(state) = rows.of {
                let name = bound[usize::from(state)].name.clone();
                let value = (rows.values.get(i).to_vec(), rows.expires_at(i));
                places.insert((name, key, entry.to_vec()), value);
            } else {
                let (time, name) = split_timer_entry(entry).expect("a timer");
                timers.insert((name.to_owned(), key, time));
            }
        }
    }
    let mut visible = Visible::default();
    for ((state, key, entry), (value, expires)) in places {
        let entry = if kind(&state) == StateKind::List {
            &[]
        } else {
            &entry[..]
        };
        if expires > now {
            visible.push(&state, &key, entry, &value);
        }
    }
    (visible, timers)
}

/// Reads a key's state by every method that its kind has, and compares it.
pub fn check_read(access: &dyn StateAccess, state: u32, key: u32, kind: StateKind, expected: &[Pair]) {
    match kind {
        StateKind::Map => check_map(access, state, key, expected),
        StateKind::List => check_list(access, state, key, expected),
        _ => {
            let found = access.value_get_many(state, &[key, key], usize::MAX).expect("declared");
            let value = expected.first().map(|(_, value)| value.as_slice());
            assert_eq!(found.present, [u8::from(value.is_some()); 2]);
            assert_eq!(found.values.get(1), value.unwrap_or_default());
        }
    }
}

fn check_map(access: &dyn StateAccess, state: u32, key: u32, expected: &[Pair]) {
    let mut wanted = BytesColumn::default();
    (0..6).for_each(|entry| wanted.push(&entry_key(entry)));
    let found = access
        .map_get_many(state, &[key; 6], &wanted, usize::MAX)
        .expect("declared");
    for (i, entry) in wanted.iter().enumerate() {
        let value = expected
            .iter()
            .find(|(key, _)| key == entry)
            .map(|(_, value)| value.as_slice());
        assert_eq!(
            (found.present[i] != 0, found.values.get(i)),
            (value.is_some(), value.unwrap_or_default())
        );
    }
    for limit in [0, 60, 100_000] {
        let (mut all, mut after) = (vec![], None);
        loop {
            let page = access
                .map_scan(state, key, after.as_deref(), limit, usize::MAX)
                .expect("declared");
            all.extend(
                page.keys
                    .iter()
                    .map(<[u8]>::to_vec)
                    .zip(page.values.iter().map(<[u8]>::to_vec)),
            );
            after = all.last().map(|(key, _)| key.clone());
            assert!(!page.more || !page.keys.is_empty());
            if !page.more {
                break;
            }
        }
        assert_eq!(all, expected, "in pages of {limit} bytes");
    }
}

fn check_list(access: &dyn StateAccess, state: u32, key: u32, expected: &[Pair]) {
    for limit in [0, 60, 100_000] {
        let mut all: Vec<Vec<u8>> = vec![];
        loop {
            let page = access
                .list_scan(state, key, all.len() as u32, limit, usize::MAX)
                .expect("declared");
            if page.is_empty() {
                break;
            }
            all.extend(page.iter().map(<[u8]>::to_vec));
        }
        let expected: Vec<_> = expected.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(all, expected, "in pages of {limit} bytes");
    }
}
