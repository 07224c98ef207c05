//! Jobs of an earlier process: those that had not ended are brought back, or wait until that is possible.
//!
//! After a process that has died they start in the order of [`start_order`](super::start_order), so that a job which takes
//! its process with it keeps no other one down.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use regraft_guest_runtime::engine::GuestEngine;
use regraft_model::id::OperatorUid;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::catalog::{CatalogRecord, Catalogued, Progress};
use super::entries::{Entry, Stage, outline};
use super::error::HostError;
use super::host::{Host, Serving};
use super::logs::job_span;
use super::snapshots::show_checkpoints;
use super::start_order::{LastEnd, Planned, StartNote, Turn, plan};
use super::submit::new_job;
use crate::backoff::Backoff;
use crate::dataflow::control::locked;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::environment::run_blocking;
use crate::graph::job_graph::JobGraph;
use crate::jobs::bring_back::{self, RecoverJob, Recovered, recover};
use crate::jobs::durable::job::LoadModule;
use crate::jobs::handle::JobHandle;
use crate::jobs::observe::ObservedJob;
use crate::jobs::start::start;
use crate::jobs::status::JobStatus;

/// Time that jobs may take to suspend when the host ends.
const SUSPEND_MAX: Duration = Duration::from_secs(10);

/// Time that a job whose turn comes next waits for the one before it.
const TURN_MAX: Duration = Duration::from_secs(30);

/// Time that listing the checkpoints of a job that waits may take.
const LISTING_MAX: Duration = Duration::from_secs(1);

/// Waits before a job that could not be brought back is tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), 2, Duration::from_secs(60));

impl Host {
    /// Enters every job of the catalog. Returns those that are to be brought back, in the order in which they are.
    ///
    /// # Errors
    /// [`HostError`] where this host has no catalog. Unreadable records are logged and skipped.
    pub async fn open_catalog(&self) -> Result<Vec<Planned<Catalogued>>, HostError> {
        let serving = self.serves()?;
        let contents = serving.catalog.load().await;
        for damaged in &contents.damaged {
            tracing::error!("A job is left out: {damaged}");
        }
        let last = serving.catalog.host_starts().await.unwrap_or_else(|error| {
            tracing::warn!("that this host runs could not be noted: {error}");
            LastEnd::Died
        });
        let stores = &*self.context.stores;
        let mut unfinished = vec![];
        for job in contents.jobs {
            let graph = job.record.submission.graph().ok();
            let stage = match &job.progress {
                Progress::Ended(Some(ended)) => Stage::Over(Arc::new(ended.job.clone())),
                Progress::Ended(None) => {
                    let last = outline(stores, &job.record, graph.as_ref(), JobStatus::Finished, None);
                    Stage::Over(Arc::new(last))
                }
                Progress::Submitted | Progress::Accepted => {
                    let waiting = outline(stores, &job.record, graph.as_ref(), JobStatus::Restarting, None);
                    Stage::Starting(Arc::new(waiting))
                }
            };
            let mut entry = self.entry_of(&job.record, graph.as_ref(), stage);
            entry.savepoints.clone_from(&job.savepoints);
            locked(&self.entries).push(entry);
            match (&job.progress, graph) {
                // The process may have died between the record of the end and this removal.
                (Progress::Ended(_), Some(graph)) => self.forget(job.record.job_id, graph).await,
                (Progress::Ended(_), None) => {}
                _ => unfinished.push(job),
            }
        }
        let noted = unfinished.into_iter().map(|job| {
            let start = job.start;
            (job, start)
        });
        let planned = plan(noted.collect(), last);
        for planned in &planned {
            self.hold_until_its_turn(serving, planned).await;
        }
        Ok(planned)
    }

    /// Lets a job wait that is not started at once, so that it can be given up meanwhile.
    async fn hold_until_its_turn(&self, serving: &Serving, planned: &Planned<Catalogued>) {
        let Planned { job, turn, deaths } = planned;
        let (id, name) = (job.record.job_id, &job.record.name);
        let (status, why) = match turn {
            Turn::AtOnce => return,
            Turn::InTurn => (
                JobStatus::Restarting,
                "it waits for the jobs that start before it".to_owned(),
            ),
            Turn::Alone(wait) if planned.is_set_aside() => {
                let why = format!(
                    "the host died {deaths} times in a row while nothing but this job was starting. It is set aside, and this host tries it again, alone, {} after its own start; end this host and start `regraft serve` again to try it at once",
                    if wait.is_zero() {
                        "as soon as all other jobs run".to_owned()
                    } else {
                        format!("{wait:?}")
                    }
                );
                tracing::error!(
                    "Job {name} ({id}) is SUSPENDED: {why}. `regraft cancel {id}` gives it up, and keeps its checkpoints."
                );
                (JobStatus::Suspended, why)
            }
            Turn::Alone(_) => {
                let why = "the host died while it was starting, so it is started when all other jobs run, and alone";
                tracing::warn!("Job {name} ({id}) waits: {why}.");
                (JobStatus::Restarting, why.to_owned())
            }
        };
        if let Turn::Alone(_) = turn {
            let note = StartNote {
                starting: false,
                deaths: *deaths,
            };
            if let Err(error) = serving.catalog.note_start(id, note).await {
                tracing::warn!("that job {id} waits could not be noted: {error}");
            }
        }
        let graph = job.record.submission.graph().ok();
        let mut held = outline(&*self.context.stores, &job.record, graph.as_ref(), status, Some(&why));
        if planned.is_set_aside() {
            self.show_what_is_on_disk(&mut held).await;
        }
        self.update(id, |entry| entry.stage = Stage::Held(Arc::new(held)));
    }

    /// Adds the checkpoints of a job that waits to its description, unless its store does not answer at once.
    async fn show_what_is_on_disk(&self, held: &mut ObservedJob) {
        let id = held.job_id.to_string();
        if let Ok(Ok(snapshots)) = tokio::time::timeout(LISTING_MAX, self.snapshots(&id)).await {
            show_checkpoints(&snapshots, held);
        }
    }

    /// Brings jobs back, each in its turn. A try that fails delays no other job.
    pub async fn bring_back(self: &Arc<Self>, jobs: Vec<Planned<Catalogued>>) {
        let began = tokio::time::Instant::now();
        let mut tries = JoinSet::new();
        for Planned { job, turn, deaths } in jobs {
            let id = job.record.job_id;
            if let Turn::Alone(wait) = turn {
                tokio::time::sleep_until(began + wait).await;
                self.none_starting().await;
            }
            // It may have been given up meanwhile.
            if turn != Turn::AtOnce && !self.take(id) {
                continue;
            }
            let (tried, is_tried) = oneshot::channel();
            let host = self.clone();
            let trying = async move { host.bring_back_one(job, deaths, tried).await };
            tries.spawn(trying.instrument(job_span(id)));
            if turn != Turn::AtOnce {
                let _ = tokio::time::timeout(TURN_MAX, is_tried).await;
            }
        }
        while tries.join_next().await.is_some() {}
    }

    /// Brings a job back. A try that fails loses nothing: it is repeated for as long as that may help, and until the job is
    /// given up. `tried` is notified when the first try ends.
    async fn bring_back_one(self: &Arc<Self>, job: Catalogued, deaths: u32, tried: oneshot::Sender<()>) {
        let id = job.record.job_id;
        let mut tried = Some(tried);
        for wait in AGAIN {
            let again = self.bring_back_noted(&job, deaths, wait).await;
            let _ = tried.take().map(|tried| tried.send(()));
            if !again {
                return;
            }
            loop {
                self.context.environment.sleep(wait).await;
                match self.entry(&id.to_string()).map(|entry| entry.stage) {
                    Ok(Stage::Held(_)) if self.take(id) => break,
                    // A request to give it up is under way.
                    Ok(Stage::Held(_) | Stage::Starting(_)) => {}
                    Ok(Stage::Live(_) | Stage::Lost(_) | Stage::Over(_)) | Err(_) => return,
                }
            }
        }
    }

    /// Tries once, with a note of it while it lasts. Returns true if it failed, and another try after this wait may succeed.
    async fn bring_back_noted(self: &Arc<Self>, job: &Catalogued, deaths: u32, wait: Duration) -> bool {
        let Some(serving) = &self.serving else { return false };
        let id = job.record.job_id;
        self.begin_start(&serving.catalog, id, deaths).await;
        let again = self.bring_back_once(job, wait).await;
        match self.job(&id.to_string()) {
            Ok(runs) => self.watch_start(runs),
            Err(_) => self.end_start(&serving.catalog, id).await,
        }
        again
    }

    /// Tries once. Returns true if it failed, and another try after this wait may succeed.
    async fn bring_back_once(self: &Arc<Self>, job: &Catalogued, wait: Duration) -> bool {
        let Some(serving) = &self.serving else { return false };
        let (id, name) = (job.record.job_id, &job.record.name);
        let stores = &*self.context.stores;
        let error = match self.recovered(serving, job).await {
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
                let last = outline(stores, &job.record, graph.as_ref(), end.status, end.failure.as_deref());
                self.over(graph, last).await;
                return false;
            }
            Ok(Recovered::NeverBegun) => {
                self.drop_job(serving, id).await;
                return false;
            }
            Err(error) => error,
        };
        // Some messages end with a period, and go on here.
        let why = error.to_string();
        let why = why.trim_end_matches('.');
        // Its submitter has had no answer, and would have been refused.
        if job.progress == Progress::Submitted {
            tracing::warn!("Job {name} ({id}) had not been started yet and cannot be: {why}. It is dropped.");
            self.drop_job(serving, id).await;
            return false;
        }
        let status = if error.may_pass() {
            tracing::error!(
                "Job {name} ({id}) could not be brought back: {why}. It is tried again in {wait:?}; `regraft cancel {id}` gives it up, and keeps its checkpoints."
            );
            JobStatus::Restarting
        } else {
            tracing::error!(
                "Job {name} ({id}) could not be brought back: {why}. It is SUSPENDED: the next start of this host tries again, and `regraft cancel {id}` gives it up, and keeps its checkpoints."
            );
            JobStatus::Suspended
        };
        let graph = job.record.submission.graph().ok();
        let mut held = outline(stores, &job.record, graph.as_ref(), status, Some(why));
        self.show_what_is_on_disk(&mut held).await;
        self.update(id, |entry| entry.stage = Stage::Held(Arc::new(held)));
        error.may_pass()
    }

    /// Brings a job back, or starts one that was taken in and not started.
    async fn recovered(&self, serving: &Serving, job: &Catalogued) -> Result<Recovered, HostError> {
        let record = &job.record;
        let graph = record.submission.graph()?;
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
            return Err(HostError::Gone {
                dir: self.context.checkpoint_dir_of(&graph),
                job: record.job_id,
            });
        }
        Ok(Recovered::Running(self.begin(serving, record, graph).await?))
    }

    /// Starts a job that was taken in.
    async fn begin(&self, serving: &Serving, record: &CatalogRecord, graph: JobGraph) -> Result<JobHandle, HostError> {
        let mut modules = Modules::new();
        for (uid, digest) in &record.submission.modules {
            let loaded = async {
                let component = serving.catalog.component(record.job_id, digest).await?;
                let engine = self.engine.clone();
                let loading = move || engine.load(component.to_vec());
                Ok(run_blocking(&*self.context.environment, loading).await??.module)
            };
            let loaded = loaded.await.map_err(|source: Box<dyn Error + Send + Sync>| {
                let uid = uid.clone();
                HostError::Component { uid, source }
            })?;
            modules.insert(uid.clone(), Arc::new(loaded));
        }
        Ok(start(&self.context, new_job(record, graph, modules)).await?)
    }

    /// Ends a job that could not be brought back, and has been [taken](Self::take) for that.
    pub(super) async fn give_up(&self, entry: &Entry) -> Result<ObservedJob, HostError> {
        let mut last = ObservedJob {
            status: JobStatus::Canceled,
            ..entry.observe()
        };
        if let Some(graph) = &entry.graph {
            let given_up = bring_back::give_up(&self.context, entry.job_id, JobGraph::clone(graph));
            if let Err(error) = given_up.await {
                self.update(entry.job_id, |held| held.stage = entry.stage.clone());
                return Err(error.into());
            }
        }
        if let Some(serving) = &self.serving {
            last.go_on = self.way_on_of(serving, &last).await;
        }
        self.over(entry.graph.as_deref().cloned(), last.clone()).await;
        Ok(last)
    }

    /// Suspends all jobs, so that the next process brings them back. No more are taken.
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
            // As after a kill of the process, the next one brings them back all the same.
            tracing::warn!("some jobs have not suspended in time");
        }
        if let Some(serving) = &self.serving {
            self.forget_starts(&serving.catalog).await;
            if let Err(error) = serving.catalog.host_ends().await {
                tracing::warn!("that this host has ended could not be noted: {error}");
            }
            let logs = serving.logs.clone();
            let _ = tokio::task::spawn_blocking(move || logs.flush()).await;
        }
    }

    /// Waits until the end of every job that has ended is recorded, and the rest of it removed.
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
}

/// Loads the components that jobs have kept.
struct Loader(GuestEngine);

impl LoadModule for Loader {
    fn load(&self, _uid: &OperatorUid, component: Bytes) -> Result<Arc<dyn OperatorModule>, String> {
        let loaded = self.0.load(component.to_vec()).map_err(|error| error.to_string())?;
        Ok(Arc::new(loaded.module))
    }
}
