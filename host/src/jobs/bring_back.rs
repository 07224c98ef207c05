//! Brings back a job that another process ran, from its records: the same JobID, the next attempt.

use std::sync::Arc;

use regraft_model::id::{AttemptId, CheckpointId, JobId};

use super::admission::{self, descriptions};
use super::attempt::prepare::{Prepared, Wish, modules_of, prepare};
use super::durable::clean_up::{clean_up, end_after, finish_sinks};
use super::durable::error::AttemptError;
use super::durable::job::{HostContext, Job, LoadModule};
use super::durable::point::{Durable, Over};
use super::durable::records::{EndRecord, RecordError};
use super::handle::JobHandle;
use super::start::{assemble, launch};
use super::status::JobStatus;
use crate::graph::job_graph::JobGraph;

/// A job to bring back.
pub struct RecoverJob {
    /// Its id.
    pub job_id: JobId,
    /// Its graph, as it was started with.
    pub graph: JobGraph,
    /// Loads its modules.
    pub loader: Arc<dyn LoadModule>,
    /// `--savepoint-at-end`, as it was started with.
    pub savepoint_at_end: Option<String>,
}

/// Result of bringing a job back.
pub enum Recovered {
    /// It runs again.
    Running(JobHandle),
    /// It had ended: it does not run again.
    Ended(EndRecord),
    /// It had never begun: nothing is there, or only the rest of a start that was killed. Start it.
    NeverBegun,
}

/// Brings a job back: the newest version of it, from its newest checkpoint, or from where it started.
///
/// A recovery that fails loses nothing of the job. [`AttemptError::may_pass`] is true if another try may succeed.
///
/// # Errors
/// [`AttemptError`]; nothing runs then.
pub async fn recover(host: &HostContext, recover: RecoverJob) -> Result<Recovered, AttemptError> {
    let RecoverJob {
        job_id,
        graph,
        loader,
        savepoint_at_end,
    } = recover;
    let (mut job, events) = assemble(host, job_id, graph)?;
    job.hold_at_end = savepoint_at_end.is_some();
    job.loader = Some(loader);
    let job = Arc::new(job);
    job.take_lock().await?;
    if let Some(ended) = job.directory.end().await? {
        // It may have been killed before all was removed.
        if !job.directory.is_clear().await? {
            clean_up(&job, &ended).await;
        }
        return Ok(Recovered::Ended(ended));
    }
    let newest = job.directory.newest_attempt().await?;
    if let Some(ended) = newest.and_then(|newest| newest.ended) {
        // It was killed before it had written the rest.
        job.directory.write_end(&ended).await?;
        clean_up(&job, &ended).await;
        return Ok(Recovered::Ended(ended));
    }
    if job.directory.takeover().await?.is_none() {
        return Ok(Recovered::NeverBegun);
    }
    let durable = Durable::read(&job).await?;
    let modules = modules_of(&job, &durable.version, &[]).await?;
    admission::check(&job.graph, &descriptions(&modules))?;
    let wish = Wish {
        regions: job.plan.region_indices().collect(),
        known: modules.into_values().collect(),
        after: AttemptId(0),
        last_id: CheckpointId(0),
        committed: None,
    };
    match prepare(&job, &wish).await? {
        Prepared::Ready(ready) => {
            tracing::info!(
                "Job {} ({job_id}) is brought back from {}, attempt {}.",
                job.graph.name,
                ready.from,
                ready.attempt
            );
            Ok(Recovered::Running(launch(
                job,
                events,
                &durable.job,
                *ready,
                savepoint_at_end,
            )))
        }
        Prepared::Over(over) => Ok(Recovered::Ended(end(&job, &over).await?)),
    }
}

/// Ends a job that does not run and is not to be brought back: it is CANCELED. Its checkpoints stay, since nothing else has its
/// state.
///
/// # Errors
/// [`AttemptError`]; it can be tried again.
pub async fn give_up(host: &HostContext, job_id: JobId, graph: JobGraph) -> Result<(), AttemptError> {
    let (job, _) = assemble(host, job_id, graph)?;
    job.take_lock().await?;
    let record = EndRecord {
        status: JobStatus::Canceled,
        ended_at: host.environment.clock().now_ms(),
        savepoint: None,
        failure: None,
        failure_kind: None,
        keeps: true,
    };
    // Every end is an attempt: another host that is about to bring the job back finds it, or gets the number.
    if let Some(newest) = job.directory.newest_attempt().await?
        && newest.ended.is_none()
    {
        end_after(&job, newest, &record).await?;
    }
    job.directory.write_end(&record).await?;
    clean_up(&job, &record).await;
    Ok(())
}

/// Removes what a job has left whose end is in the host's list of jobs. The checkpoints of one that failed, or was cancelled
/// and retains them, stay.
///
/// # Errors
/// [`AttemptError`]; it can be tried again.
pub async fn forget(host: &HostContext, job_id: JobId, graph: JobGraph) -> Result<(), AttemptError> {
    let (job, _) = assemble(host, job_id, graph)?;
    match job.directory.end().await? {
        Some(ended) if ended.status != JobStatus::Failed && !retains(&job.graph, &ended) => {
            Ok(job.directory.remove().await?)
        }
        _ => Ok(()),
    }
}

fn retains(graph: &JobGraph, ended: &EndRecord) -> bool {
    ended.keeps
        || ended.status == JobStatus::Canceled
            && graph.checkpoint.on_cancel == crate::graph::job_graph::OnCancel::Retain
}

/// Records the end of a job that had come to it, and cleans up.
async fn end(job: &Job, over: &Over) -> Result<EndRecord, RecordError> {
    let record = EndRecord {
        status: JobStatus::Finished,
        ended_at: job.host.environment.clock().now_ms(),
        savepoint: over.savepoint.clone(),
        failure: None,
        failure_kind: None,
        keeps: false,
    };
    job.directory.write_end(&record).await?;
    finish_sinks(job).await;
    for committer in job.committers.values() {
        let committer = committer.clone();
        let _ = crate::environment::run_blocking(&*job.host.environment, move || committer.clean()).await;
    }
    job.directory.clear().await?;
    Ok(record)
}
