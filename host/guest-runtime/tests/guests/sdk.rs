//! Operators of the SDK as components: what they are given comes in, what they do comes out, and state that does not
//! travel is read by imports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use regraft_guest_runtime::call::{
    BatchView, CellColumn, ENTRY_APPEND, ENTRY_CLEAR, ENTRY_PUT, ENTRY_REMOVE, EntryWrites, Header, KeyedView,
    OpenContext, OperatorState, Outcome, TimerView,
};
use regraft_guest_runtime::componentize::componentize;
use regraft_guest_runtime::instance::{GuestInstance, InstanceSettings};
use regraft_guest_runtime::module::GuestModule;
use regraft_guest_runtime::state_access::{Entries, ReadError, StateAccess, Values};
use regraft_model::batch::BytesColumn;

use crate::support::{HEADER, build, engine, settings};

fn module(package: &str) -> GuestModule {
    let component = componentize(engine(), &build(package)).expect("a component");
    engine().load(component).expect("a module").module
}

fn opened(module: &GuestModule, config: &str) -> GuestInstance {
    let settings = InstanceSettings {
        config: config.into(),
        ..settings("")
    };
    let mut instance = module.instantiate(&settings).expect("an instance");
    let context = OpenContext {
        uid: "it".to_owned(),
        subtask: 3,
        parallelism: 4,
        max_parallelism: 128,
    };
    instance
        .open(
            Header {
                watermark: i64::MIN,
                ..HEADER
            },
            &context,
        )
        .expect("it opens");
    instance
}

fn column<T: AsRef<[u8]>>(items: &[T]) -> BytesColumn {
    let mut column = BytesColumn::default();
    items.iter().for_each(|item| column.push(item.as_ref()));
    column
}

fn items(column: &BytesColumn) -> Vec<Vec<u8>> {
    column.iter().map(<[u8]>::to_vec).collect()
}

/// State that does not travel: by state, key and map key; an item of a list has its number for that.
#[derive(Default)]
struct Kept {
    entries: BTreeMap<(u32, u32), BTreeMap<Vec<u8>, Vec<u8>>>,
    asked: Vec<String>,
}

#[derive(Default)]
struct Access(Mutex<Kept>);

impl Access {
    fn apply(&self, writes: &EntryWrites) {
        let mut kept = self.0.lock().expect("not poisoned");
        for (at, op) in writes.ops.iter().enumerate() {
            let entries = kept.entries.entry((writes.states[at], writes.keys[at])).or_default();
            let (entry_key, value) = (writes.entry_keys.get(at).to_vec(), writes.values.get(at).to_vec());
            match *op {
                ENTRY_PUT => drop(entries.insert(entry_key, value)),
                ENTRY_APPEND => drop(entries.insert(vec![entries.len() as u8], value)),
                ENTRY_REMOVE => drop(entries.remove(&entry_key)),
                ENTRY_CLEAR => entries.clear(),
                other => panic!("there is no operation {other}"),
            }
        }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("not poisoned").asked)
    }
}

impl Kept {
    fn push(&self, values: &mut Values, state: u32, key: u32, entry_key: &[u8]) {
        let value = self
            .entries
            .get(&(state, key))
            .and_then(|entries| entries.get(entry_key));
        values.values.push(value.map_or(&[], Vec::as_slice));
        values.present.push(value.is_some().into());
    }
}

impl StateAccess for Access {
    fn value_get_many(&self, state: u32, keys: &[u32], _: usize) -> Result<Values, ReadError> {
        let (mut kept, mut values) = (self.0.lock().expect("not poisoned"), Values::default());
        kept.asked.push(format!("value {state} {keys:?}"));
        keys.iter().for_each(|key| kept.push(&mut values, state, *key, &[]));
        Ok(values)
    }

    fn map_get_many(&self, state: u32, keys: &[u32], entry_keys: &BytesColumn, _: usize) -> Result<Values, ReadError> {
        let (mut kept, mut values) = (self.0.lock().expect("not poisoned"), Values::default());
        kept.asked.push(format!("map {state} {}", keys.len()));
        for (at, key) in keys.iter().enumerate() {
            kept.push(&mut values, state, *key, entry_keys.get(at));
        }
        Ok(values)
    }

    // One entry, or one item, a page.
    fn map_scan(&self, state: u32, key: u32, after: Option<&[u8]>, _: u32, _: usize) -> Result<Entries, ReadError> {
        let kept = self.0.lock().expect("not poisoned");
        let mut page = Entries::default();
        let none = BTreeMap::new();
        let mut entries = kept.entries.get(&(state, key)).unwrap_or(&none).iter();
        let mut rest = entries
            .by_ref()
            .skip_while(|(entry_key, _)| after.is_some_and(|after| entry_key.as_slice() <= after));
        if let Some((entry_key, value)) = rest.next() {
            page.keys.push(entry_key);
            page.values.push(value);
            page.more = rest.next().is_some();
        }
        Ok(page)
    }

    fn list_scan(
        &self,
        state: u32,
        key: u32,
        first: u32,
        limit_bytes: u32,
        _: usize,
    ) -> Result<BytesColumn, ReadError> {
        let (kept, mut values) = (self.0.lock().expect("not poisoned"), BytesColumn::default());
        let none = BTreeMap::new();
        let items = kept.entries.get(&(state, key)).unwrap_or(&none).values();
        for item in items.skip(first as usize) {
            if values.data.len() >= limit_bytes as usize {
                break;
            }
            values.push(item);
        }
        Ok(values)
    }
}

/// Records with these keys, by number, and no values.
fn batch<'a>(key_index: &'a [u32], ends: &'a [u32], timestamps: &'a [i64]) -> BatchView<'a> {
    BatchView {
        key_index,
        value_ends: &ends[..key_index.len()],
        timestamps: &timestamps[..key_index.len()],
        ..BatchView::default()
    }
}

/// The keys `a` and `b`, and a cell of every state that travels.
fn keyed(cells: &[CellColumn]) -> KeyedView<'_> {
    KeyedView {
        key_data: b"ab",
        key_ends: &[1, 2],
        cells,
    }
}

/// Cells of two keys without a value, for the states of `kinds` that travel: `count`, `highest`, `mean` and `fired`.
fn no_cells(module: &GuestModule) -> Vec<CellColumn> {
    let travels = &module.declared().travels;
    let travelling = (0..).zip(travels).filter(|(_, travels)| **travels);
    let cells = travelling.map(|(state, _)| CellColumn {
        state,
        present: vec![0; 2],
        values: column(&[""; 2]),
    });
    cells.collect()
}

/// The cells of the next call.
fn applied(mut cells: Vec<CellColumn>, outcome: &Outcome) -> Vec<CellColumn> {
    for writes in &outcome.cells {
        let cells = cells.iter_mut().find(|cells| cells.state == writes.state);
        let cells = cells.expect("a state that travels");
        let mut values = items(&cells.values);
        for (at, key) in writes.keys.iter().enumerate() {
            values[*key as usize] = writes.values.get(at).to_vec();
            cells.present[*key as usize] = 1;
        }
        cells.values = column(&values);
    }
    cells
}

#[test]
fn every_kind_of_state_in_a_component() {
    let module = module("regraft-test-kinds");
    let mut instance = opened(&module, r#"{"gap_ms":5}"#);
    let access = Arc::new(Access::default());
    instance.set_state(Some(access.clone()));
    let (ends, timestamps) = ([0; 8], [100, 101, 102, 103, 104, 105, 106, 107]);
    let mut cells = no_cells(&module);
    for key_index in [&[0, 1, 0, 0, 0, 0, 0, 0][..], &[0, 0]] {
        let records = batch(key_index, &ends, &timestamps);
        let outcome = instance.process(HEADER, records, keyed(&cells)).expect("an outcome");
        assert_eq!(outcome.timer_times[..2], [105, 106]);
        assert_eq!((outcome.timer_ids[0], outcome.timer_ops[0]), (0, 0));
        access.apply(outcome.entries.as_ref().expect("entries"));
        cells = applied(cells, &outcome);
    }
    assert_eq!(items(&cells[0].values), [[9], [1]]);
    // Announced for all records of a batch, and read at once: seven entries of each of its keys.
    assert_eq!(access.asked(), ["map 3 14", "map 7 14", "map 3 7", "map 7 7"]);

    let timers = TimerView {
        key_index: &[1],
        timer_ids: &[0],
        times: &[106],
    };
    let outcome = instance.on_timers(HEADER, timers, keyed(&cells)).expect("an outcome");
    assert_eq!(
        outcome.outputs[0].values.get(0),
        [&b"\x01b\x03gap"[..], &[212, 1]].concat()
    );
    assert_eq!(outcome.outputs[0].timestamps, [106]);
    cells = applied(cells, &outcome);

    let outcome = instance.finish_keys(HEADER, keyed(&cells)).expect("an outcome");
    let summaries = items(&outcome.outputs[0].values);
    let shown = String::from_utf8_lossy(&summaries[0]).into_owned();
    assert!(
        shown.contains("a#9") && shown.contains("[(0, 1), (1, 2), (2, 2), (3, 1), (4, 1), (5, 1), (6, 1)]"),
        "{shown}"
    );
    assert!(
        summaries[0].starts_with(b"\x01a\x09\x03a#9\x09\x2d"),
        "nine items, of sum 45: {shown}"
    );
    assert!(summaries[1].starts_with(b"\x01b\x01\x03b#1\x01\x01"));
    assert_eq!(summaries[1].last(), Some(&1), "one timer has fired");
    assert_eq!(access.asked(), ["value 0 [0]", "value 0 [1]"]);

    let saved = instance.snapshot(HEADER, 1).expect("a snapshot");
    let names: Vec<&str> = saved.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["words", "instances", "table"]);
    assert_eq!(saved[0].items.len(), 10);
    let mut restored = opened(&module, "null");
    let header = Header {
        watermark: i64::MIN,
        ..HEADER
    };
    restored.restore(header, &saved).expect("restored");
    let again = restored.snapshot(HEADER, 2).expect("a snapshot");
    assert_eq!(again[0], saved[0]);
    // Subtask 3, and no watermark: the least time there is.
    assert_eq!(items(&again[1].items), [[&[3, 253][..], &[255; 8]].concat()]);
}

#[test]
fn a_failing_read_is_no_rows_fault() {
    struct Gone;
    impl StateAccess for Gone {
        fn value_get_many(&self, _: u32, _: &[u32], _: usize) -> Result<Values, ReadError> {
            Ok(Values::default())
        }
        fn map_get_many(&self, _: u32, keys: &[u32], _: &BytesColumn, _: usize) -> Result<Values, ReadError> {
            // Too long for a number.
            let mut values = Values::default();
            keys.iter().for_each(|_| values.values.push(&[1; 20]));
            values.present = vec![1; keys.len()];
            Ok(values)
        }
        fn map_scan(&self, _: u32, _: u32, _: Option<&[u8]>, _: u32, _: usize) -> Result<Entries, ReadError> {
            Ok(Entries::default())
        }
        fn list_scan(&self, _: u32, _: u32, _: u32, _: u32, _: usize) -> Result<BytesColumn, ReadError> {
            Ok(BytesColumn::default())
        }
    }
    let module = module("regraft-test-kinds");
    let cells = no_cells(&module);
    let records = batch(&[0], &[0], &[0]);
    let mut instance = opened(&module, "null");
    let failed = instance
        .process(HEADER, records, keyed(&cells))
        .expect_err("nothing to read from");
    assert_eq!(
        (failed.row(), failed.to_string().as_str()),
        (None, "state `digits`: the host refuses to read it outside of a call")
    );
    instance.set_state(Some(Arc::new(Gone)));
    let failed = instance
        .process(HEADER, records, keyed(&cells))
        .expect_err("broken values");
    assert_eq!(failed.row(), None);
    assert!(
        failed.to_string().starts_with("state `digits`: a value is broken: "),
        "{failed}"
    );
    // The failed calls have left nothing, in the instance either.
    assert!(instance.snapshot(HEADER, 1).expect("a snapshot")[0].items.is_empty());
}

#[test]
fn a_component_tells_its_inputs_apart() {
    let module = module("enrichment-enrich");
    let mut instance = opened(&module, "null");
    let process = |instance: &mut GuestInstance, input: u32, lines: &[&str]| {
        let values = column(lines);
        let timestamps = vec![i64::MIN; lines.len()];
        let view = BatchView {
            input,
            value_data: &values.data,
            value_ends: &values.ends,
            timestamps: &timestamps,
            ..BatchView::default()
        };
        instance.process(HEADER, view, KeyedView::default())
    };
    process(&mut instance, 0, &["7\tu1\ttea\t300"]).expect("an outcome");
    let failed = process(&mut instance, 0, &["8\tu1\ttea\t300", "?"]).expect_err("no order");
    assert_eq!(failed.row(), Some(1));
    let saved = instance.snapshot(HEADER, 1).expect("a snapshot");
    let waiting = OperatorState {
        name: "waiting".to_owned(),
        items: column(&[[&b"\x07\x02u1\x03tea"[..], &[251, 44, 1]].concat()]),
    };
    assert_eq!(saved[1], waiting, "the failed call has added none");
    let mut restored = opened(&module, "null");
    restored.restore(HEADER, &saved).expect("restored");
    let outcome = process(&mut restored, 1, &["u1\tAnn\tRiga"]).expect("an outcome");
    assert!(
        outcome.outputs[0]
            .values
            .get(0)
            .starts_with(b"\x07\x02u1\x03Ann\x04Riga\x03tea")
    );
    let failed = process(&mut restored, 2, &[""]).expect_err("no such input");
    assert_eq!(
        failed.to_string(),
        "records came by input 2, and the operator has 2 inputs"
    );
}
