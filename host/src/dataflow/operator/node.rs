//! What the host does around every call of an operator: group by key, fetch state, call, apply writes, make batches of the
//! outputs.

use std::sync::Arc;

use regraft_guest_runtime::call::{BatchView, Header, KeyedView, OpenContext, OperatorState, Outcome, Output};
use regraft_model::batch::{Batch, BytesColumn, Keys};
use regraft_model::describe::Description;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::{Clock, MAX_WATERMARK, NO_TIMESTAMP};

use super::Operator;
use crate::dataflow::control::{NodeCounters, SwapGap};
use crate::dataflow::element::PreparedOperator;
use crate::dataflow::failure::{Cause, Record, SubtaskFailure};
use crate::state::backend::{Cells, StateBackend, TimerOps, Writes, bindings};
use crate::state::group::Grouper;

/// Keys handed over in one `finish` call.
const FINISH_KEYS: usize = 1024;
/// Outputs remembered to tell how long an operator is usually silent.
const USUAL_GAPS: usize = 64;

/// One operator in one subtask.
pub struct OperatorNode {
    uid: OperatorUid,
    subtask: u32,
    operator: Box<dyn Operator>,
    description: Arc<Description>,
    backend: Option<Box<dyn StateBackend>>,
    clock: Arc<dyn Clock>,
    counters: Arc<NodeCounters>,
    grouper: Grouper,
    cells: Cells,
    no_timestamps: Vec<i64>,
    schemas: Vec<u16>,
    seed: u64,
    calls: u64,
    watermark: i64,
    finished: bool,
    parked: Option<(CheckpointId, PreparedOperator)>,
    silence: Silence,
}

/// When the operator last gave output, to measure swaps.
#[derive(Debug, Default)]
struct Silence {
    last_ns: Option<u64>,
    gaps: Vec<u64>,
    next: usize,
    /// The swap whose first output has not come yet.
    swap: Option<(CheckpointId, u64)>,
}

/// What a node needs that is not its own.
pub struct NodeParts {
    /// The operator's uid.
    pub uid: OperatorUid,
    /// Its subtask.
    pub subtask: u32,
    /// An opened instance.
    pub prepared: PreparedOperator,
    /// Keyed state, where it has any.
    pub backend: Option<Box<dyn StateBackend>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub counters: Arc<NodeCounters>,
    /// Where its watermark stands.
    pub watermark: i64,
    /// The job's random seed.
    pub seed: u64,
}

/// What the instances of an operator are told when they are opened: its own schemas, nothing older.
#[must_use]
pub fn open_context(
    uid: &OperatorUid,
    description: &Description,
    subtask: u32,
    parallelism: u32,
    max_parallelism: u32,
    watermark: i64,
) -> OpenContext {
    let schemas: Vec<String> = description
        .states
        .iter()
        .map(|state| format!("[{}]", state.schema.to_json()))
        .collect();
    OpenContext {
        uid: uid.to_string(),
        subtask,
        parallelism,
        max_parallelism,
        watermark,
        schemas: format!("[{}]", schemas.join(",")),
    }
}

impl OperatorNode {
    /// A node ready to process.
    #[must_use]
    pub fn new(parts: NodeParts) -> Self {
        let mut node = Self {
            uid: parts.uid,
            subtask: parts.subtask,
            operator: parts.prepared.operator,
            description: parts.prepared.description,
            backend: parts.backend,
            clock: parts.clock,
            counters: parts.counters,
            grouper: Grouper::default(),
            cells: Cells::default(),
            no_timestamps: vec![],
            schemas: vec![],
            seed: parts.seed,
            calls: 0,
            watermark: parts.watermark,
            finished: false,
            parked: None,
            silence: Silence::default(),
        };
        node.bind();
        node
    }

    /// The operator's uid.
    #[must_use]
    pub const fn uid(&self) -> &OperatorUid {
        &self.uid
    }

    /// Its keyed state.
    pub fn backend(&mut self) -> Option<&mut (dyn StateBackend + 'static)> {
        self.backend.as_deref_mut()
    }

    /// Its watermark advances.
    pub const fn set_watermark(&mut self, watermark: i64) {
        self.watermark = watermark;
    }

    /// `finish` has run before the savepoint it starts from: its output is there, unless more records come.
    pub const fn set_finished(&mut self, finished: bool) {
        self.finished = finished;
    }

    /// Whether `finish` has run, and no record has come since.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    fn bind(&mut self) {
        let (states, timers) = bindings(&self.description);
        self.schemas = vec![1; states.len()];
        if let Some(backend) = &mut self.backend {
            backend.bind(&states, &timers);
        }
    }

    /// Puts another instance in place of the current one, which is parked until the round is completed or aborted.
    pub fn swap(&mut self, id: CheckpointId, new: PreparedOperator) {
        let operator = std::mem::replace(&mut self.operator, new.operator);
        let description = std::mem::replace(&mut self.description, new.description);
        self.parked = Some((id, PreparedOperator { operator, description }));
        self.bind();
        let now = self.clock.monotonic_ns();
        self.silence.swap = Some((id, self.silence.last_ns.unwrap_or(now)));
    }

    /// The round is completed: the parked instance goes.
    pub fn forget_parked(&mut self, id: CheckpointId) {
        self.parked.take_if(|(parked, _)| *parked == id);
    }

    /// The round was given up: the parked instance comes back. Both read the same state (`upgrade::compat`).
    pub fn unpark(&mut self, id: CheckpointId) {
        if let Some((_, old)) = self.parked.take_if(|(parked, _)| *parked == id) {
            self.operator = old.operator;
            self.description = old.description;
            self.silence.swap = None;
            self.bind();
        }
    }

    fn header(&mut self) -> Header {
        self.calls += 1;
        let seed = self.seed.wrapping_add(self.calls.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Header {
            now: self.clock.now_ms(),
            watermark: self.watermark,
            seed,
            first_row: 0,
        }
    }

    fn failed(&self, doing: &'static str, batch: Option<&Batch>, cause: impl Into<Cause>) -> SubtaskFailure {
        let cause = cause.into();
        let row = match &cause {
            Cause::Guest(error) => error.row(),
            _ => None,
        };
        let record = batch.map(|batch| Record::of(batch, row));
        SubtaskFailure {
            uid: self.uid.clone(),
            subtask: self.subtask,
            doing,
            record,
            cause,
        }
    }

    /// Processes one batch; the outputs go to `out`, one batch per output and port. `grouped`: its key column is distinct.
    ///
    /// # Errors
    /// [`SubtaskFailure`] with the record at fault.
    pub fn process(
        &mut self,
        input: u32,
        mut batch: Batch,
        grouped: bool,
        keys_needed: bool,
        out: &mut Vec<(u32, Batch)>,
    ) -> Result<(), SubtaskFailure> {
        self.finished = false;
        let header = self.header();
        if !grouped && !batch.keys.is_none() {
            self.grouper.group(&mut batch);
        }
        if let Some(backend) = &mut self.backend
            && let Err(error) = backend.resolve(&batch.keys, header.now, &mut self.cells)
        {
            return Err(self.failed("process", None, error));
        }
        if batch.timestamps.is_empty() && self.no_timestamps.len() < batch.len() {
            self.no_timestamps.resize(batch.len(), NO_TIMESTAMP);
        }
        let timestamps = if batch.timestamps.is_empty() {
            &self.no_timestamps[..batch.len()]
        } else {
            &batch.timestamps
        };
        let view = BatchView {
            input,
            key_index: &batch.keys.index,
            value_data: &batch.values.data,
            value_ends: &batch.values.ends,
            timestamps,
        };
        let keyed = keyed_view(&batch.keys, &self.cells, self.backend.is_some());
        let outcome = match self.operator.process(header, view, keyed) {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.failed("process", Some(&batch), error)),
        };
        NodeCounters::add(&self.counters.records_in, batch.len() as u64);
        self.apply(&batch.keys, header.now, &outcome);
        self.take_outputs(outcome, &batch, keys_needed, out);
        Ok(())
    }

    /// The operator state and private state of its instance; none where it keeps nothing between calls.
    ///
    /// # Errors
    /// [`SubtaskFailure`].
    pub fn snapshot(&mut self, id: CheckpointId) -> Result<Vec<OperatorState>, SubtaskFailure> {
        if self.description.operator_states.is_empty() && !self.description.private_state {
            return Ok(vec![]);
        }
        let states = self.operator.snapshot(id);
        states.map_err(|error| self.failed("snapshot", None, error))
    }

    /// Hands over all keys, and then the end.
    ///
    /// # Errors
    /// [`SubtaskFailure`].
    pub fn finish(&mut self, keys_needed: bool, out: &mut Vec<(u32, Batch)>) -> Result<(), SubtaskFailure> {
        self.watermark = MAX_WATERMARK;
        if self.finished || !self.description.finish {
            return Ok(());
        }
        self.finished = true;
        let groups = self.backend.as_ref().map_or(0, |backend| backend.range().count());
        for group in 0..groups {
            let keys = self
                .backend
                .as_ref()
                .map(|backend| backend.keys_of(group))
                .unwrap_or_default();
            for from in (0..keys.column.len()).step_by(FINISH_KEYS) {
                let to = keys.column.len().min(from + FINISH_KEYS);
                let mut part = Keys::default();
                for i in from..to {
                    part.column.push(keys.column.get(i));
                    part.hashes.push(keys.hashes[i]);
                }
                self.finish_keys(part, false, keys_needed, out)?;
            }
        }
        self.finish_keys(Keys::default(), true, keys_needed, out)
    }

    fn finish_keys(
        &mut self,
        keys: Keys,
        last: bool,
        keys_needed: bool,
        out: &mut Vec<(u32, Batch)>,
    ) -> Result<(), SubtaskFailure> {
        let header = self.header();
        if let Some(backend) = &mut self.backend
            && let Err(error) = backend.resolve(&keys, header.now, &mut self.cells)
        {
            return Err(self.failed("finish", None, error));
        }
        let keyed = keyed_view(&keys, &self.cells, self.backend.is_some());
        let outcome = self
            .operator
            .finish(header, keyed, last)
            .map_err(|error| self.failed("finish", None, error))?;
        self.apply(&keys, header.now, &outcome);
        // A row of `finish` is a key: its parents' keys are the keys, and there are no values to take over.
        let rows = Batch {
            keys,
            ..Batch::default()
        };
        self.take_outputs(outcome, &rows, keys_needed, out);
        Ok(())
    }

    fn apply(&mut self, keys: &Keys, now: i64, outcome: &Outcome) {
        if let Some(backend) = &mut self.backend {
            let writes = Writes {
                cells: &outcome.cells,
                values: &outcome.cell_values,
                cleared: &outcome.cleared,
                entries: outcome.entries.as_ref(),
                timers: TimerOps {
                    ops: &outcome.timer_ops,
                    keys: &outcome.timer_keys,
                    ids: &outcome.timer_ids,
                    times: &outcome.timer_times,
                },
                schemas: &self.schemas,
            };
            backend.apply(keys, &self.cells, now, writes);
            self.counters
                .keys
                .store(backend.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn take_outputs(&mut self, outcome: Outcome, rows: &Batch, keys_needed: bool, out: &mut Vec<(u32, Batch)>) {
        let before = out.len();
        for output in outcome.outputs {
            if !output.is_empty() {
                NodeCounters::add(&self.counters.records_out, output.len() as u64);
                out.push((output.port, output_batch(output, rows, keys_needed)));
            }
        }
        if out.len() > before {
            self.silence.output(self.clock.monotonic_ns());
        }
    }

    /// How long a swap silenced the operator, once that is known.
    pub fn take_gap(&mut self) -> Option<SwapGap> {
        let (id, from) = self.silence.swap?;
        let last = self.silence.last_ns.filter(|last| *last > from)?;
        self.silence.swap = None;
        let usual_ns = self.silence.gaps.iter().copied().max().unwrap_or(0);
        Some(SwapGap {
            uid: self.uid.clone(),
            index: self.subtask,
            id,
            gap_ns: last - from,
            usual_ns,
        })
    }
}

impl Silence {
    fn output(&mut self, now: u64) {
        // The gap of a swap itself is not usual.
        if let (Some(last), None) = (self.last_ns, self.swap) {
            if self.gaps.len() < USUAL_GAPS {
                self.gaps.push(now - last);
            } else {
                self.gaps[self.next] = now - last;
                self.next = (self.next + 1) % USUAL_GAPS;
            }
        }
        self.last_ns = Some(now);
    }
}

fn keyed_view<'a>(keys: &'a Keys, cells: &'a Cells, has_state: bool) -> KeyedView<'a> {
    let empty = KeyedView {
        key_data: &keys.column.data,
        key_ends: &keys.column.ends,
        ..KeyedView::default()
    };
    if !has_state {
        return empty;
    }
    KeyedView {
        cell_data: &cells.values.data,
        cell_ends: &cells.values.ends,
        cell_schemas: &cells.schemas,
        ..empty
    }
}

/// An output as a batch. It has been checked against the call; empty columns are the parents'.
fn output_batch(output: Output, rows: &Batch, keys_needed: bool) -> Batch {
    let Output {
        parents,
        keys,
        values,
        timestamps,
        ..
    } = output;
    let whole = parents.len() == rows.values.len() && parents.iter().enumerate().all(|(i, p)| i as u32 == *p);
    let count = if parents.is_empty() {
        values.len()
    } else {
        parents.len()
    };
    let keys = if !keys_needed {
        Keys::default()
    } else if !keys.is_empty() {
        Keys {
            column: keys,
            ..Keys::default()
        }
    } else if rows.keys.is_none() || parents.is_empty() {
        empty_keys(count)
    } else {
        let index = parents
            .iter()
            .map(|parent| rows.keys.at(*parent as usize) as u32)
            .collect();
        Keys {
            column: rows.keys.column.clone(),
            hashes: rows.keys.hashes.clone(),
            index,
        }
    };
    let values = if !values.is_empty() || count == 0 {
        values
    } else if whole {
        rows.values.clone()
    } else {
        let mut gathered = BytesColumn::default();
        for parent in &parents {
            gathered.push(rows.values.get(*parent as usize));
        }
        gathered
    };
    let timestamps = if !timestamps.is_empty() {
        timestamps
    } else if rows.timestamps.is_empty() {
        vec![]
    } else {
        parents.iter().map(|parent| rows.timestamp(*parent as usize)).collect()
    };
    let origin = match &rows.origin {
        Some(origin) if whole => Some(origin.clone()),
        Some(origin) if !parents.is_empty() => Some(origin.select(&parents)),
        _ => None,
    };
    Batch {
        keys,
        values,
        timestamps,
        origin,
    }
}

/// Records without a key of their own have the empty key.
fn empty_keys(count: usize) -> Keys {
    let mut column = BytesColumn::default();
    column.push(b"");
    Keys {
        column,
        hashes: vec![],
        index: vec![0; count],
    }
}
