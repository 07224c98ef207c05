//! One instance of a component: calls it, and checks what it answers.
//!
//! It owns the store. After a trap nothing of the store is usable: the instance is poisoned until [`GuestInstance::reset`]
//! has made a new one, which knows nothing of earlier calls. All calls are synchronous, one at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use regraft_model::batch::BytesColumn;
use regraft_model::describe::interface;
use wasmtime::component::InstancePre;
use wasmtime::{Store, StoreContextMut, UpdateDeadline, WasmBacktrace};

use crate::bindings::regraft::operator::types;
use crate::call::{
    BatchView, CellColumn, CellWrites, Declared, EntryWrites, Failure, Header, KeyedView, OpenContext, OperatorState,
    Outcome, Output, Shape, TimerView,
};
use crate::check::check_parts;
use crate::events::{GuestEvents, LogBudget};
use crate::exports::{ExportIndices, Exports};
use crate::imports::GuestData;
use crate::imports::host::{LINE_MAX, cut};
use crate::imports::state::DeclaredState;
use crate::limits::computed;
use crate::profile::Profiler;
use crate::state_access::StateAccess;
use crate::symbols::DebugInfo;
use crate::trap::{GuestError, TrapCause, classify, not_made};

/// Bytes that an item of operator state takes beside its own: in a snapshot, and in a restore.
const ITEM_BYTES: u64 = 64;

/// Settings of an instance.
#[derive(Clone)]
pub struct InstanceSettings {
    /// The most memory it may have, in bytes.
    pub memory_max: u64,
    /// The most that the host may hold on behalf of one call of it, in bytes: what it hands over, and each answer to it.
    pub host_memory_max: u64,
    /// The longest that one call may compute. Rounded up to 10 ms.
    pub time_per_batch_max: Duration,
    /// The operator's `config` as JSON; `null` when there is none.
    pub config: Arc<str>,
    /// The job's arguments.
    pub arguments: Arc<[String]>,
    /// Takes log lines and measurements.
    pub sink: Arc<dyn GuestEvents>,
    /// Bounds its log lines, together with those of all instances that share it.
    pub log_budget: Arc<LogBudget>,
    /// Profiles its calls.
    pub profiler: Arc<Profiler>,
}

/// Parts of an instance that all instances of a module share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) pre: InstancePre<GuestData>,
    pub(crate) exports: ExportIndices,
    pub(crate) declared: Arc<Declared>,
    pub(crate) states: Arc<[DeclaredState]>,
    pub(crate) debug: Arc<DebugInfo>,
}

/// A running instance.
pub struct GuestInstance {
    parts: Parts,
    settings: InstanceSettings,
    store: Store<GuestData>,
    exports: Exports,
    state: Option<Arc<dyn StateAccess>>,
    interrupt: Option<Arc<AtomicBool>>,
    poisoned: bool,
    /// Keeps the engine's ticker running.
    _keep: Arc<dyn Send + Sync>,
}

impl std::fmt::Debug for GuestInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestInstance")
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl GuestInstance {
    pub(crate) fn new(
        parts: Parts,
        settings: InstanceSettings,
        keep: Arc<dyn Send + Sync>,
    ) -> Result<Self, GuestError> {
        let (store, exports) = instantiate(&parts, &settings, None)?;
        Ok(Self {
            parts,
            settings,
            store,
            exports,
            state: None,
            interrupt: None,
            poisoned: false,
            _keep: keep,
        })
    }

    /// True if an earlier call left the instance unusable until [`Self::reset`].
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// The instance's memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.store.data().memory.used()
    }

    /// Source of keyed state for calls that have keys. Without it such reads are refused.
    pub fn set_state(&mut self, state: Option<Arc<dyn StateAccess>>) {
        self.state = state;
    }

    /// Ends calls before their time, soon after the flag is set: they fail with [`GuestError::Interrupted`].
    pub fn interrupt_by(&mut self, flag: Arc<AtomicBool>) {
        self.store.data_mut().deadline.interrupt_by(Some(flag.clone()));
        self.interrupt = Some(flag);
    }

    /// Lets calls compute for only a small part of `time_per_batch_max`, to find the record that takes too long, or for all of
    /// it again. A [`reset`](Self::reset) forgets it.
    pub fn search(&mut self, search: bool) {
        self.store.data_mut().deadline.search(search);
    }

    /// Drops everything that the guest has and starts it anew. It then needs `open` again, and `restore` where there is
    /// operator state.
    ///
    /// # Errors
    /// [`GuestError`] where the guest's own initialisation traps.
    pub fn reset(&mut self) -> Result<(), GuestError> {
        (self.store, self.exports) = instantiate(&self.parts, &self.settings, self.interrupt.clone())?;
        self.poisoned = false;
        Ok(())
    }

    /// The JSON of `describe`.
    ///
    /// # Errors
    /// [`GuestError`], as all calls; `describe` has no declared failure.
    pub fn describe(&mut self) -> Result<String, GuestError> {
        let guest = self.exports.guest.clone();
        self.run(None, 0, |store| guest.call_describe(store).map(Ok))
    }

    /// Makes the instance ready.
    ///
    /// # Errors
    /// [`GuestError::Failed`] where the guest refuses its config; else as all calls.
    pub fn open(&mut self, header: Header, context: &OpenContext) -> Result<(), GuestError> {
        let guest = self.exports.guest.clone();
        let context = types::OpenContext {
            uid: &context.uid,
            subtask: context.subtask,
            parallelism: context.parallelism,
            max_parallelism: context.max_parallelism,
        };
        self.run(None, 0, |store| guest.call_open(store, header.into(), context))
    }

    /// Processes one batch. `batch` and `keyed` must be as their types say: they are passed on as they are.
    ///
    /// # Errors
    /// [`GuestError`]: nothing of the call may be kept.
    pub fn process(
        &mut self,
        header: Header,
        batch: BatchView<'_>,
        keyed: KeyedView<'_>,
    ) -> Result<Outcome, GuestError> {
        let guest = self.exports.guest.clone();
        let (rows, keys) = (batch.rows() as u32, keyed.keys() as u32);
        debug_assert_eq!(batch.timestamps.len(), batch.rows(), "timestamps are never left out");
        let records = types::Batch {
            input: batch.input,
            key_index: batch.key_index,
            value_data: batch.value_data,
            value_ends: batch.value_ends,
            timestamps: batch.timestamps,
        };
        let cells = cells(keyed.cells);
        let outcome = self.run(Some(keys), rows, |store| {
            guest.call_process(store, header.into(), records, keyed_record(keyed, &cells))
        })?;
        self.checked(outcome, rows, keys, true)
    }

    /// Fires timers that are due. A row of the outcome is a timer.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn on_timers(
        &mut self,
        header: Header,
        timers: TimerView<'_>,
        keyed: KeyedView<'_>,
    ) -> Result<Outcome, GuestError> {
        let interface = exported(&self.exports.timers, interface::TIMERS)?;
        let (rows, keys) = (timers.rows() as u32, keyed.keys() as u32);
        let timers = types::TimerBatch {
            key_index: timers.key_index,
            timer_ids: timers.timer_ids,
            times: timers.times,
        };
        let cells = cells(keyed.cells);
        let outcome = self.run(Some(keys), rows, |store| {
            interface.call_on_timers(store, header.into(), timers, keyed_record(keyed, &cells))
        })?;
        self.checked(outcome, rows, keys, false)
    }

    /// Tells that the watermark has advanced to `header.watermark`. The outcome has no rows.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn on_watermark(&mut self, header: Header) -> Result<Outcome, GuestError> {
        let interface = exported(&self.exports.watermarks, interface::WATERMARKS)?;
        let outcome = self.run(None, 0, |store| interface.call_on_watermark(store, header.into()))?;
        self.checked(outcome, 0, 0, false)
    }

    /// Hands over some of the keys at the end of all inputs. A row of the outcome is a key.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn finish_keys(&mut self, header: Header, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        let interface = exported(&self.exports.ending, interface::ENDING)?;
        let keys = keyed.keys() as u32;
        let cells = cells(keyed.cells);
        let outcome = self.run(Some(keys), keys, |store| {
            interface.call_finish_keys(store, header.into(), keyed_record(keyed, &cells))
        })?;
        self.checked(outcome, keys, keys, false)
    }

    /// Tells of the end of all inputs, when all keys have been handed over. The outcome has no rows.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn finish(&mut self, header: Header) -> Result<Outcome, GuestError> {
        let interface = exported(&self.exports.ending, interface::ENDING)?;
        let outcome = self.run(None, 0, |store| interface.call_finish(store, header.into()))?;
        self.checked(outcome, 0, 0, false)
    }

    /// The operator state and private state of the instance.
    ///
    /// # Errors
    /// As all calls; also [`TrapCause::HostMemory`] where its items take too much memory one by one.
    pub fn snapshot(&mut self, header: Header, checkpoint_id: u64) -> Result<Vec<OperatorState>, GuestError> {
        let interface = exported(&self.exports.operator_state, interface::OPERATOR_STATE)?;
        let states = self.run(None, 0, |store| {
            interface.call_snapshot(store, header.into(), checkpoint_id)
        })?;
        let limit = self.settings.host_memory_max;
        if held_bytes(&states) > limit {
            let cause = TrapCause::HostMemory { limit };
            let backtrace = vec![];
            return Err(GuestError::Trapped { cause, backtrace });
        }
        named_states(&self.parts.declared, states).map_err(|what| GuestError::InvalidOutcome { what })
    }

    /// Gives operator state back, after `open`.
    ///
    /// # Errors
    /// As all calls; [`GuestError::Engine`] for a state that is not declared.
    pub fn restore(&mut self, header: Header, states: &[OperatorState]) -> Result<(), GuestError> {
        let interface = exported(&self.exports.operator_state, interface::OPERATOR_STATE)?;
        let names = &self.parts.declared.operator_states;
        let items = |state: &'_ OperatorState| {
            let at = names.iter().position(|name| *name == state.name);
            at.map(|at| at as u32).ok_or_else(|| GuestError::Engine {
                doing: "restore",
                message: format!("the operator declares no operator state `{}`", state.name),
            })
        };
        let numbers = states.iter().map(items).collect::<Result<Vec<_>, _>>()?;
        let states: Vec<_> = numbers
            .into_iter()
            .zip(states)
            .map(|(state, of)| types::StateItemsParam {
                state,
                item_data: &of.items.data,
                item_ends: &of.items.ends,
            })
            .collect();
        self.run(None, 0, |store| interface.call_restore(store, header.into(), &states))
    }

    /// Rewrites values of keyed state number `state` from an older schema (as JSON) into the guest's own.
    ///
    /// # Errors
    /// As all calls; [`GuestError::InvalidOutcome`] where not as many values come back.
    pub fn migrate(
        &mut self,
        header: Header,
        state: u32,
        from_schema: &str,
        older: &BytesColumn,
    ) -> Result<BytesColumn, GuestError> {
        let interface = exported(&self.exports.migration, interface::MIGRATION)?;
        let rows = older.len() as u32;
        let values = types::ValuesParam {
            data: &older.data,
            ends: &older.ends,
        };
        let migrated = self.run(None, rows, |store| {
            interface.call_migrate(
                store,
                header.into(),
                types::StateIndex::Keyed(state),
                from_schema,
                values,
            )
        })?;
        let invalid = |what| GuestError::InvalidOutcome { what };
        if migrated.ends.len() != older.len() {
            return Err(invalid(format!(
                "ends has {} entries: expected {}, as many as values to migrate",
                migrated.ends.len(),
                older.len()
            )));
        }
        BytesColumn::checked(migrated.data, migrated.ends).map_err(|text| invalid(format!("ends: {text}")))
    }

    /// Makes a call; `keys` where it may read keyed state.
    fn run<R>(
        &mut self,
        keys: Option<u32>,
        rows: u32,
        call: impl FnOnce(&mut Store<GuestData>) -> wasmtime::Result<Result<R, types::Failure>>,
    ) -> Result<R, GuestError> {
        if self.poisoned {
            return Err(GuestError::Poisoned);
        }
        let ticks = self.store.data_mut().begin();
        let profiled = self.settings.profiler.is_on();
        self.store.set_epoch_deadline(if profiled { 1 } else { ticks });
        if let (Some(keys), Some(state)) = (keys, &self.state) {
            self.store.data_mut().state.install(Arc::clone(state), keys);
        }
        let answer = call(&mut self.store);
        self.store.data_mut().state.remove();
        if profiled {
            let (computed, answers) = self.store.data().deadline.spent();
            self.settings.profiler.called(computed, answers);
        }
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(failed(&failure, rows)),
            Err(error) => {
                self.poisoned = true;
                Err(classify(&error, self.store.data(), &self.parts.debug, rows))
            }
        }
    }

    fn checked(
        &self,
        outcome: types::Outcome,
        rows: u32,
        keys: u32,
        values_inherited: bool,
    ) -> Result<Outcome, GuestError> {
        let outcome = Outcome::from(outcome);
        outcome
            .check(&Shape {
                declared: &self.parts.declared,
                rows,
                keys,
                values_inherited,
            })
            .map_err(|what| GuestError::InvalidOutcome { what })?;
        Ok(outcome)
    }
}

fn instantiate(
    parts: &Parts,
    settings: &InstanceSettings,
    interrupt: Option<Arc<AtomicBool>>,
) -> Result<(Store<GuestData>, Exports), GuestError> {
    let mut data = GuestData::new(
        (settings.memory_max, settings.host_memory_max),
        settings.time_per_batch_max,
        Arc::clone(&settings.config),
        Arc::clone(&settings.arguments),
        (Arc::clone(&settings.sink), Arc::clone(&settings.log_budget)),
        Arc::clone(&parts.states),
    );
    data.deadline.interrupt_by(interrupt);
    let mut store = Store::new(parts.pre.engine(), data);
    store.limiter(|data| &mut data.memory);
    let (profiler, debug) = (Arc::clone(&settings.profiler), Arc::clone(&parts.debug));
    store.epoch_deadline_callback(move |mut store| {
        let profiled = profiler.is_on();
        if profiled {
            sample(&mut store, &profiler, &debug);
        }
        Ok(match store.data_mut().deadline.look() {
            Some(_) if profiled => UpdateDeadline::Continue(1),
            Some(ticks) => UpdateDeadline::Continue(ticks),
            None => UpdateDeadline::Interrupt,
        })
    });
    // What a call returns can be told to be larger than the memory that it is in.
    let lifted_max = settings.memory_max.min(settings.host_memory_max);
    store.set_hostcall_fuel(usize::try_from(lifted_max).unwrap_or(usize::MAX));
    let ticks = store.data_mut().begin();
    store.set_epoch_deadline(ticks);
    let made = parts.pre.instantiate(&mut store);
    match made.and_then(|instance| parts.exports.load(&mut store, &instance)) {
        Ok(exports) => Ok((store, exports)),
        Err(error) => Err(not_made(&error, store.data(), &parts.debug)),
    }
}

/// Counts the stack of a guest for its profile. The time that this takes is not the guest's.
fn sample(store: &mut StoreContextMut<'_, GuestData>, profiler: &Profiler, debug: &Arc<DebugInfo>) {
    let began = computed();
    profiler.sample(&WasmBacktrace::force_capture(&*store), debug);
    let took = computed().saturating_sub(began);
    profiler.sampled(took);
    store.data_mut().deadline.answered(took);
}

/// The error of a call in which the guest failed by its own words, which are cut as those of a panic.
fn failed(failure: &types::Failure, rows: u32) -> GuestError {
    let message = cut(&failure.message, LINE_MAX).to_owned();
    match failure.row {
        Some(row) if row >= rows => GuestError::InvalidOutcome {
            what: format!("failure.row is {row}: expected less than {rows} (rows of the call); its message: {message}"),
        },
        row => GuestError::Failed {
            failure: Failure { row, message },
        },
    }
}

/// An interface of the component, where it has that.
fn exported<T: Clone>(interface: &Option<T>, name: &str) -> Result<T, GuestError> {
    interface.clone().ok_or_else(|| GuestError::Engine {
        doing: "a call",
        message: format!("the component does not export the interface `{name}`"),
    })
}

/// Names the items that `snapshot` returned by their states.
/// Returns the bytes that the host holds for operator state until it is written, each item as a row of its own.
fn held_bytes(states: &[types::StateItemsResult]) -> u64 {
    let of = |state: &types::StateItemsResult| {
        (state.item_data.len() as u64).saturating_add((state.item_ends.len() as u64).saturating_mul(ITEM_BYTES))
    };
    states.iter().map(of).fold(0, u64::saturating_add)
}

fn named_states(declared: &Declared, states: Vec<types::StateItemsResult>) -> Result<Vec<OperatorState>, String> {
    let names = &declared.operator_states;
    let mut named: Vec<OperatorState> = Vec::with_capacity(states.len());
    for (i, state) in states.into_iter().enumerate() {
        let name = names.get(state.state as usize).ok_or_else(|| {
            format!(
                "states[{i}].state is {}: expected less than {} (the declared operator states)",
                state.state,
                names.len()
            )
        })?;
        if named.iter().any(|before| before.name == *name) {
            return Err(format!(
                "states[{i}].state is {} again: expected each state at most once",
                state.state
            ));
        }
        let items = BytesColumn::checked(state.item_data, state.item_ends)
            .map_err(|text| format!("operator state \"{name}\": item-ends: {text}"))?;
        if let Some(bound) = declared.item_values.get(state.state as usize) {
            check_parts(&items, bound, || format!("of operator state \"{name}\""))?;
        }
        let name = name.clone();
        named.push(OperatorState { name, items });
    }
    Ok(named)
}

impl From<Header> for types::Header {
    fn from(header: Header) -> Self {
        Self {
            now: header.now,
            watermark: header.watermark,
            seed: header.seed,
            first_row: header.first_row,
        }
    }
}

fn cells(columns: &[CellColumn]) -> Vec<types::Cells<'_>> {
    columns
        .iter()
        .map(|column| types::Cells {
            state: column.state,
            present: &column.present,
            data: &column.values.data,
            ends: &column.values.ends,
        })
        .collect()
}

fn keyed_record<'a>(keyed: KeyedView<'a>, cells: &'a [types::Cells<'a>]) -> types::Keyed<'a> {
    types::Keyed {
        key_data: keyed.key_data,
        key_ends: keyed.key_ends,
        cells,
    }
}

impl From<types::Outcome> for Outcome {
    fn from(outcome: types::Outcome) -> Self {
        Self {
            outputs: outcome.outputs.into_iter().map(Output::from).collect(),
            cells: outcome.cells.into_iter().map(CellWrites::from).collect(),
            entries: outcome.entries.map(EntryWrites::from),
            timer_ops: outcome.timer_ops,
            timer_keys: outcome.timer_keys,
            timer_ids: outcome.timer_ids,
            timer_times: outcome.timer_times,
        }
    }
}

impl From<types::CellWrites> for CellWrites {
    fn from(writes: types::CellWrites) -> Self {
        Self {
            state: writes.state,
            keys: writes.keys,
            values: BytesColumn {
                data: writes.data,
                ends: writes.ends,
            },
            cleared: writes.cleared,
        }
    }
}

impl From<types::Output> for Output {
    fn from(output: types::Output) -> Self {
        Self {
            port: output.port,
            parents: output.parents,
            keys: BytesColumn {
                data: output.key_data,
                ends: output.key_ends,
            },
            values: BytesColumn {
                data: output.value_data,
                ends: output.value_ends,
            },
            timestamps: output.timestamps,
        }
    }
}

impl From<types::EntryWrites> for EntryWrites {
    fn from(writes: types::EntryWrites) -> Self {
        Self {
            ops: writes.ops,
            states: writes.states,
            keys: writes.keys,
            entry_keys: BytesColumn {
                data: writes.entry_key_data,
                ends: writes.entry_key_ends,
            },
            values: BytesColumn {
                data: writes.value_data,
                ends: writes.value_ends,
            },
        }
    }
}
