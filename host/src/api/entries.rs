//! The jobs that a host knows, whatever stage they are in: being started, running, over, or waiting for the next host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft_model::id::JobId;

use crate::graph::job_graph::{JobGraph, NodeKind};
use crate::jobs::catalog::{CatalogRecord, KnownSavepoint};
use crate::jobs::handle::{JobError, JobHandle, JobView};
use crate::jobs::status::JobStatus;
use crate::jobs::submission::Allow;

/// A job of a host.
#[derive(Clone)]
pub struct Entry {
    /// Its id.
    pub job_id: JobId,
    /// How far it is.
    pub stage: Stage,
    /// Its savepoints, as far as they were taken through a host.
    pub savepoints: Vec<KnownSavepoint>,
    /// Its graph; none where its job file does not read any more.
    pub graph: Option<Arc<JobGraph>>,
}

/// How far a job is.
#[derive(Clone)]
pub enum Stage {
    /// It is being started, or brought back.
    Starting(Arc<JobView>),
    /// It runs, or has just ended.
    Live(JobHandle),
    /// It could not be brought back: it waits for this host to try again, where that may help, or else for the next one.
    Held(Arc<JobView>),
    /// It has ended.
    Over(Arc<JobView>),
}

impl Entry {
    /// The job as it is now.
    #[must_use]
    pub fn view(&self) -> JobView {
        match &self.stage {
            Stage::Live(job) => job.shared.view(),
            Stage::Starting(view) | Stage::Held(view) | Stage::Over(view) => JobView::clone(view),
        }
    }

    /// What talks to it.
    ///
    /// # Errors
    /// [`JobError`] where nothing of it runs in this host.
    pub fn handle(&self) -> Result<&JobHandle, JobError> {
        match &self.stage {
            Stage::Live(job) => Ok(job),
            Stage::Starting(view) | Stage::Over(view) => Err(JobError::failed(format!(
                "job {} is {}, not RUNNING",
                self.job_id, view.status
            ))),
            Stage::Held(view) => Err(JobError::failed(format!(
                "job {} is {}, not RUNNING: it could not be brought back: {}. {} tries again; `regraft cancel {}` gives it up",
                self.job_id,
                view.status,
                view.failure.as_deref().unwrap_or("no reason is known"),
                if view.status == JobStatus::Restarting {
                    "This host"
                } else {
                    "The next `regraft serve`"
                },
                self.job_id
            ))),
        }
    }
}

/// A job that does not run, as it is shown. `graph` is none where the job file does not read.
#[must_use]
pub fn outline(record: &CatalogRecord, graph: Option<&JobGraph>, status: JobStatus, failure: Option<&str>) -> JobView {
    JobView {
        status,
        restored_from: record.submission.restore.as_ref().map(|from| from.location.clone()),
        failure: failure.map(str::to_owned),
        ..JobView::bare(record.job_id, &record.name, record.created_at, graph)
    }
}

/// Whether a job collides with one that runs or will: the same name, or the same output directory.
///
/// # Errors
/// [`JobError`] names both, and the flag that allows it.
pub fn refuse_collision(graph: &JobGraph, other: &JobView, allow: Allow) -> Result<(), JobError> {
    let (id, name) = (other.job_id, &other.name);
    if *name == graph.name && !allow.same_name {
        return Err(JobError::failed(format!(
            "a job named \"{name}\" is running already ({id}); stop it, give this one another name with --name, or allow it with --allow-same-name"
        )));
    }
    let theirs: Vec<PathBuf> = other
        .operators
        .iter()
        .filter_map(|node| node.target.clone())
        .map(PathBuf::from)
        .collect();
    for node in &graph.nodes {
        let Some(path) = node.output_dir() else { continue };
        if theirs.iter().any(|their| same_dir(their, path)) && !allow.shared_output {
            let uid = &node.uid;
            let (who, setting) = match node.kind {
                NodeKind::Operator(_) => (format!("operator \"{uid}\" writes dead letters"), "dead-letter.path"),
                NodeKind::Source(_) | NodeKind::Sink(_) => (format!("sink \"{uid}\" writes"), "path"),
            };
            let message = format!(
                "{who} to {}, where job \"{name}\" ({id}) writes already; write elsewhere (--set {uid}.{setting}=…), or allow it with --allow-shared-output",
                path.display()
            );
            return Err(JobError {
                path: Some(path.display().to_string()),
                ..JobError::failed(message).on(&node.uid)
            });
        }
    }
    Ok(())
}

fn same_dir(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        path.canonicalize()
            .or_else(|_| std::path::absolute(path))
            .unwrap_or_else(|_| path.to_owned())
    };
    real(a) == real(b)
}
