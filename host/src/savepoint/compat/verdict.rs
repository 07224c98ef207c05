//! The verdict on a pair of old and new: what becomes of each uid and each state, and why.
//!
//! Its shape is that of `plan --json`: uids with an action, and their states with a verdict, reasons, keys and bytes.

use std::fmt;

use regraft_model::id::OperatorUid;

use super::facts::{Place, Size};
use super::problem::Problem;
use crate::savepoint::metadata::SavedStateKind;

/// The verdict on a job that is to take over existing state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The place that has the state.
    pub place: Place,
    /// Problems of the job as a whole and of its parallelism.
    pub problems: Vec<Problem>,
    /// The existing uids in their order, then those that are new, in the order of the job.
    pub uids: Vec<UidVerdict>,
}

/// The verdict on a uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UidVerdict {
    /// The uid.
    pub uid: OperatorUid,
    /// Its fate.
    pub action: Action,
    /// Reasons that concern the uid rather than one of its states.
    pub reasons: Vec<Problem>,
    /// The existing states in their order, with a line for each timer, then those that are new.
    pub states: Vec<StateVerdict>,
    /// Size of its state; `None` where that is not known, or where it is new.
    pub size: Option<Size>,
}

/// Fate of a uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes on with its state.
    Kept,
    /// It starts empty: it was not there, or nothing of it was worth saving.
    New,
    /// Its state is lost, as the user allows, or it had none.
    Dropped,
    /// It is refused.
    Incompatible,
}

/// The verdict on a state, or on one timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateVerdict {
    /// The name of the state or timer.
    pub state: String,
    /// Its kind; [`SavedStateKind::Timers`] for a timer. A keyed state, an operator state and a timer may share a name.
    pub kind: SavedStateKind,
    /// Its fate.
    pub fate: Fate,
    /// The reasons where it is incompatible; empty where those of the uid say it all.
    pub reasons: Vec<Problem>,
    /// Its size; `None` where that is not known.
    pub size: Option<Size>,
}

/// Fate of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is taken over unchanged.
    AsIs,
    /// It starts empty.
    New,
    /// It is lost, as the user allows.
    Dropped,
    /// It is refused.
    Incompatible,
}

impl Verdict {
    /// Iterates over all problems: the job's own first, then those of each uid and of its states.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems
            .iter()
            .chain(self.uids.iter().flat_map(UidVerdict::problems))
    }

    /// Returns the verdict on a uid; `None` where there was none and is none.
    #[must_use]
    pub fn uid(&self, uid: &OperatorUid) -> Option<&UidVerdict> {
        self.uids.iter().find(|verdict| verdict.uid == *uid)
    }

    /// Refuses unless everything is compatible.
    ///
    /// # Errors
    /// [`Refusal`] with all problems.
    pub fn accepted(&self) -> Result<(), Refusal> {
        let problems: Vec<Problem> = self.problems().cloned().collect();
        if problems.is_empty() {
            return Ok(());
        }
        let place = self.place.clone();
        Err(Refusal { place, problems })
    }
}

impl UidVerdict {
    /// Iterates over its problems: those of the uid first, then those of each state.
    fn problems(&self) -> impl Iterator<Item = &Problem> {
        let states = self.states.iter().flat_map(|state| &state.reasons);
        self.reasons.iter().chain(states)
    }

    /// Returns true if the user drops the state of that name and kind, or the timer of that name.
    #[must_use]
    pub fn drops(&self, state: &str, kind: SavedStateKind) -> bool {
        self.states
            .iter()
            .any(|verdict| verdict.state == state && verdict.kind == kind && verdict.fate == Fate::Dropped)
    }
}

/// A refused restore or upgrade. Displayed with each problem on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The place that has the state.
    pub place: Place,
    /// All problems, at least one.
    pub problems: Vec<Problem>,
}

impl Refusal {
    /// Returns the uid that all problems are about; `None` where they are about several, or about the job.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        let first = self.problems.first()?.uid.as_ref()?;
        let all = self.problems.iter().all(|problem| problem.uid.as_ref() == Some(first));
        all.then(|| first.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.place.refused())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
