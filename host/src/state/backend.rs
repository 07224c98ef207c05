//! The contract of a keyed-state backend.
//!
//! A backend belongs to one subtask and one operator, and is used by that subtask's thread alone. States and timers are
//! addressed by name: an operator binds the names it declares, in order, and may bind others after an upgrade.

use std::sync::Arc;

use regraft_guest_runtime::call::EntryWrites;
use regraft_guest_runtime::state_access::StateAccess;
use regraft_model::batch::{BytesColumn, Keys};
use regraft_model::describe::{Description, StateKind};
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::key_group::KeyGroupRange;
pub use regraft_model::time::TimeDomain;

use super::rows::StateRows;

/// A state as an operator declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundState {
    /// What it is addressed by.
    pub name: String,
    /// Its kind. To a backend, reducing and aggregating states are value states.
    pub kind: StateKind,
    /// Whether its values are cells of each call.
    pub travels: bool,
    /// How long a value lives after it was written, in milliseconds of processing time.
    pub ttl_ms: Option<u64>,
}

/// A timer as an operator declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundTimer {
    /// Part of a timer's identity.
    pub name: String,
    /// What it waits for.
    pub domain: TimeDomain,
}

/// What an operator declares, as a backend is told.
#[must_use]
pub fn bindings(description: &Description) -> (Vec<BoundState>, Vec<BoundTimer>) {
    let state = |state: &regraft_model::describe::StateDescription| BoundState {
        name: state.name.clone(),
        kind: state.kind,
        travels: state.travels,
        ttl_ms: state.ttl_ms,
    };
    // Admission has refused any other word.
    let timer = |timer: &regraft_model::describe::TimerDescription| BoundTimer {
        name: timer.name.clone(),
        domain: TimeDomain::named(&timer.time).unwrap_or(TimeDomain::Event),
    };
    (
        description.states.iter().map(state).collect(),
        description.timers.iter().map(timer).collect(),
    )
}

/// The cells of a call: for each bound state that travels and each key its encoded value. Cell = state × keys + key, where
/// only states that travel are counted.
#[derive(Debug, Default)]
pub struct Cells {
    /// Encoded values; empty where there is none.
    pub values: BytesColumn,
    /// The schema each was written by; 0 where there is none.
    pub schemas: Vec<u16>,
    /// Where the backend found each key; only for the backend that filled it in.
    pub places: Vec<u64>,
}

/// What a call wrote. Cells are numbered as in [`Cells`].
#[derive(Debug, Clone, Copy)]
pub struct Writes<'a> {
    /// Written cells, each once.
    pub cells: &'a [u32],
    /// Their values.
    pub values: &'a BytesColumn,
    /// Cleared cells; none of them is written too.
    pub cleared: &'a [u32],
    /// Writes to states that do not travel, in order. States are numbered as they are bound.
    pub entries: Option<&'a EntryWrites>,
    /// Timer operations.
    pub timers: TimerOps<'a>,
    /// For each bound state the schema number that its values are written in.
    pub schemas: &'a [u16],
}

/// Timer operations in order. All columns have the same length.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimerOps<'a> {
    /// `TIMER_REGISTER` or `TIMER_DELETE` of the guest runtime's `call`.
    pub ops: &'a [u8],
    /// The index of the key of each.
    pub keys: &'a [u32],
    /// The position of each among the bound timers.
    pub ids: &'a [u32],
    /// The time of each.
    pub times: &'a [i64],
}

/// Timers that are due, in order of (time, key); no key twice. The columns have the same length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueTimers {
    /// Their keys, hashed; distinct.
    pub keys: Keys,
    /// The index of each timer's key in `keys.column`.
    pub key_index: Vec<u32>,
    /// The position of each among the bound timers.
    pub timer_ids: Vec<u32>,
    /// What they were registered for.
    pub times: Vec<i64>,
}

/// A broken rule inside the host, or a damaged file: never the guest's fault.
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
        /// The key's group.
        group: u16,
        /// What the subtask owns.
        range: KeyGroupRange,
    },
    /// Rows that are not what they are said to be.
    #[error("operator \"{uid}\": rows of key group {group} cannot be loaded: {reason}")]
    Rows {
        /// The operator.
        uid: OperatorUid,
        /// Their key group.
        group: u16,
        /// What is wrong.
        reason: String,
    },
}

/// Keyed state and timers of one operator in one subtask.
pub trait StateBackend: Send {
    /// Says which states and timers the operator declares, by name, in order. A name not known yet is new and empty. What
    /// is no longer declared stays, but is not handed out; its timers do not fire.
    fn bind(&mut self, states: &[BoundState], timers: &[BoundTimer]);

    /// Looks up distinct, hashed keys and fills in the cells of the states that travel, without what has expired at `now`.
    /// These keys are the ones that [`access`](Self::access) reads by, at this `now`, until the next call.
    ///
    /// # Errors
    /// [`BackendError::Misplaced`] where a key does not belong here.
    fn resolve(&mut self, keys: &Keys, now: i64, cells: &mut Cells) -> Result<(), BackendError>;

    /// Applies all that a call wrote. `keys` and `cells` are those of the `resolve` just before, `now` that of the call: what
    /// is written lives from then on.
    fn apply(&mut self, keys: &Keys, cells: &Cells, now: i64, writes: Writes<'_>);

    /// What instances read states by that do not travel; none where there is no such state. It is good until the next
    /// [`bind`](Self::bind).
    fn access(&self) -> Option<Arc<dyn StateAccess>>;

    /// The first due timers in order of (time, key): at most `max`, and none behind a second timer of one key, so that
    /// all fire in order. They stay until [`fired`](Self::fired). None when nothing is due at `up_to`.
    fn due_timers(&mut self, domain: TimeDomain, up_to: i64, max: usize) -> Option<DueTimers>;

    /// These timers have fired. To be called before the writes of that call are applied: a timer that registers itself for
    /// the same time again is a new one.
    fn fired(&mut self, due: &DueTimers);

    /// The time of the first pending timer of a domain that the operator declares.
    fn next_timer(&self, domain: TimeDomain) -> Option<i64>;

    /// How many keys have any state; timers are none.
    fn len(&self) -> usize;

    /// Whether there is no key.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key groups held.
    fn range(&self) -> KeyGroupRange;

    /// The keys with any state of the key group at `position` in the range, hashed.
    fn keys_of(&self, position: usize) -> Keys;

    /// Takes rows in, as from a savepoint. State `i` of the rows is the bound state `i`. Later rows replace earlier ones; a
    /// removed row removes.
    ///
    /// # Errors
    /// [`BackendError::Misplaced`] where a key does not belong here, [`BackendError::Rows`] where columns do not fit.
    fn load(&mut self, rows: &StateRows) -> Result<(), BackendError>;

    /// All rows are in: what comes now is a change. `round`: the completed round whose state this is, where the next
    /// increment may be relative to it.
    fn loaded(&mut self, round: Option<CheckpointId>);

    /// Marks the state as it is now. No snapshot may be under way. `base`: only what has changed since the mark of that
    /// completed round is wanted. Answers `base` where it can be given so, and otherwise none: then all is handed out.
    #[must_use = "rows that are no increment must not be stored as one"]
    fn begin_snapshot(&mut self, round: CheckpointId, base: Option<CheckpointId>) -> Option<CheckpointId>;

    /// The rows of the next key group as they were at the mark, for the states that were bound then; none when all have
    /// been handed out. Key groups without rows are skipped.
    fn next_snapshot_rows(&mut self) -> Option<Vec<StateRows>>;

    /// The round is durable: it may be a base from now on.
    fn completed(&mut self, round: CheckpointId);

    /// The round was given up: it will be no base, and rows of it that were not handed out yet are dropped.
    fn aborted(&mut self, round: CheckpointId);

    /// Whether the round can be the base of the next snapshot.
    fn can_base(&self, round: CheckpointId) -> bool;
}
