//! The list of attached runs, in `attached/` of the data directory: for each one its submission, its savepoints, and how it
//! ended. It has the shape of the list of a host that serves, and only informs: nothing is brought back from it.

use std::path::Path;

use regraft_model::id::JobId;

use super::catalog::{Catalog, CatalogError, CatalogRecord, EndedJob, KnownSavepoint};
use super::offline::{ATTACHED, has_left_checkpoints};
use crate::storage::{Storage, StoreError};

/// Number of runs that are listed. More than that, those without checkpoints that ended first are dropped.
const RUNS_MAX: usize = 100;
/// Number of runs that are left then, so that not every run has to look at all of them.
const RUNS_LEFT: usize = 75;

/// The list of attached runs.
#[derive(Debug, Clone)]
pub struct AttachedRuns {
    catalog: Catalog,
}

impl AttachedRuns {
    /// Opens the list of a data directory; nothing need be there.
    ///
    /// # Errors
    /// [`StoreError`] where the path is not one of a store.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let storage = Storage::open(&data_dir.join(ATTACHED).to_string_lossy())?.private();
        Ok(Self {
            catalog: Catalog::new(storage),
        })
    }

    /// Returns its records.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Notes that a run has begun.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn begun(&self, record: &CatalogRecord) -> Result<(), CatalogError> {
        self.catalog.create(record, &std::collections::BTreeMap::new()).await
    }

    /// Notes a savepoint of a run.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn savepoint(&self, job: JobId, savepoint: &KnownSavepoint) -> Result<(), CatalogError> {
        self.catalog.savepoint(job, savepoint).await
    }

    /// Notes that a run has ended, and drops old runs that have left nothing, where there are too many.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn ended(&self, ended: &EndedJob, data_dir: &Path) -> Result<(), CatalogError> {
        self.catalog.ended(ended.job.job_id, ended).await?;
        if self.catalog.ids().await?.len() <= RUNS_MAX {
            return Ok(());
        }
        let mut jobs = self.catalog.look().await?.jobs;
        let surplus = jobs.len().saturating_sub(RUNS_LEFT);
        jobs.retain(|job| job.ended_at().is_some() && !has_left_checkpoints(data_dir, &job.record));
        jobs.sort_by_key(|job| job.ended_at());
        for job in jobs.iter().take(surplus) {
            self.catalog.remove(job.record.job_id).await?;
        }
        Ok(())
    }
}
