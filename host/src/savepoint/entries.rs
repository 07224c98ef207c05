//! The entries of a savepoint's states, for people and for comparing two savepoints.
//!
//! They are in order of key group, key and entry, so the order is the same at any parallelism.

use std::collections::BTreeMap;
use std::fmt::Write;

use regraft_model::id::OperatorUid;
use regraft_model::key_group::KeyGroupRange;
use regraft_model::schema::Type;
use regraft_model::value::{self, Integers, Value, ValueError};
use serde::Serialize;
use serde_json::Value as Json;

use crate::savepoint::budget::Budget;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{MetadataError, StateEntry};
use crate::savepoint::rows::{Entries, RowsError, StateRows};
use crate::state::rows::{NEVER, REMOVED, split_timer_entry};

/// One entry of a state. Fields that its kind does not have are absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownEntry {
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Json>,
    /// Position, from 0, of a list's item or of an item of operator state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Key of a map's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_key: Option<Json>,
    /// Name of a timer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<String>,
    /// Time at which a timer is due, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// Its value. Timers have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Time of expiry in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

impl ShownEntry {
    /// Formats the entry as a line for people. `time` formats milliseconds.
    #[must_use]
    pub fn line(&self, time: impl Fn(i64) -> String) -> String {
        let mut line = String::new();
        if let Some(key) = &self.key {
            let _ = write!(line, "{key}");
        }
        if let Some(index) = self.index {
            let _ = write!(line, "[{index}]");
        }
        if let Some(key) = &self.map_key {
            let _ = write!(line, "[{key}]");
        }
        if let (Some(timer), Some(at)) = (&self.timer, self.time) {
            let _ = write!(line, " {timer} at {}", time(at));
        }
        if let Some(value) = &self.value {
            let _ = write!(line, ": {value}");
        }
        if let Some(expires) = self.expires {
            let _ = write!(line, " (expires at {})", time(expires));
        }
        line
    }
}

/// A row without the part that orders it.
struct Row {
    /// Index of its file among the state's files.
    file: usize,
    group: u16,
    value: Vec<u8>,
    schema: u16,
    expires: i64,
}

/// Sort key of rows: key group, 0, key, entry key.
/// For operator state: subtask, position, and no keys.
type Order = (u64, u64, Vec<u8>, Vec<u8>);

/// Reads all entries of a state.
///
/// # Errors
/// Returns [`MetadataError`], with the file's path, if a file cannot be read, a value is not of its type, or the entries do
/// not fit in the budget.
pub async fn read(
    savepoint: &Savepoint,
    uid: &OperatorUid,
    state: &StateEntry,
    budget: &Budget,
) -> Result<Vec<ShownEntry>, MetadataError> {
    let mut all: BTreeMap<Order, Row> = BTreeMap::new();
    for (at, file) in state.files.iter().enumerate() {
        let whole = KeyGroupRange {
            first: 0,
            last: u16::MAX,
        };
        for rows in savepoint.read_rows(state, file, whole, budget).await? {
            collect(state, at, &rows, &mut all);
        }
    }
    let damaged = |row: &Row, source: ValueError| MetadataError::Rows {
        path: savepoint.url_of(state.files.get(row.file).map_or("", |file| &file.path)),
        source: Box::new(RowsError::Value {
            state: format!("{uid}/{}", state.name),
            group: row.group,
            expected: state.schema.to_string(),
            source,
        }),
    };
    let mut shown: Vec<ShownEntry> = Vec::with_capacity(all.len());
    let mut position = Position::default();
    for ((.., key, entry), row) in &all {
        let index = position.next(state, key);
        let file = state.files.get(row.file);
        let bytes = weight(state, (key, entry), row).map_err(|error| damaged(row, error))?;
        if let (Err(over), Some(file)) = (budget.take(bytes), file) {
            return Err(savepoint.over_budget(state, file, over));
        }
        let entry = show(state, (key, entry), row, index).map_err(|error| damaged(row, error))?;
        shown.push(entry);
    }
    Ok(shown)
}

/// Collects rows. Later rows of a file, and rows of later files of the same subtask, replace earlier ones.
fn collect(state: &StateEntry, file: usize, rows: &StateRows, all: &mut BTreeMap<Order, Row>) {
    let subtask = state.files.get(file).map_or(0, |file| u64::from(file.subtask.0));
    for i in 0..rows.len() {
        let key = rows.keys.get(i);
        let order = match state.entries_of_key() {
            Entries::Items => {
                let position = key.first_chunk().copied().map_or(0, u64::from_le_bytes);
                (subtask, position, vec![], vec![])
            }
            _ => {
                let entry = rows.entry_key(i).unwrap_or_default();
                (u64::from(rows.group.0), 0, key.to_vec(), entry.to_vec())
            }
        };
        if rows.schemas[i] == REMOVED {
            all.remove(&order);
            continue;
        }
        let row = Row {
            file,
            group: rows.group.0,
            value: rows.values.get(i).to_vec(),
            schema: rows.schemas[i],
            expires: rows.expires_at(i),
        };
        all.insert(order, row);
    }
}

/// Counts the items of a list.
#[derive(Default)]
struct Position {
    key: Vec<u8>,
    next: u64,
}

impl Position {
    /// Returns the position of the next row among those of its key, or `None` for a kind without positions.
    fn next(&mut self, state: &StateEntry, key: &[u8]) -> Option<u64> {
        if !matches!(state.entries_of_key(), Entries::List | Entries::Items) {
            return None;
        }
        if self.key != key {
            (self.key, self.next) = (key.to_vec(), 0);
        }
        self.next += 1;
        Some(self.next - 1)
    }
}

/// Returns the type of a row's value.
fn type_of<'a>(state: &'a StateEntry, row: &Row) -> &'a Type {
    let older = usize::from(row.schema).checked_sub(1);
    older.and_then(|at| state.schemas.get(at)).unwrap_or(&state.schema)
}

/// Returns the bytes of memory that a row takes when it is shown as a tree.
fn weight(state: &StateEntry, (key, entry): (&[u8], &[u8]), row: &Row) -> Result<u64, ValueError> {
    let mut bytes = (key.len() + entry.len() + row.value.len()) as u64;
    // Raw keys are as they are shown.
    let mut add = |ty: &Type, of: &[u8], integers: Integers| {
        if !(integers == Integers::Fixed && matches!(ty, Type::String | Type::Bytes)) {
            bytes = bytes.saturating_add(value::json_bytes(ty, of, integers)?);
        }
        Ok::<_, ValueError>(())
    };
    if let Some(field) = &state.key {
        add(&field.ty, key, Integers::Fixed)?;
    }
    match state.entries_of_key() {
        Entries::Map(ty) => add(ty, entry, Integers::Fixed)?,
        Entries::Timers => return Ok(bytes),
        Entries::None | Entries::List | Entries::Items => {}
    }
    add(type_of(state, row), &row.value, Integers::Variable)?;
    Ok(bytes)
}

fn show(
    state: &StateEntry,
    (key, entry): (&[u8], &[u8]),
    row: &Row,
    index: Option<u64>,
) -> Result<ShownEntry, ValueError> {
    let as_key = |ty: &Type, bytes: &[u8]| value::decode_key(ty, bytes).map(|key: Value| value::to_json(ty, &key));
    let mut shown = ShownEntry {
        key: state.key.as_ref().map(|field| as_key(&field.ty, key)).transpose()?,
        index,
        map_key: None,
        timer: None,
        time: None,
        value: None,
        expires: (row.expires != NEVER).then_some(row.expires),
    };
    match state.entries_of_key() {
        Entries::Map(ty) => shown.map_key = Some(as_key(ty, entry)?),
        Entries::Timers => {
            if let Some((time, name)) = split_timer_entry(entry) {
                (shown.timer, shown.time) = (Some(name.to_owned()), Some(time));
            }
            return Ok(shown);
        }
        Entries::None | Entries::List | Entries::Items => {}
    }
    let ty = type_of(state, row);
    shown.value = Some(value::to_json(ty, &value::decode(ty, &row.value)?));
    Ok(shown)
}

#[cfg(test)]
mod tests;
