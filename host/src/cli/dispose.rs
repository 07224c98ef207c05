//! `savepoint -d`: removes a savepoint, unless a job still needs it, also one that waits for its host.

use std::path::Path;

use regraft_model::error_kind::ErrorKind;
use serde_json::json;

use super::args::HostArgs;
use super::failure::Failure;
use super::output::Output;
use super::savepoint::{Needing, Why, needed_by, open};
use crate::savepoint::load::Savepoint;

/// `regraft savepoint -d PATH`.
///
/// # Errors
/// [`Failure`] where there is no savepoint, it belongs to the host, or a job needs it.
pub async fn dispose(path: &str, host: &HostArgs, force: bool, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let savepoint = open(path).await?;
    if !force {
        let (needing, unknown) = needed_by(&savepoint, host, data_dir).await;
        // A checkpoint is refused below, with all that there is to say of it.
        if let Some(job) = needing.iter().find(|job| job.why != Why::Own) {
            return Err(needed(job, &savepoint, data_dir));
        }
        if let Some(error) = unknown {
            return Err(error);
        }
    }
    let disposed = crate::savepoint::dispose::dispose(&savepoint).await;
    let kept = disposed.map_err(|error| Failure {
        path: Some(savepoint.url()),
        ..Failure::new(ErrorKind::Failed, error.to_string())
    })?;
    let url = savepoint.url();
    let mut json = json!({ "path": url, "disposed": true });
    if !kept.is_empty() {
        json["kept"] = json!(kept);
    }
    output.result(&json, || {
        let mut text = format!("Savepoint '{url}' disposed.");
        if let Some(first) = kept.first() {
            let more = match kept.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            text += &format!(" Files that are not its own were kept: {first}{more}.");
        }
        text
    });
    Ok(())
}

/// Says why a savepoint is not removed.
fn needed(job: &Needing, savepoint: &Savepoint, data_dir: &Path) -> Failure {
    let url = savepoint.url();
    let Needing { job_id, name, .. } = job;
    let waits = format!("job \"{name}\" ({job_id}) waits in {} for its host", data_dir.display());
    let message = match (job.why, job.waits) {
        (Why::End, _) => format!(
            "{waits}, and ends with {url}, whose output it has not committed yet. Run `regraft serve`, which does that, or remove the savepoint anyway with --force"
        ),
        (_, true) => format!(
            "{waits}, was started from {url} and has no checkpoint of its own yet: it is restored from the savepoint when it is brought back. Run `regraft serve` and wait for its first checkpoint, or remove the savepoint anyway with --force"
        ),
        (_, false) => format!(
            "job \"{name}\" ({job_id}) was started from {url} and has no checkpoint of its own yet: if it fails now, it is restored from the savepoint again. Wait for its first checkpoint, or remove the savepoint anyway with --force"
        ),
    };
    Failure {
        path: Some(url),
        ..Failure::new(ErrorKind::Failed, message)
    }
}
