//! The end of a job of which nothing runs any more: its end is recorded, pending output that no snapshot names is removed,
//! checkpoints are kept or removed.
//!
//! In this order: a host that is killed in between brings back either a job that has all it needs, or none.

use std::sync::Arc;

use regraft_model::id::AttemptId;

use super::error::AttemptError;
use super::job::Job;
use super::records::{AttemptRecord, EndRecord, JobDirectory, RecordError};
use super::round::remove_incomplete;
use crate::dataflow::control::locked;
use crate::environment::run_blocking;
use crate::graph::job_graph::OnCancel;
use crate::jobs::observe::JobShared;
use crate::jobs::status::JobStatus;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::MetadataError;
use crate::savepoint::permit::Handles;

/// Records the end of a job of which nothing runs any more, and cleans up.
pub(in crate::jobs) async fn leave(job: &Arc<Job>, shared: &JobShared, status: JobStatus) {
    let record = {
        let state = locked(&shared.state);
        EndRecord {
            status,
            ended_at: job.host.environment.clock().now_ms(),
            savepoint: state.final_savepoint.clone(),
            failure: state.failure.clone(),
            failure_kind: state.failure_kind,
            keeps: false,
        }
    };
    let record = &record;
    let lost = || {
        locked(&shared.state).lost = true;
        tracing::error!(
            "another host runs job {} now, or its records have been removed: this one does not touch what it has written",
            job.job_id
        );
    };
    if matches!(job.is_still_ours().await, Ok(false)) {
        return lost();
    }
    let written = match close(job, record).await {
        Err(RecordError::Taken { .. }) => return lost(),
        Ok(()) => job.directory.write_end(record).await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        tracing::warn!("that job {} has ended could not be written down: {error}", job.job_id);
        if job.host.recovers {
            // It would be brought back, so all of it must stay.
            return;
        }
    }
    clean_up(job, record).await;
}

/// Ends the sequence of a job's attempts, so that no other host begins one: between the check that the job is still this
/// host's and the record of its end, another host may have.
///
/// # Errors
/// [`RecordError::Taken`] where one has.
async fn close(job: &Job, record: &EndRecord) -> Result<(), RecordError> {
    let own = locked(&job.nonces).clone();
    // It may be forgotten between the list and its reading, when another host has begun one.
    let newest = job.directory.newest_attempt().await?;
    let Some(newest) = newest.filter(|newest| own.contains(&newest.nonce)) else {
        let path = job.directory.storage().url();
        return Err(RecordError::Taken { path });
    };
    end_after(job, newest, record).await
}

/// Creates the last record of a job's attempts, after this one.
///
/// # Errors
/// [`RecordError::Taken`] where another host has created one meanwhile.
pub(in crate::jobs) async fn end_after(
    job: &Job,
    newest: AttemptRecord,
    record: &EndRecord,
) -> Result<(), RecordError> {
    let last = AttemptRecord {
        attempt: AttemptId(newest.attempt.0 + 1),
        started_at: record.ended_at,
        nonce: format!("{:032x}", job.host.environment.random()),
        ended: Some(record.clone()),
        starting: false,
        ..newest
    };
    locked(&job.nonces).insert(last.nonce.clone());
    job.directory.begin_attempt(&last).await
}

/// Cleans up after a job whose end is recorded. Doing it again, where a killed process had it under way,
/// changes nothing.
pub(in crate::jobs) async fn clean_up(job: &Job, record: &EndRecord) {
    // As in Flink: a failed job's checkpoints stay, those of a cancelled one as its settings say.
    let retained = record.status == JobStatus::Canceled && job.graph.checkpoint.on_cancel == OnCancel::Retain;
    let keep = record.status == JobStatus::Failed || retained || record.keeps;
    if record.status == JobStatus::Finished {
        finish_sinks(job).await;
    }
    for savepoint in job.directory.savepoints().await.unwrap_or_default() {
        if !savepoint.complete
            && record.savepoint.as_ref() != Some(&savepoint.path)
            && let Ok(storage) = job.host.stores.open(&savepoint.path)
            && let Err(error) = remove_incomplete(&savepoint, &storage).await
        {
            tracing::warn!("files of a savepoint that failed could not be removed: {error}");
        }
    }
    if keep {
        // Rounds that were given up go first: output that only they name must not stay pending.
        job.checkpoints.leave().await;
    }
    match named(&job.directory, keep).await {
        Ok(named) => drop_pending(job, &named).await,
        Err(error) => tracing::warn!("what snapshots name could not be read, so nothing pending is removed: {error}"),
    }
    let cleared = if keep {
        Ok(())
    } else if job.host.recovers {
        job.directory.clear().await
    } else {
        job.directory.remove().await
    };
    if let Err(error) = cleared {
        tracing::warn!("checkpoints of job {} could not be removed: {error}", job.job_id);
    }
}

/// Tells the sinks that all output of the job is committed.
pub(in crate::jobs) async fn finish_sinks(job: &Job) {
    for (uid, committer) in &job.committers {
        let committer = committer.clone();
        let finished = run_blocking(&*job.host.environment, move || committer.finished()).await;
        if let Ok(Err(error)) = finished {
            tracing::warn!("output of earlier runs at sink \"{uid}\" could not be removed: {error}");
        }
    }
}

/// Returns the pending output that snapshots name: savepoints, and checkpoints where they stay. It looks at those on disk, not
/// at those that the loop knows of: one may be complete whose store did not say so.
pub(in crate::jobs) async fn named(directory: &JobDirectory, checkpoints_stay: bool) -> Result<Handles, AttemptError> {
    let mut named = Handles::new();
    let mut add = |more: Handles| {
        for (uid, handles) in more {
            named.entry(uid).or_default().extend(handles);
        }
    };
    for savepoint in directory
        .savepoints()
        .await?
        .into_iter()
        .filter(|savepoint| !savepoint.dropped)
    {
        add(savepoint.handles);
    }
    if checkpoints_stay {
        for id in directory.checkpoints().await? {
            match Savepoint::load(directory.checkpoint(id)?).await {
                Ok(checkpoint) => add(checkpoint.permit().handles().clone()),
                Err(MetadataError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(named)
}

/// Removes pending output that no snapshot names.
async fn drop_pending(job: &Job, named: &Handles) {
    for (uid, committer) in &job.committers {
        let (committer, keep) = (committer.clone(), named.get(uid).cloned().unwrap_or_default());
        let cleaned = run_blocking(&*job.host.environment, move || {
            let cleaned = committer.clean_leftovers(&keep);
            committer.clean();
            cleaned
        });
        if let Ok(Err(error)) = cleaned.await {
            tracing::warn!("what sink \"{uid}\" has pending could not be removed: {error}");
        }
    }
}
