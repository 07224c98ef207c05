//! Random scripts of what happens to a backend.

use std::collections::BTreeMap;

use proptest::prelude::*;
use regraft_guest_runtime::call::{CellWrites, ENTRY_APPEND, ENTRY_CLEAR, ENTRY_PUT, ENTRY_REMOVE, EntryWrites};
use regraft_model::batch::Keys;
use regraft_model::describe::StateKind;

use crate::state::backend::{BoundState, BoundTimer, TimeDomain, TimerOps, Writes};
use crate::state::rows::{RowsOf, StateRows};

/// States that scripts use: name, kind, true if it travels, time to live in milliseconds.
const STATES: [(&str, StateKind, bool, Option<u64>); 9] = [
    ("count", StateKind::Value, true, None),
    ("last", StateKind::Value, true, Some(50)),
    ("sum", StateKind::Reducing, true, None),
    ("big", StateKind::Value, false, None),
    ("cache", StateKind::Aggregating, false, Some(40)),
    ("pages", StateKind::Map, false, None),
    ("seen", StateKind::Map, false, Some(40)),
    ("log", StateKind::List, false, None),
    ("recent", StateKind::List, false, Some(60)),
];

const TIMERS: [(&str, TimeDomain); 3] = [
    ("gap", TimeDomain::Event),
    ("tick", TimeDomain::Processing),
    ("late", TimeDomain::Event),
];

/// Returns the states with these names.
pub fn states(names: &[&str]) -> Vec<BoundState> {
    let state = |(name, kind, travels, ttl_ms): &(&str, StateKind, bool, Option<u64>)| BoundState {
        name: (*name).to_owned(),
        kind: *kind,
        travels: *travels,
        ttl_ms: *ttl_ms,
    };
    let named = |name: &&str| STATES.iter().find(|state| state.0 == *name).map(state);
    names.iter().filter_map(named).collect()
}

/// Returns the first `count` timers.
pub fn timers(count: usize) -> Vec<BoundTimer> {
    let timer = |(name, domain): &(&str, TimeDomain)| BoundTimer {
        name: (*name).to_owned(),
        domain: *domain,
    };
    TIMERS.iter().take(count).map(timer).collect()
}

/// Returns the domain of a timer.
pub fn domain(name: &str) -> TimeDomain {
    TIMERS.iter().find(|timer| timer.0 == name).expect("one of them").1
}

/// Returns the kind of a state.
pub fn kind(name: &str) -> StateKind {
    STATES.iter().find(|state| state.0 == name).expect("one of them").1
}

/// A script.
#[derive(Debug, Clone)]
pub struct Script {
    /// States that the operator declares.
    pub states: Vec<BoundState>,
    /// Steps in order.
    pub steps: Vec<Step>,
}

/// A step of a script.
#[derive(Debug, Clone)]
pub enum Step {
    /// Time passes, and a call writes to some keys.
    Call { wait: i64, ops: BTreeMap<u8, Vec<Op>> },
    /// A mark: full, or based on the completed round that is `base` rounds older than the newest one.
    Mark { base: Option<u8> },
    /// A number of key groups are swept.
    Sweep(u8),
    /// A round in progress ends.
    End { which: u8, completed: bool },
    /// Timers fire, and the first may register itself again.
    Fire {
        domain: TimeDomain,
        by: i64,
        max: usize,
        again: bool,
    },
    /// The operator declares its states in another order, one with a changed way of travelling, another time to live,
    /// or fewer timers.
    Rebind {
        rotate: u8,
        flip: bool,
        ttl_ms: u64,
        timers: usize,
    },
    /// The newest completed round is restored, by way of `parts` backends.
    Restore { parts: u8 },
}

/// An operation of a call on one key.
#[derive(Debug, Clone)]
pub enum Op {
    /// Writes a value, a map's entry, or a list's next item.
    Put {
        state: &'static str,
        entry: u8,
        value: Vec<u8>,
    },
    /// Removes a map's entry; clears a state of another kind.
    Remove { state: &'static str, entry: u8 },
    /// Clears the state.
    Clear { state: &'static str },
    /// Registers or deletes a timer.
    Timer { register: bool, id: u8, time: i64 },
}

/// Returns the bytes of a key.
pub fn key_bytes(key: u8) -> Vec<u8> {
    // Some keys are too long for the slot of a table.
    let long = if key.is_multiple_of(5) { 60 } else { 0 };
    let mut bytes = format!("key-{key}").into_bytes();
    bytes.resize(bytes.len() + long, b'x');
    bytes
}

/// Makes a key column with hashes.
pub fn keys_of(all: impl Iterator<Item = Vec<u8>>) -> Keys {
    let mut keys = Keys::default();
    all.for_each(|key| keys.column.push(&key));
    keys.ensure_hashes();
    keys
}

/// Returns the key of a map's entry: one is empty, and they are of increasing length.
pub fn entry_key(entry: u8) -> Vec<u8> {
    vec![entry; usize::from(entry) * 7]
}

fn op() -> impl Strategy<Value = Op> {
    let state = || prop::sample::select(STATES.map(|state| state.0).to_vec());
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        prop::collection::vec(any::<u8>(), 40..60)
    ];
    prop_oneof![
        6 => (state(), 0u8..6, value).prop_map(|(state, entry, value)| Op::Put { state, entry, value }),
        2 => (state(), 0u8..6).prop_map(|(state, entry)| Op::Remove { state, entry }),
        1 => state().prop_map(|state| Op::Clear { state }),
        2 => (prop::bool::weighted(0.6), 0u8..3, 0i64..5)
            .prop_map(|(register, id, time)| Op::Timer { register, id, time: time - 2 }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ops = prop::collection::btree_map(0u8..12, prop::collection::vec(op(), 1..5), 0..10);
    let domain = prop::sample::select(vec![TimeDomain::Event, TimeDomain::Processing]);
    prop_oneof![
        10 => (0i64..30, ops).prop_map(|(wait, ops)| Step::Call { wait, ops }),
        4 => prop::option::weighted(0.7, 0u8..2).prop_map(|base| Step::Mark { base }),
        5 => (1u8..10).prop_map(Step::Sweep),
        4 => (0u8..3, prop::bool::weighted(0.75)).prop_map(|(which, completed)| Step::End { which, completed }),
        3 => (domain, -3i64..4, 1usize..8, any::<bool>())
            .prop_map(|(domain, by, max, again)| Step::Fire { domain, by, max, again }),
        1 => (0u8..4, any::<bool>(), prop::sample::select(vec![5, 50]), 1usize..4)
            .prop_map(|(rotate, flip, ttl_ms, timers)| Step::Rebind { rotate, flip, ttl_ms, timers }),
        2 => (1u8..4).prop_map(|parts| Step::Restore { parts }),
    ]
}

/// Generates scripts for operators with states of every kind.
pub fn scripts() -> impl Strategy<Value = Script> {
    let some = vec![
        states(&["count"]),
        states(&["last"]),
        states(&["count", "last", "sum"]),
        states(&["pages"]),
        states(&["count", "big", "log"]),
        states(&["cache", "seen", "recent"]),
        states(&STATES.map(|state| state.0)),
    ];
    (prop::sample::select(some), prop::collection::vec(step(), 1..40))
        .prop_map(|(states, steps)| Script { states, steps })
}

/// The writes of a call, as columns.
#[derive(Debug, Default)]
pub struct Written {
    cells: Vec<CellWrites>,
    entries: EntryWrites,
    timer_ops: Vec<u8>,
    timer_keys: Vec<u32>,
    timer_ids: Vec<u32>,
    timer_times: Vec<i64>,
    schemas: Vec<u16>,
}

impl Written {
    /// Converts operations of an operator that declares these states and the first `timers` timers.
    pub fn new(all: &BTreeMap<u8, Vec<Op>>, bound: &[BoundState], timers: usize) -> Self {
        let mut out = Self {
            schemas: vec![1; bound.len()],
            ..Self::default()
        };
        // Only the last operation on a cell has an effect.
        let mut cells: BTreeMap<(usize, u32), Option<&[u8]>> = BTreeMap::new();
        for (k, op) in all
            .values()
            .enumerate()
            .flat_map(|(k, ops)| ops.iter().map(move |op| (k, op)))
        {
            let (name, value) = match op {
                Op::Put { state, value, .. } => (state, Some(&value[..])),
                Op::Remove { state, .. } | Op::Clear { state } => (state, None),
                Op::Timer { register, id, time } => {
                    if usize::from(*id) < timers {
                        out.timer_ops.push(u8::from(!register));
                        out.timer_keys.push(k as u32);
                        out.timer_ids.push((*id).into());
                        out.timer_times.push(*time);
                    }
                    continue;
                }
            };
            let Some(position) = bound.iter().position(|state| state.name == *name) else {
                continue;
            };
            if bound[position].travels {
                cells.insert((position, k as u32), value);
            } else {
                out.entry(op, position, k, bound[position].kind);
            }
        }
        for ((state, key), value) in cells {
            if out.cells.last().is_none_or(|writes| writes.state as usize != state) {
                out.cells.push(CellWrites {
                    state: state as u32,
                    ..CellWrites::default()
                });
            }
            let Some(writes) = out.cells.last_mut() else { continue };
            match value {
                Some(value) => {
                    writes.keys.push(key);
                    writes.values.push(value);
                }
                None => writes.cleared.push(key),
            }
        }
        out
    }

    fn entry(&mut self, op: &Op, position: usize, k: usize, kind: StateKind) {
        let (code, entry, value) = match op {
            Op::Put { entry, value, .. } if kind == StateKind::Map => (ENTRY_PUT, entry_key(*entry), &value[..]),
            Op::Put { value, .. } if kind == StateKind::List => (ENTRY_APPEND, vec![], &value[..]),
            Op::Put { value, .. } => (ENTRY_PUT, vec![], &value[..]),
            Op::Remove { entry, .. } if kind == StateKind::Map => (ENTRY_REMOVE, entry_key(*entry), &[][..]),
            _ => (ENTRY_CLEAR, vec![], &[][..]),
        };
        self.entries.ops.push(code);
        self.entries.states.push(position as u32);
        self.entries.keys.push(k as u32);
        self.entries.entry_keys.push(&entry);
        self.entries.values.push(value);
    }

    /// Borrows the columns as a backend takes them.
    pub fn writes(&self) -> Writes<'_> {
        Writes {
            cells: &self.cells,
            entries: (!self.entries.ops.is_empty()).then_some(&self.entries),
            timers: TimerOps {
                ops: &self.timer_ops,
                keys: &self.timer_keys,
                ids: &self.timer_ids,
                times: &self.timer_times,
            },
            schemas: &self.schemas,
        }
    }
}

/// Renumbers rows of states bound in one order for a backend that has bound them in another.
pub fn renamed(rows: &StateRows, from: &[BoundState], to: &[BoundState]) -> StateRows {
    let of = match rows.of {
        RowsOf::Timers => RowsOf::Timers,
        RowsOf::State(state) => {
            let name = &from[usize::from(state)].name;
            let at = to.iter().position(|state| state.name == *name);
            RowsOf::State(at.expect("the same states") as u16)
        }
    };
    StateRows { of, ..rows.clone() }
}
