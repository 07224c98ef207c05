//! Turns an accepted verdict into the plan of a restore.

use regraft_model::time::NO_TIMESTAMP;

use super::{DroppedState, NewJob, NewNode, RestoreOptions, RestorePlan, RestoredOperator, assign};
use crate::savepoint::compat::{Action, Existing, Refusal, UidVerdict, compare};
use crate::savepoint::metadata::{EntryKind, Metadata, OperatorEntry, SavedStateKind, StateEntry};

/// Plans a restore of the savepoint at `savepoint` (a URL, for messages) into a new job.
///
/// # Errors
/// [`Refusal`] with all problems.
pub fn plan_restore(
    savepoint: &str,
    metadata: &Metadata,
    job: &NewJob,
    options: &RestoreOptions,
) -> Result<RestorePlan, Refusal> {
    let verdict = compare(&Existing::saved(savepoint, metadata), job, options);
    verdict.accepted()?;
    let (mut operators, mut empty) = (Vec::new(), Vec::new());
    for node in &job.nodes {
        let entry = metadata.operator(node.uid.as_str());
        match (entry, verdict.uid(&node.uid)) {
            (Some(entry), Some(of_uid)) if of_uid.action == Action::Kept => {
                operators.push(restored_operator(node, entry, of_uid, metadata.max_parallelism));
            }
            _ => empty.push(node.uid.clone()),
        }
    }
    let dropped = metadata.operators.iter().filter(|entry| entry.is_stateful());
    let dropped = dropped.filter_map(|entry| Some(dropped_states(entry, verdict.uid(&entry.uid)?)));
    Ok(RestorePlan {
        next_checkpoint: metadata.checkpoint_id.next(),
        operators,
        empty,
        dropped: dropped.flatten().collect(),
    })
}

/// The state of a uid that is dropped: all of it, or some states.
fn dropped_states(entry: &OperatorEntry, verdict: &UidVerdict) -> Vec<DroppedState> {
    let dropped = |state: Option<&StateEntry>| DroppedState {
        uid: entry.uid.clone(),
        state: state.map(|state| state.name.clone()),
        keys: state.map_or_else(|| entry.keys(), StateEntry::entries),
        bytes: state.map_or_else(|| entry.bytes(), StateEntry::bytes),
    };
    if verdict.action == Action::Dropped {
        return vec![dropped(None)];
    }
    let states = entry.states.iter();
    let states = states.filter(|state| verdict.drops(&state.name, state.kind));
    states.map(|state| dropped(Some(state))).collect()
}

fn restored_operator(
    node: &NewNode,
    entry: &OperatorEntry,
    verdict: &UidVerdict,
    max_parallelism: u32,
) -> RestoredOperator {
    let kept: Vec<&StateEntry> = entry
        .states
        .iter()
        .filter(|state| !verdict.drops(&state.name, state.kind))
        .collect();
    let is_kept = |name: &str| {
        let mut keyed = kept
            .iter()
            .filter(|state| state.kind.is_keyed() && state.kind != SavedStateKind::Timers);
        keyed.any(|state| state.name == name)
    };
    let declared = node.description.iter().flat_map(|description| &description.states);
    let operator_states = kept.iter().filter(|state| state.kind.is_of_operator());
    let source = entry.source.as_ref();
    RestoredOperator {
        uid: node.uid.clone(),
        kind: node.kind,
        watermark: entry.watermarks.iter().copied().min().unwrap_or(NO_TIMESTAMP),
        finished: match entry.finished {
            true => (0..node.parallelism).collect(),
            false => assign::finished_alone(node, entry).to_vec(),
        },
        subtasks: assign::subtasks(node, entry, &kept, max_parallelism),
        new_states: declared
            .filter(|state| !is_kept(&state.name))
            .map(|state| state.name.clone())
            .collect(),
        operator_states: operator_states.map(|state| state.name.clone()).collect(),
        dropped_timers: dropped_timers(&kept, verdict),
        source_state: source.map_or(serde_json::Value::Null, |source| source.state.clone()),
        sink: entry.sink.clone().filter(|sink| match node.kind {
            EntryKind::Sink => true,
            EntryKind::Operator => node.connector.as_ref() == Some(&sink.connector) && node.identity == sink.identity,
            EntryKind::Source => false,
        }),
    }
}

/// Timers that are dropped by their own names, while others of the uid stay.
fn dropped_timers(kept: &[&StateEntry], verdict: &UidVerdict) -> Vec<String> {
    let timers = kept.iter().flat_map(|state| &state.timers);
    timers
        .filter(|timer| verdict.drops(timer, SavedStateKind::Timers))
        .cloned()
        .collect()
}
