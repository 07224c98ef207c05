//! Taking a job in, and its end.
//!
//! The catalog is written before a job starts and after it has ended, so that the next process knows at any moment which
//! jobs to run. A submitter gets an answer when the job is durable and runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::JobId;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::Instrument as _;

use super::catalog::{CatalogRecord, EndedJob};
use super::entries::{Claims, Entry, Stage, outline, refuse_collision, refuse_replacing_shared};
use super::error::HostError;
use super::gc::hold;
use super::go_on::Again;
use super::host::{Host, Serving};
use super::logs::job_span;
use super::submission::Submission;
use crate::dataflow::control::locked;
use crate::dataflow::operator::Modules;
use crate::dataflow::workers::SUBTASKS_MAX;
use crate::graph::job_graph::{JobGraph, NodeKind};
use crate::graph::plan::Plan;
use crate::graph::size;
use crate::jobs::bring_back;
use crate::jobs::handle::{JobError, JobHandle};
use crate::jobs::observe::{GoOn, ObservedJob};
use crate::jobs::start::{NewJob, start};
use crate::jobs::status::JobStatus;

/// Number of ended jobs that are listed; the one that ended first is dropped first.
const ENDED_MAX: usize = 100;
/// Largest job file, bytes.
const JOB_FILE_BYTES_MAX: usize = 1 << 20;
/// Submissions whose job files are being parsed.
static PLANNING: Semaphore = Semaphore::const_new(1);

/// A job that was taken in and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Id of the job.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Its stage.
    pub status: JobStatus,
}

/// Parses the job file of a submission, on a thread of its own and one at a time: it may be long, and other requests go on.
async fn planned(submission: Submission) -> Result<(Submission, JobGraph), HostError> {
    let bytes = submission.text.len();
    if bytes > JOB_FILE_BYTES_MAX {
        return Err(HostError::JobFileTooLarge {
            file: submission.file,
            bytes,
            max: JOB_FILE_BYTES_MAX,
        });
    }
    let _turn = PLANNING.acquire().await;
    let planning = spawn_blocking(move || submission.graph().map(|graph| (submission, graph)));
    match planning.await {
        Ok(planned) => Ok(planned?),
        Err(panicked) => Err(HostError::Job(JobError {
            kind: ErrorKind::Bug,
            ..JobError::failed(panicked.to_string())
        })),
    }
}

impl Host {
    pub(super) fn serves(&self) -> Result<&Serving, HostError> {
        self.serving.as_ref().ok_or(HostError::Attached)
    }

    /// Takes a job in and starts it. When this returns, the job is durable: the next process brings it back, should this one
    /// be killed.
    ///
    /// # Errors
    /// [`HostError`]; there is no such job then.
    pub async fn submit(self: &Arc<Self>, mut submission: Submission) -> Result<Accepted, HostError> {
        let serving = self.serves()?;
        submission.overrides.config.clone_from(&serving.config);
        let (submission, graph) = planned(submission).await?;
        let modules = self.modules_of(&graph, &submission)?;
        let environment = &self.context.environment;
        let record = CatalogRecord {
            job_id: JobId::from_bits(environment.random()),
            name: graph.name.clone(),
            created_at: environment.clock().now_ms(),
            submission,
        };
        let job = record.job_id;
        self.reserve(&record, &graph)?;
        let started = self.start_new(serving, &record, graph, modules);
        match started.instrument(job_span(job)).await {
            Ok(handle) => {
                self.watch_start(handle.clone());
                self.run(handle);
                Ok(Accepted {
                    job_id: job,
                    name: record.name,
                    status: JobStatus::Running,
                })
            }
            Err(HostError::Attempt(error)) if error.is_lost() => {
                // Another host has brought it back: its records are that one's.
                let failure = error.to_string();
                self.update(job, |entry| {
                    let lost = ObservedJob {
                        status: JobStatus::Failed,
                        failure: Some(failure),
                        ..entry.observe()
                    };
                    entry.stage = Stage::Lost(Arc::new(lost));
                });
                Err(error.into())
            }
            Err(error) => {
                self.drop_job(serving, job).await;
                Err(error)
            }
        }
    }

    /// Returns the uploaded components of a submission, one for each operator.
    fn modules_of(&self, graph: &JobGraph, submission: &Submission) -> Result<Modules, HostError> {
        let mut modules = Modules::new();
        for (uid, digest) in &submission.modules {
            let is_operator = |kind: &NodeKind| matches!(kind, NodeKind::Operator(_));
            if !graph.node(uid.as_str()).is_some_and(|node| is_operator(&node.kind)) {
                return Err(HostError::NoSuchOperator(uid.clone()));
            }
            let Some((module, _)) = self.uploaded(digest) else {
                let (uid, digest) = (uid.clone(), digest.clone());
                return Err(HostError::NoSuchModule { uid, digest });
            };
            modules.insert(uid.clone(), module);
        }
        for node in &graph.nodes {
            if matches!(node.kind, NodeKind::Operator(_)) && !modules.contains_key(&node.uid) {
                return Err(HostError::WithoutModule(node.uid.clone()));
            }
        }
        Ok(modules)
    }

    /// Enters the job, unless it collides with one that runs or will run.
    fn reserve(&self, record: &CatalogRecord, graph: &JobGraph) -> Result<(), HostError> {
        let serving = self.serves()?;
        let submission = &record.submission;
        refuse_replacing_shared(graph, submission.allow, submission.restore.is_some())?;
        let created = outline(&*self.context.stores, record, Some(graph), JobStatus::Created, None);
        let mut entries = locked(&self.entries);
        // Read under the lock of the entries: a host that is ending must not miss a job that is being added.
        if *locked(&serving.ending) {
            return Err(HostError::Ending);
        }
        for other in entries.iter().map(Entry::observe).filter(|job| !job.status.is_over()) {
            refuse_collision(graph, &Claims::from(&other), submission.allow)?;
        }
        let active = entries.iter().filter(|entry| !entry.observe().status.is_over());
        let graphs = active.filter_map(|entry| entry.graph.as_deref());
        let (found, running) = (subtasks_of(graph), graphs.map(subtasks_of).sum());
        if found + running > SUBTASKS_MAX as u64 {
            return Err(HostError::TooManySubtasks { found, running });
        }
        entries.push(self.entry_of(record, Some(graph), Stage::Starting(Arc::new(created))));
        Ok(())
    }

    pub(super) fn entry_of(&self, record: &CatalogRecord, graph: Option<&JobGraph>, stage: Stage) -> Entry {
        Entry {
            job_id: record.job_id,
            stage,
            savepoints: vec![],
            graph: graph.cloned().map(Arc::new),
        }
    }

    async fn start_new(
        &self,
        serving: &Serving,
        record: &CatalogRecord,
        graph: JobGraph,
        modules: Modules,
    ) -> Result<JobHandle, HostError> {
        // Until the job is known to need what it starts from.
        let dir = self.data_dir().to_owned();
        let _held = tokio::task::spawn_blocking(move || hold(&dir)).await;
        let components: BTreeMap<String, Bytes> = modules
            .values()
            .map(|module| (module.digest().to_string(), Bytes::copy_from_slice(module.bytes())))
            .collect();
        let created = serving.catalog.create(record, &components).await;
        created.map_err(HostError::NotTakenIn)?;
        self.begin_start(&serving.catalog, record.job_id, 0).await;
        let job = start(&self.context, new_job(record, graph, modules)).await?;
        if let Err(error) = serving.catalog.accepted(record.job_id).await {
            job.cancel();
            job.done().await;
            return Err(HostError::NotTakenIn(error));
        }
        Ok(job)
    }

    /// Enters a job that runs, and watches it until it has ended.
    pub(super) fn run(self: &Arc<Self>, job: JobHandle) {
        self.update(job.job_id(), |entry| entry.stage = Stage::Live(job.clone()));
        let host = self.clone();
        let span = job_span(job.job_id());
        let watching = async move {
            job.done().await;
            for (uid, (records, checksum)) in &locked(&job.shared.state).sink_totals {
                tracing::info!("blackhole {uid}: records={records} checksum={checksum:016x}");
            }
            let (graph, ended) = (JobGraph::clone(&job.shared.graph), job.shared.observe());
            let lost = locked(&job.shared.state).lost;
            drop(job);
            if lost {
                // The host that runs it keeps its records.
                host.update(ended.job_id, |entry| entry.stage = Stage::Lost(Arc::new(ended.clone())));
            } else if ended.status.is_over() {
                host.over(Some(graph), ended).await;
            }
        };
        tokio::spawn(watching.instrument(span));
        // The host may have begun to end meanwhile.
        if self.serving.as_ref().is_some_and(|serving| *locked(&serving.ending)) {
            self.suspend();
        }
    }

    /// Records the end of a job in the catalog. The job's own record says so already.
    pub(super) async fn over(&self, graph: Option<JobGraph>, mut last: ObservedJob) {
        let job = last.job_id;
        let Some(serving) = &self.serving else { return };
        if last.status == JobStatus::Failed {
            last.go_on = self.way_on_of(serving, &last).await;
            if let Some(go_on) = &last.go_on {
                tracing::error!("Job {} ({job}) FAILED; {go_on}.", last.name);
            }
        }
        let ended = EndedJob {
            ended_at: self.context.environment.clock().now_ms(),
            job: last.clone(),
        };
        match serving.catalog.ended(job, &ended).await {
            Ok(()) => {
                if let Some(graph) = graph {
                    self.forget(job, graph).await;
                }
            }
            // The job's own record stays, and the next process reads it.
            Err(error) => tracing::error!("that job {job} has ended could not be noted: {error}"),
        }
        serving.logs.close(job);
        self.update(job, |entry| entry.stage = Stage::Over(Arc::new(last)));
        self.retire().await;
    }

    /// Returns how to go on after a job has failed, or was given up.
    pub(super) async fn way_on_of(&self, serving: &Serving, last: &ObservedJob) -> Option<GoOn> {
        let record = serving.catalog.read(last.job_id).await.ok()??.record;
        self.way_on(&record.submission, last, Again::Detached).await
    }

    /// Drops the jobs that ended first, where there are too many.
    async fn retire(&self) {
        let Some(serving) = &self.serving else { return };
        let over: Vec<JobId> = self
            .entries()
            .iter()
            .filter(|entry| matches!(entry.stage, Stage::Over(_)))
            .map(|entry| entry.job_id)
            .collect();
        for job in over.iter().rev().skip(ENDED_MAX) {
            self.drop_job(serving, *job).await;
        }
    }

    /// Drops a job with its records and its log.
    pub(super) async fn drop_job(&self, serving: &Serving, job: JobId) {
        serving.logs.close(job);
        // A line that is written after the removal would bring the directory back.
        let logs = serving.logs.clone();
        let _ = spawn_blocking(move || logs.flush()).await;
        if let Err(error) = serving.catalog.remove(job).await {
            tracing::warn!("what is noted of job {job} could not be removed: {error}");
        }
        locked(&self.starting).remove(&job);
        locked(&self.entries).retain(|entry| entry.job_id != job);
        self.changed.notify_waiters();
    }

    /// Removes the rest of a job whose end is recorded.
    pub(super) async fn forget(&self, job: JobId, graph: JobGraph) {
        if let Err(error) = bring_back::forget(&self.context, job, graph).await {
            tracing::warn!("what job {job} has left in its checkpoint directory could not be removed: {error}");
        }
    }

    /// Suspends all jobs that run. Returns what waits for each of their ends.
    pub(super) fn suspend(&self) -> Vec<impl Future<Output = ()> + use<>> {
        let entries = self.entries();
        let live = entries.into_iter().filter_map(|entry| match entry.stage {
            Stage::Live(job) => Some(job),
            Stage::Starting(_) | Stage::Held(_) | Stage::Lost(_) | Stage::Over(_) => None,
        });
        live.map(|job| {
            job.suspend();
            async move { job.done().await }
        })
        .collect()
    }
}

fn subtasks_of(graph: &JobGraph) -> u64 {
    size::subtasks(&Plan::new(graph))
}

/// Describes a job of the catalog to start.
pub(super) fn new_job(record: &CatalogRecord, graph: JobGraph, modules: Modules) -> NewJob {
    NewJob {
        graph,
        modules,
        restore: record.submission.restore.clone(),
        savepoint_at_end: record.submission.savepoint_at_end.clone(),
        job_id: Some(record.job_id),
    }
}
