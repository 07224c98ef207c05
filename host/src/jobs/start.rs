//! Starts a job: components checked against the graph, a savepoint read, subtasks made and set running.

use std::sync::{Arc, Mutex};

use regraft_model::id::{AttemptId, JobId};
use tokio::sync::{mpsc, watch};

use super::admission::{self, Descriptions, descriptions};
use super::attempt::build::Ready;
use super::attempt::first::first;
use super::attempt::initial::{Begin, beginning, from_origin, plan_origin};
use super::driver::{Driver, Parts};
use super::durable::error::AttemptError;
use super::durable::job::Job;
pub use super::durable::job::{HostContext, LoadModule};
use super::durable::records::{JobDirectory, JobRecord, Origin};
use super::handle::JobHandle;
use super::observe::{JobShared, JobState};
use super::output::{refuse_later_output, tell_left_output};
use super::status::JobStatus;
use crate::checkpoint::store::JobFacts;
use crate::dataflow::control::Event;
use crate::dataflow::operator::Modules;
use crate::graph::job_graph::JobGraph;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::Ancestor;
use crate::savepoint::restore::RestoreOptions;

/// A job to start.
pub struct NewJob {
    /// Its graph.
    pub graph: JobGraph,
    /// Its components.
    pub modules: Modules,
    /// Savepoint that its state comes from; `None` for the beginning.
    pub restore: Option<RestoreFrom>,
    /// Directory for the savepoint that is taken when all input is read (`--savepoint-at-end`); `None` to finish instead.
    pub savepoint_at_end: Option<String>,
    /// Its id, where that is recorded already; `None` for a new one.
    pub job_id: Option<JobId>,
}

/// A savepoint to start from.
#[derive(Debug, Clone)]
pub struct RestoreFrom {
    /// Its directory or `_metadata` file, as a path or URL.
    pub location: String,
    /// State that may be dropped.
    pub options: RestoreOptions,
    /// True if output directories may hold parts of a later state.
    pub allow_later_output: bool,
}

/// Starts a job and returns its handle.
///
/// # Errors
/// [`AttemptError`], of kind usage where job file or modules must change; nothing has run then.
pub async fn start(host: &HostContext, new: NewJob) -> Result<JobHandle, AttemptError> {
    let NewJob {
        graph,
        modules,
        restore,
        savepoint_at_end,
        job_id,
    } = new;
    let descriptions = descriptions(&modules);
    admission::check(&graph, &descriptions)?;
    if let Some(dir) = &savepoint_at_end {
        // Not when all input has been read.
        let probed = host.probe(dir).await;
        probed.map_err(|source| AttemptError::SavepointDirectory {
            dir: dir.clone(),
            source,
        })?;
    }
    let job_id = job_id.unwrap_or_else(|| JobId::from_bits(host.environment.random()));
    let (mut job, events) = assemble(host, job_id, graph)?;
    job.hold_at_end = savepoint_at_end.is_some();
    let job = Arc::new(job);
    job.take_lock().await?;
    let (begin, origin) = match restore {
        Some(from) => {
            let (begin, origin) = read_savepoint(&job, &descriptions, &from).await?;
            (begin, Some(origin))
        }
        None => (beginning(&job), None),
    };
    let (record, ready) = first(&job, begin, origin, modules).await?;
    Ok(launch(job, events, &record, ready, savepoint_at_end))
}

pub(super) type Events = mpsc::UnboundedReceiver<(AttemptId, Event)>;

/// Returns a job with its directory, and the receiver of its subtasks' events.
pub(super) fn assemble(host: &HostContext, job_id: JobId, graph: JobGraph) -> Result<(Job, Events), AttemptError> {
    let opened = host.stores.open(&host.checkpoint_dir_of(&graph));
    let directory = opened.and_then(|checkpoints| JobDirectory::new(&checkpoints, job_id));
    let directory = directory.map_err(AttemptError::Directory)?;
    let (tell, events) = mpsc::unbounded_channel();
    Ok((Job::new(host, job_id, Arc::new(graph), directory, tell), events))
}

/// Sets a job running.
pub(super) fn launch(
    job: Arc<Job>,
    events: Events,
    record: &JobRecord,
    ready: Ready,
    savepoint_at_end: Option<String>,
) -> JobHandle {
    let shared = Arc::new(shared(&job, record, &ready));
    let facts = JobFacts {
        graph: job.graph.clone(),
        plan: job.plan.clone(),
        job_id: job.job_id,
        attempt: ready.attempt,
        version: ready.version,
        lineage: ready.lineage.clone(),
        modules: ready.modules.clone(),
    };
    let (commands, receiver) = mpsc::unbounded_channel();
    let (done, is_done) = watch::channel(false);
    let environment = job.host.environment.clone();
    let directory = job.directory.storage().clone();
    let parts = Parts {
        job,
        shared: shared.clone(),
        facts,
        events,
        commands: receiver,
        done,
        savepoint_at_end,
    };
    let driver = Driver::new(parts, ready);
    environment.spawn(Box::pin(driver.run()));
    JobHandle {
        environment,
        directory,
        shared,
        commands,
        done: is_done,
    }
}

fn shared(job: &Job, record: &JobRecord, ready: &Ready) -> JobShared {
    JobShared {
        job_id: job.job_id,
        graph: job.graph.clone(),
        started_at: record.started_at,
        restored_from: record.origin.as_ref().map(|origin| origin.path.clone()),
        counters: job.counters.clone(),
        state: Mutex::new(JobState {
            status: JobStatus::Created,
            version: ready.version,
            modules: ready.modules.clone(),
            descriptions: descriptions(&ready.modules),
            last_round: None,
            rounds: 0,
            failure: None,
            failure_kind: None,
            failed_uid: None,
            sink_totals: std::collections::BTreeMap::new(),
            final_savepoint: None,
            attempt: ready.attempt,
            restarts: 0,
            last_failure: None,
            lost: false,
            recent: std::collections::VecDeque::new(),
        }),
    }
}

/// Reads and plans the savepoint that the job starts from, and logs what is dropped of it.
async fn read_savepoint(
    job: &Arc<Job>,
    descriptions: &Descriptions,
    from: &RestoreFrom,
) -> Result<(Begin, Origin), AttemptError> {
    let unreadable = |source| AttemptError::Savepoint {
        location: from.location.clone(),
        source,
    };
    let opened = Savepoint::open(&*job.host.stores, &from.location).await;
    let savepoint = opened.map_err(unreadable)?;
    let metadata = &savepoint.metadata;
    let ancestor = Ancestor {
        job_id: metadata.job_id,
        savepoint: savepoint.url(),
    };
    let origin = Origin {
        path: savepoint.url(),
        allow_non_restored: from.options.allow_non_restored,
        drop_state: from.options.drop_state.clone(),
        lineage: std::iter::once(ancestor)
            .chain(metadata.lineage.iter().cloned())
            .collect(),
    };
    let (plan, retargeted) = plan_origin(job, descriptions, &savepoint, &origin)?;
    if !from.allow_later_output {
        refuse_later_output(job, &savepoint).await?;
    }
    tracing::info!(
        "Starting job {} ({}) from savepoint {} (NO_CLAIM)",
        job.graph.name,
        job.job_id,
        savepoint.url()
    );
    for dropped in &plan.dropped {
        let state = dropped
            .state
            .as_ref()
            .map(|state| format!("/{state}"))
            .unwrap_or_default();
        tracing::warn!(
            "Dropped state of \"{}{state}\": {} keys, {} bytes.",
            dropped.uid,
            dropped.keys,
            dropped.bytes
        );
    }
    for operator in plan
        .operators
        .iter()
        .filter(|operator| !operator.dropped_timers.is_empty())
    {
        let timers = operator.dropped_timers.join(", ");
        tracing::warn!("Dropped pending timers of \"{}\": {timers}.", operator.uid);
    }
    for uid in &retargeted {
        tracing::info!("Sink \"{uid}\" writes to another target than in the savepoint: it starts anew there.");
    }
    tell_left_output(&plan, metadata, &retargeted);
    let begin = from_origin(job, descriptions, &savepoint, &origin).await;
    let begin = begin.map_err(|error| match error {
        AttemptError::Snapshot(source) => unreadable(source),
        other => other,
    })?;
    tracing::info!("Reset the checkpoint ID of job {} to {}.", job.job_id, begin.next);
    Ok((begin, origin))
}
