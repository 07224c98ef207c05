//! How the rest of the host talks to a job: commands in, reports out.

use std::sync::Arc;

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{CheckpointId, JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

pub use super::request::{SavepointTarget, SnapshotRequest, SwapRequest};
use super::status::JobStatus;
pub use super::view::{
    EffectiveSettingView, JobShared, JobState, JobView, NodeView, RoundSummary, RoundView, SubtaskRound,
};
use crate::dataflow::control::{SwapGap, locked};
use crate::environment::Environment;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// The job.
    pub job_id: JobId,
    /// Where it is, as a URL.
    pub path: String,
    /// The round.
    pub checkpoint_id: CheckpointId,
    /// `canonical` or `native`.
    pub format: String,
    /// Size of all its files.
    pub bytes: u64,
    /// From trigger to durable.
    pub duration_ms: u64,
    /// The longest time a subtask waited between its first barrier and its last, milliseconds.
    pub align_ms: f64,
    /// The longest time processing waited for the snapshot, milliseconds.
    pub sync_ms: f64,
    /// The longest time replacing modules took, milliseconds.
    pub swap_ms: f64,
    /// How long each swapped operator gave no output; empty for any other snapshot.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// The job's version after it.
    pub version: JobVersion,
}

/// How long a swapped operator gave no output, milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The operator.
    pub uid: OperatorUid,
    /// Its subtask.
    pub subtask: u32,
    /// From the last output before the swap to the first after it.
    pub gap_ms: f64,
    /// The longest among the outputs before the swap.
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct JobError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// The operator it is about.
    #[serde(default)]
    pub uid: Option<String>,
    /// The file it is about.
    #[serde(default)]
    pub path: Option<String>,
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

    /// Input that is wrong.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Usage,
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
    /// What it shares.
    pub shared: Arc<JobShared>,
    pub(super) environment: Arc<dyn Environment>,
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
