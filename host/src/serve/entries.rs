//! The jobs that a host knows in any stage, and collisions between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft_model::id::JobId;

use super::catalog::{CatalogRecord, KnownSavepoint};
use super::error::HostError;
use super::submission::Allow;
use crate::connector::sink::Existing;
use crate::graph::job_graph::{JobGraph, Node, NodeKind};
use crate::jobs::handle::JobHandle;
use crate::jobs::observe::ObservedJob;
use crate::jobs::status::JobStatus;
use crate::savepoint::load::directory;
use crate::storage::Stores;

/// A job of a host.
#[derive(Clone)]
pub struct Entry {
    /// Id of the job.
    pub job_id: JobId,
    /// Its stage on this host.
    pub stage: Stage,
    /// Its savepoints, as far as they were taken through a host.
    pub savepoints: Vec<KnownSavepoint>,
    /// Its graph; `None` where its job file does not parse any more.
    pub graph: Option<Arc<JobGraph>>,
}

/// Stage of a job on its host.
#[derive(Clone)]
pub enum Stage {
    /// It is being started, or brought back.
    Starting(Arc<ObservedJob>),
    /// It runs, or has just ended.
    Live(JobHandle),
    /// It could not be brought back. It waits for this host to try again, where that may help, or else for the next host.
    Held(Arc<ObservedJob>),
    /// Another host has taken it over. Nothing of it is touched here.
    Lost(Arc<ObservedJob>),
    /// It has ended.
    Over(Arc<ObservedJob>),
}

impl Entry {
    /// Returns the job as it is now.
    #[must_use]
    pub fn observe(&self) -> ObservedJob {
        match &self.stage {
            Stage::Live(job) => job.shared.observe(),
            Stage::Starting(job) | Stage::Held(job) | Stage::Lost(job) | Stage::Over(job) => ObservedJob::clone(job),
        }
    }

    /// Returns the handle of a job that runs.
    ///
    /// # Errors
    /// [`HostError`] where it does not run in this host.
    pub fn handle(&self) -> Result<&JobHandle, HostError> {
        match &self.stage {
            Stage::Live(job) => Ok(job),
            Stage::Starting(job) | Stage::Over(job) => Err(HostError::NotRunning {
                job: self.job_id,
                status: job.status,
            }),
            Stage::Lost(job) => Err(HostError::Lost {
                job: self.job_id,
                failure: job.failure.clone(),
            }),
            Stage::Held(job) => Err(HostError::Held {
                job: self.job_id,
                status: job.status,
                failure: job.failure.clone(),
            }),
        }
    }
}

/// Describes a job that does not run. `graph` is `None` where its job file does not parse.
#[must_use]
pub fn outline(
    stores: &dyn Stores,
    record: &CatalogRecord,
    graph: Option<&JobGraph>,
    status: JobStatus,
    failure: Option<&str>,
) -> ObservedJob {
    // As a URL, as of a job that runs: `savepoint -d` compares it with the savepoint to remove.
    let url = |location: &str| directory(stores, location).map_or_else(|_| location.to_owned(), |dir| dir.url());
    ObservedJob {
        status,
        restored_from: record.submission.restore.as_ref().map(|from| url(&from.location)),
        failure: failure.map(str::to_owned),
        ..ObservedJob::bare(record.job_id, &record.name, record.created_at, graph)
    }
}

/// Name and output directories of a job, which another job must not share by accident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Id of the job.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Directories of its file sinks and dead letters.
    pub output_dirs: Vec<PathBuf>,
    /// True if it waits to be brought back.
    pub suspended: bool,
}

impl From<&ObservedJob> for Claims {
    fn from(job: &ObservedJob) -> Self {
        Self {
            job_id: job.job_id,
            name: job.name.clone(),
            output_dirs: job.nodes.iter().filter_map(|node| node.target.clone()).collect(),
            suspended: job.status == JobStatus::Suspended,
        }
    }
}

/// Refuses a job that has the name or an output directory of another one, which runs or will run.
///
/// # Errors
/// [`HostError`] names both jobs, and the flag that allows the collision.
pub fn refuse_collision(graph: &JobGraph, other: &Claims, allow: Allow) -> Result<(), HostError> {
    let (job, name, suspended) = (other.job_id, other.name.clone(), other.suspended);
    if name == graph.name && !allow.same_name {
        return Err(HostError::SameName { name, job, suspended });
    }
    for node in &graph.nodes {
        let Some(dir) = node.output_dir() else { continue };
        if other.output_dirs.iter().any(|other| same_dir(other, dir)) && !allow.shared_output {
            return Err(HostError::SharedOutput {
                uid: node.uid.clone(),
                dead_letters: matches!(node.kind, NodeKind::Operator(_)),
                dir: dir.to_owned(),
                name,
                job,
                suspended,
            });
        }
    }
    Ok(())
}

/// Refuses a job that would remove output of earlier runs from a directory that it shares with others.
///
/// # Errors
/// [`HostError`] names the sink, and what to leave out.
pub fn refuse_replacing_shared(graph: &JobGraph, allow: Allow, is_restored: bool) -> Result<(), HostError> {
    if !allow.shared_output || is_restored {
        return Ok(());
    }
    let replaces = |node: &&Node| {
        node.output()
            .is_some_and(|output| output.existing() == Existing::Replace)
    };
    match graph.nodes.iter().find(replaces) {
        Some(node) => Err(HostError::ReplacesShared(node.uid.clone())),
        None => Ok(()),
    }
}

fn same_dir(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        path.canonicalize()
            .or_else(|_| std::path::absolute(path))
            .unwrap_or_else(|_| path.to_owned())
    };
    real(a) == real(b)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Overrides;
    use crate::jobs::start::RestoreFrom;
    use crate::savepoint::restore::RestoreOptions;
    use crate::serve::submission::Submission;
    use crate::storage::LocalStores;

    #[test]
    fn a_job_that_does_not_run_names_its_savepoint_as_one_that_does() {
        let restored = |location: &str| {
            let record = CatalogRecord {
                job_id: JobId::from_bits(1),
                name: "words".to_owned(),
                created_at: 0,
                submission: Submission {
                    file: String::new(),
                    text: String::new(),
                    base_dir: PathBuf::new(),
                    overrides: Overrides::default(),
                    modules: BTreeMap::new(),
                    restore: Some(RestoreFrom {
                        location: location.to_owned(),
                        options: RestoreOptions::default(),
                        allow_later_output: false,
                    }),
                    savepoint_at_end: None,
                    allow: Allow::default(),
                },
            };
            let job = outline(&LocalStores::default(), &record, None, JobStatus::Suspended, None);
            job.restored_from.expect("a savepoint")
        };
        for location in [
            "/saved/sp-1",
            "/saved/sp-1/",
            "/saved/sp-1/_metadata",
            "file:///saved/sp-1/_metadata",
        ] {
            assert_eq!(restored(location), "file:///saved/sp-1");
        }
    }
}
