//! The cells of one typed column in memory, between encoded values and Parquet. Allocates per cell only for JSON.

use bytes::Bytes;
use parquet::data_type::ByteArray;
use regraft_model::batch::BytesColumn;
use regraft_model::schema::Type;
use regraft_model::value::{self, Decoder, Integers, Scalar, Value, ValueError};

use super::columns::{ColumnPlan, Form};
use crate::savepoint::budget::Budget;
use crate::savepoint::json_size::parsed_bytes;

/// Memory that the JSON of a row may take when it is parsed, in bytes. It fits every machine that may restore it.
pub(super) const JSON_OF_ROW_MAX: u64 = 64 << 20;
/// Memory that the JSON of a cell that is read may take, in bytes: other tools and earlier versions wrote more.
const JSON_READ_MAX: u64 = 1 << 30;

/// Cells by Parquet's physical types, with byte strings as `B`. Nulls have no cell.
#[derive(Debug)]
pub(super) enum Cells<B = BytesColumn> {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(B),
}

/// Cells as they are read.
pub(super) type ReadValues = Cells<Vec<ByteArray>>;

/// Reason why one part of a row has no cell.
#[derive(Debug)]
pub(super) enum CellError {
    /// The bytes are not of the type.
    Value(ValueError),
    /// The column would exceed 4 GiB.
    TooLarge,
}

impl From<ValueError> for CellError {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

/// A column in progress.
#[derive(Debug)]
pub(super) struct ColumnCells {
    /// Cells that are not null.
    pub(super) cells: Cells,
    /// For an optional column, 1 per row, or 0 for null.
    pub(super) levels: Vec<i16>,
}

impl ColumnCells {
    pub(super) fn new(plan: &ColumnPlan) -> Self {
        let cells = match (plan.form, &plan.ty) {
            (Form::Json, _) => Cells::Bytes(BytesColumn::default()),
            (_, Type::Bool) => Cells::Bool(Vec::new()),
            (_, Type::U8 | Type::U16 | Type::U32 | Type::I8 | Type::I16 | Type::I32) => Cells::Int32(Vec::new()),
            (_, Type::U64 | Type::I64) => Cells::Int64(Vec::new()),
            (_, Type::F32) => Cells::Float(Vec::new()),
            (_, Type::F64) => Cells::Double(Vec::new()),
            _ => Cells::Bytes(BytesColumn::default()),
        };
        Self {
            cells,
            levels: Vec::new(),
        }
    }

    /// Decodes one part of a row and appends its cell. Returns true if the cell restores the same bytes. A cell whose JSON
    /// would take more memory than is left of `json_left` is `null`.
    pub(super) fn read_part(
        &mut self,
        plan: &ColumnPlan,
        decoder: &mut Decoder<'_>,
        json_left: &mut u64,
    ) -> Result<bool, CellError> {
        match plan.form {
            Form::Scalar => self.push(decoder.scalar(&plan.ty)?)?,
            Form::Optional => {
                // The tag of an option is encoded as a bool.
                if decoder.scalar(&Type::Bool)? == Scalar::Bool(true) {
                    self.levels.push(1);
                    self.push(decoder.scalar(&plan.ty)?)?;
                } else {
                    self.levels.push(0);
                }
            }
            Form::Json => {
                let mut ahead = decoder.clone();
                let Some(left) = json_left.checked_sub(ahead.json_bytes(&plan.ty)?) else {
                    *decoder = ahead;
                    self.push(Scalar::Text("null"))?;
                    return Ok(false);
                };
                *json_left = left;
                let value = decoder.value(&plan.ty)?;
                let json = value::to_json(&plan.ty, &value);
                self.push(Scalar::Text(&json.to_string()))?;
                return Ok(same_bytes(&plan.ty, &value, &json));
            }
        }
        Ok(true)
    }

    /// Appends a cell.
    pub(super) fn push(&mut self, scalar: Scalar<'_>) -> Result<(), CellError> {
        // Unsigned integers are stored as the signed ones with the same bits.
        match (&mut self.cells, scalar) {
            (Cells::Bool(cells), Scalar::Bool(b)) => cells.push(b),
            (Cells::Int32(cells), Scalar::Unsigned(n)) => cells.push(n as u32 as i32),
            (Cells::Int32(cells), Scalar::Signed(n)) => cells.push(n as i32),
            (Cells::Int64(cells), Scalar::Unsigned(n)) => cells.push(n as i64),
            (Cells::Int64(cells), Scalar::Signed(n)) => cells.push(n),
            (Cells::Float(cells), Scalar::F32(x)) => cells.push(x),
            (Cells::Double(cells), Scalar::F64(x)) => cells.push(x),
            (Cells::Bytes(cells), Scalar::Char(c)) => push_bytes(cells, c.encode_utf8(&mut [0; 4]).as_bytes())?,
            (Cells::Bytes(cells), Scalar::Text(s)) => push_bytes(cells, s.as_bytes())?,
            (Cells::Bytes(cells), Scalar::Bytes(b)) => push_bytes(cells, b)?,
            (_, other) => {
                return Err(ValueError::Mismatch {
                    expected: "the column's type".into(),
                    found: format!("{other:?}"),
                }
                .into());
            }
        }
        Ok(())
    }
}

/// Appends bytes, unless their end offset would exceed 32 bits.
pub(super) fn push_bytes(column: &mut BytesColumn, item: &[u8]) -> Result<(), CellError> {
    if column.data.len() + item.len() > u32::MAX as usize {
        return Err(CellError::TooLarge);
    }
    column.push(item);
    Ok(())
}

/// Returns true if a value's JSON restores its bytes. JSON loses the order of a map's entries and the bits of a NaN.
fn same_bytes(ty: &Type, value: &Value, json: &serde_json::Value) -> bool {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let again = value::from_json(ty, json);
    value::encode(ty, value, &mut before).is_ok()
        && again.is_ok_and(|again| value::encode(ty, &again, &mut after).is_ok())
        && before == after
}

/// Takes all items as Parquet's type: slices of one allocation.
pub(super) fn byte_arrays(column: &mut BytesColumn) -> Vec<ByteArray> {
    let data = Bytes::from(std::mem::take(&mut column.data));
    let mut start = 0;
    column
        .ends
        .drain(..)
        .map(|end| {
            let item = data.slice(start..end as usize);
            start = end as usize;
            ByteArray::from(item)
        })
        .collect()
}

/// A column that was read, with the position of its reader.
#[derive(Debug)]
pub(super) struct ReadCells {
    /// Cells that are not null.
    pub(super) cells: ReadValues,
    /// For an optional column, 1 per row, or 0 for null.
    pub(super) levels: Option<Vec<i16>>,
    row: usize,
    cell: usize,
}

impl ReadCells {
    pub(super) const fn new(cells: ReadValues, levels: Option<Vec<i16>>) -> Self {
        Self {
            cells,
            levels,
            row: 0,
            cell: 0,
        }
    }

    /// Returns the next row's bytes from a column of bytes; `None` for null, or after the last row.
    pub(super) fn next_bytes(&mut self) -> Option<&[u8]> {
        let cell = self.next_cell()?;
        match &self.cells {
            ReadValues::Bytes(cells) => cells.get(cell).map(ByteArray::data),
            _ => None,
        }
    }

    /// Returns the next row's number from a column of 64 bits; `None` for null, or after the last row.
    pub(super) fn next_int64(&mut self) -> Option<i64> {
        let cell = self.next_cell()?;
        match &self.cells {
            ReadValues::Int64(cells) => cells.get(cell).copied(),
            _ => None,
        }
    }

    /// Returns the next row's number from a column of 32 bits; `None` for null, or after the last row.
    pub(super) fn next_int32(&mut self) -> Option<i32> {
        let cell = self.next_cell()?;
        match &self.cells {
            ReadValues::Int32(cells) => cells.get(cell).copied(),
            _ => None,
        }
    }

    /// Returns the index of the next row's cell, or `None` for null.
    fn next_cell(&mut self) -> Option<usize> {
        let row = self.row;
        self.row += 1;
        if self.levels.as_ref().is_some_and(|levels| levels.get(row) != Some(&1)) {
            return None;
        }
        self.cell += 1;
        Some(self.cell - 1)
    }

    /// Skips a row.
    pub(super) fn skip(&mut self) {
        let row = self.row;
        self.row += 1;
        if self.levels.as_ref().is_none_or(|levels| levels.get(row) == Some(&1)) {
            self.cell += 1;
        }
    }

    /// Returns the bytes of all cells of a column of bytes, and those of the largest; 0 for other columns.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let ReadValues::Bytes(cells) = &self.cells else {
            return (0, 0);
        };
        let lens = cells.iter().map(|cell| cell.data().len());
        lens.fold((0, 0), |(sum, largest), len| {
            (len.saturating_add(sum), len.max(largest))
        })
    }

    /// Encodes the next row's cell and appends it to `out`. Parsed JSON takes its memory from the budget.
    pub(super) fn write_part(
        &mut self,
        plan: &ColumnPlan,
        integers: Integers,
        raw: bool,
        budget: &Budget,
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        let row = self.row;
        self.row += 1;
        if plan.form == Form::Optional {
            let there = self.levels.as_ref().is_some_and(|levels| levels.get(row) == Some(&1));
            out.push(u8::from(there));
            if !there {
                return Ok(());
            }
        }
        let cell = self.cell;
        self.cell += 1;
        let lost = || ValueError::Short {
            len: cell,
            expected: format!("column {:?}", plan.name),
        };
        // `encode` and `encode_key` differ in the width of integers; both encode a scalar without allocating.
        let put = |ty: &Type, value: Value, out: &mut Vec<u8>| match integers {
            Integers::Variable => value::encode(ty, &value, out),
            Integers::Fixed => value::encode_key(ty, &value, out),
        };
        match &self.cells {
            ReadValues::Bool(cells) => out.push(u8::from(*cells.get(cell).ok_or_else(lost)?)),
            ReadValues::Int32(cells) => put(&plan.ty, integer32(&plan.ty, *cells.get(cell).ok_or_else(lost)?), out)?,
            ReadValues::Int64(cells) => put(&plan.ty, integer64(&plan.ty, *cells.get(cell).ok_or_else(lost)?), out)?,
            ReadValues::Float(cells) => out.extend_from_slice(&cells.get(cell).ok_or_else(lost)?.to_le_bytes()),
            ReadValues::Double(cells) => out.extend_from_slice(&cells.get(cell).ok_or_else(lost)?.to_le_bytes()),
            ReadValues::Bytes(cells) => {
                let bytes = cells.get(cell).ok_or_else(lost)?.data();
                if plan.form == Form::Json {
                    return put(&plan.ty, from_json_text(&plan.ty, bytes, budget)?, out);
                }
                check_text(&plan.ty, bytes)?;
                if !raw && plan.ty != Type::Char {
                    // A length is encoded as a u64.
                    put(&Type::U64, Value::Unsigned(bytes.len() as u64), out)?;
                }
                out.extend_from_slice(bytes);
            }
        }
        Ok(())
    }
}

fn integer32(ty: &Type, n: i32) -> Value {
    match ty {
        Type::U8 | Type::U16 | Type::U32 => Value::Unsigned(u64::from(n as u32)),
        _ => Value::Signed(i64::from(n)),
    }
}

fn integer64(ty: &Type, n: i64) -> Value {
    if *ty == Type::U64 {
        Value::Unsigned(n as u64)
    } else {
        Value::Signed(n)
    }
}

fn from_json_text(ty: &Type, bytes: &[u8], budget: &Budget) -> Result<Value, ValueError> {
    let taken = parsed_bytes(bytes);
    let too_large = |expected: String| ValueError::Invalid {
        expected,
        found: format!("JSON that takes about {taken} bytes of memory"),
    };
    if taken > JSON_READ_MAX {
        return Err(too_large(format!("JSON that takes at most {JSON_READ_MAX}")));
    }
    let lent = budget.lend(taken);
    let _loan = lent.map_err(|over| too_large(format!("less JSON ({over})")))?;
    let json = serde_json::from_slice(bytes).map_err(|e| ValueError::Invalid {
        expected: "JSON".into(),
        found: e.to_string(),
    })?;
    value::from_json(ty, &json)
}

/// Checks text cells, since another tool may have written other bytes.
fn check_text(ty: &Type, bytes: &[u8]) -> Result<(), ValueError> {
    let invalid = |expected: &str| ValueError::Invalid {
        expected: expected.into(),
        found: "other bytes".into(),
    };
    match ty {
        Type::String => std::str::from_utf8(bytes)
            .map(|_| ())
            .map_err(|_| invalid("UTF-8 text")),
        Type::Char => {
            let text = std::str::from_utf8(bytes).map_err(|_| invalid("one character"))?;
            if text.chars().count() == 1 {
                Ok(())
            } else {
                Err(invalid("one character"))
            }
        }
        _ => Ok(()),
    }
}
