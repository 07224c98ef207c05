//! Errors of an upgrade; the job goes on as it was.

use std::fmt::Display;

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::OperatorUid;

use crate::environment::Panicked;
use crate::jobs::deploy::DeployError;
use crate::jobs::handle::{JobError, JobProblem};
use crate::savepoint::compat::{Place, Problem};
use crate::storage::StoreError;

/// An upgrade that was refused, or failed.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The new modules do not fit the graph, or cannot take over the state.
    #[error("{}:{}{}", Place::RunningJob.refused(), lines(incompatible), lines(unfit.iter().map(|unfit| &unfit.message)))]
    Refused {
        /// The operator, if a single one changes.
        uid: Option<OperatorUid>,
        /// Problems of the state.
        incompatible: Vec<Problem>,
        /// Problems of the graph.
        unfit: Vec<JobProblem>,
    },
    /// A new instance does not open.
    #[error("{}: {source}", Place::RunningJob.refused())]
    NotOpened {
        /// The operator.
        uid: OperatorUid,
        /// Error of the component.
        source: DeployError,
    },
    /// The checkpoint directory has no room for the new version.
    #[error("{}: it could not be recorded: {}", Place::RunningJob.refused(), .0)]
    NoRoom(#[source] StoreError),
    /// A broken rule in the host.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The round failed.
    #[error(transparent)]
    Round(#[from] JobError),
}

impl UpgradeError {
    /// Returns its kind. As for a job that is restored, a module that does not fit the graph is the caller's mistake, and one
    /// that cannot take over the state is a refused operation.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { unfit, .. } if !unfit.is_empty() => ErrorKind::Usage,
            Self::Round(error) => error.kind,
            _ => ErrorKind::Failed,
        }
    }

    /// Returns the uid of the node that it is about.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        match self {
            Self::Refused { uid, .. } => uid.as_ref().map(ToString::to_string),
            Self::NotOpened { uid, .. } => Some(uid.to_string()),
            Self::Round(error) => error.uid.clone(),
            Self::NoRoom(_) | Self::Panicked(_) => None,
        }
    }

    /// Returns the file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        match self {
            Self::NoRoom(error) => Some(error.path().to_owned()),
            Self::Round(error) => error.path.clone(),
            _ => None,
        }
    }

    /// Returns each problem on its own, where there are several; the message has all of them.
    #[must_use]
    pub fn problems(&self) -> Vec<JobProblem> {
        match self {
            Self::Refused {
                incompatible, unfit, ..
            } if incompatible.len() + unfit.len() > 1 => {
                let incompatible = incompatible.iter().map(JobProblem::from);
                incompatible.chain(unfit.iter().cloned()).collect()
            }
            _ => vec![],
        }
    }
}

/// Puts each problem on a line of its own.
fn lines(problems: impl IntoIterator<Item: Display>) -> String {
    let lines = problems.into_iter().map(|problem| format!("\n  {problem}"));
    lines.collect()
}
