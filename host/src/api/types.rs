//! The shapes of requests and answers. Wire types live here and nowhere else.

use std::collections::BTreeMap;

use regraft_model::id::{CheckpointId, JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};

use crate::jobs::handle::{JobError, JobView, SnapshotReport};
use crate::jobs::status::JobStatus;

/// `GET /jobs`, and `regraft list --json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JobList {
    /// Every job of the host.
    pub jobs: Vec<JobSummary>,
}

/// One job of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its id.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Its stage.
    pub status: JobStatus,
    /// The default parallelism.
    pub parallelism: u32,
    /// Milliseconds since the Unix epoch.
    pub started_at: i64,
    /// The savepoint it started from.
    pub restored_from: Option<String>,
    /// Which modules it runs.
    pub version: JobVersion,
}

impl From<&JobView> for JobSummary {
    fn from(view: &JobView) -> Self {
        Self {
            job_id: view.job_id,
            name: view.name.clone(),
            status: view.status,
            parallelism: view.parallelism,
            started_at: view.started_at,
            restored_from: view.restored_from.clone(),
            version: view.version,
        }
    }
}

/// `POST /jobs/{job}/savepoints` and `POST /jobs/{job}/stop`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SavepointRequest {
    /// A path or URL; none: the job's own directory.
    pub dir: Option<String>,
    /// The backend's own files rather than typed columns.
    pub native: bool,
    /// Only for `stop`: let the job finish as if its input ended here.
    pub drain: bool,
}

/// `PUT /modules`: the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModuleUploaded {
    /// The component's SHA-256.
    pub digest: String,
}

/// `POST /jobs/{job}/upgrade`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// For each changed uid the digest of an uploaded module.
    pub modules: BTreeMap<OperatorUid, String>,
}

/// `POST /jobs`: the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Submitted {
    /// The job's id.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Its stage.
    pub status: JobStatus,
}

/// `POST /jobs/{job}/savepoints`: the answer, while the savepoint is being taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triggered {
    /// To be asked for at `GET /jobs/{job}/savepoints/{trigger_id}`.
    pub trigger_id: String,
}

/// `GET /jobs/{job}/savepoints/{trigger_id}`: how far a savepoint is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TriggerStatus {
    /// It is being taken.
    InProgress,
    /// It is complete.
    Completed {
        /// Where it is, and the rest of it.
        #[serde(flatten)]
        report: SnapshotReport,
    },
    /// There is none.
    Failed {
        /// Why.
        cause: JobError,
    },
}

/// `GET /jobs/{job}/logs`: the query. Without either, the last lines.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// So many of the last lines.
    pub lines: Option<usize>,
    /// From a position that an earlier answer gave.
    pub from: Option<u64>,
}

/// `GET /jobs/{job}/logs`: whole lines of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// The lines.
    pub text: String,
    /// The position behind them.
    pub next: u64,
}

/// `GET /jobs/{job}/snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    /// Checkpoints and savepoints, in order of their rounds.
    pub snapshots: Vec<SnapshotRow>,
}

/// A checkpoint or savepoint of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// `checkpoint` or `savepoint`.
    pub kind: String,
    /// Who may delete it: `host` or `user`.
    pub owner: String,
    /// Why it was taken: `periodic`, `manual`, `stop`, `upgrade`, `end-of-input`.
    pub trigger: String,
    /// Its round.
    pub checkpoint_id: CheckpointId,
    /// Milliseconds since the Unix epoch.
    pub completed_at: i64,
    /// Size of its `_metadata` and of the files that this names.
    pub bytes: u64,
    /// Where it is, as a URL.
    pub path: String,
}

/// Any failure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// What failed.
    pub error: JobError,
}
