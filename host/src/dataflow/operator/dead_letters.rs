//! Records that an operator could not process, as an output like any other: JSON lines, cut at the same barriers and
//! committed in the same rounds as the job's sinks.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regraft_guest_runtime::trap::GuestError;
use regraft_model::batch::Batch;
use regraft_model::describe::{Description, PortValue};
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::schema::Type;
use regraft_model::value::text::{Hex, Json, cut};
use regraft_model::value::{Value, decode, decode_key};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::connector::sink::{SinkError, SinkSnapshot, SinkWriter};
use crate::dataflow::failure::{Cause, Record, SHOWN_BYTES_MAX, Shown};

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
        let mut line = Line {
            error: error.to_string(),
            kind,
            subtask,
            uid: uid.as_str(),
            ..Line::default()
        };
        match letter {
            Letter::Record(input, batch, row) => {
                line.position = batch.origin.as_ref().and_then(|origin| origin.text(row));
                if !batch.keys.is_none() {
                    let key = batch.key(row as usize);
                    (line.key, line.key_hex) = Shape::of_key(key_type(description, input), key).or_hex(key);
                }
                let value = batch.values.get(row as usize);
                (line.value, line.value_hex) = Shape::of_value(value_type(description, input), value).or_hex(value);
            }
            Letter::Timer(key, name, time) => {
                (line.key, line.key_hex) = Shape::of_key(key_type(description, 0), key).or_hex(key);
                line.timer = Some(Timer { name, time });
            }
        }
        let mut text = vec![];
        // Writing to a vector cannot fail.
        let _ = serde_json::to_writer(&mut text, &line);
        let mut batch = Batch::default();
        batch.values.push(&text);
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
            *key = Shape::of_key(key_type, bytes).cut(bytes);
        }
        let value_type = value_type(description, input);
        if let Some(PortValue::Record(_)) = value_type {
            let bytes = batch.values.get(row as usize);
            *value = Shape::of_value(value_type, bytes).cut(bytes);
        }
    }
    record
}

/// A dead letter. Its fields are in the order of their names, as in any JSON of this host.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    error: String,
    key: Shape<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<Hex<'a>>,
    kind: &'a str,
    position: Option<String>,
    subtask: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer: Option<Timer<'a>>,
    uid: &'a str,
    value: Shape<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<Hex<'a>>,
}

/// A timer in a dead letter.
#[derive(Debug, Serialize)]
struct Timer<'a> {
    name: &'a str,
    time: i64,
}

/// A key or value as JSON.
#[derive(Debug, Default)]
enum Shape<'a> {
    /// It has no JSON of its own.
    #[default]
    None,
    Text(&'a str),
    Value(Cow<'a, Type>, Value),
}

impl Serialize for Shape<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => to.serialize_unit(),
            Self::Text(text) => to.serialize_str(text),
            Self::Value(ty, value) => Json(ty, value).serialize(to),
        }
    }
}

impl<'a> Shape<'a> {
    /// Decodes a key by its declared type; none if it does not decode, or is raw and not text.
    fn of_key(ty: Option<&'a Type>, key: &'a [u8]) -> Self {
        match ty.filter(|ty| **ty != Type::Bytes) {
            Some(ty) => decode_key(ty, key).map_or(Self::None, |value| Self::Value(Cow::Borrowed(ty), value)),
            None => Self::of_text(key),
        }
    }

    /// Decodes a value by the type that its port declares; none if it does not decode, which may be the reason why it is
    /// here, or is raw and not text.
    fn of_value(port: Option<&PortValue>, value: &'a [u8]) -> Self {
        let Some(PortValue::Record(record)) = port else {
            return Self::of_text(value);
        };
        let ty = Type::Struct(record.clone());
        decode(&ty, value).map_or(Self::None, |value| Self::Value(Cow::Owned(ty), value))
    }

    fn of_text(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::None, Self::Text)
    }

    /// Returns the fields of a letter: one without JSON of its own stays null, and its bytes are in `<name>_hex`. Text that
    /// looks like hex is thus never taken for bytes.
    fn or_hex(self, bytes: &'a [u8]) -> (Self, Option<Hex<'a>>) {
        let hex = matches!(self, Self::None).then_some(Hex(bytes));
        (self, hex)
    }

    /// Renders it for a message, or its bytes where it has no JSON.
    fn cut(self, bytes: &[u8]) -> String {
        match self {
            Self::None => cut(&Hex(bytes), SHOWN_BYTES_MAX),
            shape => cut(&shape, SHOWN_BYTES_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use regraft_model::schema::{Field, StructType};

    use super::*;

    fn value(port: &PortValue, bytes: &[u8]) -> serde_json::Value {
        let (value, hex) = Shape::of_value(Some(port), bytes).or_hex(bytes);
        let mut line = json!({ "value": value });
        if let Some(hex) = hex {
            line["value_hex"] = json!(hex);
        }
        line
    }

    fn record(ty: Type) -> PortValue {
        let field = Field {
            name: "n".to_owned(),
            ty,
            aliases: vec![],
            default: false,
        };
        PortValue::Record(StructType {
            name: "R".to_owned(),
            fields: vec![field],
        })
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
        let port = record(Type::String);
        assert_eq!(value(&port, b"\x01a"), json!({ "value": { "n": "a" } }));
        assert_eq!(value(&port, b"ab"), json!({ "value": null, "value_hex": "6162" }));
    }

    #[test]
    fn keys_differ_as_values_do() {
        let key = |ty: &Type, bytes: &[u8]| json!(Shape::of_key(Some(ty), bytes));
        assert_eq!(key(&Type::Bytes, b"a"), json!("a"));
        assert_eq!(key(&Type::Bytes, b"\xff"), json!(null));
        assert_eq!(key(&Type::U64, b"a"), json!(null));
        assert_eq!(key(&Type::U64, &[7, 0, 0, 0, 0, 0, 0, 0]), json!(7));
    }

    #[test]
    fn a_message_keeps_the_beginning_of_a_long_value() {
        let port = record(Type::Bytes);
        let value = [&[251, 0x10, 0x27][..], &[0xab; 10_000]].concat();
        let shown = Shape::of_value(Some(&port), &value).cut(&value);
        assert_eq!(shown.len(), 200 + "… (20008 bytes)".len());
        assert!(
            shown.starts_with(r#"{"n":"abab"#) && shown.ends_with("ab… (20008 bytes)"),
            "{shown}"
        );
        let shown = Shape::of_value(Some(&port), &value[..1000]).cut(&value[..1000]);
        assert!(
            shown.starts_with("\"fb1027ab") && shown.ends_with("aba… (2002 bytes)"),
            "{shown}"
        );
    }
}
