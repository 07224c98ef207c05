//! Parts: how output is named, pending and committed, and the handle that a snapshot keeps of it.
//!
//! A part is pending in `PATH/.pending/<JobID>/` and renamed on commit to
//! `PATH/part-<uid>-<subtask>-<first 12 of JobID>-<checkpoint>-<n>.<ext>`, where `n` is the first number whose name is free.

use std::io::ErrorKind;
use std::path::Path;

use regraft_model::id::{CheckpointId, JobId, OperatorUid};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::connector::sink::{OutputOf, SinkContext, SinkError};
use crate::environment::files::{FileKind, FileSystem};

/// Directory of pending parts, in the sink's directory.
pub(super) const PENDING: &str = ".pending";
/// Hex digits of the JobID in the name of a part. Names of version 0.1 have six.
const JOB_DIGITS: usize = 12;
/// Bytes read at a time to compare a file with a handle.
const READ_BYTES: usize = 256 * 1024;

/// A prepared part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Its path while it is pending, relative to the sink's directory.
    pub(super) pending: String,
    /// Its name once it is committed, in the sink's directory, with `n` = 0.
    #[serde(rename = "final")]
    pub(super) committed: String,
    /// Its content; `None` in handles of version 0.1.
    #[serde(flatten)]
    pub(super) content: Option<Content>,
}

/// The content of a file, as far as needed to tell it from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// Its length.
    pub(super) bytes: u64,
    /// Its XXH3-64, as 16 hex digits.
    pub(super) checksum: String,
}

/// The content of a file that is being written or read.
#[derive(Default)]
pub(super) struct ContentHasher {
    bytes: u64,
    hash: Xxh3,
}

impl std::fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentHasher").field("bytes", &self.bytes).finish()
    }
}

impl ContentHasher {
    /// Takes the next bytes of the file.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// Returns the content so far, and begins with the next file.
    pub(super) fn take(&mut self) -> Content {
        let (bytes, checksum) = (std::mem::take(&mut self.bytes), format!("{:016x}", self.hash.digest()));
        self.hash.reset();
        Content { bytes, checksum }
    }
}

impl Content {
    /// Returns true if there is a file with this content.
    ///
    /// # Errors
    /// [`SinkError::Io`].
    pub(super) fn is_of(&self, files: &dyn FileSystem, path: &Path) -> Result<bool, SinkError> {
        let failed = |error| io("read", path, error);
        match files.info(path) {
            Ok(info) if info.kind == FileKind::File && info.len == self.bytes => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        let file = files.open(path).map_err(failed)?;
        let (mut hasher, mut buffer, mut position) = (ContentHasher::default(), vec![0; READ_BYTES], 0);
        loop {
            let len = file.read_at(position, &mut buffer).map_err(failed)?;
            if len == 0 {
                return Ok(hasher.take() == *self);
            }
            hasher.update(buffer.get(..len).unwrap_or_default());
            position += len as u64;
        }
    }
}

impl Part {
    /// Reads a handle.
    ///
    /// # Errors
    /// [`SinkError::Handle`].
    pub(super) fn parse(handle: &serde_json::Value) -> Result<Self, SinkError> {
        let parsed = serde_json::from_value(handle.clone()).ok();
        // They become paths in the sink's directory, so they must not lead out of it.
        let is_own = |part: &Self| {
            let is_name = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
            let pending = part.pending.strip_prefix(PENDING);
            let pending = pending.and_then(|rest| rest.strip_prefix('/')?.split_once('/'));
            pending.is_some_and(|(job, name)| is_name(job) && is_name(name)) && is_name(&part.committed)
        };
        parsed.filter(is_own).ok_or_else(|| SinkError::Handle {
            handle: handle.to_string(),
            connector: super::CONNECTOR.name,
        })
    }

    /// Returns its name with another `n`, in place of the 0.
    pub(super) fn name(&self, n: u32) -> String {
        match self.committed.rsplit_once("-0.") {
            Some((stem, extension)) => format!("{stem}-{n}.{extension}"),
            None => format!("{}-{n}", self.committed),
        }
    }

    /// Returns true if a name is its own, with any `n`.
    pub(super) fn has_name(&self, name: &str) -> bool {
        let n = self.committed.rsplit_once("-0.").and_then(|(stem, extension)| {
            let rest = name.strip_prefix(stem)?.strip_prefix('-')?;
            rest.strip_suffix(extension)?.strip_suffix('.')
        });
        n.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Returns it as a handle.
    pub(super) fn handle(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Returns the directory of a job's pending parts, relative to the sink's.
pub(super) fn pending_dir(job_id: JobId) -> String {
    format!("{PENDING}/{job_id}")
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
    let (uid, subtask, job) = (&of.uid, of.subtask, of.job_id.to_string());
    let job = job.get(..JOB_DIGITS).unwrap_or(&job);
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

/// Returns true if the digits of a part's name are the first ones of a JobID.
fn is_short_for(digits: &str, job_id: JobId) -> bool {
    digits == job_id.short() || digits.len() == JOB_DIGITS && job_id.to_string().starts_with(digits)
}

/// The name of a committed part, `part-<uid>-<subtask>-<digits of JobID>-<checkpoint>-<n>.<ext>`, in its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartName<'a> {
    uid: &'a str,
    job: &'a str,
    checkpoint: u64,
}

impl<'a> PartName<'a> {
    /// Reads the name of a file; `None` if it is not a part's.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (stem, _) = name
            .strip_prefix("part-")?
            .rsplit_once('.')
            .filter(|_| !name.contains('/'))?;
        // A uid may have hyphens.
        let mut fields = stem.rsplitn(5, '-');
        let _: u32 = fields.next()?.parse().ok()?;
        let checkpoint = fields.next()?.parse().ok()?;
        let job = fields.next()?;
        let _: u32 = fields.next()?.parse().ok()?;
        let is_job = matches!(job.len(), 6 | JOB_DIGITS) && job.bytes().all(|b| b.is_ascii_hexdigit());
        let uid = fields.next()?;
        is_job.then_some(Self { uid, job, checkpoint })
    }

    /// Returns true if it is the name of a part of this sink.
    pub(super) fn is_of(name: &str, uid: &OperatorUid) -> bool {
        PartName::parse(name).is_some_and(|part| part.uid == uid.as_str())
    }
}

/// Returns the names of committed parts of a sink, sorted, by a property of them.
fn parts_of(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    is_wanted: impl Fn(PartName<'_>) -> bool,
) -> std::io::Result<Vec<String>> {
    let mut names = files.list(path)?;
    names.retain(|name| PartName::parse(name).is_some_and(|part| part.uid == uid.as_str() && is_wanted(part)));
    names.sort();
    Ok(names)
}

/// Returns the names of committed parts in a directory that are of later checkpoints, sorted.
pub(super) fn behind(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    of: OutputOf,
    checkpoint: CheckpointId,
) -> Vec<String> {
    let is_later = |part: PartName<'_>| {
        let is_asked_for = match of {
            OutputOf::Job(job_id) => is_short_for(part.job, job_id),
            OutputOf::AllBut(job_id) => !is_short_for(part.job, job_id),
        };
        is_asked_for && part.checkpoint > checkpoint.0
    };
    parts_of(files, path, uid, is_later).unwrap_or_default()
}

/// Returns the names of a sink's committed parts that are not of one run, sorted.
///
/// # Errors
/// [`SinkError::Io`].
pub(super) fn of_other_runs(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    job_id: JobId,
) -> Result<Vec<String>, SinkError> {
    match parts_of(files, path, uid, |part| !is_short_for(part.job, job_id)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        names => names.map_err(|error| io("list", path, error)),
    }
}

/// Reads a small file to its end.
pub(super) fn read_whole(files: &dyn FileSystem, path: &Path) -> std::io::Result<Vec<u8>> {
    let (file, mut buffer) = (files.open(path)?, vec![0; READ_BYTES]);
    let mut bytes = vec![];
    loop {
        match file.read_at(bytes.len() as u64, &mut buffer)? {
            0 => return Ok(bytes),
            len => bytes.extend_from_slice(buffer.get(..len).unwrap_or_default()),
        }
    }
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
