//! Reasons for which rounds fail and requests are refused, kept as data until they are shown.

use std::fmt;
use std::sync::Arc;

use regraft_model::id::{CheckpointId, JobId, OperatorUid};

use super::failure::JobFailure;

/// Reason for which a round is given up.
#[derive(Debug, Clone)]
pub(super) enum Reason {
    /// It expired, and the subtasks of these names had not acknowledged it.
    NotAcknowledged(Vec<String>),
    /// It expired while it was being written to this URL.
    NotDurable(String),
    /// It could not be stored, in the words of the store.
    Store(String),
    /// The version that it made could not be recorded, in the words of the store.
    Record(String),
    /// This later round is durable.
    Subsumed(CheckpointId),
    /// A later round has committed what it names.
    Overtaken,
    /// The job ends.
    End(End),
    /// The job, or some of its regions, goes back to the last checkpoint.
    FallBack(FallBack),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAcknowledged(names) => {
                write!(f, "expired before completing; not acked: {}", names.join(" "))
            }
            Self::NotDurable(url) => {
                write!(
                    f,
                    "expired before completing; all acked, but not wholly written to {url}"
                )
            }
            Self::Store(words) | Self::Record(words) => f.write_str(words),
            Self::Subsumed(id) => write!(f, "subsumed by checkpoint {id}"),
            Self::Overtaken => f.write_str("a later checkpoint was complete before it"),
            Self::End(end) => end.fmt(f),
            Self::FallBack(fall_back) => fall_back.fmt(f),
        }
    }
}

/// Reason for which a job begins nothing any more.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// A user cancelled it.
    Cancelled(JobId),
    /// Its host ends.
    Suspended(JobId),
    /// It failed.
    Failed(Arc<JobFailure>),
    /// All is done, or nothing runs any more.
    Over(JobId),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(job) => write!(f, "job {job} was cancelled"),
            Self::Suspended(job) => write!(f, "job {job} was suspended, since its host ends"),
            Self::Failed(failure) => write!(f, "the job failed: {failure}"),
            Self::Over(job) => write!(f, "job {job} has ended: nothing more can be saved"),
        }
    }
}

/// Reason for which regions go back to the last checkpoint.
#[derive(Debug, Clone)]
pub(super) enum FallBack {
    /// A failure that a restart may get over.
    Failure(Arc<JobFailure>),
    /// The whole job goes back at once.
    Rewind(Rewind),
}

impl fmt::Display for FallBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failure(failure) => write!(f, "the job failed, and restarts: {failure}"),
            Self::Rewind(rewind) => write!(f, "{rewind}, and the job goes back to its last checkpoint"),
        }
    }
}

/// Reason for which the whole job goes back to the last checkpoint at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewind {
    /// An upgrade failed when some subtasks may have run its modules.
    Upgrade,
    /// The savepoint after a drain failed.
    Drain,
    /// The timers of a job that is drained do not come to an end.
    Endless,
}

impl fmt::Display for Rewind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upgrade => "an upgrade failed",
            Self::Drain => "it was drained, and its savepoint failed",
            Self::Endless => "it was drained, and its timers do not come to an end",
        })
    }
}

/// Trouble of a round that is held until the job runs again. Its requester is told if the round has not succeeded then.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// It was given up, or may be durable and is not known to be.
    Round(FailedRound),
    /// The job failed meanwhile.
    Failure(Arc<JobFailure>),
    /// It is durable, and a sink could not commit it.
    Commit(NotCommitted),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Round(round) => round.fmt(f),
            Self::Failure(failure) => failure.fmt(f),
            Self::Commit(commit) => commit.fmt(f),
        }
    }
}

/// A round that failed, as its requester is told.
#[derive(Debug, Clone)]
pub(super) struct FailedRound {
    /// `checkpoint` or `savepoint`.
    pub(super) word: &'static str,
    pub(super) id: CheckpointId,
    pub(super) job_id: JobId,
    pub(super) reason: Reason,
}

impl fmt::Display for FailedRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            word,
            id,
            job_id,
            reason,
        } = self;
        write!(f, "{word} {id} of job {job_id} FAILED ({reason})")
    }
}

/// A durable round whose output could not be committed.
#[derive(Debug, Clone)]
pub(super) struct NotCommitted {
    /// `checkpoint` or `savepoint`.
    pub(super) word: &'static str,
    pub(super) id: CheckpointId,
    /// URL of its directory.
    pub(super) path: String,
    /// The sink; `None` if another host runs the job.
    pub(super) uid: Option<OperatorUid>,
    /// The sink's own message.
    pub(super) message: String,
}

impl fmt::Display for NotCommitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            word,
            id,
            path,
            uid,
            message,
        } = self;
        write!(f, "{word} {id} is complete at {path}, but ")?;
        if let Some(uid) = uid {
            write!(f, "its output could not be committed: sink \"{uid}\": ")?;
        }
        f.write_str(message)
    }
}
