//! The jobs of this process, and what can be asked of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use regraft_guest_runtime::engine::GuestEngine;
use regraft_guest_runtime::module::GuestModule;

use super::types::{SavepointRequest, UpgradeRequest};
use crate::dataflow::control::locked;
use crate::dataflow::operator::Modules;
use crate::environment::real::random;
use crate::jobs::handle::{JobError, JobHandle, SnapshotReport, SnapshotRequest};
use crate::jobs::status::JobStatus;
use crate::savepoint::rows::Layout;
use crate::storage::Storage;
use crate::upgrade::run::{UpgradeReport, upgrade};
use regraft_model::snapshot::SnapshotKind;

/// Components uploaded and not used yet; the oldest goes first.
const UPLOADS_MAX: usize = 32;

/// A host: its jobs, and the engine that loads their components.
pub struct Host {
    engine: GuestEngine,
    jobs: Mutex<Vec<JobHandle>>,
    uploads: Mutex<Vec<Upload>>,
}

struct Upload {
    digest: String,
    module: GuestModule,
    took: Duration,
}

impl Host {
    /// A host without jobs.
    #[must_use]
    pub fn new(engine: GuestEngine) -> Self {
        Self {
            engine,
            jobs: Mutex::default(),
            uploads: Mutex::default(),
        }
    }

    /// Takes a job in.
    pub fn add(&self, job: JobHandle) {
        locked(&self.jobs).push(job);
    }

    /// All jobs.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobHandle> {
        locked(&self.jobs).clone()
    }

    /// The job with this id.
    ///
    /// # Errors
    /// [`JobError`] of kind usage where there is none.
    pub fn job(&self, id: &str) -> Result<JobHandle, JobError> {
        let found = self.jobs().into_iter().find(|job| job.job_id().to_string() == id);
        found.ok_or_else(|| JobError::usage(format!("there is no job {id} on this host")))
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
                "no savepoint directory is known for job {}: name one with the command, or set `dir` in [savepoint] of the job file; the job goes on",
                job.job_id()
            ))
        })?;
        probe(&dir).await?;
        let layout = if request.native {
            Layout::Native
        } else {
            Layout::Canonical
        };
        let drain = request.drain && kind == SnapshotKind::Stop;
        let savepoint_dir = Some(dir);
        job.snapshot(SnapshotRequest {
            kind,
            savepoint_dir,
            layout,
            drain,
            swap: None,
            reply: None,
        })
        .await
    }

    /// Loads a component, to be used by an upgrade.
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

    /// Swaps uploaded components into a job.
    ///
    /// # Errors
    /// [`JobError`]; the job goes on as it was.
    pub async fn upgrade(&self, job: &JobHandle, request: UpgradeRequest) -> Result<UpgradeReport, JobError> {
        let mut modules = Modules::new();
        let mut took = Duration::ZERO;
        for (uid, digest) in request.modules {
            let uploads = locked(&self.uploads);
            let Some(upload) = uploads.iter().find(|upload| upload.digest == digest) else {
                return Err(JobError::usage(format!("no module {digest} has been uploaded")).on(&uid));
            };
            took += upload.took;
            modules.insert(uid, Arc::new(upload.module.clone()));
        }
        let now = Instant::now();
        upgrade(job, modules, now.checked_sub(took).unwrap_or(now)).await
    }
}

/// Whether the directory can be written to: said before a round begins.
async fn probe(dir: &str) -> Result<(), JobError> {
    let name = format!(".probe-{:012x}", random() as u64 & 0xffff_ffff_ffff);
    let tried = async {
        let storage = Storage::open(dir)?;
        storage.put(&name, "probe").await?;
        storage.delete(&name).await
    };
    tried.await.map_err(|error| JobError {
        path: Some(dir.to_owned()),
        ..JobError::failed(format!(
            "the savepoint directory cannot be used: {error}; the job goes on"
        ))
    })
}
