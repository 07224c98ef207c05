//! One attempt of a job: from what is durable to subtasks that are ready to run.
//!
//! In this order: state is read and subtasks are built, which changes nothing; the attempt is written down, so that no
//! other host runs the job; the output that the snapshot has pending is committed, and what dead attempts left is removed.
//! A crash anywhere in between is answered by the next attempt, which does the same again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use regraft_guest_runtime::trap::GuestError;
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{AttemptId, CheckpointId, JobVersion};

use super::initial::{Begin, beginning, from_checkpoint, from_origin};
use super::load::Loaded;
use crate::connector::sink::SinkError;
use crate::connector::source::SourceError;
use crate::dataflow::control::locked;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::environment::run_blocking;
use crate::graph::plan::RegionIndex;
use crate::jobs::admission::{Descriptions, descriptions};
use crate::jobs::deploy::{DeployContext, DeployError, Deployed, Identity, deploy};
use crate::jobs::durable::commit::{commit_from, note_committed};
use crate::jobs::durable::error::AttemptError;
use crate::jobs::durable::job::Job;
use crate::jobs::durable::point::{Durable, Over, Point};
use crate::jobs::durable::records::{AttemptRecord, VersionRecord};
use crate::jobs::handle::JobError;
use crate::jobs::life::effect;
pub use crate::jobs::life::effect::Wish;
use crate::savepoint::metadata::Ancestor;
use crate::savepoint::permit::CommitPermit;
use crate::storage::paths;

/// An attempt that only has to be set running.
pub struct Ready {
    /// Its number.
    pub attempt: AttemptId,
    /// The version it runs.
    pub version: JobVersion,
    /// The modules of that version.
    pub modules: Modules,
    /// The checkpoint it goes on from; none: the savepoint that the job started from, or the beginning.
    pub restored: Option<CheckpointId>,
    /// Where that came from, for people.
    pub from: String,
    /// What the job was restored from, at its start.
    pub lineage: Vec<Ancestor>,
    /// Its rounds have greater numbers than this one.
    pub last_id: CheckpointId,
    /// All complete checkpoints, newest first.
    pub checkpoints: Vec<CheckpointId>,
    /// Savepoints that name output which may not be committed yet.
    pub savepoints: BTreeSet<CheckpointId>,
    /// The subtasks of each region.
    pub deployed: Vec<(RegionIndex, Deployed)>,
}

impl Ready {
    /// The attempt as the protocol sees it, and its subtasks.
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

/// What comes of an attempt.
pub enum Prepared {
    /// Subtasks to run.
    Ready(Box<Ready>),
    /// Nothing is left to run, and all output is committed.
    Over(Box<Over>),
}

/// How often an attempt begins anew, because a checkpoint turned up that it had not read.
const TRIES: u32 = 5;

/// Makes a new attempt of a job from what is durable.
///
/// # Errors
/// [`AttemptError`]; then nothing runs.
pub async fn prepare(job: &Arc<Job>, wish: &Wish) -> Result<Prepared, AttemptError> {
    for _ in 0..TRIES {
        match prepare_once(job, wish).await? {
            Outcome::Prepared(prepared) => return Ok(prepared),
            Outcome::Newer(id) => {
                tracing::info!(
                    "Checkpoint {id} of job {} was completed meanwhile: its state is read.",
                    job.job_id
                );
            }
        }
    }
    let message = "another host completes one checkpoint after the other meanwhile: it still runs the job".to_owned();
    Err(AttemptError {
        restartable: true,
        error: JobError::failed(message),
    })
}

/// What one try came to.
enum Outcome {
    Prepared(Prepared),
    /// A checkpoint turned up that has not been read.
    Newer(CheckpointId),
}

async fn prepare_once(job: &Arc<Job>, wish: &Wish) -> Result<Outcome, AttemptError> {
    let mut durable = Durable::read(job).await?;
    let attempt = durable.next_attempt(wish.after);
    let last_id = durable.last_id().max(wish.last_id);
    let modules = modules_of(job, &durable.version, &wish.known).await?;
    let descriptions = descriptions(&modules);
    let begin = loop {
        match durable.point(job).await? {
            Point::Over(over) => {
                record(job, &durable, attempt, Some(over.checkpoint_id), last_id).await?;
                let known =
                    wish.committed == Some(over.checkpoint_id) || durable.is_committed(Some(over.checkpoint_id));
                if !known {
                    commit_from(job, &over.permit, "its last snapshot", job.job_id).await?;
                }
                clean(job, &durable, wish, &CommitPermit::none(), Some(over.checkpoint_id)).await;
                return Ok(Outcome::Prepared(Prepared::Over(Box::new(over))));
            }
            Point::Beginning => break beginning(job),
            Point::Origin(savepoint, origin) => break from_origin(job, &descriptions, &savepoint, &origin).await?,
            Point::Checkpoint(checkpoint) => {
                if let Some(begin) =
                    from_checkpoint(job, &descriptions, &checkpoint, &wish.regions, &mut durable).await?
                {
                    break begin;
                }
            }
        }
    };
    let Begin {
        loaded,
        restored,
        taken_by,
        from,
        pending,
        writer,
        next,
    } = begin;
    let last_id = last_id.max(CheckpointId(next.0.saturating_sub(1)));
    let identity = Identity {
        job_id: job.job_id,
        attempt,
        version: durable.version.version,
    };
    let deployed = deploy_regions(job, &wish.regions, loaded, identity, &modules, &descriptions).await?;
    record(job, &durable, attempt, restored, last_id).await?;
    if let Some(newer) = newer_checkpoint(job, &durable, restored).await? {
        return Ok(Outcome::Newer(newer));
    }
    let known = durable.is_committed(restored) || (restored.is_some() && wish.committed == restored);
    if !known {
        commit_from(job, &pending, &from, writer).await?;
        note_committed(job, restored).await;
    }
    clean(job, &durable, wish, &pending, restored).await;
    let useless = |id: &CheckpointId| !durable.useless.contains(id);
    Ok(Outcome::Prepared(Prepared::Ready(Box::new(Ready {
        attempt,
        version: durable.version.version,
        modules,
        restored,
        from,
        lineage: durable
            .job
            .origin
            .as_ref()
            .map(|origin| origin.lineage.clone())
            .unwrap_or_default(),
        last_id,
        checkpoints: durable.checkpoints.iter().copied().filter(useless).collect(),
        savepoints: durable
            .savepoints
            .iter()
            // What is pending in a savepoint is committed by a later checkpoint of its own attempt, and by no other: if the
            // job did not go on from one, it stays for whoever restores that savepoint.
            .filter(|savepoint| Some(savepoint.attempt) == taken_by && Some(savepoint.checkpoint_id) < restored)
            .map(|savepoint| savepoint.checkpoint_id)
            .collect(),
        deployed,
    }))))
}

/// Writes the attempt down: from here on no other host may go on with the job.
async fn record(
    job: &Job,
    durable: &Durable,
    attempt: AttemptId,
    restored: Option<CheckpointId>,
    last_id: CheckpointId,
) -> Result<(), AttemptError> {
    debug_assert!(durable.attempt.as_ref().is_none_or(|newest| newest.attempt < attempt));
    let environment = &job.host.environment;
    let record = AttemptRecord {
        attempt,
        restored,
        last_id,
        started_at: environment.clock().now_ms(),
        nonce: format!("{:032x}", environment.random()),
    };
    locked(&job.nonces).insert(record.nonce.clone());
    Ok(job.directory.create_attempt(&record).await?)
}

/// A host that was cut off, and is alive, may have completed a checkpoint while this attempt read an older one, and may have
/// deleted that one. What it completes from now on does not count.
async fn newer_checkpoint(
    job: &Job,
    durable: &Durable,
    restored: Option<CheckpointId>,
) -> Result<Option<CheckpointId>, AttemptError> {
    for id in job.directory.checkpoints().await? {
        if Some(id) <= restored {
            break;
        }
        if !durable.has_seen(id) && job.directory.checkpoint(id)?.exists(paths::METADATA).await? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The modules of a version: those that are loaded, and the others from the job's directory.
///
/// # Errors
/// [`AttemptError`] names the module.
pub async fn modules_of(
    job: &Arc<Job>,
    version: &VersionRecord,
    known: &[Arc<dyn OperatorModule>],
) -> Result<Modules, AttemptError> {
    let mut modules = Modules::new();
    for (uid, digest) in &version.modules {
        if let Some(module) = known.iter().find(|module| module.digest().to_string() == *digest) {
            modules.insert(uid.clone(), module.clone());
            continue;
        }
        let failed = |why: String| {
            let message = format!("the module of operator \"{uid}\" ({digest}) cannot be loaded: {why}");
            AttemptError::fatal(JobError::failed(message).on(uid))
        };
        let Some(loader) = job.loader.clone() else {
            return Err(failed("this host loads no modules".to_owned()));
        };
        let component = job.directory.module(digest).await?;
        let (of, expected) = (uid.clone(), digest.clone());
        let loading = run_blocking(&*job.host.environment, move || {
            let module = loader.load(&of, component)?;
            let found = module.digest().to_string();
            if found == expected {
                Ok(module)
            } else {
                Err(format!("its digest is {found}, so the file has been changed"))
            }
        });
        let module = loading.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
        modules.insert(uid.clone(), module.map_err(failed)?);
    }
    Ok(modules)
}

/// Builds the subtasks of some regions.
///
/// # Errors
/// [`AttemptError`].
pub async fn deploy_regions(
    job: &Arc<Job>,
    regions: &[RegionIndex],
    mut loaded: Loaded,
    identity: Identity,
    modules: &Modules,
    descriptions: &Descriptions,
) -> Result<Vec<(RegionIndex, Deployed)>, AttemptError> {
    let (job, regions) = (job.clone(), regions.to_vec());
    let environment = job.host.environment.clone();
    let (modules, descriptions) = (modules.clone(), descriptions.clone());
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
            counters: &job.counters,
        };
        let of = |region: RegionIndex| {
            let deployed = deploy(&job.graph, &job.plan, region, &mut loaded.state, &context)?;
            Ok((region, deployed))
        };
        regions.into_iter().map(of).collect::<Result<Vec<_>, DeployError>>()
    };
    let deployed = run_blocking(&*environment, deploying).await;
    let deployed = deployed.map_err(|error| AttemptError::fatal(JobError::failed(error.to_string())))?;
    deployed.map_err(|error| deploy_error(&error))
}

/// A component that does not open is the job's configuration; a missing file is a failed operation.
fn deploy_error(error: &DeployError) -> AttemptError {
    let message = error.to_string();
    let restartable = match error {
        DeployError::Open { error, .. } | DeployError::Restore { error, .. } => {
            matches!(error, GuestError::Engine { .. })
        }
        DeployError::Source { error, .. } => matches!(error, SourceError::Io { .. }),
        DeployError::Sink { error, .. } => matches!(error, SinkError::Io { .. }),
        DeployError::Bug(_) | DeployError::Shape(_) => false,
    };
    let error = match error {
        DeployError::Open { uid, .. } | DeployError::Restore { uid, .. } => JobError::failed(message).on(uid),
        DeployError::Sink { uid, error } => JobError {
            path: error.path().map(str::to_owned),
            ..JobError::failed(message).on(uid)
        },
        DeployError::Source { uid, error } => JobError {
            path: error.path().map(str::to_owned),
            ..JobError::failed(message).on(uid)
        },
        DeployError::Bug(_) => JobError {
            kind: ErrorKind::Bug,
            ..JobError::failed(message)
        },
        DeployError::Shape(_) => JobError::usage(message),
    };
    AttemptError { error, restartable }
}

/// Removes what dead attempts have left: output that nothing names, and checkpoints that were never completed.
async fn clean(job: &Job, durable: &Durable, wish: &Wish, pending: &CommitPermit, restored: Option<CheckpointId>) {
    // First of all: a savepoint that was completed meanwhile names output, which must stay.
    let completed = durable.remove_partial_savepoints(job).await;
    let environment = &*job.host.environment;
    let nodes = wish.regions.iter().filter_map(|region| job.plan.region(*region));
    for uid in nodes.flat_map(|region| &region.uids) {
        let Some(committer) = job.committers.get(uid).cloned() else {
            continue;
        };
        let mut keep = durable.kept(uid);
        keep.extend(
            completed
                .iter()
                .filter_map(|record| record.handles.get(uid))
                .flatten()
                .cloned(),
        );
        keep.extend(pending.handles().get(uid).into_iter().flatten().cloned());
        let cleaned = run_blocking(environment, move || committer.clean_leftovers(&keep)).await;
        if let Ok(Err(error)) = cleaned {
            tracing::warn!("what earlier attempts left of sink \"{uid}\" could not be removed: {error}");
        }
    }
    let modules = durable.version.modules.values().cloned();
    if let Err(error) = job.checkpoints.recover(restored, modules, &durable.damaged()).await {
        tracing::warn!("what earlier attempts left of checkpoints could not be removed: {error}");
    }
}
