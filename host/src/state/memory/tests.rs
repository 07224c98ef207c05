//! Runs the conformance suite, and tests what only this backend does.

use proptest::prelude::*;
use regraft_guest_runtime::call::CellWrites;
use regraft_model::batch::BytesColumn;
use regraft_model::key_group::{hash32, range_of};

use super::super::backend::TimerOps;
use super::super::conformance::{self, GROUPS};
use super::super::rows::{RowsOf, timer_entry};
use super::super::weight::{RowKind, row_bytes};
use super::*;

fn make(range: KeyGroupRange) -> Box<dyn StateBackend> {
    let uid = OperatorUid::new("op").expect("uid");
    Box::new(MemoryBackend::new(uid, range, GROUPS))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(400)))]

    #[test]
    fn it_conforms(script in conformance::scripts()) {
        conformance::run(&make, &script);
    }
}

#[test]
fn it_conforms_in_rare_cases() {
    conformance::run_rare(&make);
}

/// Returns value states that travel.
fn bound(names: &[&str]) -> Vec<BoundState> {
    let state = |name: &&str| BoundState {
        name: (*name).to_owned(),
        kind: StateKind::Value,
        travels: true,
        ttl_ms: None,
    };
    names.iter().map(state).collect()
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

fn backend(states: &[BoundState]) -> MemoryBackend {
    let uid = OperatorUid::new("op").expect("uid");
    let mut backend = MemoryBackend::new(uid, range_of(0, 1, GROUPS), GROUPS);
    backend.bind(states, &[]);
    backend
}

/// Makes one call: each of the keys `from..to` gets its number as the value of the only state, or loses it.
fn call(backend: &mut MemoryBackend, from: u32, to: u32, now: i64, value: bool) {
    let mut keys = Keys::default();
    let mut values = BytesColumn::default();
    for key in from..to {
        keys.column.push(&key.to_le_bytes());
        values.push(&key.to_le_bytes());
    }
    keys.ensure_hashes();
    let mut cells = Cells::default();
    backend.resolve(&keys, now, &mut cells).expect("in range");
    let all: Vec<u32> = (0..to - from).collect();
    let cells_written = CellWrites {
        state: 0,
        keys: if value { all.clone() } else { vec![] },
        values: if value { values } else { BytesColumn::default() },
        cleared: if value { vec![] } else { all },
    };
    let writes = Writes {
        cells: &[cells_written],
        entries: None,
        timers: TimerOps::default(),
        schemas: &[1],
    };
    backend.apply(&keys, &cells, now, writes);
}

#[test]
fn what_has_expired_goes_while_other_keys_are_written() {
    let mut states = bound(&["last"]);
    states[0].ttl_ms = Some(10);
    let mut backend = backend(&states);
    call(&mut backend, 0, 5_000, 0, true);
    assert_eq!(backend.len(), 5_000);
    // Each call examines twice as many slots as it has keys, and a few more.
    for n in 0..300 {
        call(&mut backend, 10_000, 10_050, 10 + n % 5, true);
    }
    assert_eq!(backend.len(), 50);
    assert_eq!(backend.counts().removed, 0);
}

#[test]
fn values_from_before_there_was_a_time_to_live_get_one() {
    let mut backend = backend(&bound(&["last"]));
    call(&mut backend, 0, 1_000, 0, true);
    let mut states = bound(&["last"]);
    states[0].ttl_ms = Some(10);
    backend.bind(&states, &[]);
    for _ in 0..200 {
        call(&mut backend, 5_000, 5_010, 100, true);
    }
    // The time to live counts from then on: it has not passed yet, and now it has.
    assert_eq!(backend.len(), 1_010);
    for _ in 0..200 {
        call(&mut backend, 5_000, 5_010, 111, true);
    }
    assert_eq!(backend.len(), 10);
}

#[test]
fn removals_do_not_pile_up() {
    let mut backend = backend(&bound(&["count"]));
    let round = CheckpointId(1);
    call(&mut backend, 0, 20_000, 0, true);
    assert_eq!(backend.begin_snapshot(round, None), None);
    while backend.next_snapshot_rows().is_some() {}
    backend.completed(round);
    // Items that no round has seen leave no removals.
    call(&mut backend, 30_000, 40_000, 0, true);
    call(&mut backend, 30_000, 40_000, 0, false);
    assert_eq!((backend.len(), backend.counts().removed), (20_000, 0));
    call(&mut backend, 0, 11_000, 0, false);
    assert_eq!((backend.len(), backend.counts().removed), (9_000, 11_000));
    assert!(backend.can_base(round));
    call(&mut backend, 11_000, 18_000, 0, false);
    // There are more removals than live keys: an increment would be useless, and none is kept for one.
    for _ in 0..4_000 {
        call(&mut backend, 19_000, 19_010, 0, true);
    }
    assert!(!backend.can_base(round));
    assert_eq!((backend.len(), backend.counts().removed), (2_000, 0));
}

#[test]
fn where_most_keys_have_changed_all_are_handed_out() {
    let mut backend = backend(&bound(&["count"]));
    call(&mut backend, 0, 40_000, 0, true);
    let mut handed_out = vec![];
    for (round, to) in (1..).zip([40_000, 400, 20_000, 30_000, 20_000, 20_001]) {
        // Two writes of the same key are one change.
        call(&mut backend, 0, to, 0, true);
        call(&mut backend, 0, to, 0, true);
        let (round, base) = (CheckpointId(round), CheckpointId(round - 1));
        let based = backend.begin_snapshot(round, Some(base)) == Some(base);
        let mut rows = 0;
        while let Some(all) = backend.next_snapshot_rows() {
            rows += all.iter().map(StateRows::len).sum::<usize>();
        }
        backend.completed(round);
        handed_out.push((based, rows));
    }
    let expected = [
        (false, 40_000),
        (true, 400),
        (true, 20_000),
        (false, 40_000),
        (true, 20_000),
        (false, 40_000),
    ];
    assert_eq!(handed_out, expected);
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let mut states = bound(&["count", "log"]);
    states[1] = BoundState {
        kind: StateKind::List,
        travels: false,
        ..states[1].clone()
    };
    let mut backend = backend(&states);
    let group = key_group(hash32(b"a"), GROUPS);
    let mut rows = StateRows::new(group, RowsOf::State(0));
    rows.keys.push(b"a");
    rows.values.push(b"v");
    rows.schemas.push(1);
    backend.load(&rows).expect("fits");
    let mut text = |change: &dyn Fn(&mut StateRows)| {
        let mut rows = rows.clone();
        change(&mut rows);
        backend.load(&rows).expect_err("does not fit").to_string()
    };
    let at = format!("operator \"op\": rows of key group {} cannot be loaded:", group.0);
    assert_eq!(
        text(&|rows| rows.of = RowsOf::State(2)),
        format!("{at} they are of state 2, there are 2")
    );
    assert_eq!(
        text(&|rows| rows.keys.push(b"b")),
        format!("{at} expected 1 keys, found 2")
    );
    assert_eq!(
        text(&|rows| rows.expires = vec![1, 2]),
        format!("{at} expected 1 expiry times, found 2")
    );
    assert_eq!(
        text(&|rows| rows.entry_keys.push(b"k")),
        format!("{at} expected 0 entry keys, found 1")
    );
    assert_eq!(
        text(&|rows| {
            rows.of = RowsOf::State(1);
            rows.entry_keys.push(b"k");
        }),
        format!("{at} row 0 has a list index of 1 bytes")
    );
    assert_eq!(
        text(&|rows| {
            rows.of = RowsOf::Timers;
            rows.entry_keys.push(b"gap");
        }),
        format!("{at} 3 bytes are no time and name of a timer")
    );
    let other = KeyGroup((group.0 + 1) % GROUPS as u16);
    assert_eq!(
        text(&|rows| rows.group = other),
        format!(
            "operator \"op\": rows of key group {} cannot be loaded: row 0 has a key of key group {}",
            other.0, group.0
        )
    );
}

#[test]
fn rows_weigh_about_what_they_take_once_loaded() {
    let mut states = bound(&["count", "map"]);
    states[1] = BoundState {
        kind: StateKind::Map,
        travels: false,
        ..states[1].clone()
    };
    // Small values, large ones, one and many entries of a key, and timers.
    for (of, value, entries) in [
        (RowsOf::State(0), 8, 1),
        (RowsOf::State(0), 300, 1),
        (RowsOf::State(1), 1, 1),
        (RowsOf::State(1), 1, 100),
        (RowsOf::State(1), 300, 100),
        (RowsOf::Timers, 0, 3),
    ] {
        let (mut backend, mut weight) = (backend(&states), 0);
        for key in 0..6000 / entries {
            let key = format!("key{key:05}");
            let mut rows = StateRows::new(key_group(hash32(key.as_bytes()), GROUPS), of);
            for n in 0..entries {
                let (mut entry, value) = (vec![], vec![7; value]);
                let kind = match of {
                    RowsOf::State(0) => RowKind::Value,
                    RowsOf::State(_) => RowKind::Entry { is_first: n == 0 },
                    RowsOf::Timers => RowKind::Timer,
                };
                match kind {
                    RowKind::Value => {}
                    RowKind::Entry { .. } => entry.extend((n as u32).to_be_bytes()),
                    RowKind::Timer => timer_entry(n as i64, "t", &mut entry),
                }
                rows.keys.push(key.as_bytes());
                rows.values.push(&value);
                rows.schemas.push(1);
                if kind != RowKind::Value {
                    rows.entry_keys.push(&entry);
                }
                weight += row_bytes(kind, key.len() + entry.len() + value.len());
            }
            backend.load(&rows).expect("fits");
        }
        let taken = backend.bytes();
        assert!(
            weight < taken / 4 * 5 && taken < weight * 5 / 2,
            "{of:?} of {value} bytes, {entries} for each key: weigh {weight}, take {taken}"
        );
    }
}
