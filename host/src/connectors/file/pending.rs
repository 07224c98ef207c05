//! The directories in which a job's parts are pending at a sink, one for each attempt, and how they are taken away.
//!
//! ```text
//! .pending/<JobID>/a<attempt>-<random>/        parts of an attempt; made once, at its start
//! .pending/<JobID>/kept-a<attempt>-<random>/   what a savepoint names of an attempt whose directory is gone
//! .pending/<JobID>/<file>                      a part of a version without such directories
//! ```
//!
//! A part is committed by a rename out of the attempt's directory. Once that is removed, the rename finds nothing, however
//! long ago its process checked that it may commit: the removal is the fence (`docs/design/0019-fencing.md`).
//! So that it stays one, only the start of an attempt makes its directory, and nothing that outlives it stays in there: what
//! a savepoint names moves to a directory of another name first.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use regraft_model::id::{JobId, OperatorUid};

use super::name::{AttemptDir, PENDING, pending_dir, uid_of_pending};
use super::part::{io, sync_dir};
use crate::connector::sink::SinkError;
use crate::environment::files::{FileKind, FileSystem};

/// Number of times that a directory is emptied into which its former owner still writes.
const TRIES: u32 = 1_000;

/// The pending parts of a job at one sink.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending<'a> {
    /// The files of this machine.
    pub(super) files: &'a dyn FileSystem,
    /// The sink's directory.
    pub(super) path: &'a Path,
    /// The job.
    pub(super) job_id: JobId,
    /// The sink.
    pub(super) uid: &'a OperatorUid,
}

/// Entries of a job's directory of pending parts, by kind.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Directories of attempts.
    pub(super) attempts: Vec<AttemptDir>,
    /// Directories of what is kept of attempts whose own directory is gone.
    kept: Vec<AttemptDir>,
    /// Names of parts without a directory of their attempt.
    files: Vec<String>,
}

/// Parts that stay since a snapshot names them, by their path as handles have it.
pub(super) type Keep = BTreeSet<String>;

/// Returns the parts that these handles name. They are only compared with names that were found.
pub(super) fn keep(handles: &[serde_json::Value]) -> Keep {
    let path = |handle: &serde_json::Value| handle.get("pending")?.as_str().map(str::to_owned);
    handles.iter().filter_map(path).collect()
}

impl Pending<'_> {
    /// Returns the directory of all attempts of the job.
    pub(super) fn dir(&self) -> PathBuf {
        self.path.join(pending_dir(self.job_id))
    }

    /// Returns the directory of an attempt.
    pub(super) fn attempt(&self, dir: AttemptDir) -> PathBuf {
        self.dir().join(dir.name())
    }

    /// Makes the directory of the job, and returns its path.
    ///
    /// # Errors
    /// [`SinkError::Io`], [`SinkError::Foreign`].
    pub(super) fn create(&self) -> Result<PathBuf, SinkError> {
        self.refuse_links(&pending_dir(self.job_id))?;
        self.made(self.dir())
    }

    /// Makes the directory of an attempt, which begins.
    ///
    /// # Errors
    /// [`SinkError::Io`], [`SinkError::Foreign`].
    pub(super) fn begin(&self, dir: AttemptDir) -> Result<(), SinkError> {
        self.create()?;
        self.made(self.attempt(dir)).map(|_| ())
    }

    fn made(&self, dir: PathBuf) -> Result<PathBuf, SinkError> {
        let made = self.files.create_dir_all(&dir);
        made.map_err(|error| io("create directory", &dir, error))?;
        Ok(dir)
    }

    /// Returns true if the directory of an attempt has been removed, and the sink's has not.
    pub(super) fn is_gone(&self, dir: AttemptDir) -> bool {
        is_gone(self.files, self.path, &self.attempt(dir))
    }

    /// Refuses a relative path below the sink's directory of which any part is a link.
    ///
    /// # Errors
    /// [`SinkError::Foreign`], [`SinkError::Io`].
    pub(super) fn refuse_links(&self, below: &str) -> Result<(), SinkError> {
        let mut path = self.path.to_owned();
        for name in below.split('/') {
            path.push(name);
            if self.files.is_link(&path).map_err(|error| io("look at", &path, error))? {
                return Err(SinkError::Foreign {
                    path: path.display().to_string(),
                    found: "a symbolic link",
                    expected: "a file or directory that a sink has made",
                });
            }
        }
        Ok(())
    }

    /// Returns true if a pending part is there, by its path as a handle has it.
    ///
    /// # Errors
    /// [`SinkError::Foreign`] where it is no regular file, or a link leads to it; [`SinkError::Io`].
    pub(super) fn has(&self, part: &str) -> Result<bool, SinkError> {
        self.refuse_links(part)?;
        let path = self.path.join(part);
        match self.files.info(&path) {
            Ok(info) if info.kind == FileKind::File => Ok(true),
            Ok(info) => Err(SinkError::Foreign {
                path: path.display().to_string(),
                found: if info.kind == FileKind::Dir {
                    "a directory"
                } else {
                    "a pipe or device"
                },
                expected: "a regular file",
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io("look at", &path, error)),
        }
    }

    /// Returns what is pending.
    ///
    /// # Errors
    /// [`SinkError::Io`], [`SinkError::Foreign`].
    pub(super) fn list(&self) -> Result<Found, SinkError> {
        self.refuse_links(&pending_dir(self.job_id))?;
        let mut found = Found::default();
        for name in self.names(&self.dir())?.unwrap_or_default() {
            if let Some(dir) = AttemptDir::parse(&name) {
                found.attempts.extend(dir.is_of(self.uid).then_some(dir));
            } else if let Some(dir) = AttemptDir::parse_kept(&name) {
                found.kept.extend(dir.is_of(self.uid).then_some(dir));
            } else if uid_of_pending(&name) == Some(self.uid.as_str()) {
                found.files.push(name);
            }
        }
        Ok(found)
    }

    /// Returns the names in a directory; `None` if it is not there.
    fn names(&self, dir: &Path) -> Result<Option<Vec<String>>, SinkError> {
        match self.files.list(dir) {
            Ok(names) => Ok(Some(names)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("list", dir, error)),
        }
    }

    /// Removes the directory of an attempt. Returns false if it was gone already.
    ///
    /// # Errors
    /// [`SinkError::Io`], [`SinkError::Foreign`]; the attempt may still be able to commit.
    pub(super) fn take_away(&self, dir: AttemptDir, keep: &Keep) -> Result<bool, SinkError> {
        self.refuse_links(&format!("{}/{}", pending_dir(self.job_id), dir.name()))?;
        let own = self.attempt(dir);
        let mut was_there = false;
        for _ in 0..TRIES {
            let Some(names) = self.names(&own)? else {
                return Ok(was_there);
            };
            was_there = true;
            for name in &names {
                self.take_part(dir, name, keep)?;
            }
            match self.files.remove_dir(&own) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
                // A part has been made meanwhile.
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(io("remove", &own, error)),
            }
        }
        let error = std::io::Error::new(ErrorKind::ResourceBusy, "new files keep appearing in it");
        Err(io("remove", &own, error))
    }

    /// Moves a part out of the directory of its attempt, or removes it if nothing names it.
    fn take_part(&self, dir: AttemptDir, name: &str, keep: &Keep) -> Result<(), SinkError> {
        let path = self.attempt(dir).join(name);
        let (doing, done) = if keep.contains(&format!("{}/{}/{name}", pending_dir(self.job_id), dir.name())) {
            let kept = self.made(self.dir().join(dir.kept_name()))?;
            let moved = self.files.rename(&path, &kept.join(name));
            sync_dir(self.files, &kept)?;
            ("move", moved)
        } else {
            ("remove", self.files.remove_file(&path))
        };
        match done {
            // Its owner has committed or removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.map_err(|error| io(doing, &path, error)),
        }
    }

    /// Removes what is pending outside of attempts' directories, but for these parts; and makes that, and the removal of
    /// directories, durable.
    ///
    /// # Errors
    /// [`SinkError::Io`].
    pub(super) fn sweep(&self, found: &Found, keep: &Keep) -> Result<(), SinkError> {
        let (dir, below) = (self.dir(), pending_dir(self.job_id));
        let mut removed = !found.attempts.is_empty();
        let unless_absent = |path: &Path, done: std::io::Result<()>| match done {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path, error)),
            _ => Ok(()),
        };
        for name in found
            .files
            .iter()
            .filter(|name| !keep.contains(&format!("{below}/{name}")))
        {
            removed = true;
            let path = dir.join(name);
            unless_absent(&path, self.files.remove_file(&path))?;
        }
        for attempt in &found.kept {
            let kept = dir.join(attempt.kept_name());
            let as_named = |name: &str| format!("{below}/{}/{name}", attempt.name());
            let mut stays = false;
            for name in self.names(&kept)?.unwrap_or_default() {
                if keep.contains(&as_named(&name)) {
                    stays = true;
                } else {
                    let path = kept.join(&name);
                    unless_absent(&path, self.files.remove_file(&path))?;
                }
            }
            if !stays {
                removed = true;
                unless_absent(&kept, self.files.remove_dir(&kept))?;
            }
        }
        // Where power is lost now it must not come back: there is no second look.
        if removed {
            match self.files.sync_dir(&dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("sync", &dir, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes directories that are empty, but for those of attempts.
    pub(super) fn remove_empty(&self) {
        for attempt in self.list().unwrap_or_default().kept {
            let _ = self.files.remove_dir(&self.dir().join(attempt.kept_name()));
        }
        let _ = self.files.remove_dir(&self.dir());
        let _ = self.files.remove_dir(&self.path.join(PENDING));
    }
}

/// Returns true if a directory has been removed, and that of the sink has not.
pub(super) fn is_gone(files: &dyn FileSystem, sink: &Path, dir: &Path) -> bool {
    let is_absent = files.info(dir).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    is_absent && files.exists(sink)
}

/// Says that a directory of pending parts is gone.
pub(super) fn gone(dir: &Path) -> SinkError {
    SinkError::Taken {
        found: format!("{}, where its output was pending, has been removed", dir.display()),
    }
}
