//! The end of all inputs: the last timers fire, and all keys are passed to `finish`.

use regraft_model::batch::{Batch, Keys};
use regraft_model::describe::interface;
use regraft_model::time::{MAX_WATERMARK, TimeDomain};

use super::{OperatorNode, Outputs, keyed_view};
use crate::dataflow::failure::SubtaskFailure;

/// Limit of keys in one `finish` call.
const FINISH_KEYS: usize = 1024;

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
        if self.fire(TimeDomain::Event, MAX_WATERMARK, keys_needed, out)? {
            return Ok(true);
        }
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
