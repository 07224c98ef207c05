//! Reads state files. Decodes only the row groups that have wanted key groups.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, Length as _, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use regraft_model::key_group::KeyGroupRange;

use super::cells::ReadValues;
use super::chunks::read_column;
use super::columns::{EXACT, EXPIRES, KEY_GROUP, schema_of};
use super::rebuild::Output;
use super::{FileParts, GroupExtent, Layout, RowsError, StateFileSpec, StateRows};

/// Reads the rows of the key groups in `range`: one [`StateRows`] per key group with rows, in ascending order.
///
/// `file` needs to have the footer and the row groups of these key groups.
/// Rows other than timers are labelled as those of state 0, since only the caller knows which state it is.
///
/// # Errors
/// - [`RowsError::Parquet`] if the file is not readable Parquet.
/// - [`RowsError::Column`] if a column is not as in `spec`.
/// - [`RowsError::Order`] if the row groups are not as in `groups`, a row is incomplete, or a key group exceeds 4 GiB.
/// - [`RowsError::Key`], [`RowsError::Entry`], [`RowsError::Value`] if a cell is not of its type.
pub fn read_state_file(
    file: impl Into<FileParts>,
    spec: &StateFileSpec<'_>,
    range: KeyGroupRange,
    groups: &[GroupExtent],
) -> Result<Vec<StateRows>, RowsError> {
    let file = file.into();
    // `parquet` panics on some damaged pages. Checksums are verified before, but the maker of a damaged file may have
    // made them too.
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
