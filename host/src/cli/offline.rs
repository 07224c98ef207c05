//! Jobs that no process runs, for the verbs that show jobs: on the disk of this machine rather than at a host.

use std::collections::BTreeSet;
use std::path::Path;

use regraft_model::error_kind::ErrorKind;

use super::args::HostArgs;
use super::failure::Failure;
use super::job::{Asked, client};
use crate::api::client::{Client, ClientError, FoundJob};
use crate::jobs::observe::ObservedJob;
use crate::jobs::status::JobStatus;
use crate::serve::error::HostError;
use crate::serve::offline::{OfflineJob, jobs, jobs_of_host};

/// A job that was asked for.
pub(super) enum Found {
    /// At a host.
    AtHost(Box<Asked>),
    /// On disk only.
    OnDisk(Box<OfflineJob>),
}

/// Runs what reads the disk.
///
/// # Errors
/// [`Failure`] where no runtime can be started, or that of the future.
pub(super) fn block_on<T, E>(reading: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(ErrorKind::Failed, format!("cannot start the runtime: {error}")))?;
    Ok(runtime.block_on(reading)?)
}

/// Returns the jobs of the data directory that no process runs. `live` are those of the hosts that were asked.
pub(super) fn on_disk(client: &Client, live: &[FoundJob], data_dir: &Path) -> Result<Vec<OfflineJob>, Failure> {
    let live: BTreeSet<_> = live.iter().map(|job| job.summary.job_id).collect();
    let is_served = client.serving().is_ok();
    block_on(async {
        let mut dead = vec![];
        for job in jobs(data_dir, &live, is_served).await? {
            if !job.may_run(data_dir).await {
                dead.push(job);
            }
        }
        Ok::<_, HostError>(dead)
    })
}

/// Returns those of the jobs of the data directory that wait for a host to be started. `live` are those of the hosts that were
/// asked.
pub(super) fn waiting(client: &Client, live: &[FoundJob], data_dir: &Path) -> Result<Vec<OfflineJob>, Failure> {
    if client.serving().is_ok() {
        return Ok(vec![]);
    }
    let live: BTreeSet<_> = live.iter().map(|job| job.summary.job_id).collect();
    let mut jobs = block_on(jobs_of_host(data_dir, &live))?;
    jobs.retain(|job| job.found.ended_at().is_none());
    Ok(jobs)
}

/// Returns the jobs on disk as they ended, or as they wait.
pub(super) fn observed(jobs: &[OfflineJob], data_dir: &Path) -> Result<Vec<ObservedJob>, Failure> {
    block_on(async {
        let mut observed = vec![];
        for job in jobs {
            observed.push(job.observe(data_dir).await?);
        }
        Ok::<_, HostError>(observed)
    })
}

/// Runs a verb that acts on a running job. If no host has the job, the failure says what is known of it on disk.
///
/// # Errors
/// [`Failure`] of the verb.
pub(super) fn acting<T>(
    (job, host): (&str, &HostArgs),
    data_dir: &Path,
    verb: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    verb().map_err(|failure| {
        if !failure.is_no_such_job {
            return failure;
        }
        match find_anywhere(job, host, data_dir) {
            Ok(Found::OnDisk(found)) => not_running(&found, data_dir).unwrap_or(failure),
            Ok(Found::AtHost(_)) | Err(_) => failure,
        }
    })
}

/// Says why nothing can be done with a job that no process runs, and what to do instead.
fn not_running(found: &OfflineJob, data_dir: &Path) -> Option<Failure> {
    let job = observed(std::slice::from_ref(found), data_dir).ok()?.pop()?;
    let (id, name, status) = (job.job_id, job.name, job.status);
    let message = if status == JobStatus::Suspended {
        format!(
            "job {name} ({id}) is {status}: no host runs it. `regraft serve` with the data directory {} brings it back; then repeat the command",
            data_dir.display()
        )
    } else {
        format!(
            "job {name} ({id}) is {status}, and no process runs it any more. `regraft info {id}` shows how it ended, and `regraft list --snapshots {id}` the checkpoints and savepoints that a job can be started from"
        )
    };
    Some(Failure::new(ErrorKind::Failed, message))
}

/// Finds a job at the hosts, or else on disk, unless the user names a host.
pub(super) fn find_anywhere(job: &str, host: &HostArgs, data_dir: &Path) -> Result<Found, Failure> {
    let client = client(host, data_dir);
    let missing = match client.find(job) {
        Ok(job) => return Ok(Found::AtHost(Box::new(Asked { client, job }))),
        Err(error @ (ClientError::NoSuchJob { .. } | ClientError::NoneAnswers { .. })) if host.named().is_none() => {
            Failure::from(error)
        }
        Err(error) => return Err(error.into()),
    };
    let job = job.strip_prefix(':').unwrap_or(job);
    // Hosts that do not answer are in the failure, which stands where the job is not on disk.
    let live = client.jobs().unwrap_or_default();
    let mut dead = on_disk(&client, &live, data_dir)?;
    let is_prefix = !job.is_empty() && job.bytes().all(|b| b.is_ascii_hexdigit());
    dead.retain(|dead| {
        let id = dead.job_id().to_string();
        dead.found.record.name == job || is_prefix && id.starts_with(job)
    });
    match dead.len() {
        0 => Err(missing),
        1 => dead.pop().map(|dead| Found::OnDisk(Box::new(dead))).ok_or(missing),
        _ => {
            let lines: Vec<String> = observed(&dead, data_dir)?
                .iter()
                .map(|job| format!("  {}  {}  {}", job.job_id, job.name, job.status))
                .collect();
            Err(Failure::usage(format!(
                "{job:?} names several jobs that have ended; give more of the id:\n{}",
                lines.join("\n")
            )))
        }
    }
}
