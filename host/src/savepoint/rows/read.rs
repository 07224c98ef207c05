//! Reads state files. Decodes only the row groups that have wanted key groups.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader as _, FileReader, Length as _, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use regraft_model::key_group::KeyGroupRange;

use super::cells::ReadValues;
use super::chunks::{column_index, read_column};
use super::columns::{EXACT, EXPIRES, KEY_GROUP, schema_of};
use super::footer::check_schema;
use super::pages::unpacked_bytes;
use super::rebuild::Output;
use super::{CELL_BYTES, FileParts, GroupExtent, Layout, RowsError, StateFileSpec, StateRows};
use crate::savepoint::budget::Budget;

/// Number of rows of a row group, at most. A writer ends it after a quarter of that.
const ROW_GROUP_ROWS_MOST: u64 = 1 << 20;
/// Bytes of a row group in the file, at most, if it has more than one row.
pub const ROW_GROUP_PACKED_MAX: u64 = 1 << 30;
/// Bytes to which the pages of a row group unpack, at most, if it has more than one row.
const ROW_GROUP_UNPACKED_MOST: u64 = 512 << 20;
/// Bytes that the cells of a row group take in memory beside the pages, at most.
const ROW_GROUP_CELLS_MOST: u64 = 1 << 30;

/// Reads the rows of the key groups in `range`: one [`StateRows`] per key group with rows, in ascending order.
///
/// `file` needs to have the footer and the row groups of these key groups.
/// Rows other than timers are labelled as those of state 0, since only the caller knows which state it is.
///
/// # Errors
/// - [`RowsError::Parquet`] if the file is not readable Parquet.
/// - [`RowsError::Column`] if a column is not as in `spec`.
/// - [`RowsError::TooLarge`] if a row group is larger than any that is written, or the budget is used up.
/// - [`RowsError::Order`] if the row groups are not as in `groups`, a row is incomplete, or a key group exceeds 4 GiB.
/// - [`RowsError::Key`], [`RowsError::Entry`], [`RowsError::Value`] if a cell is not of its type.
pub fn read_state_file(
    file: impl Into<FileParts>,
    spec: &StateFileSpec<'_>,
    range: KeyGroupRange,
    groups: &[GroupExtent],
    budget: &Budget,
) -> Result<Vec<StateRows>, RowsError> {
    let is_wanted = |extent: &GroupExtent| extent.range().intersect(range).is_some();
    read_wanted(file.into(), spec, range, groups, budget, is_wanted)
}

/// Reads the rows of one row group, as [`read_state_file`] does. `file` needs to have the footer and that row group.
///
/// # Errors
/// Those of [`read_state_file`].
pub fn read_row_group(
    file: impl Into<FileParts>,
    spec: &StateFileSpec<'_>,
    groups: &[GroupExtent],
    row_group: u32,
    budget: &Budget,
) -> Result<Vec<StateRows>, RowsError> {
    let all = KeyGroupRange {
        first: 0,
        last: u16::MAX,
    };
    let is_wanted = |extent: &GroupExtent| extent.row_group == row_group;
    read_wanted(file.into(), spec, all, groups, budget, is_wanted)
}

fn read_wanted(
    file: FileParts,
    spec: &StateFileSpec<'_>,
    range: KeyGroupRange,
    groups: &[GroupExtent],
    budget: &Budget,
    is_wanted: impl Fn(&GroupExtent) -> bool,
) -> Result<Vec<StateRows>, RowsError> {
    // `parquet` panics on some damaged pages. Checksums are verified before, but the maker of a damaged file may have
    // made them too.
    let read = || read_rows(file, spec, range, groups, budget, is_wanted);
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read,
        Err(_) => Err(ParquetError::General("its pages are damaged".to_owned()).into()),
    }
}

fn read_rows(
    parts: FileParts,
    spec: &StateFileSpec<'_>,
    range: KeyGroupRange,
    groups: &[GroupExtent],
    budget: &Budget,
    is_wanted: impl Fn(&GroupExtent) -> bool,
) -> Result<Vec<StateRows>, RowsError> {
    let size = usize::try_from(parts.len()).unwrap_or(usize::MAX);
    check_footer(&parts)?;
    let file = SerializedFileReader::new(parts.clone())?;
    check_columns(&file, spec)?;
    check_places(&file, size)?;
    if file.num_row_groups() != groups.len() {
        let reason = format!("expected {} row groups, found {}", groups.len(), file.num_row_groups());
        return Err(RowsError::Order {
            state: spec.state.to_owned(),
            reason,
        });
    }
    let mut rows = Output::new(spec, range, budget);
    for extent in groups.iter().filter(|extent| is_wanted(extent)) {
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
        let too_large = |reason| RowsError::TooLarge {
            state: spec.state.to_owned(),
            reason,
        };
        let taken = memory_of(&parts, row_group.as_ref(), extent, spec)?;
        let _loan = budget.lend(taken).map_err(|over| too_large(over.to_string()))?;
        let count = usize::try_from(found).unwrap_or(0);
        let key_groups = read_key_groups(row_group.as_ref(), count, extent, spec)?;
        rows.begin_row_group(extent.row_group);
        match spec.layout {
            Layout::Canonical => rows.canonical(row_group.as_ref(), &key_groups)?,
            Layout::Native => rows.native(row_group.as_ref(), &key_groups)?,
        }
    }
    Ok(rows.groups)
}

/// Checks the footer as far as `parquet` could not refuse it by itself. The file ends with its length, and a word.
fn check_footer(parts: &FileParts) -> Result<(), RowsError> {
    const END_BYTES: u64 = 8;
    let Some(end) = parts.len().checked_sub(END_BYTES) else {
        return Ok(());
    };
    let len = parts
        .get_bytes(end, 4)?
        .first_chunk()
        .copied()
        .map_or(0, u32::from_le_bytes);
    let Some(start) = end.checked_sub(u64::from(len)) else {
        return Ok(());
    };
    let footer = parts.get_bytes(start, len as usize)?;
    check_schema(&footer).map_err(|error| ParquetError::General(error.to_string()).into())
}

/// Returns the memory that reading a row group takes, in bytes, after checking all claims that it is allocated by.
fn memory_of(
    parts: &FileParts,
    row_group: &dyn RowGroupReader,
    extent: &GroupExtent,
    spec: &StateFileSpec<'_>,
) -> Result<u64, RowsError> {
    let number = extent.row_group;
    let too_large = |what: String, most: u64| RowsError::TooLarge {
        state: spec.state.to_owned(),
        reason: format!("row group {number} has {what}, expected at most {most}"),
    };
    if extent.rows > ROW_GROUP_ROWS_MOST {
        return Err(too_large(format!("{} rows", extent.rows), ROW_GROUP_ROWS_MOST));
    }
    let columns = schema_of(&StateFileSpec { expires: true, ..*spec })?;
    let mut unpacked = 0u64;
    for column in columns.get_fields() {
        let Some(index) = column_index(row_group, column.name()) else {
            continue;
        };
        let column = row_group.metadata().column(index);
        let start = column
            .dictionary_page_offset()
            .unwrap_or_else(|| column.data_page_offset());
        let [start, len] = [start, column.compressed_size()].map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        let chunk = parts.get_bytes(start, usize::try_from(len).unwrap_or(usize::MAX))?;
        let bytes = unpacked_bytes(&chunk).map_err(|reason| RowsError::Order {
            state: spec.state.to_owned(),
            reason: format!("row group {number}: {reason}"),
        })?;
        unpacked = unpacked.saturating_add(bytes);
    }
    if extent.rows > 1 && unpacked > ROW_GROUP_UNPACKED_MOST {
        return Err(too_large(
            format!("{unpacked} bytes when it is unpacked"),
            ROW_GROUP_UNPACKED_MOST,
        ));
    }
    let cells = extent
        .rows
        .saturating_mul(columns.get_fields().len() as u64)
        .saturating_mul(CELL_BYTES);
    if cells > ROW_GROUP_CELLS_MOST {
        return Err(too_large(format!("cells of {cells} bytes"), ROW_GROUP_CELLS_MOST));
    }
    Ok(unpacked.saturating_add(cells))
}

/// Checks that the file has every column with its type. Other columns are ignored.
fn check_columns(file: &SerializedFileReader<FileParts>, spec: &StateFileSpec<'_>) -> Result<(), RowsError> {
    let found = file.metadata().file_metadata().schema_descr();
    // The column of times of expiry may be absent, but if present it must have its type.
    let spec = StateFileSpec { expires: true, ..*spec };
    for expected in schema_of(&spec)?.get_fields() {
        let is = found
            .columns()
            .iter()
            .find(|column| column.path().parts() == [expected.name().to_owned()]);
        let physical = expected.get_physical_type();
        match is {
            None if [EXACT, EXPIRES].contains(&expected.name()) => {}
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

/// Checks that every column chunk is within the file, since `parquet` panics on negative offsets.
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

/// Returns the key group of every row of a row group, after checking that they ascend within the bounds of `extent`.
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
