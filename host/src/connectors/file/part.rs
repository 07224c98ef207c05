//! Parts as files: their content, and those that are committed in a directory.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use regraft_model::id::{CheckpointId, JobId, OperatorUid};
use xxhash_rust::xxh3::Xxh3;

use super::handle::Content;
use super::name::{PartName, is_short_for};
use crate::connector::sink::{OutputOf, SinkError};
use crate::environment::files::{FileKind, FileSystem};

/// Bytes read at a time to compare a file with a handle.
const READ_BYTES: usize = 256 * 1024;

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

/// Returns the names of committed parts of a sink, sorted, by a property of them. A directory that is missing has none.
///
/// # Errors
/// [`SinkError::Io`].
fn parts_of(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    is_wanted: impl Fn(PartName<'_>) -> bool,
) -> Result<Vec<String>, SinkError> {
    let mut names = match files.list(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        names => names.map_err(|error| io("list", path, error))?,
    };
    names.retain(|name| PartName::parse(name).is_some_and(|part| part.uid == uid.as_str() && is_wanted(part)));
    names.sort();
    Ok(names)
}

/// Returns the names of committed parts in a directory that are of later checkpoints, sorted.
///
/// # Errors
/// [`SinkError::Io`].
pub(super) fn behind(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    of: OutputOf,
    checkpoint: CheckpointId,
) -> Result<Vec<String>, SinkError> {
    let is_later = |part: PartName<'_>| {
        let is_asked_for = match of {
            OutputOf::Job(job_id) => is_short_for(part.job, job_id),
            OutputOf::AllBut(job_id) => !is_short_for(part.job, job_id),
        };
        is_asked_for && part.checkpoint > checkpoint.0
    };
    parts_of(files, path, uid, is_later)
}

/// Returns those of these names that are committed parts in a directory, sorted.
///
/// # Errors
/// [`SinkError::Io`].
pub(super) fn present(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    names: &BTreeSet<String>,
) -> Result<Vec<String>, SinkError> {
    let mut found = parts_of(files, path, uid, |_| true)?;
    found.retain(|name| names.contains(name));
    Ok(found)
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
    parts_of(files, path, uid, |part| !is_short_for(part.job, job_id))
}

/// Content of a small file, or what is there instead.
pub(super) enum Small {
    /// All bytes of it.
    Bytes(Vec<u8>),
    /// No regular file, or one that is too long.
    Not(String),
}

/// Reads a regular file of at most `most` bytes to its end. Does not follow a link at the path itself, and opens nothing but
/// a regular file.
pub(super) fn read_small(files: &dyn FileSystem, path: &Path, most: u64) -> std::io::Result<Small> {
    if files.is_link(path)? {
        return Ok(Small::Not("a symbolic link".to_owned()));
    }
    let (file, mut bytes) = (files.open(path)?, vec![]);
    let info = file.info()?;
    match info.kind {
        FileKind::File if info.len <= most => {}
        FileKind::File => return Ok(Small::Not(format!("a file of {} bytes", info.len))),
        FileKind::Dir => return Ok(Small::Not("a directory".to_owned())),
        FileKind::Other => return Ok(Small::Not("no regular file".to_owned())),
    }
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read_at(bytes.len() as u64, &mut buffer)? {
            0 => return Ok(Small::Bytes(bytes)),
            len => bytes.extend_from_slice(buffer.get(..len).unwrap_or_default()),
        }
        // It may grow while it is read.
        if bytes.len() as u64 > most {
            return Ok(Small::Not(format!("a file of more than {most} bytes")));
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
