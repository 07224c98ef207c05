//! The shapes of requests and answers: every wire type stands here, and in no other module.
//!
//! - [`job`]: the answer to `info`.
//! - [`profile`]: a profile to take, and one that was taken.
//! - [`report`]: savepoints and upgrades that are complete.
//! - [`submission`]: a job to start.

pub mod job;
pub mod profile;
pub mod report;
pub mod submission;

use std::collections::BTreeMap;

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{CheckpointId, JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};

pub use self::job::{
    CheckpointView, EffectiveSettingView, JobView, NodeKind, NodeView, RoundStatus, RoundView, SubtaskRoundView,
};
pub use self::profile::{ProfileReport, ProfileRequest};
pub use self::report::{ChangedUid, Gap, SnapshotReport, UpgradeReport};
pub use self::submission::SubmitRequest;
use crate::jobs::handle::JobProblem;
use crate::jobs::observe::ObservedJob;
use crate::jobs::status::JobStatus;
use crate::savepoint::metadata::Owner;
use crate::savepoint::rows::Layout;
use crate::serve::error::HostError;
use crate::serve::host::SavepointOptions;
use crate::serve::logs;
use crate::serve::operations;
use crate::serve::snapshots::ListedSnapshot;
use crate::serve::submit::Accepted;

/// Number of lines of a log that are sent where the request names none.
const LOG_LINES: usize = 100;

/// Answer to `GET /api/v1/jobs`, and `regraft list --json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JobList {
    /// Every job of the host.
    pub jobs: Vec<JobSummary>,
}

/// One job of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobSummary {
    /// Id of the job.
    pub job_id: JobId,
    /// Name of the job.
    pub name: String,
    /// Stage of the job.
    pub status: JobStatus,
    /// Default parallelism.
    pub parallelism: u32,
    /// Start time, milliseconds since the Unix epoch.
    pub started_at: i64,
    /// Savepoint that it started from.
    pub restored_from: Option<String>,
    /// Version of the job.
    pub version: JobVersion,
}

impl From<ObservedJob> for JobSummary {
    fn from(job: ObservedJob) -> Self {
        Self {
            job_id: job.job_id,
            name: job.name,
            status: job.status,
            parallelism: job.parallelism,
            started_at: job.started_at,
            restored_from: job.restored_from,
            version: job.version,
        }
    }
}

/// Answer to `GET /api/v1/host`: the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Id of its process.
    pub pid: u32,
    /// Its data directory.
    pub data_dir: String,
    /// Version of the program.
    pub version: String,
}

/// Body of `POST /api/v1/jobs/{job}/savepoints` and `POST /api/v1/jobs/{job}/stop`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SavepointRequest {
    /// Directory, a path or URL; `None` for the job's own. Also by Flink's names.
    #[serde(alias = "target-directory", alias = "targetDirectory")]
    pub dir: Option<String>,
    /// True for the backend's own files rather than typed columns.
    pub native: bool,
    /// Only for `stop`: lets the job finish as if its input ended here.
    pub drain: bool,
}

impl From<SavepointRequest> for SavepointOptions {
    fn from(request: SavepointRequest) -> Self {
        Self {
            dir: request.dir,
            layout: if request.native {
                Layout::Native
            } else {
                Layout::Canonical
            },
            drain: request.drain,
        }
    }
}

/// Answer to `PUT /api/v1/modules`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModuleUploaded {
    /// SHA-256 of the component.
    pub digest: String,
}

/// Body of `POST /api/v1/jobs/{job}/upgrade`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// Digest of an uploaded module for each changed uid.
    pub modules: BTreeMap<OperatorUid, String>,
}

/// Answer to `POST /api/v1/jobs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Submitted {
    /// Id of the job.
    pub job_id: JobId,
    /// Name of the job.
    pub name: String,
    /// Stage of the job.
    pub status: JobStatus,
}

impl From<Accepted> for Submitted {
    fn from(job: Accepted) -> Self {
        Self {
            job_id: job.job_id,
            name: job.name,
            status: job.status,
        }
    }
}

/// Answer to a request that has begun an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triggered {
    /// Id for `GET /api/v1/jobs/{job}/operations/{trigger_id}`.
    pub trigger_id: String,
    /// Kind of the operation.
    pub kind: OperationKind,
}

/// Kind of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Takes a savepoint.
    Savepoint,
    /// Takes a savepoint and ends the job.
    Stop,
    /// Ends the job.
    Cancel,
    /// Swaps modules in.
    Upgrade,
    /// Samples a guest.
    Profile,
}

impl From<operations::OperationKind> for OperationKind {
    fn from(kind: operations::OperationKind) -> Self {
        match kind {
            operations::OperationKind::Savepoint => Self::Savepoint,
            operations::OperationKind::Stop => Self::Stop,
            operations::OperationKind::Cancel => Self::Cancel,
            operations::OperationKind::Upgrade => Self::Upgrade,
            operations::OperationKind::Profile => Self::Profile,
        }
    }
}

/// Answer to `GET /api/v1/jobs/{job}/operations/{trigger_id}`.
#[derive(Debug, Clone, Serialize)]
pub struct OperationView {
    /// Id of the operation.
    pub trigger_id: String,
    /// Its kind.
    pub kind: OperationKind,
    /// Id of the job.
    pub job_id: JobId,
    /// Its progress.
    #[serde(flatten)]
    pub progress: ProgressView,
}

/// Progress of an operation.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "status", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProgressView {
    /// It is under way.
    InProgress,
    /// It is complete.
    Completed {
        /// Its result: what the request answers with `?wait=true`.
        result: Box<Outcome>,
    },
    /// It has failed.
    Failed {
        /// The failure.
        cause: ErrorBody,
    },
}

/// Result of an operation.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// The savepoint of a savepoint or stop.
    Saved(SnapshotReport),
    /// The job that was cancelled.
    Ended(Box<JobView>),
    /// The upgrade.
    Upgraded(UpgradeReport),
    /// The profile.
    Profiled(Box<ProfileReport>),
}

impl From<operations::Outcome> for Outcome {
    fn from(outcome: operations::Outcome) -> Self {
        match outcome {
            operations::Outcome::Saved(report) => Self::Saved(report.into()),
            operations::Outcome::Ended(job) => Self::Ended(Box::new((*job).into())),
            operations::Outcome::Upgraded(report) => Self::Upgraded(report.into()),
            operations::Outcome::Profiled(report) => Self::Profiled(Box::new((*report).into())),
        }
    }
}

impl From<operations::OperationProgress> for ProgressView {
    fn from(progress: operations::OperationProgress) -> Self {
        match progress {
            operations::OperationProgress::InProgress => Self::InProgress,
            operations::OperationProgress::Completed(outcome) => Self::Completed {
                result: Box::new(outcome.into()),
            },
            operations::OperationProgress::Failed(error) => Self::Failed {
                cause: (&*error).into(),
            },
        }
    }
}

impl From<&operations::Operation> for OperationView {
    fn from(operation: &operations::Operation) -> Self {
        Self {
            trigger_id: operation.id.clone(),
            kind: operation.kind.into(),
            job_id: operation.job,
            progress: operation.progress().into(),
        }
    }
}

/// Answer to `GET /api/v1/jobs/{job}/savepoints/{trigger_id}`: the progress of a savepoint, with its report among the members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TriggerStatus {
    /// It is being taken.
    InProgress,
    /// It is complete.
    Completed {
        /// Its location, and further facts.
        #[serde(flatten)]
        report: SnapshotReport,
    },
    /// It could not be taken.
    Failed {
        /// The failure.
        cause: ErrorBody,
    },
}

impl TriggerStatus {
    /// Returns the progress of a savepoint; `None` for that of another operation.
    #[must_use]
    pub fn of(progress: operations::OperationProgress) -> Option<Self> {
        Some(match progress {
            operations::OperationProgress::InProgress => Self::InProgress,
            operations::OperationProgress::Completed(operations::Outcome::Saved(report)) => {
                Self::Completed { report: report.into() }
            }
            operations::OperationProgress::Completed(_) => return None,
            operations::OperationProgress::Failed(error) => Self::Failed {
                cause: (&*error).into(),
            },
        })
    }
}

/// Query of `GET /api/v1/jobs/{job}/logs`. Without either, the last lines are sent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// So many of the last lines.
    pub lines: Option<usize>,
    /// Lines from a position on, which an earlier answer gave.
    pub from: Option<u64>,
}

impl From<LogQuery> for logs::LogPart {
    fn from(query: LogQuery) -> Self {
        match query.from {
            Some(position) => Self::From(position),
            None => Self::Last(query.lines.unwrap_or(LOG_LINES)),
        }
    }
}

/// Answer to `GET /api/v1/jobs/{job}/logs`: whole lines of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// The lines.
    pub text: String,
    /// Position behind them.
    pub next: u64,
}

impl From<logs::LogChunk> for LogChunk {
    fn from(chunk: logs::LogChunk) -> Self {
        Self {
            text: chunk.text,
            next: chunk.next,
        }
    }
}

/// Answer to `GET /api/v1/jobs/{job}/snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    /// Checkpoints and savepoints in order of their rounds.
    pub snapshots: Vec<SnapshotRow>,
}

/// A checkpoint or savepoint of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// `checkpoint` or `savepoint`.
    pub kind: SnapshotRowKind,
    /// Owner, who alone may delete it: `host` or `user`.
    pub owner: String,
    /// Trigger: `periodic`, `manual`, `stop`, `upgrade`, `end-of-input`.
    pub trigger: String,
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// Time at which it was complete, milliseconds since the Unix epoch.
    pub completed_at: i64,
    /// Size of its `_metadata` and of the files that this names.
    pub bytes: u64,
    /// Location, as a URL.
    pub path: String,
}

/// Kind of a snapshot in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotRowKind {
    /// The host's own.
    Checkpoint,
    /// The user's.
    Savepoint,
}

impl SnapshotRowKind {
    /// Returns the word for it in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Savepoint => "savepoint",
        }
    }
}

impl From<ListedSnapshot> for SnapshotRow {
    fn from(snapshot: ListedSnapshot) -> Self {
        Self {
            kind: match snapshot.owner {
                Owner::Host => SnapshotRowKind::Checkpoint,
                Owner::User => SnapshotRowKind::Savepoint,
            },
            owner: snapshot.owner.to_string(),
            trigger: snapshot.trigger.to_string(),
            checkpoint_id: snapshot.checkpoint_id,
            completed_at: snapshot.completed_at_ms,
            bytes: snapshot.bytes,
            path: snapshot.url,
        }
    }
}

/// Answer to any request that failed: problem details of RFC 9457, and beside them the members of [`ErrorBody`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// Name of the HTTP status.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Text for people, the same as `message`.
    pub detail: String,
    /// The failure.
    #[serde(flatten)]
    pub error: ErrorBody,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// Kind, which says what its reader does next.
    pub kind: ErrorKind,
    /// Text for people.
    pub message: String,
    /// Uid of the node that it is about.
    #[serde(default)]
    pub uid: Option<String>,
    /// File or directory that it is about.
    #[serde(default)]
    pub path: Option<String>,
    /// Each problem on its own, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemBody>,
}

impl ErrorBody {
    /// Returns a failure that is about no uid and no file.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            uid: None,
            path: None,
            problems: vec![],
        }
    }
}

/// One of several problems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemBody {
    /// Kind, which says what its reader does next.
    pub kind: ErrorKind,
    /// Text for people.
    pub message: String,
    /// Uid of the node that it is about.
    pub uid: Option<String>,
    /// File or directory that it is about.
    pub path: Option<String>,
    /// Remedy, where the message does not have it.
    pub remedy: Option<String>,
}

impl From<JobProblem> for ProblemBody {
    fn from(problem: JobProblem) -> Self {
        Self {
            kind: problem.kind,
            message: problem.message,
            uid: problem.uid,
            path: problem.path,
            remedy: problem.remedy,
        }
    }
}

impl From<&HostError> for ErrorBody {
    fn from(error: &HostError) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
            uid: error.uid(),
            path: error.path(),
            problems: error.problems().into_iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
