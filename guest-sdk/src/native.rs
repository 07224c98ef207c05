//! One instance of an operator, driven by the records that cross the boundary.
//!
//! This is all of the SDK's work between the export and the operator's methods, so it is the same on wasm and natively:
//! `operator!` puts the exports on it, the test harness and benchmarks use it directly.

use crate::bindings::regraft::operator::types;
use crate::bytes::item;
use crate::context::{Ctx, Inherits, OpenContext, Output, Rows, Sizes};
use crate::declare::Declare;
use crate::error::Error;
use crate::key::FromKey;
use crate::operator::Operator;
use crate::state::{Call, CellWrites, StateColumn};
use crate::value::FromValue;
use std::sync::Arc;

pub use crate::bindings::regraft::operator::types::{
    Batch, Failure, Header, Keyed, OpenContext as OpenRecord, Outcome, Output as OutputRecord,
};

/// The JSON of `describe` for an operator (`docs/formats/describe.md`).
///
/// # Panics
///
/// When the declaration contradicts itself: a name twice, state without a key, a type that contains itself.
pub fn describe<O: Operator>() -> String {
    let mut declare = Declare::default();
    let _operator = O::declare(&mut declare);
    declare.to_json::<O::Key<'static>, O::In<'static>>()
}

/// An instance of an operator, opened. `Send` where the operator is.
///
/// Calls are one at a time, on any thread. After a failed call the instance can go on; its effects are dropped.
pub struct Instance<O: Operator> {
    operator: O,
    core: Core,
}

/// What an instance has beside the operator, whatever its type.
struct Core {
    call: Arc<Call>,
    names: Vec<String>,
    columns: Vec<Arc<dyn StateColumn>>,
    sizes: Vec<Sizes>,
}

impl<O: Operator> Instance<O> {
    /// Makes an instance ready. `config` is JSON, `null` for none.
    ///
    /// # Errors
    ///
    /// What the operator's `open` fails with.
    pub fn open(context: &OpenRecord, config: &str, arguments: &[String]) -> Result<Self, Failure> {
        let mut declare = Declare::default();
        let mut operator = O::declare(&mut declare);
        operator
            .open(&mut OpenContext {
                context,
                config,
                arguments,
            })
            .map_err(|error| Failure {
                row: None,
                message: error.to_string(),
            })?;
        let core = Core {
            call: declare.call,
            names: declare.states.iter().map(|state| state.name.clone()).collect(),
            columns: declare.states.into_iter().map(|state| state.column).collect(),
            sizes: vec![Sizes::default(); declare.outputs.len()],
        };
        Ok(Instance { operator, core })
    }

    /// Processes one batch.
    ///
    /// # Errors
    ///
    /// A failure names the row where it is one row's: a bad key or value, or what `process` failed with. State that
    /// cannot be read, and columns that contradict each other, name none.
    pub fn process(&mut self, records: Batch, state: Keyed) -> Result<Outcome, Failure> {
        let Keyed {
            key_data,
            key_ends,
            cell_data,
            cell_ends,
            cell_schemas,
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
        <O::In<'_> as FromValue<'_>>::check(rows.value_data, rows.value_ends).map_err(at_row)?;

        self.core.begin(key_ends.len(), (cell_data, cell_ends, cell_schemas))?;
        let inherits = Inherits {
            keys: true,
            values: true,
            timestamps: true,
        };
        let mut cx = self.core.context(records.header, records.input, rows, inherits);
        let result = self.run_rows(&mut cx, records.value_ends.len(), |operator, cx, row| {
            let row = row as usize;
            let key = if reads_key {
                item(&key_data, &key_ends, records.key_index[row] as usize)
            } else {
                &[]
            };
            let value = item(&records.value_data, &records.value_ends, row);
            // SAFETY: both columns have been checked above.
            let (key, value) = unsafe {
                (
                    <O::Key<'_> as FromKey<'_>>::read(key)?,
                    <O::In<'_> as FromValue<'_>>::read(value)?,
                )
            };
            operator.process(key, value, cx)
        });
        self.core.end(cx, result)
    }

    /// The end of all inputs: a batch of keys, or, with `last`, the end of them.
    ///
    /// # Errors
    ///
    /// As [`process`](Self::process), where a row is a key.
    pub fn finish(&mut self, header: Header, state: Keyed, last: bool) -> Result<Outcome, Failure> {
        let Keyed {
            key_data,
            key_ends,
            cell_data,
            cell_ends,
            cell_schemas,
        } = state;
        if last && !key_ends.is_empty() {
            return Err(Failure {
                row: None,
                message: "the last `finish` has keys".into(),
            });
        }
        let rows = Rows {
            key_data: &key_data,
            key_ends: &key_ends,
            ..Rows::NONE
        };
        check_keys::<O>(&rows)?;
        self.core.begin(key_ends.len(), (cell_data, cell_ends, cell_schemas))?;
        let inherits = Inherits {
            keys: !key_ends.is_empty(),
            values: false,
            timestamps: false,
        };
        let mut cx = self.core.context(header, 0, rows, inherits);
        let mut result = self.run_rows(&mut cx, key_ends.len(), |operator, cx, row| {
            // SAFETY: the column has been checked above.
            let key = unsafe { <O::Key<'_> as FromKey<'_>>::read(item(&key_data, &key_ends, row as usize))? };
            operator.finish(key, cx)
        });
        if last && result.is_ok() {
            result = self.run_once(&mut cx, |operator, cx| operator.finish_all(cx));
        }
        self.core.end(cx, result)
    }

    /// The watermark has advanced.
    ///
    /// # Errors
    ///
    /// What the operator's `on_watermark` fails with.
    pub fn on_watermark(&mut self, header: Header) -> Result<Outcome, Failure> {
        self.core.begin(0, Default::default())?;
        let inherits = Inherits {
            keys: false,
            values: false,
            timestamps: false,
        };
        let mut cx = self.core.context(header, 0, Rows::NONE, inherits);
        let result = self.run_once(&mut cx, |operator, cx| operator.on_watermark(cx.watermark(), cx));
        self.core.end(cx, result)
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
            if let Err(error) = result {
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
        self.core.call.set_key(usize::MAX);
        cx.row = 0;
        once(&mut self.operator, cx).map_err(|error| Failure {
            row: None,
            message: error.to_string(),
        })
    }
}

impl Core {
    /// Takes over a call's cells. To be followed by `end`.
    fn begin(&mut self, keys: usize, cells: (Vec<u8>, Vec<u32>, Vec<u16>)) -> Result<(), Failure> {
        // SAFETY: no operator code runs: the instance is borrowed mutably, and not in `run_rows` or `run_once`.
        unsafe { self.call.begin(keys, cells, &self.names) }.map_err(|message| Failure { row: None, message })?;
        for column in &self.columns {
            // SAFETY: as above.
            unsafe { column.begin(keys) };
        }
        Ok(())
    }

    fn context<'a>(&self, header: Header, input: u32, rows: Rows<'a>, inherits: Inherits) -> Ctx<'a> {
        let outputs = self.sizes.iter().map(|sizes| Output::with_sizes(*sizes)).collect();
        Ctx {
            header,
            input,
            row: 0,
            draws: 0,
            inherits,
            rows,
            outputs,
        }
    }

    /// Ends a call: all its effects, or the failure.
    fn end(&mut self, mut cx: Ctx<'_>, result: Result<(), Failure>) -> Result<Outcome, Failure> {
        current_row::clear();
        let mut writes = CellWrites::default();
        let mut broken = None;
        for column in &self.columns {
            let to = (result.is_ok() && broken.is_none()).then_some(&mut writes);
            // SAFETY: no operator code runs, as in `begin`.
            if let Err(message) = unsafe { column.end(to) } {
                broken = Some(message);
            }
        }
        // SAFETY: as above.
        let unreadable = unsafe { self.call.end() };
        if let Some(message) = unreadable {
            return Err(Failure { row: None, message });
        }
        result?;
        if writes.data.len() > u32::MAX as usize {
            broken = Some("the call wrote more than 4 GiB of state".into());
        }
        if let Some(message) = broken.or_else(|| cx.finish_outputs().err()) {
            return Err(Failure { row: None, message });
        }
        for (sizes, output) in self.sizes.iter_mut().zip(&cx.outputs) {
            *sizes = output.sizes();
        }
        let rows = cx.inherits.keys;
        let outputs = cx.outputs.into_iter().enumerate();
        Ok(Outcome {
            outputs: outputs
                .filter_map(|(port, output)| output.into_columns(port, rows))
                .collect(),
            cells: writes.cells,
            cell_data: writes.data,
            cell_ends: writes.ends,
            cleared: writes.cleared,
            entries: None,
            timer_ops: Vec::new(),
            timer_keys: Vec::new(),
            timer_ids: Vec::new(),
            timer_times: Vec::new(),
        })
    }
}

fn at_row((row, message): (usize, String)) -> Failure {
    Failure {
        row: Some(row as u32),
        message,
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
