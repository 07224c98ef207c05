//! Merges neighbours in a chain into one file: reads them a few key groups at a time, and later rows replace earlier
//! ones.
//!
//! This module decides nothing but the order of rows, and deletes nothing.
//! No checkpoint refers to the result until the next one does.

use std::collections::VecDeque;
use std::sync::Arc;

use regraft_model::id::{OperatorUid, SubtaskIndex};
use regraft_model::key_group::{KeyGroup, KeyGroupRange};

use crate::environment::cancel::Cancellation;
use crate::environment::{Environment, run_computing};
use crate::savepoint::budget::Budget;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Metadata, MetadataError, SavedStateKind, StateEntry, StateFile};
use crate::savepoint::publish::{state_file, write_file};
use crate::savepoint::rows::{EncodedStateFile, Layout, RowsError, StateFileSpec, StateFileWriter, StateRows};
use crate::state::rows::REMOVED;
use crate::storage::{Storage, StoreError, paths};

/// Number of bytes of a file, approximately, that are read at once.
const READ_BYTES: u64 = 4 << 20;

/// Neighbours to merge into one file.
#[derive(Debug, Clone)]
pub(super) struct Merge {
    pub(super) uid: OperatorUid,
    pub(super) subtask: SubtaskIndex,
    /// The state, without its files.
    pub(super) state: StateEntry,
    /// The neighbours, oldest first.
    pub(super) files: Vec<StateFile>,
    /// True if they include the first file of the chain, so that removals have nothing left to remove.
    pub(super) full: bool,
}

/// The result of a merge.
#[derive(Debug)]
pub(super) struct Merged {
    /// Number of the merge.
    pub(super) number: u64,
    uid: OperatorUid,
    subtask: SubtaskIndex,
    state: String,
    kind: SavedStateKind,
    /// Paths of the merged neighbours.
    window: Vec<String>,
    /// The file; `None` if no row was left.
    pub(super) file: Option<StateFile>,
}

impl Merged {
    /// Returns true if it belongs to the chain of this state and subtask.
    pub(super) fn is_of(&self, uid: &OperatorUid, subtask: SubtaskIndex, state: &StateEntry) -> bool {
        self.uid == *uid && self.subtask == subtask && self.state == state.name && self.kind == state.kind
    }

    /// Returns the name of the file in the shared directory.
    pub(super) fn name(&self) -> Option<&str> {
        self.file.as_ref().and_then(|file| paths::in_shared(&file.path))
    }

    /// Returns the index of its neighbours in a chain.
    fn place_in(&self, chain: &[StateFile]) -> Option<usize> {
        let matches = |files: &[StateFile]| files.iter().map(|file| &file.path).eq(&self.window);
        chain.windows(self.window.len()).position(matches)
    }

    /// Returns true if a checkpoint still has its neighbours.
    pub(super) fn has_place_in(&self, checkpoint: &Metadata) -> bool {
        let entry = checkpoint.operator(self.uid.as_str());
        let of_it = |state: &&StateEntry| state.name == self.state && state.kind == self.kind;
        entry.iter().flat_map(|entry| &entry.states).filter(of_it).any(|state| {
            let chain = state.files.iter().filter(|file| file.subtask == self.subtask);
            self.place_in(&chain.cloned().collect::<Vec<_>>()).is_some()
        })
    }

    /// Replaces the neighbours in a chain by the file, if the chain has them.
    pub(super) fn replace_in(&self, chain: &mut Vec<StateFile>) {
        if let Some(at) = self.place_in(chain) {
            chain.splice(at..at + self.window.len(), self.file.clone());
        }
    }
}

/// Neighbours could not be merged.
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

impl MergeError {
    /// Returns true if the merge was cancelled.
    pub(super) const fn is_end_of_job(&self) -> bool {
        matches!(
            self,
            Self::Ending | Self::Rows(RowsError::Cancelled) | Self::Write(StoreError::Cancelled { .. })
        )
    }
}

impl Merge {
    /// Reads the neighbours and writes the merged file.
    ///
    /// `path` is the file's path in `_metadata`, and `put` the shared directory with the file's name in it.
    /// `savepoint` is a checkpoint that refers to the neighbours.
    ///
    /// # Errors
    /// - [`MergeError::Ending`], or the error of a cancelled part, if the merge is cancelled.
    /// - [`MergeError::Read`], [`MergeError::Write`] if a file cannot be read or written.
    /// - [`MergeError::Rows`] if rows cannot be encoded.
    /// - [`MergeError::Panicked`] if decoding or encoding panicked.
    pub(super) async fn run(
        self,
        environment: &dyn Environment,
        savepoint: &Arc<Savepoint>,
        number: u64,
        path: String,
        put: (&Storage, &str),
        cancellation: &Cancellation,
    ) -> Result<Merged, MergeError> {
        let key = self.state.key_field();
        let spec = StateFileSpec {
            layout: Layout::Native,
            state: &self.state.name,
            key: &key,
            entries: self.state.entries_of_key(),
            value: &self.state.schema,
            schema: 1,
            // It is not known before reading which of the files have times of expiry.
            expires: true,
        };
        let mut writer = StateFileWriter::new(&spec)?.cancelled_by(cancellation.clone());
        let mut sources: Vec<Source<'_>> = self.files.iter().map(Source::new).collect();
        loop {
            if cancellation.is_cancelled() {
                return Err(MergeError::Ending);
            }
            for source in &mut sources {
                source.fill(environment, savepoint, &self.state).await?;
            }
            // All files have been read up to these key groups.
            let Some(groups) = ready(&mut sources) else { break };
            let full = self.full;
            writer = run_computing(environment, move || write_groups(writer, groups, full)).await??;
        }
        let encoded = run_computing(environment, move || writer.finish()).await??;
        let key_groups = self
            .files
            .first()
            .map_or(KeyGroupRange { first: 0, last: 0 }, |file| file.key_groups);
        let file = self
            .put(environment, encoded, path, put, key_groups, cancellation)
            .await?;
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
        cancellation: &Cancellation,
    ) -> Result<Option<StateFile>, StoreError> {
        if encoded.entries == 0 {
            return Ok(None);
        }
        let bytes = encoded.bytes.clone();
        let mut file = state_file(path, encoded, self.subtask, 0, key_groups);
        file.increment = !self.full;
        write_file(environment, storage, name, bytes, cancellation).await?;
        Ok(Some(file))
    }
}

/// A file that is read from beginning to end.
struct Source<'a> {
    file: &'a StateFile,
    /// Index of the next row group to read.
    next: usize,
    /// Rows that have been read but not merged.
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

    /// Reads the next row groups, if no rows are left.
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
            // A key group may span row groups; all of them are read at once.
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
        // The rows have been in memory, and are merged a few at a time.
        let budget = Budget::unlimited();
        let (parts, _loan) = savepoint.read_parts(state, self.file, range, &budget).await?;
        let (of, state, file) = (savepoint.clone(), state.clone(), self.file.clone());
        let rows = run_computing(environment, move || {
            of.decode_rows(&state, &file, range, parts, &budget)
        })
        .await??;
        self.rows = rows.into();
        Ok(())
    }
}

/// Takes the rows of all key groups that every file has been read up to. Returns `None` if there are no more.
///
/// The result has an item per key group, with the rows of each file in the order of the files.
fn ready(sources: &mut [Source<'_>]) -> Option<Vec<Vec<StateRows>>> {
    let last_read = |source: &Source<'_>| match source.rows.back() {
        Some(rows) if source.next < source.file.groups.len() => Some(rows.group),
        _ => None,
    };
    // Each source has rows left, or has been read to its end.
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

/// Merges the rows of one key group from several files, oldest first. Returns `None` if there are no files.
///
/// The last row of each key counts. If `full` is true, removals are left out.
fn merge_rows(files: &[StateRows], full: bool) -> Option<StateRows> {
    let first = files.first()?;
    let mut order: Vec<(&[u8], &[u8], usize, usize)> = vec![];
    for (file, rows) in files.iter().enumerate() {
        order.extend((0..rows.len()).map(|row| (rows.keys.get(row), rows.entry_key(row).unwrap_or(&[]), file, row)));
    }
    // The rows of each file are sorted already: a stable sort detects the runs and merges them.
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
