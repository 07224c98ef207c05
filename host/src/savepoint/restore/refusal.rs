//! Why a restore is refused: every problem with uid, what was expected, what was found and the remedy.

use regraft_model::id::OperatorUid;
use regraft_model::schema::Type;

use crate::savepoint::metadata::{EntryKind, SavedStateKind};

/// A restore that would lose or misread state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot restore from {savepoint}:{}", list(problems))]
pub struct RestoreRefusal {
    /// As a URL.
    pub savepoint: String,
    /// All of them, in order of the savepoint's uids; the job's own first.
    pub problems: Vec<RestoreProblem>,
}

impl RestoreRefusal {
    /// The uid that all problems are about, where they are about one.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        let first = self.problems.first()?.uid()?;
        let all = self.problems.iter().all(|problem| problem.uid() == Some(first));
        all.then(|| first.to_string())
    }
}

fn list(problems: &[RestoreProblem]) -> String {
    problems
        .iter()
        .fold(String::new(), |list, problem| format!("{list}\n  {problem}"))
}

/// Output that is lost with what names it.
fn pending(parts: usize) -> String {
    match parts {
        0 => String::new(),
        parts => format!(", {parts} part(s) of output that is not committed"),
    }
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreProblem {
    /// The number of key groups is another.
    #[error(
        "max parallelism: expected {saved}, as in the savepoint; the job has {new}. It is fixed for the life of the state: set max-parallelism = {saved}, or rewrite the savepoint offline with `regraft state edit {savepoint} --max-parallelism {new} -o NEW`."
    )]
    MaxParallelism {
        /// As a URL.
        savepoint: String,
        /// In the savepoint.
        saved: u32,
        /// In the job.
        new: u32,
    },
    /// More subtasks than key groups.
    #[error(
        "uid \"{uid}\": expected parallelism 1 to {max_parallelism}, the max parallelism; the job has {new}. Lower it."
    )]
    Parallelism {
        /// The uid.
        uid: OperatorUid,
        /// In the job.
        new: u32,
        /// In the savepoint.
        max_parallelism: u32,
    },
    /// The new job does not have a uid that has state.
    #[error(
        "uid \"{uid}\": the savepoint has state of this {kind} ({keys} keys, {bytes} bytes{}); the job has no such uid. Add it, or drop its state with --drop-state {uid}, or that of all absent uids with -n/--allow-non-restored-state.",
        pending(*parts)
    )]
    Orphan {
        /// The uid.
        uid: OperatorUid,
        /// What it was.
        kind: EntryKind,
        /// How many keys.
        keys: u64,
        /// How many bytes of state files.
        bytes: u64,
        /// How many parts of output are not committed.
        parts: usize,
    },
    /// The uid is something else now.
    #[error(
        "uid \"{uid}\": expected {}, as in the savepoint; the job has a different node ({new}) of that uid. Give it another uid, or drop the old state with --drop-state {uid}.",
        with_article(saved)
    )]
    Kind {
        /// The uid.
        uid: OperatorUid,
        /// In the savepoint.
        saved: EntryKind,
        /// In the job.
        new: EntryKind,
    },
    /// The component no longer declares a state.
    #[error(
        "uid \"{uid}\": the savepoint has state \"{state}\" ({keys} keys, {bytes} bytes); this component does not declare it. Deploy a component that does, or drop the state with --drop-state {uid}/{state}."
    )]
    OrphanState {
        /// The uid.
        uid: OperatorUid,
        /// The state.
        state: String,
        /// How many keys.
        keys: u64,
        /// How many bytes of state files.
        bytes: u64,
    },
    /// The component no longer declares a timer, and timers are pending.
    #[error(
        "uid \"{uid}\": the savepoint has pending timers \"{timer}\"; this component does not declare the timer. Deploy a component that does, or drop its pending timers with --drop-state {uid}/{timer}."
    )]
    OrphanTimer {
        /// The uid.
        uid: OperatorUid,
        /// The timer's name.
        timer: String,
    },
    /// A timer waits for another clock now, and timers are pending.
    #[error(
        "uid \"{uid}\": the savepoint has pending timers \"{timer}\" by {saved} time; this component declares the timer by {new} time. Deploy a component that declares it by {saved} time, give the new one another name, or drop its pending timers with --drop-state {uid}/{timer}."
    )]
    TimerTime {
        /// The uid.
        uid: OperatorUid,
        /// The timer's name.
        timer: String,
        /// `event` or `processing`, in the savepoint.
        saved: String,
        /// In the component.
        new: String,
    },
    /// A state is of another kind now.
    #[error(
        "uid \"{uid}\": state \"{state}\": expected {0} state, as in the savepoint; this component declares {1} state. Deploy a component that declares {0} state, or drop the state with --drop-state {uid}/{state}.",
        with_article(saved),
        with_article(new)
    )]
    StateKind {
        /// The uid.
        uid: OperatorUid,
        /// The state.
        state: String,
        /// In the savepoint.
        saved: SavedStateKind,
        /// In the component.
        new: SavedStateKind,
    },
    /// The values of a state are of another type now.
    #[error(
        "uid \"{uid}\": state \"{state}\": expected schema {saved} (digest {}), as in the savepoint; this component reads {new} (digest {}). Deploy a component that reads {saved}, or drop the state with --drop-state {uid}/{state}.",
        saved.digest(),
        new.digest()
    )]
    Schema {
        /// The uid.
        uid: OperatorUid,
        /// The state.
        state: String,
        /// In the savepoint.
        saved: Box<Type>,
        /// In the component.
        new: Box<Type>,
    },
    /// The keys of a map are of another type now.
    #[error(
        "uid \"{uid}\": state \"{state}\": expected map key {saved}, as in the savepoint; this component has map key {new}. Keys do not migrate: deploy a component with that map key, or drop the state with --drop-state {uid}/{state}."
    )]
    MapKey {
        /// The uid.
        uid: OperatorUid,
        /// The state.
        state: String,
        /// In the savepoint, as text with its digest.
        saved: String,
        /// In the component.
        new: String,
    },
    /// The key is of another type now.
    #[error(
        "uid \"{uid}\": expected key {saved} (digest {}), as in the savepoint; this component has key {new}. Keys do not migrate: deploy a component with that key, or drop the state with --drop-state {uid}.",
        saved.digest()
    )]
    Key {
        /// The uid.
        uid: OperatorUid,
        /// In the savepoint.
        saved: Box<Type>,
        /// In the component, as text; `none` where it declares no key.
        new: String,
    },
    /// The source or sink is another one now.
    #[error(
        "uid \"{uid}\": expected {kind} {saved}, as in the savepoint; the job has {new}. Change it back, or start it afresh with --drop-state {uid}."
    )]
    Identity {
        /// The uid.
        uid: OperatorUid,
        /// Source or sink.
        kind: EntryKind,
        /// Connector and identity in the savepoint.
        saved: String,
        /// In the job.
        new: String,
    },
    /// A `--drop-state` names nothing that there is.
    #[error("--drop-state {given}: the savepoint has no such state. Expected one of: {}", known.join(", "))]
    UnknownDrop {
        /// As given.
        given: String,
        /// What could be dropped.
        known: Vec<String>,
    },
}

impl RestoreProblem {
    /// Whose it is; none of the job's own.
    const fn uid(&self) -> Option<&OperatorUid> {
        match self {
            Self::MaxParallelism { .. } | Self::UnknownDrop { .. } => None,
            Self::Parallelism { uid, .. }
            | Self::Orphan { uid, .. }
            | Self::Kind { uid, .. }
            | Self::OrphanState { uid, .. }
            | Self::OrphanTimer { uid, .. }
            | Self::TimerTime { uid, .. }
            | Self::StateKind { uid, .. }
            | Self::Schema { uid, .. }
            | Self::MapKey { uid, .. }
            | Self::Key { uid, .. }
            | Self::Identity { uid, .. } => Some(uid),
        }
    }
}

/// `an operator`, `a sink`.
fn with_article(noun: &impl std::fmt::Display) -> String {
    let noun = noun.to_string();
    let article = if noun.starts_with(['a', 'e', 'i', 'o']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}
