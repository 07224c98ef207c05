//! What every subtask saved for one round becomes files, and at last `_metadata`.

use std::collections::BTreeMap;
use std::sync::Arc;

use regraft_model::describe::{Description, StateDescription, WIT_VERSION};
use regraft_model::id::{AttemptId, JobId, JobVersion, OperatorUid, SubtaskIndex};
use regraft_model::key_group::{KeyGroupRange, range_of};

use super::round::Acknowledged;
use crate::dataflow::control::{KeyedSnapshot, SubtaskSnapshot};
use crate::dataflow::operator::Modules;
use crate::environment::{Environment, run_blocking};
use crate::graph::identity;
use crate::graph::job_graph::{JobGraph, Node, NodeKind};
use crate::savepoint::metadata::{
    Ancestor, EntryKind, GraphEdge, GraphNode, Metadata, MetadataError, ModuleFile, OperatorEntry, Owner, SinkEntry,
    SourceEntry, SplitEntry, StateEntry, Trigger,
};
use crate::savepoint::publish::{publish, write_module, write_state_file};
use crate::savepoint::rows::{EncodedStateFile, Layout, RowsError, StateFileSpec, StateFileWriter};
use crate::state::rows::{RowsOf, StateRows};
use crate::storage::paths::StateFileName;
use crate::storage::{Storage, StoreError, paths};

/// What a snapshot says of its job beside the state.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// The graph it runs.
    pub graph: Arc<JobGraph>,
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The version that the snapshot belongs to.
    pub version: JobVersion,
    /// What it was restored from.
    pub lineage: Vec<Ancestor>,
    /// The component of each operator.
    pub modules: Modules,
}

/// How a snapshot is to be stored.
#[derive(Debug, Clone, Copy)]
pub struct StoreAs {
    /// How state files are laid out.
    pub layout: Layout,
    /// Why it was taken.
    pub trigger: Trigger,
    /// Who may delete it.
    pub owner: Owner,
    /// Milliseconds since the Unix epoch, when all state was collected.
    pub completed_ms: i64,
}

/// A stored snapshot.
#[derive(Debug)]
pub struct Stored {
    /// Size of all its files.
    pub bytes: u64,
    /// What each sink has to commit.
    pub handles: BTreeMap<OperatorUid, Vec<serde_json::Value>>,
    /// The states of each sink's subtasks.
    pub sink_states: BTreeMap<OperatorUid, Vec<serde_json::Value>>,
}

/// Why a snapshot could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `_metadata` was not written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Rows do not fit their schema.
    #[error("state \"{state}\" of operator \"{uid}\" cannot be written: {error}")]
    Rows {
        /// The operator.
        uid: OperatorUid,
        /// The state.
        state: String,
        /// Why.
        error: RowsError,
    },
    /// The encoding thread failed.
    #[error("encoding state failed: {0}")]
    Encode(String),
}

/// Writes all files of an acknowledged round, and `_metadata` last.
///
/// # Errors
/// [`StoreFailure`]; then there is no `_metadata`, and the caller removes what is there.
pub async fn store(
    environment: &dyn Environment,
    round: Acknowledged,
    facts: &JobFacts,
    storage: &Storage,
    how: StoreAs,
) -> Result<Stored, StoreFailure> {
    let mut entries: BTreeMap<OperatorUid, OperatorEntry> = facts
        .graph
        .nodes
        .iter()
        .map(|node| (node.uid.clone(), entry(node, facts)))
        .collect();
    let (mut handles, mut sink_states) = (BTreeMap::new(), BTreeMap::new());
    let (checkpoint_id, triggered_at_ms, kind) = (round.id, round.triggered_ms, round.kind);
    for mut part in round.snapshots {
        collect_ends(&mut part, &mut entries, &mut handles, &mut sink_states);
        for KeyedSnapshot { uid, rows: groups, .. } in part.keyed {
            if let (Some(entry), Some(module)) = (entries.get_mut(&uid), facts.modules.get(&uid)) {
                let range = range_of(part.subtask.index, entry.parallelism, facts.graph.max_parallelism);
                let finished = part.finished.contains(&uid);
                entry.finished = finished && (entry.watermarks.is_empty() || entry.finished);
                entry.watermarks.push(part.watermark);
                let rows = SubtaskRows {
                    uid,
                    subtask: SubtaskIndex(part.subtask.index),
                    range,
                    groups: groups.into(),
                };
                store_keyed(environment, rows, module.description(), entry, storage, how.layout).await?;
            }
        }
    }
    for (uid, all) in &sink_states {
        if let Some(sink) = entries.get_mut(uid).and_then(|entry| entry.sink.as_mut()) {
            sink.state = add_up(all);
        }
    }
    let metadata = Metadata {
        format: how.layout,
        kind,
        trigger: how.trigger,
        owner: how.owner,
        label: None,
        job_name: facts.graph.name.clone(),
        job_id: facts.job_id,
        attempt: facts.attempt,
        job_version: facts.version,
        lineage: facts.lineage.clone(),
        checkpoint_id,
        triggered_at_ms,
        completed_at_ms: how.completed_ms,
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
        wit_version: WIT_VERSION.to_owned(),
        job_file: facts.graph.text.clone(),
        graph: facts
            .graph
            .nodes
            .iter()
            .map(|node| graph_node(&facts.graph, node))
            .collect(),
        arguments: facts.graph.arguments.clone(),
        max_parallelism: facts.graph.max_parallelism,
        modules: store_modules(facts, storage).await?,
        operators: facts
            .graph
            .nodes
            .iter()
            .filter_map(|node| entries.remove(&node.uid))
            .collect(),
    };
    let bytes = publish(storage, &metadata).await?;
    Ok(Stored {
        bytes,
        handles,
        sink_states,
    })
}

/// Source positions and sink handles of one subtask.
fn collect_ends(
    part: &mut SubtaskSnapshot,
    entries: &mut BTreeMap<OperatorUid, OperatorEntry>,
    handles: &mut BTreeMap<OperatorUid, Vec<serde_json::Value>>,
    sink_states: &mut BTreeMap<OperatorUid, Vec<serde_json::Value>>,
) {
    if let Some((uid, splits)) = part.source.take()
        && let Some(source) = entries.get_mut(&uid).and_then(|entry| entry.source.as_mut())
    {
        let split = |s: crate::dataflow::source::SplitState| SplitEntry {
            split: s.split,
            position: s.position,
            finished: false,
        };
        source.splits.extend(splits.into_iter().map(split));
        source.splits.sort_by(|a, b| a.split.cmp(&b.split));
    }
    for (uid, snapshot) in std::mem::take(&mut part.sinks) {
        if let Some(sink) = entries.get_mut(&uid).and_then(|entry| entry.sink.as_mut()) {
            sink.handles.extend(snapshot.handles.iter().cloned());
        }
        handles.entry(uid.clone()).or_default().extend(snapshot.handles);
        sink_states.entry(uid).or_default().push(snapshot.state);
    }
}

struct SubtaskRows {
    uid: OperatorUid,
    subtask: SubtaskIndex,
    range: KeyGroupRange,
    groups: Arc<[StateRows]>,
}

/// One file per state that has entries; encoding computes, so it runs beside the I/O threads.
async fn store_keyed(
    environment: &dyn Environment,
    rows: SubtaskRows,
    description: &Description,
    entry: &mut OperatorEntry,
    storage: &Storage,
    layout: Layout,
) -> Result<(), StoreFailure> {
    let Some(key) = description.key.clone() else {
        return Ok(());
    };
    for (at, state) in description.states.iter().enumerate() {
        let (groups, of, key) = (rows.groups.clone(), state.clone(), key.clone());
        let encoded = run_blocking(environment, move || encode(&groups, at, &of, &key, layout)).await;
        let encoded = encoded.map_err(|error| StoreFailure::Encode(error.to_string()))?;
        let encoded = encoded.map_err(|error| StoreFailure::Rows {
            uid: rows.uid.clone(),
            state: state.name.clone(),
            error,
        })?;
        let Some(saved) = entry.states.iter_mut().find(|saved| saved.name == state.name) else {
            continue;
        };
        if encoded.entries == 0 {
            saved.empty.push(rows.range);
            continue;
        }
        let path = paths::state_file(
            &rows.uid,
            rows.subtask,
            environment.random(),
            StateFileName::State(&state.name),
        );
        let schema = if layout == Layout::Canonical { 1 } else { 0 };
        saved
            .files
            .push(write_state_file(storage, path, encoded, rows.subtask, schema, rows.range).await?);
    }
    Ok(())
}

fn encode(
    groups: &[StateRows],
    at: usize,
    state: &StateDescription,
    key: &regraft_model::schema::Field,
    layout: Layout,
) -> Result<EncodedStateFile, RowsError> {
    let spec = StateFileSpec {
        layout,
        state: &state.name,
        key,
        value: &state.schema,
        schema: 1,
    };
    let mut writer = StateFileWriter::new(&spec)?;
    let of = RowsOf::State(at as u16);
    for rows in groups.iter().filter(|rows| rows.of == of) {
        writer.write_group(rows)?;
    }
    writer.finish()
}

/// The components, each once.
async fn store_modules(facts: &JobFacts, storage: &Storage) -> Result<Vec<ModuleFile>, StoreError> {
    let mut files: BTreeMap<String, ModuleFile> = BTreeMap::new();
    for module in facts.modules.values() {
        let sha256 = module.digest().to_string();
        if !files.contains_key(&sha256) {
            let component = bytes::Bytes::copy_from_slice(module.bytes());
            files.insert(sha256.clone(), write_module(storage, &sha256, component).await?);
        }
    }
    Ok(files.into_values().collect())
}

/// What is known of a node before its state is.
fn entry(node: &Node, facts: &JobFacts) -> OperatorEntry {
    let module = facts.modules.get(&node.uid);
    let description = module.map(|module| module.description());
    let (source, sink) = match &node.kind {
        NodeKind::Source(source) => {
            let (connector, identity) = identity::of_source(&source.connector);
            let state = serde_json::Value::Null;
            (
                Some(SourceEntry {
                    connector: connector.to_owned(),
                    identity,
                    splits: vec![],
                    state,
                }),
                None,
            )
        }
        NodeKind::Sink(sink) => {
            let (connector, identity) = identity::of_sink(&sink.connector);
            let state = serde_json::Value::Null;
            (
                None,
                Some(SinkEntry {
                    connector: connector.to_owned(),
                    identity,
                    handles: vec![],
                    state,
                }),
            )
        }
        NodeKind::Operator(_) => (None, None),
    };
    let state = |state: &StateDescription| StateEntry {
        name: state.name.clone(),
        kind: state.kind.into(),
        schema: state.schema.clone(),
        digest: state.schema.digest().to_string(),
        schemas: vec![state.schema.clone()],
        key: description.and_then(|description| description.key.clone()),
        key_digest: description
            .and_then(|description| description.key.as_ref())
            .map(|key| key.ty.digest().to_string()),
        map_key: state.map_key.clone(),
        timers: vec![],
        files: vec![],
        empty: vec![],
    };
    OperatorEntry {
        uid: node.uid.clone(),
        kind: entry_kind(node),
        parallelism: node.parallelism,
        module: module.map(|module| module.digest().to_string()),
        description: description.cloned(),
        states: description
            .map(|description| description.states.iter().map(state).collect())
            .unwrap_or_default(),
        source,
        sink,
        watermarks: vec![],
        finished: false,
        subtasks: vec![],
    }
}

/// What a node is, in the words of `_metadata`.
#[must_use]
pub const fn entry_kind(node: &Node) -> EntryKind {
    match node.kind {
        NodeKind::Source(_) => EntryKind::Source,
        NodeKind::Operator(_) => EntryKind::Operator,
        NodeKind::Sink(_) => EntryKind::Sink,
    }
}

fn graph_node(graph: &JobGraph, node: &Node) -> GraphNode {
    let edge = |input: &crate::graph::job_graph::Input| GraphEdge {
        from: graph.nodes[input.from].uid.clone(),
        port: input.port.clone(),
        by: serde_json::to_value(input.by)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default(),
    };
    GraphNode {
        uid: node.uid.clone(),
        kind: entry_kind(node),
        parallelism: node.parallelism,
        inputs: node.inputs.iter().map(edge).collect(),
    }
}

/// The states of a sink's subtasks as one; null when none has any.
#[must_use]
pub fn add_up(states: &[serde_json::Value]) -> serde_json::Value {
    use crate::dataflow::sink::blackhole;
    if states.iter().all(serde_json::Value::is_null) {
        return serde_json::Value::Null;
    }
    let (records, checksum) = blackhole::totals(states);
    blackhole::state(records, checksum)
}
