//! The end of all inputs: the last timers fire, and all keys are passed to `finish`.

use std::collections::BTreeSet;

use regraft_model::batch::{Batch, BytesColumn, Keys};
use regraft_model::describe::interface;
use regraft_model::time::{MAX_WATERMARK, TimeDomain};

use super::bounds::Parents;
use super::{OperatorNode, Outputs, keyed_view};
use crate::dataflow::failure::{Cause, SubtaskFailure};

/// Limit of keys in one `finish` call.
const FINISH_KEYS: usize = 1024;

/// Number of times that timers may set themselves again at the end of all inputs before the log names them.
const AGAIN_TOLD: u32 = 1_000;
/// Number of times at which they are taken to go on without end.
const AGAIN_MAX: u32 = 1_000_000;
/// Limit of timers that are looked at for their names.
const NAMED_MAX: usize = 1_024;

/// Progress of firing the last event-time timers: first those that are pending at the end, up to the latest of them; then
/// those that they have set after that, and so on.
#[derive(Debug, Default)]
pub(super) struct LastTimers {
    /// Time up to which timers are being fired; `None` before the first ones.
    until: Option<i64>,
    /// Number of times that timers beyond it were pending when all up to it had fired, or that one was pending behind those
    /// that had just fired.
    again: u32,
}

/// Progress of passing the keys to `finish`.
#[derive(Debug, Default)]
pub(super) struct Finishing {
    /// Next key group, as an index into the range.
    group: usize,
    /// Keys of the group before `group`.
    keys: Keys,
    /// Number of those that have been passed.
    done: usize,
}

impl OperatorNode {
    /// Does a part of the work that follows the end of all inputs. Returns false if nothing is left to do.
    ///
    /// # Errors
    /// [`SubtaskFailure`] of the call that failed.
    pub fn end(&mut self, keys_needed: bool, out: &mut Outputs) -> Result<bool, SubtaskFailure> {
        self.ended = true;
        if self.fire_last(keys_needed, out)? {
            return Ok(true);
        }
        self.last_timers = LastTimers::default();
        if self.finished || !self.instance.description.calls(interface::ENDING) {
            return Ok(false);
        }
        let mut finishing = self.finishing.take().unwrap_or_default();
        let keys = self.next_keys(&mut finishing);
        if keys.column.is_empty() {
            self.finish(keys_needed, out)?;
            self.finished = true;
        } else {
            self.finish_keys(keys, keys_needed, out)?;
            self.finishing = Some(finishing);
        }
        // Timers that this call has registered fire, too.
        Ok(true)
    }

    /// Fires some of the last event-time timers. Returns false if there are none.
    ///
    /// # Errors
    /// [`SubtaskFailure`] with the timer at fault, or with the names of timers that set themselves again without end.
    fn fire_last(&mut self, keys_needed: bool, out: &mut Outputs) -> Result<bool, SubtaskFailure> {
        if let Some(until) = self.last_timers.until
            && let Some(fired) = self.fire(TimeDomain::Event, until, keys_needed, out)?
        {
            if self.is_behind(TimeDomain::Event, &fired, until) {
                self.again()?;
            }
            return Ok(true);
        }
        let last = self
            .backend
            .as_ref()
            .and_then(|backend| backend.last_timer(TimeDomain::Event));
        let Some(last) = last else { return Ok(false) };
        if self.last_timers.until.replace(last).is_some() {
            self.again()?;
        }
        Ok(self.fire(TimeDomain::Event, last, keys_needed, out)?.is_some())
    }

    /// Counts that timers have set themselves again.
    ///
    /// # Errors
    /// [`SubtaskFailure`] with their names if it goes on without end.
    fn again(&mut self) -> Result<(), SubtaskFailure> {
        self.last_timers.again += 1;
        let times = self.last_timers.again;
        if times == AGAIN_TOLD {
            let names = self.pending_names();
            tracing::warn!(
                "operator \"{}\", subtask {}: at the end of the input, these timers have set themselves again {times} times: {}",
                self.uid,
                self.subtask,
                names.join(", ")
            );
        }
        if times >= AGAIN_MAX {
            let timers = self.pending_names();
            return Err(self.failed("on-timers", Cause::Endless { timers, times }));
        }
        Ok(())
    }

    /// Returns the names of the first pending event-time timers.
    fn pending_names(&mut self) -> Vec<String> {
        let backend = self.backend.as_mut();
        let due = backend.and_then(|backend| backend.due_timers(TimeDomain::Event, MAX_WATERMARK, NAMED_MAX));
        let ids: BTreeSet<u32> = due.into_iter().flat_map(|due| due.timer_ids).collect();
        let timers = &self.instance.description.timers;
        let name = |id: u32| timers.get(id as usize).map(|timer| format!("\"{}\"", timer.name));
        ids.into_iter().filter_map(name).collect()
    }

    /// Returns the next keys to pass; empty if all have been.
    fn next_keys(&self, finishing: &mut Finishing) -> Keys {
        let mut part = Keys::default();
        let Some(backend) = &self.backend else { return part };
        while finishing.done == finishing.keys.column.len() {
            if finishing.group >= backend.range().count() {
                return part;
            }
            finishing.keys = backend.keys_of(finishing.group);
            finishing.done = 0;
            finishing.group += 1;
        }
        let to = finishing.keys.column.len().min(finishing.done + FINISH_KEYS);
        for i in finishing.done..to {
            part.column.push(finishing.keys.column.get(i));
            part.hashes.push(finishing.keys.hashes[i]);
        }
        finishing.done = to;
        part
    }

    /// Tells the operator that all keys have been handed over.
    fn finish(&mut self, keys_needed: bool, out: &mut Outputs) -> Result<(), SubtaskFailure> {
        let header = self.header();
        let finished = self.instance.operator.finish(header);
        let outcome = finished.map_err(|error| self.failed_without_rows("finish", error))?;
        self.take_outputs(outcome, &Batch::default(), keys_needed, out);
        Ok(())
    }

    fn finish_keys(&mut self, keys: Keys, keys_needed: bool, out: &mut Outputs) -> Result<(), SubtaskFailure> {
        let header = self.header();
        if let Some(backend) = &mut self.backend
            && let Err(error) = backend.resolve(&keys, header.now, &mut self.cells)
        {
            return Err(self.failed("finish", error));
        }
        let keyed = keyed_view(&keys, &self.cells, self.backend.is_some());
        let finished = self.instance.operator.finish_keys(header, keyed);
        let outcome = finished.map_err(|error| self.failed_without_rows("finish", error))?;
        let parents = Parents {
            keys: &keys.column,
            key_index: &[],
            values: &BytesColumn::default(),
            keys_needed,
        };
        let admitted = self.admit(&outcome, &keys, &parents);
        admitted.map_err(|cause| self.failed("finish", cause))?;
        self.apply(&keys, header.now, &outcome);
        // A row is a key: keys of parents are these keys, and there are no values to take over.
        let rows = Batch {
            keys,
            ..Batch::default()
        };
        self.take_outputs(outcome, &rows, keys_needed, out);
        Ok(())
    }
}
