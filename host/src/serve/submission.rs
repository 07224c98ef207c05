//! A job to start: its file, the settings from outside it, and the components that it runs.
//!
//! It is enough to start the job where neither the file nor the crates are. All paths in it are absolute.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regraft_model::id::OperatorUid;

use crate::connectors::BUILT_IN;
use crate::graph::job_graph::JobGraph;
use crate::graph::{JobFileError, Overrides, parse_job};
use crate::jobs::start::RestoreFrom;

/// A job to start.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Name of the job file in messages.
    pub file: String,
    /// Text of the job file.
    pub text: String,
    /// Directory that relative paths in the file are relative to.
    pub base_dir: PathBuf,
    /// Settings from outside the file, and the arguments of the job.
    pub overrides: Overrides,
    /// SHA-256 of each operator's component.
    pub modules: BTreeMap<OperatorUid, String>,
    /// Savepoint that it starts from.
    pub restore: Option<RestoreFrom>,
    /// Directory of `--savepoint-at-end`.
    pub savepoint_at_end: Option<String>,
    /// Collisions with other jobs that are allowed.
    pub allow: Allow,
}

/// Collisions with other jobs that are allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allow {
    /// `--allow-same-name`.
    pub same_name: bool,
    /// `--allow-shared-output`.
    pub shared_output: bool,
}

impl Submission {
    /// Parses the job file, with the result that its submitter would have got.
    ///
    /// # Errors
    /// [`JobFileError`] with every problem of the job file.
    pub fn graph(&self) -> Result<JobGraph, JobFileError> {
        let parsed = parse_job(&self.text, &self.file, &self.base_dir, &self.overrides, BUILT_IN);
        parsed.map(|(graph, _)| graph)
    }
}
