//! One process for each job of a machine: a file lock beside the job's directory, `<checkpoint dir>/<JobID>.lock`.
//!
//! It catches at once what two hosts with one checkpoint directory would otherwise find out when the first of them commits.
//! The system releases it when its process ends in any way. It is no fence: a copy of the directory has another lock, and
//! some network file systems have none. The sinks are the fence (`docs/design/0019-fencing.md`).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use regraft_model::id::JobId;
use serde::{Deserialize, Serialize};

use super::records::JobDirectory;

/// Number of times that a lock file is opened which its holder has just removed.
const TRIES: u32 = 100;

/// Failure to lock a job.
#[derive(Debug, thiserror::Error)]
pub enum JobLockError {
    /// Another process runs the job.
    #[error(
        "{} is held by another process{}: it runs this job, and two must not. Stop it there, or wait until it has ended",
        path.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Its holder, where the file names one.
        pid: Option<u32>,
    },
    /// The file system failed.
    #[error("cannot lock the job: {}: {error}. Check the owner and mode of the checkpoint directory", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Error of the file system.
        error: io::Error,
    },
}

impl JobLockError {
    /// Returns the lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Held { path, .. } | Self::Io { path, .. } => path,
        }
    }
}

/// Content of the lock file.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
}

/// The right of this process to run a job. Dropping it gives it up, and removes the file.
#[derive(Debug)]
pub struct JobLock {
    /// Holds the lock as long as it is open.
    file: File,
    path: PathBuf,
}

impl Drop for JobLock {
    fn drop(&mut self) {
        // Before the lock is released: who opens the file in between finds that it has no name any more. A file that someone has
        // put in its place is another process's.
        if is_named(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns the lock file of a job in a checkpoint directory of this machine.
#[must_use]
pub fn lock_file(checkpoints: &Path, job_id: JobId) -> PathBuf {
    checkpoints.join(format!("{job_id}.lock"))
}

impl JobLock {
    /// Locks a job. Returns `None` where its checkpoint directory is not on a file system, or is on one without locks.
    ///
    /// # Errors
    /// [`JobLockError`].
    pub fn take(directory: &JobDirectory, job_id: JobId) -> Result<Option<Self>, JobLockError> {
        match directory.root().local_dir() {
            Some(checkpoints) => Self::take_file(&checkpoints, lock_file(&checkpoints, job_id)),
            None => Ok(None),
        }
    }

    fn take_file(checkpoints: &Path, path: PathBuf) -> Result<Option<Self>, JobLockError> {
        let io = |error| JobLockError::Io {
            path: path.clone(),
            error,
        };
        fs::create_dir_all(checkpoints).map_err(io)?;
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let options = options.read(true).write(true).create(true).truncate(false);
            let mut file = options.custom_flags(nofollow).open(&path).map_err(io)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    // The holder may be writing the file at this moment: an unreadable one names no holder.
                    let read = file.read_to_string(&mut text).ok();
                    let holder = read.and_then(|_| serde_json::from_str::<Holder>(&text).ok());
                    let pid = holder.map(|holder| holder.pid);
                    return Err(JobLockError::Held { path, pid });
                }
                Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                    tracing::warn!(
                        "{} cannot be locked: {error}. Nothing but the sinks keeps another host off this job.",
                        path.display()
                    );
                    let _ = fs::remove_file(&path);
                    return Ok(None);
                }
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
            // Its last holder may have removed it since it was opened here.
            if !is_named(&file, &path) {
                continue;
            }
            let holder = Holder {
                pid: std::process::id(),
            };
            let text = serde_json::to_vec(&holder).unwrap_or_default();
            file.set_len(0).and_then(|()| file.write_all(&text)).map_err(io)?;
            return Ok(Some(Self { file, path }));
        }
        Err(io(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "it is removed again and again",
        )))
    }
}

/// Returns true if an open file has this name.
fn is_named(file: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(opened), Ok(named)) => id(opened) == id(named),
        _ => false,
    }
}

/// Returns true for the errors of file systems that have no locks.
fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;

    #[test]
    fn a_job_is_run_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("temp dir");
        let storage = Storage::open(&dir.path().join("checkpoints").to_string_lossy()).expect("a path");
        let (one, other) = (JobId::from_bits(1), JobId::from_bits(2));
        let take = |job| JobLock::take(&JobDirectory::new(&storage, job).expect("a directory"), job);
        let lock = take(one).expect("free").expect("a lock");
        let path = lock_file(&dir.path().join("checkpoints"), one);
        let said = take(one).expect_err("held").to_string();
        assert_eq!(
            said,
            format!(
                "{} is held by another process (pid {}): it runs this job, and two must not. Stop it there, or wait until it has ended",
                path.display(),
                std::process::id()
            )
        );
        drop(take(other).expect("free"));
        drop(lock);
        assert_eq!(
            fs::read_dir(path.parent().expect("a directory"))
                .expect("there")
                .count(),
            0
        );
        // A process that was killed leaves the file.
        fs::write(&path, "{\"pid\":1}").expect("written");
        let lock = take(one).expect("free").expect("a lock");
        assert_eq!(
            fs::read_to_string(&path).expect("there"),
            format!("{{\"pid\":{}}}", std::process::id())
        );
        drop(lock);
        let in_memory = Storage::in_memory("checkpoints");
        let directory = JobDirectory::new(&in_memory, one).expect("a directory");
        assert!(JobLock::take(&directory, one).expect("nothing to lock").is_none());
    }
}
