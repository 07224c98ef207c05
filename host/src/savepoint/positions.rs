//! Positions of a source in files of their own: rows with the name of the split as key and its position as JSON text.
//!
//! All rows are in key group 0. The files of one subtask are a chain, as those of keyed state are. Splits of different
//! subtasks may have the same name.

use std::collections::BTreeMap;
use std::sync::Arc;

use regraft_model::id::SubtaskIndex;
use regraft_model::key_group::KeyGroup;
use regraft_model::schema::{Field, Type};
use regraft_model::value::{self, Value};

use super::budget::Budget;
use super::json_size::parsed_bytes;
use super::load::Savepoint;
use super::metadata::{MetadataError, OperatorEntry, SavedStateKind, SplitEntry, StateEntry, StateFile};
use crate::connector::source::SplitState;
use crate::state::rows::{REMOVED, RowsOf, StateRows};

/// Name of the state, and of the column in canonical files.
const NAME: &str = "position";

/// Returns the state with the positions of a source, which is added where it is missing.
pub fn state_of(entry: &mut OperatorEntry) -> &mut StateEntry {
    let is_it = |state: &StateEntry| state.kind == SavedStateKind::Positions;
    let at = entry.states.iter().position(is_it).unwrap_or_else(|| {
        entry.states.push(new_state());
        entry.states.len() - 1
    });
    &mut entry.states[at]
}

fn new_state() -> StateEntry {
    let (schema, key) = (Type::String, Type::String);
    StateEntry {
        name: NAME.to_owned(),
        kind: SavedStateKind::Positions,
        digest: schema.digest().to_string(),
        schemas: vec![schema.clone()],
        schema,
        key_digest: Some(key.digest().to_string()),
        key: Some(Field {
            name: "split".to_owned(),
            ty: key,
            aliases: vec![],
            default: false,
        }),
        map_key: None,
        timers: vec![],
        files: vec![],
        empty: vec![],
    }
}

/// Returns positions as rows; `removed` are splits that are not there any more.
#[must_use]
pub fn to_rows(splits: &[SplitState], removed: &[Arc<str>]) -> StateRows {
    let mut rows = StateRows::new(KeyGroup(0), RowsOf::State(0));
    let mut encoded = vec![];
    for SplitState { split, position } in splits {
        encoded.clear();
        // Text is of the type of text.
        let _ = value::encode(&Type::String, &Value::Text(position.to_string()), &mut encoded);
        rows.keys.push(split.as_bytes());
        rows.values.push(&encoded);
        rows.schemas.push(1);
    }
    for split in removed {
        rows.keys.push(split.as_bytes());
        rows.values.push(&[]);
        rows.schemas.push(REMOVED);
    }
    rows
}

/// Bytes of all positions of a source in its files, at most, and of one position.
pub const POSITIONS_BYTES_MAX: u64 = 256 << 20;
const POSITION_BYTES_MAX: usize = 64 << 10;

/// The positions of a source, collected out of its files in their order.
#[derive(Debug, Default)]
pub struct PositionsOf(BTreeMap<(SubtaskIndex, String), serde_json::Value>);

impl PositionsOf {
    /// Adds the rows of a file: they replace those of earlier files of its subtask. Takes the memory of the parsed positions
    /// from the budget.
    ///
    /// # Errors
    /// Returns the mismatch, as a clause, if a row is no position of a split, or there is not enough memory.
    pub fn add(&mut self, file: &StateFile, rows: &[StateRows], budget: &Budget) -> Result<(), String> {
        for rows in rows {
            for at in 0..rows.len() {
                let split = std::str::from_utf8(rows.keys.get(at));
                let split = split.map_err(|_| "the name of a split is not UTF-8".to_owned())?;
                let of = (file.subtask, split.to_owned());
                if rows.schemas[at] == REMOVED {
                    self.0.remove(&of);
                    continue;
                }
                self.0.insert(of, parse(split, rows.values.get(at), budget)?);
            }
        }
        Ok(())
    }

    /// Returns them by subtask and name.
    pub fn splits(self) -> impl ExactSizeIterator<Item = SplitState> {
        let split = |((_, split), position)| SplitState { split, position };
        self.0.into_iter().map(split)
    }
}

/// Parses the position of a split.
fn parse(split: &str, encoded: &[u8], budget: &Budget) -> Result<serde_json::Value, String> {
    let wrong = |what: String| format!("the position of split {split:?} {what}");
    if encoded.len() > POSITION_BYTES_MAX {
        let found = encoded.len();
        return Err(wrong(format!(
            "has {found} bytes, expected at most {POSITION_BYTES_MAX}"
        )));
    }
    let taken = budget.take(parsed_bytes(encoded));
    taken.map_err(|over| format!("its positions take too much memory: {over}"))?;
    let text = match value::decode(&Type::String, encoded) {
        Ok(Value::Text(text)) => text,
        Ok(_) => return Err(wrong("is no text".to_owned())),
        Err(error) => return Err(wrong(format!("is no text: {error}"))),
    };
    serde_json::from_str(&text).map_err(|error| wrong(format!("is no JSON: {error}")))
}

/// Reads the positions of a source that are in files of their own.
///
/// # Errors
/// Returns [`MetadataError`] if a file cannot be read.
pub async fn read(
    savepoint: &Savepoint,
    entry: &OperatorEntry,
    budget: &Budget,
) -> Result<Vec<SplitEntry>, MetadataError> {
    let mut positions = PositionsOf::default();
    let of_rows = budget.at_most(POSITIONS_BYTES_MAX);
    let is_it = |state: &&StateEntry| state.kind == SavedStateKind::Positions;
    for state in entry.states.iter().filter(is_it) {
        for file in &state.files {
            let rows = savepoint.read_rows(state, file, file.key_groups, &of_rows).await?;
            let added = positions.add(file, &rows, budget);
            added.map_err(|reason| savepoint.wrong_rows(state, file, reason))?;
        }
    }
    let split = |SplitState { split, position }| SplitEntry {
        split,
        position,
        finished: false,
    };
    Ok(positions.splits().map(split).collect())
}
