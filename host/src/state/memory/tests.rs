//! The backend beside a plain map: arbitrary calls, with a snapshot marked and swept in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use regraft_model::batch::BytesColumn;
use regraft_model::describe::StateKind;
use regraft_model::key_group::range_of;

use super::super::backend::TimerOps;
use super::*;

type Model = BTreeMap<Vec<u8>, BTreeMap<usize, Vec<u8>>>;

/// One call: for each key (distinct) and state: nothing, a value, or a clear.
type Call = BTreeMap<u8, Vec<Option<Option<Vec<u8>>>>>;

fn key_bytes(key: u8) -> Vec<u8> {
    // Some keys are too long to lie inline.
    let long = if key.is_multiple_of(7) { 60 } else { 0 };
    let mut bytes = format!("key-{key}").into_bytes();
    bytes.resize(bytes.len() + long, b'x');
    bytes
}

fn run(backend: &mut MemoryBackend, model: &mut Model, states: usize, call: &Call) {
    let mut keys = Keys::default();
    for key in call.keys() {
        keys.column.push(&key_bytes(*key));
    }
    keys.ensure_hashes();
    let mut cells = Cells::default();
    backend.resolve(&keys, 0, &mut cells).expect("in range");
    for (k, key) in call.keys().enumerate() {
        for s in 0..states {
            let cell = s * call.len() + k;
            let expected = model.get(&key_bytes(*key)).and_then(|entry| entry.get(&s));
            assert_eq!(cells.schemas[cell] != 0, expected.is_some());
            assert_eq!(cells.values.get(cell), expected.map_or(&[][..], Vec::as_slice));
        }
    }
    let (mut written, mut values, mut cleared) = (vec![], BytesColumn::default(), vec![]);
    for (k, (key, ops)) in call.iter().enumerate() {
        for (s, op) in ops.iter().enumerate() {
            let cell = (s * call.len() + k) as u32;
            let entry = model.entry(key_bytes(*key)).or_default();
            match op {
                None => {}
                Some(Some(value)) => {
                    written.push(cell);
                    values.push(value);
                    entry.insert(s, value.clone());
                }
                Some(None) => {
                    cleared.push(cell);
                    entry.remove(&s);
                }
            }
        }
    }
    model.retain(|_, entry| !entry.is_empty());
    let schemas = vec![1; states];
    backend.apply(
        &keys,
        &cells,
        0,
        Writes {
            cells: &written,
            values: &values,
            cleared: &cleared,
            entries: None,
            timers: TimerOps::default(),
            schemas: &schemas,
        },
    );
}

fn collect(rows: &[StateRows]) -> Model {
    let mut model = Model::new();
    for rows in rows {
        let RowsOf::State(state) = rows.of else {
            panic!("timers")
        };
        for i in 0..rows.len() {
            let entry = model.entry(rows.keys.get(i).to_vec()).or_default();
            let old = entry.insert(usize::from(state), rows.values.get(i).to_vec());
            assert!(old.is_none(), "a key came twice");
        }
    }
    model
}

/// Value states that travel.
fn bound(names: &[&str]) -> Vec<BoundState> {
    let state = |name: &&str| BoundState {
        name: (*name).to_owned(),
        kind: StateKind::Value,
        travels: true,
        ttl_ms: None,
    };
    names.iter().map(state).collect()
}

/// Marks the state and sweeps all of it.
fn all_rows(backend: &mut MemoryBackend) -> Vec<StateRows> {
    assert_eq!(backend.begin_snapshot(CheckpointId(9), None), None);
    std::iter::from_fn(|| backend.next_snapshot_rows()).flatten().collect()
}

fn calls(states: usize) -> impl Strategy<Value = Vec<Call>> {
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        prop::collection::vec(any::<u8>(), 40..90)
    ];
    let op = prop::option::of(prop::option::weighted(0.7, value));
    let call = prop::collection::btree_map(any::<u8>(), prop::collection::vec(op, states), 1..40);
    prop::collection::vec(call, 1..24)
}

fn backend(states: usize) -> MemoryBackend {
    let uid = OperatorUid::new("count").expect("uid");
    let mut backend = MemoryBackend::new(uid, range_of(0, 1, 16), 16);
    backend.bind(&bound(&["s0", "s1", "s2"][..states]), &[]);
    backend
}

/// Runs calls against a plain map, with a snapshot marked and swept meanwhile, and checks both ends.
fn check(states: usize, calls: &[Call], mark_at: usize, sweeps: usize) {
    let (mut backend, mut model) = (backend(states), Model::new());
    let (mut at_mark, mut swept, mut open) = (None, vec![], false);
    for (i, call) in calls.iter().enumerate() {
        if i == mark_at {
            assert_eq!(backend.begin_snapshot(CheckpointId(1), None), None);
            at_mark = Some(model.clone());
            open = true;
        }
        run(&mut backend, &mut model, states, call);
        for _ in 0..if open { sweeps } else { 0 } {
            match backend.next_snapshot_rows() {
                Some(rows) => swept.extend(rows),
                None => open = false,
            }
        }
    }
    while open {
        match backend.next_snapshot_rows() {
            Some(rows) => swept.extend(rows),
            None => open = false,
        }
    }
    if let Some(expected) = at_mark {
        assert_eq!(collect(&swept), expected);
    }
    assert_eq!(backend.len(), model.len());
    let rows = all_rows(&mut backend);
    assert_eq!(collect(&rows), model);
    let mut again = self::backend(states);
    for rows in &rows {
        again.load(rows).expect("in range");
    }
    assert_eq!(collect(&all_rows(&mut again)), model);
}

proptest! {
    #[test]
    fn one_state_is_a_map_and_a_snapshot_is_its_past(calls in calls(1), mark in 0usize..24, sweeps in 0usize..4) {
        check(1, &calls, mark, sweeps);
    }

    #[test]
    fn several_states_are_too(calls in calls(3), mark in 0usize..24, sweeps in 0usize..4) {
        check(3, &calls, mark, sweeps);
    }
}

#[test]
fn a_key_of_another_subtask_is_a_bug_report() {
    let uid = OperatorUid::new("count").expect("uid");
    let mut backend = MemoryBackend::new(uid, range_of(0, 2, 128), 128);
    backend.bind(&bound(&["count"]), &[]);
    let mut keys = Keys::default();
    keys.column.push(b"a"); // key group 88, of 64..=127
    keys.ensure_hashes();
    let error = backend.resolve(&keys, 0, &mut Cells::default()).expect_err("not here");
    assert_eq!(
        error.to_string(),
        "operator \"count\": a key of key group 88 reached a subtask that owns 0..=63; \
         this is a bug in Regraft, please report it"
    );
}

#[test]
fn states_bound_later_start_empty_and_keep_the_others() {
    let mut backend = backend(1);
    let mut model = Model::new();
    let call = Call::from([(1, vec![Some(Some(vec![9]))])]);
    run(&mut backend, &mut model, 1, &call);
    backend.bind(&bound(&["new", "s0"]), &[]);
    let mut keys = Keys::default();
    keys.column.push(&key_bytes(1));
    keys.ensure_hashes();
    let mut cells = Cells::default();
    backend.resolve(&keys, 0, &mut cells).expect("in range");
    assert_eq!(cells.schemas, [0, 1]);
    assert_eq!(cells.values.get(1), [9]);
}
