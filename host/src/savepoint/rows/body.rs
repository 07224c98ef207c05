//! The columns of the row group in progress.

use regraft_model::batch::BytesColumn;
use regraft_model::value::{Decoder, Integers, Scalar, ValueError};

use super::cells::{CellError, Cells, ColumnCells, JSON_OF_ROW_MAX, push_bytes};
use super::chunks::{RowGroup, write_bytes, write_cells, write_ints, write_times};
use super::columns::{ColumnPlan, Columns, Form};
use super::{Entries, Layout, RowsError, StateFileSpec};
use crate::state::rows::{NEVER, split_timer_entry};

/// A row to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) key: &'a [u8],
    /// Empty for kinds without an entry key.
    pub(super) entry: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) schema: u16,
    pub(super) expires: i64,
}

/// A part of a row cannot be written.
#[derive(Debug)]
pub(super) enum PartError {
    /// Its key.
    Key(CellError),
    /// Its entry key.
    Entry(CellError),
    /// Its value.
    Value(CellError),
    /// A key that JSON cannot represent exactly; the text is `a key` or `a map key`.
    Inexact(&'static str),
    /// It expires, but the file has no column for that.
    Expires,
}

/// Columns by layout. All have one cell per row.
pub(super) enum Body {
    Canonical(Canonical),
    Native(Native),
}

pub(super) struct Canonical {
    columns: Columns,
    entries: EntryKind,
    key: Vec<ColumnCells>,
    entry: Vec<ColumnCells>,
    value: Vec<ColumnCells>,
    expires: Expiry,
    exact: BytesColumn,
    exact_levels: Vec<i16>,
}

pub(super) struct Native {
    keys: BytesColumn,
    /// `None` for kinds without an entry key.
    entries: Option<BytesColumn>,
    values: BytesColumn,
    schemas: Vec<i32>,
    expires: Expiry,
}

/// The conversion of an entry key to cells.
#[derive(Debug, Clone, Copy)]
enum EntryKind {
    None,
    List,
    Map,
    Timers,
}

/// The optional column of times of expiry.
struct Expiry {
    is_there: bool,
    times: Vec<i64>,
    levels: Vec<i16>,
}

impl Expiry {
    const fn new(is_there: bool) -> Self {
        Self {
            is_there,
            times: Vec::new(),
            levels: Vec::new(),
        }
    }

    fn push(&mut self, time: i64) -> Result<(), PartError> {
        if !self.is_there {
            return if time == NEVER { Ok(()) } else { Err(PartError::Expires) };
        }
        self.levels.push(i16::from(time != NEVER));
        if time != NEVER {
            self.times.push(time);
        }
        Ok(())
    }

    fn write(&mut self, row_group: &mut RowGroup<'_>) -> Result<(), RowsError> {
        if self.is_there {
            write_times(row_group, &mut self.times, &mut self.levels)?;
        }
        Ok(())
    }
}

impl Body {
    pub(super) fn new(spec: &StateFileSpec<'_>) -> Self {
        match spec.layout {
            Layout::Canonical => {
                let columns = Columns::canonical(spec);
                let cells = |plans: &[ColumnPlan]| plans.iter().map(ColumnCells::new).collect();
                Self::Canonical(Canonical {
                    key: cells(&columns.key),
                    entry: cells(&columns.entry),
                    value: cells(&columns.value),
                    entries: match spec.entries {
                        Entries::None | Entries::Items => EntryKind::None,
                        Entries::List => EntryKind::List,
                        Entries::Map(_) => EntryKind::Map,
                        Entries::Timers => EntryKind::Timers,
                    },
                    expires: Expiry::new(columns.expires),
                    exact: BytesColumn::default(),
                    exact_levels: Vec::new(),
                    columns,
                })
            }
            Layout::Native => Self::Native(Native {
                keys: BytesColumn::default(),
                entries: spec.entries.have_keys().then(BytesColumn::default),
                values: BytesColumn::default(),
                schemas: Vec::new(),
                expires: Expiry::new(spec.expires),
            }),
        }
    }

    /// Appends a row.
    pub(super) fn push(&mut self, row: &Row<'_>) -> Result<(), PartError> {
        match self {
            Self::Canonical(body) => body.push(row),
            Self::Native(body) => {
                body.schemas.push(i32::from(row.schema));
                push_bytes(&mut body.keys, row.key).map_err(PartError::Key)?;
                if let Some(entries) = &mut body.entries {
                    push_bytes(entries, row.entry).map_err(PartError::Entry)?;
                }
                push_bytes(&mut body.values, row.value).map_err(PartError::Value)?;
                body.expires.push(row.expires)
            }
        }
    }

    /// Returns the bytes of texts and byte strings in typed columns, which may be more than those of the encoded values.
    pub(super) fn bytes(&self) -> usize {
        let Self::Canonical(body) = self else { return 0 };
        let bytes = |cells: &ColumnCells| match &cells.cells {
            Cells::Bytes(cells) => cells.data.len(),
            _ => 0,
        };
        let columns = body.key.iter().chain(&body.entry).chain(&body.value);
        columns.map(bytes).sum::<usize>() + body.exact.data.len()
    }

    /// Returns the bytes that a row adds to those of [`Body::bytes`] and of its encoding, at most. `bytes`: those of its key,
    /// entry key and value, which may be in typed columns and in the exact one.
    pub(super) fn growth_max(&self, bytes: usize) -> usize {
        match self {
            Self::Canonical(body) if body.has_json() => 2 * bytes + JSON_OF_ROW_MAX as usize,
            _ => bytes,
        }
    }

    /// Writes all columns and clears them.
    pub(super) fn write(&mut self, row_group: &mut RowGroup<'_>) -> Result<(), RowsError> {
        match self {
            Self::Canonical(body) => body.write(row_group),
            Self::Native(body) => {
                write_bytes(row_group, &mut body.keys, None)?;
                if let Some(entries) = &mut body.entries {
                    write_bytes(row_group, entries, None)?;
                }
                write_bytes(row_group, &mut body.values, None)?;
                write_ints(row_group, &mut body.schemas)?;
                body.expires.write(row_group)
            }
        }
    }
}

impl Canonical {
    fn has_json(&self) -> bool {
        let columns = &self.columns;
        let mut all = columns.key.iter().chain(&columns.entry).chain(&columns.value);
        all.any(|column| column.form == Form::Json)
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), PartError> {
        let (columns, mut json_left) = (&self.columns, JSON_OF_ROW_MAX);
        let written = write_key(&columns.key, columns.key_is_raw, &mut self.key, row.key, &mut json_left);
        if !written.map_err(PartError::Key)? {
            return Err(PartError::Inexact("a key"));
        }
        match self.entries {
            EntryKind::None => {}
            EntryKind::Map => {
                let (cells, is_raw) = (&mut self.entry, columns.entry_is_raw);
                let written = write_key(&columns.entry, is_raw, cells, row.entry, &mut json_left);
                if !written.map_err(PartError::Entry)? {
                    return Err(PartError::Inexact("a map key"));
                }
            }
            EntryKind::List => write_index(&mut self.entry, row.entry).map_err(PartError::Entry)?,
            EntryKind::Timers => write_timer(&mut self.entry, row.entry).map_err(PartError::Entry)?,
        }
        let mut decoder = Decoder::new(row.value, Integers::Variable);
        let same =
            read_parts(&columns.value, &mut self.value, &mut decoder, &mut json_left).map_err(PartError::Value)?;
        if columns.exact {
            self.exact_levels.push(i16::from(!same));
            if !same {
                push_bytes(&mut self.exact, row.value).map_err(PartError::Value)?;
            }
        }
        self.expires.push(row.expires)
    }

    fn write(&mut self, row_group: &mut RowGroup<'_>) -> Result<(), RowsError> {
        let columns = &self.columns;
        let key = columns.key.iter().zip(&mut self.key);
        let entry = columns.entry.iter().zip(&mut self.entry);
        let value = columns.value.iter().zip(&mut self.value);
        for (plan, cells) in key.chain(entry).chain(value) {
            write_cells(row_group, cells, plan.form == Form::Optional)?;
        }
        self.expires.write(row_group)?;
        if columns.exact {
            write_bytes(row_group, &mut self.exact, Some(&self.exact_levels))?;
            self.exact_levels.clear();
        }
        Ok(())
    }
}

/// Appends the cells of a key. Returns true if they restore the same bytes.
fn write_key(
    plans: &[ColumnPlan],
    is_raw: bool,
    cells: &mut [ColumnCells],
    key: &[u8],
    json_left: &mut u64,
) -> Result<bool, CellError> {
    if let (true, [cells], [plan]) = (is_raw, &mut *cells, plans) {
        let text = || std::str::from_utf8(key).map_err(|e| invalid("UTF-8 text", e.to_string()));
        cells.push(if plan.ty == regraft_model::schema::Type::String {
            Scalar::Text(text()?)
        } else {
            Scalar::Bytes(key)
        })?;
        return Ok(true);
    }
    read_parts(plans, cells, &mut Decoder::new(key, Integers::Fixed), json_left)
}

fn write_index(cells: &mut [ColumnCells], entry: &[u8]) -> Result<(), CellError> {
    let index: [u8; 8] = entry
        .try_into()
        .map_err(|_| invalid("an index of 8 bytes", format!("{} bytes", entry.len())))?;
    cells
        .iter_mut()
        .try_for_each(|cells| cells.push(Scalar::Unsigned(u64::from_be_bytes(index))))
}

fn write_timer(cells: &mut [ColumnCells], entry: &[u8]) -> Result<(), CellError> {
    let timer = split_timer_entry(entry);
    let (time, name) = timer.ok_or_else(|| invalid("a time and a name", format!("{} bytes", entry.len())))?;
    let parts = [Scalar::Text(name), Scalar::Signed(time)];
    cells
        .iter_mut()
        .zip(parts)
        .try_for_each(|(cells, part)| cells.push(part))
}

fn invalid(expected: &str, found: String) -> ValueError {
    ValueError::Invalid {
        expected: expected.into(),
        found,
    }
}

fn read_parts(
    plans: &[ColumnPlan],
    cells: &mut [ColumnCells],
    decoder: &mut Decoder<'_>,
    json_left: &mut u64,
) -> Result<bool, CellError> {
    let mut same = true;
    for (plan, cells) in plans.iter().zip(cells) {
        same &= cells.read_part(plan, decoder, json_left)?;
    }
    decoder.finish()?;
    Ok(same)
}
