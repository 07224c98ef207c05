//! Outcomes that contradict themselves or the call, one for each column.

use crate::regraft::operator::types::{Batch, CellWrites, EntryWrites, Outcome, Output};
use crate::{echo, empty};

pub(crate) fn outcome(lie: &str, records: &Batch) -> Outcome {
    let rows = records.value_ends.len() as u32;
    let mut outcome = echo(rows);
    let output = &mut outcome.outputs[0];
    match lie {
        "lie-ends" => (output.value_data, output.value_ends) = (vec![1, 2, 3], vec![2, 1, 3]),
        "lie-length" => (output.value_data, output.value_ends) = (vec![1; rows as usize + 1], (1..=rows + 1).collect()),
        "lie-parents" => output.parents[rows as usize - 1] = rows,
        "lie-port" => output.port = 7,
        "lie-timestamps" => output.timestamps = vec![1],
        "lie-keys" => output.key_data = vec![1],
        "lie-cells" => return cells(&[(0, &[0, 99], &[])]),
        "lie-cells-twice" => return cells(&[(0, &[1, 0, 1], &[])]),
        "lie-cleared" => return cells(&[(0, &[0], &[0])]),
        "lie-cells-state" => return cells(&[(1, &[0], &[])]),
        "lie-cells-no-state" => return cells(&[(2, &[0], &[])]),
        "lie-cells-state-twice" => return cells(&[(0, &[0], &[]), (0, &[1], &[])]),
        "lie-timers" => {
            return Outcome {
                timer_ops: vec![2],
                timer_keys: vec![0],
                timer_ids: vec![0],
                timer_times: vec![0],
                ..empty()
            };
        }
        "lie-timer-columns" => {
            return Outcome {
                timer_ops: vec![0, 1],
                timer_keys: vec![0],
                ..empty()
            };
        }
        "lie-entries" => {
            let entries = EntryWrites {
                ops: vec![0],
                states: vec![0],
                keys: vec![0],
                entry_key_data: vec![],
                entry_key_ends: vec![],
                value_data: vec![1],
                value_ends: vec![1],
            };
            return Outcome {
                entries: Some(entries),
                ..empty()
            };
        }
        "lie-large" => {
            return Outcome {
                outputs: aliased(),
                ..empty()
            };
        }
        _ => {}
    }
    outcome
}

/// Writes of empty values to these states and keys, and keys that are cleared.
fn cells(all: &[(u32, &[u32], &[u32])]) -> Outcome {
    let writes = |(state, keys, cleared): &(u32, &[u32], &[u32])| CellWrites {
        state: *state,
        keys: keys.to_vec(),
        data: vec![],
        ends: vec![0; keys.len()],
        cleared: cleared.to_vec(),
    };
    Outcome {
        cells: all.iter().map(writes).collect(),
        ..empty()
    }
}

/// A hundred outputs that all point to the same megabyte: the host would copy it a hundred times.
fn aliased() -> Vec<Output> {
    let shared = Box::leak(vec![0u8; 1 << 20].into_boxed_slice());
    let mut alias = |_| {
        let mut output = echo(0).outputs.remove(0);
        // SAFETY: never dropped: they are passed to the host, which refuses them and never calls this instance again.
        output.value_data = unsafe { Vec::from_raw_parts(shared.as_mut_ptr(), shared.len(), shared.len()) };
        output
    };
    (0..100).map(&mut alias).collect()
}
