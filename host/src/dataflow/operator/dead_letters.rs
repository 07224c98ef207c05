//! Records that an operator could not process, as an output like any other: JSON lines, cut at the same barriers and
//! committed in the same rounds as the job's sinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regraft_guest_runtime::trap::GuestError;
use regraft_model::batch::Batch;
use regraft_model::describe::{Description, PortValue};
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::schema::Type;
use regraft_model::value::{Decoder, Integers, Value, decode_key, to_json};
use serde_json::json;

use crate::connector::sink::{SinkError, SinkSnapshot, SinkWriter};
use crate::dataflow::failure::{Cause, Record, Shown, shown_text};

/// The dead letters of an operator, over all its subtasks, and their limit.
#[derive(Debug)]
pub struct Budget {
    max: Option<u64>,
    count: AtomicU64,
}

impl Budget {
    /// Creates a budget. `max` is the limit, `None` for no limit; `count` the number of dead letters in the state that
    /// the job starts from.
    #[must_use]
    pub const fn new(max: Option<u64>, count: u64) -> Self {
        let count = AtomicU64::new(count);
        Self { max, count }
    }

    /// Takes one dead letter off the budget. Returns the limit as the error where it is exhausted.
    fn take(&self) -> Result<(), u64> {
        let max = self.max.unwrap_or(u64::MAX);
        let more = |count: u64| (count < max).then(|| count + 1);
        match self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(max),
        }
    }
}

/// The dead letters of one operator in one subtask.
pub struct DeadLetters {
    writer: Box<dyn SinkWriter>,
    budget: Arc<Budget>,
    /// Dead letters of this subtask. Those from before a restore are counted to one of the subtasks.
    count: u64,
}

/// A row that could not be processed.
#[derive(Debug, Clone, Copy)]
pub(in crate::dataflow) enum Letter<'a> {
    /// A record: number of the input, batch, and row in it.
    Record(u32, &'a Batch, u32),
    /// A timer: key, name, and time in milliseconds.
    Timer(&'a [u8], &'a str, i64),
}

/// Returns the number of dead letters in the saved state of a subtask, or of all of them.
#[must_use]
pub fn count_of(state: &serde_json::Value) -> u64 {
    state["dead_letters"].as_u64().unwrap_or(0)
}

/// Merges the saved states of all subtasks into one, as for a sink.
#[must_use]
pub fn total(states: &[serde_json::Value]) -> serde_json::Value {
    json!({ "dead_letters": states.iter().map(count_of).sum::<u64>() })
}

impl DeadLetters {
    /// Creates the dead letters of a subtask. `writer` takes values that are lines of JSON already; `count` is the
    /// number from before a restore, see [`total`].
    #[must_use]
    pub const fn new(writer: Box<dyn SinkWriter>, budget: Arc<Budget>, count: u64) -> Self {
        Self { writer, budget, count }
    }

    /// Writes one dead letter.
    ///
    /// # Errors
    /// [`Cause::Budget`] if the budget is exhausted; [`Cause::Sink`] if it cannot be written.
    pub(in crate::dataflow) fn write(
        &mut self,
        (uid, subtask): (&OperatorUid, u32),
        description: &Description,
        letter: Letter<'_>,
        error: &GuestError,
    ) -> Result<(), Cause> {
        if let Err(budget) = self.budget.take() {
            let error = Box::new(error.clone());
            return Err(Cause::Budget { budget, error });
        }
        self.count += 1;
        let kind = match error {
            GuestError::Failed { .. } => "failure",
            _ => "trap",
        };
        let mut line = json!({
            "uid": uid.as_str(),
            "subtask": subtask,
            "position": null,
            "key": null,
            "value": null,
            "kind": kind,
            "error": error.to_string(),
        });
        match letter {
            Letter::Record(input, batch, row) => {
                line["position"] = json!(batch.origin.as_ref().and_then(|origin| origin.text(row)));
                if !batch.keys.is_none() {
                    let key = batch.key(row as usize);
                    set(&mut line, "key", key_json(key_type(description, input), key), key);
                }
                let value = batch.values.get(row as usize);
                set(
                    &mut line,
                    "value",
                    value_json(value_type(description, input), value),
                    value,
                );
            }
            Letter::Timer(key, name, time) => {
                set(&mut line, "key", key_json(key_type(description, 0), key), key);
                line["timer"] = json!({ "name": name, "time": time });
            }
        }
        let mut batch = Batch::default();
        batch.values.push(line.to_string().as_bytes());
        Ok(self.writer.write(&batch)?)
    }

    /// Prepares the written lines at a barrier, and begins a new transaction, as a sink does.
    ///
    /// # Errors
    /// [`SinkError`].
    pub(in crate::dataflow) fn prepare(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        let snapshot = self.writer.prepare(id)?;
        self.writer.begin()?;
        Ok(SinkSnapshot {
            state: match self.count {
                0 => serde_json::Value::Null,
                count => json!({ "dead_letters": count }),
            },
            ..snapshot
        })
    }

    /// Handles the commit of everything prepared up to this round.
    pub(in crate::dataflow) fn committed(&mut self, id: CheckpointId) {
        self.writer.committed(id);
    }

    /// Drops unprepared lines.
    pub(in crate::dataflow) fn abort(&mut self) {
        self.writer.abort();
    }
}

/// Returns the type of a record's key, if it is declared: the operator's key type, else that of the input.
fn key_type(description: &Description, input: u32) -> Option<&Type> {
    let port = || description.input(input as usize)?.key.as_ref();
    description.key.as_ref().or_else(port).map(|key| &key.ty)
}

fn value_type(description: &Description, input: u32) -> Option<&PortValue> {
    description.input(input as usize).map(|port| &port.value)
}

/// Describes a row of a batch for a message, decoding typed keys and values and showing others as bytes.
pub(in crate::dataflow) fn shown_record(description: &Description, input: u32, batch: &Batch, row: u32) -> Record {
    let mut record = Record::of(batch, Some(row));
    if let Some((key, Shown::Value(value))) = &mut record.content {
        let key_type = key_type(description, input);
        if key_type.is_some_and(|ty| !matches!(ty, Type::String | Type::Bytes)) {
            let bytes = batch.key(row as usize);
            *key = shown_text(&key_json(key_type, bytes).unwrap_or_else(|| hex(bytes)).to_string());
        }
        let value_type = value_type(description, input);
        if let Some(PortValue::Record(_)) = value_type {
            let bytes = batch.values.get(row as usize);
            *value = shown_text(&value_json(value_type, bytes).unwrap_or_else(|| hex(bytes)).to_string());
        }
    }
    record
}

/// Sets the key or value of a letter. One without JSON of its own stays null, and its bytes are in `<name>_hex`: text that
/// looks like hex is thus never taken for bytes.
fn set(line: &mut serde_json::Value, name: &str, json: Option<serde_json::Value>, bytes: &[u8]) {
    match json {
        Some(json) => line[name] = json,
        None => line[format!("{name}_hex")] = hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> serde_json::Value {
    to_json(&Type::Bytes, &Value::Bytes(bytes.to_vec()))
}

/// Renders bytes as text; `None` if they are not UTF-8.
fn text(bytes: &[u8]) -> Option<serde_json::Value> {
    std::str::from_utf8(bytes).ok().map(|text| json!(text))
}

/// Renders a key by its declared type; `None` if it does not decode, or is raw and not text.
fn key_json(ty: Option<&Type>, key: &[u8]) -> Option<serde_json::Value> {
    match ty.filter(|ty| **ty != Type::Bytes) {
        Some(ty) => decode_key(ty, key).ok().map(|value| to_json(ty, &value)),
        None => text(key),
    }
}

/// Renders a value by the type that its port declares; `None` if it does not decode, which may be the reason why it is
/// here, or is raw and not text.
fn value_json(port: Option<&PortValue>, value: &[u8]) -> Option<serde_json::Value> {
    let Some(PortValue::Record(record)) = port else {
        return text(value);
    };
    let ty = Type::Struct(record.clone());
    let mut decoder = Decoder::new(value, Integers::Variable);
    let decoded = decoder.value(&ty).and_then(|value| decoder.finish().map(|()| value));
    decoded.ok().map(|value| to_json(&ty, &value))
}

#[cfg(test)]
mod tests {
    use regraft_model::schema::{Field, StructType};

    use super::*;

    fn value(port: &PortValue, bytes: &[u8]) -> serde_json::Value {
        let mut line = json!({ "value": null });
        set(&mut line, "value", value_json(Some(port), bytes), bytes);
        line
    }

    #[test]
    fn bytes_and_text_that_reads_like_them_differ() {
        for port in [PortValue::Bytes, PortValue::Text] {
            assert_eq!(value(&port, b"fffe"), json!({ "value": "fffe" }));
            assert_eq!(value(&port, b"\xff\xfe"), json!({ "value": null, "value_hex": "fffe" }));
        }
    }

    #[test]
    fn a_value_that_does_not_decode_is_its_bytes() {
        let field = Field {
            name: "n".to_owned(),
            ty: Type::String,
            aliases: vec![],
            default: false,
        };
        let port = PortValue::Record(StructType {
            name: "R".to_owned(),
            fields: vec![field],
        });
        assert_eq!(value(&port, b"\x01a"), json!({ "value": { "n": "a" } }));
        assert_eq!(value(&port, b"ab"), json!({ "value": null, "value_hex": "6162" }));
    }

    #[test]
    fn keys_differ_as_values_do() {
        assert_eq!(key_json(Some(&Type::Bytes), b"a"), Some(json!("a")));
        assert_eq!(key_json(Some(&Type::Bytes), b"\xff"), None);
        assert_eq!(key_json(Some(&Type::U64), b"a"), None);
    }
}
