//! The jobs of a host, durably: what it takes to start each of them again, and how it ended.
//!
//! ```text
//! <JobID>/modules/<sha256>.wasm   its components, written first
//! <JobID>/job.json                what it takes to start it, created last: from now on there is such a job
//! <JobID>/accepted.json           it has started once, so whoever submitted it may have been told so
//! <JobID>/savepoints/<n>.json     where savepoint n of it is
//! <JobID>/ended.json              how it ended: it is not started again
//! ```
//!
//! Whatever moment the host dies at, there is either no job or a whole one: a directory without `job.json` is the rest of
//! a submission or of a removal, and is swept. A job is removed from `job.json` on, so that no record is left without its
//! components, or without the note that it ended.

use std::collections::BTreeMap;

use bytes::Bytes;
use regraft_model::id::{CheckpointId, JobId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::handle::JobView;
use super::submission::Submission;
use crate::storage::{Storage, StoreError};

const JOB: &str = "job.json";
const ACCEPTED: &str = "accepted.json";
const ENDED: &str = "ended.json";
const SAVEPOINTS: &str = "savepoints";

/// `job.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogRecord {
    /// The job.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// When it was submitted, milliseconds since the Unix epoch.
    pub created_at: i64,
    /// What it takes to start it.
    pub submission: Submission,
}

/// `ended.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedJob {
    /// Milliseconds since the Unix epoch.
    pub ended_at: i64,
    /// The job as it was, in its last status.
    pub view: JobView,
}

/// `savepoints/<n>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSavepoint {
    /// Its round.
    pub checkpoint_id: CheckpointId,
    /// Where it is, as a URL.
    pub path: String,
}

/// How far a catalogued job has come.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It may never have started, and whoever submitted it was told nothing.
    Submitted,
    /// It has started, and is to be brought back.
    Accepted,
    /// It has ended. What it was like then; none where that cannot be read any more.
    Ended(Option<Box<EndedJob>>),
}

/// A job of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogued {
    /// What it takes to start it.
    pub record: CatalogRecord,
    /// How far it has come.
    pub progress: Progress,
    /// Its savepoints, as far as they were taken through a host.
    pub savepoints: Vec<KnownSavepoint>,
}

/// Why the catalog cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record does not read as one.
    #[error(
        "{path} is damaged: {reason}. The job is left as it is; start it anew from a savepoint or checkpoint, and remove {path}."
    )]
    Damaged {
        /// As a URL.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a catalog holds: its jobs in order of submission, and what could not be read.
#[derive(Debug, Default)]
pub struct Contents {
    /// The jobs.
    pub jobs: Vec<Catalogued>,
    /// Each: a job that is there and cannot be read.
    pub damaged: Vec<CatalogError>,
}

/// The durable list of a host's jobs.
#[derive(Debug, Clone)]
pub struct Catalog {
    storage: Storage,
}

impl Catalog {
    /// The catalog at a location, there or not.
    #[must_use]
    pub const fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Takes a job in. `components` are by SHA-256, all that the submission names.
    ///
    /// # Errors
    /// As the store says; what is there then is swept by the next [`Catalog::load`].
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
        Ok(self.storage.create_if_absent(&name, json(record)).await?)
    }

    /// A component of a job.
    ///
    /// # Errors
    /// As the store says.
    pub async fn component(&self, job: JobId, sha256: &str) -> Result<Bytes, CatalogError> {
        Ok(self.storage.read(&of(job, &module_name(sha256))).await?)
    }

    /// Notes that a job has started.
    ///
    /// # Errors
    /// As the store says.
    pub async fn accepted(&self, job: JobId) -> Result<(), CatalogError> {
        Ok(self.storage.put(&of(job, ACCEPTED), "{}").await?)
    }

    /// Notes that a job has ended, and is not to be started again.
    ///
    /// # Errors
    /// As the store says.
    pub async fn ended(&self, job: JobId, ended: &EndedJob) -> Result<(), CatalogError> {
        Ok(self.storage.put(&of(job, ENDED), json(ended)).await?)
    }

    /// Notes a savepoint of a job.
    ///
    /// # Errors
    /// As the store says.
    pub async fn savepoint(&self, job: JobId, savepoint: &KnownSavepoint) -> Result<(), CatalogError> {
        let name = format!("{SAVEPOINTS}/{}.json", savepoint.checkpoint_id);
        Ok(self.storage.put(&of(job, &name), json(savepoint)).await?)
    }

    /// Forgets a job with all that is noted of it.
    ///
    /// # Errors
    /// As the store says; the next [`Catalog::load`] goes on with it.
    pub async fn remove(&self, job: JobId) -> Result<(), CatalogError> {
        self.storage.delete(&of(job, JOB)).await?;
        Ok(self.storage.delete_prefix(&job.to_string()).await?)
    }

    /// Reads all of it, and sweeps what is left of submissions and removals that a dead host had under way. To be called
    /// while no other host uses it.
    ///
    /// # Errors
    /// As the store says. A job that cannot be read is told in [`Contents::damaged`], and keeps no other.
    pub async fn load(&self) -> Result<Contents, CatalogError> {
        let mut contents = Contents::default();
        let (directories, _) = self.storage.list_names().await?;
        for job in directories.iter().filter_map(|name| name.parse::<JobId>().ok()) {
            match self.read(job).await {
                Ok(Some(found)) => contents.jobs.push(found),
                Ok(None) => self.storage.delete_prefix(&job.to_string()).await?,
                Err(error @ CatalogError::Damaged { .. }) => contents.damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        contents
            .jobs
            .sort_by_key(|job| (job.record.created_at, job.record.job_id));
        Ok(contents)
    }

    async fn read(&self, job: JobId) -> Result<Option<Catalogued>, CatalogError> {
        let Some(record) = self.parsed::<CatalogRecord>(&of(job, JOB)).await? else {
            return Ok(None);
        };
        // That it has ended counts, also where nobody can read how.
        let progress = match self.parsed::<EndedJob>(&of(job, ENDED)).await {
            Ok(Some(ended)) => Progress::Ended(Some(Box::new(ended))),
            Err(CatalogError::Damaged { .. }) => Progress::Ended(None),
            Err(error) => return Err(error),
            Ok(None) if self.storage.exists(&of(job, ACCEPTED)).await? => Progress::Accepted,
            Ok(None) => Progress::Submitted,
        };
        let mut savepoints: Vec<KnownSavepoint> = vec![];
        for object in self.storage.list(&of(job, SAVEPOINTS)).await? {
            // It is only shown; one that cannot be read is left out.
            savepoints.extend(self.parsed(&object.name).await.unwrap_or_default());
        }
        savepoints.sort_by_key(|savepoint| savepoint.checkpoint_id);
        Ok(Some(Catalogued {
            record,
            progress,
            savepoints,
        }))
    }

    async fn parsed<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CatalogError> {
        let bytes = match self.storage.read(name).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| CatalogError::Damaged {
                path: self.storage.url_of(name),
                reason: error.to_string(),
            })
    }
}

fn of(job: JobId, name: &str) -> String {
    format!("{job}/{name}")
}

fn module_name(sha256: &str) -> String {
    crate::storage::paths::module(sha256)
}

fn json(value: &impl Serialize) -> Bytes {
    // Texts, numbers, and maps whose keys are texts: nothing that JSON cannot say.
    Bytes::from(serde_json::to_vec_pretty(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::submission::{Allow, Layers};

    fn record(bits: u128, created_at: i64) -> CatalogRecord {
        CatalogRecord {
            job_id: JobId::from_bits(bits),
            name: format!("job-{bits}"),
            created_at,
            submission: Submission {
                file: "job.toml".to_owned(),
                text: "name = \"a\"".to_owned(),
                base_dir: "/jobs".into(),
                layers: Layers::default(),
                arguments: vec![],
                modules: BTreeMap::new(),
                restore: None,
                savepoint_at_end: None,
                allow: Allow::default(),
            },
        }
    }

    fn components() -> BTreeMap<String, Bytes> {
        BTreeMap::from([("00ff".to_owned(), Bytes::from_static(b"wasm"))])
    }

    #[tokio::test]
    async fn jobs_come_back_in_order_with_what_was_noted() {
        let storage = Storage::in_memory("jobs");
        let catalog = Catalog::new(storage.clone());
        for (bits, at) in [(2, 10), (1, 20), (3, 15)] {
            catalog.create(&record(bits, at), &components()).await.expect("created");
        }
        catalog.accepted(JobId::from_bits(1)).await.expect("noted");
        let known = |n| KnownSavepoint {
            checkpoint_id: CheckpointId(n),
            path: format!("file:///sp-{n}"),
        };
        for n in [10, 9] {
            catalog.savepoint(JobId::from_bits(1), &known(n)).await.expect("noted");
        }
        storage.put(&of(JobId::from_bits(3), ENDED), "{}").await.expect("put");
        let contents = catalog.load().await.expect("loaded");
        assert!(contents.damaged.is_empty());
        let names: Vec<&str> = contents.jobs.iter().map(|job| job.record.name.as_str()).collect();
        assert_eq!(names, ["job-2", "job-3", "job-1"]);
        let progress: Vec<Progress> = contents.jobs.iter().map(|job| job.progress.clone()).collect();
        let ended = Progress::Ended(None);
        assert_eq!(progress, [Progress::Submitted, ended, Progress::Accepted]);
        assert_eq!(contents.jobs[2].savepoints, [known(9), known(10)]);
        let component = catalog.component(JobId::from_bits(2), "00ff").await.expect("there");
        assert_eq!(component.as_ref(), b"wasm");
    }

    #[tokio::test]
    async fn half_a_submission_and_half_a_removal_are_no_job() {
        let storage = Storage::in_memory("jobs");
        let catalog = Catalog::new(storage.clone());
        let (submitted, removed) = (JobId::from_bits(1), JobId::from_bits(2));
        storage
            .put(&of(submitted, "modules/00ff.wasm"), "w")
            .await
            .expect("put");
        catalog.create(&record(2, 5), &components()).await.expect("created");
        catalog.accepted(removed).await.expect("noted");
        storage.delete(&of(removed, JOB)).await.expect("deleted");
        assert!(catalog.load().await.expect("loaded").jobs.is_empty());
        assert!(
            storage.list("").await.expect("listed").is_empty(),
            "and nothing is left of them"
        );
    }

    #[tokio::test]
    async fn a_damaged_record_keeps_no_other_job_and_stays() {
        let storage = Storage::in_memory("jobs");
        let catalog = Catalog::new(storage.clone());
        catalog.create(&record(1, 5), &components()).await.expect("created");
        storage.put(&of(JobId::from_bits(2), JOB), "{").await.expect("put");
        let contents = catalog.load().await.expect("loaded");
        assert_eq!(contents.jobs.len(), 1);
        let said = contents.damaged[0].to_string();
        assert!(
            said.starts_with("store:///jobs/00000000000000000000000000000002/job.json is damaged: EOF while parsing")
                && said.contains("start it anew from a savepoint"),
            "{said}"
        );
        assert_eq!(catalog.load().await.expect("again").damaged.len(), 1);
    }

    #[tokio::test]
    async fn the_same_job_is_not_taken_in_twice() {
        let catalog = Catalog::new(Storage::in_memory("jobs"));
        catalog.create(&record(1, 5), &components()).await.expect("created");
        let again = catalog
            .create(&record(1, 6), &components())
            .await
            .expect_err("there is one");
        assert!(again.to_string().ends_with("job.json already exists"), "{again}");
        catalog.remove(JobId::from_bits(1)).await.expect("removed");
        assert!(catalog.load().await.expect("loaded").jobs.is_empty());
    }
}
