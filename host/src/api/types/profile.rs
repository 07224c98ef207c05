//! A profile of a guest to take, and one that was taken.

use std::time::Duration;

use regraft_guest_runtime::limits::SAMPLE_TICK;
use regraft_guest_runtime::profile::ProfileNode;
use regraft_model::id::{JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};

use crate::jobs::profile;
use crate::jobs::status::JobStatus;

/// Request of `POST /api/v1/jobs/{job}/profile`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileRequest {
    /// The operator.
    pub uid: String,
    /// Index of its subtask; `None` for all of them.
    #[serde(default)]
    pub subtask: Option<u32>,
    /// Time to sample for, milliseconds.
    #[serde(default = "usual_duration_ms")]
    pub duration_ms: u64,
}

const fn usual_duration_ms() -> u64 {
    10_000
}

impl From<ProfileRequest> for profile::ProfileRequest {
    fn from(request: ProfileRequest) -> Self {
        Self {
            uid: request.uid,
            subtask: request.subtask,
            duration: Duration::from_millis(request.duration_ms),
        }
    }
}

/// A profile of a guest: samples of its stack as a tree of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileReport {
    /// Id of the job.
    pub job_id: JobId,
    /// Name of the job.
    pub name: String,
    /// The operator.
    pub uid: OperatorUid,
    /// Index of its subtask; `None` for all of them.
    pub subtask: Option<u32>,
    /// Number of subtasks that were sampled.
    pub subtasks: u32,
    /// Time that was sampled, milliseconds: less than was requested if the job has ended.
    pub duration_ms: u64,
    /// Time between two samples of a subtask that computes, milliseconds.
    pub interval_ms: u64,
    /// Version of the job at the beginning.
    pub from_version: JobVersion,
    /// Version of the job at the end.
    pub version: JobVersion,
    /// Number of restarts meanwhile.
    pub restarts: u64,
    /// Stage of the job at the end.
    pub status: JobStatus,
    /// Number of calls of the guest that have ended.
    pub calls: u64,
    /// Processor time of these calls, milliseconds.
    pub computed_ms: f64,
    /// Part of it in which the host answered the guest, milliseconds.
    pub answers_ms: f64,
    /// Number of samples.
    pub samples: u64,
    /// Number of samples with functions that are left out, since there are too many.
    pub cut: u64,
    /// Names of functions.
    pub functions: Vec<String>,
    /// Nodes of the tree of calls, each behind its parent.
    pub frames: Vec<ProfileFrame>,
}

/// A function, called along one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileFrame {
    /// Position of its name in `functions`.
    pub function: u32,
    /// Position of its caller in `frames`; `None` for an outermost function.
    pub parent: Option<u32>,
    /// Number of samples in which it was the innermost function.
    pub samples: u64,
}

impl From<ProfileNode> for ProfileFrame {
    fn from(node: ProfileNode) -> Self {
        Self {
            function: node.function,
            parent: node.parent,
            samples: node.samples,
        }
    }
}

impl From<profile::ProfileReport> for ProfileReport {
    fn from(report: profile::ProfileReport) -> Self {
        let profile = &report.profile;
        Self {
            job_id: report.job_id,
            name: report.name,
            uid: report.uid,
            subtask: report.subtask,
            subtasks: report.subtasks,
            duration_ms: whole_ms(report.duration),
            interval_ms: whole_ms(SAMPLE_TICK),
            from_version: report.from_version,
            version: report.version,
            restarts: report.restarts,
            status: report.status,
            calls: profile.calls,
            computed_ms: profile.computed.as_secs_f64() * 1e3,
            answers_ms: profile.answers.as_secs_f64() * 1e3,
            samples: profile.samples,
            cut: profile.cut,
            functions: profile.functions.clone(),
            frames: profile.nodes.iter().copied().map(ProfileFrame::from).collect(),
        }
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
