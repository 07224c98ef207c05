//! Conversion between columns in memory and column chunks of a Parquet row group. Writing clears a column and keeps its
//! memory.

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, DataType};
use parquet::file::reader::RowGroupReader;
use parquet::file::writer::SerializedRowGroupWriter;
use regraft_model::batch::BytesColumn;

use super::RowsError;
use super::cells::{Cells, ColumnCells, ReadCells, ReadValues, byte_arrays};

pub(super) type RowGroup<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

pub(super) fn write_ints(row_group: &mut RowGroup<'_>, cells: &mut Vec<i32>) -> Result<(), RowsError> {
    write_column(row_group, |writer| {
        if let ColumnWriter::Int32ColumnWriter(writer) = writer {
            writer.write_batch(cells, None, None)?;
        }
        Ok(())
    })?;
    cells.clear();
    Ok(())
}

pub(super) fn write_bytes(
    row_group: &mut RowGroup<'_>,
    column: &mut BytesColumn,
    levels: Option<&[i16]>,
) -> Result<(), RowsError> {
    let arrays = byte_arrays(column);
    write_column(row_group, |writer| {
        if let ColumnWriter::ByteArrayColumnWriter(writer) = writer {
            writer.write_batch(&arrays, levels, None)?;
        }
        Ok(())
    })
}

/// Writes a column of times that may be null: a row of level 0 has no cell.
pub(super) fn write_times(
    row_group: &mut RowGroup<'_>,
    cells: &mut Vec<i64>,
    levels: &mut Vec<i16>,
) -> Result<(), RowsError> {
    write_column(row_group, |writer| {
        if let ColumnWriter::Int64ColumnWriter(writer) = writer {
            writer.write_batch(cells, Some(levels), None)?;
        }
        Ok(())
    })?;
    cells.clear();
    levels.clear();
    Ok(())
}

pub(super) fn write_cells(
    row_group: &mut RowGroup<'_>,
    column: &mut ColumnCells,
    optional: bool,
) -> Result<(), RowsError> {
    let levels = std::mem::take(&mut column.levels);
    let levels = optional.then_some(levels.as_slice());
    if let Cells::Bytes(cells) = &mut column.cells {
        return write_bytes(row_group, cells, levels);
    }
    write_column(row_group, |writer| {
        match (&column.cells, writer) {
            (Cells::Bool(cells), ColumnWriter::BoolColumnWriter(writer)) => writer.write_batch(cells, levels, None)?,
            (Cells::Int32(cells), ColumnWriter::Int32ColumnWriter(writer)) => {
                writer.write_batch(cells, levels, None)?
            }
            (Cells::Int64(cells), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(cells, levels, None)?
            }
            (Cells::Float(cells), ColumnWriter::FloatColumnWriter(writer)) => {
                writer.write_batch(cells, levels, None)?
            }
            (Cells::Double(cells), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(cells, levels, None)?
            }
            _ => 0,
        };
        Ok(())
    })?;
    match &mut column.cells {
        Cells::Bool(cells) => cells.clear(),
        Cells::Int32(cells) => cells.clear(),
        Cells::Int64(cells) => cells.clear(),
        Cells::Float(cells) => cells.clear(),
        Cells::Double(cells) => cells.clear(),
        Cells::Bytes(cells) => cells.clear(),
    }
    Ok(())
}

fn write_column(
    row_group: &mut RowGroup<'_>,
    write: impl FnOnce(&mut ColumnWriter<'_>) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    // Cells and Parquet schema come from the same plan, so the column has the right type.
    // If it had not, closing the row group would fail on the number of rows.
    if let Some(mut column) = row_group.next_column()? {
        write(column.untyped())?;
        column.close()?;
    }
    Ok(())
}

/// Returns the index of a column, or `None` if there is none of that name.
pub(super) fn column_index(row_group: &dyn RowGroupReader, name: &str) -> Option<usize> {
    row_group
        .metadata()
        .columns()
        .iter()
        .position(|column| column.column_path().parts() == [name.to_owned()])
}

/// Reads a whole column of a row group.
pub(super) fn read_column(row_group: &dyn RowGroupReader, name: &str, count: usize) -> Result<ReadCells, RowsError> {
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
