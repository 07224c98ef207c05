//! State rows ↔ Parquet: the only user of the `parquet` crate.
//!
//! *Canonical* files have typed columns that ordinary tools query; *native* files carry the bytes as they are, with the number
//! of each value's schema. Both are ordered by key group, then by key, then by entry (of a list, a map, timers), and row groups
//! are cut at key-group bounds, so that a restore reads only the key groups it needs. What is read back are the very bytes that
//! were written.

use std::ops::Range;

use regraft_model::key_group::KeyGroupRange;
use regraft_model::schema::{Field, Type};
use regraft_model::value::ValueError;
use serde::{Deserialize, Serialize};

pub use crate::state::rows::{RowsOf, StateRows};

mod columns;
mod cells;
mod chunks;
mod parts;
mod body;
mod write;
mod rebuild;
mod read;

pub use parts::FileParts;
pub use read::read_state_file;
pub use write::{EncodedStateFile, StateFileWriter};

#[cfg(test)]
mod tests;

/// How a state file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Typed columns.
    Canonical,
    /// Bytes.
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

/// What a row has beside its key, so that one key has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries<'a> {
    /// Nothing: one row for each key.
    None,
    /// The index of a list's item.
    List,
    /// A map's key, of this type.
    Map(&'a Type),
    /// Time and name of a timer. Timers have no value.
    Timers,
    /// Nothing: items of operator state, whose key is their position. They are in order of it.
    Items,
}

impl Entries<'_> {
    /// Whether rows have an entry key.
    #[must_use]
    pub const fn have_keys(self) -> bool {
        matches!(self, Self::List | Self::Map(_) | Self::Timers)
    }
}

/// As people call it.
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

/// What has to be known to write or read a state file.
#[derive(Debug, Clone, Copy)]
pub struct StateFileSpec<'a> {
    /// Its layout.
    pub layout: Layout,
    /// The state's name; a scalar value's column has it.
    pub state: &'a str,
    /// The key; a scalar key's column has its name.
    pub key: &'a Field,
    /// What a row has beside its key.
    pub entries: Entries<'a>,
    /// The type of the values.
    pub value: &'a Type,
    /// The number of that type. Canonical: only values of this number are written, and those read get it. Native: not used.
    pub schema: u16,
    /// Whether to write a column for when each row expires. Reading looks whether there is one.
    pub expires: bool,
}

/// A part of a file that can be read and checked alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// Of its bytes, as [`checksum`] makes it.
    pub checksum: String,
}

impl Place {
    /// From its first byte to its last.
    #[must_use]
    pub const fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.bytes)
    }
}

/// XXH3-64 as 16 hex digits: how the content of every file of a savepoint is recorded.
#[must_use]
pub fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes))
}

/// Key groups that stand together in one row group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupExtent {
    /// The first key group with rows in it.
    pub first_group: u16,
    /// The last key group with rows in it.
    pub last_group: u16,
    /// Position of the row group in the file.
    pub row_group: u32,
    /// How many rows.
    pub rows: u64,
    /// Where the row group is in the file; none: the file can only be read as a whole (format version 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl GroupExtent {
    /// The key groups from its first to its last.
    #[must_use]
    pub const fn range(&self) -> KeyGroupRange {
        KeyGroupRange {
            first: self.first_group,
            last: self.last_group,
        }
    }
}

/// Why rows could not be written or read. The caller knows the path and adds it.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// Parquet's own failure.
    #[error("not a readable Parquet state file: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// A column is not what the schema says.
    #[error("column {column:?}: expected {expected}, found {found}")]
    Column {
        /// Its name.
        column: String,
        /// By the schema.
        expected: String,
        /// In the file.
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
        /// What is wrong.
        source: ValueError,
    },
    /// A map's key, a list's index or a timer is not what it should be.
    #[error("state {state:?}: the entry of a row of key group {group} is not a {expected}: {source}")]
    Entry {
        /// The state.
        state: String,
        /// The key group.
        group: u16,
        /// The type.
        expected: String,
        /// What is wrong.
        source: ValueError,
    },
    /// A key, or a map's key, that has no exact text.
    #[error(
        "state {state:?}: {part} of key group {group} cannot be written as JSON without loss. Use --type native for this savepoint."
    )]
    InexactKey {
        /// The state.
        state: String,
        /// Which key.
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
        /// What is wrong.
        source: ValueError,
    },
    /// Rows were given in the wrong shape or order.
    #[error("state {state:?}: {reason}")]
    Order {
        /// The state.
        state: String,
        /// What is wrong.
        reason: String,
    },
}
