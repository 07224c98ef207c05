//! Reads of state that does not travel: by imports on wasm, natively by the [`StateReads`] that the driver has set.

use super::call::Call;
pub(super) use crate::bindings::regraft::operator::state::{Entries, Found};
pub(super) use crate::bindings::regraft::operator::types::Values;

/// Stands in for the interface `state` natively. All reads see the state as it was before the call; a key is an
/// index into the call's keys, a state the place of its declaration.
///
/// # Errors
///
/// A text where the state cannot be read: the call fails.
#[cfg(not(target_family = "wasm"))]
pub trait StateReads: Send + Sync {
    /// Values of a value state that does not travel, one for each key.
    fn value_get_many(&self, state: u32, keys: &[u32]) -> Result<Found, String>;

    /// Values of a map state, one for each pair of a key and a map key.
    fn map_get_many(
        &self,
        state: u32,
        keys: &[u32],
        entry_key_data: &[u8],
        entry_key_ends: &[u32],
    ) -> Result<Found, String>;

    /// Entries of one key's map in order of the map key's bytes, after `after`, until `limit_bytes` bytes are reached: at
    /// least one, where there is any.
    fn map_scan(&self, state: u32, key: u32, after: Option<&[u8]>, limit_bytes: u32) -> Result<Entries, String>;

    /// Items of one key's list from index `first`, until `limit_bytes` bytes of values are reached: at least one, where
    /// there is any. An answer of fewer bytes is the last.
    fn list_scan(&self, state: u32, key: u32, first: u32, limit_bytes: u32) -> Result<Values, String>;
}

#[cfg(target_family = "wasm")]
mod imports {
    //! The imports themselves. Their errors are mistakes of this crate, not of the data.
    use super::{Call, Entries, Found, Values};
    use crate::bindings::regraft::operator::state;

    #[cold]
    fn refused(error: state::StateError) -> String {
        match error {
            state::StateError::UnknownState(_) => "the host refuses to read it: it is not known, or of another kind",
            state::StateError::UnknownKey(_) => "the host refuses to read it: there is no such key in the call",
            state::StateError::OutsideCall => "the host refuses to read it outside of a call",
        }
        .into()
    }

    pub(crate) fn value_get_many(_: &Call, state: u32, keys: &[u32]) -> Result<Found, String> {
        state::value_get_many(state, keys).map_err(refused)
    }

    pub(crate) fn map_get_many(
        _: &Call,
        state: u32,
        keys: &[u32],
        entry_key_data: &[u8],
        entry_key_ends: &[u32],
    ) -> Result<Found, String> {
        state::map_get_many(state, keys, entry_key_data, entry_key_ends).map_err(refused)
    }

    pub(crate) fn map_scan(
        _: &Call,
        state: u32,
        key: u32,
        after: Option<&[u8]>,
        limit_bytes: u32,
    ) -> Result<Entries, String> {
        state::map_scan(state, key, after, limit_bytes).map_err(refused)
    }

    pub(crate) fn list_scan(_: &Call, state: u32, key: u32, first: u32, limit_bytes: u32) -> Result<Values, String> {
        state::list_scan(state, key, first, limit_bytes).map_err(refused)
    }
}

#[cfg(not(target_family = "wasm"))]
mod imports {
    //! The reads that the driver has set.
    use super::{Call, Entries, Found, StateReads, Values};
    use std::sync::Arc;

    fn reads(call: &Call) -> Result<Arc<dyn StateReads>, String> {
        call.reads()
            .ok_or_else(|| "it does not travel, and the instance was given nothing to read it from".into())
    }

    pub(crate) fn value_get_many(call: &Call, state: u32, keys: &[u32]) -> Result<Found, String> {
        reads(call)?.value_get_many(state, keys)
    }

    pub(crate) fn map_get_many(
        call: &Call,
        state: u32,
        keys: &[u32],
        entry_key_data: &[u8],
        entry_key_ends: &[u32],
    ) -> Result<Found, String> {
        reads(call)?.map_get_many(state, keys, entry_key_data, entry_key_ends)
    }

    pub(crate) fn map_scan(
        call: &Call,
        state: u32,
        key: u32,
        after: Option<&[u8]>,
        limit_bytes: u32,
    ) -> Result<Entries, String> {
        reads(call)?.map_scan(state, key, after, limit_bytes)
    }

    pub(crate) fn list_scan(call: &Call, state: u32, key: u32, first: u32, limit_bytes: u32) -> Result<Values, String> {
        reads(call)?.list_scan(state, key, first, limit_bytes)
    }
}

pub(super) use imports::{list_scan, map_get_many, map_scan, value_get_many};
