//! Calls that make the host hold much with few bytes of their own.

use crate::regraft::operator::state;
use crate::regraft::operator::types::{Batch, CellWrites, EntryWrites, Failure, Keyed, Outcome};
use crate::{echo, empty};

/// Number of records that are made of one.
const TIMES: usize = 5_000_000;
/// Number of times that one value is read.
const READS: usize = 1_000_000;
/// Length of a stored value.
const VALUE_BYTES: usize = 4 << 20;

/// A description of a million timers.
pub(crate) fn describe() -> String {
    let timers = r#"{"name":"a","time":"event"},"#.repeat(1_000_000);
    format!(r#"{{"wit":"0.2.0","timers":[{}]}}"#, timers.trim_end_matches(','))
}

/// Answers as `greed` says, which begins with `greed-`.
pub(crate) fn outcome(greed: &str, records: &Batch, keyed: &Keyed) -> Result<Outcome, Failure> {
    let keys = keyed.key_ends.len();
    match greed {
        "greed-outputs" => {
            let mut outcome = echo(0);
            outcome.outputs[0].parents = vec![0; TIMES];
            Ok(outcome)
        }
        "greed-reads" => {
            let found = state::value_get_many(1, &vec![0; READS]);
            let found = found.map_err(|error| failure(&format!("{error:?}")))?;
            assert!(found.present.len() == READS, "an answer of another length");
            Ok(store(keys))
        }
        "greed-state" => Ok(store(keys)),
        "greed-parts" => {
            // The length of a list of items without bytes.
            let mut outcome = echo(records.value_ends.len() as u32);
            outcome.outputs[0].value_data = [251, 255, 255].repeat(records.value_ends.len());
            outcome.outputs[0].value_ends = (1..=records.value_ends.len() as u32).map(|row| 3 * row).collect();
            Ok(outcome)
        }
        "greed-cell" => {
            let cells = CellWrites {
                state: 0,
                keys: (0..keys as u32).collect(),
                data: [251, 255, 255].repeat(keys),
                ends: (1..=keys as u32).map(|key| 3 * key).collect(),
                cleared: vec![],
            };
            Ok(Outcome {
                cells: vec![cells],
                ..empty()
            })
        }
        "greed-failure" => Err(Failure {
            row: Some(0),
            message: "x".repeat(50 << 20),
        }),
        _ => Ok(echo(records.value_ends.len() as u32)),
    }
}

fn failure(message: &str) -> Failure {
    Failure {
        row: None,
        message: message.to_owned(),
    }
}

/// Stores a value under each key, in the state that does not travel.
fn store(keys: usize) -> Outcome {
    let entries = EntryWrites {
        ops: vec![0; keys],
        states: vec![1; keys],
        keys: (0..keys as u32).collect(),
        entry_key_data: vec![],
        entry_key_ends: vec![],
        value_data: vec![b'v'; VALUE_BYTES * keys],
        value_ends: (1..=keys).map(|end| (end * VALUE_BYTES) as u32).collect(),
    };
    Outcome {
        entries: Some(entries),
        ..empty()
    }
}
