//! The snapshots that jobs need which wait on disk: no host of their data directory runs.
//!
//! Reads the catalog and the records of its jobs, and changes neither: a host may run after all.

use std::path::Path;

use regraft_model::id::JobId;
use regraft_model::snapshot::SnapshotKind;

use super::catalog::{Catalog, CatalogRecord, Catalogued, Progress};
use super::error::HostError;
use crate::jobs::durable::records::JobDirectory;
use crate::savepoint::load::directory;
use crate::storage::{Storage, StoreError, Stores, paths};

/// A snapshot that a waiting job needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The job.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Location of the snapshot, as a URL.
    pub url: String,
    /// True if the job ends with it: its output is committed, and nothing runs any more. False if the job goes on from it.
    pub ends: bool,
}

/// A job that has not ended, as its host would find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingJob {
    /// The job.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// The savepoints that it needs.
    pub needs: Vec<Need>,
}

/// Returns the jobs of a data directory that have not ended, with the savepoints that they need. A job whose catalog record is
/// damaged cannot be brought back, and is left out.
///
/// # Errors
/// [`HostError`] where something cannot be read.
pub async fn waiting(stores: &dyn Stores, data_dir: &Path) -> Result<Vec<WaitingJob>, HostError> {
    let catalog = stores.open(&data_dir.join("jobs").to_string_lossy())?;
    let contents = Catalog::new(catalog).look().await?;
    for damaged in &contents.damaged {
        tracing::warn!("{damaged}");
    }
    let mut waiting = vec![];
    for Catalogued { record, progress, .. } in contents.jobs {
        if !matches!(progress, Progress::Ended(_)) {
            waiting.extend(job(stores, &data_dir.join("checkpoints"), record).await?);
        }
    }
    Ok(waiting)
}

/// Returns the savepoints that a job needs; `None` if it has ended, and its host was killed before the catalog said so.
async fn job(
    stores: &dyn Stores,
    checkpoint_dir: &Path,
    record: CatalogRecord,
) -> Result<Option<WaitingJob>, HostError> {
    let CatalogRecord {
        job_id,
        name,
        submission,
        ..
    } = record;
    let own_dir = submission.graph().ok().and_then(|graph| graph.checkpoint.dir);
    let checkpoints = own_dir.unwrap_or_else(|| checkpoint_dir.to_string_lossy().into_owned());
    let records = JobDirectory::new(&stores.open(&checkpoints)?, job_id)?;
    if records.end().await?.is_some() {
        return Ok(None);
    }
    let need = |url: String, ends: bool| Need {
        job_id,
        name: name.clone(),
        url,
        ends,
    };
    let mut needs = vec![];
    if !has_checkpoint(&records).await? {
        let origin = match records.job().await? {
            Some(job) => job.origin.map(|origin| origin.path),
            None => submission.restore.map(|from| from.location),
        };
        if let Some(origin) = origin {
            needs.push(need(directory(stores, &origin)?.url(), false));
        }
    }
    for savepoint in records.savepoints().await? {
        if savepoint.kind == SnapshotKind::Stop && !savepoint.dropped {
            needs.push(need(savepoint.path, true));
        }
    }
    Ok(Some(WaitingJob { job_id, name, needs }))
}

/// Returns true if a job has a complete checkpoint of its own.
async fn has_checkpoint(records: &JobDirectory) -> Result<bool, StoreError> {
    for id in records.checkpoints().await? {
        if records.checkpoint(id)?.exists(paths::METADATA).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns true if two locations are the same directory, which may have several names on this machine.
#[must_use]
pub fn is_same_place(stores: &dyn Stores, one: &str, other: &str) -> bool {
    let real = |url: &str| {
        let place: Storage = stores.open(url).ok()?;
        std::fs::canonicalize(place.local_dir()?).ok()
    };
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}
