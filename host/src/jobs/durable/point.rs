//! The point that a job goes on from: decided by what is durable, and by nothing that a process may forget.
//!
//! The newest complete checkpoint; before the first one, the savepoint that the job started from; else the beginning
//! (`docs/design/0010-recovery.md`). A savepoint that ends the job, and the checkpoint at the end of input, mean that there
//! is nothing left to run: what they have pending is committed, and that is all.

use std::collections::BTreeSet;

use regraft_model::id::{AttemptId, CheckpointId, OperatorUid};
use regraft_model::snapshot::SnapshotKind;

use super::error::AttemptError;
use super::job::Job;
use super::records::{AttemptRecord, CommittedRecord, JobRecord, Origin, SavepointRecord, Takeover, VersionRecord};
use super::round::remove_incomplete;
use crate::jobs::life::effect;
use crate::jobs::sinks::later_parts;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Metadata, MetadataError};
use crate::savepoint::permit::CommitPermit;
use crate::storage::paths;

/// A point to go on from.
#[derive(Debug)]
pub enum Point {
    /// A completed checkpoint of this job.
    Checkpoint(Box<Savepoint>),
    /// The savepoint that the job started from.
    Origin(Box<Savepoint>, Origin),
    /// The beginning of all input.
    Beginning,
    /// None: all is read and saved.
    Over(Over),
}

/// The end of a job that only has to be announced.
#[derive(Debug, Clone)]
pub struct Over {
    /// Its last round.
    pub checkpoint_id: CheckpointId,
    /// The savepoint that ended it, as a URL.
    pub savepoint: Option<String>,
    /// Permission to commit the output of that round.
    pub permit: CommitPermit,
    /// Metadata of the round; `None` if it is gone.
    pub metadata: Option<Box<Metadata>>,
}

impl Over {
    /// Returns the end as the protocol sees it.
    #[must_use]
    pub fn facts(self) -> effect::Over {
        let entries = self.metadata.into_iter().flat_map(|metadata| metadata.operators);
        let states = entries.filter_map(|entry| Some((entry.uid, vec![entry.sink?.state])));
        effect::Over {
            checkpoint_id: self.checkpoint_id,
            savepoint: self.savepoint,
            sink_states: states.collect(),
        }
    }
}

/// Returns true if another try to read may succeed; if not, the snapshot is damaged.
const fn may_pass(error: &MetadataError) -> bool {
    matches!(error, MetadataError::Store(_))
}

/// The durable state of a job.
#[derive(Debug)]
pub struct Durable {
    /// The settings that it started with.
    pub job: JobRecord,
    /// The version that it runs.
    pub version: VersionRecord,
    /// The newest attempt.
    pub attempt: Option<AttemptRecord>,
    /// The last attempt that has taken the job over.
    pub since: Option<Takeover>,
    /// The newest round that is known to be committed.
    pub committed: Option<CommittedRecord>,
    /// Savepoints that name output which may not be committed yet.
    pub savepoints: Vec<SavepointRecord>,
    /// Recorded savepoints without `_metadata`. They are removed when the attempt is recorded, and no earlier.
    partial: Vec<SavepointRecord>,
    /// All its checkpoints, complete or not, newest first.
    pub checkpoints: Vec<CheckpointId>,
    /// Checkpoints that are not complete, or that were written after another attempt had begun: of no use any more.
    pub useless: Vec<CheckpointId>,
    /// Those of them that are complete.
    disowned: Vec<CheckpointId>,
    /// Checkpoints that cannot be read.
    damaged: Vec<(CheckpointId, String)>,
}

impl Durable {
    /// Reads the records of a job, and changes nothing: another host may still be writing.
    ///
    /// # Errors
    /// [`AttemptError`].
    pub async fn read(job: &Job) -> Result<Self, AttemptError> {
        let directory = &job.directory;
        let missing = |what| AttemptError::Missing {
            job: job.job_id,
            dir: directory.storage().url(),
            what,
        };
        let record = directory.job().await?.ok_or_else(|| missing("job.json"))?;
        let version = directory.newest_version().await?.ok_or_else(|| missing("versions"))?;
        let (since, attempt) = (directory.takeover().await?, directory.newest_attempt().await?);
        let (mut savepoints, mut partial) = (vec![], vec![]);
        for record in directory.savepoints().await? {
            match looked_at(job, record).await? {
                Recorded::Complete(record) => savepoints.push(record),
                Recorded::Partial(record) => partial.push(record),
            }
        }
        Ok(Self {
            job: record,
            version,
            attempt,
            since,
            committed: directory.committed().await?,
            savepoints,
            partial,
            checkpoints: directory.checkpoints().await?,
            useless: vec![],
            disowned: vec![],
            damaged: vec![],
        })
    }

    /// Returns the number of the next attempt, which is greater than `than`.
    #[must_use]
    pub fn next_attempt(&self, than: AttemptId) -> AttemptId {
        let newest = self.attempt.as_ref().map_or(0, |newest| newest.attempt.0);
        AttemptId(newest.max(than.0) + 1)
    }

    /// Returns the greatest number of a round of which anything is left.
    #[must_use]
    pub fn last_id(&self) -> CheckpointId {
        let attempt = self.attempt.iter().map(|newest| newest.last_id);
        let savepoints = self.savepoints.iter().chain(&self.partial);
        let savepoints = savepoints.map(|savepoint| savepoint.checkpoint_id);
        let checkpoints = self.checkpoints.iter().copied();
        checkpoints
            .chain(savepoints)
            .chain(attempt)
            .max()
            .unwrap_or(CheckpointId(0))
    }

    /// Returns true if the output of a checkpoint, or of the savepoint that the job started from, is known to be committed.
    #[must_use]
    pub fn is_committed(&self, point: Option<CheckpointId>) -> bool {
        self.committed.is_some_and(|committed| committed.checkpoint_id >= point)
    }

    /// Removes savepoints that were never completed. To be called when the attempt is recorded: an earlier host that still
    /// writes one is not the job's any more.
    ///
    /// Returns those that stay, since they were completed meanwhile or could not be removed. The output that they name must stay
    /// pending.
    pub async fn remove_partial_savepoints(&self, job: &Job) -> Vec<&SavepointRecord> {
        let mut stay = vec![];
        for record in &self.partial {
            let (id, job_id) = (record.checkpoint_id, job.job_id);
            let removed = async {
                let storage = job.host.stores.open(&record.path)?;
                let removed = remove_incomplete(record, &storage).await?;
                if removed {
                    job.directory.forget_savepoint(id).await?;
                }
                Ok::<_, AttemptError>(removed)
            };
            let removed = removed.await.unwrap_or_else(|error| {
                tracing::warn!("files of savepoint {id}, which was never completed, could not be removed: {error}");
                false
            });
            if removed {
                tracing::info!(
                    "Files of savepoint {id} of job {job_id}, which was never completed, have been removed."
                );
            } else {
                tracing::warn!("Savepoint {id} of job {job_id} stays, and what it names stays pending.");
                stay.push(record);
            }
        }
        stay
    }

    /// Returns a savepoint that has been completed, or dropped, since this was read; `None` if there is none.
    ///
    /// # Errors
    /// [`AttemptError`].
    pub async fn changed_savepoint(&self, job: &Job) -> Result<Option<CheckpointId>, AttemptError> {
        for record in job.directory.savepoints().await? {
            let id = record.checkpoint_id;
            let is_known = self.savepoints.iter().any(|known| known.path == record.path);
            let counts = matches!(looked_at(job, record).await?, Recorded::Complete(_));
            if counts != is_known {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Returns true if the savepoint at this URL is still recorded, and not dropped.
    ///
    /// # Errors
    /// [`AttemptError`].
    pub async fn still_has(&self, job: &Job, path: &str) -> Result<bool, AttemptError> {
        let records = job.directory.savepoints().await?;
        Ok(records.iter().any(|record| record.path == path && !record.dropped))
    }

    /// Returns the URL of the newest attempt's record if it is none of these, or ends the job: another host has begun it.
    #[must_use]
    pub fn taken_by_another(&self, job: &Job, nonces: &BTreeSet<String>) -> Option<String> {
        let newest = self.attempt.as_ref()?;
        let is_other = !nonces.is_empty() && !nonces.contains(&newest.nonce);
        (is_other || newest.ended.is_some()).then(|| job.directory.attempt_url(newest.attempt))
    }

    /// Returns the output that a sink must keep pending in every case, since savepoints name it.
    #[must_use]
    pub fn kept(&self, uid: &OperatorUid) -> Vec<serde_json::Value> {
        let handles = self
            .savepoints
            .iter()
            .filter_map(|savepoint| savepoint.handles.get(uid));
        handles.flatten().cloned().collect()
    }

    /// Returns true if a checkpoint was complete, or damaged, when this was read. Others may have been completed since.
    #[must_use]
    pub fn has_seen(&self, id: CheckpointId) -> bool {
        let damaged = self.damaged.iter().any(|(damaged, _)| *damaged == id);
        damaged || self.disowned.contains(&id)
    }

    /// Checkpoints that cannot be read.
    #[must_use]
    pub fn damaged(&self) -> Vec<CheckpointId> {
        self.damaged.iter().map(|(id, _)| *id).collect()
    }

    /// A checkpoint could not be read to its end: the next [`Durable::point`] is an older one.
    pub fn pass_over(&mut self, id: CheckpointId, why: String) {
        self.damaged.push((id, why));
    }

    /// Decides on the point to go on from.
    ///
    /// # Errors
    /// [`AttemptError`], also where going back further would write committed output again.
    pub async fn point(&mut self, job: &Job) -> Result<Point, AttemptError> {
        let newest = self.newest_checkpoint(job).await?;
        let newest_id = newest.as_ref().map(|newest| newest.metadata.checkpoint_id);
        let is_stop = |savepoint: &&SavepointRecord| {
            savepoint.kind == SnapshotKind::Stop
                && Some(savepoint.checkpoint_id) > newest_id
                && self.is_ours(savepoint.attempt, savepoint.checkpoint_id)
        };
        if let Some(stop) = self.savepoints.iter().rev().find(is_stop) {
            let storage = job.host.stores.open(&stop.path)?;
            // The user may have moved it away; what is to be committed is written down here too.
            let metadata = Savepoint::load(storage).await.ok();
            return Ok(Point::Over(Over {
                checkpoint_id: stop.checkpoint_id,
                savepoint: Some(stop.path.clone()),
                permit: CommitPermit::of_complete_record(stop.handles.clone()),
                metadata: metadata.map(|savepoint| Box::new(savepoint.metadata)),
            }));
        }
        self.refuse_doubled_output(job, newest_id)?;
        match newest {
            Some(newest) if newest.metadata.kind == SnapshotKind::EndOfInput => Ok(Point::Over(Over {
                checkpoint_id: newest.metadata.checkpoint_id,
                savepoint: None,
                permit: newest.permit(),
                metadata: Some(Box::new(newest.metadata)),
            })),
            Some(newest) => Ok(Point::Checkpoint(Box::new(newest))),
            None => self.origin(job).await,
        }
    }

    /// The newest checkpoint that is complete, that reads, and that no attempt since has disowned.
    async fn newest_checkpoint(&mut self, job: &Job) -> Result<Option<Savepoint>, AttemptError> {
        self.useless.clear();
        self.disowned.clear();
        for id in self.checkpoints.clone() {
            if self.damaged.iter().any(|(damaged, _)| *damaged == id) {
                continue;
            }
            match Savepoint::load(job.directory.checkpoint(id)?).await {
                Ok(checkpoint) if self.is_ours(checkpoint.metadata.attempt, id) => return Ok(Some(checkpoint)),
                Ok(_) => {
                    self.useless.push(id);
                    self.disowned.push(id);
                }
                Err(MetadataError::Missing { .. }) => self.useless.push(id),
                Err(error) if may_pass(&error) => return Err(error.into()),
                Err(error) => {
                    tracing::error!("Checkpoint {id} of job {} cannot be used: {error}", job.job_id);
                    self.damaged.push((id, error.to_string()));
                }
            }
        }
        Ok(None)
    }

    /// Returns true if a snapshot counts. One that an earlier attempt completed after a later one had taken the job over does not:
    /// the later one knows nothing of it, and has dropped the output that it names.
    fn is_ours(&self, attempt: AttemptId, id: CheckpointId) -> bool {
        self.since
            .is_none_or(|since| attempt >= since.attempt || since.restored.is_some_and(|restored| id <= restored))
    }

    /// Returns true if another attempt has taken the job over since this was read: it may have dropped output that a snapshot
    /// names.
    ///
    /// # Errors
    /// [`AttemptError`].
    pub async fn is_overtaken(&self, job: &Job) -> Result<bool, AttemptError> {
        Ok(job.directory.takeover().await? != self.since)
    }

    /// Refuses to go back behind a damaged checkpoint if that would write again what it or a later one has committed.
    fn refuse_doubled_output(&self, job: &Job, newest: Option<CheckpointId>) -> Result<(), AttemptError> {
        let Some((damaged, why)) = self.damaged.first() else {
            return Ok(());
        };
        let files = job.host.environment.files();
        let after = newest.unwrap_or(CheckpointId(0));
        let mut parts = vec![];
        for node in &job.graph.nodes {
            let later = later_parts(&*files, node, job.job_id, after);
            parts.extend(later.map_err(AttemptError::of_sink(&node.uid))?);
        }
        let url = job.directory.checkpoint(*damaged)?.url();
        if newest.is_some() && parts.is_empty() {
            tracing::warn!(
                "Job {} goes back to checkpoint {after}: checkpoint {damaged} at {url} cannot be used.",
                job.job_id
            );
            return Ok(());
        }
        Err(AttemptError::Damaged {
            job: job.job_id,
            id: *damaged,
            url,
            reason: why.clone(),
            again: newest.map(|newest| (newest, parts)),
        })
    }

    async fn origin(&self, job: &Job) -> Result<Point, AttemptError> {
        let Some(origin) = self.job.origin.clone() else {
            return Ok(Point::Beginning);
        };
        let opened = Savepoint::open(&*job.host.stores, &origin.path).await;
        let savepoint = opened.map_err(|source| AttemptError::Origin {
            job: job.job_id,
            location: origin.path.clone(),
            source,
        })?;
        Ok(Point::Origin(Box::new(savepoint), origin))
    }
}

/// State of a recorded savepoint.
enum Recorded {
    /// It is complete, or counts as complete since it cannot be looked at.
    Complete(SavepointRecord),
    /// It is dropped, or has no `_metadata`: its host was killed, or is still writing it.
    Partial(SavepointRecord),
}

/// Looks at a recorded savepoint, and changes nothing.
async fn looked_at(job: &Job, mut record: SavepointRecord) -> Result<Recorded, AttemptError> {
    if record.dropped {
        return Ok(Recorded::Partial(record));
    }
    if record.complete {
        return Ok(Recorded::Complete(record));
    }
    let storage = job.host.stores.open(&record.path)?;
    match storage.exists(paths::METADATA).await {
        Ok(false) => return Ok(Recorded::Partial(record)),
        Ok(true) => record.complete = true,
        // Whether the job was to end here must be known. What any other savepoint names can as well be kept.
        Err(error) if record.kind == SnapshotKind::Stop => return Err(error.into()),
        Err(error) => tracing::warn!("a savepoint cannot be looked at: {error}"),
    }
    Ok(Recorded::Complete(record))
}
