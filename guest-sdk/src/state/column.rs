//! The runtime's side of a state of any kind and type, and the writes of a call.

use super::call::Call;
use crate::bindings::regraft::operator::types;
use crate::bytes::append;
use crate::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Properties of a state, shared by its handle and its declaration.
pub(crate) struct StateInfo {
    pub(crate) call: Arc<Call>,
    pub(crate) name: String,
    /// Its place among all states of the operator.
    pub(crate) number: u32,
    pub(crate) kind: &'static str,
    /// The JSON of the values' type.
    pub(crate) schema: String,
    /// The JSON of the map keys' type.
    pub(crate) map_key: Option<String>,
    travels: AtomicBool,
    /// 0: none.
    ttl_ms: AtomicU64,
}

impl StateInfo {
    pub(crate) fn new(call: Arc<Call>, name: &str, number: usize, kind: &'static str, schema: String) -> Self {
        StateInfo {
            call,
            name: name.into(),
            number: number as u32,
            kind,
            schema,
            map_key: None,
            travels: AtomicBool::new(true),
            ttl_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn with_map_key(self, map_key: Option<String>) -> Self {
        StateInfo { map_key, ..self }
    }

    pub(crate) fn travels(&self) -> bool {
        self.travels.load(Relaxed)
    }

    /// It is read by imports.
    pub(super) fn set_far(&self) {
        self.travels.store(false, Relaxed);
    }

    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        Some(self.ttl_ms.load(Relaxed)).filter(|ttl| *ttl > 0)
    }

    /// # Panics
    ///
    /// When it is less than a millisecond, or more than 2^63 of them.
    pub(super) fn set_ttl(&self, ttl: Duration) {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(0);
        assert!(
            ttl_ms > 0,
            "the time to live of state `{}` is {ttl:?}: it must be between 1 ms and 2^63 ms",
            self.name
        );
        self.ttl_ms.store(ttl_ms as u64, Relaxed);
    }

    /// A value of it cannot be read, so the call fails.
    #[cold]
    pub(super) fn broken(&self, error: &Error) {
        self.call
            .fail(format!("state `{}`: a value is broken: {error}", self.name));
    }

    /// The call fails because of it.
    #[cold]
    pub(super) fn fail(&self, why: impl std::fmt::Display) {
        self.call.fail(format!("state `{}`: {why}", self.name));
    }

    /// It was used where it has no key to belong to, so the call fails.
    #[cold]
    pub(super) fn without_key(&self) {
        self.fail(
            "it was used where no key is at hand: state by key can be used in `process`, `prefetch`, `on_timer` and \
             `finish` only, on the thread that they are called on",
        );
    }
}

/// The runtime's side of a state, of any kind and type. To be called outside of the operator's code.
pub(crate) trait StateColumn: Send {
    fn info(&self) -> &StateInfo;

    /// Makes room for a call of so many keys. `cells` are the state's own, checked; `None` where it does not travel, and
    /// in a call without keys.
    fn begin(&mut self, keys: usize, cells: Option<types::Cells>);

    /// Encodes what was written, where it is to be kept, and forgets the call.
    fn end(&mut self, writes: Option<&mut Writes>) -> Result<(), String>;
}

/// Writes of a call to keyed state.
#[derive(Default)]
pub(crate) struct Writes {
    /// Of each state that has written or cleared cells.
    pub(crate) cells: Vec<types::CellWrites>,
    pub(crate) entries: EntryWrites,
}

impl Writes {
    /// True if a column has grown beyond the range of an end offset.
    pub(crate) fn too_large(&self) -> bool {
        let cells = self.cells.iter().map(|writes| writes.data.len()).max();
        cells.unwrap_or(0) > u32::MAX as usize || self.entries.too_large()
    }
}

/// Writes of a call to states that do not travel, in order: the columns of `entry-writes`, of which each has one item
/// for every write.
#[derive(Default)]
pub(crate) struct EntryWrites {
    ops: Vec<u8>,
    states: Vec<u32>,
    keys: Vec<u32>,
    entry_key_data: Vec<u8>,
    entry_key_ends: Vec<u32>,
    value_data: Vec<u8>,
    value_ends: Vec<u32>,
}

/// An operation of `entry-writes`.
#[derive(Clone, Copy)]
pub(super) enum Op {
    Put = 0,
    Append = 1,
    Remove = 2,
    Clear = 3,
}

impl EntryWrites {
    /// Adds one; `write` appends the value, where there is one.
    pub(super) fn push(
        &mut self,
        op: Op,
        info: &StateInfo,
        key: usize,
        entry_key: &[u8],
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), String> {
        write(&mut self.value_data).map_err(|error| format!("state `{}`: {error}", info.name))?;
        append(&mut self.entry_key_data, entry_key);
        self.ops.push(op as u8);
        self.states.push(info.number);
        self.keys.push(key as u32);
        self.entry_key_ends.push(self.entry_key_data.len() as u32);
        self.value_ends.push(self.value_data.len() as u32);
        Ok(())
    }

    /// Adds one that has no value.
    pub(super) fn push_bare(&mut self, op: Op, info: &StateInfo, key: usize, entry_key: &[u8]) -> Result<(), String> {
        self.push(op, info, key, entry_key, |_| Ok(()))
    }

    fn too_large(&self) -> bool {
        self.value_data.len().max(self.entry_key_data.len()) > u32::MAX as usize
    }

    pub(crate) fn into_record(self) -> Option<types::EntryWrites> {
        (!self.ops.is_empty()).then_some(types::EntryWrites {
            ops: self.ops,
            states: self.states,
            keys: self.keys,
            entry_key_data: self.entry_key_data,
            entry_key_ends: self.entry_key_ends,
            value_data: self.value_data,
            value_ends: self.value_ends,
        })
    }
}
