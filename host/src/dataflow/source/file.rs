//! Lines of files. A split is one file; its position is a byte offset and a line number.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use regraft_model::batch::Batch;
use regraft_model::origin::Origin;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::{Polled, SourceError, SourceReader, SplitState};
use crate::graph::job_graph::{FileSource, LineKey};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// A batch with this many bytes is handed on, however few its lines are.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Whether a match is meant. As in a shell, a `*` does not match the dot that hides a name: a file that is still being written
/// has one until it is renamed, and would vanish then. (The option of `glob` for that finds no `.*` either, and panics on
/// names that are no Unicode.)
fn is_meant(path: &Path, dotted: &[glob::Pattern]) -> bool {
    path.iter().all(|name| {
        let name = name.to_string_lossy();
        !name.starts_with('.') || dotted.iter().any(|pattern| pattern.matches(&name))
    })
}

/// The names of all files that match, sorted. Hidden ones are not matched by a `*`.
///
/// # Errors
/// [`SourceError::Glob`], [`SourceError::Directory`], or [`SourceError::NothingMatches`] of a bounded source.
pub fn list(settings: &FileSource) -> Result<Vec<String>, SourceError> {
    let paths = glob::glob(&settings.path).map_err(|error| SourceError::Glob {
        path: settings.path.clone(),
        message: error.to_string(),
    })?;
    let parts = settings.path.split('/').filter(|part| part.starts_with('.'));
    let dotted: Vec<glob::Pattern> = parts.filter_map(|part| glob::Pattern::new(part).ok()).collect();
    let mut names: Vec<String> = paths
        .filter_map(Result::ok)
        .filter(|path| path.is_file() && is_meant(path, &dotted))
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    names.sort();
    if names.is_empty() && Path::new(&settings.path).is_dir() {
        return Err(SourceError::Directory {
            path: settings.path.trim_end_matches('/').to_owned(),
        });
    }
    if names.is_empty() && !settings.watch {
        return Err(SourceError::NothingMatches {
            path: settings.path.clone(),
        });
    }
    Ok(names)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    offset: u64,
    line: u64,
}

/// Reads the files of one subtask.
#[derive(Debug)]
pub struct FileReader {
    settings: FileSource,
    subtask: u32,
    parallelism: u32,
    /// Own files, in order of path.
    positions: BTreeMap<String, Position>,
    /// Files that some subtask has been given at the start; later ones are found by their owner.
    known: Arc<HashSet<String>>,
    /// Bounded: files read to their end.
    done: HashSet<String>,
    open: Option<OpenFile>,
    /// Watching: when to look for new files and new content.
    next_poll_ns: u64,
    /// Watching: files to look at in this round.
    round: Vec<String>,
}

#[derive(Debug)]
struct OpenFile {
    name: Arc<str>,
    file: File,
    /// Read and not yet handed on.
    buffer: Vec<u8>,
    /// Where the first byte of `buffer[start..]` stands.
    start: usize,
    /// Up to where `buffer` was searched for a line's end.
    searched: usize,
    at_end: bool,
}

impl FileReader {
    /// A reader of given files, each with a saved position or none. `known` are the files of all subtasks.
    ///
    /// # Errors
    /// [`SourceError`] where a saved position is none, or its file is shorter than that, or gone.
    pub fn new(
        settings: FileSource,
        subtask: u32,
        parallelism: u32,
        splits: Vec<(String, Option<serde_json::Value>)>,
        known: Arc<HashSet<String>>,
    ) -> Result<Self, SourceError> {
        let mut positions = BTreeMap::new();
        for (name, saved) in splits {
            let position = saved
                .as_ref()
                .map_or(Ok(Position::default()), |saved| parse(&name, saved))?;
            check_length(&name, position)?;
            positions.insert(name, position);
        }
        let round = positions.keys().cloned().collect();
        Ok(Self {
            settings,
            subtask,
            parallelism,
            positions,
            known,
            done: HashSet::new(),
            open: None,
            next_poll_ns: 0,
            round,
        })
    }

    /// Looks for new files, and for more in those known.
    fn look(&mut self, now_ns: u64) -> Result<(), SourceError> {
        self.next_poll_ns = now_ns + self.settings.poll.as_nanos() as u64;
        for name in list(&self.settings)? {
            let own = !self.known.contains(&name)
                && (xxh3_64(name.as_bytes()) % u64::from(self.parallelism)) as u32 == self.subtask;
            if own {
                self.positions.entry(name).or_default();
            }
        }
        self.round = self.positions.keys().cloned().collect();
        Ok(())
    }

    /// The next file of this round that may have something to read.
    fn next_file(&mut self) -> Result<bool, SourceError> {
        while !self.round.is_empty() {
            let name = self.round.remove(0);
            if self.done.contains(&name) {
                continue;
            }
            let position = self.positions.get(&name).copied().unwrap_or_default();
            check_length(&name, position)?;
            let io = |error| SourceError::Io {
                path: name.clone(),
                error,
            };
            let mut file = File::open(&name).map_err(io)?;
            file.seek(SeekFrom::Start(position.offset)).map_err(io)?;
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

/// A file that has been read from must still be there, and as long.
fn check_length(name: &str, position: Position) -> Result<(), SourceError> {
    match std::fs::metadata(Path::new(name)) {
        Ok(metadata) if metadata.len() < position.offset => Err(SourceError::Shrunk {
            path: name.to_owned(),
            offset: position.offset,
            len: metadata.len(),
        }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(SourceError::Vanished {
            path: name.to_owned(),
            offset: position.offset,
        }),
        Err(error) => Err(SourceError::Io {
            path: name.to_owned(),
            error,
        }),
    }
}

impl OpenFile {
    /// Appends the next whole line to the batch, without its end. None: there is no whole line.
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

    /// The unterminated last line.
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

    fn fill(&mut self) -> Result<bool, SourceError> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + CHUNK_BYTES, 0);
        let read = loop {
            match self.file.read(&mut self.buffer[old..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn settings(path: &str, watch: bool) -> FileSource {
        FileSource {
            path: path.to_owned(),
            watch,
            poll: Duration::from_nanos(1),
            key: LineKey::None,
        }
    }

    fn reader(path: &str, watch: bool, saved: &[SplitState]) -> Result<FileReader, SourceError> {
        let settings = settings(path, watch);
        let names = list(&settings)?;
        let at = |name: &String| saved.iter().find(|s| s.split == *name).map(|s| s.position.clone());
        let splits = names.iter().map(|name| (name.clone(), at(name))).collect();
        FileReader::new(settings, 0, 1, splits, Arc::new(names.into_iter().collect()))
    }

    static NOW: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

    fn drain(reader: &mut FileReader, records_max: usize) -> Vec<String> {
        let mut lines = vec![];
        let mut idle = 0;
        loop {
            let now = NOW.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match reader.poll(records_max, now).expect("readable") {
                Polled::Batch(batch) => {
                    lines.extend(batch.values.iter().map(|v| String::from_utf8_lossy(v).into_owned()));
                    idle = 0;
                }
                Polled::Idle(_) if idle < 3 => idle += 1,
                _ => break,
            }
        }
        lines
    }

    #[test]
    fn lines_positions_and_line_ends() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("b.txt"), "3\r\n\n5").expect("write");
        std::fs::write(dir.path().join("a.txt"), "1\n2\n").expect("write");
        let glob = dir.path().join("*.txt").to_string_lossy().into_owned();
        let mut all = reader(&glob, false, &[]).expect("reader");
        assert_eq!(drain(&mut all, 2), ["1", "2", "3", "", "5"]);
        assert_eq!(all.snapshot()[1].position, json!({"offset": 5, "line": 3}));
        let mut part = reader(&glob, false, &[]).expect("reader");
        assert!(matches!(part.poll(1, 1), Ok(Polled::Batch(_))));
        let mut rest = reader(&glob, false, &part.snapshot()).expect("reader");
        assert_eq!(drain(&mut rest, 10), ["2", "3", "", "5"]);
        // Watching holds an unterminated line back, takes it once it is whole, and finds new files.
        let mut watch = reader(&glob, true, &[]).expect("reader");
        assert_eq!(drain(&mut watch, 10), ["1", "2", "3", ""]);
        std::fs::write(dir.path().join("b.txt"), "3\r\n\n55\n").expect("write");
        std::fs::write(dir.path().join("0.txt"), "new\n").expect("write");
        assert_eq!(drain(&mut watch, 10), ["new", "55"]);
    }

    #[test]
    fn changed_files_are_told() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("a.txt").to_string_lossy().into_owned();
        let missing = list(&settings(&path, false)).expect_err("missing").to_string();
        assert_eq!(
            missing,
            format!(
                "no file matches {path}; expected at least one; check the path, or use mode = \"watch\" to wait for files"
            )
        );
        std::fs::write(&path, "1\n2\n").expect("write");
        let mut all = reader(&path, false, &[]).expect("reader");
        drain(&mut all, 10);
        let saved = all.snapshot();
        std::fs::write(&path, "1\n").expect("write");
        let shrunk = reader(&path, false, &saved).expect_err("shrunk").to_string();
        assert!(
            shrunk.contains("has shrunk: it was read to byte 4, and has 2 bytes"),
            "{shrunk}"
        );
        let vanished = FileReader::new(
            settings("x", false),
            0,
            1,
            vec![("nowhere.txt".into(), Some(json!({"offset": 4, "line": 2})))],
            Arc::default(),
        );
        let vanished = vanished.expect_err("vanished").to_string();
        assert!(
            vanished.starts_with("nowhere.txt has vanished: it was read to byte 4"),
            "{vanished}"
        );
    }
}
