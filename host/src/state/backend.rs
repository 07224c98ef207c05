//! The contract of a keyed-state backend.
//!
//! A backend belongs to one operator in one subtask, and only that subtask's thread uses it.
//! States and timers are identified by name: an operator binds the names it declares, in order, and may bind others
//! after an upgrade.

use std::sync::Arc;

use regraft_guest_runtime::call::{CellColumn, CellWrites, ENTRY_REMOVE, EntryWrites, TIMER_REGISTER};
use regraft_guest_runtime::state_access::StateAccess;
use regraft_model::batch::Keys;
use regraft_model::describe::{Description, StateKind};
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::key_group::KeyGroupRange;
pub use regraft_model::time::TimeDomain;

use super::rows::StateRows;

/// A state as an operator declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundState {
    /// Name that identifies the state.
    pub name: String,
    /// Kind of the state. To a backend, reducing and aggregating states are value states.
    pub kind: StateKind,
    /// True if the values travel with each call as cells.
    pub travels: bool,
    /// Time to live of a value after its last write, in milliseconds of processing time; `None` if values do not
    /// expire.
    pub ttl_ms: Option<u64>,
}

/// A timer as an operator declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundTimer {
    /// Name, which is part of a timer's identity.
    pub name: String,
    /// Time that the timer waits for.
    pub domain: TimeDomain,
}

/// Converts a component's declarations to the arguments of [`StateBackend::bind`].
#[must_use]
pub fn bindings(description: &Description) -> (Vec<BoundState>, Vec<BoundTimer>) {
    let state = |state: &regraft_model::describe::StateDescription| BoundState {
        name: state.name.clone(),
        kind: state.kind,
        travels: state.travels,
        ttl_ms: state.ttl_ms,
    };
    // Admission refuses any other word.
    let timer = |timer: &regraft_model::describe::TimerDescription| BoundTimer {
        name: timer.name.clone(),
        domain: TimeDomain::named(&timer.time).unwrap_or(TimeDomain::Event),
    };
    (
        description.states.iter().map(state).collect(),
        description.timers.iter().map(timer).collect(),
    )
}

/// The cells of a call: a column for each bound state that travels, with one cell for each key.
#[derive(Debug, Default)]
pub struct Cells {
    /// Columns by position among the states that travel, numbered as they are bound.
    pub columns: Vec<CellColumn>,
    /// Location of each key in the backend that filled in the cells, and of no meaning to others.
    pub places: Vec<u64>,
}

/// The writes of a call. States are numbered as they are bound.
#[derive(Debug, Clone, Copy)]
pub struct Writes<'a> {
    /// Written and cleared cells: each state at most once, and each key of it at most once.
    pub cells: &'a [CellWrites],
    /// Writes to states that do not travel, in order.
    pub entries: Option<&'a EntryWrites>,
    /// Timer operations.
    pub timers: TimerOps<'a>,
    /// For each bound state the number of the schema that its values are written with.
    pub schemas: &'a [u16],
}

/// Approximate memory of a key, an entry or a timer without its bytes.
const ITEM_BYTES: u64 = 128;

impl Writes<'_> {
    /// Returns an upper bound of the bytes that they add; 0 if they only remove.
    #[must_use]
    pub fn bytes_max(&self, keys: &Keys) -> u64 {
        let (mut bytes, mut writes_keys) = (0, false);
        for cells in self.cells {
            bytes += cells.values.data.len() as u64 + ITEM_BYTES * cells.keys.len() as u64;
            writes_keys |= !cells.keys.is_empty();
        }
        if let Some(entries) = self
            .entries
            .filter(|entries| entries.ops.iter().any(|op| *op < ENTRY_REMOVE))
        {
            bytes += (entries.values.data.len() + entries.entry_keys.data.len()) as u64;
            bytes += ITEM_BYTES * entries.ops.len() as u64;
            writes_keys = true;
        }
        bytes += if writes_keys { keys.column.data.len() as u64 } else { 0 };
        bytes + self.timers.bytes_max(keys)
    }
}

impl TimerOps<'_> {
    /// Returns an upper bound of the bytes that they add.
    #[must_use]
    pub fn bytes_max(&self, keys: &Keys) -> u64 {
        let registered = self.ops.iter().zip(self.keys).filter(|(op, _)| **op == TIMER_REGISTER);
        registered
            .map(|(_, key)| ITEM_BYTES + keys.column.range(*key as usize).len() as u64)
            .sum()
    }
}

/// Timer operations in order. All columns have the same length.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimerOps<'a> {
    /// `TIMER_REGISTER` or `TIMER_DELETE` of the guest runtime's `call`.
    pub ops: &'a [u8],
    /// Index of each timer's key among the keys of the call.
    pub keys: &'a [u32],
    /// Position of each timer among the bound ones.
    pub ids: &'a [u32],
    /// Time of each timer.
    pub times: &'a [i64],
}

/// Due timers in order of (time, key), at most one per key. All columns have the same length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueTimers {
    /// Keys of the timers, hashed and distinct.
    pub keys: Keys,
    /// Index of each timer's key in `keys.column`.
    pub key_index: Vec<u32>,
    /// Position of each timer among the bound ones.
    pub timer_ids: Vec<u32>,
    /// Time that each timer was registered for.
    pub times: Vec<i64>,
}

/// A violated invariant of the host, or a damaged file; never the fault of a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// A key reached a subtask that does not own its key group.
    #[error(
        "operator \"{uid}\": a key of key group {group} reached a subtask that owns {}..={}; this is a bug in Regraft, please report it",
        range.first, range.last
    )]
    Misplaced {
        /// The operator.
        uid: OperatorUid,
        /// Key group of the key.
        group: u16,
        /// Key groups that the subtask owns.
        range: KeyGroupRange,
    },
    /// Rows contradict their description.
    #[error("operator \"{uid}\": rows of key group {group} cannot be loaded: {reason}")]
    Rows {
        /// The operator.
        uid: OperatorUid,
        /// Key group of the rows.
        group: u16,
        /// The contradiction, as a clause.
        reason: String,
    },
}

/// Keyed state and timers of one operator in one subtask.
pub trait StateBackend: Send {
    /// Binds the states and timers that the operator declares, by name and in order.
    ///
    /// A name that is not known yet is new and empty.
    /// States that are no longer declared are kept but not handed out, and undeclared timers are kept but do not fire.
    fn bind(&mut self, states: &[BoundState], timers: &[BoundTimer]);

    /// Looks up distinct, hashed keys and fills in the cells of the states that travel, leaving out values that have
    /// expired at `now`.
    ///
    /// Until the next `resolve`, [`access`](Self::access) reads the entries of these keys as of `now`.
    ///
    /// # Errors
    /// Returns [`BackendError::Misplaced`] if this backend does not own the key group of a key.
    fn resolve(&mut self, keys: &Keys, now: i64, cells: &mut Cells) -> Result<(), BackendError>;

    /// Applies the writes of a call.
    ///
    /// `keys` and `cells` must be those of the preceding `resolve`, and `now` the time of the call, from which the time
    /// to live of written values counts.
    fn apply(&mut self, keys: &Keys, cells: &Cells, now: i64, writes: Writes<'_>);

    /// Returns the access by which instances read states that do not travel, or `None` if no such state is bound.
    ///
    /// It is valid until the next [`bind`](Self::bind).
    fn access(&self) -> Option<Arc<dyn StateAccess>>;

    /// Returns the first timers that are due at `up_to`, in order of (time, key), or `None` if there are none.
    ///
    /// Returns at most `max` timers, and stops before the second timer of a key, so that all timers of a key fire in
    /// order.
    /// They stay pending until [`fired`](Self::fired).
    fn due_timers(&mut self, domain: TimeDomain, up_to: i64, max: usize) -> Option<DueTimers>;

    /// Returns the number of timers that are due at `up_to`.
    fn due_count(&self, domain: TimeDomain, up_to: i64) -> usize;

    /// Removes timers that have fired.
    ///
    /// Must be called before the writes of the call that they fired in are applied: a timer that registers itself again
    /// for the same time is a new one.
    fn fired(&mut self, due: &DueTimers);

    /// Returns the time of the first pending timer of a domain, among the timers that the operator declares.
    fn next_timer(&self, domain: TimeDomain) -> Option<i64>;

    /// Returns the time of the last pending timer of a domain, among the timers that the operator declares.
    fn last_timer(&self, domain: TimeDomain) -> Option<i64>;

    /// Returns the approximate memory of state and timers, in bytes. Takes time that grows with the number of key groups.
    fn bytes(&self) -> u64;

    /// Returns an upper bound of the bytes that the writes of a call would add, with what they take away where that is known.
    ///
    /// `keys` and `cells` must be those of the preceding `resolve`.
    fn growth(&self, keys: &Keys, cells: &Cells, writes: Writes<'_>) -> u64;

    /// Returns the number of keys that have any state. Timers are not counted.
    fn len(&self) -> usize;

    /// Returns true if no key has any state.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the key groups that this backend owns.
    fn range(&self) -> KeyGroupRange;

    /// Returns the keys, with their hashes, that have any state in the key group at `position` in the range.
    fn keys_of(&self, position: usize) -> Keys;

    /// Loads rows, as from a savepoint. State `i` of the rows is the bound state `i`.
    ///
    /// Later rows replace earlier ones, and a removed row removes.
    ///
    /// # Errors
    /// - [`BackendError::Misplaced`] if this backend does not own the key group of a key.
    /// - [`BackendError::Rows`] if the columns contradict each other, a key is of another key group than the rows
    ///   say, or an entry key is malformed.
    fn load(&mut self, rows: &StateRows) -> Result<(), BackendError>;

    /// Ends loading: every later write is a change.
    ///
    /// `round` is the completed round whose state was loaded, if the next increment may be relative to it.
    fn loaded(&mut self, round: Option<CheckpointId>);

    /// Marks the present state as that of a snapshot. No other snapshot may be in progress.
    ///
    /// With a `base`, the snapshot is to be an increment: the changes since the mark of that completed round.
    /// Returns `base` if it will be, and `None` if the snapshot will be full.
    #[must_use = "rows that are no increment must not be stored as one"]
    fn begin_snapshot(&mut self, round: CheckpointId, base: Option<CheckpointId>) -> Option<CheckpointId>;

    /// Returns the rows of the next key group as of the mark, for the states that were bound then.
    ///
    /// Key groups without rows are skipped. Returns `None` when all have been returned.
    fn next_snapshot_rows(&mut self) -> Option<Vec<StateRows>>;

    /// Records that the round is durable, so that it may be a base.
    fn completed(&mut self, round: CheckpointId);

    /// Records that the round was given up: it will not be a base, and its remaining rows are dropped.
    fn aborted(&mut self, round: CheckpointId);

    /// Returns true if the round can be the base of the next snapshot.
    fn can_base(&self, round: CheckpointId) -> bool;
}
