//! The jobs of this process, and what can be asked of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use regraft_guest_runtime::engine::GuestEngine;
use regraft_guest_runtime::module::GuestModule;
use regraft_model::id::JobId;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::entries::{Entry, Stage};
use super::logs::JobLogs;
use super::types::{LogChunk, LogQuery, SavepointRequest, TriggerStatus, UpgradeRequest};
use crate::dataflow::control::locked;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::environment::real::random;
use crate::jobs::catalog::{Catalog, KnownSavepoint};
use crate::jobs::handle::{JobError, JobHandle, JobView, SavepointTarget, SnapshotReport, SnapshotRequest};
use crate::jobs::start::HostContext;
use crate::jobs::status::JobStatus;
use crate::jobs::submission::ConfigFile;
use crate::savepoint::rows::Layout;
use crate::upgrade::report::UpgradeReport;
use crate::upgrade::upgrade;
use regraft_model::snapshot::SnapshotKind;

/// Components uploaded and not used yet; the oldest goes first.
const UPLOADS_MAX: usize = 256;
/// Savepoints that were triggered and can be asked about; the oldest goes first.
const TRIGGERS_MAX: usize = 256;
/// How many lines of a log are shown where nobody says how many.
const LOG_LINES: usize = 100;

/// A host: its jobs, and the engine that loads their components.
pub struct Host {
    pub(super) engine: GuestEngine,
    pub(super) context: HostContext,
    pub(super) entries: Mutex<Vec<Entry>>,
    /// Some entry is in another stage now.
    pub(super) changed: Notify,
    uploads: Mutex<Vec<Upload>>,
    triggers: Mutex<VecDeque<Trigger>>,
    pub(super) serving: Option<Serving>,
}

/// What a host has that takes jobs and outlives its process.
pub struct Serving {
    /// Its jobs, durably.
    pub catalog: Catalog,
    /// Their logs.
    pub logs: Arc<JobLogs>,
    /// Defaults of their settings.
    pub config: Option<ConfigFile>,
    /// Whether it is ending, and takes no more.
    pub ending: Mutex<bool>,
}

struct Upload {
    digest: String,
    module: GuestModule,
    took: Duration,
}

struct Trigger {
    id: String,
    job: JobId,
    status: Arc<Mutex<TriggerStatus>>,
}

impl Host {
    /// A host without jobs. One that does not serve runs only those that it is given.
    #[must_use]
    pub fn new(engine: GuestEngine, context: HostContext, serving: Option<Serving>) -> Self {
        Self {
            engine,
            context,
            entries: Mutex::default(),
            changed: Notify::new(),
            uploads: Mutex::default(),
            triggers: Mutex::default(),
            serving,
        }
    }

    /// Takes in a job that runs.
    pub fn add(&self, job: JobHandle) {
        locked(&self.entries).push(Entry {
            job_id: job.job_id(),
            graph: Some(job.shared.graph.clone()),
            stage: Stage::Live(job),
            savepoints: vec![],
        });
    }

    /// All jobs, in the order in which they came.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        locked(&self.entries).clone()
    }

    /// The job with this id.
    ///
    /// # Errors
    /// [`JobError`] of kind usage where there is none.
    pub fn entry(&self, id: &str) -> Result<Entry, JobError> {
        let found = self.entries().into_iter().find(|entry| entry.job_id.to_string() == id);
        found.ok_or_else(|| JobError::usage(format!("there is no job {id} on this host")))
    }

    /// What talks to the job with this id.
    ///
    /// # Errors
    /// [`JobError`], of kind usage where there is none.
    pub fn job(&self, id: &str) -> Result<JobHandle, JobError> {
        self.entry(id)?.handle().cloned()
    }

    pub(super) fn update(&self, job: JobId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = locked(&self.entries).iter_mut().find(|entry| entry.job_id == job) {
            change(entry);
        }
        self.changed.notify_waiters();
    }

    /// A job that could not be brought back is being started or given up from now on. False: it does not wait for that.
    pub(super) fn take(&self, job: JobId) -> bool {
        let mut taken = false;
        self.update(job, |entry| {
            if let Stage::Held(view) = &entry.stage {
                entry.stage = Stage::Starting(view.clone());
                taken = true;
            }
        });
        taken
    }

    /// Takes a savepoint, and with [`SnapshotKind::Stop`] ends the job.
    ///
    /// # Errors
    /// [`JobError`]; the job goes on.
    pub async fn savepoint(
        &self,
        job: &JobHandle,
        request: SavepointRequest,
        kind: SnapshotKind,
    ) -> Result<SnapshotReport, JobError> {
        let status = job.status();
        if status != JobStatus::Running {
            return Err(JobError::failed(format!(
                "job {} is {status}, not RUNNING: nothing can be saved",
                job.job_id()
            )));
        }
        let dir = request.dir.or_else(|| job.shared.graph.savepoint_dir.clone());
        let dir = dir.ok_or_else(|| {
            JobError::failed(format!(
                "no savepoint directory is known for job {}: name one with the command (`regraft savepoint JOB DIR`, `regraft stop JOB --savepoint-path DIR`), or set `dir` in [savepoint] of the job file (Flink's state.savepoints.dir); the job goes on",
                job.job_id()
            ))
        })?;
        let probed = self.context.probe(&dir).await;
        probed.map_err(|error| JobError {
            message: format!("{}; the job goes on", error.message.trim_end_matches('.')),
            ..error
        })?;
        let layout = if request.native {
            Layout::Native
        } else {
            Layout::Canonical
        };
        let target = SavepointTarget { dir, layout };
        let drain = request.drain;
        let report = job
            .snapshot(match kind {
                SnapshotKind::Stop => SnapshotRequest::Stop { target, drain },
                _ => SnapshotRequest::Savepoint(target),
            })
            .await?;
        self.note(&report).await;
        Ok(report)
    }

    /// Remembers a savepoint, to be listed.
    async fn note(&self, report: &SnapshotReport) {
        let known = KnownSavepoint {
            checkpoint_id: report.checkpoint_id,
            path: report.path.clone(),
        };
        if let Some(serving) = &self.serving
            && let Err(error) = serving.catalog.savepoint(report.job_id, &known).await
        {
            tracing::warn!("savepoint {} will not be listed: {error}", report.path);
        }
        self.update(report.job_id, |entry| entry.savepoints.push(known));
    }

    /// Takes a savepoint, or ends the job with one, whether or not whoever asked waits for it.
    #[must_use]
    pub fn trigger(
        self: &Arc<Self>,
        job: JobHandle,
        request: SavepointRequest,
        kind: SnapshotKind,
    ) -> (String, JoinHandle<Result<SnapshotReport, JobError>>) {
        let id = format!("{:032x}", random());
        let status = Arc::new(Mutex::new(TriggerStatus::InProgress));
        let mut triggers = locked(&self.triggers);
        if triggers.len() >= TRIGGERS_MAX {
            triggers.pop_front();
        }
        triggers.push_back(Trigger {
            id: id.clone(),
            job: job.job_id(),
            status: status.clone(),
        });
        drop(triggers);
        let host = self.clone();
        let span = super::logs::job_span(job.job_id());
        let taking = async move {
            let mut taken = host.savepoint(&job, request, kind).await;
            if kind == SnapshotKind::Stop && taken.is_ok() {
                job.done().await;
                if let (Some(failure), JobStatus::Failed) = (job.shared.view().failure, job.status()) {
                    taken = Err(JobError::failed(failure));
                }
            }
            *locked(&status) = match taken.clone() {
                Ok(report) => TriggerStatus::Completed { report },
                Err(cause) => TriggerStatus::Failed { cause },
            };
            taken
        };
        (id, tokio::spawn(tracing::Instrument::instrument(taking, span)))
    }

    /// How far a triggered savepoint is.
    ///
    /// # Errors
    /// [`JobError`] of kind usage where no such one is remembered.
    pub fn triggered(&self, job: &str, id: &str) -> Result<TriggerStatus, JobError> {
        let triggers = locked(&self.triggers);
        let found = triggers
            .iter()
            .find(|trigger| trigger.id == id && trigger.job.to_string() == job);
        let found = found.map(|trigger| locked(&trigger.status).clone());
        found.ok_or_else(|| JobError::usage(format!("no savepoint {id} of job {job} is remembered on this host")))
    }

    /// Ends a job at once, and waits until it has ended.
    ///
    /// # Errors
    /// [`JobError`] where it has ended already.
    pub async fn cancel(&self, id: &str) -> Result<JobView, JobError> {
        loop {
            let change = self.changed.notified();
            let entry = self.entry(id)?;
            match &entry.stage {
                Stage::Starting(_) => change.await,
                Stage::Held(_) if self.take(entry.job_id) => return self.give_up(&entry).await,
                // Somebody else has just taken it.
                Stage::Held(_) => {}
                Stage::Over(_) => {
                    entry.handle()?;
                }
                Stage::Live(job) => {
                    job.cancel();
                    job.done().await;
                    return Ok(job.shared.view());
                }
            }
        }
    }

    /// A job's log.
    ///
    /// # Errors
    /// [`JobError`] where this host keeps none, or it cannot be read.
    pub fn log(&self, id: &str, query: &LogQuery) -> Result<LogChunk, JobError> {
        let job = self.entry(id)?.job_id;
        let Some(serving) = &self.serving else {
            return Err(JobError::failed(format!(
                "job {job} runs attached: its log is what its `regraft run` prints on stderr"
            )));
        };
        let read = match query.from {
            Some(position) => serving.logs.from(job, position),
            None => serving.logs.last(job, query.lines.unwrap_or(LOG_LINES)),
        };
        read.map_err(|error| JobError::failed(format!("the log of job {job} cannot be read: {error}")))
    }

    /// Loads a component, to be used by a job or an upgrade.
    ///
    /// # Errors
    /// [`JobError`] of kind usage where it is none that this host runs.
    pub fn upload(&self, bytes: Vec<u8>) -> Result<String, JobError> {
        let start = Instant::now();
        let loaded = self
            .engine
            .load(bytes)
            .map_err(|error| JobError::usage(error.to_string()))?;
        let digest = loaded.module.digest().to_string();
        let mut uploads = locked(&self.uploads);
        uploads.retain(|upload| upload.digest != digest);
        if uploads.len() >= UPLOADS_MAX {
            uploads.remove(0);
        }
        uploads.push(Upload {
            digest: digest.clone(),
            module: loaded.module,
            took: start.elapsed(),
        });
        Ok(digest)
    }

    /// An uploaded component, and how long it took to load.
    pub(super) fn uploaded(&self, digest: &str) -> Option<(Arc<dyn OperatorModule>, Duration)> {
        let uploads = locked(&self.uploads);
        let upload = uploads.iter().find(|upload| upload.digest == digest)?;
        Some((Arc::new(upload.module.clone()), upload.took))
    }

    /// Swaps uploaded components into a job.
    ///
    /// # Errors
    /// [`JobError`]; the job goes on as it was.
    pub async fn upgrade(&self, job: &JobHandle, request: UpgradeRequest) -> Result<UpgradeReport, JobError> {
        let mut modules = Modules::new();
        let mut took = Duration::ZERO;
        for (uid, digest) in request.modules {
            let Some((module, loading)) = self.uploaded(&digest) else {
                return Err(JobError::usage(format!("no module {digest} has been uploaded")).on(&uid));
            };
            took += loading;
            modules.insert(uid, module);
        }
        let now = Instant::now();
        upgrade(job, modules, now.checked_sub(took).unwrap_or(now)).await
    }
}
