//! Counts the records of each key, and stands on the WIT package alone: what an operator of any language has to do.
//!
//! It emits `KEY COUNT` for each record, and `KEY COUNT.` for each key at the end of all inputs. Its state has the name
//! and the schema of that of `examples/word-count/count`, so that either goes on from the other's savepoints.

#![cfg(target_family = "wasm")]

wit_bindgen::generate!({
    path: "../../../wit",
    inline: r"
        package regraft-test:raw;

        world raw {
            include regraft:operator/operator@0.2.0;
            export regraft:operator/ending@0.2.0;
        }
    ",
    generate_all,
});

use exports::regraft::operator::{ending, guest};
use regraft::operator::types::{Batch, CellWrites, Failure, Header, Keyed, OpenContext, Outcome, Output};

/// Without `calls` the host calls every interface that the component exports.
const DESCRIBE: &str = concat!(
    r#"{"wit":"0.2.0","sdk":"none","encoding":"bincode2","key":{"name":"word","type":"string"},"#,
    r#""states":[{"name":"count","kind":"value","schema":"u64","travels":true}],"#,
    r#""outputs":[{"name":"counts","key":null,"value":"text"}],"of_a_later_version":["ignored"]}"#
);

struct Raw;

impl guest::Guest for Raw {
    fn describe() -> String {
        DESCRIBE.to_owned()
    }

    fn open(_: Header, _: OpenContext) -> Result<(), Failure> {
        Ok(())
    }

    fn process(_: Header, records: Batch, state: Keyed) -> Result<Outcome, Failure> {
        let mut counts = counts(&state)?;
        let mut touched = vec![false; counts.len()];
        let mut lines = Lines::default();
        for (row, key) in records.key_index.iter().enumerate() {
            let at = *key as usize;
            counts[at] += 1;
            touched[at] = true;
            lines.push(row, item(&state.key_data, &state.key_ends, at), counts[at], "");
        }
        let mut written = CellWrites {
            state: 0,
            keys: Vec::new(),
            data: Vec::new(),
            ends: Vec::new(),
            cleared: Vec::new(),
        };
        for at in (0..counts.len()).filter(|at| touched[*at]) {
            written.keys.push(at as u32);
            encode(counts[at], &mut written.data);
            written.ends.push(written.data.len() as u32);
        }
        Ok(outcome(lines, vec![written]))
    }
}

impl ending::Guest for Raw {
    fn finish_keys(_: Header, state: Keyed) -> Result<Outcome, Failure> {
        let mut lines = Lines::default();
        for (at, count) in counts(&state)?.into_iter().enumerate() {
            lines.push(at, item(&state.key_data, &state.key_ends, at), count, ".");
        }
        Ok(outcome(lines, Vec::new()))
    }

    fn finish(_: Header) -> Result<Outcome, Failure> {
        Ok(outcome(Lines::default(), Vec::new()))
    }
}

export!(Raw);

/// Records that go out.
#[derive(Default)]
struct Lines {
    parents: Vec<u32>,
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Lines {
    fn push(&mut self, row: usize, key: &[u8], count: u64, end: &str) {
        self.parents.push(row as u32);
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(format!(" {count}{end}").as_bytes());
        self.ends.push(self.data.len() as u32);
    }
}

fn outcome(lines: Lines, cells: Vec<CellWrites>) -> Outcome {
    Outcome {
        outputs: vec![Output {
            port: 0,
            parents: lines.parents,
            key_data: Vec::new(),
            key_ends: Vec::new(),
            value_data: lines.data,
            value_ends: lines.ends,
            timestamps: Vec::new(),
        }],
        cells,
        entries: None,
        timer_ops: Vec::new(),
        timer_keys: Vec::new(),
        timer_ids: Vec::new(),
        timer_times: Vec::new(),
    }
}

fn item<'a>(data: &'a [u8], ends: &[u32], at: usize) -> &'a [u8] {
    let start = if at == 0 { 0 } else { ends[at - 1] as usize };
    &data[start..ends[at] as usize]
}

/// The count of each key of the call.
fn counts(state: &Keyed) -> Result<Vec<u64>, Failure> {
    let cells = &state.cells[0];
    let count = |at: usize| match cells.present[at] {
        0 => Ok(0),
        _ => decode(item(&cells.data, &cells.ends, at)),
    };
    (0..state.key_ends.len()).map(count).collect()
}

/// A `u64` as `docs/formats/describe.md` has it: one byte up to 250, else a byte that says how many follow.
fn encode(n: u64, to: &mut Vec<u8>) {
    match n {
        0..=250 => to.push(n as u8),
        251..=0xffff => {
            to.push(251);
            to.extend_from_slice(&(n as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            to.push(252);
            to.extend_from_slice(&(n as u32).to_le_bytes());
        }
        _ => {
            to.push(253);
            to.extend_from_slice(&n.to_le_bytes());
        }
    }
}

fn decode(bytes: &[u8]) -> Result<u64, Failure> {
    let (len, rest) = match bytes {
        [n @ 0..=250] => return Ok(u64::from(*n)),
        [251, rest @ ..] => (2, rest),
        [252, rest @ ..] => (4, rest),
        [253, rest @ ..] => (8, rest),
        _ => (0, bytes),
    };
    let mut word = [0; 8];
    if len == 0 || rest.len() != len {
        return Err(Failure {
            row: None,
            message: format!("{bytes:?} is no count"),
        });
    }
    word[..len].copy_from_slice(rest);
    Ok(u64::from_le_bytes(word))
}
