//! The parts of `_metadata` beside the state: nodes, their declarations, and the edges between them.

use regraft_model::describe::{Description, OperatorStateDescription, StateDescription, WIT_VERSION};
use regraft_model::id::CheckpointId;
use regraft_model::schema::Type;
use regraft_model::snapshot::SnapshotKind;

use super::facts::{JobFacts, StoreAs};
use crate::graph::identity;
use crate::graph::job_graph::{EffectiveSetting, JobGraph, Node, NodeKind};
use crate::savepoint::metadata::{
    EntryKind, GraphEdge, GraphNode, Metadata, OperatorEntry, SavedSettings, SavedStateKind, SinkEntry, SourceEntry,
    StateEntry,
};

/// Name of the entry of an operator's timers.
pub(super) const TIMERS: &str = "timers";

/// Builds `_metadata` without the components.
pub(super) fn metadata(
    id: CheckpointId,
    kind: SnapshotKind,
    triggered_at_ms: i64,
    facts: &JobFacts,
    how: StoreAs,
    operators: Vec<OperatorEntry>,
) -> Metadata {
    let graph = &facts.graph;
    Metadata {
        format: how.layout,
        kind,
        trigger: how.trigger,
        owner: how.owner,
        label: None,
        job_name: graph.name.clone(),
        job_id: facts.job_id,
        attempt: facts.attempt,
        job_version: facts.version,
        lineage: facts.lineage.clone(),
        checkpoint_id: id,
        triggered_at_ms,
        // The clock may have been set back meanwhile.
        completed_at_ms: how.completed_ms.max(triggered_at_ms),
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
        wit_version: WIT_VERSION.to_owned(),
        job_file: graph.text.clone(),
        graph: graph.nodes.iter().map(|node| graph_node(graph, node)).collect(),
        arguments: graph.arguments.clone(),
        settings: settings(graph),
        max_parallelism: graph.max_parallelism,
        modules: vec![],
        operators,
    }
}

fn settings(graph: &JobGraph) -> SavedSettings {
    let mut saved = SavedSettings::new();
    for (key, EffectiveSetting { value, origin }) in &graph.settings {
        saved.entry(*origin).or_default().insert(key.clone(), value.clone());
    }
    saved
}

/// Builds the entry of a node as it is before any state is added.
pub(super) fn entry(node: &Node, facts: &JobFacts) -> OperatorEntry {
    let module = facts.modules.get(&node.uid);
    let description = module.map(|module| module.description());
    let source_entry = |(connector, identity): (&str, serde_json::Value)| SourceEntry {
        connector: connector.to_owned(),
        identity,
        splits: vec![],
        state: serde_json::Value::Null,
    };
    let sink_entry = |(connector, identity): (&str, serde_json::Value)| SinkEntry {
        connector: connector.to_owned(),
        identity,
        handles: vec![],
        state: serde_json::Value::Null,
    };
    let (source, sink) = match &node.kind {
        NodeKind::Source(source) => (Some(source_entry(identity::of_source(&source.connector))), None),
        NodeKind::Sink(sink) => (None, Some(sink_entry(identity::of_sink(&sink.connector)))),
        // A sink entry for its dead letters.
        NodeKind::Operator(operator) => {
            let letters = operator.dead_letter.as_ref();
            (
                None,
                letters.map(|letters| sink_entry(identity::of_sink(&letters.connector))),
            )
        }
    };
    OperatorEntry {
        uid: node.uid.clone(),
        kind: entry_kind(node),
        parallelism: node.parallelism,
        module: module.map(|module| module.digest().to_string()),
        description: description.cloned(),
        states: description.map(states).unwrap_or_default(),
        source,
        sink,
        watermarks: vec![],
        finished: false,
        finished_subtasks: vec![],
        subtasks: vec![],
    }
}

/// Builds the entries of the states, timers and operator states that a component declares, without files.
fn states(description: &Description) -> Vec<StateEntry> {
    let keyed = |state: &StateDescription| {
        let mut entry = state_entry(&state.name, state.kind.into(), &state.schema);
        entry.map_key.clone_from(&state.map_key);
        entry
    };
    let operator = |state: &OperatorStateDescription| {
        let kind = SavedStateKind::of_operator(&state.kind);
        state_entry(&state.name, kind, &state.schema)
    };
    let timers = (!description.timers.is_empty()).then(|| state_entry(TIMERS, SavedStateKind::Timers, &Type::Unit));
    let mut states: Vec<StateEntry> = description.states.iter().map(keyed).chain(timers).collect();
    for entry in &mut states {
        entry.key.clone_from(&description.key);
        entry.key_digest = description.key.as_ref().map(|key| key.ty.digest().to_string());
    }
    states.extend(description.operator_states.iter().map(operator));
    states
}

/// Builds the entry of a state without files and without a key. The caller adds the key of keyed state.
pub(super) fn state_entry(name: &str, kind: SavedStateKind, schema: &Type) -> StateEntry {
    StateEntry {
        name: name.to_owned(),
        kind,
        schema: schema.clone(),
        digest: schema.digest().to_string(),
        schemas: vec![schema.clone()],
        key: None,
        key_digest: None,
        map_key: None,
        timers: vec![],
        files: vec![],
        empty: vec![],
    }
}

/// Returns the kind of a node in the words of `_metadata`.
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
