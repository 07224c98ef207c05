//! Natively compiled operators as the modules of simulated jobs. Their output and state are easy to model.
//!
//! The file of a module is its text, so that the store's copy is enough to load it again.
//!
//! - `describe`: the descriptions of the modules.
//! - [`waiting`]: operators that hold records back, with timers, lists and maps.
//! - [`own`]: operators with state of their own.

mod describe;
pub mod own;
pub mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;

use regraft::dataflow::operator::{Operator, OperatorModule};
use regraft_guest_runtime::call::{
    BatchView, CellWrites, Failure, Header, KeyedView, OpenContext, OperatorState, Outcome, Output, TimerView,
};
use regraft_guest_runtime::describe::ModuleDigest;
use regraft_guest_runtime::instance::InstanceSettings;
use regraft_guest_runtime::state_access::StateAccess;
use regraft_guest_runtime::trap::{GuestError, TrapCause};
use regraft_model::describe::Description;
use regraft_model::id::CheckpointId;
use regraft_model::schema::Type;
use regraft_model::value::{Value, decode, encode};

use crate::fate::{Fate, Place, Verdict};
use own::Own;
use waiting::Call;

/// The logic of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logic {
    /// Emits the words of a line, each with itself as the key.
    Split,
    /// Counts records by key, and emits `key n` for each record.
    Count,
    /// Counts records by key, and emits `key n` for each key at the end.
    Final,
    /// Emits each record with the first letter of its key as the key.
    Initial,
    /// Counts records by key and window of event time, and emits `key@end n` at the end of a window.
    Window,
    /// Emits each record after a delay of processing time, or together with a hasty record of its key; the rest at the
    /// end.
    Later,
    /// Emits records a few at a time, and the rest at the end.
    Hold,
    /// Emits the records of its first input, and keeps the keys of its second one.
    Table,
    /// Emits its records, and at the end a line per subtask that has ended.
    Ends,
}

impl Logic {
    /// Returns true if its instances keep something between calls.
    const fn has_own_state(self) -> bool {
        matches!(self, Self::Hold | Self::Table | Self::Ends)
    }

    /// Returns true if it counts the records of each key in a state called `count`.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Count | Self::Final | Self::Window | Self::Later)
    }
}

/// The way in which a picky operator fails on a bad record, which goes to its dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fails {
    /// It panics, and names the row.
    Panics,
    /// It traps, without naming a row.
    Traps,
    /// It returns an error of its own.
    Says,
}

const FAILS: [(Fails, &str); 3] = [
    (Fails::Panics, "panics"),
    (Fails::Traps, "traps"),
    (Fails::Says, "says"),
];

/// Returns true if a picky operator fails on a record with this value.
pub fn is_bad(value: &[u8]) -> bool {
    value.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 13 == 5
}

const LOGICS: [(Logic, &str); 9] = [
    (Logic::Split, "split"),
    (Logic::Count, "count"),
    (Logic::Final, "final"),
    (Logic::Initial, "initial"),
    (Logic::Window, "window"),
    (Logic::Later, "later"),
    (Logic::Hold, "hold"),
    (Logic::Table, "table"),
    (Logic::Ends, "ends"),
];

/// Splits a line into words: `a` and `b` are separators, and words are cut to two letters.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = line.split(|byte| matches!(byte, b'a' | b'b'));
    words
        .filter(|word| !word.is_empty())
        .map(|word| &word[..word.len().min(2)])
}

/// A module: a logic, in a version that changes nothing but the digest.
#[derive(Debug)]
pub struct Native {
    logic: Logic,
    picky: Option<Fails>,
    bytes: Vec<u8>,
    description: Description,
    fate: Fate,
}

impl Native {
    pub fn module(logic: Logic, picky: Option<Fails>, version: u32, fate: &Fate) -> Arc<dyn OperatorModule> {
        let name = LOGICS.iter().find(|(of, _)| *of == logic).map_or("", |(_, name)| name);
        let fails = FAILS
            .iter()
            .find(|(of, _)| Some(*of) == picky)
            .map_or("", |(_, name)| name);
        Arc::new(Self {
            logic,
            picky,
            bytes: format!("{name} {version} {fails}").into_bytes(),
            description: describe::describe(logic),
            fate: fate.clone(),
        })
    }

    /// Loads a module from its file.
    pub fn load(bytes: &[u8], fate: &Fate) -> Option<Arc<dyn OperatorModule>> {
        let (name, rest) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        let (version, fails) = rest.split_once(' ')?;
        let (logic, _) = LOGICS.iter().find(|(_, of)| *of == name)?;
        let picky = FAILS.iter().find(|(_, of)| *of == fails).map(|(of, _)| *of);
        Some(Self::module(*logic, picky, version.parse().ok()?, fate))
    }
}

impl OperatorModule for Native {
    fn digest(&self) -> ModuleDigest {
        ModuleDigest::of(&self.bytes)
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn instantiate(&self, _: &InstanceSettings) -> Result<Box<dyn Operator>, GuestError> {
        Ok(Box::new(Instance {
            logic: self.logic,
            picky: self.picky,
            fate: self.fate.clone(),
            poisoned: false,
            access: None,
            own: Own::default(),
            began: None,
            looks: 2,
        }))
    }
}

struct Instance {
    logic: Logic,
    picky: Option<Fails>,
    fate: Fate,
    poisoned: bool,
    /// Access to maps and lists.
    access: Option<Arc<dyn StateAccess>>,
    own: Own,
    /// Time of its first call.
    began: Option<i64>,
    /// Number of further calls in which to check for timers that should have fired before.
    looks: u32,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.logic)
    }
}

/// Decodes the counts that travel with a call.
fn counts(keyed: &KeyedView<'_>) -> Vec<u64> {
    let cells = keyed
        .cells
        .iter()
        .flat_map(|cells| cells.values.iter().zip(&cells.present));
    let count = |(bytes, present): (&[u8], &u8)| match (present, decode(&Type::U64, bytes)) {
        (0, _) => 0,
        (_, Ok(Value::Unsigned(count))) => count,
        (_, other) => panic!("a count that was never written: {other:?}"),
    };
    cells.map(count).collect()
}

fn number(number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    encode(&Type::U64, &Value::Unsigned(number), &mut bytes).unwrap_or_else(|error| panic!("{error}"));
    bytes
}

fn item<'a>(data: &'a [u8], ends: &[u32], at: usize) -> &'a [u8] {
    let start = if at == 0 { 0 } else { ends[at - 1] as usize };
    &data[start..ends[at] as usize]
}

/// Renders `key n`.
pub fn counted(key: &[u8], count: u64) -> Vec<u8> {
    [key, b" ", count.to_string().as_bytes()].concat()
}

fn write(writes: &mut CellWrites, key: usize, count: u64) {
    writes.keys.push(key as u32);
    writes.values.push(&number(count));
}

impl Instance {
    fn call(&mut self) -> Result<(), GuestError> {
        if self.poisoned {
            return Err(GuestError::Poisoned);
        }
        // Only planned traps hit a picky operator, so that its dead letters are known.
        if self.fate.visit(Place::Call, false, "") == Verdict::Fail && self.picky.is_none() {
            return Err(self.trap(TrapCause::Trap("simulated".to_owned())));
        }
        Ok(())
    }

    fn trap(&mut self, cause: TrapCause) -> GuestError {
        self.poisoned = true;
        let backtrace = vec![];
        GuestError::Trapped { cause, backtrace }
    }

    /// Fails on a bad record.
    fn look_at(&mut self, batch: &BatchView<'_>) -> Result<(), GuestError> {
        let Some(fails) = self.picky else { return Ok(()) };
        let bad = |row: &usize| is_bad(item(batch.value_data, batch.value_ends, *row));
        let Some(row) = (0..batch.rows()).find(bad).map(|row| row as u32) else {
            return Ok(());
        };
        let message = "not that one".to_owned();
        Err(match fails {
            Fails::Traps => self.trap(TrapCause::Trap(message)),
            Fails::Panics => self.trap(TrapCause::Panic {
                message,
                file: "picky.rs".to_owned(),
                line: 1,
                column: 1,
                row: Some(row),
            }),
            Fails::Says => GuestError::Failed {
                failure: Failure {
                    row: Some(row),
                    message,
                },
            },
        })
    }
}

impl Operator for Instance {
    fn open(&mut self, _: Header, context: &OpenContext) -> Result<(), GuestError> {
        self.own = Own::new(context);
        Ok(())
    }

    fn process(&mut self, header: Header, batch: BatchView<'_>, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        if self.poisoned {
            return Err(GuestError::Poisoned);
        }
        if self.logic.has_own_state() {
            // It fails after it has changed its state, so that the change must be undone.
            let outcome = self.own.process(self.logic, &batch, &keyed);
            self.call()?;
            self.look_at(&batch)?;
            return Ok(outcome);
        }
        self.call()?;
        self.look_at(&batch)?;
        let mut outcome = match self.logic {
            Logic::Window | Logic::Later => self.wait(header, &batch, &keyed),
            _ => self.pass(&batch, &keyed),
        };
        if self.logic.counts() {
            let mut state = counts(&keyed);
            let written: BTreeSet<usize> = batch.key_index.iter().map(|at| *at as usize).collect();
            batch.key_index.iter().for_each(|at| state[*at as usize] += 1);
            let mut writes = CellWrites {
                // The one state that travels.
                state: keyed.cells[0].state,
                ..CellWrites::default()
            };
            written.into_iter().for_each(|key| write(&mut writes, key, state[key]));
            outcome.cells.push(writes);
        }
        Ok(outcome)
    }

    fn on_timers(
        &mut self,
        header: Header,
        timers: TimerView<'_>,
        keyed: KeyedView<'_>,
    ) -> Result<Outcome, GuestError> {
        self.call()?;
        self.began.get_or_insert(header.now);
        Ok(Call::new(self.access.as_deref(), &keyed).fire(self.logic, header, &timers))
    }

    fn finish(&mut self, _: Header) -> Result<Outcome, GuestError> {
        self.call()?;
        if self.logic.has_own_state() {
            return Ok(self.own.finish(self.logic));
        }
        Ok(Outcome::default())
    }

    fn finish_keys(&mut self, _: Header, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        self.call()?;
        assert!(!self.logic.has_own_state(), "an operator without keys was given some");
        if self.logic != Logic::Final {
            return Ok(Call::new(self.access.as_deref(), &keyed).finish(self.logic));
        }
        let mut out = Output::default();
        for (at, count) in counts(&keyed).into_iter().enumerate() {
            out.parents.push(at as u32);
            out.values
                .push(&counted(item(keyed.key_data, keyed.key_ends, at), count));
        }
        Ok(Outcome {
            outputs: vec![out],
            ..Outcome::default()
        })
    }

    fn snapshot(&mut self, _: Header, _: CheckpointId) -> Result<Vec<OperatorState>, GuestError> {
        Ok(self.own.snapshot(self.logic))
    }

    fn restore(&mut self, _: Header, states: &[OperatorState]) -> Result<(), GuestError> {
        self.own.restore(states);
        Ok(())
    }

    fn set_state(&mut self, access: Option<Arc<dyn StateAccess>>) {
        self.access = access;
    }

    fn reset(&mut self) -> Result<(), GuestError> {
        self.poisoned = false;
        self.own = Own::default();
        Ok(())
    }
}

impl Instance {
    /// Handles records of operators that emit something for each record at once.
    fn pass(&self, batch: &BatchView<'_>, keyed: &KeyedView<'_>) -> Outcome {
        let mut out = Output::default();
        let mut state = if self.logic.counts() { counts(keyed) } else { vec![] };
        for row in 0..batch.rows() {
            let value = item(batch.value_data, batch.value_ends, row);
            let at = batch.key_index.get(row).map(|at| *at as usize);
            let key = at.map_or(&[][..], |at| item(keyed.key_data, keyed.key_ends, at));
            match (self.logic, at) {
                (Logic::Split, _) => {
                    for word in words(value) {
                        out.parents.push(row as u32);
                        out.keys.push(word);
                        out.values.push(word);
                    }
                }
                (Logic::Initial, _) => {
                    out.parents.push(row as u32);
                    out.keys.push(&key[..key.len().min(1)]);
                    out.values.push(value);
                }
                (Logic::Count, Some(at)) => {
                    state[at] += 1;
                    out.parents.push(row as u32);
                    out.values.push(&counted(key, state[at]));
                }
                (_, None) => panic!("a keyed operator was given a record without a key"),
                _ => {}
            }
        }
        Outcome {
            outputs: vec![out],
            ..Outcome::default()
        }
    }

    /// Handles records of operators that hold them back.
    fn wait(&mut self, header: Header, batch: &BatchView<'_>, keyed: &KeyedView<'_>) -> Outcome {
        let began = *self.began.get_or_insert(header.now);
        let call = Call::new(self.access.as_deref(), keyed);
        // A timer becomes due between the look at timers and the first call where the clock is set forward between them.
        if self.logic == Logic::Later && self.looks > 0 && self.fate.has_steady_clock() {
            self.looks -= 1;
            call.nothing_is_overdue(began);
        }
        call.process(self.logic, header, batch)
    }
}
