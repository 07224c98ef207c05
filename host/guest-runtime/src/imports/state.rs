//! The interface `state`: reads of keyed state that does not travel with the batch.
//!
//! Indices are checked here, so that an implementation of [`StateAccess`] is only asked for what there is. The time that
//! it takes is not counted as the guest's.

use std::sync::Arc;

use regraft_model::batch::BytesColumn;
use regraft_model::describe::{Description, StateKind};

use crate::bindings::regraft::operator::state::{self, StateError};
use crate::imports::GuestData;
use crate::limits::computed;
use crate::state_access::{Entries, ReadError, StateAccess, Values};

/// Properties of a declared state that the interface needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeclaredState {
    kind: StateKind,
    travels: bool,
}

impl DeclaredState {
    pub(crate) fn all(description: &Description) -> Arc<[Self]> {
        description
            .states
            .iter()
            .map(|state| Self {
                kind: state.kind,
                travels: state.travels,
            })
            .collect()
    }
}

/// Data of the interface.
pub(crate) struct StateImports {
    states: Arc<[DeclaredState]>,
    /// State that the present call may read, and its number of keys.
    access: Option<(Arc<dyn StateAccess>, u32)>,
    /// Error of a read of the present call, where it was not the guest's fault.
    pub(crate) failure: Option<String>,
}

impl StateImports {
    pub(crate) fn new(states: Arc<[DeclaredState]>) -> Self {
        Self {
            states,
            access: None,
            failure: None,
        }
    }

    /// Reads are possible from now on.
    pub(crate) fn install(&mut self, access: Arc<dyn StateAccess>, keys: u32) {
        self.access = Some((access, keys));
    }

    /// Reads are no longer possible.
    pub(crate) fn remove(&mut self) {
        self.access = None;
    }

    fn check(&self, state: u32, kinds: &[StateKind], keys: &[u32]) -> Result<Arc<dyn StateAccess>, StateError> {
        let (access, key_count) = self.access.as_ref().ok_or(StateError::OutsideCall)?;
        match self.states.get(state as usize) {
            Some(declared) if !declared.travels && kinds.contains(&declared.kind) => {}
            _ => return Err(StateError::UnknownState(state)),
        }
        match keys.iter().find(|key| *key >= key_count) {
            Some(&key) => Err(StateError::UnknownKey(key)),
            None => Ok(Arc::clone(access)),
        }
    }
}

const SINGLE: &[StateKind] = &[StateKind::Value, StateKind::Reducing, StateKind::Aggregating];

impl GuestData {
    fn read<R>(
        &mut self,
        state: u32,
        kinds: &[StateKind],
        keys: &[u32],
        read: impl FnOnce(&dyn StateAccess, usize) -> Result<R, ReadError>,
    ) -> wasmtime::Result<Result<R, StateError>> {
        let access = match self.state.check(state, kinds, keys) {
            Ok(access) => access,
            Err(error) => return Ok(Err(error)),
        };
        let started = computed();
        let answer = read(&*access, self.host_memory.column_max());
        self.deadline.answered(computed().saturating_sub(started));
        answer.map(Ok).map_err(|error| match error {
            ReadError::TooLarge => {
                self.host_memory.exceeded = true;
                wasmtime::Error::msg("the answer is too large")
            }
            ReadError::Failed(message) => {
                self.state.failure = Some(message.clone());
                wasmtime::Error::msg(message)
            }
        })
    }
}

impl state::Host for GuestData {
    fn value_get_many(&mut self, state: u32, keys: Vec<u32>) -> wasmtime::Result<Result<state::Found, StateError>> {
        let answer = self.read(state, SINGLE, &keys, |access, most| {
            access.value_get_many(state, &keys, most)
        })?;
        Ok(answer.map(found))
    }

    fn map_get_many(
        &mut self,
        state: u32,
        keys: Vec<u32>,
        entry_key_data: Vec<u8>,
        entry_key_ends: Vec<u32>,
    ) -> wasmtime::Result<Result<state::Found, StateError>> {
        let entry_keys = BytesColumn::checked(entry_key_data, entry_key_ends)
            .map_err(|text| wasmtime::Error::msg(format!("map-get-many: entry-key-ends: {text}")))?;
        if entry_keys.len() != keys.len() {
            let (found, expected) = (entry_keys.len(), keys.len());
            wasmtime::bail!("map-get-many: entry-key-ends has {found} entries: expected {expected}, as many as keys");
        }
        let answer = self.read(state, &[StateKind::Map], &keys, |access, most| {
            access.map_get_many(state, &keys, &entry_keys, most)
        })?;
        Ok(answer.map(found))
    }

    fn map_scan(
        &mut self,
        state: u32,
        key: u32,
        after: Option<Vec<u8>>,
        limit_bytes: u32,
    ) -> wasmtime::Result<Result<state::Entries, StateError>> {
        let after = after.as_deref();
        let answer = self.read(state, &[StateKind::Map], &[key], |access, most| {
            access.map_scan(state, key, after, limit_bytes, most)
        })?;
        Ok(answer.map(entries))
    }

    fn list_scan(
        &mut self,
        state: u32,
        key: u32,
        first: u32,
        limit_bytes: u32,
    ) -> wasmtime::Result<Result<state::Values, StateError>> {
        let answer = self.read(state, &[StateKind::List], &[key], |access, most| {
            access.list_scan(state, key, first, limit_bytes, most)
        })?;
        Ok(answer.map(values))
    }
}

fn found(found: Values) -> state::Found {
    state::Found {
        present: found.present,
        data: found.values.data,
        ends: found.values.ends,
    }
}

fn values(values: BytesColumn) -> state::Values {
    state::Values {
        data: values.data,
        ends: values.ends,
    }
}

fn entries(entries: Entries) -> state::Entries {
    state::Entries {
        key_data: entries.keys.data,
        key_ends: entries.keys.ends,
        value_data: entries.values.data,
        value_ends: entries.values.ends,
        more: entries.more,
    }
}
