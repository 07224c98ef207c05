//! Reads lines of files: a split is one file, its position a byte offset and a line number.
//!
//! A watching reader looks at the files again and again. A look lists the paths and asks for the facts about each file, some
//! files at a time, so that it holds up no barrier; a file is opened only if its facts have changed.
//! A file belongs to the subtask that its identity was assigned to, or else falls to, so that a rename moves no split.
//! A file that has lost its name is read to its end, as far as it is still open.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use regraft_model::batch::Batch;
use regraft_model::origin::Origin;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::input_error::{InputError, ReadError, io_error};
use super::look::Look;
use super::open_file::OpenFile;
use super::parked::Parked;
use super::position::Position;
use super::resolve::{apart, identify, start_of};
use super::settings::{FileSource, OnTruncate};
use super::splits::{Found, find, hint, look_at};
use crate::connector::source::{Assigned, Polled, SourceContext, SourceError, SourceReader, SplitState};
use crate::environment::files::FileId;

/// A batch with this many bytes is handed on, however few its lines are.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A file is gone when this many looks in a row have not found it: one that is renamed during a look may be missing in it.
const LOOKS_TO_MISS: u32 = 2;
/// Number of files that are remembered, at most, after they are gone: one that comes back goes on.
const GONE_MAX: usize = 1024;

/// A file that is being read, or was read.
#[derive(Debug)]
struct Split {
    path: Arc<str>,
    /// Name in snapshots: the path, or a name of its own if another file of the subtask has that.
    split: Arc<str>,
    position: Position,
    name: Name,
    /// Number of the last look that found it.
    look: u32,
}

/// The state of a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// The file has the path that it had when it was last opened.
    Kept,
    /// It has another one.
    Changed,
    /// It has none, and is read to its end.
    Gone,
    /// It has none, and nothing was added to it for a while: its last line is a record even without its end.
    Ending,
}

/// Reads the files of one subtask.
#[derive(Debug)]
pub struct FileReader {
    settings: FileSource,
    context: SourceContext,
    /// Identities of the files that were assigned to a subtask at the start.
    assigned: HashSet<FileId>,
    splits: BTreeMap<FileId, Split>,
    /// Their identities by their names in snapshots.
    names: HashMap<Arc<str>, FileId>,
    /// Names in snapshots of files that have come, gone or been read since they were last asked for.
    changed: HashSet<Arc<str>>,
    /// True once these have been asked for.
    is_logged: bool,
    /// Identities of those that were assigned to this one.
    own: HashSet<FileId>,
    /// Positions in the files that went last, the latest at the back.
    gone: VecDeque<(FileId, Position)>,
    /// Files to be read, in order.
    round: VecDeque<FileId>,
    open: Option<(FileId, OpenFile)>,
    /// Watching: files at their end.
    parked: Parked,
    /// Watching: a look that is under way.
    look: Option<Look>,
    /// Watching: number of looks so far.
    looks: u32,
    /// Watching: time of the next look, in monotonic nanoseconds.
    next_look_ns: u64,
    /// True if the job is cut before the end of its input, so that a last line without end is left to the next run.
    is_cut: bool,
    /// Set when the job is cancelled, which ends a look.
    interrupt: Arc<AtomicBool>,
}

impl FileReader {
    /// Opens a reader of these files.
    ///
    /// # Errors
    /// Returns [`SourceError`] if a saved position is none, or if its file is not as it was.
    pub fn new(settings: FileSource, context: SourceContext, assigned: Vec<Assigned>) -> Result<Self, SourceError> {
        let mut reader = Self {
            settings,
            assigned: HashSet::new(),
            splits: BTreeMap::new(),
            names: HashMap::new(),
            changed: HashSet::new(),
            is_logged: false,
            own: HashSet::new(),
            gone: VecDeque::new(),
            round: VecDeque::new(),
            open: None,
            parked: Parked::default(),
            look: None,
            looks: 0,
            next_look_ns: 0,
            is_cut: false,
            interrupt: Arc::default(),
            context,
        };
        for (split, saved) in &*reader.context.known {
            if let Some(file) = position_of(split, saved.as_ref())?.file {
                reader.assigned.insert(file.info.id);
            }
        }
        for (split, saved) in assigned {
            let path: Arc<str> = split.as_str().into();
            let position = position_of(&split, saved.as_ref())?;
            let position = match position.file {
                Some(_) => Some(position),
                None => identify(&path, position, &*reader.context.files)?,
            };
            if let Some(position) = position
                && let Some(id) = reader.add(path, position)
            {
                reader.own.insert(id);
                if !reader.settings.watch || position.is_behind() {
                    reader.round.push_back(id);
                }
            }
        }
        // There may be very many, which are of no use any more.
        reader.context.known = Arc::default();
        Ok(reader)
    }

    /// Takes in a file with an identity, which it returns.
    fn add(&mut self, path: Arc<str>, position: Position) -> Option<FileId> {
        let id = position.file?.info.id;
        let split = Split {
            split: self.name(&path, id),
            path,
            position,
            name: Name::Kept,
            look: self.looks,
        };
        self.splits.insert(id, split);
        Some(id)
    }

    /// Returns a name in snapshots for a file, which it then has.
    fn name(&mut self, path: &Arc<str>, id: FileId) -> Arc<str> {
        let is_taken = |name: &str| self.names.get(name).is_some_and(|other| *other != id);
        let mut name = path.clone();
        if is_taken(&name) {
            let mut other = apart(path, id);
            while is_taken(&other) {
                other.push('\'');
            }
            name = other.into();
        }
        self.names.insert(name.clone(), id);
        self.log(name.clone());
        name
    }

    /// Takes out a file.
    fn remove(&mut self, id: FileId) {
        if let Some(split) = self.splits.remove(&id) {
            self.names.remove(&split.split);
            self.log(split.split);
        }
    }

    /// Records that the position of a split has changed, or that it has come or gone.
    fn log(&mut self, name: Arc<str>) {
        if self.is_logged {
            self.changed.insert(name);
        }
    }

    /// Records that a file has another path.
    fn renamed(&mut self, id: FileId, path: Arc<str>) {
        let Some(old) = self.splits.get(&id).map(|split| split.split.clone()) else {
            return;
        };
        self.names.remove(&old);
        self.log(old);
        let name = self.name(&path, id);
        if let Some(split) = self.splits.get_mut(&id) {
            (split.path, split.split) = (path, name);
        }
    }

    /// True if a file falls to this subtask.
    fn owns(&self, id: FileId) -> bool {
        if self.assigned.contains(&id) || self.own.contains(&id) {
            return self.own.contains(&id);
        }
        let name = [id.device.to_le_bytes(), id.inode.to_le_bytes()].concat();
        xxh3_64(&name) % u64::from(self.context.parallelism) == u64::from(self.context.subtask)
    }

    /// Opens the next file of this round; returns false where none is left.
    fn next_file(&mut self) -> Result<bool, SourceError> {
        while let Some(id) = self.round.pop_front() {
            let Some(split) = self.splits.get_mut(&id) else {
                continue;
            };
            let path = split.path.clone();
            if let Some(mut file) = self.parked.take(id) {
                file.go_on(path);
                if split.name == Name::Changed {
                    split.name = Name::Kept;
                }
                self.open = Some((id, file));
                return Ok(true);
            }
            let file = match self.context.files.open(Path::new(&*path)) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(io_error(&path, error)),
            };
            let info = file.as_ref().map(|file| file.info()).transpose();
            let info = info.map_err(|error| io_error(&path, error))?;
            let Some(file) = file.filter(|_| info.is_some_and(|info| info.id == id)) else {
                if !self.settings.watch {
                    self.find_again(id)?;
                }
                // Else the next look tells where it is.
                continue;
            };
            match OpenFile::new(path, file, split.position) {
                Ok(file) => {
                    split.name = Name::Kept;
                    self.open = Some((id, file));
                    return Ok(true);
                }
                Err(ReadError::Input(error)) => self.has_other_content(id, error)?,
                Err(ReadError::Source(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Begins anew with a file that is not what it was, if that is wanted.
    fn has_other_content(&mut self, id: FileId, error: InputError) -> Result<(), SourceError> {
        let Some(split) = self.splits.get_mut(&id).filter(|_| error.is_other_content()) else {
            return Err(error.into());
        };
        // Where the time of creation is unknown, a file with another path may be another one, which has got the inode.
        if split.name != Name::Changed || id.born_ns != 0 {
            if self.settings.on_truncate == OnTruncate::Fail {
                return Err(error.into());
            }
            tracing::warn!("{error}: on-truncate = \"restart\" reads it again");
        }
        if let Some(file) = split.position.file {
            split.position = start_of(file.info);
        }
        split.name = Name::Kept;
        let name = split.split.clone();
        self.log(name);
        self.round.push_front(id);
        Ok(())
    }

    /// Bounded: looks for a file that is not at its path any more.
    fn find_again(&mut self, id: FileId) -> Result<(), SourceError> {
        let files = self.context.files.clone();
        let found = find(&self.settings, &*files)?;
        if let Some(found) = found.into_iter().find(|found| found.info.id == id) {
            self.renamed(id, found.path);
            self.round.push_front(id);
            return Ok(());
        }
        let Some(split) = self.splits.get(&id) else {
            return Ok(());
        };
        let (path, offset) = (split.path.clone(), split.position.offset);
        if offset > 0 && self.settings.on_truncate == OnTruncate::Fail {
            let path = path.to_string();
            return Err(InputError::Vanished { path, offset }.into());
        }
        self.remove(id);
        let other = look_at(&path, &*files)?.filter(|other| !self.assigned.contains(&other.id));
        match other.and_then(|other| self.add(path.clone(), start_of(other))) {
            Some(other) => self.round.push_front(other),
            None => tracing::warn!("{path} was there when the source was opened, and vanished before it was read"),
        }
        Ok(())
    }

    /// Goes on with a look, or begins one; returns false if there is nothing to be read after it.
    fn look(&mut self, now_ns: u64) -> Result<bool, SourceError> {
        let files = self.context.files.clone();
        let mut look = match self.look.take() {
            Some(look) => look,
            None => {
                self.looks += 1;
                Look::new(&self.settings, &*files, &self.interrupt)?
            }
        };
        for found in look.next(&*files)? {
            self.found(found, &mut look.round);
        }
        if !look.is_over() {
            self.look = Some(look);
            return Ok(false);
        }
        self.next_look_ns = now_ns + self.settings.poll.as_nanos() as u64;
        if self.looks == 1 && look.is_empty() && self.context.subtask == 0 {
            let path = &self.settings.path;
            tracing::warn!("no file matches {path} yet{}; the source waits for files", hint(path));
        }
        let is_missing = |(id, split): (&FileId, &Split)| (split.look < self.looks).then_some(*id);
        let missing: Vec<FileId> = self.splits.iter().filter_map(is_missing).collect();
        for id in missing {
            self.miss(id)?;
        }
        self.round.append(&mut look.round);
        Ok(!self.round.is_empty())
    }

    /// Takes in a file that a look has found.
    fn found(&mut self, found: Found, round: &mut VecDeque<FileId>) {
        let id = found.info.id;
        if !self.splits.contains_key(&id) && self.owns(id) {
            let of_id = |(gone, _): &(FileId, Position)| *gone == id;
            let back = self.gone.iter().position(of_id).and_then(|at| self.gone.remove(at));
            let position = back.map_or_else(|| start_of(found.info), |(_, position)| position);
            self.add(found.path.clone(), position);
            // Where the time of creation is unknown, it may be another file, which has got the inode of the one that is gone.
            if let Some(split) = self.splits.get_mut(&id).filter(|_| back.is_some() && id.born_ns == 0) {
                split.name = Name::Changed;
            }
        }
        let Some(split) = self.splits.get_mut(&id) else { return };
        split.look = self.looks;
        let is_renamed = split.path != found.path;
        if is_renamed {
            split.name = Name::Changed;
        } else if matches!(split.name, Name::Gone | Name::Ending) {
            split.name = Name::Kept;
        }
        if split.position.file.is_none_or(|file| file.info != found.info) {
            round.push_back(id);
        }
        if is_renamed {
            self.renamed(id, found.path);
        }
    }

    /// Reads on with a file that has no name any more, before what is there in its place, or forgets it at its end.
    fn miss(&mut self, id: FileId) -> Result<(), SourceError> {
        let Some(split) = self.splits.get_mut(&id) else {
            return Ok(());
        };
        let position = split.position;
        let Position { offset, file, .. } = position;
        let is_gone = split.look + LOOKS_TO_MISS <= self.looks;
        if is_gone && split.name != Name::Ending {
            split.name = Name::Gone;
        }
        match self.parked.get(id) {
            Some(file) if file.has_more()? => {
                self.round.push_back(id);
                return Ok(());
            }
            _ if !is_gone => return Ok(()),
            Some(file) if file.has_rest() => {
                split.name = Name::Ending;
                self.round.push_back(id);
                return Ok(());
            }
            Some(_) => {}
            None if self.settings.on_truncate == OnTruncate::Restart || offset == 0 => {}
            None => {
                if let Some(len) = file.map(|file| file.info.len).filter(|len| *len > offset) {
                    let path = split.path.to_string();
                    let is_replaced = look_at(&path, &*self.context.files)?.is_some();
                    return Err(match is_replaced {
                        true => InputError::Replaced { path, offset, len },
                        false => InputError::Vanished { path, offset },
                    }
                    .into());
                }
            }
        }
        tracing::info!("{} is gone; {offset} bytes of it were read", split.path);
        self.parked.take(id);
        self.remove(id);
        if self.gone.len() == GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back((id, position));
        Ok(())
    }

    /// Reads the next records of the open file, which is closed or parked at its end.
    fn read(&mut self, records_max: usize) -> Result<Option<Batch>, SourceError> {
        let Some((id, file)) = &mut self.open else {
            return Ok(None);
        };
        let id = *id;
        let (key, max) = (self.settings.key, self.settings.max_record);
        let Some(split) = self.splits.get_mut(&id) else {
            self.open = None;
            return Ok(None);
        };
        let takes_rest = match self.settings.watch {
            true => split.name == Name::Ending,
            false => !self.is_cut,
        };
        let mut batch = Batch::default();
        let mut outcome = Ok(true);
        while batch.len() < records_max && batch.values.data.len() < BATCH_BYTES_MAX && matches!(outcome, Ok(true)) {
            outcome = file.next_line(key, max, &mut batch);
            if takes_rest && matches!(outcome, Ok(false)) {
                outcome = file.last_line(key, max, &mut batch);
            }
        }
        let first = split.position.line + 1;
        split.position = file.position();
        if self.is_logged {
            self.changed.insert(split.split.clone());
        }
        let batch = (!batch.is_empty()).then(|| {
            batch.origin = Some(Origin::sequence(file.path.clone(), first));
            batch
        });
        match outcome {
            Ok(true) => {}
            Ok(false) => self.close(),
            // What was read before comes first; then the same error is found again.
            Err(_) if batch.is_some() => {}
            Err(ReadError::Input(error)) => {
                self.open = None;
                self.has_other_content(id, error)?;
            }
            Err(ReadError::Source(error)) => return Err(error),
        }
        Ok(batch)
    }

    /// Leaves the open file, which is at its end.
    fn close(&mut self) {
        let Some((id, file)) = self.open.take() else { return };
        if self.settings.watch {
            let splits = &self.splits;
            let is_nameless = |id: FileId| {
                splits
                    .get(&id)
                    .is_some_and(|split| matches!(split.name, Name::Gone | Name::Ending))
            };
            self.parked.add(id, file, is_nameless);
        } else if file.has_rest() {
            tracing::warn!(
                "{} ends within line {}, which is left to the run that goes on from the savepoint",
                file.path,
                file.position().line + 1
            );
        }
    }
}

/// Returns a file as it is saved.
fn state_of(split: &Split) -> SplitState {
    let mut position = split.position.to_json();
    if split.split != split.path {
        position["path"] = json!(&*split.path);
    }
    SplitState {
        split: split.split.to_string(),
        position,
    }
}

fn position_of(split: &str, saved: Option<&serde_json::Value>) -> Result<Position, SourceError> {
    saved.map_or(Ok(Position::START), |saved| Position::parse(split, saved))
}

impl SourceReader for FileReader {
    fn poll(&mut self, records_max: usize, now_ns: u64) -> Result<Polled, SourceError> {
        loop {
            if self.open.is_some() {
                if let Some(batch) = self.read(records_max)? {
                    return Ok(Polled::Batch(batch));
                }
            } else if self.look.is_none() && self.next_file()? {
                continue;
            } else if !self.settings.watch {
                return Ok(Polled::Exhausted);
            } else if self.look.is_none() && now_ns < self.next_look_ns {
                return Ok(Polled::Idle(self.next_look_ns));
            } else if !self.look(now_ns)? {
                // A long look is interrupted, so that a barrier can pass.
                let is_over = self.look.is_none();
                return Ok(Polled::Idle(if is_over { self.next_look_ns } else { now_ns }));
            }
        }
    }

    fn snapshot(&self) -> Vec<SplitState> {
        let mut splits: Vec<&Split> = self.splits.values().collect();
        splits.sort_by(|a, b| a.split.cmp(&b.split));
        splits.into_iter().map(state_of).collect()
    }

    fn split_count(&self) -> usize {
        self.splits.len()
    }

    fn changed(&mut self) -> Vec<Arc<str>> {
        // From the first snapshot on, since that one has all positions.
        self.is_logged = true;
        self.changed.drain().collect()
    }

    fn position(&self, split: &str) -> Option<SplitState> {
        let id = self.names.get(split)?;
        self.splits.get(id).map(state_of)
    }

    fn open_splits(&self) -> Vec<Arc<str>> {
        self.splits.values().map(|split| split.path.clone()).collect()
    }

    fn has_splits(&self) -> bool {
        !self.splits.is_empty()
    }

    fn cut_before_end(&mut self) {
        self.is_cut = true;
    }

    fn interrupt_by(&mut self, flag: Arc<AtomicBool>) {
        self.interrupt = flag;
    }
}

#[cfg(test)]
mod tests;
