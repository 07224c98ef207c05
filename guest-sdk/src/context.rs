//! What an operator sees of its call, and how it emits.
//!
//! An output is columns: for each record the row it came from, and key, value and timestamp only as far as they differ
//! from that row's. A column is left empty for as long as every record inherits it; the first record that does not
//! makes it explicit, for those before it too.

use crate::bindings::regraft::operator::types;
use crate::bytes::{Writer, append, item};
use crate::error::Result;
use crate::key::ToKey;
use crate::value::PortValue;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// "None yet": the timestamp of a record without one.
pub const NO_TIMESTAMP: i64 = i64::MIN;

/// An output of an operator, for values `V` (`str`, `[u8]` or a record). `K` is the type of its keys; `()` where
/// records keep the key of the row they come from.
///
/// Made by [`Declare::output`](crate::Declare::output) and [`Declare::output_keyed`](crate::Declare::output_keyed).
/// A port of `Counted<'static>` takes a `Counted<'_>` of any lifetime.
pub struct Port<V: ?Sized, K: ?Sized = ()> {
    index: u32,
    #[allow(clippy::type_complexity)]
    marker: PhantomData<(fn() -> Box<V>, fn() -> Box<K>)>,
}

impl<V: ?Sized, K: ?Sized> Port<V, K> {
    pub(crate) fn new(index: u32) -> Self {
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

/// The right to read the processing time, made by [`Declare::clock`](crate::Declare::clock): so that what an operator
/// declares of itself is true.
#[derive(Clone, Copy)]
pub struct Clock(pub(crate) ());

/// The right to draw random numbers, made by [`Declare::random`](crate::Declare::random).
#[derive(Clone, Copy)]
pub struct Random(pub(crate) ());

/// A timer of the operator, made by [`Declare::timer`](crate::Declare::timer) and
/// [`Declare::processing_timer`](crate::Declare::processing_timer). Compare it to know which one fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timer(pub(crate) u32);

/// What [`Operator::open`](crate::Operator::open) and [`Operator::restored`](crate::Operator::restored) are given.
pub struct OpenContext<'a> {
    pub(crate) context: &'a types::OpenContext,
    pub(crate) config: &'a str,
    pub(crate) arguments: &'a [String],
}

impl OpenContext<'_> {
    /// The operator's `config` of the job file. Where there is none, this is what the JSON `null` makes: `None` of an
    /// `Option`, an error for a struct (see [`config_or_default`](Self::config_or_default)).
    ///
    /// # Errors
    ///
    /// When the config does not fit `T`; the message says where and why.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        let config = if self.config.is_empty() { "null" } else { self.config };
        serde_json::from_str(config).map_err(|error| {
            let error = error.to_string();
            // The job file is TOML: places in the JSON made of it say nothing to its author.
            let what = error.rfind(" at line ").map_or(error.as_str(), |at| &error[..at]);
            format!("config {}: {what}", shortened(config)).into()
        })
    }

    /// The operator's `config` of the job file, or the type's default where there is none.
    ///
    /// # Errors
    ///
    /// As [`config`](Self::config).
    pub fn config_or_default<T: DeserializeOwned + Default>(&self) -> Result<T> {
        Ok(self.config::<Option<T>>()?.unwrap_or_default())
    }

    /// The config as the JSON it came as; `null` where there is none.
    pub fn config_json(&self) -> &str {
        self.config
    }

    /// The job's arguments: what stood after `--`.
    pub fn arguments(&self) -> &[String] {
        self.arguments
    }

    /// The operator's uid in the job.
    pub fn uid(&self) -> &str {
        &self.context.uid
    }

    /// Which parallel instance of the operator this is, from 0.
    pub fn subtask(&self) -> u32 {
        self.context.subtask
    }

    /// How many parallel instances there are.
    pub fn parallelism(&self) -> u32 {
        self.context.parallelism
    }

    /// The number of key groups of the job.
    pub fn max_parallelism(&self) -> u32 {
        self.context.max_parallelism
    }

    /// Where the operator's watermark stands, in milliseconds: `i64::MIN` in a new job.
    pub fn watermark(&self) -> i64 {
        self.context.watermark
    }
}

fn shortened(config: &str) -> String {
    let mut short: String = config.chars().take(200).collect();
    if short.len() < config.len() {
        short.push('…');
    }
    short
}

/// Where the rows of a call are: what records inherit from.
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

    fn timestamp(&self, row: u32) -> i64 {
        self.timestamps.get(row as usize).copied().unwrap_or(NO_TIMESTAMP)
    }
}

/// The records emitted on one port.
#[derive(Default)]
pub(crate) struct Output {
    parents: Vec<u32>,
    key_data: Vec<u8>,
    key_ends: Vec<u32>,
    value_data: Vec<u8>,
    value_ends: Vec<u32>,
    timestamps: Vec<i64>,
}

/// How large an output became, so that the next call's is made as large at once.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sizes {
    records: usize,
    key_bytes: usize,
    value_bytes: usize,
    keys: bool,
    values: bool,
    timestamps: bool,
}

impl Output {
    pub(crate) fn with_sizes(sizes: Sizes) -> Self {
        let some = |wanted: bool, len: usize| if wanted { len + len / 8 } else { 0 };
        Output {
            parents: Vec::with_capacity(some(true, sizes.records)),
            key_data: Vec::with_capacity(some(sizes.keys, sizes.key_bytes + 16)),
            key_ends: Vec::with_capacity(some(sizes.keys, sizes.records)),
            value_data: Vec::with_capacity(some(sizes.values, sizes.value_bytes + 16)),
            value_ends: Vec::with_capacity(some(sizes.values, sizes.records)),
            timestamps: Vec::with_capacity(some(sizes.timestamps, sizes.records)),
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

    /// Whether a column has grown beyond what an end offset can say.
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

    /// Makes the key column explicit for the records before this one.
    #[inline(always)]
    fn start_keys(&mut self, rows: &Rows<'_>) {
        if self.key_ends.len() != self.parents.len() {
            self.inherit_keys(rows);
        }
    }

    #[cold]
    fn inherit_keys(&mut self, rows: &Rows<'_>) {
        for at in self.key_ends.len()..self.parents.len() {
            append(&mut self.key_data, rows.key(self.parents[at]));
            self.end_key();
        }
    }

    #[inline(always)]
    fn start_values(&mut self, rows: &Rows<'_>) {
        if self.value_ends.len() != self.parents.len() {
            self.inherit_values(rows);
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
    fn inherit_timestamps(&mut self, rows: &Rows<'_>) {
        for at in self.timestamps.len()..self.parents.len() {
            self.timestamps.push(rows.timestamp(self.parents[at]));
        }
    }

    /// Makes explicit what has become explicit for part of the records, or cannot be inherited in this kind of call.
    fn complete(&mut self, rows: &Rows<'_>, inherits: Inherits) {
        if !self.key_ends.is_empty() || !inherits.keys {
            self.inherit_keys(rows);
        }
        if !self.value_ends.is_empty() || !inherits.values {
            self.inherit_values(rows);
        }
        if !self.timestamps.is_empty() || !inherits.timestamps {
            self.inherit_timestamps(rows);
        }
    }
}

/// Which columns a call's records can inherit.
#[derive(Clone, Copy)]
pub(crate) struct Inherits {
    /// Also whether there are rows at all.
    pub(crate) keys: bool,
    pub(crate) values: bool,
    pub(crate) timestamps: bool,
}

/// Timer operations of a call, in order.
#[derive(Default)]
pub(crate) struct TimerOps {
    pub(crate) ops: Vec<u8>,
    pub(crate) keys: Vec<u32>,
    pub(crate) ids: Vec<u32>,
    pub(crate) times: Vec<i64>,
}

const REGISTER: u8 = 0;
const DELETE: u8 = 1;

/// The call that an operator's method runs in: time, the outputs, and timers.
///
/// "The row" below is the record being processed; in `on_timer` it is the timer, in `finish` the key.
pub struct Ctx<'a> {
    pub(crate) header: types::Header,
    pub(crate) input: u32,
    pub(crate) row: u32,
    pub(crate) draws: u64,
    pub(crate) inherits: Inherits,
    pub(crate) rows: Rows<'a>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) timers: TimerOps,
}

impl Ctx<'_> {
    /// The row's event time in milliseconds since the Unix epoch; [`NO_TIMESTAMP`] where it has none. That of an
    /// event-time timer is its time; a processing-time timer has none.
    #[inline]
    pub fn timestamp(&self) -> i64 {
        self.rows.timestamp(self.row)
    }

    /// The operator's watermark in milliseconds: no event time at or below it is still to come. `i64::MIN` before the
    /// first, `i64::MAX` after the last.
    #[inline]
    pub fn watermark(&self) -> i64 {
        self.header.watermark
    }

    /// The processing time in milliseconds since the Unix epoch. It stands still within a call.
    #[inline]
    pub fn now(&self, _clock: Clock) -> i64 {
        self.header.now
    }

    /// A random number. The sequence of draws depends on the row only, so that a rerun draws the same ones.
    #[inline]
    pub fn random(&mut self, _random: Random) -> u64 {
        let row = u64::from(self.header.first_row) + u64::from(self.row);
        let start = mix(self.header.seed ^ mix(row.wrapping_add(1)));
        self.draws = self.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(start.wrapping_add(self.draws))
    }

    /// The number of the row within this call, from 0.
    #[inline]
    pub fn row(&self) -> u32 {
        self.row
    }

    /// Which of the operator's inputs the row came by.
    #[inline]
    pub fn input(&self) -> u32 {
        self.input
    }

    /// Lets `timer` fire for the key at hand, once the operator's watermark (or, for a processing-time timer, the clock)
    /// has reached `time`, in milliseconds. It is one timer however often it is set for the same time; if that time has
    /// come already, it fires as soon as this call is over.
    ///
    /// # Panics
    ///
    /// Where no key is at hand: in `on_watermark` and `finish_all`.
    #[inline]
    pub fn at(&mut self, timer: Timer, time: i64) {
        self.add_timer(REGISTER, timer, time);
    }

    /// Takes back what [`at`](Self::at) has set for the key at hand, the timer and the time. Nothing where it was not
    /// set, or has fired.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    #[inline]
    pub fn cancel(&mut self, timer: Timer, time: i64) {
        self.add_timer(DELETE, timer, time);
    }

    fn add_timer(&mut self, op: u8, timer: Timer, time: i64) {
        let key = self.rows.key_number(self.row);
        assert!(
            key < self.rows.key_ends.len(),
            "a timer was set or cancelled where no key is at hand: it can be in `process`, `on_timer` and `finish` only"
        );
        self.timers.ops.push(op);
        self.timers.keys.push(key as u32);
        self.timers.ids.push(timer.0);
        self.timers.times.push(time);
    }

    /// Emits `value` with the row's key and timestamp.
    ///
    /// # Errors
    ///
    /// When the value's `Serialize` refuses. `str` and `[u8]` never do.
    #[inline]
    pub fn emit<V: PortValue + ?Sized, K: ?Sized>(&mut self, port: Port<V, K>, value: &V) -> Result<()> {
        let output = &mut self.outputs[port.index as usize];
        output.start_values(&self.rows);
        value.write(&mut output.value_data)?;
        output.end_value();
        output.parents.push(self.row);
        Ok(())
    }

    /// Emits `value` with a key of its own and the row's timestamp.
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit), and when a composite key's `Serialize` refuses.
    #[inline]
    pub fn emit_keyed<V, K>(&mut self, port: Port<V, K>, key: &K, value: &V) -> Result<()>
    where
        V: PortValue + ?Sized,
        K: ToKey + ?Sized,
    {
        let output = &mut self.outputs[port.index as usize];
        output.start_keys(&self.rows);
        output.start_values(&self.rows);
        key.write(&mut output.key_data)?;
        value.write(&mut output.value_data)?;
        output.end_key();
        output.end_value();
        output.parents.push(self.row);
        Ok(())
    }

    /// Emits `value` with the row's key, at another event time (in milliseconds).
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit).
    pub fn emit_at<V: PortValue + ?Sized, K: ?Sized>(
        &mut self,
        port: Port<V, K>,
        timestamp: i64,
        value: &V,
    ) -> Result<()> {
        self.outputs[port.index as usize].inherit_timestamps(&self.rows);
        self.emit(port, value)?;
        self.outputs[port.index as usize].timestamps.push(timestamp);
        Ok(())
    }

    /// Emits `value` with a key of its own, at another event time (in milliseconds).
    ///
    /// # Errors
    ///
    /// As [`emit_keyed`](Self::emit_keyed).
    pub fn emit_keyed_at<V, K>(&mut self, port: Port<V, K>, key: &K, timestamp: i64, value: &V) -> Result<()>
    where
        V: PortValue + ?Sized,
        K: ToKey + ?Sized,
    {
        self.outputs[port.index as usize].inherit_timestamps(&self.rows);
        self.emit_keyed(port, key, value)?;
        self.outputs[port.index as usize].timestamps.push(timestamp);
        Ok(())
    }

    /// Emits a record of which key and value are written in place, without a copy: the fastest way for keys that are
    /// computed. What is written must be bytes that the port's types allow (raw text and bytes, as they are).
    #[inline(always)]
    pub fn emit_with<V: ?Sized, K: ?Sized>(
        &mut self,
        port: Port<V, K>,
        write: impl FnOnce(&mut Writer<'_>, &mut Writer<'_>),
    ) {
        let output = &mut self.outputs[port.index as usize];
        output.start_keys(&self.rows);
        output.start_values(&self.rows);
        write(
            &mut Writer {
                to: &mut output.key_data,
            },
            &mut Writer {
                to: &mut output.value_data,
            },
        );
        output.end_key();
        output.end_value();
        output.parents.push(self.row);
    }

    /// Emits many records of the row, as [`emit_with`](Self::emit_with) does each: the port is looked up once.
    #[inline(always)]
    pub fn emitter<V: ?Sized, K: ?Sized>(&mut self, port: Port<V, K>) -> Emitter<'_> {
        let output = &mut self.outputs[port.index as usize];
        output.start_keys(&self.rows);
        output.start_values(&self.rows);
        Emitter { output, row: self.row }
    }

    /// Passes the row on as it is: nothing is copied.
    ///
    /// Only in `process` has a row a value; elsewhere an empty one is emitted.
    #[inline]
    pub fn forward<V: ?Sized, K: ?Sized>(&mut self, port: Port<V, K>) {
        // A column that is explicit already is completed before the next explicit record, or at the end of the call.
        self.outputs[port.index as usize].parents.push(self.row);
    }

    /// Ends the call: the columns, ready for the host.
    pub(crate) fn finish_outputs(&mut self) -> Result<(), String> {
        for output in &mut self.outputs {
            output.complete(&self.rows, self.inherits);
            if output.too_large() {
                return Err("the call emitted more than 4 GiB on one port".into());
            }
        }
        Ok(())
    }
}

/// Emits many records of one row on one port. Made by [`Ctx::emitter`].
pub struct Emitter<'a> {
    output: &'a mut Output,
    row: u32,
}

impl Emitter<'_> {
    /// Makes room for `records` more records with `key_bytes` of keys and `value_bytes` of values together.
    pub fn reserve(&mut self, records: usize, key_bytes: usize, value_bytes: usize) {
        self.output.parents.reserve(records);
        self.output.key_ends.reserve(records);
        self.output.value_ends.reserve(records);
        self.output.key_data.reserve(key_bytes);
        self.output.value_data.reserve(value_bytes);
    }

    /// Emits a record whose key and value are written in place.
    #[inline(always)]
    pub fn emit_with(&mut self, write: impl FnOnce(&mut Writer<'_>, &mut Writer<'_>)) {
        let output = &mut *self.output;
        write(
            &mut Writer {
                to: &mut output.key_data,
            },
            &mut Writer {
                to: &mut output.value_data,
            },
        );
        output.end_key();
        output.end_value();
        output.parents.push(self.row);
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
