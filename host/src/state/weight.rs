//! The memory that rows take once they are loaded into a backend, by the constants with which backends count their state.

use super::blob::HEAD;
use super::entries::{ENTRY_BYTES, KEY_BYTES};
use super::table::{INLINE, SLOT_BYTES, SPILLED_BYTES};
use super::timers::TIMER_BYTES;

/// Kind of a row that is going to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// The value of a key.
    Value,
    /// An entry of a map or a list.
    Entry {
        /// True if the row before is of another key.
        is_first: bool,
    },
    /// A timer.
    Timer,
}

/// Returns the bytes that a row takes, at least, whose key, entry key and value have `bytes` bytes: in the columns that it is
/// read into, or in a backend, whichever is more. Half-empty tables and values of one key that share a slot are left out.
#[must_use]
pub const fn row_bytes(kind: RowKind, bytes: usize) -> u64 {
    let overhead = match kind {
        RowKind::Value if bytes + HEAD <= INLINE => return SLOT_BYTES as u64,
        RowKind::Value => SLOT_BYTES + SPILLED_BYTES,
        RowKind::Entry { is_first: true } => SLOT_BYTES + KEY_BYTES + ENTRY_BYTES,
        RowKind::Entry { is_first: false } => ENTRY_BYTES,
        RowKind::Timer => TIMER_BYTES,
    };
    (bytes as u64).saturating_add(overhead as u64)
}
