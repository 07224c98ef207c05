//! The list of committed parts of a sink, `PATH/.regraft/<uid>.json`: which run of which job wrote them.
//!
//! It is a sequence of JSON objects, one per line, so that a commit only appends to it.
//! A part is listed before it gets its name: what is not listed is not the job's, and is never removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use regraft_model::id::{JobId, OperatorUid};
use serde::{Deserialize, Serialize};

use super::part::{Small, io, read_small, sync_dir};
use crate::connector::sink::SinkError;
use crate::environment::files::{FileKind, FileSystem};

/// Directory of the lists, in the sink's directory.
const DIR: &str = ".regraft";

/// The most bytes of a list: those of a million parts, about.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// Names of parts, with the length of each; `None` for a part of version 0.1, whose handle has none.
pub(super) type Parts = BTreeMap<String, Option<u64>>;

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Name of the job.
    pub(super) job: String,
    /// The run.
    pub(super) job_id: JobId,
    /// Parts that the run has committed, or was about to commit.
    #[serde(default, skip_serializing_if = "Parts::is_empty")]
    pub(super) parts: Parts,
    /// Directories in which they were pending, each that of the attempt that wrote them. Earlier versions did not list them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) of: BTreeSet<String>,
    /// Parts of earlier runs that this run removes after its first commit, as they were at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<Parts>,
}

/// The list of one sink.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing<'a> {
    /// The files of this machine.
    pub(super) files: &'a dyn FileSystem,
    /// The sink's directory.
    pub(super) path: &'a Path,
    /// The sink.
    pub(super) uid: &'a OperatorUid,
}

impl Listing<'_> {
    fn dir(&self) -> PathBuf {
        self.path.join(DIR)
    }

    fn file(&self) -> PathBuf {
        self.dir().join(format!("{}.json", self.uid))
    }

    /// Returns all lines. A line that a crash has cut is left out: its parts were not committed.
    ///
    /// # Errors
    /// [`SinkError::Listing`] where there is something else than a list, [`SinkError::Io`].
    pub(super) fn read(&self) -> Result<Vec<Line>, SinkError> {
        let path = self.file();
        let bytes = match read_small(self.files, &path, LIST_BYTES_MAX) {
            Ok(Small::Bytes(bytes)) => bytes,
            Ok(Small::Not(found)) => return Err(not_a_list(&path, found)),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(io("read", &path, error)),
        };
        let lines = bytes.split(|byte| *byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Appends a line, durably.
    ///
    /// # Errors
    /// [`SinkError::Listing`] where there is something else than a list, [`SinkError::Io`].
    pub(super) fn append(&self, line: &Line) -> Result<(), SinkError> {
        let (dir, path) = (self.dir(), self.file());
        let failed = |error| io("write", &path, error);
        if self.files.is_link(&path).map_err(|error| io("look at", &path, error))? {
            return Err(not_a_list(&path, "a symbolic link".to_owned()));
        }
        let is_new = match self.files.info(&path) {
            Ok(info) if info.kind == FileKind::File => false,
            Ok(_) => return Err(not_a_list(&path, "no regular file".to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(io("look at", &path, error)),
        };
        self.files
            .create_dir_all(&dir)
            .map_err(|error| io("create directory", &dir, error))?;
        let mut file = self.files.append(&path).map_err(failed)?;
        // The first line break ends a line that a crash may have cut.
        let text = format!("{}{}\n", if is_new { "" } else { "\n" }, shown(line));
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        if is_new {
            sync_dir(self.files, &dir)?;
        }
        Ok(())
    }

    /// Replaces the list by these lines, in one step.
    ///
    /// # Errors
    /// [`SinkError::Io`].
    pub(super) fn replace(&self, lines: &[Line]) -> Result<(), SinkError> {
        let (dir, path) = (self.dir(), self.file());
        let draft = dir.join(format!(".{}.tmp", self.uid));
        let failed = |error| io("write", &draft, error);
        let text: String = lines.iter().map(|line| shown(line) + "\n").collect();
        let mut file = self.files.create(&draft).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        self.files.rename(&draft, &path).map_err(failed)?;
        sync_dir(self.files, &dir)
    }
}

fn not_a_list(path: &Path, found: String) -> SinkError {
    SinkError::Listing {
        path: path.display().to_string(),
        found,
        most: LIST_BYTES_MAX,
    }
}

fn shown(line: &Line) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

/// Returns the parts that a list has under a job's name, but for those of one run.
pub(super) fn of_earlier_runs(lines: &[Line], job: &str, but: JobId) -> Parts {
    let of_job = lines.iter().filter(|line| line.job == job && line.job_id != but);
    of_job.flat_map(|line| line.parts.clone()).collect()
}

/// Returns the list without these parts of a job, and without what runs of it were to replace.
pub(super) fn without(lines: Vec<Line>, job: &str, removed: &Parts) -> Vec<Line> {
    let mut left = vec![];
    for mut line in lines {
        if line.job == job {
            line.parts.retain(|name, _| !removed.contains_key(name));
            line.replaces = None;
        }
        if !line.parts.is_empty() || line.replaces.is_some() {
            left.push(line);
        }
    }
    left
}
