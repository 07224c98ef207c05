//! Emitting: the outputs of a call, as columns.
//!
//! Each record of an output has the row it came from, and key, value and timestamp only as far as they differ from that
//! row's. A column is left empty for as long as every record inherits it; the first record that does not makes it
//! explicit, for those before it too.

use crate::bindings::regraft::operator::types;
use crate::bytes::{Writer, append, item};
use crate::error::Error;
use crate::key::ToKey;
use crate::value::PortValue;
use std::cell::OnceCell;
use std::marker::PhantomData;

/// "None yet": the timestamp of a record without one.
pub const NO_TIMESTAMP: i64 = i64::MIN;

/// An output of an operator, for values `V` (`str`, `[u8]` or a record). `K` is the type of its keys; `()` where
/// records keep the key of the row they come from.
///
/// Made by [`Declare::output`](crate::Declare::output) and [`Declare::output_keyed`](crate::Declare::output_keyed).
/// A port of `Counted<'static>` takes a `Counted<'_>` of any lifetime.
///
/// ```
/// # use regraft_sdk::{Ctx, Declare, Operator, Port, Result};
/// struct Split {
///     /// Lines as they came, with the keys that they had.
///     lines: Port<str>,
///     /// Empty values with a word as their key, in a column named `word`.
///     words: Port<str, str>,
/// }
///
/// impl Operator for Split {
///     type Key<'a> = ();
///     type In<'a> = &'a str;
///
///     fn declare(d: &mut Declare) -> Self {
///         Split { lines: d.output("lines"), words: d.output_keyed("words", "word") }
///     }
///
///     fn process(&mut self, _: (), line: &str, cx: &mut Ctx) -> Result<()> {
///         cx.emit(self.lines, line);
///         for word in line.split_whitespace() {
///             cx.emit(self.words, "").key(word);
///         }
///         Ok(())
///     }
/// }
/// ```
pub struct Port<V: ?Sized, K: ?Sized = ()> {
    pub(crate) index: u32,
    #[allow(clippy::type_complexity)]
    marker: PhantomData<(fn() -> Box<V>, fn() -> Box<K>)>,
}

impl<V: ?Sized, K: ?Sized> Port<V, K> {
    /// The output that was declared after `index` others. For the code that `#[operator]` makes of a function.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Port {
            index,
            marker: PhantomData,
        }
    }
}

impl<V: ?Sized, K: ?Sized> Clone for Port<V, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: ?Sized, K: ?Sized> Copy for Port<V, K> {}

/// The rows of a call: what records inherit from.
pub(crate) struct Rows<'a> {
    /// For each row its key's index; none where a row is a key, or where there are no keys.
    pub(crate) key_index: &'a [u32],
    pub(crate) key_data: &'a [u8],
    pub(crate) key_ends: &'a [u32],
    pub(crate) value_data: &'a [u8],
    pub(crate) value_ends: &'a [u32],
    pub(crate) timestamps: &'a [i64],
}

impl<'a> Rows<'a> {
    /// Rows that have nothing to inherit.
    pub(crate) const NONE: Rows<'static> = Rows {
        key_index: &[],
        key_data: &[],
        key_ends: &[],
        value_data: &[],
        value_ends: &[],
        timestamps: &[],
    };

    /// The number of a row's key.
    pub(crate) fn key_number(&self, row: u32) -> usize {
        self.key_index
            .get(row as usize)
            .map_or(row as usize, |key| *key as usize)
    }

    fn key(&self, row: u32) -> &'a [u8] {
        let key = self.key_number(row);
        if key < self.key_ends.len() {
            item(self.key_data, self.key_ends, key)
        } else {
            &[]
        }
    }

    fn value(&self, row: u32) -> &'a [u8] {
        if (row as usize) < self.value_ends.len() {
            item(self.value_data, self.value_ends, row as usize)
        } else {
            &[]
        }
    }

    pub(crate) fn timestamp(&self, row: u32) -> i64 {
        self.timestamps.get(row as usize).copied().unwrap_or(NO_TIMESTAMP)
    }
}

/// The records emitted on one port.
#[derive(Default)]
pub(crate) struct Columns {
    parents: Vec<u32>,
    key_data: Vec<u8>,
    key_ends: Vec<u32>,
    value_data: Vec<u8>,
    value_ends: Vec<u32>,
    timestamps: Vec<i64>,
    /// Keys are the port's own: none is inherited.
    own_keys: bool,
    /// The row of the first record that has no key, where keys are the port's own.
    keyless: Option<u32>,
}

/// Size that an output grew to, so that the next call's is made as large at once.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sizes {
    records: usize,
    key_bytes: usize,
    value_bytes: usize,
    keys: bool,
    values: bool,
    timestamps: bool,
}

impl Columns {
    pub(crate) fn with_sizes(sizes: Sizes, own_keys: bool) -> Self {
        let some = |wanted: bool, len: usize| if wanted { len + len / 8 } else { 0 };
        Columns {
            parents: Vec::with_capacity(some(true, sizes.records)),
            key_data: Vec::with_capacity(some(sizes.keys, sizes.key_bytes + 16)),
            key_ends: Vec::with_capacity(some(sizes.keys, sizes.records)),
            value_data: Vec::with_capacity(some(sizes.values, sizes.value_bytes + 16)),
            value_ends: Vec::with_capacity(some(sizes.values, sizes.records)),
            timestamps: Vec::with_capacity(some(sizes.timestamps, sizes.records)),
            own_keys,
            keyless: None,
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            records: self.parents.len(),
            key_bytes: self.key_data.len(),
            value_bytes: self.value_data.len(),
            keys: !self.key_ends.is_empty(),
            values: !self.value_ends.is_empty(),
            timestamps: !self.timestamps.is_empty(),
        }
    }

    /// The columns, where anything was emitted. Without rows there are no parents either.
    pub(crate) fn into_columns(self, port: usize, rows: bool) -> Option<types::Output> {
        if self.parents.is_empty() {
            return None;
        }
        Some(types::Output {
            port: port as u32,
            parents: if rows { self.parents } else { Vec::new() },
            key_data: self.key_data,
            key_ends: self.key_ends,
            value_data: self.value_data,
            value_ends: self.value_ends,
            timestamps: self.timestamps,
        })
    }

    /// Returns true if a column has grown beyond what an end offset can say.
    pub(crate) fn too_large(&self) -> bool {
        self.key_data.len().max(self.value_data.len()).max(self.parents.len()) > u32::MAX as usize
    }

    #[inline(always)]
    fn end_key(&mut self) {
        self.key_ends.push(self.key_data.len() as u32);
    }

    #[inline(always)]
    fn end_value(&mut self) {
        self.value_ends.push(self.value_data.len() as u32);
    }

    /// Adds a record that inherits its key and timestamp.
    #[inline(always)]
    pub(crate) fn push<V: PortValue + ?Sized>(&mut self, rows: &Rows<'_>, row: u32, value: &V) -> Result<(), Error> {
        self.start_values(rows);
        let written = value.write(&mut self.value_data);
        self.end_value();
        self.parents.push(row);
        written
    }

    /// Adds a record that inherits everything.
    #[inline(always)]
    pub(crate) fn forward(&mut self, row: u32) {
        // A column that is explicit already is completed before the next explicit record, or at the end of the call.
        self.parents.push(row);
    }

    /// Gives the last record a key.
    #[inline(always)]
    fn set_key<K: ToKey + ?Sized>(&mut self, rows: &Rows<'_>, key: &K) -> Result<(), Error> {
        if self.key_ends.len() + 1 != self.parents.len() {
            self.end_keys_before_last(rows);
        }
        let written = key.write(&mut self.key_data);
        self.end_key();
        written
    }

    /// Gives the last record a timestamp.
    #[inline(always)]
    fn set_timestamp(&mut self, rows: &Rows<'_>, timestamp: i64) {
        if self.timestamps.len() + 1 != self.parents.len() {
            let before = self.parents.len() - 1;
            // That of the last record, if it was set before.
            self.timestamps.truncate(before);
            self.inherit_timestamps(rows, before);
        }
        self.timestamps.push(timestamp);
    }

    #[cold]
    fn end_keys_before_last(&mut self, rows: &Rows<'_>) {
        let before = self.parents.len() - 1;
        if self.key_ends.len() > before {
            // The last record's, set before.
            self.key_ends.truncate(before);
            let end = self.key_ends.last().map_or(0, |end| *end as usize);
            self.key_data.truncate(end);
        }
        self.inherit_keys(rows, before);
    }

    /// Makes the key column explicit for the records before the next one.
    #[inline(always)]
    fn start_keys(&mut self, rows: &Rows<'_>) {
        if self.key_ends.len() != self.parents.len() {
            self.inherit_keys(rows, self.parents.len());
        }
    }

    #[inline(always)]
    fn start_values(&mut self, rows: &Rows<'_>) {
        if self.value_ends.len() != self.parents.len() {
            self.inherit_values(rows);
        }
    }

    #[cold]
    fn inherit_keys(&mut self, rows: &Rows<'_>, until: usize) {
        for at in self.key_ends.len()..until {
            if self.own_keys {
                self.keyless.get_or_insert(self.parents[at]);
            }
            append(&mut self.key_data, rows.key(self.parents[at]));
            self.end_key();
        }
    }

    #[cold]
    fn inherit_values(&mut self, rows: &Rows<'_>) {
        for at in self.value_ends.len()..self.parents.len() {
            append(&mut self.value_data, rows.value(self.parents[at]));
            self.end_value();
        }
    }

    #[cold]
    fn inherit_timestamps(&mut self, rows: &Rows<'_>, until: usize) {
        for at in self.timestamps.len()..until {
            self.timestamps.push(rows.timestamp(self.parents[at]));
        }
    }

    /// Makes explicit what has become explicit for part of the records, or cannot be inherited in this kind of call.
    pub(crate) fn complete(&mut self, rows: &Rows<'_>, inherits: Inherits) {
        if !self.key_ends.is_empty() || !inherits.keys || self.own_keys {
            self.inherit_keys(rows, self.parents.len());
        }
        if !self.value_ends.is_empty() || !inherits.values {
            self.inherit_values(rows);
        }
        if !self.timestamps.is_empty() || !inherits.timestamps {
            self.inherit_timestamps(rows, self.parents.len());
        }
    }

    /// The row of the first record without a key, where each must have one of its own. After `complete`.
    pub(crate) fn keyless(&self) -> Option<u32> {
        self.keyless
    }
}

/// The columns that a call's records can inherit.
#[derive(Clone, Copy)]
pub(crate) struct Inherits {
    /// Also whether there are rows at all.
    pub(crate) keys: bool,
    pub(crate) values: bool,
    pub(crate) timestamps: bool,
}

/// A record that was just emitted: with the key and timestamp of the row it comes from, for as long as it is not given
/// others. Made by [`Ctx::emit`](crate::Ctx::emit); whole at any time, so there is nothing to finish.
///
/// A key or a value whose `Serialize` refuses fails the record that is being processed, whatever the method returns.
pub struct Emission<'a, K: ?Sized> {
    columns: &'a mut Columns,
    rows: &'a Rows<'a>,
    failure: &'a OnceCell<Error>,
    key: PhantomData<fn(&K)>,
}

impl<'a, K: ?Sized> Emission<'a, K> {
    /// Emits a record.
    #[inline(always)]
    pub(crate) fn new<V: PortValue + ?Sized>(
        columns: &'a mut Columns,
        rows: &'a Rows<'a>,
        failure: &'a OnceCell<Error>,
        row: u32,
        value: &V,
    ) -> Self {
        if let Err(error) = columns.push(rows, row, value) {
            refuse(failure, error);
        }
        Emission {
            columns,
            rows,
            failure,
            key: PhantomData,
        }
    }

    /// Gives the record an event time, in milliseconds since the Unix epoch.
    #[inline(always)]
    pub fn at(self, timestamp: i64) -> Self {
        self.columns.set_timestamp(self.rows, timestamp);
        self
    }
}

impl<K: ToKey + ?Sized> Emission<'_, K> {
    /// Gives the record a key. Every record needs one on an output that was declared with keys of its own, and on others
    /// there is no such method.
    #[inline(always)]
    pub fn key(self, key: &K) -> Self {
        if let Err(error) = self.columns.set_key(self.rows, key) {
            refuse(self.failure, error);
        }
        self
    }
}

#[cold]
fn refuse(failure: &OnceCell<Error>, error: Error) {
    // The first one counts.
    _ = failure.set(error);
}

/// Emits many records of one row on one port. Made by [`Ctx::emitter`].
pub struct Emitter<'a> {
    columns: &'a mut Columns,
    row: u32,
}

impl<'a> Emitter<'a> {
    #[inline(always)]
    pub(crate) fn new(columns: &'a mut Columns, rows: &Rows<'_>, row: u32) -> Self {
        columns.start_keys(rows);
        columns.start_values(rows);
        Emitter { columns, row }
    }

    /// Makes room for `records` more records with `key_bytes` of keys and `value_bytes` of values together.
    pub fn reserve(&mut self, records: usize, key_bytes: usize, value_bytes: usize) {
        self.columns.parents.reserve(records);
        self.columns.key_ends.reserve(records);
        self.columns.value_ends.reserve(records);
        self.columns.key_data.reserve(key_bytes);
        self.columns.value_data.reserve(value_bytes);
    }

    /// Emits a record whose key and value are written in place.
    #[inline(always)]
    pub fn emit_with(&mut self, write: impl FnOnce(&mut Writer<'_>, &mut Writer<'_>)) {
        let columns = &mut *self.columns;
        write(
            &mut Writer {
                to: &mut columns.key_data,
            },
            &mut Writer {
                to: &mut columns.value_data,
            },
        );
        columns.end_key();
        columns.end_value();
        columns.parents.push(self.row);
    }
}
