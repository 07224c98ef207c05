//! Commits parts: renames them once the snapshot that names them is durable, and replaces nothing that is there.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use regraft_model::id::JobId;

use super::listing::{self, Line, Listing, Parts};
use super::part::{self, Part, PartName, io, pending_dir, sync_dir, uid_of_pending};
use super::settings::FileSink;
use crate::connector::sink::{EarlierOutput, Existing, OutputRun, SinkCommitter, SinkError};
use crate::environment::files::{FileKind, FileSystem};

/// Names tried for a part whose first names are taken.
const NAMES_MAX: u32 = 10_000;

/// Renames prepared parts.
#[derive(Debug)]
pub struct FileSinkCommitter {
    files: Arc<dyn FileSystem>,
    settings: FileSink,
    run: OutputRun,
    replacing: Mutex<Replacing>,
}

/// Parts that this run removes after its first commit.
#[derive(Debug)]
enum Replacing {
    /// The list has not been asked yet.
    Unknown,
    /// These parts.
    Due(Parts),
    /// Nothing, or nothing any more.
    Done,
}

impl FileSinkCommitter {
    /// Makes the committer of a run's output at a sink.
    #[must_use]
    pub fn new(files: Arc<dyn FileSystem>, settings: FileSink, run: OutputRun) -> Self {
        // What another run was to replace is not replaced for it.
        let replacing = if run.is_own {
            Replacing::Unknown
        } else {
            Replacing::Done
        };
        Self {
            files,
            settings,
            run,
            replacing: Mutex::new(replacing),
        }
    }

    fn path(&self) -> &Path {
        &self.settings.path
    }

    fn listing(&self) -> Listing<'_> {
        Listing {
            files: &*self.files,
            path: self.path(),
            uid: &self.run.uid,
        }
    }

    /// Returns the line of the list that this run writes about parts.
    fn line(&self, parts: Parts) -> Line {
        Line {
            job: self.run.job.clone(),
            job_id: self.run.job_id,
            parts,
            replaces: None,
        }
    }

    /// Returns the first `n` from this one on whose name is free; `None` if the part has a name already.
    fn free(&self, part: &Part, from: u32) -> Result<Option<u32>, SinkError> {
        let pending = self.path().join(&part.pending);
        for n in from..NAMES_MAX {
            let committed = self.path().join(part.name(n));
            if !self.files.exists(&committed) {
                return Ok(Some(n));
            }
            // The part itself has this name where a crash interrupted a rename by link, which is completed here.
            match self.files.rename_new(&pending, &committed) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io("commit", &committed, error)),
            }
        }
        let error = std::io::Error::new(ErrorKind::AlreadyExists, format!("{NAMES_MAX} names are taken"));
        Err(io("commit", &self.path().join(&part.committed), error))
    }

    /// Gives pending parts names that are free, after they are listed under them. What has a name keeps it.
    fn commit_parts(&self, parts: &[Part]) -> Result<(), SinkError> {
        let mut named = vec![];
        for part in parts {
            named.extend(self.free(part, 0)?.map(|n| (part, n)));
        }
        while !named.is_empty() {
            let listed = named
                .iter()
                .map(|(part, n)| (part.name(*n), part.content.as_ref().map(|is| is.bytes)));
            self.listing().append(&self.line(listed.collect()))?;
            // Those whose names have been taken meanwhile.
            let mut again = vec![];
            for (part, n) in named {
                let (pending, committed) = (self.path().join(&part.pending), self.path().join(part.name(n)));
                match self.files.rename_new(&pending, &committed) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists && self.files.exists(&pending) => {
                        again.extend(self.free(part, n + 1)?.map(|n| (part, n)));
                    }
                    // Of two commits at a time, the other was first.
                    Err(_) if self.is_committed(part)? => {}
                    renamed => renamed.map_err(|error| io("commit", &committed, error))?,
                }
            }
            named = again;
        }
        Ok(())
    }

    /// Removes what this run replaces, if it has not done so; only parts that are as the list has them.
    fn replace_earlier(&self) -> Result<(), SinkError> {
        let mut replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*replacing, Replacing::Unknown) {
            let lines = self.listing().read()?;
            let own = |line: Line| (line.job_id == self.run.job_id).then_some(line.replaces).flatten();
            *replacing = match lines.into_iter().rev().find_map(own) {
                Some(parts) => Replacing::Due(parts),
                None => Replacing::Done,
            };
        }
        let Replacing::Due(parts) = &*replacing else {
            return Ok(());
        };
        let mut removed = 0;
        for (name, bytes) in parts.iter().filter(|(name, _)| PartName::is_of(name, &self.run.uid)) {
            let path = self.path().join(name);
            if !self.has_length(&path, *bytes)? {
                continue;
            }
            match self.files.remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &path, error)),
                _ => removed += 1,
            }
        }
        sync_dir(&*self.files, self.path())?;
        // From here on nothing is due, whichever process looks.
        let lines = self.listing().read()?;
        self.listing().replace(&listing::without(lines, &self.run.job, parts))?;
        tracing::info!(
            "sink \"{}\": removed {removed} part(s) of earlier runs of job \"{}\" from {}",
            self.run.uid,
            self.run.job,
            self.path().display()
        );
        *replacing = Replacing::Done;
        Ok(())
    }

    /// Returns true if there is a file of this length, or of any where none is known.
    fn has_length(&self, path: &Path, bytes: Option<u64>) -> Result<bool, SinkError> {
        match self.files.info(path) {
            Ok(info) => Ok(info.kind == FileKind::File && bytes.is_none_or(|bytes| bytes == info.len)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io("look at", path, error)),
        }
    }

    /// Returns true if a part that is not pending has been committed before, under any of its names.
    fn is_committed(&self, part: &Part) -> Result<bool, SinkError> {
        let first = self.path().join(&part.committed);
        let Some(content) = &part.content else {
            return Ok(self.files.exists(&first));
        };
        if content.is_of(&*self.files, &first)? {
            return Ok(true);
        }
        let names = match self.files.list(self.path()) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io("list", self.path(), error)),
        };
        for name in names.iter().filter(|name| part.has_name(name)) {
            if content.is_of(&*self.files, &self.path().join(name))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Names a lost part for a message.
    fn lost(&self, part: &Part) -> String {
        let path = self.path().join(&part.committed);
        if self.files.exists(&path) {
            format!("{} (the file of that name has other content)", path.display())
        } else {
            path.display().to_string()
        }
    }
}

impl SinkCommitter for FileSinkCommitter {
    fn check(&self) -> Result<(), SinkError> {
        let pending = self.path().join(pending_dir(self.run.job_id));
        self.files
            .create_dir_all(&pending)
            .map_err(|error| io("create directory", &pending, error))?;
        self.clean();
        Ok(())
    }

    fn commit(&self, handles: &[serde_json::Value]) -> Result<(), SinkError> {
        let (mut pending, mut lost) = (vec![], vec![]);
        for handle in handles {
            let part = Part::parse(handle)?;
            if self.files.exists(&self.path().join(&part.pending)) {
                pending.push(part);
            } else if !self.is_committed(&part)? {
                lost.push(self.lost(&part));
            }
        }
        self.commit_parts(&pending)?;
        if !lost.is_empty() {
            return Err(SinkError::Lost { parts: lost });
        }
        if handles.is_empty() {
            return Ok(());
        }
        sync_dir(&*self.files, self.path())?;
        self.replace_earlier()
    }

    fn earlier_output(&self) -> Result<EarlierOutput, SinkError> {
        let (job, own) = (self.run.job.as_str(), self.run.job_id);
        let lines = self.listing().read()?;
        let mut listed = listing::of_earlier_runs(&lines, job, own);
        let found = part::of_other_runs(&*self.files, self.path(), &self.run.uid, own)?;
        listed.retain(|name, _| found.binary_search(name).is_ok());
        let all: BTreeSet<&String> = lines.iter().flat_map(|line| line.parts.keys()).collect();
        let unlisted = found.iter().filter(|name| !all.contains(name)).cloned().collect();
        let of_job = lines.iter().filter(|line| line.job == job && line.job_id != own);
        let mut runs: Vec<JobId> = of_job.map(|line| line.job_id).collect();
        runs.dedup();
        let parts = listed.keys().cloned().collect();
        if self.settings.existing == Existing::Replace && !listed.is_empty() {
            let replaces = Some(listed);
            self.listing().append(&Line {
                replaces,
                ..self.line(Parts::new())
            })?;
        }
        Ok(EarlierOutput { parts, unlisted, runs })
    }

    fn finished(&self) -> Result<(), SinkError> {
        self.replace_earlier()
    }

    fn clean_leftovers(&self, keep: &[serde_json::Value]) -> Result<(), SinkError> {
        let kept: Result<Vec<Part>, SinkError> = keep.iter().map(Part::parse).collect();
        let kept = kept?;
        let dir = pending_dir(self.run.job_id);
        let pending = self.path().join(&dir);
        let names = match self.files.list(&pending) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io("list", &pending, error)),
        };
        let mut removed = false;
        for name in names
            .iter()
            .filter(|name| uid_of_pending(name) == Some(self.run.uid.as_str()))
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
        let pending = self.path().join(part::PENDING);
        let _ = self.files.remove_dir(&pending.join(self.run.job_id.to_string()));
        let _ = self.files.remove_dir(&pending);
    }
}
