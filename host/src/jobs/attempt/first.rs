//! The first attempt of a new job, which also makes the job durable: its settings, its modules, its first version.

use std::collections::BTreeSet;
use std::sync::Arc;

use regraft_model::id::{AttemptId, CheckpointId, JobVersion};

use super::build::{Built, Facts, Ready, take_sink_over};
use super::initial::Begin;
use crate::dataflow::operator::Modules;
use crate::environment::run_blocking;
use crate::graph::plan::RegionIndex;
use crate::jobs::abandoned::clean_abandoned_output;
use crate::jobs::deploy::{DeployError, Identity};
use crate::jobs::durable::error::AttemptError;
use crate::jobs::durable::job::Job;
use crate::jobs::durable::records::{JobRecord, Origin, VersionRecord, digests};
use crate::jobs::output::handle_earlier_output;

/// Makes the first attempt of a job, and the record of what the job starts with.
///
/// # Errors
/// [`AttemptError`]; then nothing runs, and nothing of the job is left in the checkpoint directory.
pub async fn first(
    job: &Arc<Job>,
    begin: Begin,
    origin: Option<Origin>,
    modules: Modules,
) -> Result<(JobRecord, Ready), AttemptError> {
    let regions: Vec<RegionIndex> = job.plan.region_indices().collect();
    let identity = Identity {
        job_id: job.job_id,
        attempt: AttemptId(1),
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
    let written = async {
        write_down(job, &record, &version, &modules, facts).await?;
        if record.origin.is_some() {
            facts.commit(job).await?;
        }
        take_over(job, identity).await
    };
    if let Err(error) = written.await {
        for committer in job.committers.values() {
            let committer = committer.clone();
            let cleaning = move || {
                let _ = committer.clean_leftovers(&[]);
                committer.clean();
            };
            let _ = run_blocking(&*job.host.environment, cleaning).await;
        }
        // Its requester is told that there is no such job.
        let _ = job.directory.remove().await;
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

/// Records the job, its modules, its first version, and last its first attempt.
async fn write_down(
    job: &Job,
    record: &JobRecord,
    version: &VersionRecord,
    modules: &Modules,
    facts: &Facts,
) -> Result<(), AttemptError> {
    let written = async {
        // A start that was killed before its attempt was recorded may have left something.
        if job.directory.newest_attempt().await?.is_none() {
            job.directory.remove().await?;
        }
        job.directory.write_job(record).await?;
        job.checkpoints
            .keep_modules(modules.values().map(|module| &**module))
            .await?;
        job.directory.create_version(version).await?;
        facts.record(job, None).await.map(|_| ())
    };
    written.await.map_err(AttemptError::NotRecorded)
}
