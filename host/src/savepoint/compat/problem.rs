//! The reasons why state cannot be taken over: each with a code, one text and a remedy.

use regraft_model::id::OperatorUid;
use regraft_model::schema::Type;

use super::facts::{Place, Size};
use crate::graph::suggest::nearest;
use crate::savepoint::metadata::{EntryKind, SavedStateKind};

/// A reason, with what it is about. Displayed as subject, text and remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place that has the state.
    pub place: Place,
    /// The uid; `None` for the job as a whole.
    pub uid: Option<OperatorUid>,
    /// The reason.
    pub reason: Reason,
}

/// A reason why state would be lost or misread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The number of key groups differs.
    MaxParallelism {
        /// As it was.
        old: u32,
        /// In the new job.
        new: u32,
    },
    /// There are more subtasks than key groups, or none.
    Parallelism {
        /// In the new job.
        new: u32,
        /// The number of key groups.
        max_parallelism: u32,
    },
    /// A `--drop-state` names nothing that exists.
    UnknownDrop {
        /// As given.
        given: String,
        /// Everything that can be dropped.
        known: Vec<String>,
    },
    /// The new job does not have a uid that has state.
    UidAbsent {
        /// Its kind.
        kind: EntryKind,
        /// Size of its state.
        size: Option<Size>,
        /// The number of output parts that are not committed.
        pending_parts: usize,
    },
    /// The uid is another kind of node in the new job.
    NodeKind {
        /// As it was.
        old: EntryKind,
        /// In the new job.
        new: EntryKind,
    },
    /// The source reads, or the sink writes, something else in the new job.
    Identity {
        /// Source or sink.
        kind: EntryKind,
        /// Connector and identity as they were.
        old: String,
        /// In the new job.
        new: String,
    },
    /// The keys of a uid's states have another type in the new component.
    KeyType {
        /// As it was.
        old: Box<Type>,
        /// In the component; `None` where it declares no key.
        new: Option<Box<Type>>,
    },
    /// The new component does not declare a state.
    StateUndeclared {
        /// The state.
        state: String,
        /// Its size.
        size: Option<Size>,
    },
    /// A state has another kind in the new component.
    StateKind {
        /// The state.
        state: String,
        /// As it was.
        old: SavedStateKind,
        /// In the component.
        new: SavedStateKind,
    },
    /// The keys of a map have another type in the new component.
    MapKeyType {
        /// The state.
        state: String,
        /// As it was.
        old: Option<Box<Type>>,
        /// In the component.
        new: Option<Box<Type>>,
    },
    /// The values of a state have another type in the new component.
    Schema {
        /// The state.
        state: String,
        /// As it was.
        old: Box<Type>,
        /// In the component.
        new: Box<Type>,
    },
    /// The new component does not declare a timer that may be pending.
    TimerUndeclared {
        /// The timer.
        timer: String,
    },
    /// A timer that may be pending waits for another clock in the new component.
    TimerTime {
        /// The timer.
        timer: String,
        /// `event` or `processing`, as it was.
        old: String,
        /// In the component.
        new: String,
    },
}

impl Reason {
    /// Returns its word for programs, from a closed list.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MaxParallelism { .. } => "max-parallelism",
            Self::Parallelism { .. } => "parallelism",
            Self::UnknownDrop { .. } => "unknown-drop",
            Self::UidAbsent { .. } => "uid-absent",
            Self::NodeKind { .. } => "node-kind",
            Self::Identity { .. } => "identity",
            Self::KeyType { .. } => "key-type",
            Self::StateUndeclared { .. } => "state-undeclared",
            Self::StateKind { .. } => "state-kind",
            Self::MapKeyType { .. } => "map-key-type",
            Self::Schema { .. } => "schema",
            Self::TimerUndeclared { .. } => "timer-undeclared",
            Self::TimerTime { .. } => "timer-time",
        }
    }
}

impl Problem {
    /// Returns its word for programs, from a closed list.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.reason.code()
    }

    /// Tells what was expected and what was found, without uid and remedy.
    #[must_use]
    pub fn text(&self) -> String {
        let Words {
            has,
            as_in,
            job,
            timers,
        } = words(&self.place);
        match &self.reason {
            Reason::MaxParallelism { old, new } => {
                format!("max parallelism: expected {old}, {as_in}; {job} has {new}")
            }
            Reason::Parallelism { new, max_parallelism } => {
                format!("expected parallelism 1 to {max_parallelism}, the max parallelism; {job} has {new}")
            }
            Reason::UnknownDrop { given, .. } => format!("--drop-state {given}: {has} no such state"),
            Reason::UidAbsent {
                kind,
                size,
                pending_parts,
            } => format!(
                "{has} state of this {kind}{}; {job} has no such uid",
                amount(*size, *pending_parts)
            ),
            Reason::NodeKind { old, new } => format!(
                "expected {}, {as_in}; {job} has a different node ({new}) of that uid",
                with_article(old)
            ),
            Reason::Identity { kind, old, new } => format!("expected {kind} {old}, {as_in}; {job} has {new}"),
            Reason::KeyType { old, new } => format!(
                "expected key {}, {as_in}; this component has key {}",
                with_digest(Some(old)),
                with_digest(new.as_deref())
            ),
            Reason::StateUndeclared { state, size } => format!(
                "{has} state \"{state}\"{}; this component does not declare it",
                amount(*size, 0)
            ),
            Reason::StateKind { state, old, new } => format!(
                "state \"{state}\": expected {} state, {as_in}; this component declares {} state",
                with_article(old),
                with_article(new)
            ),
            Reason::MapKeyType { state, old, new } => format!(
                "state \"{state}\": expected map key {}, {as_in}; this component has map key {}",
                with_digest(old.as_deref()),
                with_digest(new.as_deref())
            ),
            Reason::Schema { state, old, new } => format!(
                "state \"{state}\": expected schema {}, {as_in}; this component reads {}",
                with_digest(Some(old)),
                with_digest(Some(new))
            ),
            Reason::TimerUndeclared { timer } => {
                format!("{timers} \"{timer}\"; this component does not declare the timer")
            }
            Reason::TimerTime { timer, old, new } => {
                format!("{timers} \"{timer}\" by {old} time; this component declares the timer by {new} time")
            }
        }
    }

    /// Tells what to do about it, in sentences.
    #[must_use]
    pub fn remedy(&self) -> String {
        match &self.reason {
            Reason::MaxParallelism { old, new } => {
                let savepoint = match &self.place {
                    Place::Savepoint(url) => url.as_str(),
                    Place::RunningJob => "SAVEPOINT",
                };
                format!(
                    "It is fixed for the life of the state: set max-parallelism = {old}. The offline rewrite, `regraft state edit {savepoint} --max-parallelism {new} -o NEW`, is not implemented yet."
                )
            }
            Reason::Parallelism { .. } => "Lower it.".to_owned(),
            Reason::UnknownDrop { given, known } => {
                let all: Vec<&str> = known.iter().map(String::as_str).collect();
                let near = nearest(given, &all).map(|near| format!("; did you mean {near}?"));
                format!("Expected one of: {}{}", known.join(", "), near.unwrap_or_default())
            }
            Reason::UidAbsent { .. } => format!(
                "Add it, or {}, or that of all absent uids with -n/--allow-non-restored-state.",
                self.drop("its state", None)
            ),
            Reason::NodeKind { .. } => format!("Give it another uid, or {}.", self.drop("the old state", None)),
            Reason::Identity { .. } => format!("Change it back, or {}.", self.by_flag("start it afresh", None)),
            Reason::KeyType { .. } => format!(
                "Keys do not migrate: deploy a component with that key, or {}.",
                self.drop("the state", None)
            ),
            Reason::StateUndeclared { state, .. } => {
                format!(
                    "Deploy a component that does, or {}.",
                    self.drop("the state", Some(state))
                )
            }
            Reason::StateKind { state, old, .. } => format!(
                "Deploy a component that declares {} state, or {}.",
                with_article(old),
                self.drop("the state", Some(state))
            ),
            Reason::MapKeyType { state, .. } => format!(
                "Keys do not migrate: deploy a component with that map key, or {}.",
                self.drop("the state", Some(state))
            ),
            Reason::Schema { state, old, .. } => format!(
                "Deploy a component that reads {old}, or {}.",
                self.drop("the state", Some(state))
            ),
            Reason::TimerUndeclared { timer } => format!(
                "Deploy a component that does, or {}.",
                self.drop("its pending timers", Some(timer))
            ),
            Reason::TimerTime { timer, old, .. } => format!(
                "Deploy a component that declares it by {old} time, give the new one another name, or {}.",
                self.drop("its pending timers", Some(timer))
            ),
        }
    }

    /// Tells how to drop something of the uid.
    fn drop(&self, what: &str, state: Option<&str>) -> String {
        self.by_flag(&format!("drop {what}"), state)
    }

    /// Tells how to do something that takes `--drop-state`. A running job has to be stopped for it.
    fn by_flag(&self, deed: &str, state: Option<&str>) -> String {
        let uid = self.uid.as_ref().map_or("UID", OperatorUid::as_str);
        let state = state.map_or_else(String::new, |state| format!("/{state}"));
        match self.place {
            Place::Savepoint(_) => format!("{deed} with --drop-state {uid}{state}"),
            Place::RunningJob => {
                format!("{deed}: stop the job, and start the new one with run -s SAVEPOINT --drop-state {uid}{state}")
            }
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(uid) = &self.uid {
            write!(f, "uid \"{uid}\": ")?;
        }
        write!(f, "{}. {}", self.text(), self.remedy())
    }
}

/// Parts of a text that depend on the place.
struct Words {
    has: &'static str,
    as_in: &'static str,
    job: &'static str,
    timers: &'static str,
}

const fn words(place: &Place) -> Words {
    match place {
        Place::Savepoint(_) => Words {
            has: "the savepoint has",
            as_in: "as in the savepoint",
            job: "the job",
            timers: "the savepoint has pending timers",
        },
        Place::RunningJob => Words {
            has: "the running job has",
            as_in: "as in the running job",
            job: "the new job",
            timers: "the running job may have pending timers",
        },
    }
}

/// Returns ` (2 keys, 30 bytes, 1 part(s) of output that is not committed)`, as far as that is known.
fn amount(size: Option<Size>, pending_parts: usize) -> String {
    let mut known = Vec::new();
    if let Some(Size { keys, bytes }) = size {
        known.push(format!("{keys} keys, {bytes} bytes"));
    }
    if pending_parts > 0 {
        known.push(format!("{pending_parts} part(s) of output that is not committed"));
    }
    if known.is_empty() {
        return String::new();
    }
    format!(" ({})", known.join(", "))
}

/// Returns `u64 (digest 0123456789abcdef)`, or `none`.
fn with_digest(ty: Option<&Type>) -> String {
    ty.map_or_else(|| "none".to_owned(), |ty| format!("{ty} (digest {})", ty.digest()))
}

/// Returns `an operator`, `a sink`.
fn with_article(noun: &impl std::fmt::Display) -> String {
    let noun = noun.to_string();
    let article = if noun.starts_with(['a', 'e', 'i', 'o']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}
