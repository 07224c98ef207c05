//! A host that takes jobs, and brings back those that had not ended when its last process did.
//!
//! The catalog is written before a job starts and after it has ended, so that at any moment a new process knows what is to
//! run. Whoever submits a job is answered when it is durable and runs; what they do not wait for goes on without them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use regraft_guest_runtime::engine::GuestEngine;
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{JobId, OperatorUid};
use tracing::Instrument as _;

use super::entries::{Entry, Stage, outline, refuse_collision};
use super::host::{Host, Serving};
use super::logs::job_span;
use super::types::Submitted;
use crate::backoff::Backoff;
use crate::dataflow::control::locked;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::environment::run_blocking;
use crate::graph::job_graph::{JobGraph, NodeKind};
use crate::jobs::bring_back::{self, RecoverJob, Recovered, recover};
use crate::jobs::catalog::{CatalogError, CatalogRecord, Catalogued, EndedJob, Progress};
use crate::jobs::durable::error::AttemptError;
use crate::jobs::durable::job::LoadModule;
use crate::jobs::handle::{JobError, JobHandle, JobView};
use crate::jobs::start::{NewJob, start};
use crate::jobs::status::JobStatus;
use crate::jobs::submission::Submission;

/// Jobs that have ended and are still listed; the one that ended first goes first.
const ENDED_MAX: usize = 100;
/// How long jobs may take to suspend when the host ends.
const SUSPEND_MAX: Duration = Duration::from_secs(10);

/// Waits between two tries to bring a job back: 1 s, 2 s, and so on up to a minute, without an end.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), 2, Duration::from_secs(60));

impl Host {
    fn serves(&self) -> Result<&Serving, JobError> {
        self.serving.as_ref().ok_or_else(|| {
            JobError::failed("this host is a `regraft run` with a job of its own and takes no others: start `regraft serve`, and submit to that")
        })
    }

    /// Takes a job in and starts it. When this returns, the job is durable: whatever happens to this process, the next one
    /// brings it back.
    ///
    /// # Errors
    /// [`JobError`]; then there is no such job.
    pub async fn submit(self: &Arc<Self>, mut submission: Submission) -> Result<Submitted, JobError> {
        let serving = self.serves()?;
        submission.layers.config.clone_from(&serving.config);
        let graph = submission.graph()?;
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
                self.run(handle);
                Ok(Submitted {
                    job_id: job,
                    name: record.name,
                    status: JobStatus::Running,
                })
            }
            Err(error) => {
                self.drop_job(serving, job).await;
                Err(error)
            }
        }
    }

    /// The uploaded components of a submission, one for each operator.
    fn modules_of(&self, graph: &JobGraph, submission: &Submission) -> Result<Modules, JobError> {
        let mut modules = Modules::new();
        for (uid, digest) in &submission.modules {
            let is_operator = |kind: &NodeKind| matches!(kind, NodeKind::Operator(_));
            if !graph.node(uid.as_str()).is_some_and(|node| is_operator(&node.kind)) {
                return Err(JobError::usage(format!("the job has no operator \"{uid}\"")).on(uid));
            }
            let Some((module, _)) = self.uploaded(digest) else {
                return Err(JobError::usage(format!("no module {digest} has been uploaded")).on(uid));
            };
            modules.insert(uid.clone(), module);
        }
        for node in &graph.nodes {
            if matches!(node.kind, NodeKind::Operator(_)) && !modules.contains_key(&node.uid) {
                let message = format!("operator \"{}\" has no module in the submission", node.uid);
                return Err(JobError::usage(message).on(&node.uid));
            }
        }
        Ok(modules)
    }

    /// Enters the job where nothing that runs, or will, collides with it.
    fn reserve(&self, record: &CatalogRecord, graph: &JobGraph) -> Result<(), JobError> {
        let serving = self.serves()?;
        let view = outline(record, Some(graph), JobStatus::Created, None);
        let mut entries = locked(&self.entries);
        // Looked at with the entries held: a host that is ending must not miss one that is being added.
        if *locked(&serving.ending) {
            return Err(JobError::failed("this host is ending and takes no more jobs"));
        }
        for other in entries.iter().map(Entry::view).filter(|view| !view.status.is_over()) {
            refuse_collision(graph, &other, record.submission.allow)?;
        }
        entries.push(self.entry_of(record, Some(graph), Stage::Starting(Arc::new(view))));
        Ok(())
    }

    fn entry_of(&self, record: &CatalogRecord, graph: Option<&JobGraph>, stage: Stage) -> Entry {
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
    ) -> Result<JobHandle, JobError> {
        let components: BTreeMap<String, Bytes> = modules
            .values()
            .map(|module| (module.digest().to_string(), Bytes::copy_from_slice(module.bytes())))
            .collect();
        let noted = |error: CatalogError| JobError::failed(format!("the job could not be taken in: {error}"));
        serving.catalog.create(record, &components).await.map_err(noted)?;
        let job = start(&self.context, new_job(record, graph, modules)).await?;
        if let Err(error) = serving.catalog.accepted(record.job_id).await {
            job.cancel();
            job.done().await;
            return Err(noted(error));
        }
        Ok(job)
    }

    /// A job runs: it is entered, and looked after until it has ended.
    fn run(self: &Arc<Self>, job: JobHandle) {
        self.update(job.job_id(), |entry| entry.stage = Stage::Live(job.clone()));
        let host = self.clone();
        let span = job_span(job.job_id());
        let watching = async move {
            job.done().await;
            for (uid, (records, checksum)) in &locked(&job.shared.state).sink_totals {
                tracing::info!("blackhole {uid}: records={records} checksum={checksum:016x}");
            }
            let (graph, view) = (JobGraph::clone(&job.shared.graph), job.shared.view());
            drop(job);
            if view.status.is_over() {
                host.over(Some(graph), view).await;
            }
        };
        tokio::spawn(watching.instrument(span));
        // It came while the host was ending.
        if self.serving.as_ref().is_some_and(|serving| *locked(&serving.ending)) {
            self.suspend();
        }
    }

    /// A job has ended, and has written so itself: the catalog follows.
    async fn over(&self, graph: Option<JobGraph>, view: JobView) {
        let job = view.job_id;
        let Some(serving) = &self.serving else { return };
        let ended = EndedJob {
            ended_at: self.context.environment.clock().now_ms(),
            view: view.clone(),
        };
        match serving.catalog.ended(job, &ended).await {
            Ok(()) => {
                if let Some(graph) = graph {
                    self.forget(job, graph).await;
                }
            }
            // Its own record stays, and tells the next process.
            Err(error) => tracing::error!("that job {job} has ended could not be noted: {error}"),
        }
        serving.logs.close(job);
        self.update(job, |entry| entry.stage = Stage::Over(Arc::new(view)));
        self.retire().await;
    }

    /// Forgets the jobs that ended first, where there are too many.
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

    /// Forgets a job.
    async fn drop_job(&self, serving: &Serving, job: JobId) {
        serving.logs.close(job);
        if let Err(error) = serving.catalog.remove(job).await {
            tracing::warn!("what is noted of job {job} could not be removed: {error}");
        }
        locked(&self.entries).retain(|entry| entry.job_id != job);
        self.changed.notify_waiters();
    }

    /// Enters every job of the catalog, and gives those that are to be brought back.
    ///
    /// # Errors
    /// [`JobError`] where the catalog cannot be read.
    pub async fn open_catalog(&self) -> Result<Vec<Catalogued>, JobError> {
        let serving = self.serves()?;
        let contents = serving.catalog.load().await.map_err(|error| JobError {
            kind: ErrorKind::Failed,
            ..JobError::failed(format!("the jobs of this host cannot be read: {error}"))
        })?;
        for damaged in &contents.damaged {
            tracing::error!("{damaged}");
        }
        let mut unfinished = vec![];
        for job in contents.jobs {
            let graph = job.record.submission.graph().ok();
            let stage = match &job.progress {
                Progress::Ended(Some(ended)) => Stage::Over(Arc::new(ended.view.clone())),
                Progress::Ended(None) => {
                    let view = outline(&job.record, graph.as_ref(), JobStatus::Finished, None);
                    Stage::Over(Arc::new(view))
                }
                Progress::Submitted | Progress::Accepted => {
                    let view = outline(&job.record, graph.as_ref(), JobStatus::Restarting, None);
                    Stage::Starting(Arc::new(view))
                }
            };
            let mut entry = self.entry_of(&job.record, graph.as_ref(), stage);
            entry.savepoints.clone_from(&job.savepoints);
            locked(&self.entries).push(entry);
            match (&job.progress, graph) {
                // The process may have died between the note and this.
                (Progress::Ended(_), Some(graph)) => self.forget(job.record.job_id, graph).await,
                (Progress::Ended(_), None) => {}
                _ => unfinished.push(job),
            }
        }
        Ok(unfinished)
    }

    /// Brings jobs back, all at once, each for itself.
    pub async fn bring_back(self: &Arc<Self>, jobs: Vec<Catalogued>) {
        join_all(jobs.into_iter().map(|job| {
            let (host, span) = (self.clone(), job_span(job.record.job_id));
            async move { host.bring_back_one(job).await }.instrument(span)
        }))
        .await;
    }

    /// Tries again for as long as that may help and nobody gives the job up: nothing of it is lost by a try that fails.
    async fn bring_back_one(self: &Arc<Self>, job: Catalogued) {
        let id = job.record.job_id;
        for wait in AGAIN {
            if !self.bring_back_once(&job, wait).await {
                return;
            }
            loop {
                self.context.environment.sleep(wait).await;
                match self.entry(&id.to_string()).map(|entry| entry.stage) {
                    Ok(Stage::Held(_)) if self.take(id) => break,
                    // Somebody tries to give it up just now.
                    Ok(Stage::Held(_) | Stage::Starting(_)) => {}
                    Ok(Stage::Live(_) | Stage::Over(_)) | Err(_) => return,
                }
            }
        }
    }

    /// Answers whether it failed, and another try after this wait may not.
    async fn bring_back_once(self: &Arc<Self>, job: &Catalogued, wait: Duration) -> bool {
        let Some(serving) = &self.serving else { return false };
        let (id, name) = (job.record.job_id, &job.record.name);
        let AttemptError { error, restartable } = match self.recovered(serving, job).await {
            Ok(Recovered::Running(handle)) => {
                if job.progress == Progress::Submitted
                    && let Err(error) = serving.catalog.accepted(id).await
                {
                    tracing::warn!("that job {id} runs could not be noted: {error}");
                }
                self.run(handle);
                return false;
            }
            Ok(Recovered::Ended(end)) => {
                tracing::info!("Job {name} ({id}) had ended: {}.", end.status);
                let graph = job.record.submission.graph().ok();
                let view = outline(&job.record, graph.as_ref(), end.status, end.failure.as_deref());
                self.over(graph, view).await;
                return false;
            }
            Ok(Recovered::NeverBegun) => {
                self.drop_job(serving, id).await;
                return false;
            }
            Err(error) => error,
        };
        // Whoever submitted it was told nothing, and would have been told this.
        if job.progress == Progress::Submitted {
            tracing::warn!("Job {name} ({id}) had not been started yet and cannot be: {error}. It is dropped.");
            self.drop_job(serving, id).await;
            return false;
        }
        let status = if restartable {
            tracing::error!(
                "Job {name} ({id}) could not be brought back: {error}. It is tried again in {wait:?}; `regraft cancel {id}` gives it up."
            );
            JobStatus::Restarting
        } else {
            tracing::error!(
                "Job {name} ({id}) could not be brought back: {error}. It is SUSPENDED: the next start of this host tries again, and `regraft cancel {id}` gives it up."
            );
            JobStatus::Suspended
        };
        let graph = job.record.submission.graph().ok();
        let view = outline(&job.record, graph.as_ref(), status, Some(&error.message));
        self.update(id, |entry| entry.stage = Stage::Held(Arc::new(view)));
        restartable
    }

    /// Goes on with a job. One that was taken in and not started is started now.
    async fn recovered(&self, serving: &Serving, job: &Catalogued) -> Result<Recovered, AttemptError> {
        let record = &job.record;
        let graph = record.submission.graph().map_err(AttemptError::fatal)?;
        let recovering = RecoverJob {
            job_id: record.job_id,
            graph: graph.clone(),
            loader: Arc::new(Loader(self.engine.clone())),
            savepoint_at_end: record.submission.savepoint_at_end.clone(),
        };
        let recovered = recover(&self.context, recovering).await?;
        let Recovered::NeverBegun = recovered else {
            return Ok(recovered);
        };
        if job.progress == Progress::Accepted {
            let dir = self.context.checkpoint_dir_of(&graph);
            let message = format!(
                "{dir} has nothing of job {} any more, not even how it started. Put its directory back, or start the job from a savepoint",
                record.job_id
            );
            return Err(AttemptError::fatal(JobError {
                path: Some(dir),
                ..JobError::failed(message)
            }));
        }
        let started = self.begin(serving, record, graph).await;
        started.map(Recovered::Running).map_err(AttemptError::fatal)
    }

    /// Starts a job that was taken in.
    async fn begin(&self, serving: &Serving, record: &CatalogRecord, graph: JobGraph) -> Result<JobHandle, JobError> {
        let mut modules = Modules::new();
        for (uid, digest) in &record.submission.modules {
            let component = serving.catalog.component(record.job_id, digest).await;
            let component = component.map_err(|error| JobError::failed(error.to_string()).on(uid))?;
            let (loader, of) = (Loader(self.engine.clone()), uid.clone());
            let loaded = run_blocking(&*self.context.environment, move || loader.load(&of, component)).await;
            let loaded = loaded.unwrap_or_else(|panicked| Err(panicked.to_string()));
            modules.insert(uid.clone(), loaded.map_err(|error| JobError::failed(error).on(uid))?);
        }
        start(&self.context, new_job(record, graph, modules)).await
    }

    /// Ends a job that could not be brought back, and has been [taken](Self::take) for that.
    pub(super) async fn give_up(&self, entry: &Entry) -> Result<JobView, JobError> {
        let view = JobView {
            status: JobStatus::Canceled,
            ..entry.view()
        };
        if let Some(graph) = &entry.graph {
            let given_up = bring_back::give_up(&self.context, entry.job_id, JobGraph::clone(graph));
            if let Err(error) = given_up.await {
                self.update(entry.job_id, |held| held.stage = entry.stage.clone());
                return Err(error.error);
            }
        }
        self.over(entry.graph.as_deref().cloned(), view.clone()).await;
        Ok(view)
    }

    /// Removes what is left of a job that has ended and is noted as such.
    async fn forget(&self, job: JobId, graph: JobGraph) {
        if let Err(error) = bring_back::forget(&self.context, job, graph).await {
            tracing::warn!("what job {job} has left in its checkpoint directory could not be removed: {error}");
        }
    }

    /// Ends all jobs in this process, so that the next one brings them back. No more are taken.
    pub async fn end(self: &Arc<Self>) {
        if let Some(serving) = &self.serving {
            *locked(&serving.ending) = true;
        }
        let done = self.suspend();
        let settling = async {
            join_all(done).await;
            self.settled().await;
        };
        if tokio::time::timeout(SUSPEND_MAX, settling).await.is_err() {
            // It is as if the process was killed: the next one brings them back all the same.
            tracing::warn!("some jobs have not suspended in time");
        }
    }

    /// Waits until every job that has ended is noted as such, and has left nothing behind.
    async fn settled(&self) {
        loop {
            let change = self.changed.notified();
            let unsettled = |entry: &Entry| matches!(&entry.stage, Stage::Live(job) if job.status().is_over());
            if !self.entries().iter().any(unsettled) {
                return;
            }
            change.await;
        }
    }

    fn suspend(&self) -> Vec<impl Future<Output = ()> + use<>> {
        let entries = self.entries();
        let live = entries.into_iter().filter_map(|entry| match entry.stage {
            Stage::Live(job) => Some(job),
            Stage::Starting(_) | Stage::Held(_) | Stage::Over(_) => None,
        });
        live.map(|job| {
            job.suspend();
            async move { job.done().await }
        })
        .collect()
    }
}

fn new_job(record: &CatalogRecord, graph: JobGraph, modules: Modules) -> NewJob {
    NewJob {
        graph,
        modules,
        restore: record.submission.restore_from(),
        savepoint_at_end: record.submission.savepoint_at_end.clone(),
        job_id: Some(record.job_id),
    }
}

/// Loads components that jobs have kept.
struct Loader(GuestEngine);

impl LoadModule for Loader {
    fn load(&self, _uid: &OperatorUid, component: Bytes) -> Result<Arc<dyn OperatorModule>, String> {
        let loaded = self.0.load(component.to_vec()).map_err(|error| error.to_string())?;
        Ok(Arc::new(loaded.module))
    }
}
