//! The call that an operator's method runs in: time, randomness, timers, and the way to its outputs.

use crate::bindings::regraft::operator::types;
use crate::bytes::Writer;
use crate::error::{Error, Result};
use crate::output::{Columns, Emission, Emitter, Inherits, Port, Rows};
use crate::value::PortValue;
use serde::de::DeserializeOwned;
use std::cell::OnceCell;

/// The right to read the processing time, made by [`Declare::clock`](crate::Declare::clock): so that what an operator
/// declares of itself is true.
#[derive(Clone, Copy)]
pub struct Clock(pub(crate) ());

/// The right to draw random numbers, made by [`Declare::random`](crate::Declare::random).
#[derive(Clone, Copy)]
pub struct Random(pub(crate) ());

/// A timer of the operator, made by [`Declare::timer`](crate::Declare::timer) and
/// [`Declare::processing_timer`](crate::Declare::processing_timer). [`Ctx::at`] sets it for the key at hand, and
/// [`Ctx::cancel`] takes it back. Compare it to know which one fires:
///
/// ```
/// # use regraft_sdk::{Any, Ctx, Declare, Operator, Result, Timer};
/// struct Alarm {
///     gap: Timer,
///     daily: Timer,
/// }
///
/// impl Operator for Alarm {
///     type Key<'a> = &'a str;
///     type In<'a> = Any<'a>;
///
///     fn declare(d: &mut Declare) -> Self {
///         d.key("user");
///         Alarm { gap: d.timer("gap"), daily: d.processing_timer("daily") }
///     }
///
///     fn process(&mut self, _user: &str, _: Any<'_>, cx: &mut Ctx) -> Result<()> {
///         cx.at(self.gap, cx.timestamp() + 60_000);
///         Ok(())
///     }
///
///     fn on_timer(&mut self, _user: &str, timer: Timer, _at: i64, cx: &mut Ctx) -> Result<()> {
///         if timer == self.daily {
///             cx.cancel(self.gap, cx.watermark());
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timer(pub(crate) u32);

/// Context of [`Operator::open`](crate::Operator::open) and [`Operator::restored`](crate::Operator::restored).
pub struct OpenContext<'a> {
    pub(crate) context: &'a types::OpenContext,
    pub(crate) watermark: i64,
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

    /// Number of parallel instances.
    pub fn parallelism(&self) -> u32 {
        self.context.parallelism
    }

    /// The number of key groups of the job.
    pub fn max_parallelism(&self) -> u32 {
        self.context.max_parallelism
    }

    /// The operator's watermark, in milliseconds: `i64::MIN` in a new job.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }
}

fn shortened(config: &str) -> String {
    let mut short: String = config.chars().take(200).collect();
    if short.len() < config.len() {
        short.push('…');
    }
    short
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
    pub(crate) outputs: Vec<Columns>,
    pub(crate) timers: TimerOps,
    /// The first reason why the row fails, whatever the method returns.
    pub(crate) failure: OnceCell<Error>,
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
    /// Fails the call if it has no key, as in `on_watermark` and `finish_all`.
    #[inline]
    pub fn at(&mut self, timer: Timer, time: i64) {
        self.add_timer(REGISTER, timer, time);
    }

    /// Takes back what [`at`](Self::at) has set for the key at hand, the timer and the time. Nothing where it was not
    /// set, or has fired.
    ///
    /// Fails the call if it has no key, as [`at`](Self::at) does.
    #[inline]
    pub fn cancel(&mut self, timer: Timer, time: i64) {
        self.add_timer(DELETE, timer, time);
    }

    fn add_timer(&mut self, op: u8, timer: Timer, time: i64) {
        let key = self.rows.key_number(self.row);
        if key >= self.rows.key_ends.len() {
            return self.timer_without_key();
        }
        self.timers.ops.push(op);
        self.timers.keys.push(key as u32);
        self.timers.ids.push(timer.0);
        self.timers.times.push(time);
    }

    #[cold]
    fn timer_without_key(&self) {
        const WHY: &str = "a timer was set or cancelled where no key is at hand: that can be in `process`, `on_timer` and `finish` only";
        _ = self.failure.set(WHY.into());
    }

    /// Emits `value`, with the row's key and timestamp or those that follow:
    ///
    /// ```
    /// # use regraft_sdk::{Ctx, Port};
    /// # fn emit(cx: &mut Ctx, lines: Port<str>, words: Port<str, str>) {
    /// cx.emit(lines, "to be");
    /// cx.emit(lines, "or not").at(1_700_000_000_000);
    /// cx.emit(words, "").key("be");
    /// # }
    /// ```
    ///
    /// A port that was declared with keys of its own needs a key for each record: one that was emitted without fails.
    #[inline(always)]
    pub fn emit<V: PortValue + ?Sized, K: ?Sized>(&mut self, port: Port<V, K>, value: &V) -> Emission<'_, K> {
        let columns = &mut self.outputs[port.index as usize];
        Emission::new(columns, &self.rows, &self.failure, self.row, value)
    }

    /// Emits a record of which key and value are written in place, without a copy: the fastest way for keys that are
    /// computed. What is written must be bytes that the port's types allow (raw text and bytes, as they are).
    #[inline(always)]
    pub fn emit_with<V: ?Sized, K: ?Sized>(
        &mut self,
        port: Port<V, K>,
        write: impl FnOnce(&mut Writer<'_>, &mut Writer<'_>),
    ) {
        self.emitter(port).emit_with(write);
    }

    /// Emits many records of the row, as [`emit_with`](Self::emit_with) does each: the port is looked up once.
    #[inline(always)]
    pub fn emitter<V: ?Sized, K: ?Sized>(&mut self, port: Port<V, K>) -> Emitter<'_> {
        Emitter::new(&mut self.outputs[port.index as usize], &self.rows, self.row)
    }

    /// Passes the row on as it is, key included: nothing is copied.
    ///
    /// Only in `process` has a row a value; elsewhere an empty one is emitted.
    #[inline]
    pub fn forward<V: ?Sized>(&mut self, port: Port<V>) {
        self.outputs[port.index as usize].forward(self.row);
    }

    /// The result of a method of the operator, which fails also where it has emitted what cannot be encoded, or set a timer
    /// without a key. That came before the method returned, so it comes first.
    #[inline(always)]
    pub(crate) fn settled(&mut self, result: Result<()>) -> Result<()> {
        if self.failure.get().is_none() {
            return result;
        }
        self.failure.take().map_or(result, Err)
    }

    /// Ends the call: the columns, ready for the host.
    pub(crate) fn finish_outputs(&mut self) -> Result<(), String> {
        for columns in &mut self.outputs {
            columns.complete(&self.rows, self.inherits);
            if columns.too_large() {
                return Err("the call emitted more than 4 GiB on one port".into());
            }
        }
        Ok(())
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
