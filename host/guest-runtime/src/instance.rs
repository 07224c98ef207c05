//! One instance of a component: calls it, and checks what it answers.
//!
//! It owns the store. After a trap nothing of the store is usable: the instance is poisoned until [`GuestInstance::reset`]
//! has made a new one, which knows nothing of earlier calls. All calls are synchronous, one at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use regraft_model::batch::BytesColumn;
use wasmtime::{Store, UpdateDeadline};

use crate::bindings::exports::regraft::operator::guest::Guest;
use crate::bindings::regraft::operator::types;
use crate::bindings::{Operator, OperatorPre};
use crate::call::{
    BatchView, Declared, EntryWrites, Failure, Header, KeyedView, OpenContext, OperatorState, Outcome, Output, Shape,
    TimerView,
};
use crate::events::GuestEvents;
use crate::imports::GuestData;
use crate::imports::state::DeclaredState;
use crate::state_access::StateAccess;
use crate::symbols::DebugInfo;
use crate::trap::{GuestError, classify, not_made};

/// What an instance is given beside its module.
#[derive(Clone)]
pub struct InstanceSettings {
    /// The most memory it may have, in bytes.
    pub memory_max: u64,
    /// The longest that one call may compute. Rounded up to 10 ms.
    pub time_per_batch_max: Duration,
    /// The operator's `config` as JSON; `null` when there is none.
    pub config: Arc<str>,
    /// The job's arguments.
    pub arguments: Arc<[String]>,
    /// Takes log lines and measurements.
    pub sink: Arc<dyn GuestEvents>,
}

/// What an instance is made of; shared by all instances of a module.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) pre: OperatorPre<GuestData>,
    pub(crate) declared: Arc<Declared>,
    pub(crate) states: Arc<[DeclaredState]>,
    pub(crate) debug: Arc<DebugInfo>,
}

/// A running instance.
pub struct GuestInstance {
    parts: Parts,
    settings: InstanceSettings,
    store: Store<GuestData>,
    operator: Operator,
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
        let (store, operator) = instantiate(&parts, &settings, None)?;
        Ok(Self {
            parts,
            settings,
            store,
            operator,
            state: None,
            interrupt: None,
            poisoned: false,
            _keep: keep,
        })
    }

    /// Whether an earlier call ended so that only [`Self::reset`] helps.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// The instance's memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.store.data().memory.used()
    }

    /// What `process`, `on-timers` and `finish` read keyed state from; without it such reads are refused.
    pub fn set_state(&mut self, state: Option<Arc<dyn StateAccess>>) {
        self.state = state;
    }

    /// Ends calls before their time, soon after the flag is set: they fail with [`GuestError::Interrupted`].
    pub fn interrupt_by(&mut self, flag: Arc<AtomicBool>) {
        self.store.data_mut().deadline.interrupt_by(Some(flag.clone()));
        self.interrupt = Some(flag);
    }

    /// Drops everything that the guest has and starts it anew. It then needs `open` again, and `restore` where there is
    /// operator state.
    ///
    /// # Errors
    /// [`GuestError`] where the guest's own initialisation traps.
    pub fn reset(&mut self) -> Result<(), GuestError> {
        (self.store, self.operator) = instantiate(&self.parts, &self.settings, self.interrupt.clone())?;
        self.poisoned = false;
        Ok(())
    }

    /// The JSON of `describe`.
    ///
    /// # Errors
    /// [`GuestError`], as all calls; `describe` has no declared failure.
    pub fn describe(&mut self) -> Result<String, GuestError> {
        self.run(None, 0, |guest, store| guest.call_describe(store).map(Ok))
    }

    /// Makes the instance ready.
    ///
    /// # Errors
    /// [`GuestError::Failed`] where the guest refuses its config; else as all calls.
    pub fn open(&mut self, context: &OpenContext) -> Result<(), GuestError> {
        let context = types::OpenContext {
            uid: &context.uid,
            subtask: context.subtask,
            parallelism: context.parallelism,
            max_parallelism: context.max_parallelism,
            watermark: context.watermark,
            schemas: &context.schemas,
        };
        self.run(None, 0, |guest, store| guest.call_open(store, context))
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
        let (rows, keys) = (batch.rows() as u32, keyed.keys() as u32);
        debug_assert_eq!(batch.timestamps.len(), batch.rows(), "timestamps are never left out");
        let records = types::Batch {
            header: header.into(),
            input: batch.input,
            key_index: batch.key_index,
            value_data: batch.value_data,
            value_ends: batch.value_ends,
            timestamps: batch.timestamps,
        };
        let outcome = self.run(Some(keys), rows, |guest, store| {
            guest.call_process(store, records, keyed.into())
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
        let (rows, keys) = (timers.rows() as u32, keyed.keys() as u32);
        let timers = types::TimerBatch {
            header: header.into(),
            key_index: timers.key_index,
            timer_ids: timers.timer_ids,
            times: timers.times,
        };
        let outcome = self.run(Some(keys), rows, |guest, store| {
            guest.call_on_timers(store, timers, keyed.into())
        })?;
        self.checked(outcome, rows, keys, false)
    }

    /// Tells that the watermark has advanced to `header.watermark`. The outcome has no rows.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn on_watermark(&mut self, header: Header) -> Result<Outcome, GuestError> {
        let outcome = self.run(None, 0, |guest, store| guest.call_on_watermark(store, header.into()))?;
        self.checked(outcome, 0, 0, false)
    }

    /// Tells of the end of all inputs, with some of the keys, or none and `last`. A row of the outcome is a key.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn finish(&mut self, header: Header, keyed: KeyedView<'_>, last: bool) -> Result<Outcome, GuestError> {
        let keys = keyed.keys() as u32;
        let outcome = self.run(Some(keys), keys, |guest, store| {
            guest.call_finish(store, header.into(), keyed.into(), last)
        })?;
        self.checked(outcome, keys, keys, false)
    }

    /// The operator state and private state of the instance.
    ///
    /// # Errors
    /// As all calls.
    pub fn snapshot(&mut self, checkpoint_id: u64) -> Result<Vec<OperatorState>, GuestError> {
        let states = self.run(None, 0, |guest, store| guest.call_snapshot(store, checkpoint_id))?;
        let checked = |state: types::OperatorStateResult| {
            let items =
                BytesColumn::checked(state.item_data, state.item_ends).map_err(|text| GuestError::InvalidOutcome {
                    what: format!("operator state \"{}\": item-ends: {text}", state.name),
                })?;
            Ok(OperatorState {
                name: state.name,
                items,
            })
        };
        states.into_iter().map(checked).collect()
    }

    /// Gives operator state back, after `open`.
    ///
    /// # Errors
    /// As all calls.
    pub fn restore(&mut self, states: &[OperatorState]) -> Result<(), GuestError> {
        let states: Vec<_> = states.iter().map(operator_state).collect();
        self.run(None, 0, |guest, store| guest.call_restore(store, &states))
    }

    /// Rewrites values of state number `state` from an older schema (as JSON) into the guest's own.
    ///
    /// # Errors
    /// As all calls; [`GuestError::InvalidOutcome`] where not as many values come back.
    pub fn migrate(&mut self, state: u32, from_schema: &str, values: &BytesColumn) -> Result<BytesColumn, GuestError> {
        let request = types::MigrateRequest {
            state,
            from_schema,
            value_data: &values.data,
            value_ends: &values.ends,
        };
        let rows = values.len() as u32;
        let migrated = self.run(None, rows, |guest, store| guest.call_migrate(store, request))?;
        let invalid = |what| GuestError::InvalidOutcome { what };
        if migrated.value_ends.len() != values.len() {
            return Err(invalid(format!(
                "migrated.value-ends has {} entries: expected {}, as many as values to migrate",
                migrated.value_ends.len(),
                values.len()
            )));
        }
        BytesColumn::checked(migrated.value_data, migrated.value_ends)
            .map_err(|text| invalid(format!("migrated.value-ends: {text}")))
    }

    /// Makes a call; `keys` where it may read keyed state.
    fn run<R>(
        &mut self,
        keys: Option<u32>,
        rows: u32,
        call: impl FnOnce(&Guest, &mut Store<GuestData>) -> wasmtime::Result<Result<R, types::Failure>>,
    ) -> Result<R, GuestError> {
        if self.poisoned {
            return Err(GuestError::Poisoned);
        }
        let ticks = self.store.data_mut().begin();
        self.store.set_epoch_deadline(ticks);
        if let (Some(keys), Some(state)) = (keys, &self.state) {
            self.store.data_mut().state.install(Arc::clone(state), keys);
        }
        let answer = call(self.operator.regraft_operator_guest(), &mut self.store);
        self.store.data_mut().state.remove();
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(match failure.row {
                Some(row) if row >= rows => GuestError::InvalidOutcome {
                    what: format!(
                        "failure.row is {row}: expected less than {rows} (rows of the call); its message: {}",
                        failure.message
                    ),
                },
                row => GuestError::Failed {
                    failure: Failure {
                        row,
                        message: failure.message,
                    },
                },
            }),
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
) -> Result<(Store<GuestData>, Operator), GuestError> {
    let mut data = GuestData::new(
        settings.memory_max,
        settings.time_per_batch_max,
        Arc::clone(&settings.config),
        Arc::clone(&settings.arguments),
        Arc::clone(&settings.sink),
        Arc::clone(&parts.states),
    );
    data.deadline.interrupt_by(interrupt);
    let mut store = Store::new(parts.pre.engine(), data);
    store.limiter(|data| &mut data.memory);
    store.epoch_deadline_callback(|mut store| {
        Ok(store
            .data_mut()
            .deadline
            .look()
            .map_or(UpdateDeadline::Interrupt, UpdateDeadline::Continue))
    });
    // What a call returns can be told to be larger than the memory that it is in.
    store.set_hostcall_fuel(usize::try_from(settings.memory_max).unwrap_or(usize::MAX));
    let ticks = store.data_mut().begin();
    store.set_epoch_deadline(ticks);
    match parts.pre.instantiate(&mut store) {
        Ok(operator) => Ok((store, operator)),
        Err(error) => Err(not_made(&error, store.data(), &parts.debug)),
    }
}

fn operator_state(state: &OperatorState) -> types::OperatorStateParam<'_> {
    types::OperatorStateParam {
        name: &state.name,
        item_data: &state.items.data,
        item_ends: &state.items.ends,
    }
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

impl<'a> From<KeyedView<'a>> for types::Keyed<'a> {
    fn from(keyed: KeyedView<'a>) -> Self {
        Self {
            key_data: keyed.key_data,
            key_ends: keyed.key_ends,
            cell_data: keyed.cell_data,
            cell_ends: keyed.cell_ends,
            cell_schemas: keyed.cell_schemas,
        }
    }
}

impl From<types::Outcome> for Outcome {
    fn from(outcome: types::Outcome) -> Self {
        Self {
            outputs: outcome.outputs.into_iter().map(Output::from).collect(),
            cells: outcome.cells,
            cell_values: BytesColumn {
                data: outcome.cell_data,
                ends: outcome.cell_ends,
            },
            cleared: outcome.cleared,
            entries: outcome.entries.map(EntryWrites::from),
            timer_ops: outcome.timer_ops,
            timer_keys: outcome.timer_keys,
            timer_ids: outcome.timer_ids,
            timer_times: outcome.timer_times,
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
