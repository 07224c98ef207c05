//! The first attempt of a new job, which also makes the job durable: its settings, its modules, its first version.

use std::collections::BTreeSet;
use std::sync::Arc;

use regraft_model::id::{AttemptId, CheckpointId, JobVersion};

use super::build::{Before, Built, Facts, Ready, settle, take_sink_over};
use super::initial::Begin;
use crate::dataflow::operator::Modules;
use crate::environment::run_blocking;
use crate::graph::plan::RegionIndex;
use crate::jobs::abandoned::clean_abandoned_output;
use crate::jobs::deploy::{DeployError, Identity};
use crate::jobs::durable::clean_up::end_after;
use crate::jobs::durable::error::AttemptError;
use crate::jobs::durable::job::Job;
use crate::jobs::durable::records::{AttemptRecord, EndRecord, JobRecord, Origin, RecordError, VersionRecord, digests};
use crate::jobs::output::handle_earlier_output;
use crate::jobs::status::JobStatus;

/// Makes the first attempt of a job, and the record of what the job starts with.
///
/// Another host may do the same at the same time, or may have been killed while it did. So the attempt is claimed before anything
/// else is written, each start has another number, and a start that is not finished counts as none
/// (`docs/design/0019-fencing.md`).
///
/// # Errors
/// [`AttemptError`]; then nothing runs, and nothing of the job is left in the checkpoint directory, unless another host starts it.
pub async fn first(
    job: &Arc<Job>,
    begin: Begin,
    origin: Option<Origin>,
    modules: Modules,
) -> Result<(JobRecord, Ready), AttemptError> {
    let regions: Vec<RegionIndex> = job.plan.region_indices().collect();
    let earlier = job
        .directory
        .newest_attempt()
        .await
        .map_err(AttemptError::NotRecorded)?;
    let identity = Identity {
        job_id: job.job_id,
        attempt: AttemptId(earlier.as_ref().map_or(1, |earlier| earlier.attempt.0 + 1)),
        version: JobVersion(1),
        nonce: job.host.environment.random() as u32,
    };
    let version = VersionRecord {
        version: identity.version,
        checkpoint_id: None,
        modules: digests(&modules),
        nonce: format!("{:032x}", job.host.environment.random()),
    };
    let record = JobRecord {
        job_id: job.job_id,
        name: job.graph.name.clone(),
        started_at: job.host.environment.clock().now_ms(),
        origin,
        process: if job.host.recovers {
            None
        } else {
            job.host.environment.process()
        },
    };
    let built = Built::new(job, &regions, begin, identity, modules.clone(), CheckpointId(0)).await?;
    check_outputs(job).await?;
    clean_abandoned_output(job).await;
    if record.origin.is_none() {
        handle_earlier_output(job).await?;
    }
    let facts = &built.facts;
    let claim = claim(job, &record, facts, earlier.as_ref()).await?;
    let written = async {
        write_down(job, &version, &modules, claim.clone()).await?;
        if record.origin.is_some() {
            facts.commit(job).await?;
        }
        take_over(job, identity).await
    };
    if let Err(error) = written.await {
        // If another host has brought the job back meanwhile, all of it is that one's.
        if !error.is_lost() {
            undo(job, claim, earlier.is_none(), &error).await;
        }
        return Err(error);
    }
    let origin = record.origin.as_ref();
    let lineage = origin.map(|origin| origin.lineage.clone()).unwrap_or_default();
    Ok((record, built.ready(lineage, vec![], BTreeSet::new())))
}

/// Refuses an output that can never be written, rather than have it tried again and again.
async fn check_outputs(job: &Job) -> Result<(), AttemptError> {
    for (uid, committer) in &job.committers {
        let committer = committer.clone();
        let checked = run_blocking(&*job.host.environment, move || committer.check()).await?;
        checked.map_err(|error| DeployError::Sink {
            uid: uid.clone(),
            error,
        })?;
    }
    Ok(())
}

/// Begins the output of the job at every sink.
async fn take_over(job: &Job, identity: Identity) -> Result<(), AttemptError> {
    for uid in job.committers.keys() {
        take_sink_over(job, uid, identity.attempt, Some(identity.nonce), vec![]).await?;
    }
    Ok(())
}

/// Claims the start of the job: from here on no other host starts it with success.
///
/// # Errors
/// [`AttemptError::NotRecorded`], also where another host has claimed it, or has finished its start.
async fn claim(
    job: &Job,
    record: &JobRecord,
    facts: &Facts,
    earlier: Option<&AttemptRecord>,
) -> Result<AttemptRecord, AttemptError> {
    let claimed = async {
        job.directory.write_job(record).await?;
        let claim = facts.record(job, Before::Starts(earlier)).await?;
        job.directory.refuse_if_begun(&claim).await?;
        Ok(claim)
    };
    claimed.await.map_err(AttemptError::NotRecorded)
}

/// Records the modules and the first version of a job, and then that it has begun.
async fn write_down(
    job: &Job,
    version: &VersionRecord,
    modules: &Modules,
    claim: AttemptRecord,
) -> Result<(), AttemptError> {
    let written = async {
        job.checkpoints
            .keep_modules(modules.values().map(|module| &**module))
            .await?;
        job.directory.create_first_version(version).await?;
        settle(job, claim).await
    };
    written.await.map_err(AttemptError::NotRecorded)
}

/// Removes what a start has written that has failed. It is an end of the job as any other: first no other host may begin an attempt.
///
/// If it was not the only start, or output of it stays, then so does the record of the end: a later start of the same job must not
/// get the same number.
async fn undo(job: &Job, claim: AttemptRecord, is_only: bool, error: &AttemptError) {
    let end = EndRecord {
        status: JobStatus::Failed,
        ended_at: job.host.environment.clock().now_ms(),
        savepoint: None,
        failure: Some(error.to_string()),
        failure_kind: Some(error.kind()),
        keeps: false,
    };
    if let Err(error) = end_after(job, claim, &end).await {
        tracing::warn!("what the failed start of job {} has left stays: {error}", job.job_id);
        return;
    }
    let mut is_clean = true;
    for committer in job.committers.values() {
        let committer = committer.clone();
        let cleaning = move || {
            let cleaned = committer.clean_leftovers(&[]);
            committer.clean();
            cleaned
        };
        let cleaned = run_blocking(&*job.host.environment, cleaning).await;
        is_clean &= matches!(cleaned, Ok(Ok(())));
    }
    // Its requester is told that there is no such job.
    let removed = if is_only && is_clean {
        job.directory.remove().await
    } else {
        match job.directory.write_end(&end).await {
            Ok(()) => job.directory.clear().await,
            Err(RecordError::Store(error)) => Err(error),
            Err(_) => Ok(()),
        }
    };
    if let Err(error) = removed {
        tracing::warn!("what the failed start of job {} has left stays: {error}", job.job_id);
    }
}
