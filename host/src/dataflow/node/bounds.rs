//! Bounds of what the host holds for a call of an operator, checked before any effect of the call is applied: its outputs, with
//! what they take over from their parents, and what its writes add to state.

use regraft_guest_runtime::call::{Outcome, Output};
use regraft_guest_runtime::trap::{GuestError, TrapCause};
use regraft_model::batch::{BytesColumn, Keys};

use super::OperatorNode;
use crate::dataflow::failure::Cause;
use crate::state::backend::{TimerOps, Writes};

/// Bytes of a record beside its key and value: indices, ends, timestamp, position.
const RECORD_BYTES: u64 = 40;
/// The longest column that is gathered from parents: offsets have 32 bits, and a channel's buffer may hold some already.
const COLUMN_BYTES_MAX: u64 = u32::MAX as u64 - (1 << 20);

/// Columns of the rows of a call, from which outputs may take their keys and values.
pub(super) struct Parents<'a> {
    /// Distinct keys.
    pub(super) keys: &'a BytesColumn,
    /// For each row the index of its key; empty if each has the key of its own number.
    pub(super) key_index: &'a [u32],
    /// Values; none where only keys can be taken over.
    pub(super) values: &'a BytesColumn,
    /// True if keys are taken over at all.
    pub(super) keys_needed: bool,
}

impl Parents<'_> {
    fn key_bytes(&self, row: u32) -> u64 {
        let at = self.key_index.get(row as usize).copied().unwrap_or(row) as usize;
        if at < self.keys.len() {
            self.keys.range(at).len() as u64
        } else {
            0
        }
    }

    fn value_bytes(&self, row: u32) -> u64 {
        let at = row as usize;
        if at < self.values.len() {
            self.values.range(at).len() as u64
        } else {
            0
        }
    }

    /// Returns the bytes of an output's keys and values; `exact`: by each of its records, else by an upper bound.
    fn columns(&self, output: &Output, exact: bool) -> (u64, u64) {
        let rows = output.parents.len() as u64;
        let keys = match (self.keys_needed && output.keys.is_empty(), exact) {
            (false, _) => output.keys.data.len() as u64,
            (true, false) => rows.saturating_mul(self.keys.data.len() as u64),
            (true, true) => output.parents.iter().map(|row| self.key_bytes(*row)).sum(),
        };
        let values = match (output.values.is_empty(), exact) {
            (false, _) => output.values.data.len() as u64,
            (true, false) => rows.saturating_mul(self.values.data.len() as u64),
            (true, true) => output.parents.iter().map(|row| self.value_bytes(*row)).sum(),
        };
        (keys, values)
    }

    /// Returns the bytes of all outputs of a call; `None` where a column is too long.
    fn outputs(&self, outputs: &[Output], exact: bool) -> Option<u64> {
        let mut bytes = 0u64;
        for output in outputs {
            let (keys, values) = self.columns(output, exact);
            if keys.max(values) > COLUMN_BYTES_MAX {
                return None;
            }
            // Each batch has a copy of the distinct keys.
            let distinct = if self.keys_needed && output.keys.is_empty() {
                (self.keys.data.len() + 8 * self.keys.len()) as u64
            } else {
                0
            };
            let records = (output.len() as u64).saturating_mul(RECORD_BYTES);
            let all = [keys, values, distinct, records]
                .into_iter()
                .fold(size_of::<Output>() as u64, u64::saturating_add);
            bytes = bytes.saturating_add(all);
        }
        Some(bytes)
    }

    /// True if the outputs of a call, so many times, fit into the limit.
    fn fit(&self, outputs: &[Output], copies: u64, limit: u64) -> bool {
        let fits = |exact| {
            self.outputs(outputs, exact)
                .is_some_and(|bytes| bytes.saturating_mul(copies) <= limit)
        };
        // The upper bound is enough nearly always, and takes no look at the records.
        fits(false) || fits(true)
    }
}

impl OperatorNode {
    /// Checks the outcome of a call, whose keys are `keys`, and enters its writes.
    ///
    /// # Errors
    /// [`GuestError::Trapped`] with the limit that it exceeds. Nothing of the call may be kept then.
    pub(super) fn admit(&mut self, outcome: &Outcome, keys: &Keys, parents: &Parents<'_>) -> Result<(), Cause> {
        let limit = self.policy.host_memory_max;
        let refused = |cause| {
            Cause::Guest(GuestError::Trapped {
                cause,
                backtrace: vec![],
            })
        };
        if !parents.fit(&outcome.outputs, self.copies, limit) {
            return Err(refused(TrapCause::HostMemory { limit }));
        }
        let Some(backend) = &self.backend else { return Ok(()) };
        let writes = writes_of(outcome, &self.schemas);
        let entered = self.account.enter(
            writes.bytes_max(keys),
            || backend.bytes(),
            || backend.growth(keys, &self.cells, writes),
        );
        entered.map_err(refused)
    }
}

/// Returns the writes of an outcome.
pub(super) fn writes_of<'a>(outcome: &'a Outcome, schemas: &'a [u16]) -> Writes<'a> {
    Writes {
        cells: &outcome.cells,
        entries: outcome.entries.as_ref(),
        timers: TimerOps {
            ops: &outcome.timer_ops,
            keys: &outcome.timer_keys,
            ids: &outcome.timer_ids,
            times: &outcome.timer_times,
        },
        schemas,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(items: &[&[u8]]) -> BytesColumn {
        let mut column = BytesColumn::default();
        items.iter().for_each(|item| column.push(item));
        column
    }

    fn output(parents: Vec<u32>) -> Output {
        Output {
            parents,
            ..Output::default()
        }
    }

    #[test]
    fn what_is_taken_over_counts_for_each_record() {
        let (keys, values) = (column(&[b"key", &[0; 1000]]), column(&[b"v", &[0; 2000], b""]));
        let parents = |keys_needed| Parents {
            keys: &keys,
            key_index: &[1, 0, 0],
            values: &values,
            keys_needed,
        };
        let exact = |keys_needed, rows: &[u32]| {
            let (keys, values) = parents(keys_needed).columns(&output(rows.to_vec()), true);
            (keys, values)
        };
        assert_eq!(exact(true, &[0, 1, 1, 2]), (1000 + 3 + 3 + 3, 1 + 2000 + 2000));
        assert_eq!(exact(false, &[0, 1]), (0, 2001));
        // The upper bound does not fit, the bytes do.
        let small = [output(vec![0, 2, 2, 2])];
        assert!(parents(false).outputs(&small, false) > Some(8000));
        assert!(parents(false).fit(&small, 1, 500));
        assert!(!parents(false).fit(&[output(vec![1; 4])], 1, 8000));
        assert!(!parents(false).fit(&small, 3, 500));
    }

    #[test]
    fn no_column_is_longer_than_its_offsets_tell() {
        let values = column(&[&[0; 2048]]);
        let parents = Parents {
            keys: &BytesColumn::default(),
            key_index: &[],
            values: &values,
            keys_needed: true,
        };
        assert!(!parents.fit(&[output(vec![0; 2_100_000])], 1, u64::MAX));
        assert!(parents.fit(&[output(vec![0; 2_000_000]), output(vec![0; 2_000_000])], 1, u64::MAX));
    }

    #[test]
    fn each_of_many_small_outputs_counts() {
        let keys = column(&[&[0; 100_000]]);
        let parents = Parents {
            keys: &keys,
            key_index: &[0],
            values: &column(&[b""]),
            keys_needed: true,
        };
        assert!(!parents.fit(&vec![output(vec![0]); 1000], 1, 100 << 20));
        assert!(parents.fit(&vec![output(vec![0]); 500], 1, 100 << 20));
    }
}
