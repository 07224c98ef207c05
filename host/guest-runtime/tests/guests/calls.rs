//! Answers of well-behaved calls, and the imports that a guest uses meanwhile.

use std::sync::Arc;

use regraft_guest_runtime::call::{OperatorState, Outcome, Output, TimerView};
use regraft_guest_runtime::state_access::{Entries, ReadError, StateAccess, Values};
use regraft_model::batch::BytesColumn;

use crate::support::{BATCH, HEADER, KEYED, Recorded, context, hostile, opened, settings};

fn column(items: &[&str]) -> BytesColumn {
    let mut column = BytesColumn::default();
    items.iter().for_each(|item| column.push(item.as_bytes()));
    column
}

#[test]
fn echo_returns_parents_only() {
    let outcome = opened("echo").process(HEADER, BATCH, *KEYED).expect("an outcome");
    let output = Output {
        parents: vec![0, 1, 2],
        ..Output::default()
    };
    assert_eq!(
        outcome,
        Outcome {
            outputs: vec![output],
            ..Outcome::default()
        }
    );
}

#[test]
fn copy_returns_all_columns() {
    let outcome = opened("copy").process(HEADER, BATCH, *KEYED).expect("an outcome");
    let output = Output {
        port: 0,
        parents: vec![0, 1, 2],
        keys: column(&["x", "y", "x"]),
        values: column(&["a", "bad", "c"]),
        timestamps: vec![10, 20, 30],
    };
    assert_eq!(outcome.outputs, [output]);
}

#[test]
fn count_uses_cells() {
    let outcome = opened("count").process(HEADER, BATCH, *KEYED).expect("an outcome");
    let writes = &outcome.cells[0];
    assert_eq!(
        (outcome.cells.len(), writes.state, &writes.keys[..]),
        (1, 0, &[0, 1][..])
    );
    let counts: Vec<&[u8]> = writes.values.iter().collect();
    assert_eq!(counts, [7u64.to_le_bytes(), 1u64.to_le_bytes()]);
}

#[test]
fn calls_without_records() {
    let mut instance = opened("echo");
    let timers = TimerView {
        key_index: &[1, 0],
        timer_ids: &[0, 0],
        times: &[5, 6],
    };
    let outcome = instance.on_timers(HEADER, timers, *KEYED).expect("an outcome");
    assert_eq!(
        (&outcome.outputs[0].parents, outcome.outputs[0].values.get(1)),
        (&vec![0, 1], "timer".as_bytes())
    );
    let outcome = instance.on_watermark(HEADER).expect("an outcome");
    let output = &outcome.outputs[0];
    assert_eq!(
        (output.len(), output.values.get(0), output.timestamps[0]),
        (1, "watermark".as_bytes(), 500)
    );
    assert_eq!(
        instance.finish_keys(HEADER, *KEYED).expect("an outcome").outputs[0].values,
        column(&["end", "end"])
    );
    assert!(instance.finish(HEADER).expect("an outcome").outputs[0].is_empty());
}

#[test]
fn operator_state_goes_out_and_in() {
    let mut instance = opened("echo");
    let states = vec![OperatorState {
        name: "seen".to_owned(),
        items: column(&["one", "two"]),
    }];
    instance.restore(HEADER, &states).expect("restored");
    assert_eq!(instance.snapshot(HEADER, 3).expect("a snapshot"), states);
}

#[test]
fn migration_keeps_the_number_of_values() {
    let mut instance = opened("echo");
    assert_eq!(
        instance.migrate(HEADER, 0, "\"u32\"", &column(&["a", "b"])),
        Ok(column(&["a", "b"]))
    );
    assert_eq!(
        instance
            .migrate(HEADER, 0, "\"f64\"", &column(&["a"]))
            .expect_err("refused")
            .to_string(),
        "cannot migrate from \"f64\""
    );
    assert_eq!(
        instance
            .migrate(HEADER, 9, "\"u32\"", &column(&["a", "b"]))
            .expect_err("a lie")
            .to_string(),
        "the module returned a wrong outcome: ends has 0 entries: expected 2, as many as values to \
         migrate"
    );
}

/// One value for each key: its index.
struct Indices;

impl StateAccess for Indices {
    fn value_get_many(&self, state: u32, keys: &[u32], _: usize) -> Result<Values, ReadError> {
        assert_eq!(state, 1);
        let mut values = Values::default();
        for key in keys {
            values.values.push(key.to_string().as_bytes());
            values.present.push(1);
        }
        Ok(values)
    }

    fn map_get_many(&self, _: u32, _: &[u32], _: &BytesColumn, _: usize) -> Result<Values, ReadError> {
        Err("not a map".to_owned().into())
    }

    fn map_scan(&self, _: u32, _: u32, _: Option<&[u8]>, _: u32, _: usize) -> Result<Entries, ReadError> {
        Err("not a map".to_owned().into())
    }

    fn list_scan(&self, _: u32, _: u32, _: u32, _: u32, _: usize) -> Result<BytesColumn, ReadError> {
        Err("not a list".to_owned().into())
    }
}

/// Cannot be read.
struct Broken;

impl StateAccess for Broken {
    fn value_get_many(&self, _: u32, _: &[u32], _: usize) -> Result<Values, ReadError> {
        Err("disk full".to_owned().into())
    }

    fn map_get_many(&self, _: u32, _: &[u32], _: &BytesColumn, _: usize) -> Result<Values, ReadError> {
        Err("disk full".to_owned().into())
    }

    fn map_scan(&self, _: u32, _: u32, _: Option<&[u8]>, _: u32, _: usize) -> Result<Entries, ReadError> {
        Err("disk full".to_owned().into())
    }

    fn list_scan(&self, _: u32, _: u32, _: u32, _: u32, _: usize) -> Result<BytesColumn, ReadError> {
        Err("disk full".to_owned().into())
    }
}

#[test]
fn state_is_read_within_a_call() {
    let mut instance = opened("read");
    let read = |instance: &mut regraft_guest_runtime::instance::GuestInstance| {
        let outcome = instance.process(HEADER, BATCH, *KEYED).expect("an outcome");
        let values = &outcome.outputs[0].values;
        values
            .iter()
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(read(&mut instance), ["StateError::OutsideCall"; 4]);
    instance.set_state(Some(Arc::new(Indices)));
    assert_eq!(
        read(&mut instance),
        [
            "StateError::UnknownState(0)",
            "StateError::UnknownState(7)",
            "StateError::UnknownKey(99)",
            "01"
        ]
    );
    // `snapshot` asserts that it can read nothing.
    instance.snapshot(HEADER, 1).expect("a snapshot");
    instance.set_state(Some(Arc::new(Broken)));
    let error = instance.process(HEADER, BATCH, *KEYED).expect_err("unreadable state");
    assert_eq!(error.to_string(), "reading state failed: disk full");
}

#[test]
fn what_a_guest_tells_is_bounded() {
    let sink = Arc::new(Recorded::default());
    let settings = regraft_guest_runtime::instance::InstanceSettings {
        sink: sink.clone(),
        ..settings("log")
    };
    let mut instance = hostile().instantiate(&settings).expect("an instance");
    instance.open(HEADER, &context()).expect("it opens");
    instance.process(HEADER, BATCH, *KEYED).expect("an outcome");
    let told = sink.0.lock().expect("not poisoned");
    assert_eq!(told[0], format!("Warn {}", "x".repeat(16 << 10)));
    assert_eq!((told[1].as_str(), told[2].as_str()), ("Info line 0", "counter-0 += 1"));
    assert_eq!(told.iter().filter(|line| line.starts_with("Info line")).count(), 999);
    // The gauge is one name too many.
    assert_eq!(told.iter().filter(|line| line.contains(" += 1")).count(), 1_000);
    assert_eq!(told.last().map(String::as_str), Some("counter-999 += 1"));
}

#[test]
fn instances_can_move_between_threads() {
    let mut instance = opened("echo");
    let outcome = std::thread::spawn(move || instance.process(HEADER, BATCH, *KEYED))
        .join()
        .expect("no panic");
    assert_eq!(outcome.expect("an outcome").outputs[0].len(), 3);
}
