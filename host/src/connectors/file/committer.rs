//! Commits parts: renames them once the snapshot that names them is durable, and replaces nothing that is there.
//!
//! The directory that a part is renamed from shows whether its attempt may still commit ([`super::pending`]).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regraft_model::id::{AttemptId, JobId};

use super::handle::Part;
use super::listing::{self, Line, Listing, Parts};
use super::name::{AttemptDir, PartName};
use super::part::{self, io, sync_dir};
use super::pending::{Keep, Pending, gone, keep};
use super::settings::FileSink;
use crate::connector::sink::{EarlierOutput, Existing, KnownAttempts, OutputRun, SinkCommitter, SinkError};
use crate::environment::files::{FileKind, FileSystem};

/// Names tried for a part whose first names are taken.
const NAMES_MAX: u32 = 10_000;
/// Number of times that the directories of other attempts are looked for.
const LOOKS: u32 = 10;

/// Renames prepared parts.
#[derive(Debug)]
pub struct FileSinkCommitter {
    files: Arc<dyn FileSystem>,
    settings: FileSink,
    run: OutputRun,
    replacing: Mutex<Replacing>,
    /// Directory of the attempt of this process; `None` before it has one, and after it has let go of it.
    own: Mutex<Option<AttemptDir>>,
}

/// A part that is pending, and its path.
type Ready = (Part, PathBuf);

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
            own: Mutex::default(),
        }
    }

    fn path(&self) -> &Path {
        &self.settings.path
    }

    fn pending(&self) -> Pending<'_> {
        Pending {
            files: &*self.files,
            path: self.path(),
            job_id: self.run.job_id,
            uid: &self.run.uid,
        }
    }

    fn own(&self) -> MutexGuard<'_, Option<AttemptDir>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of an attempt whose directory another one has taken away; `None` while it has it.
    fn taken(&self) -> Option<SinkError> {
        let own = (*self.own()).filter(|own| self.pending().is_gone(*own));
        own.map(|own| gone(&self.pending().attempt(own)))
    }

    fn parse(&self, handle: &serde_json::Value) -> Result<Part, SinkError> {
        Part::parse(handle, self.run.job_id, &self.run.uid).map_err(|problem| SinkError::Handle {
            connector: super::CONNECTOR.name,
            job: self.run.job_id,
            problem: problem.to_string(),
        })
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
            of: BTreeSet::new(),
            replaces: None,
        }
    }

    /// Returns the first `n` from this one on whose name is free; `None` if the part has a name already.
    fn free(&self, (part, pending): &Ready, from: u32) -> Result<Option<u32>, SinkError> {
        for n in from..NAMES_MAX {
            let committed = self.path().join(part.name(n));
            if !self.files.exists(&committed) {
                return Ok(Some(n));
            }
            // The part itself has this name where a crash interrupted a rename by link, which is completed here.
            match self.files.rename_new(pending, &committed) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io("commit", &committed, error)),
            }
        }
        let error = std::io::Error::new(ErrorKind::AlreadyExists, format!("{NAMES_MAX} names are taken"));
        Err(io("commit", &self.path().join(&part.committed), error))
    }

    /// Gives pending parts names that are free, after they are listed under them. What has a name keeps it.
    fn commit_parts(&self, parts: &[Ready]) -> Result<(), SinkError> {
        let mut named = vec![];
        for ready in parts {
            named.extend(self.free(ready, 0)?.map(|n| (ready, n)));
        }
        while !named.is_empty() {
            let listed = named
                .iter()
                .map(|((part, _), n)| (part.name(*n), part.content.as_ref().map(|is| is.bytes)));
            let of = named.iter().filter_map(|((part, _), _)| Some(part.attempt()?.name()));
            self.listing().append(&Line {
                of: of.collect(),
                ..self.line(listed.collect())
            })?;
            // Those whose names have been taken meanwhile.
            let mut again = vec![];
            for (ready, n) in named {
                let (part, pending) = ready;
                let committed = self.path().join(part.name(n));
                match self.files.rename_new(pending, &committed) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists && self.files.exists(pending) => {
                        again.extend(self.free(ready, n + 1)?.map(|n| (ready, n)));
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

    /// Commits the parts of these handles. `restored`: also those that have been kept of earlier attempts.
    fn commit_found(&self, handles: &[serde_json::Value], restored: bool) -> Result<(), SinkError> {
        let parts: Result<Vec<Part>, SinkError> = handles.iter().map(|handle| self.parse(handle)).collect();
        let (mut ready, mut lost) = (vec![], vec![]);
        for part in parts? {
            let kept = if restored { part.kept() } else { None };
            let mut found = None;
            for place in [Some(&part.pending), kept.as_ref()].into_iter().flatten() {
                if self.pending().has(place)? {
                    found = Some(self.path().join(place));
                    break;
                }
            }
            match found {
                Some(path) => ready.push((part, path)),
                None if self.is_committed(&part)? => {}
                None => lost.push(self.lost(&part)),
            }
        }
        self.commit_parts(&ready)?;
        if !lost.is_empty() {
            return Err(SinkError::Lost { parts: lost });
        }
        if handles.is_empty() {
            return Ok(());
        }
        sync_dir(&*self.files, self.path())?;
        self.replace_earlier()
    }

    /// Removes the directories of all attempts but a new one. `own` is that of this process's last attempt, and is forgotten
    /// when it goes.
    fn take_from_others(
        &self,
        attempt: AttemptId,
        new: Option<AttemptDir>,
        own: &mut Option<AttemptDir>,
        keep: &Keep,
    ) -> Result<(), SinkError> {
        let pending = self.pending();
        for look in 0..LOOKS {
            let mut found = pending.list()?;
            found.attempts.retain(|found| Some(*found) != new);
            let is_later = |other: &&AttemptDir| other.attempt >= attempt;
            if let Some(later) = found.attempts.iter().find(is_later) {
                return Err(SinkError::Taken {
                    found: format!(
                        "{} has the output of its attempt {}, and this is attempt {attempt}",
                        pending.attempt(*later).display(),
                        later.attempt
                    ),
                });
            }
            for other in &found.attempts {
                let is_own = own.take_if(|own| own == other).is_some();
                if !pending.take_away(*other, keep)? && is_own {
                    return Err(gone(&pending.attempt(*other)));
                }
            }
            if look == 0 || !found.attempts.is_empty() {
                pending.sweep(&found, keep)?;
            }
            if found.attempts.is_empty() {
                return Ok(());
            }
        }
        Err(SinkError::Taken {
            found: format!("new attempts keep appearing in {}", pending.dir().display()),
        })
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
        self.pending().create()?;
        self.clean();
        Ok(())
    }

    fn commit(&self, handles: &[serde_json::Value]) -> Result<(), SinkError> {
        match self.commit_found(handles, false) {
            Err(SinkError::Lost { parts }) => Err(self.taken().unwrap_or(SinkError::Lost { parts })),
            committed => committed,
        }
    }

    fn commit_restored(&self, handles: &[serde_json::Value]) -> Result<(), SinkError> {
        self.commit_found(handles, true)
    }

    fn take_over(&self, attempt: AttemptId, nonce: Option<u32>, keep: &[serde_json::Value]) -> Result<(), SinkError> {
        let (pending, mut own) = (self.pending(), self.own());
        if let Some(own) = own.filter(|own| pending.is_gone(*own)) {
            return Err(gone(&pending.attempt(own)));
        }
        let new = nonce.map(|nonce| AttemptDir::new(attempt, nonce, &self.run.uid));
        // Before the others are looked for: of two attempts that begin at a time, one at least finds the other.
        if let Some(new) = new {
            pending.begin(new)?;
        }
        let taken = self.take_from_others(attempt, new, &mut own, &self::keep(keep));
        match (&taken, new) {
            (Ok(()), _) => *own = new,
            (Err(SinkError::Taken { .. }), Some(new)) => {
                // It is empty. Should it stay, the attempt that has the sink is not hindered by it.
                let _ = pending.take_away(new, &Keep::new());
            }
            (Err(_), _) => {}
        }
        taken
    }

    fn is_taken(&self) -> bool {
        self.taken().is_some()
    }

    fn foreign_output(&self, known: &KnownAttempts) -> Result<Vec<String>, SinkError> {
        let uid = &self.run.uid;
        let is_foreign = |name: &String| {
            let dir = AttemptDir::parse(name);
            dir.is_some_and(|dir| known.lack(dir.attempt, |known, nonce| AttemptDir::new(known, nonce, uid) == dir))
        };
        let lines = self.listing().read()?.into_iter();
        let lines = lines.filter(|line| line.job_id == self.run.job_id && line.of.iter().any(is_foreign));
        let names: BTreeSet<String> = lines.flat_map(|line| line.parts.into_keys()).collect();
        if names.is_empty() {
            return Ok(vec![]);
        }
        part::present(&*self.files, self.path(), uid, &names)
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
        let (pending, keep) = (self.pending(), self::keep(keep));
        *self.own() = None;
        let found = pending.list()?;
        for attempt in &found.attempts {
            pending.take_away(*attempt, &keep)?;
        }
        pending.sweep(&found, &keep)
    }

    fn clean(&self) {
        // Only empty directories go: a savepoint may still name what is pending.
        self.pending().remove_empty();
    }
}
