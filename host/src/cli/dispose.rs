//! `savepoint -d`: removes a savepoint, unless a running job still needs it.

use std::path::Path;

use regraft_model::error_kind::ErrorKind;
use serde_json::json;

use super::args::HostArgs;
use super::failure::Failure;
use super::job::client;
use super::output::Output;
use super::state::open;
use crate::api::client::{Client, FoundJob};
use crate::api::types::SnapshotList;
use crate::jobs::handle::JobError;
use crate::savepoint::load::Savepoint;

/// `regraft savepoint -d PATH`.
///
/// # Errors
/// [`Failure`] where there is no savepoint, it belongs to the host, or a job needs it.
pub async fn dispose(path: &str, host: &HostArgs, force: bool, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let savepoint = open(path).await?;
    if !force {
        let (client, of) = (client(host, data_dir), savepoint.clone());
        let asked = tokio::task::spawn_blocking(move || {
            for job in client.jobs()?.into_iter().filter(|job| !job.summary.status.is_over()) {
                if needs(&client, &job, &of)? {
                    return Ok(Some(job.summary));
                }
            }
            Ok::<_, JobError>(None)
        });
        let asked = asked
            .await
            .map_err(|error| Failure::new(ErrorKind::Bug, error.to_string()))?;
        if let Some(job) = asked? {
            return Err(Failure {
                path: Some(savepoint.url()),
                ..Failure::new(
                    ErrorKind::Failed,
                    format!(
                        "job \"{}\" ({}) was started from {} and has no checkpoint of its own yet: should it fail now, it goes back to the savepoint. Wait for its first checkpoint, or remove the savepoint all the same with --force",
                        job.name,
                        job.job_id,
                        savepoint.url()
                    ),
                )
            });
        }
    }
    crate::savepoint::dispose::dispose(&savepoint)
        .await
        .map_err(|error| Failure {
            path: Some(savepoint.url()),
            ..Failure::new(ErrorKind::Failed, error.to_string())
        })?;
    let url = savepoint.url();
    output.result(&json!({ "path": url, "disposed": true }), || {
        format!("Savepoint '{url}' disposed.")
    });
    Ok(())
}

/// Returns true if the job would go back to this savepoint if it failed now: it started from it, and has no checkpoint
/// of its own.
pub(super) fn needs(client: &Client, job: &FoundJob, savepoint: &Savepoint) -> Result<bool, JobError> {
    let url = savepoint.url();
    let from = job.summary.restored_from.as_deref();
    let from = from.is_some_and(|from| from.trim_end_matches("/_metadata").trim_end_matches('/') == url);
    let own = |list: SnapshotList| list.snapshots.iter().any(|row| row.kind == "checkpoint");
    Ok(from && !own(client.snapshots(job)?))
}
