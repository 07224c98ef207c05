//! Writes the state of one round as state files: full ones, or increments that follow those of an earlier checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regraft_guest_runtime::call::OperatorState;
use regraft_model::id::{CheckpointId, OperatorUid, SubtaskIndex};
use regraft_model::key_group::{KeyGroup, KeyGroupRange};
use regraft_model::schema::{Field, Type};

use super::chain::LONGEST;
use super::describe::{TIMERS, state_entry};
use super::facts::StoreFailure;
use super::merge::Merged;
use crate::dataflow::control::{KeyedSnapshot, Positions};
use crate::environment::cancel::Cancellation;
use crate::environment::{Environment, run_computing};
use crate::savepoint::metadata::{Metadata, OperatorEntry, SavedStateKind, StateEntry, StateFile};
use crate::savepoint::positions;
use crate::savepoint::publish::{state_file, write_file};
use crate::savepoint::rows::{EncodedStateFile, Layout, RowsError, RowsOf, StateFileSpec, StateFileWriter, StateRows};
use crate::state::rows::split_timer_entry;
use crate::storage::paths::StateFileName;
use crate::storage::{Storage, paths};

/// Key groups of operator state and positions: they are in key group 0, no matter which range their subtask owns.
pub(super) const ITEMS: KeyGroupRange = KeyGroupRange { first: 0, last: 0 };

/// The destination of a round's state, and the files that it can build on.
pub(super) struct Target<'a> {
    pub(super) environment: &'a dyn Environment,
    /// Asked between two files, and within each.
    pub(super) cancellation: &'a Cancellation,
    /// Directory of the snapshot.
    pub(super) own: &'a Storage,
    pub(super) layout: Layout,
    /// Destination of keyed state, for a checkpoint.
    pub(super) shared: Option<Shared<'a>>,
}

/// The files that a checkpoint shares with others of its job.
pub(super) struct Shared<'a> {
    pub(super) storage: &'a Storage,
    /// Base of increments.
    pub(super) base: Option<&'a Metadata>,
    /// Merged neighbours of chains.
    pub(super) merged: &'a [Arc<Merged>],
    /// Called with the name of each file before it is written.
    pub(super) writes: &'a (dyn Fn(&str) + Send + Sync),
}

/// One subtask of an operator.
pub(super) struct Part<'a> {
    pub(super) uid: &'a OperatorUid,
    pub(super) subtask: SubtaskIndex,
    pub(super) range: KeyGroupRange,
}

/// Size of the files written for a subtask, and of all files that it refers to, in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Written {
    pub(super) new: u64,
    pub(super) all: u64,
}

impl Written {
    pub(super) const fn add(&mut self, other: Self) {
        self.new += other.new;
        self.all += other.all;
    }
}

impl Target<'_> {
    /// Writes the keyed states and timers of a subtask, as one file for each that has rows.
    pub(super) async fn keyed(
        &self,
        part: &Part<'_>,
        snapshot: KeyedSnapshot,
        entry: &mut OperatorEntry,
    ) -> Result<Written, StoreFailure> {
        let rows: Arc<[StateRows]> = snapshot.rows.into();
        let base = match snapshot.base {
            None => None,
            Some(base) => Some(self.base_entry(part, base)?),
        };
        let mut written = Written::default();
        let is_state = |state: &&StateEntry| state.kind.is_keyed() && state.kind != SavedStateKind::Timers;
        let names = entry.states.iter().filter(is_state).map(|state| state.name.clone());
        let positions: BTreeMap<String, u16> = names.zip(0..).collect();
        let expiring = expiring(entry);
        for state in entry.states.iter_mut().filter(|state| state.kind.is_keyed()) {
            let of = match state.kind {
                SavedStateKind::Timers => RowsOf::Timers,
                _ => RowsOf::State(positions.get(&state.name).copied().unwrap_or(u16::MAX)),
            };
            let expires = expiring.contains(&state.name) && of != RowsOf::Timers;
            written.add(self.state(part, state, (of, expires), &rows, base).await?);
        }
        Ok(written)
    }

    fn base_entry(&self, part: &Part<'_>, id: CheckpointId) -> Result<&OperatorEntry, StoreFailure> {
        let base = self.shared.as_ref().and_then(|shared| shared.base);
        let found = base.filter(|base| base.checkpoint_id == id);
        found
            .and_then(|base| base.operator(part.uid.as_str()))
            .ok_or_else(|| StoreFailure::Base {
                uid: part.uid.clone(),
                subtask: part.subtask.0,
                base: id,
            })
    }

    async fn state(
        &self,
        part: &Part<'_>,
        state: &mut StateEntry,
        (of, expires): (RowsOf, bool),
        rows: &Arc<[StateRows]>,
        base: Option<&OperatorEntry>,
    ) -> Result<Written, StoreFailure> {
        let mut chain = match base {
            Some(base) => self.chain(part, state, base),
            None => vec![],
        };
        if of == RowsOf::Timers {
            note_timers(state, rows, &chain, base);
        }
        let wanted = rows.iter().filter(|rows| rows.of == of).any(|rows| !rows.is_empty());
        let mut written = Written::default();
        if wanted {
            let encoded = self.encode(part, state, (of, expires), rows.clone()).await?;
            if encoded.entries > 0 {
                let file = self.put(part, state, encoded, base.is_some()).await?;
                written.new = file.bytes;
                chain.push(file);
            }
        }
        written.all = chain.iter().map(|file| file.bytes).sum();
        if chain.is_empty() && state.kind.is_keyed() {
            state.empty.push(part.range);
        }
        state.files.extend(chain);
        Ok(written)
    }

    /// Returns the files of this subtask in the base of the rows, with neighbours replaced by their merged files.
    fn chain(&self, part: &Part<'_>, state: &StateEntry, base: &OperatorEntry) -> Vec<StateFile> {
        let same = |saved: &&StateEntry| saved.name == state.name && saved.kind == state.kind;
        let files = base.states.iter().filter(same).flat_map(|saved| &saved.files);
        let mut chain: Vec<StateFile> = files.filter(|file| file.subtask == part.subtask).cloned().collect();
        for merged in self.shared.iter().flat_map(|shared| shared.merged) {
            if merged.is_of(part.uid, part.subtask, state) {
                merged.replace_in(&mut chain);
            }
        }
        chain
    }

    /// Encodes rows off the I/O threads, since that computes.
    async fn encode(
        &self,
        part: &Part<'_>,
        state: &StateEntry,
        (of, expires): (RowsOf, bool),
        rows: Arc<[StateRows]>,
    ) -> Result<EncodedStateFile, StoreFailure> {
        let (like, layout) = (
            StateEntry {
                files: vec![],
                ..state.clone()
            },
            self.layout,
        );
        let cancellation = self.cancellation.clone();
        let encode = move || encode(&rows, (of, expires), &like, layout, cancellation);
        let encoded = run_computing(self.environment, encode).await;
        let encoded = encoded.map_err(|error| StoreFailure::Encode(error.to_string()))?;
        encoded.map_err(|error| match error {
            RowsError::Cancelled => StoreFailure::Cancelled,
            error => StoreFailure::Rows {
                uid: part.uid.clone(),
                error,
            },
        })
    }

    async fn put(
        &self,
        part: &Part<'_>,
        state: &StateEntry,
        encoded: EncodedStateFile,
        increment: bool,
    ) -> Result<StateFile, StoreFailure> {
        let name = match state.kind {
            SavedStateKind::Timers => StateFileName::Timers,
            SavedStateKind::Positions => StateFileName::Positions,
            kind if kind.is_keyed() => StateFileName::State(&state.name),
            _ => StateFileName::Operator(&state.name),
        };
        let own = paths::state_file(part.uid, part.subtask, self.environment.random(), name);
        let (storage, path) = match &self.shared {
            Some(shared) if state.kind.has_keys() => (shared.storage, paths::to_shared(&own)),
            _ => (self.own, own),
        };
        let schema = if self.layout == Layout::Canonical { 1 } else { 0 };
        let bytes = encoded.bytes.clone();
        let range = if state.kind.is_keyed() { part.range } else { ITEMS };
        let mut file = state_file(path, encoded, part.subtask, schema, range);
        file.increment = increment;
        let name = paths::in_shared(&file.path);
        if let (Some(name), Some(shared)) = (name, &self.shared) {
            (shared.writes)(name);
        }
        let name = name.unwrap_or(&file.path);
        write_file(self.environment, storage, name, bytes, self.cancellation).await?;
        Ok(file)
    }

    /// Writes the positions of a source's subtask that are not listed, as one file.
    pub(super) async fn positions(
        &self,
        part: &Part<'_>,
        positions: Positions,
        entry: &mut OperatorEntry,
    ) -> Result<Written, StoreFailure> {
        let Positions::Filed { base, splits, removed } = positions else {
            return Ok(Written::default());
        };
        let rows: Arc<[StateRows]> = Arc::new([positions::to_rows(&splits, &removed)]);
        let base = match base {
            None => None,
            Some(base) => Some(self.base_entry(part, base)?),
        };
        let state = positions::state_of(entry);
        self.state(part, state, (RowsOf::State(0), false), &rows, base).await
    }

    /// Writes the operator state of a subtask, as one file for each state that has items. Of a broadcast state only the
    /// first subtask's copy is written.
    pub(super) async fn operator(
        &self,
        part: &Part<'_>,
        given: Vec<OperatorState>,
        entry: &mut OperatorEntry,
    ) -> Result<Written, StoreFailure> {
        let mut written = Written::default();
        for OperatorState { name, items } in given {
            let of_operator = |state: &&mut StateEntry| state.kind.is_of_operator() && state.name == name;
            let Some(state) = entry.states.iter_mut().find(of_operator) else {
                let declared = entry.states.iter().filter(|state| state.kind.is_of_operator());
                return Err(StoreFailure::Undeclared {
                    uid: part.uid.clone(),
                    state: name,
                    declared: declared.map(|state| state.name.clone()).collect(),
                });
            };
            let is_copy = state.kind == SavedStateKind::OperatorBroadcast && part.subtask != SubtaskIndex(0);
            if items.is_empty() || is_copy {
                continue;
            }
            let mut rows = StateRows::new(KeyGroup(0), RowsOf::State(0));
            for (index, item) in items.iter().enumerate() {
                rows.keys.push(&(index as u64).to_le_bytes());
                rows.values.push(item);
                rows.schemas.push(1);
            }
            let encoded = self
                .encode(part, state, (RowsOf::State(0), false), Arc::new([rows]))
                .await?;
            let file = self.put(part, state, encoded, false).await?;
            written.add(Written {
                new: file.bytes,
                all: file.bytes,
            });
            state.files.push(file);
        }
        Ok(written)
    }
}

/// Adds an entry for timers that the component no longer declares, so that they are saved too.
///
/// Must be called before the first subtask is written, if any of them has such timers.
pub(super) fn keep_undeclared_timers(entry: &mut OperatorEntry) {
    if entry.states.iter().any(|state| state.kind == SavedStateKind::Timers) {
        return;
    }
    let key = entry
        .description
        .as_ref()
        .and_then(|description| description.key.clone());
    let mut timers = state_entry(TIMERS, SavedStateKind::Timers, &Type::Unit);
    timers.key = Some(key.unwrap_or_else(|| Field {
        name: "key".to_owned(),
        ty: Type::Bytes,
        aliases: vec![],
        default: false,
    }));
    timers.key_digest = timers.key.as_ref().map(|key| key.ty.digest().to_string());
    entry.states.push(timers);
}

/// Adds the names of the timers in the rows and in the files before them.
fn note_timers(state: &mut StateEntry, rows: &[StateRows], chain: &[StateFile], base: Option<&OperatorEntry>) {
    if !chain.is_empty() {
        let before = base.iter().flat_map(|base| &base.states);
        let before = before.filter(|saved| saved.kind == SavedStateKind::Timers && saved.name == TIMERS);
        state
            .timers
            .extend(before.flat_map(|saved| saved.timers.iter().cloned()));
    }
    for rows in rows.iter().filter(|rows| rows.of == RowsOf::Timers) {
        for i in 0..rows.len() {
            let name = rows.entry_key(i).and_then(split_timer_entry).map(|(_, name)| name);
            if let Some(name) = name.filter(|name| !state.timers.iter().any(|known| known == name)) {
                state.timers.push(name.to_owned());
            }
        }
    }
    state.timers.sort();
    state.timers.dedup();
}

/// Returns the names of the keyed states whose values have a time to live.
fn expiring(entry: &OperatorEntry) -> BTreeSet<String> {
    let declared = entry.description.iter().flat_map(|description| &description.states);
    let expiring = declared.filter(|state| state.ttl_ms.is_some());
    expiring.map(|state| state.name.clone()).collect()
}

/// Encodes rows. `expires` is true if the state has a time to live; rows written while it was different may be among
/// them.
fn encode(
    rows: &[StateRows],
    (of, expires): (RowsOf, bool),
    state: &StateEntry,
    layout: Layout,
    cancellation: Cancellation,
) -> Result<EncodedStateFile, RowsError> {
    let key = state.key_field();
    let spec = StateFileSpec {
        layout,
        state: &state.name,
        key: &key,
        entries: state.entries_of_key(),
        value: &state.schema,
        schema: 1,
        expires: expires || rows.iter().any(|rows| rows.of == of && !rows.expires.is_empty()),
    };
    let mut writer = StateFileWriter::new(&spec)?.cancelled_by(cancellation);
    for rows in rows.iter().filter(|rows| rows.of == of) {
        writer.write_group(rows)?;
    }
    writer.finish()
}

/// Returns true if the changes since a checkpoint can be stored as increments to its files.
///
/// The operators must have the same states, and no chain may have grown too long.
pub(super) fn can_be_base(base: &Metadata, operators: &[OperatorEntry], max_parallelism: u32) -> bool {
    let same_state = |old: &StateEntry, new: &StateEntry| {
        let (digest, key) = (old.digest == new.digest, old.key_digest == new.key_digest);
        let same = (old.name == new.name) && (old.kind == new.kind) && digest && key && old.map_key == new.map_key;
        same && old.schemas == new.schemas
    };
    let keyed = |entry: &OperatorEntry| {
        let states = entry.states.iter().filter(|state| state.kind.is_keyed());
        states.cloned().collect::<Vec<_>>()
    };
    let goes_on = |new: &OperatorEntry| {
        let Some(old) = base.operator(new.uid.as_str()) else {
            return keyed(new).is_empty();
        };
        let (old_states, new_states) = (keyed(old), keyed(new));
        let same = old_states.len() == new_states.len()
            && old_states
                .iter()
                .zip(&new_states)
                .all(|(old, new)| same_state(old, new));
        let mut grow = old.states.iter().filter(|state| state.kind.has_keys()).peekable();
        same && (grow.peek().is_none() || old.parallelism == new.parallelism) && grow.all(can_grow)
    };
    base.max_parallelism == max_parallelism && operators.iter().all(goes_on)
}

/// Returns true if increments can follow the files of a state.
fn can_grow(state: &StateEntry) -> bool {
    let mut files: BTreeMap<SubtaskIndex, usize> = BTreeMap::new();
    for file in &state.files {
        *files.entry(file.subtask).or_default() += 1;
    }
    let shared = |file: &StateFile| paths::in_shared(&file.path).is_some() && file.footer.is_some() && file.schema == 0;
    state.files.iter().all(shared) && files.values().all(|count| *count < LONGEST)
}
