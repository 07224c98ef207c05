//! The handle of a running job: commands in, reports out.

use std::sync::Arc;

use bytes::Bytes;
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{CheckpointId, JobId, JobVersion, OperatorUid};
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::Unfit;
use super::observe::JobShared;
pub use super::request::{SavepointTarget, SnapshotRequest, SwapRequest};
use super::status::JobStatus;
use crate::dataflow::control::{SwapGap, locked};
use crate::environment::Environment;
use crate::savepoint::compat::{Place, Problem};
use crate::storage::retry::retried;
use crate::storage::{Storage, StoreError};

/// A command to a job's driver.
#[derive(Debug)]
pub enum Command {
    /// Take a snapshot, and send its report.
    Snapshot(SnapshotRequest, oneshot::Sender<Result<SnapshotReport, JobError>>),
    /// End at once, with no snapshot.
    Cancel,
    /// End at once and leave everything as it is: another process brings the job back.
    Suspend,
}

/// A completed snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotReport {
    /// Id of the job.
    pub job_id: JobId,
    /// Location, as a URL.
    pub path: String,
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// `canonical` or `native`.
    pub format: String,
    /// Size of all its files.
    pub bytes: u64,
    /// Time from trigger to durable.
    pub duration_ms: u64,
    /// Longest time that a subtask waited between its first barrier and its last, milliseconds.
    pub align_ms: f64,
    /// Longest time that processing waited for the snapshot, milliseconds.
    pub sync_ms: f64,
    /// Longest time that replacing modules took, milliseconds.
    pub swap_ms: f64,
    /// Time without output of each swapped operator; empty unless modules were swapped.
    pub gaps: Vec<Gap>,
    /// Version of the job after it.
    pub version: JobVersion,
}

/// Time without output of one subtask of a swapped operator, milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// Uid of the operator.
    pub uid: OperatorUid,
    /// Index of its subtask.
    pub subtask: u32,
    /// Time from the last output before the swap to the first one after it.
    pub gap_ms: f64,
    /// Longest time between two outputs before the swap.
    pub usual_ms: f64,
}

impl From<&SwapGap> for Gap {
    fn from(gap: &SwapGap) -> Self {
        Self {
            uid: gap.uid.clone(),
            subtask: gap.index,
            gap_ms: gap.gap_ns as f64 / 1e6,
            usual_ms: gap.usual_ns as f64 / 1e6,
        }
    }
}

/// An operation on a job that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// Kind, which says what its reader does next.
    pub kind: ErrorKind,
    /// Text for people.
    pub message: String,
    /// Uid of the node that it is about.
    pub uid: Option<String>,
    /// File or directory that it is about.
    pub path: Option<String>,
}

/// One of several problems of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobProblem {
    /// Its kind.
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

impl From<&Problem> for JobProblem {
    fn from(problem: &Problem) -> Self {
        Self {
            kind: ErrorKind::Failed,
            message: problem.text(),
            uid: problem.uid.as_ref().map(ToString::to_string),
            path: match &problem.place {
                Place::Savepoint(url) => Some(url.clone()),
                Place::RunningJob => None,
            },
            remedy: Some(problem.remedy()),
        }
    }
}

impl From<&Unfit> for JobProblem {
    fn from(unfit: &Unfit) -> Self {
        Self {
            kind: ErrorKind::Usage,
            message: unfit.message.clone(),
            uid: Some(unfit.uid.to_string()),
            path: None,
            remedy: None,
        }
    }
}

impl JobError {
    /// An operation that failed.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Failed,
            message: message.into(),
            uid: None,
            path: None,
        }
    }

    /// About an operator.
    #[must_use]
    pub fn on(mut self, uid: &OperatorUid) -> Self {
        self.uid = Some(uid.to_string());
        self
    }
}

/// A running job.
#[derive(Clone)]
pub struct JobHandle {
    /// State that it shares.
    pub shared: Arc<JobShared>,
    pub(super) environment: Arc<dyn Environment>,
    /// Its directory in the checkpoint directory.
    pub(super) directory: Storage,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) done: watch::Receiver<bool>,
}

impl JobHandle {
    /// Its id.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        self.shared.job_id
    }

    /// The machine it runs on.
    #[must_use]
    pub fn environment(&self) -> &Arc<dyn Environment> {
        &self.environment
    }

    /// Its stage.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        locked(&self.shared.state).status
    }

    /// Asks for a snapshot and waits for it.
    ///
    /// # Errors
    /// [`JobError`] where the job is not running, or the snapshot failed.
    pub async fn snapshot(&self, request: SnapshotRequest) -> Result<SnapshotReport, JobError> {
        let (reply, result) = oneshot::channel();
        let sent = self.commands.send(Command::Snapshot(request, reply));
        sent.map_err(|_| self.not_running())?;
        result.await.map_err(|_| self.not_running())?
    }

    /// Checks that this number of bytes can be written to the job's directory, by a file that is removed again. To be called
    /// before a change that is of no use if it cannot be recorded.
    ///
    /// # Errors
    /// [`StoreError`] as writing the file gives it.
    pub async fn check_room(&self, bytes: usize) -> Result<(), StoreError> {
        let name = format!(".probe-{:012x}", self.environment.random() as u64 & 0xffff_ffff_ffff);
        let probe = Bytes::from(vec![0; bytes]);
        let written = retried(&*self.environment, || self.directory.put(&name, probe.clone())).await;
        let removed = retried(&*self.environment, || self.directory.delete(&name)).await;
        written.and(removed)
    }

    /// The failure that ended the job, with its kind; `None` if it has not failed. A job that has run was accepted, so its
    /// failure is never one of usage.
    #[must_use]
    pub fn failure(&self) -> Option<JobError> {
        let state = locked(&self.shared.state);
        let kind = state.failure_kind.filter(|kind| *kind != ErrorKind::Usage);
        Some(JobError {
            kind: kind.unwrap_or(ErrorKind::Failed),
            uid: state.failed_uid.clone(),
            ..JobError::failed(state.failure.clone()?)
        })
    }

    fn not_running(&self) -> JobError {
        JobError::failed(format!(
            "job {} is {}, not RUNNING: nothing can be saved",
            self.job_id(),
            self.status()
        ))
    }

    /// Ends the job at once.
    pub fn cancel(&self) {
        let _ = self.commands.send(Command::Cancel);
    }

    /// Ends the job in this process, to be brought back by another: its checkpoints and its pending output stay.
    pub fn suspend(&self) {
        let _ = self.commands.send(Command::Suspend);
    }

    /// Waits until the job has ended.
    pub async fn done(&self) {
        let mut done = self.done.clone();
        // An error: the control loop is gone, so the job has ended too.
        let _ = done.wait_for(|done| *done).await;
    }
}
