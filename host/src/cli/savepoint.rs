//! Savepoints as verbs are given them: opening one, and finding the jobs that would miss it.

use std::path::Path;

use regraft_model::id::JobId;

use super::args::HostArgs;
use super::failure::Failure;
use super::job::client;
use crate::api::client::{Client, ClientError, FoundJob};
use crate::api::types::{SnapshotList, SnapshotRowKind};
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::Owner;
use crate::serve::error::HostError;
use crate::serve::waiting::{is_same_place, waiting};
use crate::storage::LocalStores;

/// Opens a savepoint by its directory or its `_metadata` file.
///
/// # Errors
/// [`Failure`] where there is none, or it is damaged.
pub(super) async fn open(path: &str) -> Result<Savepoint, Failure> {
    let opened = Savepoint::open(&LocalStores::default(), path).await;
    opened.map_err(|error| Failure::of_savepoint(path, &error))
}

/// A job that needs a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Needing {
    /// The job.
    pub(super) job_id: JobId,
    /// Its name.
    pub(super) name: String,
    /// The reason.
    pub(super) why: Why,
    /// True if the job waits on disk, and no host of its data directory runs.
    pub(super) waits: bool,
}

/// Reason why a job needs a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It is a checkpoint of the job.
    Own,
    /// The job started from it, and has no checkpoint of its own.
    Origin,
    /// The job ends with it, and its output is not committed.
    End,
}

/// Finds the jobs that need a snapshot: those of running hosts, and those of this data directory that wait for a host.
///
/// Returns them with the reason why there may be more, if something cannot be read.
pub(super) async fn needed_by(
    savepoint: &Savepoint,
    host: &HostArgs,
    data_dir: &Path,
) -> (Vec<Needing>, Option<Failure>) {
    let mut needing = vec![];
    let (client, of) = (client(host, data_dir).strict(), savepoint.clone());
    let asked = tokio::task::spawn_blocking(move || running(&client, &of)).await;
    let (known, mut unknown) = match asked {
        Ok(Ok((found, known))) => {
            needing.extend(found);
            (known, None)
        }
        Ok(Err(error)) => (vec![], Some(error.into())),
        Err(panicked) => (vec![], Some(panicked.into())),
    };
    match on_disk(savepoint, data_dir).await {
        // What a host says of a job that it has is newer.
        Ok(found) => needing.extend(found.into_iter().filter(|job| !known.contains(&job.job_id))),
        Err(error) => unknown = unknown.or_else(|| Some(error.into())),
    }
    (needing, unknown)
}

/// Asks running hosts. Returns also all jobs that they know.
fn running(client: &Client, savepoint: &Savepoint) -> Result<(Vec<Needing>, Vec<JobId>), ClientError> {
    let jobs = client.jobs()?;
    let known = jobs.iter().map(|job| job.summary.job_id).collect();
    let mut needing = vec![];
    for job in jobs.iter().filter(|job| !job.summary.status.is_over()) {
        let why = if is_own(savepoint, job.summary.job_id) {
            Why::Own
        } else if is_origin(client, job, savepoint)? {
            Why::Origin
        } else {
            continue;
        };
        needing.push(Needing {
            job_id: job.summary.job_id,
            name: job.summary.name.clone(),
            why,
            waits: false,
        });
    }
    Ok((needing, known))
}

/// Looks at the jobs of this data directory that wait for a host.
async fn on_disk(savepoint: &Savepoint, data_dir: &Path) -> Result<Vec<Needing>, HostError> {
    let url = savepoint.url();
    let mut needing = vec![];
    for job in waiting(&LocalStores::default(), data_dir).await? {
        let need = job
            .needs
            .iter()
            .find(|need| is_same_place(&LocalStores::default(), &need.url, &url));
        let why = match need {
            _ if is_own(savepoint, job.job_id) => Why::Own,
            Some(need) if need.ends => Why::End,
            Some(_) => Why::Origin,
            None => continue,
        };
        needing.push(Needing {
            job_id: job.job_id,
            name: job.name,
            why,
            waits: true,
        });
    }
    Ok(needing)
}

fn is_own(savepoint: &Savepoint, job: JobId) -> bool {
    savepoint.metadata.owner == Owner::Host && savepoint.metadata.job_id == job
}

/// Returns true if a job would go back to this savepoint if it failed now: it started from it, and has no checkpoint of its
/// own.
fn is_origin(client: &Client, job: &FoundJob, savepoint: &Savepoint) -> Result<bool, ClientError> {
    let url = savepoint.url();
    let from = job.summary.restored_from.as_ref();
    let from = from.is_some_and(|from| is_same_place(&LocalStores::default(), from, &url));
    let own = |list: SnapshotList| list.snapshots.iter().any(|row| row.kind == SnapshotRowKind::Checkpoint);
    Ok(from && !own(client.snapshots(job)?))
}
