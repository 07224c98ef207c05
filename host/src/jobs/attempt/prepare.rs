//! The next attempt of a job: what is durable decides where it goes on from.
//!
//! In this order: state is read and subtasks are built, which changes nothing; the attempt is recorded, so that no other host
//! runs the job; snapshots that have been completed meanwhile are looked for; the output that the snapshot has pending is
//! committed; every sink is taken over, so that no earlier attempt commits anything any more. A crash anywhere in between is
//! answered by the next attempt, which does the same again. `docs/design/0019-fencing.md` says why in this order.

use std::path::Path;
use std::sync::Arc;

use regraft_model::id::{AttemptId, CheckpointId, OperatorUid};

pub use super::build::Ready;
use super::build::{Before, Built, Facts, record, settle, take_sink_over};
use super::initial::{beginning, from_checkpoint, from_origin};
use crate::connector::sink::KnownAttempts;
use crate::dataflow::control::locked;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::environment::run_blocking;
use crate::jobs::admission::descriptions;
use crate::jobs::deploy::Identity;
use crate::jobs::durable::commit::commit_from;
use crate::jobs::durable::error::{AttemptError, Parts};
use crate::jobs::durable::job::Job;
use crate::jobs::durable::point::{Durable, Over, Point};
use crate::jobs::durable::records::{RecordError, SavepointRecord, VersionRecord};
pub use crate::jobs::life::effect::Wish;
use crate::jobs::sinks::later_parts;
use crate::savepoint::permit::CommitPermit;
use crate::storage::paths;

/// Result of preparing an attempt.
pub enum Prepared {
    /// Subtasks to run.
    Ready(Box<Ready>),
    /// Nothing is left to run, and all output is committed.
    Over(Box<Over>),
}

/// Number of times that an attempt begins anew because a checkpoint turned up that it had not read.
const TRIES: u32 = 5;

/// Makes the next attempt of a job from what is durable.
///
/// # Errors
/// [`AttemptError`]; then nothing runs.
pub async fn prepare(job: &Arc<Job>, wish: &Wish) -> Result<Prepared, AttemptError> {
    for _ in 0..TRIES {
        match prepare_once(job, wish).await? {
            Outcome::Prepared(prepared) => return Ok(prepared),
            Outcome::Newer(what) => {
                tracing::info!(
                    "{what} of job {} was completed or dropped meanwhile: what is durable is read again.",
                    job.job_id
                );
            }
        }
    }
    Err(AttemptError::Overtaken)
}

/// Result of one try.
enum Outcome {
    Prepared(Prepared),
    /// Something turned up that has not been read.
    Newer(String),
}

async fn prepare_once(job: &Arc<Job>, wish: &Wish) -> Result<Outcome, AttemptError> {
    let mut durable = Durable::read(job).await?;
    if let Some(path) = durable.taken_by_another(job, &locked(&job.nonces)) {
        return Err(RecordError::Taken { path }.into());
    }
    let attempt = durable.next_attempt(wish.after);
    debug_assert!(durable.attempt.as_ref().is_none_or(|newest| newest.attempt < attempt));
    let last_id = durable.last_id().max(wish.last_id);
    let modules = modules_of(job, &durable.version, &wish.known).await?;
    let descriptions = descriptions(&modules);
    let begin = loop {
        match durable.point(job).await? {
            Point::Over(over) => return only_commit(job, &durable, wish, attempt, over).await,
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
    let (restored, taken_by) = (begin.restored, begin.taken_by);
    let identity = Identity {
        job_id: job.job_id,
        attempt,
        version: durable.version.version,
        nonce: job.host.environment.random() as u32,
    };
    let built = Built::new(job, &wish.regions, begin, identity, modules, last_id).await?;
    let record = built.facts.record(job, Before::Begun(&durable)).await?;
    let known_attempts = record.known.clone();
    if let Some(newer) = newer_snapshot(job, &durable, restored).await? {
        return Ok(Outcome::Newer(newer));
    }
    settle(job, record).await?;
    let known = durable.is_committed(restored) || (restored.is_some() && wish.committed == restored);
    if !known {
        built.facts.commit(job).await?;
    }
    let Facts { begin, .. } = &built.facts;
    take_over(
        job,
        &durable,
        wish,
        identity.attempt,
        Some(identity.nonce),
        &begin.pending,
    )
    .await?;
    refuse_to_be_behind(job, wish, restored, &begin.from, &known_attempts).await?;
    tidy(job, &durable, restored).await;
    let origin = durable.job.origin.as_ref();
    let useless = |id: &CheckpointId| !durable.useless.contains(id);
    // What is pending in a savepoint is committed by a later checkpoint of its own attempt, and by no other: if the job did
    // not go on from one, it stays for a job that restores that savepoint.
    let still_pending =
        |record: &&SavepointRecord| Some(record.attempt) == taken_by && Some(record.checkpoint_id) < restored;
    let savepoints = durable.savepoints.iter().filter(still_pending);
    Ok(Outcome::Prepared(Prepared::Ready(Box::new(built.ready(
        origin.map(|origin| origin.lineage.clone()).unwrap_or_default(),
        durable.checkpoints.iter().copied().filter(useless).collect(),
        savepoints.map(|record| record.checkpoint_id).collect(),
    )))))
}

/// Commits the output of a job of which nothing is left to run.
async fn only_commit(
    job: &Arc<Job>,
    durable: &Durable,
    wish: &Wish,
    attempt: AttemptId,
    over: Over,
) -> Result<Outcome, AttemptError> {
    let last = Some(over.checkpoint_id);
    let last_id = durable.last_id().max(wish.last_id);
    let record = record(job, (attempt, None), last, last_id, Before::Begun(durable)).await?;
    // A host that drops its savepoint says so before it looks whether the job is still its own.
    if let Some(savepoint) = &over.savepoint
        && !durable.still_has(job, savepoint).await?
    {
        return Ok(Outcome::Newer("A savepoint".to_owned()));
    }
    settle(job, record).await?;
    if wish.committed != last && !durable.is_committed(last) {
        commit_from(job, &over.permit, "its last snapshot", job.job_id).await?;
    }
    take_over(job, durable, wish, attempt, None, &CommitPermit::none()).await?;
    tidy(job, durable, last).await;
    Ok(Outcome::Prepared(Prepared::Over(Box::new(over))))
}

/// A host that was cut off, and is alive, may have completed a snapshot while this attempt read an older one, and may have
/// deleted that one. What it completes from now on does not count, and it does not commit it, nor say that it is complete: it
/// asks first whether the job is still its own.
async fn newer_snapshot(
    job: &Job,
    durable: &Durable,
    restored: Option<CheckpointId>,
) -> Result<Option<String>, AttemptError> {
    for id in job.directory.checkpoints().await? {
        if Some(id) <= restored {
            break;
        }
        if !durable.has_seen(id) && job.directory.checkpoint(id)?.exists(paths::METADATA).await? {
            return Ok(Some(format!("Checkpoint {id}")));
        }
    }
    if let Some(id) = durable.changed_savepoint(job).await? {
        return Ok(Some(format!("Savepoint {id}")));
    }
    let overtaken = durable.is_overtaken(job).await?;
    Ok(overtaken.then(|| "Another attempt".to_owned()))
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
        let failed = |reason: String| AttemptError::Module {
            uid: uid.clone(),
            digest: digest.clone(),
            reason,
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

/// Takes the sinks over for the attempt. What savepoints name stays pending.
async fn take_over(
    job: &Job,
    durable: &Durable,
    wish: &Wish,
    attempt: AttemptId,
    nonce: Option<u32>,
    pending: &CommitPermit,
) -> Result<(), AttemptError> {
    // First of all: a savepoint that was completed meanwhile names output, which must stay.
    let completed = durable.remove_partial_savepoints(job).await;
    for uid in uids(job, wish) {
        let mut keep = durable.kept(uid);
        let of_uid = completed.iter().filter_map(|record| record.handles.get(uid));
        keep.extend(of_uid.chain(pending.handles().get(uid)).flatten().cloned());
        take_sink_over(job, uid, attempt, nonce, keep).await?;
    }
    Ok(())
}

fn uids<'a>(job: &'a Job, wish: &Wish) -> impl Iterator<Item = &'a OperatorUid> {
    let regions = wish.regions.iter().filter_map(|region| job.plan.region(*region));
    regions.flat_map(|region| &region.uids)
}

/// Refuses to write again what a host has committed whose checkpoints this one does not have: its directory is a copy, or
/// has been put back. To be called when the sinks have been taken over: nothing is added then.
async fn refuse_to_be_behind(
    job: &Arc<Job>,
    wish: &Wish,
    restored: Option<CheckpointId>,
    from: &str,
    known: &KnownAttempts,
) -> Result<(), AttemptError> {
    for uid in uids(job, wish).cloned() {
        let (files, of, known) = (job.host.environment.files(), job.clone(), known.clone());
        let looking = move || -> Result<_, AttemptError> {
            let Some(node) = of.graph.node(uid.as_str()) else {
                return Ok(None);
            };
            let Some(dir) = node.output_dir().map(Path::to_owned) else {
                return Ok(None);
            };
            let parts = |names| Parts { uid, dir, names };
            let later = later_parts(&*files, node, of.job_id, restored.unwrap_or(CheckpointId(0)))
                .map_err(AttemptError::of_sink(&node.uid))?;
            if !later.is_empty() {
                return Ok(Some((true, parts(later))));
            }
            let foreign = match of.committers.get(&node.uid) {
                Some(committer) => committer.foreign_output(&known),
                None => Ok(vec![]),
            };
            let foreign = foreign.map_err(AttemptError::of_sink(&node.uid))?;
            Ok((!foreign.is_empty()).then(|| (false, parts(foreign))))
        };
        match run_blocking(&*job.host.environment, looking).await?? {
            None => {}
            Some((true, parts)) => {
                let from = from.to_owned();
                return Err(AttemptError::Ahead { from, parts });
            }
            Some((false, parts)) => return Err(AttemptError::Foreign { parts }),
        }
    }
    Ok(())
}

/// Removes checkpoints that were never completed, or are of no use any more.
async fn tidy(job: &Job, durable: &Durable, restored: Option<CheckpointId>) {
    let modules = durable.version.modules.values().cloned();
    if let Err(error) = job.checkpoints.recover(restored, modules, &durable.damaged()).await {
        tracing::warn!("what earlier attempts left of checkpoints could not be removed: {error}");
    }
}

#[cfg(test)]
mod tests;
