//! Makes output visible that a durable snapshot names: each sink by itself, tried again for a while.

use std::time::Duration;

use regraft_model::id::OperatorUid;

use super::job::{Committers, Job};
use super::life::effect::CommitFailure;
use crate::dataflow::sink::SinkError;
use crate::environment::{Environment, run_blocking};
use crate::savepoint::permit::CommitPermit;

/// A commit is tried this often.
const ATTEMPTS: u32 = 5;
/// The wait after the first try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// A sink whose output could not be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sink \"{uid}\": {message}")]
pub struct CommitError {
    /// The sink.
    pub uid: OperatorUid,
    /// Why.
    pub message: String,
    /// Whether another try later may go well.
    pub may_pass: bool,
}

/// Commits what every sink has prepared. One that fails does not hold back the others.
///
/// # Errors
/// [`CommitError`] of the first sink that failed to the end; what it has not committed can be committed later.
pub async fn commit_all(
    environment: &dyn Environment,
    committers: &Committers,
    permit: &CommitPermit,
) -> Result<(), CommitError> {
    let mut result = Ok(());
    for (uid, handles) in permit.handles().iter().filter(|(_, handles)| !handles.is_empty()) {
        let Some(committer) = committers.get(uid) else { continue };
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            let (committer, handles) = (committer.clone(), handles.clone());
            let committed = run_blocking(environment, move || committer.commit(&handles)).await;
            let error = match committed {
                Ok(Ok(())) => break,
                Ok(Err(error)) => CommitError {
                    uid: uid.clone(),
                    may_pass: matches!(error, SinkError::Io { .. }),
                    message: error.to_string(),
                },
                Err(panicked) => CommitError {
                    uid: uid.clone(),
                    may_pass: false,
                    message: panicked.to_string(),
                },
            };
            if !error.may_pass || attempt == ATTEMPTS {
                result = result.and(Err(error));
                break;
            }
            environment.sleep(wait).await;
            wait *= 2;
        }
    }
    result
}

/// Commits the output of a round of a running job. Returns true if there was something to commit.
///
/// # Errors
/// As [`commit_all`]; the message says so if another host has taken the job over.
pub async fn commit(job: &Job, permit: &CommitPermit) -> Result<bool, CommitError> {
    let mut result = commit_all(&*job.host.environment, &job.committers, permit).await;
    if let Err(error) = &mut result
        && !error.may_pass
        && matches!(job.is_still_ours().await, Ok(false))
    {
        error.message = "another host has taken the job over and dropped or committed this output: it runs this job now, and two must not".to_owned();
    }
    result.map(|()| !permit.is_empty())
}

impl From<CommitError> for CommitFailure {
    fn from(error: CommitError) -> Self {
        let CommitError { uid, message, may_pass } = error;
        Self { uid, message, may_pass }
    }
}
