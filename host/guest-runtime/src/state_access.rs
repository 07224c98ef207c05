//! Reads of keyed state that does not travel with the batch.
//!
//! The host installs an implementation for an instance. It is reached only during calls that have keys,
//! and only with a state that is declared, does not travel and is of the right kind, and with keys of the call.

use regraft_model::batch::BytesColumn;

/// Values in the order they were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// The values; empty bytes where there is none.
    pub values: BytesColumn,
    /// For each 1 where there is a value, 0 where there is none.
    pub present: Vec<u8>,
}

/// Entries of one map, in order of the map key's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// The map keys.
    pub keys: BytesColumn,
    /// Their values.
    pub values: BytesColumn,
    /// True if there are more after the last one.
    pub more: bool,
}

/// Reason why a read has no answer. It ends the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The answer is larger than the host may hold for the call.
    #[error("the answer is larger than the host may hold for the call")]
    TooLarge,
    /// The state could not be read, which is not the guest's fault.
    #[error("{0}")]
    Failed(String),
}

impl From<String> for ReadError {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

/// Keyed state as it was before the call. `state` is the number of a declaration, `key` an index into the call's keys.
///
/// No method makes an answer of much more than `bytes_max` bytes.
///
/// # Errors
/// Each method returns [`ReadError::TooLarge`] instead of such an answer.
pub trait StateAccess: Send + Sync {
    /// Values of a value state, one for each key.
    fn value_get_many(&self, state: u32, keys: &[u32], bytes_max: usize) -> Result<Values, ReadError>;

    /// Values of a map state, one for each pair of a key and a map key. Both have the same length.
    fn map_get_many(
        &self,
        state: u32,
        keys: &[u32],
        entry_keys: &BytesColumn,
        bytes_max: usize,
    ) -> Result<Values, ReadError>;

    /// Entries of one key's map after `after` (from the start where there is none), until `limit_bytes` bytes are reached:
    /// at least one, where there is any.
    fn map_scan(
        &self,
        state: u32,
        key: u32,
        after: Option<&[u8]>,
        limit_bytes: u32,
        bytes_max: usize,
    ) -> Result<Entries, ReadError>;

    /// Items of one key's list from index `first` of those that have not expired, until `limit_bytes` bytes of values are
    /// reached: at least one, where there is any. An answer of fewer bytes is the last.
    fn list_scan(
        &self,
        state: u32,
        key: u32,
        first: u32,
        limit_bytes: u32,
        bytes_max: usize,
    ) -> Result<BytesColumn, ReadError>;
}
