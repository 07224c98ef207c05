//! Compares a savepoint with a job, uid by uid.

use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;
use regraft_model::schema::Type;
use regraft_model::time::NO_TIMESTAMP;

use super::{
    DroppedState, NewJob, NewNode, RestoreOptions, RestorePlan, RestoreProblem, RestoreRefusal, RestoredOperator,
    assign,
};
use crate::savepoint::metadata::{EntryKind, Metadata, OperatorEntry, SavedStateKind, StateEntry};

/// Plans a restore of the savepoint at `savepoint` (a URL, for messages) into a new job.
///
/// # Errors
/// [`RestoreRefusal`] with all problems.
pub fn plan_restore(
    savepoint: &str,
    metadata: &Metadata,
    job: &NewJob,
    options: &RestoreOptions,
) -> Result<RestorePlan, RestoreRefusal> {
    let mut comparison = Comparison {
        options,
        problems: Vec::new(),
        dropped: Vec::new(),
    };
    comparison.job(savepoint, metadata, job);
    let mut restored = Vec::new();
    for entry in metadata.operators.iter().filter(|entry| entry.is_stateful()) {
        let node = job.nodes.iter().find(|node| node.uid == entry.uid);
        if let Some((node, kept)) = comparison.entry(entry, node) {
            restored.push((node, entry, kept));
        }
    }
    if !comparison.problems.is_empty() {
        return Err(RestoreRefusal {
            savepoint: savepoint.to_owned(),
            problems: comparison.problems,
        });
    }
    let mut operators = Vec::new();
    let mut empty = Vec::new();
    for node in &job.nodes {
        match restored.iter().position(|(of, ..)| of.uid == node.uid) {
            Some(at) => {
                let (node, entry, kept) = restored.swap_remove(at);
                operators.push(restored_operator(node, entry, kept, metadata.max_parallelism));
            }
            // A stateless uid may still have left its watermark.
            None => match metadata
                .operators
                .iter()
                .find(|entry| entry.uid == node.uid && !entry.is_stateful())
            {
                Some(entry) if entry.kind == node.kind => {
                    operators.push(restored_operator(
                        node,
                        entry,
                        Kept::default(),
                        metadata.max_parallelism,
                    ));
                }
                _ => empty.push(node.uid.clone()),
            },
        }
    }
    let next_checkpoint = metadata.checkpoint_id.next();
    Ok(RestorePlan {
        next_checkpoint,
        operators,
        empty,
        dropped: comparison.dropped,
    })
}

/// What of a uid is restored.
#[derive(Default)]
struct Kept<'a> {
    states: Vec<&'a StateEntry>,
    dropped_timers: Vec<String>,
}

struct Comparison<'a> {
    options: &'a RestoreOptions,
    problems: Vec<RestoreProblem>,
    dropped: Vec<DroppedState>,
}

impl Comparison<'_> {
    fn job(&mut self, savepoint: &str, metadata: &Metadata, job: &NewJob) {
        let saved = metadata.max_parallelism;
        if job.max_parallelism != saved {
            let (savepoint, new) = (savepoint.to_owned(), job.max_parallelism);
            self.problems
                .push(RestoreProblem::MaxParallelism { savepoint, saved, new });
        }
        for node in job
            .nodes
            .iter()
            .filter(|node| node.parallelism == 0 || node.parallelism > saved)
        {
            let (uid, new) = (node.uid.clone(), node.parallelism);
            self.problems.push(RestoreProblem::Parallelism {
                uid,
                new,
                max_parallelism: saved,
            });
        }
        let known: Vec<String> = metadata
            .operators
            .iter()
            .filter(|entry| entry.is_stateful())
            .flat_map(droppable)
            .collect();
        for given in self.options.drop_state.iter().filter(|given| !known.contains(given)) {
            self.problems.push(RestoreProblem::UnknownDrop {
                given: given.clone(),
                known: known.clone(),
            });
        }
    }

    fn drops(&self, uid: &OperatorUid, state: Option<&str>) -> bool {
        let wanted = state.map_or_else(|| uid.to_string(), |state| format!("{uid}/{state}"));
        self.options.drop_state.contains(&wanted)
    }

    fn entry<'a>(&mut self, entry: &'a OperatorEntry, node: Option<&'a NewNode>) -> Option<(&'a NewNode, Kept<'a>)> {
        let uid = entry.uid.clone();
        let (keys, bytes) = (entry.keys(), entry.bytes());
        if self.drops(&uid, None) || (node.is_none() && self.options.allow_non_restored) {
            self.dropped.push(DroppedState {
                uid,
                state: None,
                keys,
                bytes,
            });
            return None;
        }
        let Some(node) = node else {
            self.problems.push(RestoreProblem::Orphan {
                uid,
                kind: entry.kind,
                keys,
                bytes,
                parts: entry.pending_parts(),
            });
            return None;
        };
        if node.kind != entry.kind {
            self.problems.push(RestoreProblem::Kind {
                uid,
                saved: entry.kind,
                new: node.kind,
            });
            return None;
        }
        self.identity(entry, node);
        let mut kept = Kept::default();
        let declared = node.description.as_ref();
        self.key(entry, declared);
        for state in &entry.states {
            if self.drops(&uid, Some(&state.name)) {
                let (keys, bytes) = (state.entries(), state.bytes());
                self.dropped.push(DroppedState {
                    uid: uid.clone(),
                    state: Some(state.name.clone()),
                    keys,
                    bytes,
                });
            } else if state.kind == SavedStateKind::Timers {
                kept.dropped_timers = self.timers(entry, state, declared);
                kept.states.push(state);
            } else {
                self.state(&uid, state, declared);
                kept.states.push(state);
            }
        }
        Some((node, kept))
    }

    fn identity(&mut self, entry: &OperatorEntry, node: &NewNode) {
        // Where an operator's dead letters go may change: those that are pending elsewhere are not its own any more.
        if entry.kind == EntryKind::Operator {
            return;
        }
        let saved = match (&entry.source, &entry.sink) {
            (Some(source), _) => (&source.connector, &source.identity),
            (None, Some(sink)) => (&sink.connector, &sink.identity),
            (None, None) => return,
        };
        if node.connector.as_ref() == Some(saved.0) && node.identity == *saved.1 {
            return;
        }
        self.problems.push(RestoreProblem::Identity {
            uid: entry.uid.clone(),
            kind: entry.kind,
            saved: format!("{} {}", saved.0, saved.1),
            new: format!("{} {}", node.connector.as_deref().unwrap_or("none"), node.identity),
        });
    }

    /// The key is the uid's: one problem, not one for each state.
    fn key(&mut self, entry: &OperatorEntry, declared: Option<&Description>) {
        let mut kept = entry
            .states
            .iter()
            .filter(|state| !self.drops(&entry.uid, Some(&state.name)));
        let Some(saved) = kept.find_map(|state| state.key.as_ref()) else {
            return;
        };
        let new = declared.and_then(|declared| declared.key.as_ref()).map(|key| &key.ty);
        if new.map(Type::digest) != Some(saved.ty.digest()) {
            let new = new.map_or_else(|| "none".to_owned(), |new| format!("{new} (digest {})", new.digest()));
            let saved = Box::new(saved.ty.clone());
            self.problems.push(RestoreProblem::Key {
                uid: entry.uid.clone(),
                saved,
                new,
            });
        }
    }

    fn state(&mut self, uid: &OperatorUid, saved: &StateEntry, declared: Option<&Description>) {
        let (uid, state) = (uid.clone(), saved.name.clone());
        let Some((kind, schema, map_key)) = declared.and_then(|declared| declared_state(declared, saved)) else {
            let (keys, bytes) = (saved.entries(), saved.bytes());
            self.problems.push(RestoreProblem::OrphanState {
                uid,
                state,
                keys,
                bytes,
            });
            return;
        };
        if kind != saved.kind {
            self.problems.push(RestoreProblem::StateKind {
                uid,
                state,
                saved: saved.kind,
                new: kind,
            });
        } else if saved.map_key.as_ref().map(Type::digest) != map_key.map(Type::digest) {
            let text = |key: Option<&Type>| {
                key.map_or_else(|| "none".to_owned(), |key| format!("{key} (digest {})", key.digest()))
            };
            let (saved, new) = (text(saved.map_key.as_ref()), text(map_key));
            self.problems.push(RestoreProblem::MapKey { uid, state, saved, new });
        } else if let Some(other) = saved
            .schemas
            .iter()
            .rev()
            .find(|other| other.digest() != schema.digest())
        {
            let (saved, new) = (Box::new(other.clone()), Box::new(schema.clone()));
            self.problems.push(RestoreProblem::Schema { uid, state, saved, new });
        }
    }

    /// Pending timers that the new component does not declare; those of them that are allowed to be dropped. A timer that
    /// waits for another clock now is another timer.
    fn timers(&mut self, entry: &OperatorEntry, state: &StateEntry, new: Option<&Description>) -> Vec<String> {
        let mut dropped = Vec::new();
        for name in &state.timers {
            let (old_time, new_time) = (time_of(entry.description.as_ref(), name), time_of(new, name));
            if new_time.is_some() && (old_time.is_none() || old_time == new_time) {
                continue;
            }
            if self.drops(&entry.uid, Some(name)) {
                dropped.push(name.clone());
                continue;
            }
            let (uid, timer) = (entry.uid.clone(), name.clone());
            self.problems.push(match (old_time, new_time) {
                (Some(saved), Some(new)) => RestoreProblem::TimerTime {
                    uid,
                    timer,
                    saved: saved.to_owned(),
                    new: new.to_owned(),
                },
                _ => RestoreProblem::OrphanTimer { uid, timer },
            });
        }
        dropped
    }
}

/// What a timer waits for, `event` or `processing`; none: it is not declared.
fn time_of<'a>(description: Option<&'a Description>, name: &str) -> Option<&'a str> {
    let mut timers = description.into_iter().flat_map(|description| &description.timers);
    timers.find(|timer| timer.name == name).map(|timer| timer.time.as_str())
}

/// What `--drop-state` may name of a uid.
fn droppable(entry: &OperatorEntry) -> Vec<String> {
    let timers = entry.states.iter().flat_map(|state| &state.timers);
    let names = entry.states.iter().map(|state| &state.name).chain(timers);
    let mut all = vec![entry.uid.to_string()];
    all.extend(names.map(|name| format!("{}/{name}", entry.uid)));
    all
}

/// The kind, the type of values and that of map keys of a state of that name: keyed and operator states have names of their
/// own.
fn declared_state<'a>(
    declared: &'a Description,
    saved: &StateEntry,
) -> Option<(SavedStateKind, &'a Type, Option<&'a Type>)> {
    if saved.kind.is_keyed() {
        let state = declared.states.iter().find(|state| state.name == saved.name)?;
        return Some((state.kind.into(), &state.schema, state.map_key.as_ref()));
    }
    let state = declared.operator_states.iter().find(|state| state.name == saved.name)?;
    Some((SavedStateKind::of_operator(&state.kind), &state.schema, None))
}

fn restored_operator(node: &NewNode, entry: &OperatorEntry, kept: Kept<'_>, max_parallelism: u32) -> RestoredOperator {
    let declared = node.description.iter().flat_map(|description| &description.states);
    let is_saved = |name: &str| {
        let same = |state: &&&StateEntry| state.name == name && state.kind.is_keyed();
        kept.states
            .iter()
            .any(|state| same(&state) && state.kind != SavedStateKind::Timers)
    };
    RestoredOperator {
        uid: node.uid.clone(),
        kind: node.kind,
        watermark: entry.watermarks.iter().copied().min().unwrap_or(NO_TIMESTAMP),
        finished: match entry.finished {
            true => (0..node.parallelism).collect(),
            false => assign::finished_alone(node, entry).to_vec(),
        },
        subtasks: assign::subtasks(node, entry, &kept.states, max_parallelism),
        new_states: declared
            .filter(|state| !is_saved(&state.name))
            .map(|state| state.name.clone())
            .collect(),
        operator_states: kept
            .states
            .iter()
            .filter(|state| !state.kind.is_keyed())
            .map(|state| state.name.clone())
            .collect(),
        dropped_timers: kept.dropped_timers,
        source_state: entry
            .source
            .as_ref()
            .map_or(serde_json::Value::Null, |source| source.state.clone()),
        sink: entry.sink.clone().filter(|sink| match node.kind {
            EntryKind::Sink => true,
            EntryKind::Operator => node.connector.as_ref() == Some(&sink.connector) && node.identity == sink.identity,
            EntryKind::Source => false,
        }),
    }
}
