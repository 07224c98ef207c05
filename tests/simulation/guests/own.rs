//! Operators with state of their own: records held back, the number of records seen, and a table of keys.

use std::collections::BTreeSet;

use regraft_guest_runtime::call::{BatchView, KeyedView, OpenContext, OperatorState, Outcome, Output};
use regraft_model::batch::BytesColumn;
use regraft_model::schema::Type;
use regraft_model::value::{Value, decode, encode};

use super::{Logic, item};

/// Name of the list state of records held back.
pub const HELD: &str = "held";
/// Name of the union state with the number of records seen by each subtask.
pub const SEEN: &str = "seen";
/// Name of the broadcast state of keys.
pub const WORDS: &str = "words";

/// Number of records that are emitted at a time.
const AT_A_TIME: usize = 4;

/// A key and a value.
pub type Held = (Vec<u8>, Vec<u8>);

/// State that an instance keeps in memory.
#[derive(Debug, Default)]
pub struct Own {
    subtask: u32,
    parallelism: u32,
    held: Vec<Held>,
    seen: u64,
    words: BTreeSet<Vec<u8>>,
}

fn encoded(bytes: Vec<u8>) -> Vec<u8> {
    let mut item = vec![];
    encode(&Type::Bytes, &Value::Bytes(bytes), &mut item).unwrap_or_else(|error| panic!("{error}"));
    item
}

/// Decodes the bytes of an item.
pub fn decoded(item: &[u8]) -> Result<Vec<u8>, String> {
    match decode(&Type::Bytes, item) {
        Ok(Value::Bytes(bytes)) => Ok(bytes),
        other => Err(format!("{other:?} is no item")),
    }
}

/// Decodes a held record from its item.
pub fn held(item: &[u8]) -> Result<Held, String> {
    let bytes = decoded(item)?;
    let (len, rest) = bytes.split_first().ok_or("an empty item")?;
    let (key, value) = rest
        .split_at_checked(usize::from(*len))
        .ok_or("an item that is too short")?;
    Ok((key.to_vec(), value.to_vec()))
}

/// Decodes a subtask and the number of records that it has seen.
pub fn seen(item: &[u8]) -> Result<(u64, u64), String> {
    let bytes = decoded(item)?;
    let (subtask, count) = bytes.split_first_chunk().ok_or("an item that is too short")?;
    let count = count.first_chunk().ok_or("an item that is too short")?;
    Ok((u64::from_le_bytes(*subtask), u64::from_le_bytes(*count)))
}

/// Renders the line of a subtask that has ended.
pub fn ended(subtask: u32) -> Vec<u8> {
    format!("subtask {subtask} has ended").into_bytes()
}

impl Own {
    pub fn new(context: &OpenContext) -> Self {
        Self {
            subtask: context.subtask,
            parallelism: context.parallelism,
            ..Self::default()
        }
    }

    pub fn process(&mut self, logic: Logic, batch: &BatchView<'_>, keyed: &KeyedView<'_>) -> Outcome {
        let mut out = Output::default();
        for row in 0..batch.rows() {
            let at = batch.key_index.get(row).map(|at| *at as usize);
            let key = at.map_or(&[][..], |at| item(keyed.key_data, keyed.key_ends, at));
            let value = item(batch.value_data, batch.value_ends, row);
            match (logic, batch.input) {
                (Logic::Table, 0) | (Logic::Ends, _) => {
                    out.parents.push(row as u32);
                    out.values.push(value);
                }
                (Logic::Table, _) => _ = self.words.insert(key.to_vec()),
                _ => {
                    self.seen += 1;
                    self.held.push((key.to_vec(), value.to_vec()));
                    if self.held.len() >= AT_A_TIME {
                        out.parents.resize(out.parents.len() + self.held.len(), row as u32);
                        self.give(&mut out);
                    }
                }
            }
        }
        Outcome {
            outputs: vec![out],
            ..Outcome::default()
        }
    }

    fn give(&mut self, out: &mut Output) {
        for (key, value) in self.held.drain(..) {
            out.keys.push(&key);
            out.values.push(&value);
        }
    }

    /// Emits the rest at the end.
    pub fn finish(&mut self, logic: Logic) -> Outcome {
        let mut out = Output::default();
        self.give(&mut out);
        if logic == Logic::Ends {
            out.values.push(&ended(self.subtask));
        }
        Outcome {
            outputs: vec![out],
            ..Outcome::default()
        }
    }

    pub fn snapshot(&self, logic: Logic) -> Vec<OperatorState> {
        let state = |name: &str, items: &mut dyn Iterator<Item = Vec<u8>>| {
            let mut column = BytesColumn::default();
            items.for_each(|item| column.push(&encoded(item)));
            OperatorState {
                name: name.to_owned(),
                items: column,
            }
        };
        match logic {
            Logic::Hold => {
                let held = |(key, value): &Held| [&[key.len() as u8], &key[..], value].concat();
                let seen = [&u64::from(self.subtask).to_le_bytes()[..], &self.seen.to_le_bytes()].concat();
                vec![
                    state(HELD, &mut self.held.iter().map(held)),
                    state(SEEN, &mut std::iter::once(seen)),
                ]
            }
            Logic::Table => vec![state(WORDS, &mut self.words.iter().cloned())],
            _ => vec![],
        }
    }

    /// Restores operator state. Of a union, a subtask takes the items that are its own at the present parallelism, so
    /// that each item is taken once.
    pub fn restore(&mut self, states: &[OperatorState]) {
        let wrong = |error: String| -> ! { panic!("operator state that was never written: {error}") };
        for state in states {
            for item in state.items.iter() {
                match state.name.as_str() {
                    HELD => self.held.push(held(item).unwrap_or_else(|error| wrong(error))),
                    SEEN => {
                        let (of, count) = seen(item).unwrap_or_else(|error| wrong(error));
                        if of % u64::from(self.parallelism) == u64::from(self.subtask) {
                            self.seen += count;
                        }
                    }
                    _ => _ = self.words.insert(decoded(item).unwrap_or_else(|error| wrong(error))),
                }
            }
        }
    }
}
