//! Records that a job keeps of itself in `<checkpoint dir>/<JobID>/`, beside its checkpoints, so that another process can
//! bring it back (`docs/design/0010-recovery.md`, `docs/formats/savepoint.md`).
//!
//! ```text
//! job.json                the settings that it started with; never changed
//! versions/<n>.json       the modules that it runs: created, never overwritten; the greatest number counts
//! attempts/<n>.json       the attempt that runs or ends it: created, never overwritten; the greatest number counts
//! committed.json          the newest round that is known to be committed
//! savepoints/<n>-<a>.json  a savepoint of attempt a that names output which is not committed yet
//! ended.json              it has ended, and is never to run again
//! shared/<sha256>.wasm    its modules
//! ```
//!
//! A put whose answer is lost has happened or not. A record that is created only once therefore has a nonce, by which a host
//! that tries again tells its own record from another host's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::snapshot::SnapshotKind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::connector::sink::KnownAttempts;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::environment::process::ProcessIdentity;
use crate::jobs::life::effect::RecordFailure;
use crate::jobs::status::JobStatus;
use crate::savepoint::metadata::Ancestor;
use crate::storage::{Storage, StoreError, paths};

/// `job.json`: the settings that a job started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Milliseconds since the Unix epoch.
    pub started_at: i64,
    /// The savepoint that it started from; `None` for the beginning.
    pub origin: Option<Origin>,
    /// The process of an attached run, which ends with it; `None` for a job that a serving host brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessIdentity>,
}

/// The savepoint that a job started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its URL.
    pub path: String,
    /// `--allow-non-restored-state`.
    pub allow_non_restored: bool,
    /// `--drop-state`, each.
    pub drop_state: Vec<String>,
    /// The savepoint's job, and those before it.
    pub lineage: Vec<Ancestor>,
}

/// `versions/<n>.json`: the modules that a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Its number.
    pub version: JobVersion,
    /// The upgrade's checkpoint; `None` if the job started with this version.
    pub checkpoint_id: Option<CheckpointId>,
    /// The SHA-256 of each operator's module.
    pub modules: BTreeMap<OperatorUid, String>,
    /// Nonce, which tells one try from another.
    pub nonce: String,
}

/// `attempts/<n>.json`: an attempt to run the job, and the point that it goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its number.
    pub attempt: AttemptId,
    /// The checkpoint that it goes on from; `None` for the savepoint that the job started from, or the beginning.
    pub restored: Option<CheckpointId>,
    /// The last attempt that has taken the job over, of which this may be one: earlier attempts' snapshots behind the one that
    /// it goes on from do not count. `None` in records of versions that took it over when they created the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Takeover>,
    /// True of a new job's start that is not finished: nothing has run yet. The job has begun when a record says otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub starting: bool,
    /// Rounds of this attempt have greater numbers than this one.
    pub last_id: CheckpointId,
    /// Milliseconds since the Unix epoch.
    pub started_at: i64,
    /// Nonce, which tells one try from another.
    pub nonce: String,
    /// The attempts that have written output, up to this one.
    #[serde(default, skip_serializing_if = "KnownAttempts::is_empty")]
    pub known: KnownAttempts,
    /// The end of the job, where this is no attempt to run it but the last record of a host that ends it: from there on no
    /// other host begins one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndRecord>,
}

/// An attempt that has taken a job over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// Its number.
    pub attempt: AttemptId,
    /// The checkpoint that it goes on from.
    pub restored: Option<CheckpointId>,
}

impl AttemptRecord {
    /// Returns the last attempt that has taken the job over; `None` before the first one has.
    #[must_use]
    pub fn takeover(&self) -> Option<Takeover> {
        let own = Takeover {
            attempt: self.attempt,
            restored: self.restored,
        };
        self.since.or((!self.starting).then_some(own))
    }
}

/// `committed.json`: output that need not be committed again, and that may have been taken away since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedRecord {
    /// The newest checkpoint whose output is committed; `None` for the savepoint that the job started from.
    pub checkpoint_id: Option<CheckpointId>,
}

/// `savepoints/<n>-<attempt>.json`: written before the savepoint, and removed when the output that it names is committed. Earlier
/// versions called it `<n>.json`. The attempt is in the name since one that has lost the job may give the same number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavepointRecord {
    /// Its round.
    pub checkpoint_id: CheckpointId,
    /// The attempt that takes it.
    pub attempt: AttemptId,
    /// A savepoint, or one that ends the job.
    pub kind: SnapshotKind,
    /// Its URL.
    pub path: String,
    /// Pending output of each sink in it.
    pub handles: BTreeMap<OperatorUid, Vec<serde_json::Value>>,
    /// True if it is known to be complete.
    pub complete: bool,
    /// True if its attempt removes it, complete or not: it does not count any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dropped: bool,
}

impl SavepointRecord {
    fn name(&self) -> String {
        format!("{SAVEPOINTS}/{}-{}.json", self.checkpoint_id, self.attempt.0)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// `ended.json`: the end of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRecord {
    /// A terminal stage.
    pub status: JobStatus,
    /// Milliseconds since the Unix epoch.
    pub ended_at: i64,
    /// The savepoint that ended it, as a URL.
    pub savepoint: Option<String>,
    /// The failure, as it was shown; `None` if it has not failed.
    pub failure: Option<String>,
    /// Kind of the failure; `None` also in records of hosts that did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_kind: Option<ErrorKind>,
    /// True if its checkpoints stay whatever its settings say: it could not be brought back, and was given up.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keeps: bool,
}

/// Failure to read or write a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be parsed.
    #[error("{path} is damaged: {reason}. Use another copy of it, or start the job from a savepoint.")]
    Damaged {
        /// The record.
        path: String,
        /// Message of the parser.
        reason: String,
    },
    /// Another host has written it.
    #[error("{path} has been written by another host: it runs this job now, and two must not")]
    Taken {
        /// The record.
        path: String,
    },
}

impl RecordError {
    /// Returns true if another try may succeed.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Store(_))
    }

    /// The record.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Store(error) => error.path(),
            Self::Damaged { path, .. } | Self::Taken { path } => path,
        }
    }
}

impl From<RecordError> for RecordFailure {
    fn from(error: RecordError) -> Self {
        Self {
            message: error.to_string(),
            may_pass: error.may_pass(),
        }
    }
}

/// The directory of one job in the checkpoint directory.
#[derive(Debug, Clone)]
pub struct JobDirectory {
    job_id: JobId,
    root: Storage,
    storage: Storage,
}

const JOB: &str = "job.json";
const ENDED: &str = "ended.json";
const COMMITTED: &str = "committed.json";
const VERSIONS: &str = "versions";
const ATTEMPTS: &str = "attempts";
const SAVEPOINTS: &str = "savepoints";

impl JobDirectory {
    /// Returns the directory of a job, which need not exist.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`].
    pub fn new(checkpoints: &Storage, job_id: JobId) -> Result<Self, StoreError> {
        Ok(Self {
            job_id,
            root: checkpoints.clone(),
            storage: checkpoints.child(&job_id.to_string())?,
        })
    }

    /// The checkpoint directory that it is in.
    #[must_use]
    pub const fn root(&self) -> &Storage {
        &self.root
    }

    /// The directory itself.
    #[must_use]
    pub const fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Returns the directory of a checkpoint, which need not exist.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`].
    pub fn checkpoint(&self, id: CheckpointId) -> Result<Storage, StoreError> {
        self.root.child(&paths::checkpoint(self.job_id, id))
    }

    /// The numbers of all checkpoints, complete or not, newest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointId>, StoreError> {
        let (directories, _) = self.storage.list_names().await?;
        let ids = directories.iter().filter_map(|name| paths::parse_checkpoint(name));
        let mut ids: Vec<CheckpointId> = ids.collect();
        ids.sort_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// Writes `job.json`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn write_job(&self, record: &JobRecord) -> Result<(), RecordError> {
        Ok(self.storage.put(JOB, text(record)).await?)
    }

    /// Reads `job.json`; `None` if there is no such job.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn job(&self) -> Result<Option<JobRecord>, RecordError> {
        self.read(JOB).await
    }

    /// Makes a version the job's.
    ///
    /// # Errors
    /// [`RecordError::Taken`] if another host has made another version of that number.
    pub async fn create_version(&self, record: &VersionRecord) -> Result<(), RecordError> {
        self.create(&format!("{VERSIONS}/{}.json", record.version), record)
            .await
    }

    /// Reads the newest version.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn newest_version(&self) -> Result<Option<VersionRecord>, RecordError> {
        match self.numbers(VERSIONS).await?.last() {
            Some(last) => self.read(&format!("{VERSIONS}/{last}.json")).await,
            None => Ok(None),
        }
    }

    /// Returns the SHA-256 of the modules that upgrades have put in place of those that the job started with.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn upgraded(&self) -> Result<BTreeMap<OperatorUid, String>, RecordError> {
        let first: Option<VersionRecord> = self.read(&format!("{VERSIONS}/1.json")).await?;
        let (Some(first), Some(newest)) = (first, self.newest_version().await?) else {
            return Ok(BTreeMap::new());
        };
        let mut upgraded = newest.modules;
        upgraded.retain(|uid, sha256| first.modules.get(uid) != Some(sha256));
        Ok(upgraded)
    }

    /// Returns the path of a module's file; `None` where it is not on this machine.
    #[must_use]
    pub fn module_path(&self, sha256: &str) -> Option<PathBuf> {
        let path = self.storage.local_dir()?.join(shared_module(sha256));
        path.is_file().then_some(path)
    }

    /// Makes an attempt the one that may run the job. The records of earlier ones stay until it has
    /// [settled](JobDirectory::settle_attempt).
    ///
    /// # Errors
    /// [`RecordError::Taken`] if another host has begun one since.
    pub async fn create_attempt(&self, record: &AttemptRecord) -> Result<(), RecordError> {
        let name = format!("{ATTEMPTS}/{}.json", record.attempt);
        self.create(&name, record).await?;
        self.is_newest(record.attempt).await
    }

    /// Fails if a later attempt than this one has been created. The one that was asked for may have been forgotten already.
    async fn is_newest(&self, attempt: AttemptId) -> Result<(), RecordError> {
        match self.numbers(ATTEMPTS).await?.last() {
            Some(last) if *last > u64::from(attempt.0) => {
                let path = self.storage.url_of(&format!("{ATTEMPTS}/{last}.json"));
                Err(RecordError::Taken { path })
            }
            _ => Ok(()),
        }
    }

    /// Records that an attempt takes the job over, and removes the records of earlier ones.
    ///
    /// # Errors
    /// [`RecordError::Taken`] if another host has begun one since.
    pub async fn settle_attempt(&self, record: &AttemptRecord) -> Result<(), RecordError> {
        let name = format!("{ATTEMPTS}/{}.json", record.attempt);
        self.storage.put(&name, text(record)).await?;
        self.is_newest(record.attempt).await?;
        self.has_not_ended(record.attempt).await?;
        for number in self.numbers(ATTEMPTS).await? {
            if number < u64::from(record.attempt.0) {
                self.storage.delete(&format!("{ATTEMPTS}/{number}.json")).await?;
            }
        }
        Ok(())
    }

    /// Begins an attempt, or ends the job, as [`JobDirectory::create_attempt`] does; but not in the directory of a job that has
    /// ended meanwhile, whose attempts are removed.
    ///
    /// # Errors
    /// [`RecordError::Taken`] if another host has begun an attempt, or ended the job.
    pub async fn begin_attempt(&self, record: &AttemptRecord) -> Result<(), RecordError> {
        self.create_attempt(record).await?;
        self.has_not_ended(record.attempt).await
    }

    /// Withdraws the claim of a start, and fails, if an earlier start has been finished. One that finishes looks for later claims
    /// afterwards, so at most one of the two goes on.
    ///
    /// # Errors
    /// [`RecordError::Taken`] where one has.
    pub async fn refuse_if_begun(&self, claim: &AttemptRecord) -> Result<(), RecordError> {
        if self.takeover().await?.is_none() {
            return Ok(());
        }
        let name = format!("{ATTEMPTS}/{}.json", claim.attempt);
        self.storage.delete(&name).await?;
        let path = self.storage.url_of(&name);
        Err(RecordError::Taken { path })
    }

    /// Creates the first version of a job. That of an earlier start, which was not finished, is the same.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn create_first_version(&self, record: &VersionRecord) -> Result<(), RecordError> {
        match self.create_version(record).await {
            Err(RecordError::Taken { path }) => match self.newest_version().await? {
                Some(found) if found.version == record.version && found.modules == record.modules => Ok(()),
                _ => Err(RecordError::Taken { path }),
            },
            created => created,
        }
    }

    /// Removes the record of an attempt again, and fails, if the job has ended.
    async fn has_not_ended(&self, attempt: AttemptId) -> Result<(), RecordError> {
        if self.end().await?.is_none() && self.job().await?.is_some() {
            return Ok(());
        }
        let name = format!("{ATTEMPTS}/{attempt}.json");
        self.storage.delete(&name).await?;
        let path = self.storage.url_of(&name);
        Err(RecordError::Taken { path })
    }

    /// Returns the URL of the record of an attempt.
    #[must_use]
    pub fn attempt_url(&self, attempt: AttemptId) -> String {
        self.storage.url_of(&format!("{ATTEMPTS}/{attempt}.json"))
    }

    /// Returns true if the newest attempt has one of these nonces.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn is_run_by(&self, nonces: &BTreeSet<String>) -> Result<bool, RecordError> {
        let newest = self.newest_attempt().await?;
        Ok(newest.is_some_and(|newest| nonces.contains(&newest.nonce)))
    }

    /// Reads the newest attempt; `None` if the job has none.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn newest_attempt(&self) -> Result<Option<AttemptRecord>, RecordError> {
        loop {
            let Some(last) = self.numbers(ATTEMPTS).await?.pop() else {
                return Ok(None);
            };
            // One that is gone has been forgotten since the list was read, after a later one.
            if let Some(newest) = self.read(&format!("{ATTEMPTS}/{last}.json")).await? {
                return Ok(Some(newest));
            }
        }
    }

    /// Returns the last attempt that has taken the job over, as all records tell; `None` if there are none.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn takeover(&self) -> Result<Option<Takeover>, RecordError> {
        let mut last: Option<Takeover> = None;
        for number in self.numbers(ATTEMPTS).await? {
            let record: Option<AttemptRecord> = self.read(&format!("{ATTEMPTS}/{number}.json")).await?;
            let takeover = record.and_then(|record| record.takeover());
            last = last.into_iter().chain(takeover).max_by_key(|takeover| takeover.attempt);
        }
        Ok(last)
    }

    /// Records the newest round whose output is committed.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn write_committed(&self, record: CommittedRecord) -> Result<(), RecordError> {
        Ok(self.storage.put(COMMITTED, text(&record)).await?)
    }

    /// Reads `committed.json`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn committed(&self) -> Result<Option<CommittedRecord>, RecordError> {
        self.read(COMMITTED).await
    }

    /// Writes the record of a savepoint.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn write_savepoint(&self, record: &SavepointRecord) -> Result<(), RecordError> {
        Ok(self.storage.put(&record.name(), text(record)).await?)
    }

    /// Reads the records of all savepoints, in order.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn savepoints(&self) -> Result<Vec<SavepointRecord>, RecordError> {
        let mut records = vec![];
        for (_, name) in self.savepoint_names().await? {
            records.extend(self.read(&name).await?);
        }
        Ok(records)
    }

    /// Returns the names of the records of all savepoints, in order of their numbers.
    async fn savepoint_names(&self) -> Result<Vec<(CheckpointId, String)>, StoreError> {
        let (_, names) = self.storage.child(SAVEPOINTS)?.list_names().await?;
        let parse = |name: String| {
            let stem = name.strip_suffix(".json")?;
            let (id, attempt) = stem.split_once('-').unwrap_or((stem, "0"));
            let (id, _): (u64, u64) = (id.parse().ok()?, attempt.parse().ok()?);
            Some((CheckpointId(id), format!("{SAVEPOINTS}/{name}")))
        };
        let mut names: Vec<_> = names.into_iter().filter_map(parse).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes the records of a savepoint that is not needed any more, of whichever attempt.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget_savepoint(&self, id: CheckpointId) -> Result<(), StoreError> {
        for (_, name) in self.savepoint_names().await?.into_iter().filter(|(of, _)| *of == id) {
            self.storage.delete(&name).await?;
        }
        Ok(())
    }

    /// Removes this record of a savepoint, and no other attempt's.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget_own_savepoint(&self, record: &SavepointRecord) -> Result<(), StoreError> {
        self.storage.delete(&record.name()).await
    }

    /// Writes the record of the job's end.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn write_end(&self, record: &EndRecord) -> Result<(), RecordError> {
        Ok(self.storage.put(ENDED, text(record)).await?)
    }

    /// Reads the record of the job's end; `None` if it has not ended.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn end(&self) -> Result<Option<EndRecord>, RecordError> {
        self.read(ENDED).await
    }

    /// Removes all but the record of its end. The records of savepoints go last: as long as anything else is there, it is known
    /// what must stay pending.
    ///
    /// # Errors
    /// Those of the store; the rest of it stays.
    pub async fn clear(&self) -> Result<(), StoreError> {
        let (directories, names) = self.storage.list_names().await?;
        for directory in directories.iter().filter(|name| *name != SAVEPOINTS) {
            self.storage.delete_prefix(directory).await?;
        }
        for name in names.iter().filter(|name| *name != ENDED) {
            self.storage.delete(name).await?;
        }
        self.storage.delete_prefix(SAVEPOINTS).await
    }

    /// Returns true if nothing but the record of its end is there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn is_clear(&self) -> Result<bool, StoreError> {
        let (directories, names) = self.storage.list_names().await?;
        Ok(directories.is_empty() && names.iter().all(|name| name == ENDED))
    }

    /// Removes all of it. The record of its end goes last: as long as anything is there, the next try knows that it may go.
    ///
    /// # Errors
    /// Those of the store; the rest of it stays.
    pub async fn remove(&self) -> Result<(), StoreError> {
        self.clear().await?;
        self.storage.delete_prefix("").await
    }

    /// Reads a module's file.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn module(&self, sha256: &str) -> Result<Bytes, StoreError> {
        self.storage.read(&shared_module(sha256)).await
    }

    /// Returns the numbers that name the records of a kind, in order.
    async fn numbers(&self, kind: &str) -> Result<Vec<u64>, StoreError> {
        let (_, names) = self.storage.child(kind)?.list_names().await?;
        let numbers = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok());
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, RecordError> {
        let bytes = match self.storage.read(name).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| RecordError::Damaged {
            path: self.storage.url_of(name),
            reason: error.to_string(),
        })
    }

    /// Creates a record that must not be there. One with the same text is this host's own, whose answer was lost.
    async fn create<T: Serialize>(&self, name: &str, record: &T) -> Result<(), RecordError> {
        let text = text(record);
        match self.storage.create_if_absent(name, text.clone()).await {
            Ok(()) => Ok(()),
            Err(StoreError::AlreadyExists { path }) => {
                if self.storage.read(name).await? == text {
                    Ok(())
                } else {
                    Err(RecordError::Taken { path })
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// `shared/<sha256>.wasm`, within the job's directory.
fn shared_module(sha256: &str) -> String {
    format!("{}/{sha256}.wasm", paths::SHARED_DIR)
}

fn text(record: &impl Serialize) -> Bytes {
    // Maps with text keys, numbers and texts: there is nothing that JSON cannot say.
    Bytes::from(serde_json::to_vec_pretty(record).unwrap_or_default())
}

/// Returns the digests of a version's modules.
#[must_use]
pub fn digests(modules: &Modules) -> BTreeMap<OperatorUid, String> {
    let digest = |(uid, module): (&OperatorUid, &Arc<dyn OperatorModule>)| (uid.clone(), module.digest().to_string());
    modules.iter().map(digest).collect()
}

#[cfg(test)]
mod tests;
