//! Makes output visible that a durable snapshot names. Each sink commits by itself, with retries.

use std::time::Duration;

use regraft_model::id::OperatorUid;

use super::job::{Committers, Job};
use super::life::effect::CommitFailure;
use crate::backoff::Backoff;
use crate::dataflow::sink::SinkError;
use crate::environment::{Environment, run_blocking};
use crate::savepoint::permit::CommitPermit;

/// Five tries with 50, 100, 200 and 400 ms between them.
const WAITS: Backoff = Backoff::new(Duration::from_millis(50), 2, Duration::from_secs(1)).tries(5);

/// A sink whose output could not be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sink \"{uid}\": {message}")]
pub struct CommitError {
    /// The sink.
    pub uid: OperatorUid,
    /// The sink's own message, or that the host panicked.
    pub message: String,
    /// True if a later try may succeed.
    pub may_pass: bool,
}

/// Commits the prepared output of every sink, each up to five times. A sink that fails does not hold back the others.
///
/// # Errors
/// [`CommitError`] of the first sink whose last try failed. Its output stays prepared and can be committed later.
pub async fn commit_all(
    environment: &dyn Environment,
    committers: &Committers,
    permit: &CommitPermit,
) -> Result<(), CommitError> {
    let mut result = Ok(());
    for (uid, handles) in permit.handles().iter().filter(|(_, handles)| !handles.is_empty()) {
        let Some(committer) = committers.get(uid) else { continue };
        let mut waits = WAITS;
        loop {
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
            let Some(wait) = waits.next().filter(|_| error.may_pass) else {
                result = result.and(Err(error));
                break;
            };
            environment.sleep(wait).await;
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
