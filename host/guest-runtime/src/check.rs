//! Checks everything that an operator answered, before any of it is used.
//!
//! A length or an index that lies fails the call with a text that names the column, what was expected and what was
//! found. It is on the hot path: one pass over each column, branch-free inside, and no allocation while cells come in
//! rising order. After it, every index of an [`Outcome`] may be used without a check.

use crate::call::{
    CellWrites, ENTRY_CLEAR, ENTRY_PUT, ENTRY_REMOVE, EntryWrites, Outcome, Output, Shape, TIMER_DELETE,
};
use regraft_model::batch::{BytesColumn, check_ends};
use regraft_model::value::parts::PartsBound;

impl Outcome {
    /// Checks all columns against each other and against the call.
    ///
    /// # Errors
    /// Names the first column that is wrong, what was expected of it, and what was found.
    pub fn check(&self, shape: &Shape<'_>) -> Result<(), String> {
        for (i, output) in self.outputs.iter().enumerate() {
            output.check(shape).map_err(|text| format!("outputs[{i}].{text}"))?;
        }
        self.check_cells(shape)?;
        if let Some(entries) = &self.entries {
            entries.check(shape).map_err(|text| format!("entries.{text}"))?;
        }
        self.check_timers(shape)
    }

    fn check_cells(&self, shape: &Shape<'_>) -> Result<(), String> {
        for (i, writes) in self.cells.iter().enumerate() {
            let of = |text: String| format!("cells[{i}].{text}");
            if self.cells[..i].iter().any(|before| before.state == writes.state) {
                return Err(of(format!(
                    "state is {} again: expected each state at most once",
                    writes.state
                )));
            }
            writes.check(shape).map_err(of)?;
        }
        Ok(())
    }

    fn check_timers(&self, shape: &Shape<'_>) -> Result<(), String> {
        let count = self.timer_ops.len();
        check_len("timer-keys", self.timer_keys.len(), count, "timer-ops")?;
        check_len("timer-ids", self.timer_ids.len(), count, "timer-ops")?;
        check_len("timer-times", self.timer_times.len(), count, "timer-ops")?;
        check_ops("timer-ops", &self.timer_ops, TIMER_DELETE, "0 (register) or 1 (delete)")?;
        check_below("timer-keys", &self.timer_keys, shape.keys.into(), || {
            format!("{} keys", shape.keys)
        })?;
        let timers = shape.declared.timers;
        check_below("timer-ids", &self.timer_ids, timers.into(), || {
            format!("{timers} declared timers")
        })
    }
}

impl CellWrites {
    fn check(&self, shape: &Shape<'_>) -> Result<(), String> {
        let states = &shape.declared.travels;
        match states.get(self.state as usize) {
            Some(true) => {}
            Some(false) => {
                return Err(format!(
                    "state is {}, a state that does not travel: expected its writes in `entries`",
                    self.state
                ));
            }
            None => {
                return Err(format!(
                    "state is {}: expected less than {1} ({1} declared states)",
                    self.state,
                    states.len()
                ));
            }
        }
        let of = || format!("{} keys", shape.keys);
        check_below("keys", &self.keys, shape.keys.into(), of)?;
        check_below("cleared", &self.cleared, shape.keys.into(), of)?;
        check_column("ends", &self.values, self.keys.len(), "keys")?;
        if let Some(of) = shape.declared.state_values.get(self.state as usize) {
            check_parts(&self.values, &of.parts, || format!("of state \"{}\"", of.name))?;
        }
        if rising(&self.keys) && (self.cleared.is_empty() || (self.keys.is_empty() && rising(&self.cleared))) {
            return Ok(());
        }
        // Not the way the SDK writes them, but allowed.
        let mut seen = vec![0u64; (shape.keys as usize).div_ceil(64)];
        for (name, column) in [("keys", &self.keys), ("cleared", &self.cleared)] {
            for (i, &key) in column.iter().enumerate() {
                let (word, bit) = (key as usize / 64, 1u64 << (key % 64));
                if seen[word] & bit != 0 {
                    return Err(format!(
                        "{name}[{i}] is key {key} again: expected each key at most once in `keys` and `cleared` together"
                    ));
                }
                seen[word] |= bit;
            }
        }
        Ok(())
    }
}

impl Output {
    fn check(&self, shape: &Shape<'_>) -> Result<(), String> {
        let ports = shape.declared.ports;
        if self.port >= ports {
            return Err(format!(
                "port is {}: expected less than {ports}, the number of declared outputs",
                self.port
            ));
        }
        let count = if shape.rows == 0 && self.parents.is_empty() {
            // A call without rows: nothing can be taken over.
            self.values.len()
        } else {
            check_below("parents", &self.parents, shape.rows.into(), || {
                format!("{} rows of the call", shape.rows)
            })?;
            self.parents.len()
        };
        if !self.keys.is_empty() || !self.keys.data.is_empty() {
            check_column("key-ends", &self.keys, count, "parents")?;
        }
        if !self.values.is_empty() || !self.values.data.is_empty() {
            check_column("value-ends", &self.values, count, "parents")?;
            if let Some(Some(of)) = shape.declared.output_values.get(self.port as usize) {
                check_parts(&self.values, &of.parts, || format!("of port \"{}\"", of.name))?;
            }
        } else if count > 0 && !shape.values_inherited {
            return Err(format!(
                "value-ends is empty: expected {count} entries, because only `process` has parents' values to take over"
            ));
        }
        if !self.timestamps.is_empty() {
            check_len("timestamps", self.timestamps.len(), count, "parents")?;
        }
        Ok(())
    }
}

impl EntryWrites {
    fn check(&self, shape: &Shape<'_>) -> Result<(), String> {
        let count = self.ops.len();
        check_len("states", self.states.len(), count, "ops")?;
        check_len("keys", self.keys.len(), count, "ops")?;
        check_ops(
            "ops",
            &self.ops,
            ENTRY_CLEAR,
            "0 (put), 1 (append), 2 (remove) or 3 (clear)",
        )?;
        let states = &shape.declared.travels;
        check_below("states", &self.states, states.len() as u64, || {
            format!("{} declared states", states.len())
        })?;
        if let Some(i) = self
            .states
            .iter()
            .position(|&state| states.get(state as usize) == Some(&true))
        {
            return Err(format!(
                "states[{i}] is {}, a state that travels: expected its writes in `cells`",
                self.states[i]
            ));
        }
        check_below("keys", &self.keys, shape.keys.into(), || format!("{} keys", shape.keys))?;
        if !self.entry_keys.is_empty() || !self.entry_keys.data.is_empty() {
            check_column("entry-key-ends", &self.entry_keys, count, "ops")?;
        }
        if !self.values.is_empty() || !self.values.data.is_empty() {
            check_column("value-ends", &self.values, count, "ops")?;
            self.check_values(shape)?;
        } else if let Some(i) = self.ops.iter().position(|&op| (ENTRY_PUT..ENTRY_REMOVE).contains(&op)) {
            return Err(format!(
                "value-ends is empty: expected {count} entries, because ops[{i}] writes a value"
            ));
        }
        Ok(())
    }
}

impl EntryWrites {
    /// Checks the parts of the values, each by the state that it is written to.
    fn check_values(&self, shape: &Shape<'_>) -> Result<(), String> {
        for (i, &state) in self.states.iter().enumerate() {
            if let Some(of) = shape.declared.state_values.get(state as usize) {
                let checked = of.parts.check(self.values.get(i));
                checked.map_err(|error| format!("values[{i}], of state \"{}\": {error}", of.name))?;
            }
        }
        Ok(())
    }
}

fn rising(column: &[u32]) -> bool {
    column
        .iter()
        .zip(column.iter().skip(1))
        .fold(true, |ok, (a, b)| ok & (a < b))
}

fn check_len(name: &str, found: usize, expected: usize, like: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "{name} has {found} entries: expected {expected}, as many as {like}"
    ))
}

/// `ends` names the column's end offsets.
fn check_column(ends: &str, column: &BytesColumn, expected: usize, like: &str) -> Result<(), String> {
    if column.len() != expected {
        return Err(format!(
            "{ends} has {} entries: expected {expected}, as many as {like}",
            column.len()
        ));
    }
    check_ends(column.data.len(), &column.ends).map_err(|text| format!("{ends}: {text}"))
}

/// Checks that no value has more parts than its bytes allow. `of` says whose values they are.
pub(crate) fn check_parts(values: &BytesColumn, bound: &PartsBound, of: impl Fn() -> String) -> Result<(), String> {
    let checked = bound.check_all(values.data.len(), values.iter());
    checked.map_err(|(i, error)| format!("values[{i}], {}: {error}", of()))
}

fn check_below(name: &str, column: &[u32], limit: u64, of: impl Fn() -> String) -> Result<(), String> {
    let largest = column.iter().fold(0, |largest, &index| largest.max(index));
    if column.is_empty() || u64::from(largest) < limit {
        return Ok(());
    }
    let at = column
        .iter()
        .position(|&index| u64::from(index) >= limit)
        .unwrap_or_default();
    Err(format!(
        "{name}[{at}] is {}: expected less than {limit} ({})",
        column[at],
        of()
    ))
}

fn check_ops(name: &str, ops: &[u8], largest: u8, meaning: &str) -> Result<(), String> {
    match ops.iter().position(|&op| op > largest) {
        None => Ok(()),
        Some(i) => Err(format!("{name}[{i}] is {}: expected {meaning}", ops[i])),
    }
}
