//! `savepoint -d`: removes a savepoint, unless a running job still needs it.

use std::path::Path;

use regraft_model::error_kind::ErrorKind;
use serde_json::json;

use super::args::HostArgs;
use super::failure::Failure;
use super::job::client;
use super::output::Output;
use super::savepoint::{is_needed_by, open};
use crate::jobs::handle::JobError;

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
                if is_needed_by(&client, &job, &of)? {
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
                        "job \"{}\" ({}) was started from {} and has no checkpoint of its own yet: if it fails now, it is restored from the savepoint again. Wait for its first checkpoint, or remove the savepoint anyway with --force",
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
