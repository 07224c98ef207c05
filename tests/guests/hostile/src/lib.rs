//! A guest that does what its config says: a JSON string, as `"trap"`, or the last string in a table, as
//! `{"do":"trap"}`, which is what a job file can say. It stands on the generated bindings alone, so
//! that it can answer what the SDK never would.
//!
//! It declares one state that travels (`count`, u64), one that does not (`log`, bytes), one output, one timer.

mod greed;
mod lies;

wit_bindgen::generate!({
    path: "../../../wit",
    inline: r"
        package regraft-test:hostile;

        world hostile {
            include regraft:operator/operator@0.2.0;
            export regraft:operator/timers@0.2.0;
            export regraft:operator/watermarks@0.2.0;
            export regraft:operator/ending@0.2.0;
            export regraft:operator/operator-state@0.2.0;
            export regraft:operator/migration@0.2.0;
        }
    ",
    generate_all,
});

use std::cell::RefCell;

use exports::regraft::operator::{ending, guest, migration, operator_state, timers, watermarks};
use regraft::operator::types::{
    Batch, CellWrites, Failure, Header, Keyed, OpenContext, Outcome, Output, StateIndex, StateItems, TimerBatch, Values,
};
use regraft::operator::{host, state};

const DESCRIBE: &str = concat!(
    r#"{"wit":"0.2.0","sdk":"none","key":{"name":"key","type":"bytes"},"#,
    r#""states":[{"name":"count","kind":"value","schema":"u64","travels":true},"#,
    r#"{"name":"log","kind":"value","schema":"bytes","travels":false}],"#,
    r#""inputs":[{"name":"in","key":null,"value":"bytes"}],"outputs":[{"name":"out","key":null,"value":"bytes"}],"#,
    r#""timers":[{"name":"gap","time":"event"}],"#,
    r#""operator_states":[{"name":"seen","kind":"list","schema":"bytes"}]}"#
);

thread_local! {
    static BEHAVIOUR: RefCell<String> = const { RefCell::new(String::new()) };
    static SEEN: RefCell<Vec<StateItems>> = const { RefCell::new(Vec::new()) };
    static ROW: RefCell<Option<u32>> = const { RefCell::new(None) };
}

struct Hostile;

impl guest::Guest for Hostile {
    fn describe() -> String {
        // A test may have put another description into the component.
        let describe = std::hint::black_box(DESCRIBE);
        if describe.contains("\"sdk\":\"bomb\"") {
            return greed::describe();
        }
        describe.to_owned()
    }

    fn open(_: Header, _: OpenContext) -> Result<(), Failure> {
        std::panic::set_hook(Box::new(|info| {
            let (file, line, column) = info
                .location()
                .map_or(("", 0, 0), |at| (at.file(), at.line(), at.column()));
            let message = info.payload_as_str().unwrap_or("a panic without a message");
            host::panicked(message, file, line, column, ROW.with_borrow(|row| *row));
        }));
        let behaviour = host::config().rsplit('"').nth(1).unwrap_or_default().to_owned();
        if behaviour == "refuse" {
            return Err(Failure {
                row: None,
                message: format!("refused with {:?}", host::arguments()),
            });
        }
        if behaviour == "trap-in-open" {
            trap();
        }
        BEHAVIOUR.set(behaviour);
        Ok(())
    }

    fn process(_: Header, records: Batch, keyed: Keyed) -> Result<Outcome, Failure> {
        let behaviour = BEHAVIOUR.with_borrow(Clone::clone);
        match behaviour.as_str() {
            "trap" => trap(),
            "panic" => panic_at_bad_value(&records),
            "loop" => endless(),
            "grow" => grow(),
            "stack" => _ = deep(u64::from(records.input)),
            "fail" => {
                return Err(Failure {
                    row: Some(1),
                    message: "not a number: \"x\"".to_owned(),
                });
            }
            "fail-beyond" => {
                return Err(Failure {
                    row: Some(9),
                    message: "no such row".to_owned(),
                });
            }
            "filter" => return Ok(filter(&records)),
            "copy" => return Ok(copy(&records, &keyed)),
            "count" => return Ok(count(&records, &keyed)),
            "log" => log(),
            "read" => return Ok(read(&keyed)),
            greed if greed.starts_with("greed-") => return greed::outcome(greed, &records, &keyed),
            lie if lie.starts_with("lie-") => return Ok(lies::outcome(lie, &records)),
            _ => {}
        }
        Ok(echo(records.value_ends.len() as u32))
    }
}

impl timers::Guest for Hostile {
    fn on_timers(_: Header, timers: TimerBatch, _: Keyed) -> Result<Outcome, Failure> {
        let rows = timers.times.len() as u32;
        Ok(Outcome {
            outputs: vec![with_values((0..rows).collect(), "timer")],
            ..empty()
        })
    }
}

impl watermarks::Guest for Hostile {
    fn on_watermark(header: Header) -> Result<Outcome, Failure> {
        let mut output = with_values(Vec::new(), "watermark");
        output.value_data = b"watermark".to_vec();
        output.value_ends = vec![9];
        output.timestamps = vec![header.watermark];
        Ok(Outcome {
            outputs: vec![output],
            ..empty()
        })
    }
}

impl ending::Guest for Hostile {
    fn finish(_: Header) -> Result<Outcome, Failure> {
        Ok(echo(0))
    }

    fn finish_keys(_: Header, keyed: Keyed) -> Result<Outcome, Failure> {
        let keys = keyed.key_ends.len() as u32;
        Ok(Outcome {
            outputs: vec![with_values((0..keys).collect(), "end")],
            ..empty()
        })
    }
}

impl operator_state::Guest for Hostile {
    fn snapshot(_: Header, _: u64) -> Result<Vec<StateItems>, Failure> {
        // Reads are refused here: it is not a call with keys.
        assert!(matches!(
            state::value_get_many(1, &[0]),
            Err(state::StateError::OutsideCall)
        ));
        if BEHAVIOUR.with_borrow(|behaviour| behaviour == "lie-snapshot") {
            return Ok(vec![StateItems {
                state: 0,
                item_data: vec![1, 2],
                item_ends: vec![3],
            }]);
        }
        if BEHAVIOUR.with_borrow(|behaviour| behaviour == "lie-snapshot-state") {
            return Ok(vec![StateItems {
                state: 1,
                item_data: vec![],
                item_ends: vec![],
            }]);
        }
        Ok(SEEN.take())
    }

    fn restore(_: Header, states: Vec<StateItems>) -> Result<(), Failure> {
        SEEN.set(states);
        Ok(())
    }
}

impl migration::Guest for Hostile {
    fn migrate(_: Header, of: StateIndex, from_schema: String, older: Values) -> Result<Values, Failure> {
        if from_schema != "\"u32\"" {
            let message = format!("cannot migrate from {from_schema}");
            return Err(Failure { row: None, message });
        }
        let ends = if matches!(of, StateIndex::Keyed(9)) {
            Vec::new()
        } else {
            older.ends
        };
        Ok(Values { ends, ..older })
    }
}

export!(Hostile);

pub(crate) fn empty() -> Outcome {
    Outcome {
        outputs: Vec::new(),
        cells: Vec::new(),
        entries: None,
        timer_ops: Vec::new(),
        timer_keys: Vec::new(),
        timer_ids: Vec::new(),
        timer_times: Vec::new(),
    }
}

/// Passes all records through: nothing but their parents is returned.
pub(crate) fn echo(rows: u32) -> Outcome {
    let mut output = with_values(Vec::new(), "");
    output.parents = (0..rows).collect();
    Outcome {
        outputs: vec![output],
        ..empty()
    }
}

/// Records with a value of their own.
fn with_values(parents: Vec<u32>, value: &str) -> Output {
    let value_ends = (1..=parents.len()).map(|i| (i * value.len()) as u32).collect();
    let value_data = value.repeat(parents.len()).into_bytes();
    Output {
        port: 0,
        parents,
        key_data: vec![],
        key_ends: vec![],
        value_data,
        value_ends,
        timestamps: vec![],
    }
}

/// Keeps every second record.
fn filter(records: &Batch) -> Outcome {
    let mut outcome = echo(records.value_ends.len() as u32);
    outcome.outputs[0].parents.retain(|row| row % 2 == 0);
    outcome
}

/// Passes all records through, with every column copied.
fn copy(records: &Batch, keyed: &Keyed) -> Outcome {
    let mut outcome = echo(records.value_ends.len() as u32);
    let output = &mut outcome.outputs[0];
    output.value_data.clone_from(&records.value_data);
    output.value_ends.clone_from(&records.value_ends);
    output.timestamps.clone_from(&records.timestamps);
    for &key in &records.key_index {
        let start = if key == 0 {
            0
        } else {
            keyed.key_ends[key as usize - 1] as usize
        };
        output
            .key_data
            .extend_from_slice(&keyed.key_data[start..keyed.key_ends[key as usize] as usize]);
        output.key_ends.push(output.key_data.len() as u32);
    }
    outcome
}

/// Counts the records of each key; a count is 8 bytes, little-endian.
fn count(records: &Batch, keyed: &Keyed) -> Outcome {
    let mut counts = vec![0u64; keyed.key_ends.len()];
    for (key, count) in counts.iter_mut().enumerate() {
        let cells = &keyed.cells[0];
        if cells.present[key] != 0 {
            let end = cells.ends[key] as usize;
            *count = u64::from_le_bytes(cells.data[end - 8..end].try_into().expect("8 bytes"));
        }
    }
    for &key in &records.key_index {
        counts[key as usize] += 1;
    }
    Outcome {
        cells: vec![CellWrites {
            state: 0,
            keys: (0..counts.len() as u32).collect(),
            data: counts.iter().flat_map(|count| count.to_le_bytes()).collect(),
            ends: (1..=counts.len() as u32).map(|i| 8 * i).collect(),
            cleared: vec![],
        }],
        ..empty()
    }
}

/// Emits what it reads of the state that does not travel, or why it could not.
fn read(keyed: &Keyed) -> Outcome {
    let keys: Vec<u32> = (0..keyed.key_ends.len() as u32).collect();
    let errors = [
        state::value_get_many(0, &keys),
        state::value_get_many(7, &keys),
        state::value_get_many(1, &[99]),
    ];
    let mut output = with_values(Vec::new(), "");
    for answer in errors.into_iter().chain([state::value_get_many(1, &keys)]) {
        let text = match answer {
            Ok(values) => String::from_utf8(values.data).expect("text"),
            Err(error) => format!("{error:?}"),
        };
        output.parents.push(0);
        output.value_data.extend_from_slice(text.as_bytes());
        output.value_ends.push(output.value_data.len() as u32);
    }
    Outcome {
        outputs: vec![output],
        ..empty()
    }
}

fn log() {
    host::log(host::LogLevel::Warn, &"x".repeat(20_000));
    for i in 0..1_500 {
        host::log(host::LogLevel::Info, &format!("line {i}"));
        host::counter_add(&format!("counter-{i}"), 1);
    }
    host::gauge_set("gauge", 1.5);
}

fn trap() {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    #[expect(
        clippy::disallowed_methods,
        reason = "in a guest this is a trap, which is what is tested"
    )]
    std::process::abort();
}

fn panic_at_bad_value(records: &Batch) {
    let mut start = 0;
    for (row, &end) in records.value_ends.iter().enumerate() {
        ROW.set(Some(row as u32));
        let value = &records.value_data[start..end as usize];
        assert!(value != b"bad", "cannot parse {:?}", String::from_utf8_lossy(value));
        start = end as usize;
    }
    ROW.set(None);
}

fn endless() {
    let mut turns = 0u64;
    while std::hint::black_box(turns) < u64::MAX {
        turns += 1;
    }
}

fn grow() {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}

#[inline(never)]
fn deep(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 64]);
    if frame[0] == u64::MAX {
        0
    } else {
        deep(n + 1) + frame[63]
    }
}
