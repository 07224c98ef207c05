//! The jobs of this process, and operations on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use regraft_guest_runtime::engine::GuestEngine;
use regraft_model::id::{JobId, OperatorUid};
use tokio::sync::Notify;

use super::attached::AttachedRuns;
use super::catalog::{Catalog, KnownSavepoint};
use super::entries::{Entry, Stage};
use super::error::{HostError, SavepointError};
use super::go_on::{Again, go_on};
use super::logs::{JobLogs, LogChunk, LogPart};
use super::operations::{Operation, OperationKind, Operations, Outcome};
use super::snapshots::{ListedSnapshot, snapshots_in, upgraded_in};
use super::submission::Submission;
use super::uploads::{Upload, Uploads};
use crate::dataflow::control::locked;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::jobs::handle::{JobHandle, SavepointTarget, SnapshotReport, SnapshotRequest};
use crate::jobs::observe::{GoOn, ObservedJob};
use crate::jobs::profile::{ProfileRequest, profile};
use crate::jobs::start::HostContext;
use crate::jobs::status::JobStatus;
use crate::savepoint::rows::Layout;
use crate::upgrade::report::UpgradeReport;
use crate::upgrade::upgrade;
use regraft_model::snapshot::SnapshotKind;

/// A host: its jobs, and the engine that loads their components.
pub struct Host {
    pub(super) engine: GuestEngine,
    pub(super) context: HostContext,
    pub(super) entries: Mutex<Vec<Entry>>,
    /// Notified when an entry changes its stage, or a start is over.
    pub(super) changed: Notify,
    /// Jobs that are being started, or have started a moment ago.
    pub(super) starting: Mutex<BTreeSet<JobId>>,
    uploads: Mutex<Uploads>,
    /// True while a task waits to drop uploaded components.
    dropping_uploads: AtomicBool,
    operations: Operations,
    pub(super) serving: Option<Serving>,
    /// List of attached runs, for a host of one.
    attached: Option<AttachedRuns>,
}

/// Parts of a host that takes jobs, and whose jobs outlive its process.
pub struct Serving {
    /// Durable list of its jobs.
    pub catalog: Catalog,
    /// Their logs.
    pub logs: Arc<JobLogs>,
    /// Path and text of the file with defaults of their settings.
    pub config: Option<(PathBuf, String)>,
    /// True once the host is ending, and takes no more jobs.
    pub ending: Mutex<bool>,
}

/// A savepoint to take.
#[derive(Debug, Clone)]
pub struct SavepointOptions {
    /// Directory for it, a path or URL; `None` for the job's own.
    pub dir: Option<String>,
    /// Layout of its state files.
    pub layout: Layout,
    /// Only for a stop: lets the job finish as if its input ended here.
    pub drain: bool,
}

impl Default for SavepointOptions {
    fn default() -> Self {
        Self {
            dir: None,
            layout: Layout::Canonical,
            drain: false,
        }
    }
}

impl Host {
    /// Returns a host without jobs. With no `serving` it runs only the jobs that [`Host::add`] gives it.
    #[must_use]
    pub fn new(engine: GuestEngine, context: HostContext, serving: Option<Serving>) -> Self {
        Self {
            engine,
            context,
            entries: Mutex::default(),
            changed: Notify::new(),
            starting: Mutex::default(),
            uploads: Mutex::default(),
            dropping_uploads: AtomicBool::new(false),
            operations: Operations::default(),
            serving,
            attached: None,
        }
    }

    /// Notes savepoints in the list of attached runs.
    #[must_use]
    pub fn noting(self, attached: AttachedRuns) -> Self {
        Self {
            attached: Some(attached),
            ..self
        }
    }

    /// Lists the complete snapshots of a job in order of their rounds.
    ///
    /// # Errors
    /// [`HostError`] where there is no such job, or the checkpoint directory cannot be read.
    pub async fn snapshots(&self, id: &str) -> Result<Vec<ListedSnapshot>, HostError> {
        let entry = self.entry(id)?;
        let dir = entry.graph.as_ref().map(|graph| self.context.checkpoint_dir_of(graph));
        Ok(snapshots_in(&*self.context.stores, dir.as_deref(), entry.job_id, &entry.savepoints).await?)
    }

    /// Returns how to go on after a job has failed; `None` where it has left nothing.
    pub async fn way_on(&self, submission: &Submission, last: &ObservedJob, again: Again) -> Option<GoOn> {
        let id = last.job_id;
        let snapshots = self.snapshots(&id.to_string()).await.unwrap_or_default();
        let graph = self.entry(&id.to_string()).ok().and_then(|entry| entry.graph);
        let dir = graph.map(|graph| self.context.checkpoint_dir_of(&graph));
        let upgraded = upgraded_in(&*self.context.stores, dir.as_deref(), id).await;
        go_on(submission, &snapshots, last.restored_from.as_deref(), again, &upgraded)
    }

    /// Returns the data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        let checkpoints = &self.context.checkpoint_dir;
        checkpoints.parent().unwrap_or(checkpoints)
    }

    /// Adds a job that runs.
    pub fn add(&self, job: JobHandle) {
        locked(&self.entries).push(Entry {
            job_id: job.job_id(),
            graph: Some(job.shared.graph.clone()),
            stage: Stage::Live(job),
            savepoints: vec![],
        });
    }

    /// Returns all jobs in the order in which they came.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        locked(&self.entries).clone()
    }

    /// Returns the job with this id.
    ///
    /// # Errors
    /// [`HostError::NoSuchJob`].
    pub fn entry(&self, id: &str) -> Result<Entry, HostError> {
        let found = self.entries().into_iter().find(|entry| entry.job_id.to_string() == id);
        found.ok_or_else(|| HostError::NoSuchJob(id.to_owned()))
    }

    /// Returns the handle of the job with this id.
    ///
    /// # Errors
    /// [`HostError`] where there is no such job, or it does not run in this host.
    pub fn job(&self, id: &str) -> Result<JobHandle, HostError> {
        self.entry(id)?.handle().cloned()
    }

    pub(super) fn update(&self, job: JobId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = locked(&self.entries).iter_mut().find(|entry| entry.job_id == job) {
            change(entry);
        }
        self.changed.notify_waiters();
    }

    /// Takes a job that could not be brought back, to start it or give it up. Returns false if it does not wait for that.
    pub(super) fn take(&self, job: JobId) -> bool {
        let mut taken = false;
        self.update(job, |entry| {
            if let Stage::Held(job) = &entry.stage {
                entry.stage = Stage::Starting(job.clone());
                taken = true;
            }
        });
        taken
    }

    /// Takes a savepoint, and with [`SnapshotKind::Stop`] ends the job.
    ///
    /// # Errors
    /// [`SavepointError`]; the job goes on.
    pub async fn savepoint(
        &self,
        job: &JobHandle,
        options: SavepointOptions,
        kind: SnapshotKind,
    ) -> Result<SnapshotReport, SavepointError> {
        let (id, status) = (job.job_id(), job.status());
        if status != JobStatus::Running {
            return Err(SavepointError::NotRunning { job: id, status });
        }
        let dir = options.dir.or_else(|| job.shared.graph.savepoint_dir.clone());
        let dir = dir.ok_or(SavepointError::NoDirectory(id))?;
        if let Err(source) = self.context.probe(&dir).await {
            return Err(SavepointError::Directory { dir, source });
        }
        let target = SavepointTarget {
            dir,
            layout: options.layout,
        };
        let drain = options.drain;
        let report = job
            .snapshot(match kind {
                SnapshotKind::Stop => SnapshotRequest::Stop { target, drain },
                _ => SnapshotRequest::Savepoint(target),
            })
            .await
            .map_err(SavepointError::Round)?;
        self.note(&report).await;
        Ok(report)
    }

    /// Records a savepoint, so that it is listed.
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
        if let Some(attached) = &self.attached
            && let Err(error) = attached.savepoint(report.job_id, &known).await
        {
            tracing::warn!(
                "savepoint {} will not be listed once the job has ended: {error}",
                report.path
            );
        }
        self.update(report.job_id, |entry| entry.savepoints.push(known));
    }

    /// Begins to take a savepoint of a job.
    #[must_use]
    pub fn begin_savepoint(self: &Arc<Self>, job: JobHandle, options: SavepointOptions) -> Operation {
        let (host, id) = (self.clone(), job.job_id());
        let work = async move {
            let taken = host.savepoint(&job, options, SnapshotKind::Savepoint).await;
            let taken = taken.map_err(HostError::Savepoint)?;
            Ok(Outcome::Saved(taken))
        };
        self.operations.begin(id, OperationKind::Savepoint, work)
    }

    /// Begins to end a job with a savepoint. The operation is complete when the job has ended.
    #[must_use]
    pub fn begin_stop(self: &Arc<Self>, job: JobHandle, options: SavepointOptions) -> Operation {
        let (host, id) = (self.clone(), job.job_id());
        let work = async move {
            let taken = host.savepoint(&job, options, SnapshotKind::Stop).await;
            let taken = taken.map_err(HostError::Savepoint)?;
            job.done().await;
            match job.failure() {
                Some(failure) if job.status() == JobStatus::Failed => Err(failure.into()),
                _ => Ok(Outcome::Saved(taken)),
            }
        };
        self.operations.begin(id, OperationKind::Stop, work)
    }

    /// Begins to end a job at once. The operation is complete when the job has ended.
    ///
    /// # Errors
    /// [`HostError`] where there is no such job.
    pub fn begin_cancel(self: &Arc<Self>, id: &str) -> Result<Operation, HostError> {
        let (host, job) = (self.clone(), self.entry(id)?.job_id);
        let work = async move {
            let ended = host.cancel(&job.to_string()).await?;
            Ok(Outcome::Ended(Box::new(ended)))
        };
        Ok(self.operations.begin(job, OperationKind::Cancel, work))
    }

    /// Begins to swap uploaded components into a job. `digests` has the SHA-256 for each uid that changes.
    #[must_use]
    pub fn begin_upgrade(self: &Arc<Self>, job: JobHandle, digests: BTreeMap<OperatorUid, String>) -> Operation {
        let (host, id) = (self.clone(), job.job_id());
        let work = async move { Ok(Outcome::Upgraded(host.upgrade(&job, digests).await?)) };
        self.operations.begin(id, OperationKind::Upgrade, work)
    }

    /// Begins to profile the guest of an operator.
    #[must_use]
    pub fn begin_profile(self: &Arc<Self>, job: JobHandle, request: ProfileRequest) -> Operation {
        let (host, id) = (self.clone(), job.job_id());
        let work = async move {
            let _sampling = host.engine.sampling();
            Ok(Outcome::Profiled(Box::new(profile(&job, &request).await?)))
        };
        self.operations.begin(id, OperationKind::Profile, work)
    }

    /// Returns an operation that has begun.
    ///
    /// # Errors
    /// [`HostError::NoSuchOperation`].
    pub fn operation(&self, job: &str, id: &str) -> Result<Operation, HostError> {
        self.operations.get(job, id).ok_or_else(|| HostError::NoSuchOperation {
            job: job.to_owned(),
            id: id.to_owned(),
        })
    }

    /// Ends a job at once, and waits until it has ended.
    ///
    /// # Errors
    /// [`HostError`] where it has ended already.
    pub async fn cancel(&self, id: &str) -> Result<ObservedJob, HostError> {
        loop {
            let change = self.changed.notified();
            let entry = self.entry(id)?;
            match &entry.stage {
                Stage::Starting(_) => change.await,
                Stage::Held(_) if self.take(entry.job_id) => return self.give_up(&entry).await,
                // Another request has just taken it.
                Stage::Held(_) => {}
                Stage::Lost(_) | Stage::Over(_) => {
                    entry.handle()?;
                }
                Stage::Live(job) => {
                    job.cancel();
                    job.done().await;
                    return Ok(job.shared.observe());
                }
            }
        }
    }

    /// Reads a part of a job's log.
    ///
    /// # Errors
    /// [`HostError`] where this host keeps no logs, or the log cannot be read.
    pub fn log(&self, id: &str, part: LogPart) -> Result<LogChunk, HostError> {
        let job = self.entry(id)?.job_id;
        let Some(serving) = &self.serving else {
            return Err(HostError::NoLog(job));
        };
        let read = match part {
            LogPart::From(position) => serving.logs.from(job, position),
            LogPart::Last(lines) => serving.logs.last(job, lines),
        };
        read.map_err(|source| HostError::Log { job, source })
    }

    /// Loads a component for a job or an upgrade, and returns its SHA-256. It is kept for [`UPLOAD_IDLE_MAX`].
    ///
    /// # Errors
    /// [`HostError::Module`] where this host cannot run it.
    pub fn upload(&self, bytes: Vec<u8>) -> Result<String, HostError> {
        let start = Instant::now();
        let loaded = self.engine.load(bytes)?;
        let digest = loaded.module.digest().to_string();
        locked(&self.uploads).add(Upload {
            digest: digest.clone(),
            bytes: loaded.module.bytes().len(),
            module: loaded.module,
            took: start.elapsed(),
            at: Instant::now(),
        });
        Ok(digest)
    }

    /// Drops uploaded components when their time is over. Returns once there is none left, or at once where another call is
    /// under way.
    pub async fn drop_old_uploads(&self) {
        if self.dropping_uploads.swap(true, Ordering::AcqRel) {
            return;
        }
        loop {
            let next = {
                let mut uploads = locked(&self.uploads);
                let next = uploads.drop_old(Instant::now());
                if next.is_none() {
                    // Under the lock: the next upload finds this call under way or over.
                    self.dropping_uploads.store(false, Ordering::Release);
                }
                next
            };
            let Some(next) = next else { return };
            tokio::time::sleep(next).await;
        }
    }

    /// Returns an uploaded component, and the time that it took to load.
    pub(super) fn uploaded(&self, digest: &str) -> Option<(Arc<dyn OperatorModule>, Duration)> {
        let uploads = locked(&self.uploads);
        let upload = uploads.get(digest, Instant::now())?;
        Some((Arc::new(upload.module.clone()), upload.took))
    }

    /// Swaps uploaded components into a job. `digests` has the SHA-256 for each uid that changes.
    ///
    /// # Errors
    /// [`HostError`]; the job goes on as it was.
    pub async fn upgrade(
        &self,
        job: &JobHandle,
        digests: BTreeMap<OperatorUid, String>,
    ) -> Result<UpgradeReport, HostError> {
        let mut modules = Modules::new();
        let mut took = Duration::ZERO;
        for (uid, digest) in digests {
            let Some((module, loading)) = self.uploaded(&digest) else {
                return Err(HostError::NoSuchModule { uid, digest });
            };
            took += loading;
            modules.insert(uid, module);
        }
        let now = Instant::now();
        Ok(upgrade(job, modules, now.checked_sub(took).unwrap_or(now)).await?)
    }
}
