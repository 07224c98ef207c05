//! Calls for records and timers, and the reruns after a failed one, which let the rest of a batch go on without the
//! record at fault. The rules are in `docs/design/0008-isolation.md`.

use std::ops::Range;

use regraft_guest_runtime::call::{BatchView, Header, OperatorState, Outcome, TimerView};
use regraft_guest_runtime::isolate::{Fault, Isolation};
use regraft_guest_runtime::trap::GuestError;
use regraft_model::batch::{Batch, BytesColumn, Keys};
use regraft_model::describe::interface;
use regraft_model::id::CheckpointId;
use regraft_model::time::{NO_TIMESTAMP, TimeDomain};

use super::bounds::Parents;
use super::{OperatorNode, Outputs, has_own_state, keyed_view};
use crate::dataflow::control::NodeCounters;
use crate::dataflow::failure::{Cause, Record, SubtaskFailure, policy};
use crate::dataflow::operator::dead_letters::{Letter, shown_record};
use crate::graph::job_graph::Policy;
use crate::state::backend::DueTimers;

/// Limit of timers fired in one call.
const TIMERS_MAX: usize = 1024;

/// The rows of a call.
enum Rows {
    /// Records of one input.
    Records(u32, Batch),
    /// Timers of one domain.
    Timers(TimeDomain, DueTimers),
}

impl Rows {
    fn len(&self) -> u32 {
        match self {
            Self::Records(_, batch) => batch.len() as u32,
            Self::Timers(_, due) => due.times.len() as u32,
        }
    }

    const fn doing(&self) -> &'static str {
        match self {
            Self::Records(..) => "process",
            Self::Timers(..) => "on-timers",
        }
    }

    const fn keys(&self) -> &Keys {
        match self {
            Self::Records(_, batch) => &batch.keys,
            Self::Timers(_, due) => &due.keys,
        }
    }

    fn key_index(&self) -> &[u32] {
        match self {
            Self::Records(_, batch) => &batch.keys.index,
            Self::Timers(_, due) => &due.key_index,
        }
    }

    /// Returns the values that an output may take over.
    const fn values(&self) -> Option<&BytesColumn> {
        match self {
            Self::Records(_, batch) => Some(&batch.values),
            Self::Timers(..) => None,
        }
    }

    /// Returns a part of the rows. The keys of a part of a batch must be grouped again.
    fn part(&self, range: Range<u32>) -> Self {
        let range = range.start as usize..range.end as usize;
        match self {
            Self::Records(input, batch) => Self::Records(*input, batch.slice(range)),
            Self::Timers(domain, due) => {
                let mut part = DueTimers {
                    key_index: (0..range.len() as u32).collect(),
                    timer_ids: due.timer_ids[range.clone()].to_vec(),
                    times: due.times[range.clone()].to_vec(),
                    keys: Keys::default(),
                };
                for key in &due.key_index[range] {
                    part.keys.column.push(due.keys.column.get(*key as usize));
                    part.keys.hashes.push(due.keys.hashes[*key as usize]);
                }
                Self::Timers(*domain, part)
            }
        }
    }
}

impl OperatorNode {
    /// Processes one batch. Outputs are appended to `out`, one batch per output and port. `grouped`: the key column is
    /// distinct.
    ///
    /// # Errors
    /// [`SubtaskFailure`] with the record at fault.
    pub fn process(
        &mut self,
        input: u32,
        mut batch: Batch,
        grouped: bool,
        keys_needed: bool,
        out: &mut Outputs,
    ) -> Result<(), SubtaskFailure> {
        self.finished = false;
        if !grouped && !batch.keys.is_none() {
            self.grouper.group(&mut batch);
        }
        self.run(&Rows::Records(input, batch), keys_needed, out)
    }

    /// Returns true if the next timer was set for a time that those which fired just now had reached.
    pub fn is_behind(&mut self, domain: TimeDomain, fired: &DueTimers, until: i64) -> bool {
        let backend = self.backend.as_mut();
        let next = backend.and_then(|backend| backend.due_timers(domain, until, 1));
        let (Some(next), Some(&reached)) = (next, fired.times.last()) else {
            return false;
        };
        let of = |due: &DueTimers, i: usize| (due.times[i], due.timer_ids[i], due.key_index[i]);
        let (time, id, key) = of(&next, 0);
        let same = |i: usize| {
            let (fired_time, fired_id, fired_key) = of(fired, i);
            let keys = (&fired.keys.column, &next.keys.column);
            (fired_time, fired_id) == (time, id) && keys.0.get(fired_key as usize) == keys.1.get(key as usize)
        };
        time < reached || (time == reached && (0..fired.times.len()).any(same))
    }

    /// Returns the number of timers that are due.
    #[must_use]
    pub fn due_count(&self, domain: TimeDomain, up_to: i64) -> usize {
        self.backend
            .as_ref()
            .map_or(0, |backend| backend.due_count(domain, up_to))
    }

    /// Fires some of the timers that are due, and returns them; `None` if there are none.
    ///
    /// # Errors
    /// [`SubtaskFailure`] with the timer at fault.
    pub fn fire(
        &mut self,
        domain: TimeDomain,
        up_to: i64,
        keys_needed: bool,
        out: &mut Outputs,
    ) -> Result<Option<DueTimers>, SubtaskFailure> {
        let backend = self.backend.as_mut();
        let Some(due) = backend.and_then(|backend| backend.due_timers(domain, up_to, TIMERS_MAX)) else {
            return Ok(None);
        };
        let rows = Rows::Timers(domain, due);
        self.run(&rows, keys_needed, out)?;
        self.look_at_timers();
        match rows {
            Rows::Timers(_, due) => Ok(Some(due)),
            Rows::Records(..) => Ok(None),
        }
    }

    /// Calls the operator's `on-watermark`, where it declares one.
    ///
    /// # Errors
    /// [`SubtaskFailure`] where the call fails.
    pub fn on_watermark(&mut self, keys_needed: bool, out: &mut Outputs) -> Result<(), SubtaskFailure> {
        if !self.instance.description.calls(interface::WATERMARKS) {
            return Ok(());
        }
        let header = self.header();
        self.keep_own_state()?;
        let mut called = self.instance.operator.on_watermark(header);
        if let Err(error @ (GuestError::Trapped { .. } | GuestError::InvalidOutcome { .. })) = &called {
            // There is no record to take out, but the instance may be in a bad state from earlier calls.
            if has_own_state(&self.instance.description) && !self.is_careful() {
                return Err(SubtaskFailure {
                    unisolated: true,
                    policy: Some(policy::UNISOLATED),
                    ..self.failed("on-watermark", error.clone())
                });
            }
            self.broken = true;
            self.revive_if_broken()?;
            called = self.instance.operator.on_watermark(header);
        }
        let outcome = called.map_err(|error| self.failed_without_rows("on-watermark", error))?;
        self.take_outputs(outcome, &Batch::default(), keys_needed, out);
        Ok(())
    }

    /// Processes all rows of a call, isolating rows at fault if the call fails.
    fn run(&mut self, rows: &Rows, keys_needed: bool, out: &mut Outputs) -> Result<(), SubtaskFailure> {
        let header = self.header();
        self.keep_own_state()?;
        match self.call(header, rows, keys_needed) {
            Ok(outcome) => {
                self.accept(outcome, rows, header.now, keys_needed, out);
                Ok(())
            }
            Err(Cause::Guest(error)) => self.isolate(rows, header, error, keys_needed, out),
            Err(cause) => Err(self.failed(rows.doing(), cause)),
        }
    }

    /// Makes one call. The keys must be distinct.
    fn call(&mut self, header: Header, rows: &Rows, keys_needed: bool) -> Result<Outcome, Cause> {
        if let Some(backend) = &mut self.backend {
            backend.resolve(rows.keys(), header.now, &mut self.cells)?;
        }
        let keyed = keyed_view(rows.keys(), &self.cells, self.backend.is_some());
        let operator = &mut self.instance.operator;
        let outcome = match rows {
            Rows::Records(input, batch) => {
                if batch.timestamps.is_empty() && self.no_timestamps.len() < batch.len() {
                    self.no_timestamps.resize(batch.len(), NO_TIMESTAMP);
                }
                let view = BatchView {
                    input: *input,
                    key_index: &batch.keys.index,
                    value_data: &batch.values.data,
                    value_ends: &batch.values.ends,
                    timestamps: if batch.timestamps.is_empty() {
                        &self.no_timestamps[..batch.len()]
                    } else {
                        &batch.timestamps
                    },
                };
                operator.process(header, view, keyed)
            }
            Rows::Timers(_, due) => {
                let view = TimerView {
                    key_index: &due.key_index,
                    timer_ids: &due.timer_ids,
                    times: &due.times,
                };
                operator.on_timers(header, view, keyed)
            }
        }?;
        let keys = rows.keys();
        let none = BytesColumn::default();
        let parents = Parents {
            keys: &keys.column,
            key_index: rows.key_index(),
            values: rows.values().unwrap_or(&none),
            keys_needed,
        };
        self.admit(&outcome, keys, &parents)?;
        Ok(outcome)
    }

    /// Counts the records that came when no record of their event time was expected any more.
    fn count_late(&self, timestamps: &[i64]) {
        let reached = |time: &&i64| **time != NO_TIMESTAMP && **time <= self.watermark;
        if self.watermark != NO_TIMESTAMP {
            let late = timestamps.iter().filter(reached).count();
            NodeCounters::add(&self.counters.late, late as u64);
        }
    }

    /// Applies the effects of a successful call.
    fn accept(&mut self, outcome: Outcome, rows: &Rows, now: i64, keys_needed: bool, out: &mut Outputs) {
        match rows {
            Rows::Records(_, batch) => {
                NodeCounters::add(&self.counters.records_in, batch.len() as u64);
                self.count_late(&batch.timestamps);
                self.apply(&batch.keys, now, &outcome);
                self.take_outputs(outcome, batch, keys_needed, out);
            }
            Rows::Timers(domain, due) => {
                if let Some(backend) = &mut self.backend {
                    backend.fired(due);
                }
                self.apply(&due.keys, now, &outcome);
                // As in Flink: what an event timer emits has its time, what a processing timer emits has none.
                let rows = Batch {
                    keys: Keys {
                        index: due.key_index.clone(),
                        ..due.keys.clone()
                    },
                    timestamps: match domain {
                        TimeDomain::Event => due.times.clone(),
                        TimeDomain::Processing => vec![],
                    },
                    ..Batch::default()
                };
                self.take_outputs(outcome, &rows, keys_needed, out);
            }
        }
    }

    /// Runs the rows of a failed call again in parts, until it is known which of them are at fault.
    #[cold]
    fn isolate(
        &mut self,
        rows: &Rows,
        header: Header,
        error: GuestError,
        keys_needed: bool,
        out: &mut Outputs,
    ) -> Result<(), SubtaskFailure> {
        let first_error = error.without_row().to_string();
        let fault = self.fault(rows, 0..rows.len(), &error)?;
        let (mut plan, guilty) = Isolation::new(rows.len(), fault);
        let mut guilty_rows = 0;
        if let Some(row) = guilty {
            guilty_rows += 1;
            self.condemn(rows, row, error)?;
        }
        while let Some(range) = plan.next_part() {
            if self.is_cancelled() {
                return Err(self.failed(rows.doing(), Cause::Cancelled));
            }
            self.revive_if_broken()?;
            let part = self.part(rows, range.clone());
            let header = Header {
                first_row: header.first_row + range.start,
                ..header
            };
            self.instance.operator.search(plan.is_search(&range));
            let called = self.call(header, &part, keys_needed);
            self.instance.operator.search(false);
            match called {
                Ok(outcome) => {
                    self.accept(outcome, &part, header.now, keys_needed, out);
                    self.keep_own_state()?;
                }
                Err(Cause::Guest(error)) => {
                    let fault = self.fault(rows, range.clone(), &error)?;
                    if let Some(row) = plan.failed(range, fault) {
                        guilty_rows += 1;
                        self.condemn(rows, row, error)?;
                    }
                }
                Err(cause) => return Err(self.failed(rows.doing(), cause)),
            }
        }
        self.revive_if_broken()?;
        if guilty_rows == 0 {
            tracing::warn!(
                "operator \"{}\", subtask {}: a call failed in {}, and no record of it failed alone; nothing is lost. It was: {first_error}",
                self.uid,
                self.subtask,
                rows.doing()
            );
        }
        Ok(())
    }

    fn part(&mut self, rows: &Rows, range: Range<u32>) -> Rows {
        let mut part = rows.part(range);
        if let Rows::Records(_, batch) = &mut part
            && !batch.keys.is_none()
        {
            self.grouper.group(batch);
        }
        part
    }

    /// Returns what a failed call tells of its rows, where they can be rerun; else the failure of the job. `range`: the
    /// rows of the call, as part of `rows`.
    fn fault(&mut self, rows: &Rows, range: Range<u32>, error: &GuestError) -> Result<Fault, SubtaskFailure> {
        let doing = rows.doing();
        let (fault, fails) = match error {
            GuestError::Engine { .. } | GuestError::Poisoned | GuestError::Interrupted => {
                return Err(self.failed(doing, error.clone()));
            }
            GuestError::Failed { failure } => match failure.row {
                Some(row) => (Fault::Declared(row), self.policy.on_failure == Policy::Fail),
                // A state that does not decode, for one, is not the fault of a record.
                None => {
                    return Err(SubtaskFailure {
                        policy: Some(policy::NO_RECORD),
                        ..self.failed(doing, error.clone())
                    });
                }
            },
            GuestError::Trapped { .. } | GuestError::InvalidOutcome { .. } => {
                self.broken = true;
                let unnamed = if error.is_too_slow() {
                    Fault::Slow
                } else {
                    Fault::Unknown
                };
                let fault = error.row().map_or(unnamed, Fault::At);
                (fault, false)
            }
        };
        match fault {
            Fault::Declared(row) if fails => Err(self.guilty(rows, range.start + row, error.without_row())),
            // The rows cannot be rerun: the state from before the call is not known.
            _ if has_own_state(&self.instance.description) && !self.is_careful() => {
                let named = error.row().or((rows.len() == 1).then_some(0));
                let record = named.map_or_else(|| batch_record(rows), |row| self.record(rows, row));
                Err(SubtaskFailure {
                    record: Some(record),
                    unisolated: true,
                    policy: Some(policy::UNISOLATED),
                    ..self.failed(doing, error.without_row())
                })
            }
            _ => {
                // The call may have changed state of the guest's own before it returned an error; that is put back.
                self.broken |= self.is_careful() && has_own_state(&self.instance.description);
                let whole = range.len() == rows.len() as usize;
                if whole && rows.len() > 1 && matches!(fault, Fault::Unknown | Fault::Slow) {
                    tracing::warn!(
                        "operator \"{}\", subtask {}: a call with {} rows failed in {doing}; they are run again in parts, to find the one at fault. It was: {error}",
                        self.uid,
                        self.subtask,
                        rows.len()
                    );
                }
                Ok(fault)
            }
        }
    }

    /// Applies the operator's policy to a row at fault.
    fn condemn(&mut self, rows: &Rows, row: u32, error: GuestError) -> Result<(), SubtaskFailure> {
        let error = error.without_row();
        let policy = match error {
            GuestError::Failed { .. } => self.policy.on_failure,
            _ => self.policy.on_trap,
        };
        if policy == Policy::Fail {
            return Err(self.guilty(rows, row, error));
        }
        let name;
        let letter = match rows {
            Rows::Records(input, batch) => Letter::Record(*input, batch, row),
            Rows::Timers(_, due) => {
                name = self.timer_name(due, row);
                Letter::Timer(
                    due.keys.column.get(due.key_index[row as usize] as usize),
                    &name,
                    due.times[row as usize],
                )
            }
        };
        let of = (&self.uid, self.subtask);
        let Some(letters) = &mut self.policy.dead_letters else {
            return Err(self.guilty(rows, row, error));
        };
        if let Err(cause) = letters.write(of, &self.instance.description, letter, &error) {
            return Err(SubtaskFailure {
                record: Some(self.record(rows, row)),
                ..self.failed("dead-letter", cause)
            });
        }
        match rows {
            Rows::Records(..) => NodeCounters::add(&self.counters.records_in, 1),
            // A timer is consumed as one unit and does not fire again.
            Rows::Timers(..) => {
                if let (Some(backend), Rows::Timers(_, one)) = (&mut self.backend, rows.part(row..row + 1)) {
                    backend.fired(&one);
                }
            }
        }
        NodeCounters::add(&self.counters.dead_letters, 1);
        let so_far = self.counters.dead_letters.load(std::sync::atomic::Ordering::Relaxed);
        if so_far.is_power_of_two() {
            tracing::warn!(
                "operator \"{}\", subtask {}: {so_far} dead letter{} so far; the last one: {}: {error}",
                self.uid,
                self.subtask,
                if so_far == 1 { "" } else { "s" },
                self.record(rows, row)
            );
        }
        Ok(())
    }

    /// Builds the failure of a job whose policy fails on this row.
    fn guilty(&self, rows: &Rows, row: u32, error: GuestError) -> SubtaskFailure {
        SubtaskFailure {
            record: Some(self.record(rows, row)),
            policy: Some(match error {
                GuestError::Failed { .. } => policy::ON_FAILURE,
                _ => policy::ON_TRAP,
            }),
            ..self.failed(rows.doing(), error)
        }
    }

    fn record(&self, rows: &Rows, row: u32) -> Record {
        match rows {
            Rows::Records(input, batch) => shown_record(&self.instance.description, *input, batch, row),
            Rows::Timers(_, due) => {
                let key = due.keys.column.get(due.key_index[row as usize] as usize);
                Record::timer(key, &self.timer_name(due, row), due.times[row as usize])
            }
        }
    }

    fn timer_name(&self, due: &DueTimers, row: u32) -> String {
        let declared = self
            .instance
            .description
            .timers
            .get(due.timer_ids[row as usize] as usize);
        declared.map(|timer| timer.name.clone()).unwrap_or_default()
    }

    fn revive_if_broken(&mut self) -> Result<(), SubtaskFailure> {
        if !self.broken {
            return Ok(());
        }
        self.revive()
            .map_err(|(doing, error)| self.failed_without_rows(doing, error))
    }

    /// Returns true if the effects of a failed call on the instance can be undone.
    fn is_careful(&self) -> bool {
        let needed = [self.policy.on_trap, self.policy.on_failure].contains(&Policy::DeadLetter);
        self.policy.careful || needed
    }

    /// Saves, before a call, the state that a new instance would need to take over from this one.
    fn keep_own_state(&mut self) -> Result<(), SubtaskFailure> {
        if has_own_state(&self.instance.description) && self.is_careful() {
            self.own_state = self.own_state_now()?;
        }
        Ok(())
    }

    fn own_state_now(&mut self) -> Result<Vec<OperatorState>, SubtaskFailure> {
        // Not part of a round: the state is only for this node.
        self.snapshot(CheckpointId(0))
    }
}

fn batch_record(rows: &Rows) -> Record {
    match rows {
        Rows::Records(_, batch) => Record::of(batch, None),
        Rows::Timers(_, due) => Record {
            position: None,
            content: None,
            of: due.times.len(),
        },
    }
}
