//! Writes state files. Key groups must come in ascending order; the rows of each are sorted here.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use regraft_model::schema::Type;

use super::body::{Body, PartError, Row};
use super::cells::CellError;
use super::chunks::write_ints;
use super::columns::{KEY_GROUP, SCHEMA, column_count, schema_of};
use super::{
    CELL_BYTES, Entries, GroupExtent, Layout, Place, ROW_GROUP_BYTES_MAX, RowsError, StateFileSpec, StateRows, checksum,
};
use crate::environment::cancel::Cancellation;

/// Number of rows at which a row group ends with the current key group.
///
/// A restore reads whole row groups, and should read little beyond its own key groups.
const ROW_GROUP_ROWS: usize = 4_096;
/// Size of keys, entry keys and values at which a row group ends with the current key group.
const ROW_GROUP_BYTES: usize = 1 << 20;
/// A row group of at least [`ROW_GROUP_ROWS_MIN`] rows also ends before a key group whose number is a multiple of this.
///
/// At parallelisms that are powers of two, subtasks own whole blocks of key groups.
const KEY_GROUP_BLOCK: u16 = 16;
/// See [`KEY_GROUP_BLOCK`].
const ROW_GROUP_ROWS_MIN: usize = 1_024;
/// Number of rows at which a row group ends within a key group, so that memory stays bounded.
const ROW_GROUP_ROWS_MAX: usize = 262_144;
/// Bytes of memory that the cells of a row group take when it is read, at most.
const ROW_GROUP_CELLS_MAX: usize = 256 << 20;

/// A finished state file.
#[derive(Debug, Clone)]
pub struct EncodedStateFile {
    /// Content of the file.
    pub bytes: Bytes,
    /// The row groups with their key groups; empty if there are no rows.
    pub groups: Vec<GroupExtent>,
    /// The rest of the file after its row groups, which has to be read with any of them.
    pub footer: Place,
    /// Number of rows.
    pub entries: u64,
}

/// Writes one state file into memory.
pub struct StateFileWriter {
    file: SerializedFileWriter<Vec<u8>>,
    state: String,
    /// Schema number of the rows to write; 0 for all.
    only: u16,
    key: Type,
    /// Name of the part beside key and value in messages.
    entry: String,
    has_entries: bool,
    /// True if the keys are positions, by which the rows are ordered.
    by_position: bool,
    value: Type,
    key_groups: Vec<i32>,
    body: Body,
    pending: Option<GroupExtent>,
    pending_bytes: usize,
    /// Number of rows at which a row group ends within a key group.
    rows_max: usize,
    groups: Vec<GroupExtent>,
    entries: u64,
    last_group: Option<u16>,
    order: Vec<(u64, u32)>,
    cancellation: Cancellation,
}

impl std::fmt::Debug for StateFileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateFileWriter")
            .field("state", &self.state)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl StateFileWriter {
    /// Begins a file.
    ///
    /// # Errors
    /// Returns [`RowsError::Parquet`] if Parquet refuses the schema.
    pub fn new(spec: &StateFileSpec<'_>) -> Result<Self, RowsError> {
        let file = SerializedFileWriter::new(Vec::new(), schema_of(spec)?, Arc::new(properties(spec)?))?;
        Ok(Self {
            file,
            state: spec.state.to_owned(),
            only: if spec.layout == Layout::Canonical {
                spec.schema
            } else {
                0
            },
            key: spec.key.ty.clone(),
            entry: spec.entries.to_string(),
            has_entries: spec.entries.have_keys(),
            by_position: spec.entries == Entries::Items,
            value: spec.value.clone(),
            key_groups: Vec::new(),
            body: Body::new(spec),
            pending: None,
            pending_bytes: 0,
            rows_max: rows_max(column_count(spec)),
            groups: Vec::new(),
            entries: 0,
            last_group: None,
            order: Vec::new(),
            cancellation: Cancellation::default(),
        })
    }

    /// Stops writing at the next key group or row group once the work is cancelled.
    #[must_use]
    pub fn cancelled_by(self, cancellation: Cancellation) -> Self {
        Self { cancellation, ..self }
    }

    /// Writes the rows of a key group. A canonical file leaves out rows of another schema.
    ///
    /// # Errors
    /// - [`RowsError::Order`] if the key group is not greater than the previous one, the columns differ in length, a
    ///   row expires in a file without that column, or a row is too large.
    /// - [`RowsError::Key`], [`RowsError::Entry`], [`RowsError::Value`] if bytes are not of their type.
    /// - [`RowsError::InexactKey`] if JSON cannot represent a key exactly.
    /// - [`RowsError::Parquet`] if Parquet fails.
    /// - [`RowsError::Cancelled`] if the work is cancelled.
    pub fn write_group(&mut self, rows: &StateRows) -> Result<(), RowsError> {
        let group = rows.group.0;
        let wrong = |reason: String| RowsError::Order {
            state: self.state.clone(),
            reason,
        };
        let len = rows.len();
        let entries = if self.has_entries { len } else { 0 };
        let expires = if rows.expires.is_empty() { 0 } else { len };
        for (column, found, expected) in [
            ("keys", rows.keys.len(), len),
            ("values", rows.values.len(), len),
            ("entry keys", rows.entry_keys.len(), entries),
            ("expiry times", rows.expires.len(), expires),
        ] {
            if found != expected {
                return Err(wrong(format!(
                    "key group {group} has {len} rows: expected {expected} {column}, found {found}"
                )));
            }
        }
        if let Some(last) = self.last_group.filter(|last| *last >= group) {
            return Err(wrong(format!("key group {group} comes after key group {last}")));
        }
        self.last_group = Some(group);
        self.go_on()?;
        let block = |group: u16| group / KEY_GROUP_BLOCK;
        let pending = self.pending.as_ref().map(|extent| block(extent.last_group));
        if pending.is_some_and(|last| last < block(group)) && self.key_groups.len() >= ROW_GROUP_ROWS_MIN {
            self.flush()?;
        }
        self.sort(rows);
        let order = std::mem::take(&mut self.order);
        for &(_, row) in &order {
            let row = row as usize;
            let row = Row {
                key: rows.keys.get(row),
                entry: rows.entry_key(row).unwrap_or_default(),
                value: rows.values.get(row),
                schema: rows.schemas[row],
                expires: rows.expires_at(row),
            };
            self.write_row(group, &row)?;
        }
        self.order = order;
        if self.key_groups.len() >= ROW_GROUP_ROWS || self.pending_bytes >= ROW_GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Selects the rows to write and sorts them by key: first by its first eight bytes, then by the rest.
    fn sort(&mut self, rows: &StateRows) {
        let head = if self.by_position { position } else { head };
        let (keys, only) = (&rows.keys, self.only);
        self.order.clear();
        for (row, &schema) in rows.schemas.iter().enumerate() {
            if only == 0 || schema == only {
                self.order.push((head(keys.get(row)), row as u32));
            }
        }
        self.order.sort_unstable_by_key(|(head, _)| *head);
        // Except for the entries of one key, hardly any rows agree in their first eight bytes.
        let rest = |row: u32| (keys.get(row as usize), rows.entry_key(row as usize));
        for alike in self
            .order
            .chunk_by_mut(|a, b| a.0 == b.0)
            .filter(|alike| alike.len() > 1)
        {
            alike.sort_unstable_by(|a, b| rest(a.1).cmp(&rest(b.1)));
        }
    }

    fn write_row(&mut self, group: u16, row: &Row<'_>) -> Result<(), RowsError> {
        let bytes = row.key.len() + row.entry.len() + row.value.len();
        // A row that is too large for a row group with others is alone in one.
        let largest = self.pending_bytes.max(self.body.bytes()) + self.body.growth_max(bytes);
        if largest > ROW_GROUP_BYTES_MAX || self.key_groups.len() >= self.rows_max {
            self.flush()?;
        }
        self.key_groups.push(i32::from(group));
        self.pending_bytes += bytes;
        let extent = self.pending.get_or_insert(GroupExtent {
            first_group: group,
            last_group: group,
            row_group: self.groups.len() as u32,
            rows: 0,
            place: None,
        });
        extent.last_group = group;
        extent.rows += 1;
        self.entries += 1;
        self.body.push(row).map_err(|error| self.row_error(group, error))
    }

    fn row_error(&self, group: u16, error: PartError) -> RowsError {
        let state = self.state.clone();
        match error {
            PartError::Key(CellError::TooLarge)
            | PartError::Entry(CellError::TooLarge)
            | PartError::Value(CellError::TooLarge) => RowsError::Order {
                state,
                reason: format!("a row of key group {group} is larger than 4 GiB"),
            },
            PartError::Key(CellError::Value(source)) => RowsError::Key {
                state,
                group,
                expected: self.key.to_string(),
                source,
            },
            PartError::Entry(CellError::Value(source)) => RowsError::Entry {
                state,
                group,
                expected: self.entry.clone(),
                source,
            },
            PartError::Value(CellError::Value(source)) => RowsError::Value {
                state,
                group,
                expected: self.value.to_string(),
                source,
            },
            PartError::Inexact(part) => RowsError::InexactKey { state, part, group },
            PartError::Expires => RowsError::Order {
                state,
                reason: format!("a row of key group {group} expires, and the file has no column for that"),
            },
        }
    }

    fn go_on(&self) -> Result<(), RowsError> {
        if self.cancellation.is_cancelled() {
            return Err(RowsError::Cancelled);
        }
        Ok(())
    }

    /// Writes the row group in progress.
    fn flush(&mut self) -> Result<(), RowsError> {
        let Some(mut extent) = self.pending.take() else {
            return Ok(());
        };
        self.go_on()?;
        let offset = self.file.bytes_written() as u64;
        let mut row_group = self.file.next_row_group()?;
        write_ints(&mut row_group, &mut self.key_groups)?;
        self.body.write(&mut row_group)?;
        row_group.close()?;
        extent.place = Some(Place {
            offset,
            bytes: self.file.bytes_written() as u64 - offset,
            checksum: String::new(),
        });
        self.groups.push(extent);
        self.pending_bytes = 0;
        Ok(())
    }

    /// Ends the file, which may have no rows.
    ///
    /// # Errors
    /// Returns [`RowsError::Parquet`] if Parquet fails, and [`RowsError::Cancelled`] if the work is cancelled.
    pub fn finish(mut self) -> Result<EncodedStateFile, RowsError> {
        self.flush()?;
        let bytes: Bytes = self.file.into_inner()?.into();
        let (mut groups, mut end) = (self.groups, 0);
        for place in groups.iter_mut().filter_map(|extent| extent.place.as_mut()) {
            end = place.range().end;
            place.checksum = checksum_of(&bytes, place.range());
        }
        let footer = Place {
            offset: end,
            bytes: bytes.len() as u64 - end,
            checksum: checksum_of(&bytes, end..bytes.len() as u64),
        };
        Ok(EncodedStateFile {
            bytes,
            groups,
            footer,
            entries: self.entries,
        })
    }
}

/// Returns the number of rows at which a row group with so many columns ends: a reader has room for the cells of all.
fn rows_max(columns: usize) -> usize {
    (ROW_GROUP_CELLS_MAX / CELL_BYTES as usize / columns.max(1)).clamp(1, ROW_GROUP_ROWS_MAX)
}

fn checksum_of(bytes: &Bytes, range: Range<u64>) -> String {
    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
    checksum(&bytes[at(range.start)..at(range.end)])
}

fn properties(spec: &StateFileSpec<'_>) -> Result<WriterProperties, RowsError> {
    let note = |key: &str, value: String| KeyValue::new(format!("regraft.{key}"), value);
    let builder = match spec.layout {
        // Made for queries.
        Layout::Canonical => WriterProperties::builder()
            .set_column_dictionary_enabled(ColumnPath::from(KEY_GROUP), true)
            .set_column_dictionary_enabled(ColumnPath::from(SCHEMA), true)
            .set_statistics_enabled(EnabledStatistics::Chunk),
        // Made to be written fast and read whole.
        Layout::Native => WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None),
    };
    Ok(builder
        .set_created_by(concat!("regraft ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        // Keys do not repeat and counters hardly do, so a dictionary costs more than it saves.
        .set_dictionary_enabled(false)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(vec![
            note("layout", spec.layout.to_string()),
            note("state", spec.state.to_owned()),
            note("key", serde_json::to_string(spec.key).unwrap_or_default()),
            note("schema", spec.value.to_json()),
        ]))
        .build())
}

/// Returns the position that a key encodes.
fn position(key: &[u8]) -> u64 {
    head(key).swap_bytes()
}

/// Returns the first eight bytes as a number with the same order.
fn head(key: &[u8]) -> u64 {
    let mut word = [0u8; 8];
    let len = key.len().min(8);
    word[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_has_room_for_the_cells_of_a_row_group() {
        const MOST: usize = 1 << 30;
        assert_eq!((rows_max(6), rows_max(30)), (ROW_GROUP_ROWS_MAX, ROW_GROUP_ROWS_MAX));
        for columns in [1, 121, 10_003, 1 << 20, usize::MAX] {
            let rows = rows_max(columns);
            assert!(
                rows == 1 || rows * columns * CELL_BYTES as usize <= MOST / 4,
                "{rows} of {columns}"
            );
        }
    }
}
