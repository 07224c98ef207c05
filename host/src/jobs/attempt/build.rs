//! An attempt from state to subtasks that are ready to run; the same for a new job and for one that is brought back.
//!
//! Subtasks are built, which changes nothing. Then the attempt is recorded, so that no other host runs the job, and the
//! output that its snapshot has pending is committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use regraft_model::id::{AttemptId, CheckpointId, JobVersion, OperatorUid};

use super::initial::Begin;
use super::load::Loaded;
use crate::dataflow::control::locked;
use crate::dataflow::operator::Modules;
use crate::environment::run_blocking;
use crate::graph::plan::RegionIndex;
use crate::jobs::admission::descriptions;
use crate::jobs::deploy::{DeployContext, DeployError, Deployed, Identity, deploy};
use crate::jobs::durable::commit::{commit_from, note_committed};
use crate::jobs::durable::error::AttemptError;
use crate::jobs::durable::job::Job;
use crate::jobs::durable::point::Durable;
use crate::jobs::durable::records::{AttemptRecord, RecordError, Takeover};
use crate::jobs::life::effect;
use crate::savepoint::metadata::Ancestor;

/// An attempt that is recorded and committed, and only has to be set running.
pub struct Ready {
    /// Its number.
    pub attempt: AttemptId,
    /// The version it runs.
    pub version: JobVersion,
    /// The modules of that version.
    pub modules: Modules,
    /// The checkpoint it goes on from; `None` for the savepoint that the job started from, or the beginning.
    pub restored: Option<CheckpointId>,
    /// Its origin, for people.
    pub from: String,
    /// Savepoints that the job descends from, nearest first.
    pub lineage: Vec<Ancestor>,
    /// Its rounds have greater numbers than this one.
    pub last_id: CheckpointId,
    /// Complete checkpoints, newest first.
    pub checkpoints: Vec<CheckpointId>,
    /// Savepoints that name output which may not be committed yet.
    pub savepoints: BTreeSet<CheckpointId>,
    /// The subtasks of each region.
    pub deployed: Vec<(RegionIndex, Deployed)>,
}

impl Ready {
    /// Splits it into what the protocol sees of it, and its subtasks.
    #[must_use]
    pub fn split(self) -> (effect::Ready, BTreeMap<RegionIndex, Deployed>) {
        let mut checkpoints: VecDeque<CheckpointId> = self.checkpoints.into();
        checkpoints.make_contiguous().reverse();
        let ready = effect::Ready {
            attempt: self.attempt,
            version: self.version,
            modules: self.modules,
            restored: self.restored,
            from: self.from,
            lineage: self.lineage,
            last_id: self.last_id,
            checkpoints,
            savepoints: self.savepoints,
            regions: self.deployed.iter().map(|(region, _)| *region).collect(),
        };
        (ready, self.deployed.into_iter().collect())
    }
}

/// An attempt whose subtasks are built. Nothing on disk has changed.
pub(super) struct Built {
    pub(super) facts: Facts,
    deployed: Vec<(RegionIndex, Deployed)>,
}

/// A built attempt without its subtasks, which cannot be shared between threads.
pub(super) struct Facts {
    pub(super) identity: Identity,
    modules: Modules,
    /// The state it begins with, without the part that its subtasks have taken.
    pub(super) begin: Begin,
    last_id: CheckpointId,
}

impl Built {
    /// Builds the subtasks of some regions. Rounds of the attempt get greater numbers than `last_id`, and than any round
    /// behind the state it begins with.
    ///
    /// # Errors
    /// [`AttemptError`].
    pub(super) async fn new(
        job: &Arc<Job>,
        regions: &[RegionIndex],
        mut begin: Begin,
        identity: Identity,
        modules: Modules,
        last_id: CheckpointId,
    ) -> Result<Self, AttemptError> {
        let loaded = std::mem::take(&mut begin.loaded);
        let deployed = deploy_regions(job, regions, loaded, identity, &modules).await?;
        let facts = Facts {
            identity,
            modules,
            last_id: last_id.max(CheckpointId(begin.next.0.saturating_sub(1))),
            begin,
        };
        Ok(Self { facts, deployed })
    }

    /// Makes the recorded attempt ready to run. `checkpoints` are complete, newest first; `savepoints` may name output that
    /// is not committed yet.
    pub(super) fn ready(
        self,
        lineage: Vec<Ancestor>,
        checkpoints: Vec<CheckpointId>,
        savepoints: BTreeSet<CheckpointId>,
    ) -> Ready {
        let Facts {
            identity,
            modules,
            begin,
            last_id,
        } = self.facts;
        Ready {
            attempt: identity.attempt,
            version: identity.version,
            modules,
            restored: begin.restored,
            from: begin.from,
            lineage,
            last_id,
            checkpoints,
            savepoints,
            deployed: self.deployed,
        }
    }
}

impl Facts {
    /// Records the attempt: from here on no other host may go on with the job.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(super) async fn record(&self, job: &Job, before: Before<'_>) -> Result<AttemptRecord, RecordError> {
        let Identity { attempt, nonce, .. } = self.identity;
        record(job, (attempt, Some(nonce)), self.begin.restored, self.last_id, before).await
    }

    /// Commits the output that is pending in the snapshot it begins with, and records that.
    ///
    /// # Errors
    /// [`AttemptError`] names sink and parts.
    pub(super) async fn commit(&self, job: &Job) -> Result<(), AttemptError> {
        let Begin {
            pending,
            from,
            writer,
            restored,
            ..
        } = &self.begin;
        commit_from(job, pending, from, *writer).await?;
        note_committed(job, *restored).await;
        Ok(())
    }
}

/// The records of a job that an attempt begins with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Before<'a> {
    /// Those of a job that has begun.
    Begun(&'a Durable),
    /// Those of starts of a new job that were not finished: the last of them, where there is one.
    Starts(Option<&'a AttemptRecord>),
}

/// Creates the record of an attempt. `nonce` is that of its writers; `None` if it writes nothing.
///
/// # Errors
/// [`RecordError`]; another host may have created one of that number, or ended the job.
pub(super) async fn record(
    job: &Job,
    (attempt, nonce): (AttemptId, Option<u32>),
    restored: Option<CheckpointId>,
    last_id: CheckpointId,
    before: Before<'_>,
) -> Result<AttemptRecord, RecordError> {
    let environment = &job.host.environment;
    let (newest, since) = match before {
        Before::Begun(durable) => (durable.attempt.as_ref(), durable.since),
        Before::Starts(last) => (last, None),
    };
    let known = newest.map(|newest| newest.known.clone()).unwrap_or_default();
    let record = AttemptRecord {
        attempt,
        restored,
        since,
        starting: matches!(before, Before::Starts(_)),
        known: match nonce {
            Some(nonce) => known.with(attempt, nonce),
            None => known,
        },
        last_id,
        started_at: environment.clock().now_ms(),
        nonce: format!("{:032x}", environment.random()),
        ended: None,
    };
    locked(&job.nonces).insert(record.nonce.clone());
    job.directory.begin_attempt(&record).await?;
    Ok(record)
}

/// Takes over the sink of a node, so that no earlier attempt commits there. Output with the handles `keep` stays pending.
///
/// # Errors
/// [`AttemptError::Sink`]; another attempt may have the sink.
pub(super) async fn take_sink_over(
    job: &Job,
    uid: &OperatorUid,
    attempt: AttemptId,
    nonce: Option<u32>,
    keep: Vec<serde_json::Value>,
) -> Result<(), AttemptError> {
    let Some(committer) = job.committers.get(uid).cloned() else {
        return Ok(());
    };
    let taking = move || committer.take_over(attempt, nonce, &keep);
    let taken = run_blocking(&*job.host.environment, taking).await?;
    taken.map_err(|source| AttemptError::Sink {
        uid: uid.clone(),
        source,
    })
}

/// Records that an attempt takes the job over: what other attempts complete from now on does not count.
///
/// # Errors
/// [`RecordError`]; another host may have begun one.
pub(super) async fn settle(job: &Job, record: AttemptRecord) -> Result<(), RecordError> {
    let since = Some(Takeover {
        attempt: record.attempt,
        restored: record.restored,
    });
    let settled = AttemptRecord {
        since,
        starting: false,
        ..record
    };
    job.directory.settle_attempt(&settled).await
}

/// Builds the subtasks of some regions.
///
/// # Errors
/// [`AttemptError`].
async fn deploy_regions(
    job: &Arc<Job>,
    regions: &[RegionIndex],
    mut loaded: Loaded,
    identity: Identity,
    modules: &Modules,
) -> Result<Vec<(RegionIndex, Deployed)>, AttemptError> {
    let (job, regions) = (job.clone(), regions.to_vec());
    let environment = job.host.environment.clone();
    let (modules, descriptions) = (modules.clone(), descriptions(modules));
    let deploying = move || {
        loaded.state.careful = locked(&job.careful).clone();
        let context = DeployContext {
            identity,
            clock: job.host.environment.clock(),
            files: job.host.environment.files(),
            events: job.event_sink(identity.attempt),
            modules: &modules,
            descriptions: &descriptions,
            hold_at_end: job.hold_at_end,
            listed_splits_most: job.host.environment.listed_splits_most(),
            counters: &job.counters,
        };
        let of = |region: RegionIndex| {
            let deployed = deploy(&job.graph, &job.plan, region, &mut loaded.state, &context)?;
            Ok((region, deployed))
        };
        regions.into_iter().map(of).collect::<Result<Vec<_>, DeployError>>()
    };
    Ok(run_blocking(&*environment, deploying).await??)
}
