//! The contract of a keyed-state backend.
//!
//! A backend belongs to one subtask and one operator, and is used by that subtask's thread alone. States are addressed by
//! name: an operator binds the names it declares, in the order of its cells, and may bind others after an upgrade.

use regraft_model::batch::{BytesColumn, Keys};
use regraft_model::id::OperatorUid;
use regraft_model::key_group::KeyGroupRange;

use super::rows::KeyedRows;

/// The cells of a call: for each bound state and each key its encoded value. Cell = state × keys + key.
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
    /// Written cells.
    pub cells: &'a [u32],
    /// Their values.
    pub values: &'a BytesColumn,
    /// Cleared cells.
    pub cleared: &'a [u32],
    /// For each bound state the schema number that its values are written in.
    pub schemas: &'a [u16],
}

/// A broken rule inside the host: never the user's fault.
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
}

/// Keyed state of one operator in one subtask.
pub trait StateBackend: Send {
    /// Says which states the cells stand for, by name, in order. A name not known yet is a new, empty state.
    fn bind(&mut self, states: &[String]);

    /// Looks up distinct, hashed keys and fills in their cells.
    ///
    /// # Errors
    /// [`BackendError::Misplaced`] where a key does not belong here.
    fn resolve(&mut self, keys: &Keys, cells: &mut Cells) -> Result<(), BackendError>;

    /// Applies what a call wrote. `keys` and `cells` are those of the `resolve` just before.
    fn apply(&mut self, keys: &Keys, cells: &Cells, writes: Writes<'_>);

    /// How many keys there are.
    fn len(&self) -> usize;

    /// Whether there is no key.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key groups held.
    fn range(&self) -> KeyGroupRange;

    /// The keys of the key group at `position` in the range, hashed.
    fn keys_of(&self, position: usize) -> Keys;

    /// Takes entries in, as from a savepoint. State `i` of the rows is the bound state `i`.
    ///
    /// # Errors
    /// [`BackendError::Misplaced`] where a key does not belong here.
    fn load(&mut self, rows: &KeyedRows) -> Result<(), BackendError>;

    /// Marks the state as it is now. No snapshot may be under way.
    fn begin_snapshot(&mut self);

    /// The rows of the next key group as they were at the mark, for the states that were bound then; none when all have
    /// been handed out.
    fn next_snapshot_rows(&mut self) -> Option<KeyedRows>;
}
