//! Makes output visible that a durable snapshot names. Each sink commits by itself, with retries.

use std::time::Duration;

use regraft_model::id::{CheckpointId, JobId};

use super::error::{AttemptError, CommitError};
use super::job::{Committers, Job, committers};
use super::records::CommittedRecord;
use crate::backoff::Backoff;
use crate::connector::sink::{SinkCommitter, SinkError};
use crate::environment::{Environment, run_blocking};
use crate::savepoint::permit::CommitPermit;

/// Five tries with 50, 100, 200 and 400 ms between them.
const WAITS: Backoff = Backoff::new(Duration::from_millis(50), 2, Duration::from_secs(1)).tries(5);

/// The two kinds of commits of a sink: of a running attempt, and of one that begins.
pub type CommitOf = fn(&dyn SinkCommitter, &[serde_json::Value]) -> Result<(), SinkError>;

/// Commits the prepared output of every sink, each up to five times. A sink that fails does not hold back the others.
///
/// # Errors
/// [`CommitError`] of the first sink whose last try failed. Its output stays prepared and can be committed later.
pub async fn commit_all(
    environment: &dyn Environment,
    committers: &Committers,
    permit: &CommitPermit,
    commit: CommitOf,
) -> Result<(), CommitError> {
    let mut result = Ok(());
    for (uid, handles) in permit.handles().iter().filter(|(_, handles)| !handles.is_empty()) {
        let Some(committer) = committers.get(uid) else { continue };
        let mut waits = WAITS;
        loop {
            let (committer, handles) = (committer.clone(), handles.clone());
            let committed = run_blocking(environment, move || commit(&*committer, &handles)).await;
            let error = match committed {
                Ok(Ok(())) => break,
                Ok(Err(error)) => CommitError {
                    uid: Some(uid.clone()),
                    may_pass: matches!(error, SinkError::Io { .. }),
                    message: error.to_string(),
                },
                Err(panicked) => CommitError {
                    uid: Some(uid.clone()),
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
/// As [`commit_all`]; and if another attempt than this process's is the newest: it commits nothing then. A round without output
/// asks that, too, so that a process that has lost the job does not go on with it.
pub async fn commit(job: &Job, permit: &CommitPermit) -> Result<bool, CommitError> {
    // A store that does not say whose the job is must not stop it; then the sinks tell whether their output is still there.
    if matches!(job.is_still_ours().await, Ok(false)) {
        return Err(CommitError::taken());
    }
    if permit.handles().values().all(Vec::is_empty) {
        return Ok(false);
    }
    let running: CommitOf = |committer, handles| committer.commit(handles);
    commit_all(&*job.host.environment, &job.committers, permit, running).await?;
    Ok(true)
}

/// Commits the output that a snapshot has pending, written by this job or by the one whose savepoint it is.
///
/// # Errors
/// [`AttemptError`] names sink and parts.
pub async fn commit_from(job: &Job, pending: &CommitPermit, of: &str, writer: JobId) -> Result<(), AttemptError> {
    let committers = if writer == job.job_id {
        job.committers.clone()
    } else {
        committers(&job.host, &job.graph, writer, false)
    };
    let restored: CommitOf = |committer, handles| committer.commit_restored(handles);
    let committed = commit_all(&*job.host.environment, &committers, pending, restored).await;
    committed.map_err(|source| AttemptError::Commit {
        of: of.to_owned(),
        source,
    })?;
    if writer != job.job_id {
        for (uid, committer) in committers {
            if pending.handles().contains_key(&uid) {
                // Empty directories only.
                let cleaned = run_blocking(&*job.host.environment, move || committer.clean()).await;
                let _ = cleaned;
            }
        }
    }
    Ok(())
}

/// Records that the output of a checkpoint, or of the savepoint that the job started from, is committed. Does nothing where
/// another host runs the job.
pub async fn note_committed(job: &Job, checkpoint_id: Option<CheckpointId>) {
    if matches!(job.is_still_ours().await, Ok(false)) {
        return;
    }
    if let Err(error) = job.directory.write_committed(CommittedRecord { checkpoint_id }).await {
        // It is committed again then, which does no harm where it is still there.
        tracing::warn!("what is committed could not be written down: {error}");
    }
}
