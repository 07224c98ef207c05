//! Commits parts: renames them once the snapshot that names them is durable, and replaces nothing that is there.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use regraft_model::id::{JobId, OperatorUid};

use super::part::{Part, io, pending_dir, sync_dir, uid_of_pending};
use crate::connector::sink::{SinkCommitter, SinkError};
use crate::environment::files::FileSystem;

/// Renames prepared parts.
#[derive(Debug)]
pub struct FileSinkCommitter {
    /// The files of this machine.
    pub files: Arc<dyn FileSystem>,
    /// The sink's directory.
    pub path: PathBuf,
    /// The job, whose pending parts may be cleaned.
    pub job_id: JobId,
    /// The sink of that job: others may write to the same directory.
    pub uid: OperatorUid,
}

/// Names tried for a part whose first names are taken.
const NAMES_MAX: u32 = 10_000;

impl FileSinkCommitter {
    /// Gives a pending part the first free name; returns false if it is not pending. What has a name keeps it.
    fn commit_part(&self, part: &Part) -> Result<bool, SinkError> {
        let pending = self.path.join(&part.pending);
        for n in 0..NAMES_MAX {
            let committed = self.path.join(part.name(n));
            match self.files.rename_new(&pending, &committed) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !self.files.exists(&pending) {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(io("commit", &committed, error)),
            }
        }
        let error = std::io::Error::new(ErrorKind::AlreadyExists, format!("{NAMES_MAX} names are taken"));
        Err(io("commit", &self.path.join(&part.committed), error))
    }

    /// Returns true if a part that is not pending has been committed before, under any of its names.
    fn is_committed(&self, part: &Part) -> Result<bool, SinkError> {
        let first = self.path.join(&part.committed);
        let Some(content) = &part.content else {
            return Ok(self.files.exists(&first));
        };
        if content.is_of(&*self.files, &first)? {
            return Ok(true);
        }
        let names = match self.files.list(&self.path) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io("list", &self.path, error)),
        };
        for name in names.iter().filter(|name| part.has_name(name)) {
            if content.is_of(&*self.files, &self.path.join(name))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Names a lost part for a message.
    fn lost(&self, part: &Part) -> String {
        let path = self.path.join(&part.committed);
        if self.files.exists(&path) {
            format!("{} (the file of that name has other content)", path.display())
        } else {
            path.display().to_string()
        }
    }
}

impl SinkCommitter for FileSinkCommitter {
    fn check(&self) -> Result<(), SinkError> {
        let pending = self.path.join(pending_dir(self.job_id));
        self.files
            .create_dir_all(&pending)
            .map_err(|error| io("create directory", &pending, error))?;
        self.clean();
        Ok(())
    }

    fn commit(&self, handles: &[serde_json::Value]) -> Result<(), SinkError> {
        let mut lost = vec![];
        for handle in handles {
            let part = Part::parse(handle)?;
            if !self.commit_part(&part)? && !self.is_committed(&part)? {
                lost.push(self.lost(&part));
            }
        }
        if !lost.is_empty() {
            return Err(SinkError::Lost { parts: lost });
        }
        if handles.is_empty() {
            Ok(())
        } else {
            sync_dir(&*self.files, &self.path)
        }
    }

    fn clean_leftovers(&self, keep: &[serde_json::Value]) -> Result<(), SinkError> {
        let kept: Result<Vec<Part>, SinkError> = keep.iter().map(Part::parse).collect();
        let kept = kept?;
        let dir = pending_dir(self.job_id);
        let pending = self.path.join(&dir);
        let names = match self.files.list(&pending) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io("list", &pending, error)),
        };
        let mut removed = false;
        for name in names
            .iter()
            .filter(|name| uid_of_pending(name) == Some(self.uid.as_str()))
        {
            if kept.iter().any(|part| part.pending == format!("{dir}/{name}")) {
                continue;
            }
            removed = true;
            let path = pending.join(name);
            match self.files.remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &path, error)),
                _ => {}
            }
        }
        // Where power is lost now it must not come back: there is no second look.
        if removed && let Err(error) = self.files.sync_dir(&pending) {
            return Err(io("sync", &pending, error));
        }
        Ok(())
    }

    fn clean(&self) {
        // Only empty directories go: a savepoint may still name what is pending.
        let pending = self.path.join(".pending");
        let _ = self.files.remove_dir(&pending.join(self.job_id.to_string()));
        let _ = self.files.remove_dir(&pending);
    }
}
