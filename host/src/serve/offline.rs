//! The jobs of a data directory that no process runs: attached runs that have ended or were killed, and jobs that wait for a
//! host that serves. Reads only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regraft_model::id::JobId;

use super::catalog::{Catalog, CatalogRecord, Catalogued, KnownSavepoint, Progress};
use super::entries::outline;
use super::error::HostError;
use super::go_on::{Again, go_on};
use super::snapshots::{ListedSnapshot, show_checkpoints, snapshots_in, upgraded_in};
use crate::graph::job_graph::JobGraph;
use crate::jobs::durable::records::JobDirectory;
use crate::jobs::observe::ObservedJob;
use crate::jobs::status::JobStatus;
use crate::storage::{LocalStores, Storage};

/// Directory of the list of attached runs, in the data directory.
pub(super) const ATTACHED: &str = "attached";

/// A job that no process runs.
#[derive(Debug, Clone)]
pub struct OfflineJob {
    /// Its submission, savepoints and end.
    pub found: Catalogued,
    /// True for an attached run, false for a job of a host that serves.
    pub attached: bool,
}

/// Returns the jobs of a data directory that no process runs. `live` has the ids of those that a process runs. Jobs of a
/// host that serves are left out while it does: they are its own to list.
///
/// # Errors
/// [`HostError`] where a list cannot be read. Jobs whose records are damaged are left out.
pub async fn jobs(data_dir: &Path, live: &BTreeSet<JobId>, is_served: bool) -> Result<Vec<OfflineJob>, HostError> {
    let mut found = listed(data_dir, live, true).await?;
    if !is_served {
        found.extend(listed(data_dir, live, false).await?);
    }
    Ok(found)
}

/// Returns those of [`jobs`] that a host brings back when it is started, or that have ended there.
///
/// # Errors
/// As [`jobs`].
pub async fn jobs_of_host(data_dir: &Path, live: &BTreeSet<JobId>) -> Result<Vec<OfflineJob>, HostError> {
    listed(data_dir, live, false).await
}

/// Returns the jobs on one of the two lists, but for those that a process runs.
async fn listed(data_dir: &Path, live: &BTreeSet<JobId>, attached: bool) -> Result<Vec<OfflineJob>, HostError> {
    let path = data_dir.join(if attached { ATTACHED } else { "jobs" });
    if !path.is_dir() {
        return Ok(vec![]);
    }
    let storage = Storage::open(&path.to_string_lossy())?;
    let jobs = Catalog::new(storage).look().await?.jobs.into_iter();
    let dead = jobs.filter(|job| !live.contains(&job.record.job_id));
    Ok(dead.map(|found| OfflineJob { found, attached }).collect())
}

/// Directory of the checkpoints of a job; `None` where its job file does not parse any more. The second is true if the job
/// file or a setting names it, so that it may be shared with other hosts.
fn checkpoint_dir(data_dir: &Path, graph: Option<&JobGraph>) -> Option<(PathBuf, bool)> {
    match &graph?.checkpoint.dir {
        Some(dir) => Some((PathBuf::from(dir), true)),
        None => Some((data_dir.join("checkpoints"), false)),
    }
}

/// Returns true if anything of the job is in its checkpoint directory, or that is not known.
#[must_use]
pub fn has_left_checkpoints(data_dir: &Path, record: &CatalogRecord) -> bool {
    let graph = record.submission.graph().ok();
    checkpoint_dir(data_dir, graph.as_ref())
        .is_none_or(|(dir, _)| dir.join(record.job_id.to_string()).symlink_metadata().is_ok())
}

impl OfflineJob {
    /// Id of the job.
    #[must_use]
    pub const fn job_id(&self) -> JobId {
        self.found.record.job_id
    }

    /// Savepoints that were taken of it.
    #[must_use]
    pub fn savepoints(&self) -> &[KnownSavepoint] {
        &self.found.savepoints
    }

    /// Directory with its checkpoints alone, if that is the host's own: no setting names it, and no other host writes there.
    #[must_use]
    pub fn own_checkpoints(&self, data_dir: &Path) -> Option<PathBuf> {
        let graph = self.found.record.submission.graph().ok();
        match checkpoint_dir(data_dir, graph.as_ref())? {
            (dir, false) => Some(dir.join(self.job_id().to_string())),
            (_, true) => None,
        }
    }

    /// Returns true if an attached run may not have ended: its record names a process that is not known to be gone. It may be
    /// stopped, so that it does not answer.
    pub async fn may_run(&self, data_dir: &Path) -> bool {
        if !self.attached || self.found.ended_at().is_some() {
            return false;
        }
        let graph = self.found.record.submission.graph().ok();
        let Some((dir, _)) = checkpoint_dir(data_dir, graph.as_ref()) else {
            return false;
        };
        let storage = Storage::open(&dir.to_string_lossy());
        let Some(records) = storage.ok().and_then(|dir| JobDirectory::new(&dir, self.job_id()).ok()) else {
            return false;
        };
        let process = records.job().await.ok().flatten().and_then(|job| job.process);
        process.is_some_and(|process| !process.is_gone())
    }

    /// Returns the job as it ended, or as it waits.
    ///
    /// # Errors
    /// [`HostError`] where its checkpoints cannot be listed.
    pub async fn observe(&self, data_dir: &Path) -> Result<ObservedJob, HostError> {
        let record = &self.found.record;
        if let Progress::Ended(Some(ended)) = &self.found.progress {
            return Ok(ended.job.clone());
        }
        let graph = record.submission.graph().ok();
        let (status, failure) = match (&self.found.progress, self.attached) {
            (Progress::Ended(_), _) => (JobStatus::Finished, None),
            (_, false) => (JobStatus::Suspended, None),
            (_, true) => (JobStatus::Failed, Some("its process was killed")),
        };
        let mut job = outline(&LocalStores::default(), record, graph.as_ref(), status, failure);
        if status == JobStatus::Finished {
            return Ok(job);
        }
        let snapshots = self.snapshots(data_dir).await?;
        show_checkpoints(&snapshots, &mut job);
        if self.attached {
            let dir = checkpoint_dir(data_dir, graph.as_ref()).map(|(dir, _)| dir.to_string_lossy().into_owned());
            let upgraded = upgraded_in(&LocalStores::default(), dir.as_deref(), record.job_id).await;
            let from = job.restored_from.as_deref();
            job.go_on = go_on(&record.submission, &snapshots, from, Again::Attached, &upgraded);
        }
        Ok(job)
    }

    /// Lists its complete snapshots in order of their rounds.
    ///
    /// # Errors
    /// [`HostError`] where its checkpoints cannot be listed.
    pub async fn snapshots(&self, data_dir: &Path) -> Result<Vec<ListedSnapshot>, HostError> {
        let graph = self.found.record.submission.graph().ok();
        let dir = checkpoint_dir(data_dir, graph.as_ref()).map(|(dir, _)| dir.to_string_lossy().into_owned());
        Ok(snapshots_in(
            &LocalStores::default(),
            dir.as_deref(),
            self.job_id(),
            self.savepoints(),
        )
        .await?)
    }
}
