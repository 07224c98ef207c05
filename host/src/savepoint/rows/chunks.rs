//! Columns in memory → column chunks of a Parquet row group. The columns are empty afterwards and keep their memory.

use parquet::column::writer::ColumnWriter;
use parquet::file::writer::SerializedRowGroupWriter;
use regraft_model::batch::BytesColumn;

use super::RowsError;
use super::cells::{Cells, ColumnCells, byte_arrays};

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
    // Cells and Parquet schema come from the same plan, so there is a column of the right type; were there not, closing the
    // row group would fail on the number of rows.
    if let Some(mut column) = row_group.next_column()? {
        write(column.untyped())?;
        column.close()?;
    }
    Ok(())
}
