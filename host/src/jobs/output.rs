//! Output that a job finds in its sinks' directories before it starts (`docs/design/0006-restore-and-output.md`).
//!
//! From a savepoint: output of a later state, which it would write again, and output that the savepoint has pending and that
//! this job does not commit. From the beginning: output of its earlier runs.

use regraft_model::id::{JobId, OperatorUid};

use super::deploy::DeployError;
use super::durable::error::{AttemptError, Parts};
use super::durable::job::Job;
use super::durable::records::JobDirectory;
use super::sinks::{later_output, later_parts};
use crate::connector::sink::{Existing, OutputOf};
use crate::environment::files::FileSystem;
use crate::environment::run_blocking;
use crate::graph::job_graph::JobGraph;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::Metadata;
use crate::savepoint::restore::RestorePlan;
use crate::storage::paths;

/// Refuses output of a later state than a savepoint's: of the run that took it, or of one that went on from it.
///
/// # Errors
/// [`AttemptError`] names the first part, and what allows it.
pub async fn refuse_later_output(job: &Job, savepoint: &Savepoint) -> Result<(), AttemptError> {
    let files = job.host.environment.files();
    refuse_output_of_writer(&*files, &job.graph, savepoint)?;
    refuse_output_of_heirs(&*files, job, savepoint).await
}

/// Logs the output of a savepoint that is not committed: that of sinks which are gone or write elsewhere, and of dead letters
/// which go elsewhere.
pub fn tell_left_output(plan: &RestorePlan, metadata: &Metadata, retargeted: &[OperatorUid]) {
    for entry in &metadata.operators {
        let parts = entry.pending_parts();
        let restored = plan.operators.iter().find(|operator| operator.uid == entry.uid);
        if parts == 0 || restored.is_some_and(|operator| operator.sink.is_some()) {
            continue;
        }
        let message = format!(
            "{parts} part(s) of output that the savepoint has pending for \"{}\" are left to the run that wrote them: this job does not write there.",
            entry.uid
        );
        if retargeted.contains(&entry.uid) {
            tracing::info!("{message}");
        } else {
            tracing::warn!("{message}");
        }
    }
}

/// Handles output of earlier runs of a job that starts from the beginning, as `existing` of each sink says.
///
/// # Errors
/// [`AttemptError`] if a sink refuses it, or it cannot be listed.
pub async fn handle_earlier_output(job: &Job) -> Result<(), AttemptError> {
    for node in &job.graph.nodes {
        let (Some(connector), Some(committer)) = (node.output(), job.committers.get(&node.uid)) else {
            continue;
        };
        let Some(dir) = connector.directory() else { continue };
        let committer = committer.clone();
        let found = run_blocking(&*job.host.environment, move || committer.earlier_output()).await?;
        let (uid, shown) = (&node.uid, dir.display());
        let found = found.map_err(|error| DeployError::Sink {
            uid: uid.clone(),
            error,
        })?;
        let count = found.parts.len() + found.unlisted.len();
        if count == 0 {
            continue;
        }
        match connector.existing() {
            Existing::Refuse => {
                return Err(AttemptError::EarlierOutput(Parts {
                    uid: uid.clone(),
                    dir: dir.to_owned(),
                    names: [found.parts, found.unlisted].concat(),
                }));
            }
            Existing::Keep => {
                let go_on = match newest_checkpoint(job, &found.runs).await {
                    Some(checkpoint) => format!(" To go on from where the last one was: run -s {checkpoint}"),
                    None => String::new(),
                };
                tracing::warn!(
                    "sink \"{uid}\": {shown} holds {count} part(s) of earlier runs of this job, which stay there beside those of this one (existing = \"keep\"). With \"replace\" the first commit removes them, with \"refuse\" the job does not start.{go_on}"
                );
            }
            Existing::Replace => {
                if !found.unlisted.is_empty() {
                    tracing::warn!(
                        "sink \"{uid}\": {} part(s) in {shown} stay there: it is not recorded that this job wrote them.",
                        found.unlisted.len()
                    );
                }
                tracing::info!(
                    "sink \"{uid}\": the first commit replaces {} part(s) of earlier runs of this job in {shown}.",
                    found.parts.len()
                );
            }
        }
    }
    Ok(())
}

/// Returns the newest complete checkpoint of the newest of these runs that has one, as a URL.
async fn newest_checkpoint(job: &Job, runs: &[JobId]) -> Option<String> {
    for run in runs.iter().rev() {
        let directory = JobDirectory::new(job.directory.root(), *run).ok()?;
        if let Some(checkpoint) = complete_checkpoint(&directory).await {
            return Some(checkpoint);
        }
    }
    None
}

async fn complete_checkpoint(directory: &JobDirectory) -> Option<String> {
    for id in directory.checkpoints().await.unwrap_or_default() {
        if let Ok(checkpoint) = directory.checkpoint(id)
            && checkpoint.exists(paths::METADATA).await.unwrap_or(false)
        {
            return Some(checkpoint.url());
        }
    }
    None
}

/// Refuses output that the savepoint's run wrote after it.
fn refuse_output_of_writer(
    files: &dyn FileSystem,
    graph: &JobGraph,
    savepoint: &Savepoint,
) -> Result<(), AttemptError> {
    let metadata = &savepoint.metadata;
    for node in &graph.nodes {
        let Some(dir) = node.output_dir() else { continue };
        let parts = later_parts(files, node, metadata.job_id, metadata.checkpoint_id)
            .map_err(AttemptError::of_sink(&node.uid))?;
        if !parts.is_empty() {
            return Err(AttemptError::LaterOutput {
                parts: Parts {
                    uid: node.uid.clone(),
                    dir: dir.to_owned(),
                    names: parts,
                },
                id: metadata.checkpoint_id,
            });
        }
    }
    Ok(())
}

/// A job that went on from the same savepoint before, and whose directory is still there: it was killed, for instance.
struct Heir {
    job_id: JobId,
    name: String,
    /// Its newest complete checkpoint, as a URL.
    checkpoint: Option<String>,
}

/// Returns the jobs that are known to have gone on from a savepoint. Those whose directory is gone are not.
async fn heirs(job: &Job, savepoint: &str) -> Vec<Heir> {
    let root = job.directory.root();
    let (directories, _) = root.list_names().await.unwrap_or_default();
    let mut heirs = vec![];
    for job_id in directories.iter().filter_map(|name| name.parse::<JobId>().ok()) {
        let Ok(directory) = JobDirectory::new(root, job_id) else {
            continue;
        };
        let Ok(Some(record)) = directory.job().await else {
            continue;
        };
        let lineage = record.origin.map(|origin| origin.lineage).unwrap_or_default();
        if !lineage.iter().any(|ancestor| ancestor.savepoint == savepoint) {
            continue;
        }
        heirs.push(Heir {
            job_id,
            name: record.name,
            checkpoint: complete_checkpoint(&directory).await,
        });
    }
    heirs
}

/// Refuses output of jobs that went on from the same savepoint before. Warns of output that is only likely to be theirs.
async fn refuse_output_of_heirs(files: &dyn FileSystem, job: &Job, savepoint: &Savepoint) -> Result<(), AttemptError> {
    let metadata = &savepoint.metadata;
    let heirs = heirs(job, &savepoint.url()).await;
    for node in &job.graph.nodes {
        let Some(dir) = node.output_dir() else { continue };
        let (uid, shown) = (&node.uid, dir.display());
        for heir in &heirs {
            let parts =
                later_parts(files, node, heir.job_id, metadata.checkpoint_id).map_err(AttemptError::of_sink(uid))?;
            if parts.is_empty() {
                continue;
            }
            return Err(AttemptError::HeirOutput {
                parts: Parts {
                    uid: uid.clone(),
                    dir: dir.to_owned(),
                    names: parts,
                },
                name: heir.name.clone(),
                job: heir.job_id,
                checkpoint: heir.checkpoint.clone(),
            });
        }
        let parts = later_output(files, node, OutputOf::AllBut(metadata.job_id), metadata.checkpoint_id)
            .map_err(AttemptError::of_sink(uid))?;
        if let Some(first) = parts.first() {
            tracing::warn!(
                "sink \"{uid}\": {shown} holds {} part(s) of other jobs, {first} the first of them, of later checkpoints than the savepoint's. If those jobs went on from it, their records will be there twice: then stop this one, and write elsewhere (--set {uid}.path=…).",
                parts.len()
            );
        }
    }
    Ok(())
}
