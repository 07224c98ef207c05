//! A state file → rows: only the row groups that hold wanted key groups are decoded.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, Length as _, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use regraft_model::key_group::{KeyGroup, KeyGroupRange};
use regraft_model::value::{Integers, ValueError};

use super::cells::{CellError, ReadCells, ReadValues, push_bytes};
use super::columns::{ColumnPlan, Columns, EXACT, KEY, KEY_GROUP, SCHEMA, VALUE, schema_of};
use super::{FileParts, GroupExtent, Layout, RowsError, RowsOf, StateFileSpec, StateRows};

/// Reads the rows of the key groups in `range` from a file of which at least the footer and their row groups are there: one [`StateRows`] for each key group that has any, ascending. They are said
/// to be of state 0: only the caller knows which one it is.
///
/// # Errors
/// [`RowsError::Parquet`], [`RowsError::Column`] where the file is not what `spec` and `groups` say;
/// [`RowsError::Key`], [`RowsError::Value`] where a cell is not of its type; [`RowsError::Order`].
pub fn read_state_file(
    file: impl Into<FileParts>,
    spec: &StateFileSpec<'_>,
    range: KeyGroupRange,
    groups: &[GroupExtent],
) -> Result<Vec<StateRows>, RowsError> {
    let file = file.into();
    // `parquet` panics on some damaged pages. A checksum is checked before, but whoever made the file may have made that too.
    match catch_unwind(AssertUnwindSafe(|| read_rows(file, spec, range, groups))) {
        Ok(read) => read,
        Err(_) => Err(ParquetError::General("its pages are damaged".to_owned()).into()),
    }
}

fn read_rows(
    parts: FileParts,
    spec: &StateFileSpec<'_>,
    range: KeyGroupRange,
    groups: &[GroupExtent],
) -> Result<Vec<StateRows>, RowsError> {
    let size = usize::try_from(parts.len()).unwrap_or(usize::MAX);
    let file = SerializedFileReader::new(parts)?;
    check_columns(&file, spec)?;
    check_places(&file, size)?;
    if file.num_row_groups() != groups.len() {
        let reason = format!("expected {} row groups, found {}", groups.len(), file.num_row_groups());
        return Err(RowsError::Order {
            state: spec.state.to_owned(),
            reason,
        });
    }
    let mut rows = Output {
        spec,
        range,
        groups: Vec::new(),
    };
    for extent in groups.iter().filter(|extent| extent.range().intersect(range).is_some()) {
        let row_group = file.get_row_group(extent.row_group as usize)?;
        let found = row_group.metadata().num_rows();
        if found != i64::try_from(extent.rows).unwrap_or(-1) {
            let reason = format!(
                "row group {}: expected {} rows, found {found}",
                extent.row_group, extent.rows
            );
            return Err(RowsError::Order {
                state: spec.state.to_owned(),
                reason,
            });
        }
        let count = usize::try_from(found).unwrap_or(0);
        let key_groups = read_key_groups(row_group.as_ref(), count, extent, spec)?;
        match spec.layout {
            Layout::Canonical => rows.canonical(row_group.as_ref(), &key_groups)?,
            Layout::Native => rows.native(row_group.as_ref(), &key_groups)?,
        }
    }
    Ok(rows.groups)
}

/// Checks that the file has every column by name, with its type. Columns that are not ours are let be.
fn check_columns(file: &SerializedFileReader<FileParts>, spec: &StateFileSpec<'_>) -> Result<(), RowsError> {
    let found = file.metadata().file_metadata().schema_descr();
    for expected in schema_of(spec)?.get_fields() {
        let is = found
            .columns()
            .iter()
            .find(|column| column.path().parts() == [expected.name().to_owned()]);
        let physical = expected.get_physical_type();
        match is {
            None if expected.name() == EXACT => {}
            Some(is) if is.physical_type() == physical && is.max_rep_level() == 0 => {}
            is => {
                return Err(RowsError::Column {
                    column: expected.name().to_owned(),
                    expected: physical.to_string(),
                    found: is.map_or_else(|| "none".to_owned(), |is| is.physical_type().to_string()),
                });
            }
        }
    }
    Ok(())
}

/// Checks that every column chunk lies in the file: `parquet` panics on negative offsets.
fn check_places(file: &SerializedFileReader<FileParts>, size: usize) -> Result<(), RowsError> {
    for row_group in file.metadata().row_groups() {
        for column in row_group.columns() {
            let start = column
                .dictionary_page_offset()
                .unwrap_or_else(|| column.data_page_offset());
            let end = start
                .checked_add(column.compressed_size())
                .and_then(|end| usize::try_from(end).ok());
            let inside = start >= 0 && column.compressed_size() >= 0 && end.is_some_and(|end| end <= size);
            if !inside || column.num_values() < 0 {
                return Err(RowsError::Column {
                    column: column.column_path().string(),
                    expected: format!("a place in a file of {size} bytes"),
                    found: format!("offset {start}, {} bytes", column.compressed_size()),
                });
            }
        }
    }
    Ok(())
}

/// The key group of every row of a row group; they must ascend within what `_metadata` says.
fn read_key_groups(
    row_group: &dyn RowGroupReader,
    count: usize,
    extent: &GroupExtent,
    spec: &StateFileSpec<'_>,
) -> Result<Vec<u16>, RowsError> {
    let cells = read_column(row_group, KEY_GROUP, count)?;
    let ReadValues::Int32(cells) = cells.cells else {
        return Ok(Vec::new());
    };
    let mut previous = extent.first_group;
    let mut key_groups = Vec::with_capacity(cells.len());
    for cell in cells {
        let group = u16::try_from(cell)
            .ok()
            .filter(|group| *group >= previous && *group <= extent.last_group);
        let Some(group) = group else {
            let expected = format!("{previous} to {}", extent.last_group);
            let reason = format!(
                "row group {}: expected key group {expected}, found {cell}",
                extent.row_group
            );
            return Err(RowsError::Order {
                state: spec.state.to_owned(),
                reason,
            });
        };
        previous = group;
        key_groups.push(group);
    }
    Ok(key_groups)
}

struct Output<'a> {
    spec: &'a StateFileSpec<'a>,
    range: KeyGroupRange,
    groups: Vec<StateRows>,
}

impl Output<'_> {
    fn native(&mut self, row_group: &dyn RowGroupReader, key_groups: &[u16]) -> Result<(), RowsError> {
        let mut keys = read_column(row_group, KEY, key_groups.len())?;
        let mut values = read_column(row_group, VALUE, key_groups.len())?;
        let schemas = read_column(row_group, SCHEMA, key_groups.len())?;
        let ReadValues::Int32(schemas) = &schemas.cells else {
            return Ok(());
        };
        for (&group, schema) in key_groups.iter().zip(schemas) {
            let (key, value) = (keys.next_bytes(), values.next_bytes());
            if !self.range.contains(KeyGroup(group)) {
                continue;
            }
            let schema = u16::try_from(*schema).ok();
            let (Some(key), Some(value), Some(schema)) = (key, value, schema) else {
                return Err(self.wrong(format!("a row of key group {group} is not whole")));
            };
            self.push(group, key, value, schema)?;
        }
        Ok(())
    }

    fn canonical(&mut self, row_group: &dyn RowGroupReader, key_groups: &[u16]) -> Result<(), RowsError> {
        let columns = Columns::canonical(self.spec);
        let read = |plan: &ColumnPlan| read_column(row_group, &plan.name, key_groups.len());
        let mut key_cells = columns.key.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut value_cells = columns.value.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let has_exact = columns.exact && column_index(row_group, EXACT).is_some();
        let mut exact = has_exact
            .then(|| read_column(row_group, EXACT, key_groups.len()))
            .transpose()?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for &group in key_groups {
            if !self.range.contains(KeyGroup(group)) {
                key_cells
                    .iter_mut()
                    .chain(&mut value_cells)
                    .chain(&mut exact)
                    .for_each(ReadCells::skip);
                continue;
            }
            key.clear();
            value.clear();
            for (cells, plan) in key_cells.iter_mut().zip(&columns.key) {
                cells
                    .write_part(plan, Integers::Fixed, columns.key_is_raw, &mut key)
                    .map_err(|e| self.key_error(group, e))?;
            }
            if let Some(bytes) = exact.as_mut().and_then(ReadCells::next_bytes) {
                value_cells.iter_mut().for_each(ReadCells::skip);
                value.extend_from_slice(bytes);
            } else {
                for (cells, plan) in value_cells.iter_mut().zip(&columns.value) {
                    cells
                        .write_part(plan, Integers::Variable, false, &mut value)
                        .map_err(|e| self.value_error(group, e))?;
                }
            }
            self.push(group, &key, &value, self.spec.schema)?;
        }
        Ok(())
    }

    fn push(&mut self, group: u16, key: &[u8], value: &[u8], schema: u16) -> Result<(), RowsError> {
        if self.groups.last().is_none_or(|rows| rows.group.0 != group) {
            self.groups.push(StateRows::new(KeyGroup(group), RowsOf::State(0)));
        }
        if let Some(rows) = self.groups.last_mut() {
            let pushed = push_bytes(&mut rows.keys, key).and_then(|()| push_bytes(&mut rows.values, value));
            if matches!(pushed, Err(CellError::TooLarge)) {
                return Err(self.wrong(format!(
                    "key group {group} has more than 4 GiB. Use a greater max parallelism."
                )));
            }
            rows.schemas.push(schema);
        }
        Ok(())
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

    fn value_error(&self, group: u16, source: ValueError) -> RowsError {
        RowsError::Value {
            state: self.spec.state.to_owned(),
            group,
            expected: self.spec.value.to_string(),
            source,
        }
    }
}

fn column_index(row_group: &dyn RowGroupReader, name: &str) -> Option<usize> {
    row_group
        .metadata()
        .columns()
        .iter()
        .position(|column| column.column_path().parts() == [name.to_owned()])
}

/// Reads a whole column of a row group.
fn read_column(row_group: &dyn RowGroupReader, name: &str, count: usize) -> Result<ReadCells, RowsError> {
    let lost = |found: &str| RowsError::Column {
        column: name.to_owned(),
        expected: format!("{count} rows"),
        found: found.to_owned(),
    };
    let index = column_index(row_group, name).ok_or_else(|| lost("no such column"))?;
    let optional = row_group.metadata().column(index).column_descr().max_def_level() > 0;
    let mut levels = Vec::new();
    let mut read = Levels {
        count,
        levels: optional.then_some(&mut levels),
    };
    let cells = match row_group.get_column_reader(index)? {
        ColumnReader::BoolColumnReader(reader) => ReadValues::Bool(read.all(reader)?),
        ColumnReader::Int32ColumnReader(reader) => ReadValues::Int32(read.all(reader)?),
        ColumnReader::Int64ColumnReader(reader) => ReadValues::Int64(read.all(reader)?),
        ColumnReader::FloatColumnReader(reader) => ReadValues::Float(read.all(reader)?),
        ColumnReader::DoubleColumnReader(reader) => ReadValues::Double(read.all(reader)?),
        ColumnReader::ByteArrayColumnReader(reader) => ReadValues::Bytes(read.all::<_, ByteArray>(reader)?),
        _ => return Err(lost("another type")),
    };
    let cell_count = match &cells {
        ReadValues::Bool(cells) => cells.len(),
        ReadValues::Int32(cells) => cells.len(),
        ReadValues::Int64(cells) => cells.len(),
        ReadValues::Float(cells) => cells.len(),
        ReadValues::Double(cells) => cells.len(),
        ReadValues::Bytes(cells) => cells.len(),
    };
    let rows = if optional { levels.len() } else { cell_count };
    if rows != count {
        return Err(lost(&format!("{rows} rows")));
    }
    Ok(ReadCells::new(cells, optional.then_some(levels)))
}

struct Levels<'a> {
    count: usize,
    levels: Option<&'a mut Vec<i16>>,
}

impl Levels<'_> {
    fn all<D: DataType<T = T>, T>(&mut self, mut reader: ColumnReaderImpl<D>) -> Result<Vec<T>, RowsError> {
        let mut cells = Vec::new();
        let mut done = 0;
        while done < self.count {
            let levels = self.levels.as_deref_mut();
            let (records, ..) = reader.read_records(self.count - done, levels, None, &mut cells)?;
            if records == 0 {
                break;
            }
            done += records;
        }
        Ok(cells)
    }
}
