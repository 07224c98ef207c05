//! Entries of one key group on their way to or from a file: columns, as everywhere.

use regraft_model::batch::BytesColumn;
use regraft_model::key_group::KeyGroup;

/// All entries of one key group of one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRows {
    /// The key group.
    pub group: KeyGroup,
    /// The keys, distinct, in no particular order.
    pub keys: BytesColumn,
    /// One for each of the operator's states, each as long as `keys`.
    pub states: Vec<StateColumn>,
}

/// The values of one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateColumn {
    /// Encoded values; empty where the key has none.
    pub values: BytesColumn,
    /// The number of the schema each was written by; 0 where the key has no value.
    pub schemas: Vec<u16>,
}
