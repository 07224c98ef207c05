//! The durable list of a host's jobs: for each one its submission, and how it ended.
//!
//! ```text
//! <JobID>/modules/<sha256>.wasm   its components, written first
//! <JobID>/job.json                its submission, created last: from then on the job exists
//! <JobID>/accepted.json           it has started once, and its submitter may know
//! <JobID>/starting.json           it is being started, or is set aside since that takes the process with it
//! <JobID>/savepoints/<n>.json     location of its savepoint n
//! <JobID>/ended.json              how it ended: it is not started again
//! running.json                    a host runs these jobs; removed when it ends
//! ```
//!
//! A host that is killed leaves either no job or a whole one: a directory without `job.json` is the rest of a submission
//! or of a removal, and is swept. A removal begins with `job.json`, so that no record is left without its components, or
//! without the note that the job ended.
//!
//! The directory may hold anything: a file that is no record, cannot be read or is not ours concerns its own job at most.
//! Each file is read only if it is a regular one of bounded size.
//!
//! The shapes of these files are private to this module.

mod ended_file;
mod job_file;
mod record;

use std::collections::BTreeMap;

use bytes::Bytes;
use regraft_model::id::{CheckpointId, JobId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::ended_file::EndedFile;
use self::job_file::JobFile;
use super::start_order::{LastEnd, StartNote};
use super::submission::Submission;
use crate::jobs::observe::ObservedJob;
use crate::storage::{Storage, StoreError};

const JOB: &str = "job.json";
const ACCEPTED: &str = "accepted.json";
const ENDED: &str = "ended.json";
const SAVEPOINTS: &str = "savepoints";
const STARTING: &str = "starting.json";
const RUNNING: &str = "running.json";

/// A job that was taken in.
#[derive(Debug, Clone)]
pub struct CatalogRecord {
    /// Id of the job.
    pub job_id: JobId,
    /// Name of the job.
    pub name: String,
    /// Time of its submission, milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Its submission.
    pub submission: Submission,
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedJob {
    /// Time of its end, milliseconds since the Unix epoch.
    pub ended_at: i64,
    /// The job in its last status.
    pub job: ObservedJob,
}

/// A savepoint that was taken through a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSavepoint {
    /// Round number.
    pub checkpoint_id: CheckpointId,
    /// Location, as a URL.
    pub path: String,
}

/// Progress of a job of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It may never have started, and its submitter has had no answer.
    Submitted,
    /// It has started, and is to be brought back.
    Accepted,
    /// It has ended. `None` where the record of its end is damaged.
    Ended(Option<Box<EndedJob>>),
}

/// A job of the catalog.
#[derive(Debug, Clone)]
pub struct Catalogued {
    /// The job.
    pub record: CatalogRecord,
    /// Its progress.
    pub progress: Progress,
    /// Its savepoints, as far as they were taken through a host.
    pub savepoints: Vec<KnownSavepoint>,
    /// Note of a start that was not over when the process ended.
    pub start: Option<StartNote>,
}

/// Failure to read or write the catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be parsed.
    #[error(
        "{path} is damaged: {reason}. The job is left as it is; start it anew from a savepoint or checkpoint, and remove {path}."
    )]
    Damaged {
        /// Location of the record, as a URL.
        path: String,
        /// Message of the parser.
        reason: String,
    },
}

/// Contents of a catalog.
#[derive(Debug, Default)]
pub struct Contents {
    /// Jobs in order of submission.
    pub jobs: Vec<Catalogued>,
    /// One error for each job whose record cannot be read.
    pub damaged: Vec<CatalogError>,
}

impl Contents {
    fn sort(&mut self) {
        self.jobs.sort_by_key(|job| (job.record.created_at, job.record.job_id));
    }
}

impl Catalogued {
    /// Returns the time of its end, milliseconds since the Unix epoch; `None` if it has not ended. That of a damaged record is
    /// the time of its submission.
    #[must_use]
    pub fn ended_at(&self) -> Option<i64> {
        match &self.progress {
            Progress::Ended(Some(ended)) => Some(ended.ended_at),
            Progress::Ended(None) => Some(self.record.created_at),
            Progress::Submitted | Progress::Accepted => None,
        }
    }
}

/// Durable list of a host's jobs.
#[derive(Debug, Clone)]
pub struct Catalog {
    storage: Storage,
}

impl Catalog {
    /// Returns the catalog at a location, which need not exist.
    #[must_use]
    pub const fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Adds a job. `components` has every component that the submission names, by SHA-256.
    ///
    /// # Errors
    /// [`CatalogError::Store`]; the next [`Catalog::load`] sweeps what was written.
    pub async fn create(
        &self,
        record: &CatalogRecord,
        components: &BTreeMap<String, Bytes>,
    ) -> Result<(), CatalogError> {
        for (sha256, component) in components {
            let name = of(record.job_id, &module_name(sha256));
            self.storage.put(&name, component.clone()).await?;
        }
        let name = of(record.job_id, JOB);
        Ok(self
            .storage
            .create_if_absent(&name, json(&JobFile::from(record)))
            .await?)
    }

    /// Reads a component of a job.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn component(&self, job: JobId, sha256: &str) -> Result<Bytes, CatalogError> {
        Ok(self.storage.read(&of(job, &module_name(sha256))).await?)
    }

    /// Records that a job has started.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn accepted(&self, job: JobId) -> Result<(), CatalogError> {
        Ok(self.storage.put(&of(job, ACCEPTED), "{}").await?)
    }

    /// Records that a job has ended, and is not to be started again.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn ended(&self, job: JobId, ended: &EndedJob) -> Result<(), CatalogError> {
        Ok(self.storage.put(&of(job, ENDED), json(&EndedFile::from(ended))).await?)
    }

    /// Notes that a job is being started, or is set aside.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn note_start(&self, job: JobId, note: StartNote) -> Result<(), CatalogError> {
        let StartNote { starting, deaths } = note;
        let file = StartFile { starting, deaths };
        Ok(self.storage.put(&of(job, STARTING), json(&file)).await?)
    }

    /// Removes the note of a start.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn forget_start(&self, job: JobId) -> Result<(), CatalogError> {
        Ok(self.storage.delete(&of(job, STARTING)).await?)
    }

    /// Notes that a host runs these jobs. Returns how the last one has ended.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn host_starts(&self) -> Result<LastEnd, CatalogError> {
        let last = match self.storage.exists(RUNNING).await? {
            true => LastEnd::Died,
            false => LastEnd::Clean,
        };
        self.storage.put(RUNNING, "{}").await?;
        Ok(last)
    }

    /// Notes that the host has suspended its jobs.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn host_ends(&self) -> Result<(), CatalogError> {
        Ok(self.storage.delete(RUNNING).await?)
    }

    /// Records a savepoint of a job.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn savepoint(&self, job: JobId, savepoint: &KnownSavepoint) -> Result<(), CatalogError> {
        let name = format!("{SAVEPOINTS}/{}.json", savepoint.checkpoint_id);
        let file = SavepointFile {
            checkpoint_id: savepoint.checkpoint_id,
            path: savepoint.path.clone(),
        };
        Ok(self.storage.put(&of(job, &name), json(&file)).await?)
    }

    /// Removes a job with all of its records.
    ///
    /// # Errors
    /// [`CatalogError::Store`]; the next [`Catalog::load`] goes on with the removal.
    pub async fn remove(&self, job: JobId) -> Result<(), CatalogError> {
        self.storage.delete(&of(job, JOB)).await?;
        Ok(self.storage.delete_prefix(&job.to_string()).await?)
    }

    /// Reads all jobs, and sweeps the rest of submissions and removals that an earlier host had under way. No other host may
    /// use the catalog meanwhile.
    ///
    /// Unreadable records are listed in [`Contents::damaged`]; all other jobs are returned.
    pub async fn load(&self) -> Contents {
        let mut contents = Contents::default();
        let ids = match self.ids().await {
            Ok(ids) => ids,
            Err(error) => {
                contents.damaged.push(error);
                return contents;
            }
        };
        for job in ids {
            match self.read(job).await {
                Ok(Some(found)) => contents.jobs.push(found),
                Ok(None) => {
                    let swept = self.storage.delete_prefix(&job.to_string()).await;
                    contents.damaged.extend(swept.err().map(CatalogError::Store));
                }
                Err(error) => contents.damaged.push(error),
            }
        }
        contents.sort();
        contents
    }

    /// Reads all jobs and changes nothing: another host may use the catalog meanwhile.
    ///
    /// # Errors
    /// [`CatalogError::Store`]. A damaged record is no error: it is listed in [`Contents::damaged`], and other jobs are read.
    pub async fn look(&self) -> Result<Contents, CatalogError> {
        let mut contents = Contents::default();
        for job in self.ids().await? {
            match self.read(job).await {
                Ok(found) => contents.jobs.extend(found),
                Err(error @ CatalogError::Damaged { .. }) => contents.damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        contents.sort();
        Ok(contents)
    }

    /// Returns the ids of all jobs, some of which may be half a submission or half a removal.
    ///
    /// # Errors
    /// [`CatalogError::Store`].
    pub async fn ids(&self) -> Result<Vec<JobId>, CatalogError> {
        let (directories, _) = self.storage.list_names().await?;
        Ok(directories.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Reads one job; `None` where there is none.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub async fn read(&self, job: JobId) -> Result<Option<Catalogued>, CatalogError> {
        let Some(file) = self.parsed::<JobFile>(&of(job, JOB)).await? else {
            return Ok(None);
        };
        let record = CatalogRecord::from(file);
        if record.job_id != job {
            return Err(CatalogError::Damaged {
                path: self.storage.url_of(&of(job, JOB)),
                reason: format!(
                    "it is that of job {}, and stands in the directory of job {job}",
                    record.job_id
                ),
            });
        }
        // It has ended even where the record does not say how any more.
        let progress = match self.parsed::<EndedFile>(&of(job, ENDED)).await {
            Ok(Some(ended)) => Progress::Ended(Some(Box::new(ended.into()))),
            Err(CatalogError::Damaged { .. }) => Progress::Ended(None),
            Err(error) => return Err(error),
            Ok(None) if self.storage.exists(&of(job, ACCEPTED)).await? => Progress::Accepted,
            Ok(None) => Progress::Submitted,
        };
        let mut savepoints: Vec<KnownSavepoint> = vec![];
        for object in self.storage.list(&of(job, SAVEPOINTS)).await? {
            // Savepoints are only listed: one whose record is damaged is left out.
            let file = self.parsed::<SavepointFile>(&object.name).await.unwrap_or_default();
            savepoints.extend(file.map(|file| KnownSavepoint {
                checkpoint_id: file.checkpoint_id,
                path: file.path,
            }));
        }
        savepoints.sort_by_key(|savepoint| savepoint.checkpoint_id);
        let start = match self.parsed::<StartFile>(&of(job, STARTING)).await {
            Ok(file) => file.map(|StartFile { starting, deaths }| StartNote { starting, deaths }),
            // It was being written.
            Err(CatalogError::Damaged { .. }) => Some(StartNote {
                starting: true,
                deaths: 0,
            }),
            Err(error) => return Err(error),
        };
        Ok(Some(Catalogued {
            record,
            progress,
            savepoints,
            start,
        }))
    }

    async fn parsed<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CatalogError> {
        let damaged = |reason: String| CatalogError::Damaged {
            path: self.storage.url_of(name),
            reason,
        };
        let bytes = match record::read(&self.storage, name).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(reason)) => return Err(damaged(reason)),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| damaged(error.to_string()))
    }
}

/// `starting.json`.
#[derive(Serialize, Deserialize)]
struct StartFile {
    starting: bool,
    deaths: u32,
}

/// `savepoints/<n>.json`.
#[derive(Serialize, Deserialize)]
struct SavepointFile {
    checkpoint_id: CheckpointId,
    path: String,
}

fn of(job: JobId, name: &str) -> String {
    format!("{job}/{name}")
}

fn module_name(sha256: &str) -> String {
    crate::storage::paths::module(sha256)
}

fn json(value: &impl Serialize) -> Bytes {
    // Strings, numbers, and maps with strings as keys: serialization cannot fail.
    Bytes::from(serde_json::to_vec_pretty(value).unwrap_or_default())
}

#[cfg(test)]
mod tests;
