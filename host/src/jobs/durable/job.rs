//! The parts of a job that stay over all its attempts in this process: its graph, its plan, its directory, its committers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use regraft_model::id::{AttemptId, JobId, OperatorUid};
use tokio::sync::mpsc;

use super::error::AttemptError;
use super::job_lock::JobLock;
use super::records::{JobDirectory, RecordError};
use crate::checkpoint::kept::{CheckpointStore, StillOurs};
use crate::connector::sink::{OutputRun, SinkCommitter};
use crate::dataflow::control::{Event, EventSink, locked};
use crate::dataflow::executor::Executor;
use crate::dataflow::operator::OperatorModule;
use crate::environment::cancel::Cancellation;
use crate::environment::{Environment, run_blocking};
use crate::graph::job_graph::{JobGraph, Node};
use crate::graph::plan::Plan;
use crate::jobs::deploy::{Counters, committer, counters};
use crate::storage::{StoreError, Stores};

/// The parts of a host that every job uses.
#[derive(Clone)]
pub struct HostContext {
    /// The machine.
    pub environment: Arc<dyn Environment>,
    /// Stores of objects.
    pub stores: Arc<dyn Stores>,
    /// Runs subtasks.
    pub executor: Arc<dyn Executor>,
    /// Default directory of checkpoints.
    pub checkpoint_dir: PathBuf,
    /// True if this host brings its jobs back after it was killed. A job that has ended then leaves a record of its end.
    pub recovers: bool,
}

impl HostContext {
    /// Returns the checkpoint directory of a job, as a path or URL.
    #[must_use]
    pub fn checkpoint_dir_of(&self, graph: &JobGraph) -> String {
        let own = graph.checkpoint.dir.clone();
        own.unwrap_or_else(|| self.checkpoint_dir.to_string_lossy().into_owned())
    }

    /// Checks that a directory for savepoints, a path or URL, can be written to, before it is needed. Writes an object of its
    /// own, and deletes it again.
    ///
    /// # Errors
    /// [`StoreError`] as the first step that fails gives it.
    pub async fn probe(&self, dir: &str) -> Result<(), StoreError> {
        let name = format!(".probe-{:012x}", self.environment.random() as u64 & 0xffff_ffff_ffff);
        let storage = self.stores.open(dir)?;
        storage.put(&name, "probe").await?;
        storage.delete(&name).await
    }
}

/// Loads modules from components. This may take a while, so it is called beside the control loop.
pub trait LoadModule: Send + Sync {
    /// Loads the component of an operator.
    ///
    /// # Errors
    /// The reason, as a text.
    fn load(&self, uid: &OperatorUid, component: Bytes) -> Result<Arc<dyn OperatorModule>, String>;
}

/// Committer of each sink's output.
pub type Committers = BTreeMap<OperatorUid, Arc<dyn SinkCommitter>>;

/// A job over all its attempts in this process.
pub struct Job {
    /// Its id.
    pub job_id: JobId,
    /// Its host.
    pub host: HostContext,
    /// Its graph.
    pub graph: Arc<JobGraph>,
    /// Its records.
    pub directory: JobDirectory,
    /// Its checkpoints, over all attempts in this process.
    pub checkpoints: CheckpointStore,
    /// Its parallel expansion.
    pub plan: Arc<Plan>,
    /// Committers of its output.
    pub committers: Committers,
    /// Counters of each node, over all attempts in this process.
    pub counters: Counters,
    /// Loads modules that only the job's directory has.
    pub loader: Option<Arc<dyn LoadModule>>,
    /// True if sources wait at the end of input (`--savepoint-at-end`).
    pub hold_at_end: bool,
    /// Operators with state of their own that have trapped: they are run so that the record at fault is found alone.
    pub careful: Mutex<BTreeSet<OperatorUid>>,
    /// Nonces of the attempts that this process has created, or has tried to create.
    pub nonces: Arc<Mutex<BTreeSet<String>>>,
    /// The job ends: what its next attempt would need is not read any more.
    pub ending: Cancellation,
    still_ours: StillOurs,
    /// Held while this process runs the job; `None` where its directory has no locks.
    lock: Mutex<Option<JobLock>>,
    /// Takes the events of subtasks, each with the attempt that the subtask belongs to.
    pub events: mpsc::UnboundedSender<(AttemptId, Event)>,
}

impl Job {
    /// A job of this graph, in its directory.
    #[must_use]
    pub fn new(
        host: &HostContext,
        job_id: JobId,
        graph: Arc<JobGraph>,
        directory: JobDirectory,
        events: mpsc::UnboundedSender<(AttemptId, Event)>,
    ) -> Self {
        let nonces: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let still_ours = is_run_by(&directory, &nonces);
        Self {
            job_id,
            checkpoints: CheckpointStore::new(
                host.environment.clone(),
                directory.storage().clone(),
                graph.checkpoint.retain,
                still_ours.clone(),
            ),
            nonces,
            still_ours,
            host: host.clone(),
            directory,
            plan: Arc::new(Plan::new(&graph)),
            committers: committers(host, &graph, job_id, true),
            counters: counters(&graph, &host.environment.state_budget()),
            loader: None,
            hold_at_end: false,
            careful: Mutex::default(),
            ending: Cancellation::default(),
            lock: Mutex::default(),
            events,
            graph,
        }
    }

    /// Locks the job for this process, until the job is dropped.
    ///
    /// # Errors
    /// [`AttemptError::Locked`], if another process of this machine has it.
    pub async fn take_lock(&self) -> Result<(), AttemptError> {
        let (directory, job_id) = (self.directory.clone(), self.job_id);
        let taken = run_blocking(&*self.host.environment, move || JobLock::take(&directory, job_id)).await?;
        *locked(&self.lock) = taken?;
        Ok(())
    }

    /// Returns true if no other host has begun an attempt since this one did. An attempt whose record cannot be read counts as
    /// another host's. So does one that has no record here and has taken over a sink: its host has other records.
    ///
    /// # Errors
    /// As the store says.
    pub async fn is_still_ours(&self) -> Result<bool, StoreError> {
        if !(self.still_ours)().await? {
            return Ok(false);
        }
        let committers: Vec<_> = self.committers.values().cloned().collect();
        let taken = move || committers.iter().any(|committer| committer.is_taken());
        // What cannot be looked at does not show that it is taken.
        Ok(!run_blocking(&*self.host.environment, taken).await.unwrap_or(false))
    }

    /// Returns the sink for the events of an attempt's subtasks.
    #[must_use]
    pub fn event_sink(&self, attempt: AttemptId) -> EventSink {
        let events = self.events.clone();
        Arc::new(move |event| {
            // After the control loop has ended, events are of no use any more.
            let _ = events.send((attempt, event));
        })
    }
}

/// Returns the question whether an attempt of this process is the newest. A process that has begun none only cleans up.
fn is_run_by(directory: &JobDirectory, nonces: &Arc<Mutex<BTreeSet<String>>>) -> StillOurs {
    let (directory, nonces) = (directory.clone(), nonces.clone());
    Arc::new(move || {
        let (directory, nonces) = (directory.clone(), locked(&nonces).clone());
        Box::pin(async move {
            if nonces.is_empty() {
                return Ok(true);
            }
            match directory.is_run_by(&nonces).await {
                Err(RecordError::Store(error)) => Err(error),
                Err(error) => {
                    tracing::warn!("{error}");
                    Ok(false)
                }
                Ok(ours) => Ok(ours),
            }
        })
    })
}

/// Returns the committers of the output of each sink and of the dead letters of each operator, for the run that wrote them.
/// `is_own`: see [`OutputRun`].
#[must_use]
pub fn committers(host: &HostContext, graph: &JobGraph, job_id: JobId, is_own: bool) -> Committers {
    let of = |node: &Node| Some((node.uid.clone(), committer_at(host, graph, node, job_id, is_own)?));
    graph.nodes.iter().filter_map(of).collect()
}

/// Returns what commits the output of one node, as [`committers`]; `None` if it has none.
#[must_use]
pub fn committer_at(
    host: &HostContext,
    graph: &JobGraph,
    node: &Node,
    job_id: JobId,
    is_own: bool,
) -> Option<Arc<dyn SinkCommitter>> {
    let run = OutputRun {
        uid: node.uid.clone(),
        job: graph.name.clone(),
        job_id,
        is_own,
    };
    Some(committer(&host.environment.files(), node.output()?, run))
}
