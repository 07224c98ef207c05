//! The first attempt of a new job, which also makes the job durable: its settings, its modules, its first version.

use std::collections::BTreeSet;
use std::sync::Arc;

use regraft_model::id::{AttemptId, CheckpointId, JobVersion};

use super::build::{Built, Facts, Ready};
use super::initial::Begin;
use crate::dataflow::operator::Modules;
use crate::environment::run_blocking;
use crate::graph::plan::RegionIndex;
use crate::jobs::abandoned::clean_abandoned_output;
use crate::jobs::deploy::Identity;
use crate::jobs::durable::job::Job;
use crate::jobs::durable::records::{JobRecord, Origin, RecordError, VersionRecord, digests};
use crate::jobs::handle::JobError;
use crate::jobs::output::handle_earlier_output;

/// Makes the first attempt of a job, and the record of what the job starts with.
///
/// # Errors
/// [`JobError`]; then nothing runs, and nothing of the job is left in the checkpoint directory.
pub async fn first(
    job: &Arc<Job>,
    begin: Begin,
    origin: Option<Origin>,
    modules: Modules,
) -> Result<(JobRecord, Ready), JobError> {
    let regions: Vec<RegionIndex> = job.plan.region_indices().collect();
    let identity = Identity {
        job_id: job.job_id,
        attempt: AttemptId(1),
        version: JobVersion(1),
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
    let built = Built::new(job, &regions, begin, identity, modules.clone(), CheckpointId(0)).await;
    let built = built.map_err(|error| error.error)?;
    check_outputs(job).await?;
    clean_abandoned_output(job).await;
    if record.origin.is_none() {
        handle_earlier_output(job).await?;
    }
    let facts = &built.facts;
    let written = async {
        write_down(job, &record, &version, &modules, facts).await?;
        if record.origin.is_some() {
            facts.commit(job).await.map_err(|error| error.error)?;
        }
        Ok(())
    };
    if let Err(error) = written.await {
        // Its requester is told that there is no such job.
        let _ = job.directory.remove().await;
        return Err(error);
    }
    let origin = record.origin.as_ref();
    let lineage = origin.map(|origin| origin.lineage.clone()).unwrap_or_default();
    Ok((record, built.ready(lineage, vec![], BTreeSet::new())))
}

/// Refuses an output that can never be written, rather than have it tried again and again.
async fn check_outputs(job: &Job) -> Result<(), JobError> {
    for (uid, committer) in &job.committers {
        let committer = committer.clone();
        let checked = run_blocking(&*job.host.environment, move || committer.check()).await;
        let checked = checked.map_err(|error| JobError::failed(error.to_string()))?;
        checked.map_err(|error| JobError {
            path: error.path().map(str::to_owned),
            ..JobError::failed(format!("sink \"{uid}\": {error}")).on(uid)
        })?;
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
) -> Result<(), JobError> {
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
        facts.record(job).await
    };
    written.await.map_err(|error: RecordError| JobError {
        path: Some(error.path().to_owned()),
        ..JobError::failed(format!("the checkpoint directory cannot be used: {error}"))
    })
}
