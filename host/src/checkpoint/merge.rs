//! Neighbours in a chain become one file: read back a few key groups at a time, later rows over earlier ones.
//!
//! Nothing is decided here but the order of rows, and nothing is deleted. The result is a file that no checkpoint refers to
//! until the next one does.

use std::collections::VecDeque;
use std::sync::Arc;

use regraft_model::id::{OperatorUid, SubtaskIndex};
use regraft_model::key_group::{KeyGroup, KeyGroupRange};

use crate::environment::{Environment, run_computing};
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Metadata, MetadataError, SavedStateKind, StateEntry, StateFile};
use crate::savepoint::publish::{state_file, write_file};
use crate::savepoint::rows::{EncodedStateFile, Layout, RowsError, StateFileSpec, StateFileWriter, StateRows};
use crate::state::rows::REMOVED;
use crate::storage::{Storage, StoreError, paths};

/// About so many bytes of a file are read at once.
const READ_BYTES: u64 = 4 << 20;

/// Neighbours that are to be one file.
#[derive(Debug, Clone)]
pub(super) struct Merge {
    pub(super) uid: OperatorUid,
    pub(super) subtask: SubtaskIndex,
    /// The state, without its files.
    pub(super) state: StateEntry,
    /// The neighbours, oldest first.
    pub(super) files: Vec<StateFile>,
    /// Whether the first of them is the first of the chain: then removals have nothing left to remove.
    pub(super) full: bool,
}

/// Neighbours that are one file.
#[derive(Debug)]
pub(super) struct Merged {
    /// To tell it from others.
    pub(super) number: u64,
    uid: OperatorUid,
    subtask: SubtaskIndex,
    state: String,
    kind: SavedStateKind,
    /// The paths of the neighbours.
    window: Vec<String>,
    /// The file; none: no row was left.
    pub(super) file: Option<StateFile>,
}

impl Merged {
    /// Whether it belongs to the chain of that state.
    pub(super) fn is_of(&self, uid: &OperatorUid, subtask: SubtaskIndex, state: &StateEntry) -> bool {
        self.uid == *uid && self.subtask == subtask && self.state == state.name && self.kind == state.kind
    }

    /// The name of the file among those that checkpoints share.
    pub(super) fn name(&self) -> Option<&str> {
        self.file.as_ref().and_then(|file| paths::in_shared(&file.path))
    }

    /// Where in a chain its neighbours are.
    fn place_in(&self, chain: &[StateFile]) -> Option<usize> {
        let matches = |files: &[StateFile]| files.iter().map(|file| &file.path).eq(&self.window);
        chain.windows(self.window.len()).position(matches)
    }

    /// Whether a checkpoint still has its neighbours.
    pub(super) fn has_place_in(&self, checkpoint: &Metadata) -> bool {
        let entry = checkpoint.operator(self.uid.as_str());
        let of_it = |state: &&StateEntry| state.name == self.state && state.kind == self.kind;
        entry.iter().flat_map(|entry| &entry.states).filter(of_it).any(|state| {
            let chain = state.files.iter().filter(|file| file.subtask == self.subtask);
            self.place_in(&chain.cloned().collect::<Vec<_>>()).is_some()
        })
    }

    /// Puts the file in the place of its neighbours, where the chain has them.
    pub(super) fn replace_in(&self, chain: &mut Vec<StateFile>) {
        if let Some(at) = self.place_in(chain) {
            chain.splice(at..at + self.window.len(), self.file.clone());
        }
    }
}

/// Why neighbours could not be merged.
#[derive(Debug, thiserror::Error)]
pub(super) enum MergeError {
    #[error(transparent)]
    Read(#[from] MetadataError),
    #[error(transparent)]
    Write(#[from] StoreError),
    #[error("{0}")]
    Rows(#[from] RowsError),
    #[error("{0}")]
    Panicked(#[from] crate::environment::Panicked),
    #[error("the job is ending")]
    Ending,
}

impl Merge {
    /// Reads the neighbours and writes the file; `path` is how `_metadata` will name it, `name` its name in `savepoint`'s
    /// shared directory. `savepoint` is a checkpoint that refers to the neighbours. Stops early where `ending` says so.
    ///
    /// # Errors
    /// [`MergeError`].
    pub(super) async fn run(
        self,
        environment: &dyn Environment,
        savepoint: &Arc<Savepoint>,
        number: u64,
        path: String,
        put: (&Storage, &str),
        ending: impl Fn() -> bool,
    ) -> Result<Merged, MergeError> {
        let key = self.state.key_field();
        let spec = StateFileSpec {
            layout: Layout::Native,
            state: &self.state.name,
            key: &key,
            entries: self.state.entries_of_key(),
            value: &self.state.schema,
            schema: 1,
            // Which of the files have such rows is known when they have been read.
            expires: true,
        };
        let mut writer = StateFileWriter::new(&spec)?;
        let mut sources: Vec<Source<'_>> = self.files.iter().map(Source::new).collect();
        loop {
            if ending() {
                return Err(MergeError::Ending);
            }
            for source in &mut sources {
                source.fill(environment, savepoint, &self.state).await?;
            }
            // What is before this group has been read of every file.
            let Some(groups) = ready(&mut sources) else { break };
            let full = self.full;
            writer = run_computing(environment, move || write_groups(writer, groups, full)).await??;
        }
        let encoded = run_computing(environment, move || writer.finish()).await??;
        let key_groups = self
            .files
            .first()
            .map_or(KeyGroupRange { first: 0, last: 0 }, |file| file.key_groups);
        let file = self.put(environment, encoded, path, put, key_groups).await?;
        Ok(Merged {
            number,
            uid: self.uid,
            subtask: self.subtask,
            state: self.state.name,
            kind: self.state.kind,
            window: self.files.into_iter().map(|file| file.path).collect(),
            file,
        })
    }

    async fn put(
        &self,
        environment: &dyn Environment,
        encoded: EncodedStateFile,
        path: String,
        (storage, name): (&Storage, &str),
        key_groups: KeyGroupRange,
    ) -> Result<Option<StateFile>, StoreError> {
        if encoded.entries == 0 {
            return Ok(None);
        }
        let bytes = encoded.bytes.clone();
        let mut file = state_file(path, encoded, self.subtask, 0, key_groups);
        file.increment = !self.full;
        write_file(environment, storage, name, bytes).await?;
        Ok(Some(file))
    }
}

/// A file that is read from its beginning to its end.
struct Source<'a> {
    file: &'a StateFile,
    /// The next row group.
    next: usize,
    /// What has been read and not been merged.
    rows: VecDeque<StateRows>,
}

impl<'a> Source<'a> {
    const fn new(file: &'a StateFile) -> Self {
        Self {
            file,
            next: 0,
            rows: VecDeque::new(),
        }
    }

    /// Reads on, where nothing is left of what was read.
    async fn fill(
        &mut self,
        environment: &dyn Environment,
        savepoint: &Arc<Savepoint>,
        state: &StateEntry,
    ) -> Result<(), MergeError> {
        let left = &self.file.groups[self.next.min(self.file.groups.len())..];
        let Some(first) = left.first().filter(|_| self.rows.is_empty()) else {
            return Ok(());
        };
        let (mut bytes, mut last) = (0, first.last_group);
        for extent in left {
            // A key group may be cut: all of it is read at once.
            if bytes >= READ_BYTES && extent.first_group > last {
                break;
            }
            bytes += extent.place.as_ref().map_or(0, |place| place.bytes);
            last = extent.last_group;
            self.next += 1;
        }
        let range = KeyGroupRange {
            first: first.first_group,
            last,
        };
        let parts = savepoint.read_parts(self.file, range).await?;
        let (of, state, file) = (savepoint.clone(), state.clone(), self.file.clone());
        let rows = run_computing(environment, move || of.decode_rows(&state, &file, range, parts)).await??;
        self.rows = rows.into();
        Ok(())
    }
}

/// The rows of the next key groups, each with those of the files in their order: of all key groups that have been read of
/// every file. None: there are no more.
fn ready(sources: &mut [Source<'_>]) -> Option<Vec<Vec<StateRows>>> {
    let last_read = |source: &Source<'_>| match source.rows.back() {
        Some(rows) if source.next < source.file.groups.len() => Some(rows.group),
        _ => None,
    };
    // Each source has something, or has been read to its end.
    let until = sources.iter().filter_map(last_read).min().unwrap_or(KeyGroup(u16::MAX));
    let mut groups: Vec<Vec<StateRows>> = vec![];
    loop {
        let heads = sources
            .iter()
            .filter_map(|source| source.rows.front().map(|rows| rows.group));
        let Some(group) = heads.min().filter(|group| *group <= until) else {
            return (!groups.is_empty()).then_some(groups);
        };
        let of_group = |source: &mut Source<'_>| match source.rows.front() {
            Some(rows) if rows.group == group => source.rows.pop_front(),
            _ => None,
        };
        groups.push(sources.iter_mut().filter_map(of_group).collect());
    }
}

fn write_groups(
    mut writer: StateFileWriter,
    groups: Vec<Vec<StateRows>>,
    full: bool,
) -> Result<StateFileWriter, RowsError> {
    for files in groups {
        if let Some(rows) = merge_rows(&files, full) {
            writer.write_group(&rows)?;
        }
    }
    Ok(writer)
}

/// Merges the rows that several files have of one key group, oldest first. Of each key the last row counts; where `full`,
/// one that removes is left out. None: there were no rows.
fn merge_rows(files: &[StateRows], full: bool) -> Option<StateRows> {
    let first = files.first()?;
    let mut order: Vec<(&[u8], &[u8], usize, usize)> = vec![];
    for (file, rows) in files.iter().enumerate() {
        order.extend((0..rows.len()).map(|row| (rows.keys.get(row), rows.entry_key(row).unwrap_or(&[]), file, row)));
    }
    // Those of each file are in order: stable sorting finds that out, and merges.
    order.sort();
    let mut merged = StateRows::new(first.group, first.of);
    let has_entries = files.iter().any(|rows| !rows.entry_keys.is_empty());
    let has_expiry = files.iter().any(|rows| !rows.expires.is_empty());
    for (i, &(key, entry, file, row)) in order.iter().enumerate() {
        let replaced = order.get(i + 1).is_some_and(|next| (next.0, next.1) == (key, entry));
        let Some(rows) = files.get(file).filter(|_| !replaced) else {
            continue;
        };
        let schema = rows.schemas[row];
        if full && schema == REMOVED {
            continue;
        }
        merged.keys.push(key);
        if has_entries {
            merged.entry_keys.push(entry);
        }
        merged.values.push(rows.values.get(row));
        merged.schemas.push(schema);
        if has_expiry {
            merged.expires.push(rows.expires_at(row));
        }
    }
    Some(merged)
}
