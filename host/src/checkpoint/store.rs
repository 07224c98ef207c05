//! Writes the state of all subtasks as files, and `_metadata` last.

use std::collections::BTreeMap;

use regraft_model::id::{OperatorUid, SubtaskIndex};
use regraft_model::key_group::range_of;

use super::describe;
pub use super::describe::entry_kind;
pub use super::facts::{JobFacts, StoreAs, StoreFailure, Stored};
use super::round::Acknowledged;
use super::write::{ITEMS, Part, Target, Written, keep_undeclared_timers};
use crate::connector::source::{SourceConnector, SplitState};
use crate::dataflow::control::{Positions, SubtaskId, SubtaskSnapshot};
use crate::dataflow::operator::{OperatorModule, dead_letters};
use crate::environment::Environment;
use crate::environment::cancel::Cancellation;
use crate::graph::job_graph::{Node, NodeKind};
use crate::savepoint::metadata::{Metadata, ModuleFile, OperatorEntry, SavedStateKind, SplitEntry, SubtaskRecord};
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::publish::{module_file, publish, write_file};
use crate::state::rows::RowsOf;
use crate::storage::{Storage, paths};

/// Stores an acknowledged round as a savepoint: all files go to its own directory, `_metadata` last.
///
/// # Errors
/// Returns [`StoreFailure`]. There is then no `_metadata`, or that is unknown, and the caller has to remove the files.
pub async fn store(
    environment: &dyn Environment,
    round: Acknowledged,
    facts: &JobFacts,
    storage: &Storage,
    how: StoreAs,
    cancellation: &Cancellation,
) -> Result<Stored, StoreFailure> {
    let target = Target {
        environment,
        cancellation,
        own: storage,
        layout: how.layout,
        shared: None,
    };
    let mut collected = collect(&target, round, facts, how).await?;
    for module in distinct(facts) {
        let sha256 = module.digest().to_string();
        let file = module_file(paths::module(&sha256), &sha256, module.bytes());
        let component = bytes::Bytes::copy_from_slice(module.bytes());
        write_file(environment, storage, &file.path, component, cancellation).await?;
        collected.stored.bytes += file.bytes;
        collected.metadata.modules.push(file);
    }
    wanted(cancellation)?;
    finish(environment, storage, collected).await.map(|(stored, _)| stored)
}

/// Fails if the round is cancelled.
pub(super) fn wanted(cancellation: &Cancellation) -> Result<(), StoreFailure> {
    if cancellation.is_cancelled() {
        return Err(StoreFailure::Cancelled);
    }
    Ok(())
}

/// A round whose state is written.
pub(super) struct Collected {
    pub(super) metadata: Metadata,
    pub(super) stored: Stored,
}

/// Publishes a round whose files are all written.
pub(super) async fn finish(
    environment: &dyn Environment,
    storage: &Storage,
    collected: Collected,
) -> Result<(Stored, Metadata), StoreFailure> {
    let Collected { metadata, mut stored } = collected;
    let published = publish(environment, storage, &metadata).await?;
    let size = published.bytes;
    stored.permit = published.permit;
    stored.bytes += size;
    stored.full_bytes = size + metadata.files().map(|(_, bytes)| bytes).sum::<u64>();
    Ok((stored, metadata))
}

/// Iterates over the components, each once, in order of their digests.
pub(super) fn distinct(facts: &JobFacts) -> impl Iterator<Item = &dyn OperatorModule> {
    let modules = facts.modules.values();
    let distinct: BTreeMap<String, _> = modules.map(|module| (module.digest().to_string(), &**module)).collect();
    distinct.into_values()
}

/// Writes the state of a round and builds `_metadata`, except for the components.
pub(super) async fn collect(
    target: &Target<'_>,
    round: Acknowledged,
    facts: &JobFacts,
    how: StoreAs,
) -> Result<Collected, StoreFailure> {
    let nodes = &facts.graph.nodes;
    let entries = nodes
        .iter()
        .map(|node| (node.uid.clone(), describe::entry(node, facts)));
    let mut snapshot = Snapshot {
        facts,
        entries: entries.collect(),
        stored: Stored {
            bytes: 0,
            full_bytes: 0,
            permit: CommitPermit::none(),
            sink_states: BTreeMap::new(),
            subtasks: BTreeMap::new(),
        },
        written: BTreeMap::new(),
    };
    same_broadcasts(facts, &round.snapshots)?;
    for keyed in round.snapshots.iter().flat_map(|part| &part.keyed) {
        if let Some(entry) = snapshot.entries.get_mut(&keyed.uid)
            && keyed.rows.iter().any(|rows| rows.of == RowsOf::Timers)
        {
            keep_undeclared_timers(entry);
        }
    }
    for mut part in round.snapshots {
        snapshot.state(target, &mut part).await?;
        snapshot.source(target, &mut part).await?;
        snapshot.sinks(&mut part);
        snapshot.rest(&part, facts.plan.uids(part.subtask));
    }
    let Snapshot {
        mut entries,
        mut stored,
        ..
    } = snapshot;
    for node in nodes {
        if let NodeKind::Source(source) = &node.kind
            && let Some(entry) = entries.get_mut(&node.uid).and_then(|entry| entry.source.as_mut())
        {
            order(&mut entry.splits, &*source.connector);
        }
    }
    for (node, all) in nodes
        .iter()
        .filter_map(|node| Some((node, stored.sink_states.get(&node.uid)?)))
    {
        if let Some(sink) = entries.get_mut(&node.uid).and_then(|entry| entry.sink.as_mut()) {
            sink.state = merged(node, all);
        }
    }
    let records = entries.iter().map(|(uid, entry)| (uid.clone(), entry.subtasks.clone()));
    stored.subtasks = records.collect();
    let operators = nodes.iter().filter_map(|node| entries.remove(&node.uid)).collect();
    let metadata = describe::metadata(round.id, round.kind, round.triggered_ms, facts, how, operators);
    Ok(Collected { metadata, stored })
}

/// A snapshot in progress, built of the parts of all subtasks.
struct Snapshot<'a> {
    facts: &'a JobFacts,
    entries: BTreeMap<OperatorUid, OperatorEntry>,
    stored: Stored,
    /// Size of the state by uid and subtask.
    written: BTreeMap<(OperatorUid, SubtaskId), Written>,
}

impl Snapshot<'_> {
    /// Writes the keyed state and operator state of a subtask.
    async fn state(&mut self, target: &Target<'_>, part: &mut SubtaskSnapshot) -> Result<(), StoreFailure> {
        let keyed = std::mem::take(&mut part.keyed)
            .into_iter()
            .map(|keyed| (keyed.uid.clone(), Ok(keyed)));
        let operator = std::mem::take(&mut part.operator)
            .into_iter()
            .map(|(uid, states)| (uid, Err(states)));
        for (uid, state) in keyed.chain(operator) {
            let Some(entry) = self.entries.get_mut(&uid) else {
                continue;
            };
            let of = Part {
                uid: &uid,
                subtask: SubtaskIndex(part.subtask.index),
                range: range_of(part.subtask.index, entry.parallelism, self.facts.graph.max_parallelism),
            };
            let written = match state {
                Ok(keyed) => target.keyed(&of, keyed, entry).await?,
                Err(operator) => target.operator(&of, operator, entry).await?,
            };
            self.add(uid, part.subtask, written);
        }
        Ok(())
    }

    /// Counts what was written for a subtask.
    fn add(&mut self, uid: OperatorUid, subtask: SubtaskId, written: Written) {
        self.stored.bytes += written.new;
        self.written.entry((uid, subtask)).or_default().add(written);
    }

    /// Adds the positions of a subtask's source, to the list of splits or as a file.
    async fn source(&mut self, target: &Target<'_>, part: &mut SubtaskSnapshot) -> Result<(), StoreFailure> {
        let Some((uid, positions)) = part.source.take() else {
            return Ok(());
        };
        let Some(entry) = self.entries.get_mut(&uid) else {
            return Ok(());
        };
        match (positions, &mut entry.source) {
            (Positions::Listed(splits), Some(source)) => {
                let split = |s: SplitState| SplitEntry {
                    split: s.split,
                    position: s.position,
                    finished: false,
                };
                source.splits.extend(splits.into_iter().map(split));
            }
            (positions, _) => {
                let of = Part {
                    uid: &uid,
                    subtask: SubtaskIndex(part.subtask.index),
                    range: ITEMS,
                };
                let written = target.positions(&of, positions, entry).await?;
                self.add(uid, part.subtask, written);
            }
        }
        Ok(())
    }

    /// Adds the sink handles of a subtask.
    fn sinks(&mut self, part: &mut SubtaskSnapshot) {
        for (uid, snapshot) in std::mem::take(&mut part.sinks) {
            if let Some(sink) = self.entries.get_mut(&uid).and_then(|entry| entry.sink.as_mut()) {
                sink.handles.extend(snapshot.handles);
            }
            self.stored.sink_states.entry(uid).or_default().push(snapshot.state);
        }
    }

    /// Adds the watermarks and the record of each node in the subtask's chain.
    fn rest(&mut self, part: &SubtaskSnapshot, uids: &[OperatorUid]) {
        for (uid, watermark) in &part.watermarks {
            let Some(entry) = self.entries.get_mut(uid) else {
                continue;
            };
            entry.watermarks.push(*watermark);
            if part.finished.contains(uid) {
                entry.finished_subtasks.push(part.subtask.index);
            }
            // An operator has finished when all of its subtasks have.
            entry.finished = entry.finished_subtasks.len() == entry.parallelism as usize;
            if entry.finished {
                entry.finished_subtasks.clear();
            }
        }
        for uid in uids {
            let Some(entry) = self.entries.get_mut(uid) else {
                continue;
            };
            let written = self
                .written
                .get(&(uid.clone(), part.subtask))
                .copied()
                .unwrap_or_default();
            entry.subtasks.push(SubtaskRecord {
                written_bytes: written.new,
                state_bytes: written.all,
                align_us: part.align_ns / 1000,
                sync_us: part.sync_ns / 1000,
                async_us: part.async_ns / 1000,
            });
        }
    }
}

/// Sorts the splits of all subtasks by their names, which are unique afterwards.
fn order(splits: &mut [SplitEntry], connector: &dyn SourceConnector) {
    splits.sort_by(|a, b| a.split.cmp(&b.split));
    let is_double = |at: &usize| splits[at - 1].split == splits[*at].split;
    let double: Vec<usize> = (1..splits.len()).filter(is_double).collect();
    for at in &double {
        let SplitEntry { split, position, .. } = &mut splits[*at];
        connector.tell_apart(split, position);
    }
    if !double.is_empty() {
        splits.sort_by(|a, b| a.split.cmp(&b.split));
    }
}

/// The first subtask with a copy of a broadcast state, and the items of the copy in order.
type Copy<'a> = (u32, Vec<&'a [u8]>);

/// Checks that all copies of each broadcast state have the same items, in any order.
fn same_broadcasts(facts: &JobFacts, parts: &[SubtaskSnapshot]) -> Result<(), StoreFailure> {
    let mut first: BTreeMap<(&OperatorUid, &str), Copy<'_>> = BTreeMap::new();
    for part in parts {
        for (uid, states) in &part.operator {
            let declared = facts
                .modules
                .get(uid)
                .map(|module| &module.description().operator_states);
            for state in states {
                let is_broadcast = declared.into_iter().flatten().any(|declared| {
                    let kind = SavedStateKind::of_operator(&declared.kind);
                    declared.name == state.name && kind == SavedStateKind::OperatorBroadcast
                });
                if !is_broadcast {
                    continue;
                }
                let mut items: Vec<&[u8]> = state.items.iter().collect();
                items.sort_unstable();
                let subtask = part.subtask.index;
                let (of, copy) = first
                    .entry((uid, &state.name))
                    .or_insert_with(|| (subtask, items.clone()));
                if *copy != items {
                    return Err(StoreFailure::Broadcast {
                        uid: uid.clone(),
                        state: state.name.clone(),
                        subtask,
                        first: *of,
                    });
                }
            }
        }
    }
    Ok(())
}

/// Merges the states of the writers of a node; null where none has any.
fn merged(node: &Node, states: &[serde_json::Value]) -> serde_json::Value {
    if states.iter().all(serde_json::Value::is_null) {
        return serde_json::Value::Null;
    }
    match &node.kind {
        NodeKind::Sink(sink) => sink.connector.merge(states),
        NodeKind::Operator(_) => dead_letters::total(states),
        NodeKind::Source(_) => serde_json::Value::Null,
    }
}

/// Returns the entry of a component in the `_metadata` of a checkpoint.
pub(super) fn shared_module(module: &dyn OperatorModule) -> ModuleFile {
    let sha256 = module.digest().to_string();
    module_file(paths::shared_module(&sha256), &sha256, module.bytes())
}
