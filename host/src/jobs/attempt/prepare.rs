//! The next attempt of a job: what is durable decides where it goes on from.
//!
//! In this order: state is read and subtasks are built, which changes nothing; the attempt is recorded, so that no other host
//! runs the job; the output that the snapshot has pending is committed, and what dead attempts left is removed. A crash
//! anywhere in between is answered by the next attempt, which does the same again.

use std::sync::Arc;

use regraft_model::id::CheckpointId;

pub use super::build::Ready;
use super::build::{Built, record};
use super::initial::{beginning, from_checkpoint, from_origin};
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::environment::run_blocking;
use crate::jobs::admission::descriptions;
use crate::jobs::deploy::Identity;
use crate::jobs::durable::commit::commit_from;
use crate::jobs::durable::error::AttemptError;
use crate::jobs::durable::job::Job;
use crate::jobs::durable::point::{Durable, Over, Point};
use crate::jobs::durable::records::{SavepointRecord, VersionRecord};
pub use crate::jobs::life::effect::Wish;
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
            Outcome::Newer(id) => {
                tracing::info!(
                    "Checkpoint {id} of job {} was completed meanwhile: its state is read.",
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
    /// A checkpoint turned up that has not been read.
    Newer(CheckpointId),
}

async fn prepare_once(job: &Arc<Job>, wish: &Wish) -> Result<Outcome, AttemptError> {
    let mut durable = Durable::read(job).await?;
    let attempt = durable.next_attempt(wish.after);
    debug_assert!(durable.attempt.as_ref().is_none_or(|newest| newest.attempt < attempt));
    let last_id = durable.last_id().max(wish.last_id);
    let modules = modules_of(job, &durable.version, &wish.known).await?;
    let descriptions = descriptions(&modules);
    let begin = loop {
        match durable.point(job).await? {
            Point::Over(over) => {
                record(job, attempt, Some(over.checkpoint_id), last_id).await?;
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
    let (restored, taken_by) = (begin.restored, begin.taken_by);
    let identity = Identity {
        job_id: job.job_id,
        attempt,
        version: durable.version.version,
    };
    let built = Built::new(job, &wish.regions, begin, identity, modules, last_id).await?;
    built.facts.record(job).await?;
    if let Some(newer) = newer_checkpoint(job, &durable, restored).await? {
        return Ok(Outcome::Newer(newer));
    }
    let known = durable.is_committed(restored) || (restored.is_some() && wish.committed == restored);
    if !known {
        built.facts.commit(job).await?;
    }
    clean(job, &durable, wish, &built.facts.begin.pending, restored).await;
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

#[cfg(test)]
mod tests;
