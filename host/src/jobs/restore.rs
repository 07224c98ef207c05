//! A savepoint becomes what a new job starts with: each subtask's rows, each source's splits, each sink's pending output.

use std::collections::BTreeMap;

use regraft_model::id::OperatorUid;

use super::deploy::{RestoredRows, RestoredState};
use crate::dataflow::source::SplitState;
use crate::environment::{Environment, run_blocking};
use crate::graph::identity;
use crate::graph::job_graph::{JobGraph, NodeKind};
use crate::jobs::admission::Descriptions;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{EntryKind, MetadataError};
use crate::savepoint::restore::{NewJob, NewNode, Part, RestorePlan};

/// The job as far as its state is concerned.
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

/// Sinks of the job that write somewhere else than in the savepoint: a fork's own targets. What the old ones have pending
/// is not theirs.
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

/// What is to be restored, and each sink's pending output.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What subtasks start with.
    pub state: RestoredState,
    /// What each sink has to commit before the job starts.
    pub pending: BTreeMap<OperatorUid, Vec<serde_json::Value>>,
    /// Keys read.
    pub keys: u64,
}

/// Reads everything that a plan names. Each subtask reads the row groups of its own key groups only.
///
/// # Errors
/// [`MetadataError`] with the file's path.
pub async fn load(
    environment: &dyn Environment,
    savepoint: &Savepoint,
    plan: &RestorePlan,
) -> Result<Loaded, MetadataError> {
    let mut loaded = Loaded::default();
    for operator in &plan.operators {
        let uid = &operator.uid;
        loaded.state.watermarks.insert(uid.clone(), operator.watermark);
        if operator.finished {
            loaded.state.finished.insert(uid.clone());
        }
        for (subtask, part) in operator.subtasks.iter().enumerate() {
            if operator.kind == EntryKind::Source {
                let splits = part.splits.iter();
                let splits = splits.map(|s| SplitState {
                    split: s.split.clone(),
                    position: s.position.clone(),
                });
                loaded.state.splits.entry(uid.clone()).or_default().extend(splits);
            }
            for read in &part.reads {
                let Part::KeyGroups(range) = read.part else { continue };
                let entries = savepoint.metadata.operators.iter();
                let entry = entries
                    .filter(|entry| entry.uid == *uid)
                    .flat_map(|entry| &entry.states);
                let Some(state) = entry.into_iter().find(|state| state.name == read.state) else {
                    continue;
                };
                let bytes = savepoint.read_file(&read.file).await?;
                let (of, state, file) = (savepoint.clone(), state.clone(), read.file.clone());
                let decode = run_blocking(environment, move || of.decode_rows(&state, &file, range, bytes));
                let rows = decode.await.unwrap_or_else(|error| {
                    Err(MetadataError::Malformed {
                        path: read.file.path.clone(),
                        reason: error.to_string(),
                    })
                })?;
                loaded.keys += rows.iter().map(|rows| rows.len() as u64).sum::<u64>();
                let restored = RestoredRows {
                    state: read.state.clone(),
                    rows,
                };
                loaded
                    .state
                    .keyed
                    .entry((uid.clone(), subtask as u32))
                    .or_default()
                    .push(restored);
            }
        }
        if let Some(sink) = &operator.sink {
            loaded.state.sinks.insert(uid.clone(), sink.state.clone());
            if !sink.handles.is_empty() {
                loaded.pending.insert(uid.clone(), sink.handles.clone());
            }
        }
    }
    Ok(loaded)
}
