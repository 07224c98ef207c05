//! Commits parts: renames them once the snapshot that names them is durable.

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
            let (pending, committed) = (self.path.join(&part.pending), self.path.join(&part.committed));
            match self.files.rename(&pending, &committed) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if !self.files.exists(&committed) {
                        lost.push(committed.display().to_string());
                    }
                }
                Err(error) => return Err(io("commit", &committed, error)),
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
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
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
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &path, error)),
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
