//! Compares existing state with a new job, uid by uid and state by state.

use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;
use regraft_model::schema::Type;

use super::facts::{
    Existing, ExistingState, ExistingTimer, ExistingUid, NewJob, NewNode, Place, RestoreOptions, time_of,
};
use super::problem::{Problem, Reason};
use super::verdict::{Action, Fate, StateVerdict, UidVerdict, Verdict};
use crate::graph::identity::is_same;
use crate::savepoint::metadata::{EntryKind, SavedStateKind};

/// Returns the verdict on a job that is to take over existing state. Reads and writes nothing.
#[must_use]
pub fn compare(existing: &Existing, job: &NewJob, options: &RestoreOptions) -> Verdict {
    let place = &existing.place;
    let node = |uid: &OperatorUid| job.nodes.iter().find(|node| node.uid == *uid);
    let mut uids: Vec<UidVerdict> = existing
        .uids
        .iter()
        .map(|uid| OfUid { place, uid, options }.verdict(node(&uid.uid)))
        .collect();
    let is_new = |node: &&NewNode| !existing.uids.iter().any(|uid| uid.uid == node.uid);
    uids.extend(job.nodes.iter().filter(is_new).map(new_uid));
    Verdict {
        place: place.clone(),
        problems: of_the_job(existing, job, options),
        uids,
    }
}

/// Returns the problems of the job as a whole.
fn of_the_job(existing: &Existing, job: &NewJob, options: &RestoreOptions) -> Vec<Problem> {
    let problem = |uid: Option<&OperatorUid>, reason| Problem {
        place: existing.place.clone(),
        uid: uid.cloned(),
        reason,
    };
    let (old, new) = (existing.max_parallelism, job.max_parallelism);
    let mut problems = Vec::new();
    if new != old {
        problems.push(problem(None, Reason::MaxParallelism { old, new }));
    }
    for node in &job.nodes {
        if node.parallelism == 0 || node.parallelism > old {
            let (new, max_parallelism) = (node.parallelism, old);
            problems.push(problem(Some(&node.uid), Reason::Parallelism { new, max_parallelism }));
        }
    }
    let known: Vec<String> = existing.uids.iter().flat_map(droppable).collect();
    for given in options.drop_state.iter().filter(|given| !known.contains(given)) {
        let (given, known) = (given.clone(), known.clone());
        problems.push(problem(None, Reason::UnknownDrop { given, known }));
    }
    problems
}

/// Returns everything of a uid that `--drop-state` may name.
fn droppable(uid: &ExistingUid) -> Vec<String> {
    if !uid.is_stateful {
        return Vec::new();
    }
    let states = uid.states.iter().map(|state| &state.name);
    let timers = uid.states.iter().flat_map(|state| &state.timers);
    let names = states.chain(timers.map(|timer| &timer.name));
    let mut all = vec![uid.uid.to_string()];
    all.extend(names.map(|name| format!("{}/{name}", uid.uid)));
    all
}

/// Returns the verdict on a uid that did not exist.
fn new_uid(node: &NewNode) -> UidVerdict {
    UidVerdict {
        uid: node.uid.clone(),
        action: Action::New,
        reasons: Vec::new(),
        states: node.description.iter().flat_map(|new| new_states(new, &[])).collect(),
        size: None,
    }
}

/// Returns verdicts on the declared states and timers that did not exist.
fn new_states(declared: &Description, existing: &[ExistingState]) -> Vec<StateVerdict> {
    let keyed = declared.states.iter().map(|state| (&state.name, state.kind.into()));
    let operator = declared
        .operator_states
        .iter()
        .map(|state| (&state.name, SavedStateKind::of_operator(&state.kind)));
    let states = keyed
        .chain(operator)
        .filter(|(name, kind): &(&String, SavedStateKind)| {
            let mut others = existing.iter().filter(|state| state.kind != SavedStateKind::Timers);
            !others.any(|state| state.name == **name && state.kind.is_keyed() == kind.is_keyed())
        });
    let timers = declared
        .timers
        .iter()
        .map(|timer| (&timer.name, SavedStateKind::Timers));
    let timers = timers.filter(|(name, _)| {
        let mut others = existing.iter().flat_map(|state| &state.timers);
        !others.any(|timer| timer.name == **name)
    });
    states
        .chain(timers)
        .map(|(name, kind)| StateVerdict {
            state: name.clone(),
            kind,
            fate: Fate::New,
            reasons: Vec::new(),
            size: None,
        })
        .collect()
}

/// A uid that exists, about to be compared.
struct OfUid<'a> {
    place: &'a Place,
    uid: &'a ExistingUid,
    options: &'a RestoreOptions,
}

impl OfUid<'_> {
    fn verdict(&self, node: Option<&NewNode>) -> UidVerdict {
        let Some(node) = node else {
            return self.absent();
        };
        if !self.uid.is_stateful {
            let action = if node.kind == self.uid.kind {
                Action::Kept
            } else {
                Action::New
            };
            let states = node.description.iter().flat_map(|new| new_states(new, &[]));
            return self.uid_verdict(action, Vec::new(), states.collect());
        }
        if self.drops(None) {
            return self.whole(Action::Dropped, Fate::Dropped, Vec::new());
        }
        if node.kind != self.uid.kind {
            let (old, new) = (self.uid.kind, node.kind);
            let reasons = vec![self.problem(Reason::NodeKind { old, new })];
            return self.whole(Action::Incompatible, Fate::Incompatible, reasons);
        }
        self.present(node)
    }

    /// Returns the verdict on a uid that the new job does not have.
    fn absent(&self) -> UidVerdict {
        let uid = self.uid;
        if !uid.is_stateful || self.drops(None) || self.options.allow_non_restored {
            return self.whole(Action::Dropped, Fate::Dropped, Vec::new());
        }
        let reasons = vec![self.problem(Reason::UidAbsent {
            kind: uid.kind,
            size: uid.size,
            pending_parts: uid.pending_parts,
        })];
        self.whole(Action::Incompatible, Fate::Incompatible, reasons)
    }

    /// Returns the verdict on a uid that the new job has as a node of the same kind.
    fn present(&self, node: &NewNode) -> UidVerdict {
        let declared = node.description.as_ref();
        let key = self.key_type(declared);
        let mut states = Vec::new();
        for state in &self.uid.states {
            if self.drops(Some(&state.name)) {
                states.push(self.state_verdict(state, Fate::Dropped, None));
            } else if state.kind == SavedStateKind::Timers {
                states.extend(
                    state
                        .timers
                        .iter()
                        .map(|timer| self.timer(timer, declared, key.is_some())),
                );
            } else {
                let reason = state_reason(state, declared);
                let fate = match (&reason, &key) {
                    (None, None) => Fate::AsIs,
                    (None, Some(_)) if state.key.is_none() => Fate::AsIs,
                    _ => Fate::Incompatible,
                };
                states.push(self.state_verdict(state, fate, reason));
            }
        }
        let reasons: Vec<Problem> = self
            .identity(node)
            .into_iter()
            .chain(key)
            .map(|reason| self.problem(reason))
            .collect();
        let refused = !reasons.is_empty() || states.iter().any(|state| state.fate == Fate::Incompatible);
        let action = if refused { Action::Incompatible } else { Action::Kept };
        states.extend(declared.iter().flat_map(|new| new_states(new, &self.uid.states)));
        self.uid_verdict(action, reasons, states)
    }

    /// Compares what a source reads or a sink writes.
    fn identity(&self, node: &NewNode) -> Option<Reason> {
        let uid = self.uid;
        let connector = uid.connector.as_ref()?;
        // An operator's dead letters may go elsewhere: those that are pending are left to the run that wrote them.
        if uid.kind == EntryKind::Operator
            || (node.connector.as_ref() == Some(connector) && is_same(&uid.identity, &node.identity))
        {
            return None;
        }
        Some(Reason::Identity {
            kind: uid.kind,
            old: format!("{connector} {}", uid.identity),
            new: format!("{} {}", node.connector.as_deref().unwrap_or("none"), node.identity),
        })
    }

    /// Compares the type of the keys. All states of a uid have the same one, so it is one reason for all of them.
    fn key_type(&self, declared: Option<&Description>) -> Option<Reason> {
        let mut kept = self.uid.states.iter().filter(|state| !self.drops(Some(&state.name)));
        let old = kept.find_map(|state| state.key.as_ref())?;
        let new = declared.and_then(|declared| declared.key.as_ref()).map(|key| &key.ty);
        (new.map(Type::digest) != Some(old.digest())).then(|| Reason::KeyType {
            old: Box::new(old.clone()),
            new: new.cloned().map(Box::new),
        })
    }

    /// Returns the verdict on a timer. One that waits for another clock now is another timer.
    fn timer(&self, timer: &ExistingTimer, declared: Option<&Description>, key_differs: bool) -> StateVerdict {
        let name = timer.name.clone();
        let reason = match (&timer.time, time_of(declared, &name)) {
            (_, None) => Some(Reason::TimerUndeclared { timer: name }),
            (Some(old), Some(new)) if old != new => Some(Reason::TimerTime {
                timer: name,
                old: old.clone(),
                new: new.to_owned(),
            }),
            (_, Some(_)) => None,
        };
        let (fate, reason) = match reason {
            None if key_differs => (Fate::Incompatible, None),
            None => (Fate::AsIs, None),
            Some(_) if self.drops(Some(&timer.name)) => (Fate::Dropped, None),
            Some(reason) => (Fate::Incompatible, Some(self.problem(reason))),
        };
        StateVerdict {
            state: timer.name.clone(),
            kind: SavedStateKind::Timers,
            fate,
            reasons: reason.into_iter().collect(),
            size: None,
        }
    }

    fn drops(&self, state: Option<&str>) -> bool {
        self.options.drops(&self.uid.uid, state)
    }

    fn problem(&self, reason: Reason) -> Problem {
        Problem {
            place: self.place.clone(),
            uid: Some(self.uid.uid.clone()),
            reason,
        }
    }

    fn state_verdict(&self, state: &ExistingState, fate: Fate, reason: Option<Reason>) -> StateVerdict {
        StateVerdict {
            state: state.name.clone(),
            kind: state.kind,
            fate,
            reasons: reason.into_iter().map(|reason| self.problem(reason)).collect(),
            size: state.size,
        }
    }

    /// Returns a verdict with the same fate for all of the uid's states.
    fn whole(&self, action: Action, fate: Fate, reasons: Vec<Problem>) -> UidVerdict {
        let states = self.uid.states.iter();
        let states = states.map(|state| self.state_verdict(state, fate, None)).collect();
        self.uid_verdict(action, reasons, states)
    }

    fn uid_verdict(&self, action: Action, reasons: Vec<Problem>, states: Vec<StateVerdict>) -> UidVerdict {
        UidVerdict {
            uid: self.uid.uid.clone(),
            action,
            reasons,
            states,
            size: self.uid.size,
        }
    }
}

/// Returns the reason why a keyed state or operator state cannot be taken over, apart from the type of its keys.
fn state_reason(old: &ExistingState, declared: Option<&Description>) -> Option<Reason> {
    let state = old.name.clone();
    let Some(new) = declared.and_then(|declared| declared_state(declared, old)) else {
        let size = old.size;
        return Some(Reason::StateUndeclared { state, size });
    };
    if new.kind != old.kind {
        let (old, new) = (old.kind, new.kind);
        return Some(Reason::StateKind { state, old, new });
    }
    if old.map_key.as_ref().map(Type::digest) != new.map_key.map(Type::digest) {
        return Some(Reason::MapKeyType {
            state,
            old: old.map_key.clone().map(Box::new),
            new: new.map_key.cloned().map(Box::new),
        });
    }
    // Values of any of the schemas may be there; the newest that differs is named.
    let other = old
        .schemas
        .iter()
        .rev()
        .find(|old| old.digest() != new.schema.digest())?;
    Some(Reason::Schema {
        state,
        old: Box::new(other.clone()),
        new: Box::new(new.schema.clone()),
    })
}

/// A state as the new component declares it.
struct Declared<'a> {
    kind: SavedStateKind,
    schema: &'a Type,
    map_key: Option<&'a Type>,
}

/// Returns the declared state of that name: keyed and operator states have names of their own.
fn declared_state<'a>(declared: &'a Description, old: &ExistingState) -> Option<Declared<'a>> {
    if old.kind.is_keyed() {
        let state = declared.states.iter().find(|state| state.name == old.name)?;
        return Some(Declared {
            kind: state.kind.into(),
            schema: &state.schema,
            map_key: state.map_key.as_ref(),
        });
    }
    let state = declared.operator_states.iter().find(|state| state.name == old.name)?;
    Some(Declared {
        kind: SavedStateKind::of_operator(&state.kind),
        schema: &state.schema,
        map_key: None,
    })
}
