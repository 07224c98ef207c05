//! Conversion between state rows and Parquet: the only user of the `parquet` crate.
//!
//! *Canonical* files have typed columns that ordinary tools can query.
//! *Native* files have the encoded bytes with the number of each value's schema.
//! Both are ordered by key group, then by key, then by entry (of a list, a map, timers).
//! Row groups end at key-group bounds, so that a restore reads only the key groups it needs.
//! Reading returns exactly the bytes that were written.

use std::ops::Range;

use regraft_model::key_group::KeyGroupRange;
use regraft_model::schema::{Field, Type};
use regraft_model::value::ValueError;
use serde::{Deserialize, Serialize};

pub use crate::state::rows::{RowsOf, StateRows};

mod columns;
mod cells;
mod thrift;
mod pages;
mod footer;
mod chunks;
mod parts;
mod body;
mod write;
mod rebuild;
mod read;

pub use columns::column_count;
pub use parts::FileParts;
pub use read::{ROW_GROUP_PACKED_MAX, read_row_group, read_state_file};
pub use write::{EncodedStateFile, StateFileWriter};

#[cfg(test)]
mod tests;

/// Size of keys, entry keys and values above which a row group ends within a key group, in bytes.
pub const ROW_GROUP_BYTES_MAX: usize = 256 << 20;

/// Bytes of one cell in memory when it is read: a slice of its page, and its level.
const CELL_BYTES: u64 = 34;

/// The layout of a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Typed columns.
    Canonical,
    /// Encoded bytes.
    Native,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Canonical => "canonical",
            Self::Native => "native",
        })
    }
}

/// The part of a row beside key and value, by which one key has several rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries<'a> {
    /// None: one row per key.
    None,
    /// The index of a list's item.
    List,
    /// A map's key, of this type.
    Map(&'a Type),
    /// Time and name of a timer. Timers have no value.
    Timers,
    /// None: items of operator state, whose key is their position, which also orders them.
    Items,
}

impl Entries<'_> {
    /// Returns true if rows have an entry key.
    #[must_use]
    pub const fn have_keys(self) -> bool {
        matches!(self, Self::List | Self::Map(_) | Self::Timers)
    }
}

/// Writes the name used in messages.
impl std::fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None | Self::Items => f.write_str("row without an entry"),
            Self::List => f.write_str("list index"),
            Self::Map(key) => write!(f, "map key {key}"),
            Self::Timers => f.write_str("timer"),
        }
    }
}

/// The description needed to write or read a state file.
#[derive(Debug, Clone, Copy)]
pub struct StateFileSpec<'a> {
    /// Its layout.
    pub layout: Layout,
    /// Name of the state, which is also the column of a scalar value.
    pub state: &'a str,
    /// The key; its name is also the column of a scalar key.
    pub key: &'a Field,
    /// The part of a row beside key and value.
    pub entries: Entries<'a>,
    /// Type of the values.
    pub value: &'a Type,
    /// Schema number of that type.
    /// Canonical: only values with this number are written, and values that are read get it.
    /// Native: not used.
    pub schema: u16,
    /// True to write a column with times of expiry. Reading finds out if the file has one.
    pub expires: bool,
}

/// A part of a file that can be read and checked alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// [`checksum`] of the part.
    pub checksum: String,
}

impl Place {
    /// Returns the range of its bytes.
    #[must_use]
    pub const fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.bytes)
    }
}

/// Returns the XXH3-64 hash as 16 hex digits, by which the content of every file of a savepoint is recorded.
#[must_use]
pub fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes))
}

/// A row group and its range of key groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupExtent {
    /// First key group with rows in it.
    pub first_group: u16,
    /// Last key group with rows in it, inclusive.
    pub last_group: u16,
    /// Index of the row group in the file.
    pub row_group: u32,
    /// Number of rows.
    pub rows: u64,
    /// Place of the row group in the file; `None` if the file can only be read as a whole (format version 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl GroupExtent {
    /// Returns the range of its key groups.
    #[must_use]
    pub const fn range(&self) -> KeyGroupRange {
        KeyGroupRange {
            first: self.first_group,
            last: self.last_group,
        }
    }
}

/// Rows could not be written or read. The caller knows the path and adds it.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// Parquet failed.
    #[error("not a readable Parquet state file: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Writing the file was cancelled.
    #[error("writing the state file was cancelled")]
    Cancelled,
    /// A column does not match the schema.
    #[error("column {column:?}: expected {expected}, found {found}")]
    Column {
        /// Name of the column.
        column: String,
        /// Expected type, place or number of rows.
        expected: String,
        /// Actual type, place or number of rows.
        found: String,
    },
    /// A key is not of the declared type.
    #[error("state {state:?}: a key of key group {group} is not a {expected}: {source}")]
    Key {
        /// The state.
        state: String,
        /// The key group.
        group: u16,
        /// The type.
        expected: String,
        /// The mismatch.
        source: ValueError,
    },
    /// A map's key, a list's index or a timer is malformed.
    #[error("state {state:?}: the entry of a row of key group {group} is not a {expected}: {source}")]
    Entry {
        /// The state.
        state: String,
        /// The key group.
        group: u16,
        /// The type.
        expected: String,
        /// The mismatch.
        source: ValueError,
    },
    /// A key, or a map's key, has no exact text.
    #[error(
        "state {state:?}: {part} of key group {group} cannot be written as JSON without loss. Use --type native for this savepoint."
    )]
    InexactKey {
        /// The state.
        state: String,
        /// `a key` or `a map key`.
        part: &'static str,
        /// The key group.
        group: u16,
    },
    /// A value is not of the declared type.
    #[error("state {state:?}: a value of key group {group} is not a {expected}: {source}")]
    Value {
        /// The state.
        state: String,
        /// The key group.
        group: u16,
        /// The type.
        expected: String,
        /// The mismatch.
        source: ValueError,
    },
    /// A row group, or all that is read, takes more memory than it may.
    #[error("state {state:?}: {reason}")]
    TooLarge {
        /// The state.
        state: String,
        /// The reason, as a clause.
        reason: String,
    },
    /// Rows have the wrong shape or order.
    #[error("state {state:?}: {reason}")]
    Order {
        /// The state.
        state: String,
        /// The mismatch, as a clause.
        reason: String,
    },
}
