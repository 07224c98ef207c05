//! Pending output that dead runs have left in the directories of a job, and that nothing can commit any more.
//!
//! Only runs that are certain never to go on are looked at: those that are recorded as ended, and attached runs of this
//! machine whose process is gone. What a checkpoint or savepoint of such a run names stays, since a restore commits it.

use regraft_model::id::JobId;

use super::durable::clean_up::named;
use super::durable::error::AttemptError;
use super::durable::job::{Job, committer_at};
use super::durable::records::JobDirectory;
use crate::environment::run_blocking;
use crate::graph::job_graph::Node;

/// Removes what dead runs have pending in the directories that a job writes to. What cannot be removed is left, with a
/// warning.
pub(super) async fn clean_abandoned_output(job: &Job) {
    for node in &job.graph.nodes {
        let Some(connector) = node.output() else { continue };
        for run in connector.pending_jobs(&*job.host.environment.files()) {
            if run == job.job_id {
                continue;
            }
            if let Err(error) = clean(job, node, run).await {
                tracing::warn!(
                    "what job {run} has left pending of sink \"{}\" could not be removed: {error}",
                    node.uid
                );
            }
        }
    }
}

/// Removes what a run has pending at a node and no snapshot names, if it is dead.
async fn clean(job: &Job, node: &Node, run: JobId) -> Result<(), AttemptError> {
    let directory = JobDirectory::new(job.directory.root(), run)?;
    if !is_dead(job, &directory).await? {
        return Ok(());
    }
    let mut named = named(&directory, true).await?;
    let keep = named.remove(&node.uid).unwrap_or_default();
    let Some(committer) = committer_at(&job.host, &job.graph, node, run, false) else {
        return Ok(());
    };
    let cleaned = run_blocking(&*job.host.environment, move || {
        let cleaned = committer.clean_leftovers(&keep);
        committer.clean();
        cleaned
    });
    if let Ok(Err(error)) = cleaned.await {
        tracing::warn!(
            "what job {run} has left pending of sink \"{}\" could not be removed: {error}",
            node.uid
        );
    }
    Ok(())
}

/// Returns true if a run is certain never to go on. One that has no records in this job's checkpoint directory is not.
async fn is_dead(job: &Job, directory: &JobDirectory) -> Result<bool, AttemptError> {
    if directory.end().await?.is_some() {
        return Ok(true);
    }
    let record = directory.job().await?;
    let process = record.and_then(|record| record.process);
    Ok(process.is_some_and(|process| job.host.environment.is_gone(&process)))
}
