//! Parts: how output is named, pending and committed, and the handle that a snapshot keeps of it.
//!
//! A part is pending in `PATH/.pending/<JobID>/` and renamed on commit to
//! `PATH/part-<uid>-<subtask>-<first 6 of JobID>-<checkpoint>-<n>.<ext>`.

use std::path::Path;

use regraft_model::id::{CheckpointId, JobId, OperatorUid};
use serde::{Deserialize, Serialize};

use crate::connector::sink::{OutputOf, SinkContext, SinkError};
use crate::environment::files::FileSystem;

/// A prepared part: two paths relative to the sink's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) pending: String,
    #[serde(rename = "final")]
    pub(super) committed: String,
}

impl Part {
    /// Reads a handle.
    ///
    /// # Errors
    /// [`SinkError::Handle`].
    pub(super) fn parse(handle: &serde_json::Value) -> Result<Self, SinkError> {
        serde_json::from_value(handle.clone()).map_err(|_| SinkError::Handle {
            handle: handle.to_string(),
            connector: super::CONNECTOR.name,
        })
    }

    /// Returns it as a handle.
    pub(super) fn handle(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Returns the directory of a job's pending parts, relative to the sink's.
pub(super) fn pending_dir(job_id: JobId) -> String {
    format!(".pending/{job_id}")
}

/// Returns the path of the `n`-th pending part of an attempt, relative to the sink's directory.
pub(super) fn pending(of: &SinkContext, n: u64, extension: &str) -> String {
    let SinkContext {
        uid,
        subtask,
        attempt,
        version,
        ..
    } = of;
    let dir = pending_dir(of.job_id);
    format!("{dir}/{uid}-{subtask}-v{version}-a{attempt}-{n}.{extension}")
}

/// Returns the name that a part has once it is committed.
pub(super) fn committed(of: &SinkContext, id: CheckpointId, extension: &str) -> String {
    let (uid, subtask, job) = (&of.uid, of.subtask, of.job_id.short());
    format!("part-{uid}-{subtask}-{job}-{id}-0.{extension}")
}

/// Returns the uid in the name of a pending part, `<uid>-<subtask>-v<version>-a<attempt>-<n>.<ext>`.
pub(super) fn uid_of_pending(name: &str) -> Option<&str> {
    let (stem, _) = name.rsplit_once('.')?;
    let mut fields = stem.rsplitn(5, '-');
    let is = |field: Option<&str>, prefix: &str| {
        field
            .and_then(|field| field.strip_prefix(prefix))
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let plain = is(fields.next(), "") && is(fields.next(), "a") && is(fields.next(), "v") && is(fields.next(), "");
    fields.next().filter(|_| plain)
}

/// Returns the names of committed parts in a directory that are of later checkpoints, sorted.
pub(super) fn behind(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    of: OutputOf,
    checkpoint: CheckpointId,
) -> Vec<String> {
    let Ok(names) = files.list(path) else { return vec![] };
    let is_asked_for = |short: &str| match of {
        OutputOf::Job(job_id) => short == job_id.short(),
        OutputOf::AllBut(job_id) => short != job_id.short(),
    };
    let prefix = format!("part-{uid}-");
    let mut names: Vec<String> = names
        .into_iter()
        .filter(|name| {
            let Some(rest) = name.strip_prefix(&prefix) else {
                return false;
            };
            let fields: Vec<&str> = rest.split(['-', '.']).collect();
            matches!(fields[..], [_, short, id, ..]
                if is_asked_for(short) && id.parse::<u64>().is_ok_and(|id| id > checkpoint.0))
        })
        .collect();
    names.sort();
    names
}

/// Says what was being done when a request failed.
pub(super) fn io(doing: &'static str, path: &Path, error: std::io::Error) -> SinkError {
    SinkError::Io {
        doing,
        path: path.display().to_string(),
        error,
    }
}

/// Makes renames and new files in a directory durable.
pub(super) fn sync_dir(files: &dyn FileSystem, path: &Path) -> Result<(), SinkError> {
    files.sync_dir(path).map_err(|error| io("sync directory", path, error))
}
