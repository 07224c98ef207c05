//! One instance of an operator, driven by the records that cross the boundary.
//!
//! This is all of the SDK's work between the export and the operator's methods, so it is the same on wasm and natively:
//! `#[operator]` puts the exports on it, the test harness and benchmarks use it directly.

mod core;

use crate::bindings::regraft::operator::types;
use crate::bytes::item;
use crate::context::{Ctx, OpenContext, Timer};
use crate::declare::Declare;
use crate::error::Error;
use crate::key::FromKey;
use crate::operator::Operator;
use crate::output::{Inherits, Rows};
use crate::value::FromValue;
use core::Core;

#[cfg(not(target_family = "wasm"))]
pub use crate::bindings::regraft::operator::state::{Entries, Found};
pub use crate::bindings::regraft::operator::types::{
    Batch, CellWrites, Cells, EntryWrites, Failure, Header, Keyed, OpenContext as OpenRecord, Outcome,
    Output as OutputRecord, StateItems, TimerBatch, Values,
};
#[cfg(not(target_family = "wasm"))]
pub use crate::state::StateReads;

/// The JSON of `describe` for an operator (`docs/formats/describe.md`).
///
/// # Panics
///
/// When the declaration contradicts itself: a name twice, state without a key, a type that contains itself.
pub fn describe<O: Operator>() -> String {
    let (declare, _operator) = declared::<O>();
    if let Some(message) = declare.call.take_failure() {
        panic!("{message}");
    }
    declare.to_json::<O::Key<'static>, O::In<'static>>()
}

/// The operator with its handles, and what it declares.
fn declared<O: Operator>() -> (Declare, O) {
    let mut declare = Declare::default();
    let operator = O::declare(&mut declare);
    if let Some(methods) = O::METHODS {
        declare.methods(methods);
    }
    (declare, operator)
}

/// An instance of an operator, opened. `Send` where the operator is.
///
/// Calls are one at a time, on any thread. After a failed call the instance can go on; its effects are dropped, also
/// those on operator state. Private state is the exception: what a failed call did to it is not undone.
pub struct Instance<O: Operator> {
    operator: O,
    core: Core,
    opened: Opened,
}

/// Arguments that an instance was opened with.
struct Opened {
    header: Header,
    context: OpenRecord,
    config: String,
    arguments: Vec<String>,
}

impl Opened {
    fn context(&self) -> OpenContext<'_> {
        OpenContext {
            context: &self.context,
            watermark: self.header.watermark,
            config: &self.config,
            arguments: &self.arguments,
        }
    }
}

impl<O: Operator> Instance<O> {
    /// Makes an instance ready. `config` is JSON, `null` for none.
    ///
    /// # Errors
    ///
    /// The failure of the operator's `open`.
    pub fn open(header: Header, context: &OpenRecord, config: &str, arguments: &[String]) -> Result<Self, Failure> {
        let (declare, mut operator) = declared::<O>();
        let opened = Opened {
            header,
            context: context.clone(),
            config: config.into(),
            arguments: arguments.to_vec(),
        };
        let core = Core::new(declare);
        let result = operator.open(&mut opened.context());
        core.check_state()?;
        result.map_err(whole)?;
        Ok(Instance { operator, core, opened })
    }

    /// Sets what state that does not travel is read from: natively only, in place of the imports.
    #[cfg(not(target_family = "wasm"))]
    pub fn set_state(&mut self, reads: Option<std::sync::Arc<dyn StateReads>>) {
        self.core.call.set_reads(reads);
    }

    /// Processes one batch.
    ///
    /// # Errors
    ///
    /// A failure names the row where it is one row's: a bad key or value, or what `process` failed with. State that
    /// cannot be read, and columns that contradict each other, name none.
    pub fn process(&mut self, header: Header, records: Batch, state: Keyed) -> Result<Outcome, Failure> {
        let Keyed {
            key_data,
            key_ends,
            cells,
        } = state;
        let rows = Rows {
            key_index: &records.key_index,
            key_data: &key_data,
            key_ends: &key_ends,
            value_data: &records.value_data,
            value_ends: &records.value_ends,
            timestamps: &records.timestamps,
        };
        let reads_key = <O::Key<'static> as FromKey<'static>>::READS;
        check_columns(&rows, reads_key)?;
        check_keys::<O>(&rows)?;
        let input = records.input;
        check_input::<O>(input)?;
        <O::In<'_> as FromValue<'_>>::check(input, rows.value_data, rows.value_ends).map_err(at_row)?;

        self.core.begin(key_ends.len(), cells)?;
        let inherits = Inherits {
            keys: true,
            values: true,
            timestamps: true,
        };
        let mut cx = self.core.context(header, input, rows, inherits);
        // The record of a row. A closure cannot return what borrows from its surroundings by two ways, hence a macro.
        macro_rules! record {
            ($row:expr) => {{
                let row = $row as usize;
                let key = if reads_key {
                    item(&key_data, &key_ends, records.key_index[row] as usize)
                } else {
                    &[]
                };
                let value = item(&records.value_data, &records.value_ends, row);
                // SAFETY: both columns have been checked above.
                unsafe {
                    (
                        <O::Key<'_> as FromKey<'_>>::read(key)?,
                        <O::In<'_> as FromValue<'_>>::read(input, value)?,
                    )
                }
            }};
        }
        let count = records.value_ends.len();
        if self.core.prefetch {
            let result = self.run_rows(&mut cx, count, |operator, _, row| {
                let (key, value) = record!(row);
                operator.prefetch(key, value)
            });
            if result.is_err() {
                return self.core.end(cx, result);
            }
        }
        let result = self.run_rows(&mut cx, count, |operator, cx, row| {
            let (key, value) = record!(row);
            operator.process(key, value, cx)
        });
        self.core.end(cx, result)
    }

    /// Fires timers that are due, at most one of a key.
    ///
    /// # Errors
    ///
    /// As [`process`](Self::process), where a row is a timer.
    pub fn on_timers(&mut self, header: Header, timers: TimerBatch, state: Keyed) -> Result<Outcome, Failure> {
        let Keyed {
            key_data,
            key_ends,
            cells,
        } = state;
        let timestamps = self.core.timestamps(&timers)?;
        let rows = Rows {
            key_index: &timers.key_index,
            key_data: &key_data,
            key_ends: &key_ends,
            timestamps: &timestamps,
            ..Rows::NONE
        };
        check_keys::<O>(&rows)?;
        self.core.begin(key_ends.len(), cells)?;
        let inherits = Inherits {
            keys: true,
            values: false,
            timestamps: false,
        };
        let mut cx = self.core.context(header, 0, rows, inherits);
        let result = self.run_rows(&mut cx, timers.times.len(), |operator, cx, row| {
            let at = row as usize;
            let key = item(&key_data, &key_ends, timers.key_index[at] as usize);
            // SAFETY: the column has been checked above.
            let key = unsafe { <O::Key<'_> as FromKey<'_>>::read(key)? };
            operator.on_timer(key, Timer(timers.timer_ids[at]), timers.times[at], cx)
        });
        self.core.end(cx, result)
    }

    /// Takes a batch of keys at the end of all inputs.
    ///
    /// # Errors
    ///
    /// As [`process`](Self::process), where a row is a key.
    pub fn finish_keys(&mut self, header: Header, state: Keyed) -> Result<Outcome, Failure> {
        let Keyed {
            key_data,
            key_ends,
            cells,
        } = state;
        let rows = Rows {
            key_data: &key_data,
            key_ends: &key_ends,
            ..Rows::NONE
        };
        check_keys::<O>(&rows)?;
        self.core.begin(key_ends.len(), cells)?;
        let inherits = Inherits {
            keys: true,
            values: false,
            timestamps: false,
        };
        let mut cx = self.core.context(header, 0, rows, inherits);
        let result = self.run_rows(&mut cx, key_ends.len(), |operator, cx, row| {
            // SAFETY: the column has been checked above.
            let key = unsafe { <O::Key<'_> as FromKey<'_>>::read(item(&key_data, &key_ends, row as usize))? };
            operator.finish(key, cx)
        });
        self.core.end(cx, result)
    }

    /// Ends: all inputs have, and all keys have been handed over.
    ///
    /// # Errors
    ///
    /// The failure of the operator's `finish_all`.
    pub fn finish(&mut self, header: Header) -> Result<Outcome, Failure> {
        self.core.begin_without_keys();
        let inherits = Inherits {
            keys: false,
            values: false,
            timestamps: false,
        };
        let mut cx = self.core.context(header, 0, Rows::NONE, inherits);
        let result = self.run_once(&mut cx, |operator, cx| operator.finish_all(cx));
        self.core.end(cx, result)
    }

    /// The watermark has advanced.
    ///
    /// # Errors
    ///
    /// The failure of the operator's `on_watermark`.
    pub fn on_watermark(&mut self, header: Header) -> Result<Outcome, Failure> {
        self.core.begin_without_keys();
        let inherits = Inherits {
            keys: false,
            values: false,
            timestamps: false,
        };
        let mut cx = self.core.context(header, 0, Rows::NONE, inherits);
        let result = self.run_once(&mut cx, |operator, cx| operator.on_watermark(cx.watermark(), cx));
        self.core.end(cx, result)
    }

    /// The operator state and the private state of the instance.
    ///
    /// # Errors
    ///
    /// When an item cannot be encoded, and what the operator's `snapshot_private` fails with.
    pub fn snapshot(&mut self) -> Result<Vec<StateItems>, Failure> {
        let private = match self.core.private_state {
            true => Some(self.operator.snapshot_private()),
            false => None,
        };
        self.core.check_state()?;
        let private = private.transpose().map_err(whole)?;
        self.core.save(private.as_deref()).map_err(whole)
    }

    /// Takes operator state back, in place of what there is, and tells the operator.
    ///
    /// # Errors
    ///
    /// When a state is not declared, when an item cannot be decoded, and what the operator's `restore_private` and
    /// `restored` fail with.
    pub fn restore(&mut self, header: Header, states: &[StateItems]) -> Result<(), Failure> {
        self.opened.header = header;
        let private = self.core.load(states).map_err(whole)?;
        let result = {
            let _running = self.core.call.run();
            self.core.call.set_no_key();
            let operator = &mut self.operator;
            match private {
                Some(parts) => operator.restore_private(parts),
                None => Ok(()),
            }
            .and_then(|()| operator.restored(&mut self.opened.context()))
        };
        let result = self.core.check_state().and(result.map_err(whole));
        self.core.end_operator_states(result.is_ok());
        result
    }

    /// Runs `each` for rows `0..count`, with the row's key at hand.
    #[inline(always)]
    fn run_rows<'a>(
        &mut self,
        cx: &mut Ctx<'a>,
        count: usize,
        each: impl Fn(&mut O, &mut Ctx<'a>, u32) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let call = &*self.core.call;
        let running = call.run();
        for row in 0..count as u32 {
            cx.row = row;
            cx.draws = 0;
            current_row::set(row);
            call.set_key(cx.rows.key_index.get(row as usize).map_or(row, |key| *key) as usize);
            let result = each(&mut self.operator, cx, row);
            // A broken state comes before whatever the operator made of its absence.
            if call.failed() {
                break;
            }
            if let Err(error) = cx.settled(result) {
                return Err(Failure {
                    row: Some(row),
                    message: error.to_string(),
                });
            }
        }
        drop(running);
        current_row::clear();
        Ok(())
    }

    /// Runs `once`, with no row and no key at hand.
    fn run_once<'a>(
        &mut self,
        cx: &mut Ctx<'a>,
        once: impl FnOnce(&mut O, &mut Ctx<'a>) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let _running = self.core.call.run();
        self.core.call.set_no_key();
        cx.row = 0;
        let result = once(&mut self.operator, cx);
        cx.settled(result).map_err(whole)
    }
}

/// A failure that is no row's.
fn whole(error: Error) -> Failure {
    Failure {
        row: None,
        message: error.to_string(),
    }
}

fn at_row((row, message): (usize, String)) -> Failure {
    Failure {
        row: Some(row as u32),
        message,
    }
}

/// Looks at whether the operator has such an input.
fn check_input<O: Operator>(input: u32) -> Result<(), Failure> {
    match <O::In<'static> as FromValue<'static>>::INPUTS {
        Some(inputs) if input >= inputs => Err(Failure {
            row: None,
            message: format!("records came by input {input}, and the operator has {inputs} inputs"),
        }),
        _ => Ok(()),
    }
}

/// Looks at a column of keys; a bad one is told by the first row that has it.
fn check_keys<O: Operator>(rows: &Rows<'_>) -> Result<(), Failure> {
    <O::Key<'_> as FromKey<'_>>::check(rows.key_data, rows.key_ends).map_err(|(key, message)| {
        let row = if rows.key_index.is_empty() {
            Some(key)
        } else {
            first_row(rows.key_index, key)
        };
        Failure {
            row: row.map(|row| row as u32),
            message,
        }
    })
}

#[cold]
fn first_row(key_index: &[u32], key: usize) -> Option<usize> {
    key_index.iter().position(|index| *index as usize == key)
}

/// Looks at whether the columns fit each other.
fn check_columns(rows: &Rows<'_>, reads_key: bool) -> Result<(), Failure> {
    let count = rows.value_ends.len();
    let wrong = |message: String| Err(Failure { row: None, message });
    if rows.timestamps.len() != count {
        return wrong(format!(
            "the batch has {count} values and {} timestamps",
            rows.timestamps.len()
        ));
    }
    if rows.key_index.len() != count && (reads_key || !rows.key_index.is_empty()) {
        return wrong(format!(
            "the batch has {count} values and {} keys",
            rows.key_index.len()
        ));
    }
    Ok(())
}

/// The row that is being processed, for the panic hook. Natively there is no hook, and threads share no counter.
pub(crate) mod current_row {
    #[cfg(target_family = "wasm")]
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// `u32::MAX`: none.
    #[cfg(target_family = "wasm")]
    static ROW: AtomicU32 = AtomicU32::new(u32::MAX);

    #[inline(always)]
    pub(crate) fn set(_row: u32) {
        #[cfg(target_family = "wasm")]
        ROW.store(_row, Relaxed);
    }

    pub(crate) fn clear() {
        set(u32::MAX);
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn get() -> Option<u32> {
        Some(ROW.load(Relaxed)).filter(|row| *row != u32::MAX)
    }
}

/// A header for calls by hand: processing time 0, no watermark yet, seed 0.
pub fn header() -> Header {
    types::Header {
        now: 0,
        watermark: i64::MIN,
        seed: 0,
        first_row: 0,
    }
}
