//! Rebuilds rows from the column chunks of a row group.

use parquet::file::reader::RowGroupReader;
use regraft_model::key_group::{KeyGroup, KeyGroupRange};
use regraft_model::value::{Integers, ValueError};

use super::cells::{CellError, ReadCells, push_bytes};
use super::chunks::{column_index, read_column};
use super::columns::{ColumnPlan, Columns, ENTRY_KEY, EXACT, EXPIRES, KEY, SCHEMA, VALUE};
use super::{Entries, ROW_GROUP_BYTES_MAX, RowsError, RowsOf, StateFileSpec, StateRows};
use crate::savepoint::budget::Budget;
use crate::state::rows::{NEVER, split_timer_entry, timer_entry};
use crate::state::weight::RowKind;

/// Rows in progress, by key group.
pub(super) struct Output<'a> {
    pub(super) spec: &'a StateFileSpec<'a>,
    /// Wanted key groups; rows of others are skipped.
    pub(super) range: KeyGroupRange,
    pub(super) groups: Vec<StateRows>,
    /// Memory for the rows.
    budget: &'a Budget,
    /// The row group that is being read, and the bytes of its rows so far.
    row_group: (u32, usize),
}

/// A row that was read.
struct Row<'a> {
    group: u16,
    key: &'a [u8],
    entry: &'a [u8],
    value: &'a [u8],
    schema: u16,
    expires: i64,
}

impl<'a> Output<'a> {
    pub(super) const fn new(spec: &'a StateFileSpec<'a>, range: KeyGroupRange, budget: &'a Budget) -> Self {
        Self {
            spec,
            range,
            groups: Vec::new(),
            budget,
            row_group: (0, 0),
        }
    }

    /// Begins a row group.
    pub(super) const fn begin_row_group(&mut self, number: u32) {
        self.row_group = (number, 0);
    }

    /// Checks that columns of a row group hold no more than rows of one may, before anything is copied out of them. Cells of
    /// a dictionary share their bytes.
    fn check_bytes<'c>(&self, columns: impl Iterator<Item = &'c ReadCells>, most: usize) -> Result<(), RowsError> {
        let (sum, largest) = columns
            .map(ReadCells::bytes)
            .fold((0usize, 0usize), |(sum, largest), column| {
                (sum.saturating_add(column.0), largest.saturating_add(column.1))
            });
        if sum.saturating_sub(largest) > most {
            return Err(self.too_large(format!(
                "row group {} has rows of {sum} bytes, expected at most {most}",
                self.row_group.0
            )));
        }
        Ok(())
    }

    pub(super) fn native(&mut self, row_group: &dyn RowGroupReader, key_groups: &[u16]) -> Result<(), RowsError> {
        let read = |name: &str| read_column(row_group, name, key_groups.len());
        let (mut keys, mut values, mut schemas) = (read(KEY)?, read(VALUE)?, read(SCHEMA)?);
        let mut entries = self.spec.entries.have_keys().then(|| read(ENTRY_KEY)).transpose()?;
        let mut expires = optional(row_group, EXPIRES, key_groups.len())?;
        self.check_bytes([&keys, &values].into_iter().chain(&entries), ROW_GROUP_BYTES_MAX)?;
        for &group in key_groups {
            let expires = expires.as_mut().and_then(ReadCells::next_int64).unwrap_or(NEVER);
            let schema = schemas.next_int32().and_then(|schema| u16::try_from(schema).ok());
            let (key, value) = (keys.next_bytes(), values.next_bytes());
            let entry = match &mut entries {
                Some(entries) => entries.next_bytes(),
                None => Some(&[][..]),
            };
            if !self.range.contains(KeyGroup(group)) {
                continue;
            }
            let (Some(key), Some(entry), Some(value), Some(schema)) = (key, entry, value, schema) else {
                return Err(self.wrong(format!("a row of key group {group} is not whole")));
            };
            let expected = match self.spec.entries {
                Entries::List if entry.len() != 8 => "an index of 8 bytes",
                Entries::Timers if split_timer_entry(entry).is_none() => "a time and a name",
                _ => "",
            };
            if !expected.is_empty() {
                let found = format!("{} bytes", entry.len());
                let expected = expected.to_owned();
                return Err(self.entry_error(group, ValueError::Invalid { expected, found }));
            }
            self.push(&Row {
                group,
                key,
                entry,
                value,
                schema,
                expires,
            })?;
        }
        Ok(())
    }

    pub(super) fn canonical(&mut self, row_group: &dyn RowGroupReader, key_groups: &[u16]) -> Result<(), RowsError> {
        let columns = Columns::canonical(self.spec);
        let read = |plan: &ColumnPlan| read_column(row_group, &plan.name, key_groups.len());
        let all = |plans: &[ColumnPlan]| plans.iter().map(read).collect::<Result<Vec<_>, _>>();
        let (mut key_cells, mut entry_cells) = (all(&columns.key)?, all(&columns.entry)?);
        let mut value_cells = all(&columns.value)?;
        let mut expires = optional(row_group, EXPIRES, key_groups.len())?;
        let mut exact = match columns.exact {
            true => optional(row_group, EXACT, key_groups.len())?,
            false => None,
        };
        let cells = key_cells.iter().chain(&entry_cells).chain(&value_cells).chain(&exact);
        // JSON may take more than the values that it stands for.
        self.check_bytes(cells, 2 * ROW_GROUP_BYTES_MAX)?;
        let (mut key, mut entry, mut value) = (Vec::new(), Vec::new(), Vec::new());
        for &group in key_groups {
            if !self.range.contains(KeyGroup(group)) {
                let cells = key_cells.iter_mut().chain(&mut entry_cells).chain(&mut value_cells);
                cells.chain(&mut expires).chain(&mut exact).for_each(ReadCells::skip);
                continue;
            }
            key.clear();
            entry.clear();
            value.clear();
            for (cells, plan) in key_cells.iter_mut().zip(&columns.key) {
                cells
                    .write_part(plan, Integers::Fixed, columns.key_is_raw, self.budget, &mut key)
                    .map_err(|e| self.key_error(group, e))?;
            }
            self.entry(&columns, &mut entry_cells, &mut entry)
                .map_err(|e| self.entry_error(group, e))?;
            if let Some(bytes) = exact.as_mut().and_then(ReadCells::next_bytes) {
                value_cells.iter_mut().for_each(ReadCells::skip);
                value.extend_from_slice(bytes);
            } else {
                for (cells, plan) in value_cells.iter_mut().zip(&columns.value) {
                    cells
                        .write_part(plan, Integers::Variable, false, self.budget, &mut value)
                        .map_err(|e| self.value_error(group, e))?;
                }
            }
            self.push(&Row {
                group,
                key: &key,
                entry: &entry,
                value: &value,
                schema: self.spec.schema,
                expires: expires.as_mut().and_then(ReadCells::next_int64).unwrap_or(NEVER),
            })?;
        }
        Ok(())
    }

    /// Appends the entry key of the next row to `out`.
    fn entry(&self, columns: &Columns, cells: &mut [ReadCells], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let lost = |column: &str| ValueError::Short {
            len: 0,
            expected: format!("column {column:?}"),
        };
        match (self.spec.entries, &mut *cells) {
            (Entries::None | Entries::Items, _) => {}
            (Entries::Map(_), cells) => {
                for (cells, plan) in cells.iter_mut().zip(&columns.entry) {
                    cells.write_part(plan, Integers::Fixed, columns.entry_is_raw, self.budget, out)?;
                }
            }
            (Entries::List, [index]) => {
                let index = index.next_int64().ok_or_else(|| lost("index"))?;
                out.extend_from_slice(&index.to_be_bytes());
            }
            (Entries::Timers, [timer, time]) => {
                let name = timer.next_bytes().ok_or_else(|| lost("timer"))?;
                let name = std::str::from_utf8(name).map_err(|error| ValueError::Invalid {
                    expected: "UTF-8 text".into(),
                    found: error.to_string(),
                })?;
                timer_entry(time.next_int64().ok_or_else(|| lost("time"))?, name, out);
            }
            (Entries::List | Entries::Timers, _) => return Err(lost("index, or timer and time")),
        }
        Ok(())
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), RowsError> {
        let (number, before) = self.row_group;
        let bytes = row.key.len() + row.entry.len() + row.value.len();
        if before > ROW_GROUP_BYTES_MAX {
            return Err(self.too_large(format!(
                "row group {number} has rows of more than {before} bytes, expected at most {ROW_GROUP_BYTES_MAX}"
            )));
        }
        self.row_group.1 = before + bytes;
        let rows = self.groups.last().filter(|rows| rows.group.0 == row.group);
        let before = rows.and_then(|rows| rows.len().checked_sub(1).map(|at| rows.keys.get(at)));
        let kind = match self.spec.entries {
            Entries::None | Entries::Items => RowKind::Value,
            Entries::List | Entries::Map(_) => RowKind::Entry {
                is_first: before != Some(row.key),
            },
            Entries::Timers => RowKind::Timer,
        };
        let taken = self.budget.take_row(kind, bytes);
        taken.map_err(|over| self.too_large(over.to_string()))?;
        let of = match self.spec.entries {
            Entries::Timers => RowsOf::Timers,
            _ => RowsOf::State(0),
        };
        if self.groups.last().is_none_or(|rows| rows.group.0 != row.group) {
            self.groups.push(StateRows::new(KeyGroup(row.group), of));
        }
        if let Some(rows) = self.groups.last_mut() {
            let mut pushed = push_bytes(&mut rows.keys, row.key).and_then(|()| push_bytes(&mut rows.values, row.value));
            if self.spec.entries.have_keys() {
                pushed = pushed.and_then(|()| push_bytes(&mut rows.entry_keys, row.entry));
            }
            if matches!(pushed, Err(CellError::TooLarge)) {
                return Err(self.wrong(format!(
                    "key group {} has more than 4 GiB. Use a greater max parallelism.",
                    row.group
                )));
            }
            if row.expires != NEVER && rows.expires.is_empty() {
                rows.expires.resize(rows.schemas.len(), NEVER);
            }
            if row.expires != NEVER || !rows.expires.is_empty() {
                rows.expires.push(row.expires);
            }
            rows.schemas.push(row.schema);
        }
        Ok(())
    }

    fn too_large(&self, reason: String) -> RowsError {
        RowsError::TooLarge {
            state: self.spec.state.to_owned(),
            reason,
        }
    }

    fn wrong(&self, reason: String) -> RowsError {
        RowsError::Order {
            state: self.spec.state.to_owned(),
            reason,
        }
    }

    fn key_error(&self, group: u16, source: ValueError) -> RowsError {
        RowsError::Key {
            state: self.spec.state.to_owned(),
            group,
            expected: self.spec.key.ty.to_string(),
            source,
        }
    }

    fn entry_error(&self, group: u16, source: ValueError) -> RowsError {
        RowsError::Entry {
            state: self.spec.state.to_owned(),
            group,
            expected: self.spec.entries.to_string(),
            source,
        }
    }

    fn value_error(&self, group: u16, source: ValueError) -> RowsError {
        RowsError::Value {
            state: self.spec.state.to_owned(),
            group,
            expected: self.spec.value.to_string(),
            source,
        }
    }
}

/// Reads a column that may be absent.
fn optional(row_group: &dyn RowGroupReader, name: &str, count: usize) -> Result<Option<ReadCells>, RowsError> {
    column_index(row_group, name)
        .map(|_| read_column(row_group, name, count))
        .transpose()
}
