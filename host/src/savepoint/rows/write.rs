//! Rows → a state file. Key groups come in ascending order; rows within one are ordered here.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use regraft_model::batch::BytesColumn;
use regraft_model::schema::Type;
use regraft_model::value::{Decoder, Integers, Scalar, ValueError};

use super::cells::{CellError, ColumnCells, push_bytes};
use super::chunks::{write_bytes, write_cells, write_ints};
use super::columns::{Columns, Form, KEY_GROUP, SCHEMA, schema_of};
use super::{GroupExtent, Layout, Place, RowsError, StateFileSpec, StateRows, checksum};

/// A row group is closed at the end of the first key group that brings it to this: a restore reads whole row groups, and
/// should read little beside its own key groups.
const ROW_GROUP_ROWS: usize = 4_096;
/// Likewise for the bytes of keys and values.
const ROW_GROUP_BYTES: usize = 1 << 20;
/// It is closed too before key groups whose number is a multiple of this, where it has [`ROW_GROUP_ROWS_MIN`] rows: subtasks
/// own whole blocks of key groups at the parallelisms that are powers of two.
const KEY_GROUP_BLOCK: u16 = 16;
/// See [`KEY_GROUP_BLOCK`].
const ROW_GROUP_ROWS_MIN: usize = 1_024;
/// One key group larger than this is cut, so that memory stays bounded.
const ROW_GROUP_ROWS_MAX: usize = 262_144;
/// Likewise for the bytes of keys and values.
const ROW_GROUP_BYTES_MAX: usize = 256 << 20;

/// A finished state file.
#[derive(Debug, Clone)]
pub struct EncodedStateFile {
    /// The file.
    pub bytes: Bytes,
    /// Where each key group is; empty: there are no rows.
    pub groups: Vec<GroupExtent>,
    /// All behind the row groups: what has to be read beside those that are wanted.
    pub footer: Place,
    /// How many rows.
    pub entries: u64,
}

/// Writes one state file into memory.
pub struct StateFileWriter {
    file: SerializedFileWriter<Vec<u8>>,
    state: String,
    schema: u16,
    key: Type,
    value: Type,
    rows: Pending,
    pending: Option<GroupExtent>,
    pending_bytes: usize,
    groups: Vec<GroupExtent>,
    entries: u64,
    last_group: Option<u16>,
    order: Vec<(u64, u32)>,
}

impl std::fmt::Debug for StateFileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateFileWriter")
            .field("state", &self.state)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// The columns of the row group that is being filled.
struct Pending {
    key_groups: Vec<i32>,
    body: Body,
}

enum Body {
    Canonical {
        columns: Columns,
        key: Vec<ColumnCells>,
        value: Vec<ColumnCells>,
        exact: BytesColumn,
        exact_levels: Vec<i16>,
    },
    Native {
        keys: BytesColumn,
        values: BytesColumn,
        schemas: Vec<i32>,
    },
}

impl StateFileWriter {
    /// Begins a file.
    ///
    /// # Errors
    /// [`RowsError::Parquet`].
    pub fn new(spec: &StateFileSpec<'_>) -> Result<Self, RowsError> {
        let file = SerializedFileWriter::new(Vec::new(), schema_of(spec)?, Arc::new(properties(spec)?))?;
        let body = match spec.layout {
            Layout::Canonical => {
                let columns = Columns::canonical(spec);
                let key = columns.key.iter().map(ColumnCells::new).collect();
                let value = columns.value.iter().map(ColumnCells::new).collect();
                Body::Canonical {
                    columns,
                    key,
                    value,
                    exact: BytesColumn::default(),
                    exact_levels: Vec::new(),
                }
            }
            Layout::Native => Body::Native {
                keys: BytesColumn::default(),
                values: BytesColumn::default(),
                schemas: Vec::new(),
            },
        };
        Ok(Self {
            file,
            state: spec.state.to_owned(),
            schema: spec.schema,
            key: spec.key.ty.clone(),
            value: spec.value.clone(),
            rows: Pending {
                key_groups: Vec::new(),
                body,
            },
            pending: None,
            pending_bytes: 0,
            groups: Vec::new(),
            entries: 0,
            last_group: None,
            order: Vec::new(),
        })
    }

    /// Adds the rows of a key group. Canonical: those of another schema are left out.
    ///
    /// # Errors
    /// [`RowsError::Order`] where the group is not after the last one or the columns differ in length;
    /// [`RowsError::Key`], [`RowsError::Value`], [`RowsError::InexactKey`] where bytes are not of their type.
    pub fn write_group(&mut self, rows: &StateRows) -> Result<(), RowsError> {
        let group = rows.group.0;
        let wrong = |reason: String| RowsError::Order {
            state: self.state.clone(),
            reason,
        };
        if rows.len() != rows.keys.len() || rows.values.len() != rows.keys.len() {
            let (keys, values) = (rows.keys.len(), rows.values.len().min(rows.len()));
            return Err(wrong(format!("key group {group} has {keys} keys and {values} values")));
        }
        if let Some(last) = self.last_group.filter(|last| *last >= group) {
            return Err(wrong(format!("key group {group} comes after key group {last}")));
        }
        self.last_group = Some(group);
        let block = |group: u16| group / KEY_GROUP_BLOCK;
        let pending = self.pending.as_ref().map(|extent| block(extent.last_group));
        if pending.is_some_and(|last| last < block(group)) && self.rows.key_groups.len() >= ROW_GROUP_ROWS_MIN {
            self.flush()?;
        }
        self.sort(rows);
        let order = std::mem::take(&mut self.order);
        for &(_, row) in &order {
            let row = row as usize;
            self.write_row(group, rows.keys.get(row), rows.values.get(row), rows.schemas[row])?;
        }
        self.order = order;
        if self.rows.key_groups.len() >= ROW_GROUP_ROWS || self.pending_bytes >= ROW_GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Finds the rows that have a value, in order of their keys. Most comparisons end at the first eight bytes.
    fn sort(&mut self, rows: &StateRows) {
        let canonical = matches!(self.rows.body, Body::Canonical { .. });
        let keys = &rows.keys;
        self.order.clear();
        for (row, &schema) in rows.schemas.iter().enumerate() {
            if !canonical || schema == self.schema {
                self.order.push((head(keys.get(row)), row as u32));
            }
        }
        self.order.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| keys.get(a.1 as usize).cmp(keys.get(b.1 as usize)))
        });
    }

    fn write_row(&mut self, group: u16, key: &[u8], value: &[u8], schema: u16) -> Result<(), RowsError> {
        if self.pending_bytes > ROW_GROUP_BYTES_MAX || self.rows.key_groups.len() >= ROW_GROUP_ROWS_MAX {
            self.flush()?;
        }
        self.rows.key_groups.push(i32::from(group));
        self.pending_bytes += key.len() + value.len();
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
        let written = match &mut self.rows.body {
            Body::Canonical {
                columns,
                key: key_cells,
                value: value_cells,
                exact,
                exact_levels,
            } => {
                let key_exact = write_key(columns, key_cells, key).map_err(|e| (true, e));
                match key_exact {
                    Ok(false) => {
                        return Err(RowsError::InexactKey {
                            state: self.state.clone(),
                            group,
                        });
                    }
                    Ok(true) => write_value(columns, value_cells, value)
                        .and_then(|same| write_exact(columns.exact, same, value, exact, exact_levels))
                        .map_err(|e| (false, e)),
                    Err(e) => Err(e),
                }
            }
            Body::Native { keys, values, schemas } => {
                schemas.push(i32::from(schema));
                push_bytes(keys, key)
                    .and_then(|()| push_bytes(values, value))
                    .map_err(|e| (false, e))
            }
        };
        written.map_err(|(is_key, error)| self.row_error(group, is_key, error))
    }

    fn row_error(&self, group: u16, is_key: bool, error: CellError) -> RowsError {
        let state = self.state.clone();
        match error {
            CellError::TooLarge => RowsError::Order {
                state,
                reason: format!("a row of key group {group} is larger than 4 GiB"),
            },
            CellError::Value(source) if is_key => RowsError::Key {
                state,
                group,
                expected: self.key.to_string(),
                source,
            },
            CellError::Value(source) => RowsError::Value {
                state,
                group,
                expected: self.value.to_string(),
                source,
            },
        }
    }

    /// Writes the row group that has been filled.
    fn flush(&mut self) -> Result<(), RowsError> {
        let Some(mut extent) = self.pending.take() else {
            return Ok(());
        };
        let offset = self.file.bytes_written() as u64;
        let mut row_group = self.file.next_row_group()?;
        write_ints(&mut row_group, &mut self.rows.key_groups)?;
        match &mut self.rows.body {
            Body::Canonical {
                columns,
                key,
                value,
                exact,
                exact_levels,
            } => {
                for (plan, cells) in columns.key.iter().zip(key).chain(columns.value.iter().zip(value)) {
                    write_cells(&mut row_group, cells, plan.form == Form::Optional)?;
                }
                if columns.exact {
                    write_bytes(&mut row_group, exact, Some(exact_levels))?;
                    exact_levels.clear();
                }
            }
            Body::Native { keys, values, schemas } => {
                write_bytes(&mut row_group, keys, None)?;
                write_bytes(&mut row_group, values, None)?;
                write_ints(&mut row_group, schemas)?;
            }
        }
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

    /// Ends the file. One without rows is valid too.
    ///
    /// # Errors
    /// [`RowsError::Parquet`].
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

fn checksum_of(bytes: &Bytes, range: Range<u64>) -> String {
    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
    checksum(&bytes[at(range.start)..at(range.end)])
}

fn properties(spec: &StateFileSpec<'_>) -> Result<WriterProperties, RowsError> {
    let note = |key: &str, value: String| KeyValue::new(format!("regraft.{key}"), value);
    Ok(WriterProperties::builder()
        .set_created_by(concat!("regraft ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        // Keys do not repeat and counters hardly do: a dictionary costs more than it saves.
        .set_dictionary_enabled(false)
        .set_column_dictionary_enabled(ColumnPath::from(KEY_GROUP), true)
        .set_column_dictionary_enabled(ColumnPath::from(SCHEMA), true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(vec![
            note("layout", spec.layout.to_string()),
            note("state", spec.state.to_owned()),
            note("key", serde_json::to_string(spec.key).unwrap_or_default()),
            note("schema", spec.value.to_json()),
        ]))
        .build())
}

/// The first eight bytes as a number in their order.
fn head(key: &[u8]) -> u64 {
    let mut word = [0u8; 8];
    let len = key.len().min(8);
    word[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(word)
}

fn write_key(columns: &Columns, cells: &mut [ColumnCells], key: &[u8]) -> Result<bool, CellError> {
    if let (true, [cells], [plan]) = (columns.key_is_raw, &mut *cells, columns.key.as_slice()) {
        let text = || std::str::from_utf8(key).map_err(|e| invalid_text(&e));
        cells.push(if plan.ty == Type::String {
            Scalar::Text(text()?)
        } else {
            Scalar::Bytes(key)
        })?;
        return Ok(true);
    }
    let mut decoder = Decoder::new(key, Integers::Fixed);
    read_parts(&columns.key, cells, &mut decoder)
}

fn invalid_text(error: &std::str::Utf8Error) -> ValueError {
    ValueError::Invalid {
        expected: "UTF-8 text".into(),
        found: error.to_string(),
    }
}

fn write_value(columns: &Columns, cells: &mut [ColumnCells], value: &[u8]) -> Result<bool, CellError> {
    let mut decoder = Decoder::new(value, Integers::Variable);
    read_parts(&columns.value, cells, &mut decoder)
}

fn read_parts(
    plans: &[super::columns::ColumnPlan],
    cells: &mut [ColumnCells],
    decoder: &mut Decoder<'_>,
) -> Result<bool, CellError> {
    let mut same = true;
    for (plan, cells) in plans.iter().zip(cells) {
        same &= cells.read_part(plan, decoder)?;
    }
    decoder.finish()?;
    Ok(same)
}

fn write_exact(
    is_there: bool,
    same: bool,
    value: &[u8],
    exact: &mut BytesColumn,
    levels: &mut Vec<i16>,
) -> Result<(), CellError> {
    if is_there {
        levels.push(i16::from(!same));
        if !same {
            push_bytes(exact, value)?;
        }
    }
    Ok(())
}
