//! Reads lines of files: a split is one file, its position a byte offset and a line number.

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use regraft_model::batch::Batch;
use regraft_model::origin::Origin;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::settings::{FileSource, LineKey};
use super::splits::{InputError, list};
use crate::connector::source::{Assigned, Polled, SourceContext, SourceError, SourceReader, SplitState};
use crate::environment::files::{FileSystem, ReadFile};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// A batch with this many bytes is handed on, however few its lines are.
const BATCH_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    offset: u64,
    line: u64,
}

/// Reads the files of one subtask.
#[derive(Debug)]
pub struct FileReader {
    settings: FileSource,
    /// Its subtask, and the files that all subtasks were given at the start: later ones are found by their owner.
    context: SourceContext,
    /// Own files, in order of path.
    positions: BTreeMap<String, Position>,
    /// Bounded: files read to their end.
    done: HashSet<String>,
    open: Option<OpenFile>,
    /// Watching: when to look for new files and new content, in monotonic nanoseconds.
    next_poll_ns: u64,
    /// Watching: files to look at in this round.
    round: Vec<String>,
}

#[derive(Debug)]
struct OpenFile {
    name: Arc<str>,
    file: Box<dyn ReadFile>,
    /// Read and not yet handed on.
    buffer: Vec<u8>,
    /// Offset in `buffer` of the first byte that has not been handed on.
    start: usize,
    /// Offset up to which `buffer` has been searched for the end of a line.
    searched: usize,
    at_end: bool,
}

impl FileReader {
    /// Opens a reader of these files.
    ///
    /// # Errors
    /// [`SourceError`] where a saved position is none, or its file is shorter than that, or gone.
    pub fn new(settings: FileSource, context: SourceContext, splits: Vec<Assigned>) -> Result<Self, SourceError> {
        let mut positions = BTreeMap::new();
        for (name, saved) in splits {
            let position = saved
                .as_ref()
                .map_or(Ok(Position::default()), |saved| parse(&name, saved))?;
            check_length(&*context.files, &name, position)?;
            positions.insert(name, position);
        }
        let round = positions.keys().cloned().collect();
        Ok(Self {
            settings,
            context,
            positions,
            done: HashSet::new(),
            open: None,
            next_poll_ns: 0,
            round,
        })
    }

    /// Looks for new files, and begins a new round over all files.
    fn look(&mut self, now_ns: u64) -> Result<(), SourceError> {
        self.next_poll_ns = now_ns + self.settings.poll.as_nanos() as u64;
        let of = &self.context;
        for name in list(&self.settings, &*of.files)? {
            let owner = (xxh3_64(name.as_bytes()) % u64::from(of.parallelism)) as u32;
            if owner == of.subtask && !of.known.contains(&name) {
                self.positions.entry(name).or_default();
            }
        }
        self.round = self.positions.keys().cloned().collect();
        Ok(())
    }

    /// Opens the next file of this round; returns false where none is left.
    fn next_file(&mut self) -> Result<bool, SourceError> {
        while !self.round.is_empty() {
            let name = self.round.remove(0);
            if self.done.contains(&name) {
                continue;
            }
            let position = self.positions.get(&name).copied().unwrap_or_default();
            check_length(&*self.context.files, &name, position)?;
            let opened = self.context.files.open(Path::new(&name), position.offset);
            let file = opened.map_err(|error| SourceError::Io {
                path: name.clone(),
                error,
            })?;
            self.open = Some(OpenFile {
                name: name.as_str().into(),
                file,
                buffer: Vec::with_capacity(CHUNK_BYTES),
                start: 0,
                searched: 0,
                at_end: false,
            });
            return Ok(true);
        }
        Ok(false)
    }
}

fn parse(name: &str, saved: &serde_json::Value) -> Result<Position, SourceError> {
    match (saved["offset"].as_u64(), saved["line"].as_u64()) {
        (Some(offset), Some(line)) => Ok(Position { offset, line }),
        _ => Err(SourceError::Position {
            split: name.to_owned(),
            position: saved.to_string(),
            connector: "file",
        }),
    }
}

/// Checks that a file is still there, and as long as what was read of it.
fn check_length(files: &dyn FileSystem, name: &str, position: Position) -> Result<(), SourceError> {
    let (path, offset) = (name.to_owned(), position.offset);
    match files.info(Path::new(name)) {
        Ok(info) if info.len < offset => Err(InputError::Shrunk {
            path,
            offset,
            len: info.len,
        }
        .into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(InputError::Vanished { path, offset }.into()),
        Err(error) => Err(SourceError::Io { path, error }),
    }
}

impl OpenFile {
    /// Appends the next whole line to the batch, without its end, and returns its length with it; `None` where the file has
    /// no whole line.
    fn next_line(&mut self, key: LineKey, batch: &mut Batch) -> Result<Option<u64>, SourceError> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let end = self.searched + found;
                let mut line = &self.buffer[self.start..end];
                if let [rest @ .., b'\r'] = line {
                    line = rest;
                }
                push(line, key, batch);
                let taken = (end + 1 - self.start) as u64;
                self.start = end + 1;
                self.searched = self.start;
                return Ok(Some(taken));
            }
            self.searched = self.buffer.len();
            if self.at_end || !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Appends the unterminated last line, and returns its length; `None` where there is none.
    fn last_line(&mut self, key: LineKey, batch: &mut Batch) -> Option<u64> {
        let line = &self.buffer[self.start..];
        if line.is_empty() {
            return None;
        }
        push(line, key, batch);
        let taken = line.len() as u64;
        self.start = self.buffer.len();
        self.searched = self.start;
        Some(taken)
    }

    /// Reads the next block; returns false at the end of the file.
    fn fill(&mut self) -> Result<bool, SourceError> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + CHUNK_BYTES, 0);
        let read = loop {
            match self.file.read(&mut self.buffer[old..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let read = read.map_err(|error| SourceError::Io {
            path: self.name.to_string(),
            error,
        })?;
        self.buffer.truncate(old + read);
        self.at_end = read == 0;
        Ok(read > 0)
    }
}

fn push(line: &[u8], key: LineKey, batch: &mut Batch) {
    if key == LineKey::Line {
        batch.keys.column.push(line);
    }
    batch.values.push(line);
}

impl SourceReader for FileReader {
    fn poll(&mut self, records_max: usize, now_ns: u64) -> Result<Polled, SourceError> {
        loop {
            if self.open.is_none() && !self.next_file()? {
                if !self.settings.watch {
                    return Ok(Polled::Exhausted);
                }
                if now_ns < self.next_poll_ns {
                    return Ok(Polled::Idle(self.next_poll_ns));
                }
                self.look(now_ns)?;
                if self.round.is_empty() {
                    return Ok(Polled::Idle(self.next_poll_ns));
                }
                continue;
            }
            let Some(open) = &mut self.open else { continue };
            let mut position = self.positions.get(&*open.name).copied().unwrap_or_default();
            let first = position.line + 1;
            let mut batch = Batch::default();
            let mut more = true;
            while batch.len() < records_max && batch.values.data.len() < BATCH_BYTES_MAX {
                let mut taken = open.next_line(self.settings.key, &mut batch)?;
                if taken.is_none() && !self.settings.watch {
                    taken = open.last_line(self.settings.key, &mut batch);
                }
                let Some(bytes) = taken else {
                    more = false;
                    break;
                };
                position.offset += bytes;
                position.line += 1;
            }
            let name = open.name.clone();
            self.positions.insert(name.to_string(), position);
            if !more {
                self.open = None;
                if !self.settings.watch {
                    self.done.insert(name.to_string());
                }
            }
            if !batch.is_empty() {
                batch.origin = Some(Origin::sequence(name, first));
                return Ok(Polled::Batch(batch));
            }
            if self.settings.watch && self.round.is_empty() {
                return Ok(Polled::Idle(self.next_poll_ns.max(now_ns)));
            }
        }
    }

    fn snapshot(&self) -> Vec<SplitState> {
        let state = |(name, position): (&String, &Position)| SplitState {
            split: name.clone(),
            position: json!({ "offset": position.offset, "line": position.line }),
        };
        self.positions.iter().map(state).collect()
    }
}
