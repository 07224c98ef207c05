//! The shapes of requests and answers. Wire types live here and nowhere else.

use std::collections::BTreeMap;

use regraft_model::id::{JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};

use crate::jobs::handle::{JobError, JobView};
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

/// Any failure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// What failed.
    pub error: JobError,
}
