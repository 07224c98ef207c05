//! Converts a savepoint to what a new job starts with: each subtask's rows, each source's splits, each sink's pending
//! output.

use std::collections::BTreeMap;

use regraft_guest_runtime::call::OperatorState;
use regraft_model::batch::BytesColumn;
use regraft_model::id::OperatorUid;
use regraft_model::key_group::KeyGroupRange;

use crate::connector::source::SplitState;
use crate::environment::cancel::Cancellation;
use crate::environment::{Environment, run_blocking};
use crate::graph::identity;
use crate::graph::job_graph::{JobGraph, NodeKind};
use crate::jobs::admission::Descriptions;
use crate::jobs::deploy::{RestoredRows, RestoredState};
use crate::savepoint::budget::Budget;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{EntryKind, MetadataError, SavedStateKind, StateEntry};
use crate::savepoint::positions::{POSITIONS_BYTES_MAX, PositionsOf};
use crate::savepoint::restore::{NewJob, NewNode, Part, RestorePlan, RestoredOperator, RestoredSubtask, StateRead};
use crate::state::rows::{RowsOf, StateRows, split_timer_entry};
use crate::storage::StoreError;

/// Returns the parts of a job that matter to restoring its state.
#[must_use]
pub fn new_job(graph: &JobGraph, descriptions: &Descriptions) -> NewJob {
    let node = |node: &crate::graph::job_graph::Node| {
        let (connector, identity) = match &node.kind {
            NodeKind::Source(source) => identity::of_source(&source.connector),
            NodeKind::Sink(_) | NodeKind::Operator(_) => match node.output() {
                Some(connector) => identity::of_sink(connector),
                None => ("", serde_json::Value::Null),
            },
        };
        NewNode {
            uid: node.uid.clone(),
            kind: crate::checkpoint::store::entry_kind(node),
            parallelism: node.parallelism,
            description: descriptions.get(&node.uid).map(|description| (**description).clone()),
            connector: (!connector.is_empty()).then(|| connector.to_owned()),
            identity,
        }
    };
    NewJob {
        nodes: graph.nodes.iter().map(node).collect(),
        max_parallelism: graph.max_parallelism,
    }
}

/// Returns the sinks of the job whose target differs from that in the savepoint, as a fork's do.
///
/// The pending output in the savepoint is not theirs.
#[must_use]
pub fn retargeted_sinks(graph: &JobGraph, savepoint: &Savepoint) -> Vec<OperatorUid> {
    let differs = |uid: &OperatorUid, kind: &NodeKind| {
        let NodeKind::Sink(sink) = kind else { return false };
        let (connector, identity) = identity::of_sink(&sink.connector);
        let saved = savepoint.metadata.operators.iter().find(|entry| entry.uid == *uid);
        saved.is_some_and(|entry| {
            entry.kind == EntryKind::Sink
                && entry.is_stateful()
                && entry
                    .sink
                    .as_ref()
                    .is_some_and(|sink| sink.connector != connector || sink.identity != identity)
        })
    };
    graph
        .nodes
        .iter()
        .filter(|node| differs(&node.uid, &node.kind))
        .map(|node| node.uid.clone())
        .collect()
}

/// State that is read, to be restored.
#[derive(Debug, Default)]
pub struct Loaded {
    /// State that the subtasks start with.
    pub state: RestoredState,
    /// Keys read.
    pub keys: u64,
    /// Memory that the state takes, which is given back once it has been handed over.
    pub budget: Option<Budget>,
}

/// Reads everything that a plan names. Each subtask reads only the row groups with its own key groups.
///
/// # Errors
/// Returns [`MetadataError`], with the file's path, if a file cannot be read, the state does not fit in the budget, or the
/// work is cancelled before that.
pub async fn load(
    environment: &dyn Environment,
    savepoint: &Savepoint,
    plan: &RestorePlan,
    budget: &Budget,
    cancellation: &Cancellation,
) -> Result<Loaded, MetadataError> {
    let mut loaded = Loaded {
        budget: Some(budget.clone()),
        ..Loaded::default()
    };
    let reader = Reader {
        environment,
        savepoint,
        budget,
        of_positions: budget.at_most(POSITIONS_BYTES_MAX),
        cancellation,
    };
    for operator in &plan.operators {
        let uid = &operator.uid;
        loaded.state.watermarks.insert(uid.clone(), operator.watermark);
        let finished = operator.finished.iter().map(|subtask| (uid.clone(), *subtask));
        loaded.state.finished.extend(finished);
        let mut items = Items::default();
        for (subtask, part) in operator.subtasks.iter().enumerate() {
            if operator.kind == EntryKind::Source {
                let splits = part.splits.iter();
                let splits = splits.map(|s| SplitState {
                    split: s.split.clone(),
                    position: s.position.clone(),
                });
                loaded.state.splits.entry(uid.clone()).or_default().extend(splits);
            }
            let of = (uid.clone(), subtask as u32);
            let mut positions = PositionsOf::default();
            for read in &part.reads {
                let Part::KeyGroups(range) = read.part else { continue };
                let mut rows = reader.rows(uid, read, range).await?;
                if read.kind == SavedStateKind::Positions {
                    let added = positions.add(&read.file, &rows, budget);
                    added.map_err(|reason| reader.wrong(uid, read, reason))?;
                    continue;
                }
                drop_timers(&mut rows, &operator.dropped_timers);
                loaded.keys += rows.iter().map(|rows| rows.len() as u64).sum::<u64>();
                let restored = RestoredRows {
                    state: read.state.clone(),
                    rows,
                };
                loaded.state.keyed.entry(of.clone()).or_default().push(restored);
            }
            let splits = positions.splits();
            if splits.len() > 0 {
                loaded.state.splits.entry(uid.clone()).or_default().extend(splits);
            }
            if !operator.operator_states.is_empty() {
                let states = reader.operator_states(operator, part, &mut items).await?;
                loaded.state.operator.insert(of, states);
            }
        }
        if let Some(sink) = &operator.sink {
            loaded.state.sinks.insert(uid.clone(), sink.state.clone());
        }
    }
    Ok(loaded)
}

/// Items of files by path, kept because several subtasks read the same files.
type Items = BTreeMap<String, Vec<Vec<u8>>>;

/// Reads state files.
struct Reader<'a> {
    environment: &'a dyn Environment,
    savepoint: &'a Savepoint,
    /// Memory for all state.
    budget: &'a Budget,
    /// Memory for the rows of a source's positions.
    of_positions: Budget,
    /// Asked before each file.
    cancellation: &'a Cancellation,
}

impl Reader<'_> {
    /// Returns the state that a part of a plan is of.
    fn state(&self, uid: &OperatorUid, read: &StateRead) -> Option<&StateEntry> {
        let entry = self.savepoint.metadata.operator(uid.as_str())?;
        let is_it = |state: &&StateEntry| state.name == read.state && state.kind == read.kind;
        entry.states.iter().find(is_it)
    }

    /// Returns the error of rows that are not as they have to be.
    fn wrong(&self, uid: &OperatorUid, read: &StateRead, reason: String) -> MetadataError {
        match self.state(uid, read) {
            Some(state) => self.savepoint.wrong_rows(state, &read.file, reason),
            None => MetadataError::Malformed {
                path: self.savepoint.url_of(&read.file.path),
                reason,
            },
        }
    }

    /// Reads the rows of a range of key groups. Decodes them off the I/O threads, since that computes.
    async fn rows(
        &self,
        uid: &OperatorUid,
        read: &StateRead,
        range: KeyGroupRange,
    ) -> Result<Vec<StateRows>, MetadataError> {
        let Some(state) = self.state(uid, read) else {
            return Ok(vec![]);
        };
        let budget = match read.kind {
            SavedStateKind::Positions => &self.of_positions,
            _ => self.budget,
        };
        if self.cancellation.is_cancelled() {
            let path = self.savepoint.storage.url_of(&read.file.path);
            return Err(StoreError::Cancelled { path }.into());
        }
        let (parts, _loan) = self.savepoint.read_parts(state, &read.file, range, budget).await?;
        let (of, state, file) = (self.savepoint.clone(), state.clone(), read.file.clone());
        let budget = budget.clone();
        let decode = run_blocking(self.environment, move || {
            of.decode_rows(&state, &file, range, parts, &budget)
        });
        decode.await.unwrap_or_else(|error| {
            Err(MetadataError::Malformed {
                path: read.file.path.clone(),
                reason: error.to_string(),
            })
        })
    }

    /// Returns the operator states of a subtask in order of their names. A state without items for it is empty.
    async fn operator_states(
        &self,
        operator: &RestoredOperator,
        part: &RestoredSubtask,
        known: &mut Items,
    ) -> Result<Vec<OperatorState>, MetadataError> {
        let mut states: BTreeMap<&str, BytesColumn> = BTreeMap::new();
        for name in &operator.operator_states {
            states.insert(name, BytesColumn::default());
        }
        for read in &part.reads {
            let Part::Items(range) = &read.part else { continue };
            if !known.contains_key(&read.file.path) {
                let items = self.items(&operator.uid, read).await?;
                known.insert(read.file.path.clone(), items);
            }
            let wanted = (range.end - range.start) as usize;
            let items = known.get(&read.file.path).into_iter().flatten();
            let column = states.entry(&read.state).or_default();
            for item in items.skip(range.start as usize).take(wanted) {
                // Each subtask has a copy of its own.
                let taken = self.budget.take(item.len() as u64);
                taken.map_err(|over| self.wrong(&operator.uid, read, over.to_string()))?;
                column.push(item);
            }
        }
        let state = |(name, items): (&str, BytesColumn)| OperatorState {
            name: name.to_owned(),
            items,
        };
        Ok(states.into_iter().map(state).collect())
    }

    /// Returns all items of a file, in order of their positions.
    async fn items(&self, uid: &OperatorUid, read: &StateRead) -> Result<Vec<Vec<u8>>, MetadataError> {
        let rows = self.rows(uid, read, KeyGroupRange { first: 0, last: 0 }).await?;
        let mut items = vec![];
        for rows in &rows {
            for i in 0..rows.len() {
                let position = rows.keys.get(i).first_chunk().copied().map(u64::from_le_bytes);
                items.push((position.unwrap_or(u64::MAX), rows.values.get(i).to_vec()));
            }
        }
        items.sort_by_key(|(position, _)| *position);
        Ok(items.into_iter().map(|(_, item)| item).collect())
    }
}

/// Removes pending timers with these names.
fn drop_timers(rows: &mut [StateRows], names: &[String]) {
    for rows in rows
        .iter_mut()
        .filter(|rows| rows.of == RowsOf::Timers && !names.is_empty())
    {
        let mut kept = StateRows::new(rows.group, rows.of);
        for i in 0..rows.len() {
            let entry = rows.entry_key(i).unwrap_or_default();
            let is_dropped = |(_, name): (i64, &str)| names.iter().any(|dropped| dropped == name);
            if !split_timer_entry(entry).is_some_and(is_dropped) {
                kept.keys.push(rows.keys.get(i));
                kept.entry_keys.push(entry);
                kept.values.push(rows.values.get(i));
                kept.schemas.push(rows.schemas[i]);
            }
        }
        *rows = kept;
    }
}
