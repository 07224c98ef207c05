//! A file that is being read: whole lines, of a file that stays what it was.
//!
//! After each block that was read, the facts about the file are compared with the last ones. If they differ, what was read
//! must still be there: the first [`HEAD_BYTES`](super::position::HEAD_BYTES) and the last bytes that were read, compared
//! byte by byte. So no record is made of two contents, and none starts in the middle of a line.

use std::io::ErrorKind;
use std::sync::Arc;

use regraft_model::batch::Batch;

use super::input_error::{InputError, ReadError, io_error};
use super::position::{HEAD_BYTES, Known, Position, TAIL_BYTES, edges, fingerprint, spans};
use super::settings::LineKey;
use crate::connector::source::SourceError;
use crate::environment::files::{FileInfo, ReadFile};

/// Bytes read at once, at most.
const CHUNK_BYTES: usize = 256 * 1024;
/// Room for bytes at the end of a file, which may grow.
const CHUNK_BYTES_LEAST: usize = 1024;
/// The byte order mark of UTF-8, which some editors put at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file that is being read.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// The name of the file in messages and origins.
    pub(super) path: Arc<str>,
    file: Box<dyn ReadFile>,
    /// Facts about the file as they were at the last check.
    info: FileInfo,
    /// The beginning of the file, as far as it was read, at most [`HEAD_BYTES`].
    head: Vec<u8>,
    /// The last bytes that were handed on, at least [`TAIL_BYTES`] where there are so many, and those that are read and not
    /// yet handed on.
    buffer: Vec<u8>,
    /// Position of the buffer in the file.
    base: u64,
    /// Offset in `buffer` of the first byte that has not been handed on.
    start: usize,
    /// Offset up to which `buffer` has been searched for the end of a line.
    searched: usize,
    /// Number of lines handed on.
    line: u64,
    /// True at the end of the file as it was at the last look.
    at_end: bool,
    /// True if the position is behind a line that was handed on without its end.
    within_line: bool,
}

impl OpenFile {
    /// Begins to read a file from a position on, if what was read of it is still there.
    ///
    /// # Errors
    /// Returns [`InputError::Shrunk`] or [`InputError::Changed`], or the system's error.
    pub(super) fn new(path: Arc<str>, file: Box<dyn ReadFile>, position: Position) -> Result<Self, ReadError> {
        let Position {
            offset,
            line,
            file: known,
        } = position;
        let info = file.info().map_err(|error| io_error(&path, error))?;
        let shrunk = |len| InputError::Shrunk {
            path: path.to_string(),
            offset,
            len,
        };
        if info.len < offset {
            return Err(shrunk(info.len).into());
        }
        let edges = edges(&*file, offset).map_err(|error| io_error(&path, error))?;
        let Some([head, tail]) = edges else {
            return Err(shrunk(file.info().map_or(0, |info| info.len)).into());
        };
        if known.is_some_and(|known| known.fingerprint != fingerprint(&head, &tail)) {
            let path = path.to_string();
            return Err(InputError::Changed { path, offset }.into());
        }
        Ok(Self {
            path,
            file,
            info,
            head,
            base: offset - tail.len() as u64,
            start: tail.len(),
            searched: tail.len(),
            line,
            at_end: false,
            within_line: tail.last().is_some_and(|last| *last != b'\n'),
            buffer: tail,
        })
    }

    /// Returns the position behind the last line handed on, with the facts about the file.
    pub(super) fn position(&self) -> Position {
        let offset = self.offset();
        let (head, tail) = spans(offset);
        let head = self.head.get(..head).unwrap_or_default();
        let tail = self.buffer.get(self.start - tail..self.start).unwrap_or_default();
        let file = Known {
            info: self.info,
            fingerprint: fingerprint(head, tail),
        };
        Position {
            offset,
            line: self.line,
            file: Some(file),
        }
    }

    fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Returns the number of bytes that it holds in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.head.capacity()
    }

    /// Gives back memory that only reading needs.
    pub(super) fn rest(&mut self) {
        self.drop_handed_on();
        self.buffer.shrink_to_fit();
    }

    /// Reads on with a file that was at its end, under its present path.
    pub(super) fn go_on(&mut self, path: Arc<str>) {
        self.path = path;
        self.at_end = false;
    }

    /// True if the file has grown, or changed, since it was read to its end.
    ///
    /// # Errors
    /// Returns the system's error.
    pub(super) fn has_more(&self) -> Result<bool, SourceError> {
        let info = self.file.info().map_err(|error| io_error(&self.path, error))?;
        Ok(info.len != self.info.len || info.modified_ns != self.info.modified_ns)
    }

    /// Appends the next whole line to the batch, without its end; returns false where the file has no whole line.
    ///
    /// # Errors
    /// Returns the reason why the file cannot be read on.
    pub(super) fn next_line(&mut self, key: LineKey, max: usize, batch: &mut Batch) -> Result<bool, ReadError> {
        loop {
            if self.within_line && !self.end_line()? {
                if self.at_end || !self.fill()? {
                    return Ok(false);
                }
                continue;
            }
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let end = self.searched + found;
                self.push(end, key, max, batch)?;
                self.start = end + 1;
                self.searched = self.start;
                return Ok(true);
            }
            self.searched = self.buffer.len();
            self.check_length(self.buffer.len() - self.start, max)?;
            if self.at_end || !self.fill()? {
                return Ok(false);
            }
        }
    }

    /// Appends the unterminated last line; returns false where there is none.
    ///
    /// # Errors
    /// Returns [`InputError::TooLong`].
    pub(super) fn last_line(&mut self, key: LineKey, max: usize, batch: &mut Batch) -> Result<bool, ReadError> {
        if !self.has_rest() {
            return Ok(false);
        }
        self.push(self.buffer.len(), key, max, batch)?;
        self.start = self.buffer.len();
        self.searched = self.start;
        self.within_line = true;
        Ok(true)
    }

    /// True if bytes of a line without end are read and not handed on.
    pub(super) fn has_rest(&self) -> bool {
        let rest = &self.buffer[self.start..];
        let is_mark = self.offset() == 0 && rest == BYTE_ORDER_MARK;
        !(rest.is_empty() || self.within_line || is_mark)
    }

    /// Skips the end of a line that was handed on without it; returns false if it is not there yet.
    fn end_line(&mut self) -> Result<bool, InputError> {
        let skipped = match &self.buffer[self.start..] {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [] | [b'\r'] => return Ok(false),
            _ => {
                return Err(InputError::WentOn {
                    path: self.path.to_string(),
                    line: self.line,
                    offset: self.offset(),
                });
            }
        };
        self.start += skipped;
        self.searched = self.start;
        self.within_line = false;
        Ok(true)
    }

    /// Appends the line that ends at an offset of the buffer.
    fn push(&mut self, end: usize, key: LineKey, max: usize, batch: &mut Batch) -> Result<(), InputError> {
        let mut line = &self.buffer[self.start..end];
        if self.offset() == 0 {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        // A carriage return is part of a line end only before a line feed.
        if let ([rest @ .., b'\r'], Some(b'\n')) = (line, self.buffer.get(end)) {
            line = rest;
        }
        self.check_length(line.len(), max)?;
        if key == LineKey::Line {
            batch.keys.column.push(line);
        }
        batch.values.push(line);
        self.line += 1;
        Ok(())
    }

    fn check_length(&self, len: usize, max: usize) -> Result<(), InputError> {
        if len <= max {
            return Ok(());
        }
        Err(InputError::TooLong {
            path: self.path.to_string(),
            line: self.line + 1,
            max,
        })
    }

    /// Drops what was handed on, but for what a fingerprint needs.
    fn drop_handed_on(&mut self) {
        let dropped = self.start.saturating_sub(TAIL_BYTES);
        self.buffer.drain(..dropped);
        self.base += dropped as u64;
        self.start -= dropped;
        self.searched -= dropped;
    }

    /// Reads the next block; returns false at the end of the file.
    fn fill(&mut self) -> Result<bool, ReadError> {
        self.drop_handed_on();
        loop {
            let old = self.buffer.len();
            let end = self.base + old as u64;
            let left = usize::try_from(self.info.len.saturating_sub(end)).unwrap_or(CHUNK_BYTES);
            self.buffer.resize(old + left.clamp(CHUNK_BYTES_LEAST, CHUNK_BYTES), 0);
            let read = loop {
                match self.file.read_at(end, &mut self.buffer[old..]) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            self.buffer.truncate(old + *read.as_ref().unwrap_or(&0));
            let read = read.map_err(|error| io_error(&self.path, error))?;
            let head = self.head.len();
            let missing = HEAD_BYTES.saturating_sub(head);
            self.head.extend(self.buffer[old..].iter().take(missing));
            if let Err(error) = self.check(end) {
                self.head.truncate(head);
                self.buffer.truncate(old);
                return Err(error);
            }
            if read > 0 {
                return Ok(true);
            }
            // What was appended between the read and the check is read now, as the next look would see no difference.
            if self.info.len <= end {
                self.at_end = true;
                return Ok(false);
            }
        }
    }

    /// Checks that everything that was read is still there, if anything about the file has changed. `offset`: where the last
    /// block begins, up to which the file was as it was.
    fn check(&mut self, offset: u64) -> Result<(), ReadError> {
        let failed = |error| io_error(&self.path, error);
        let info = self.file.info().map_err(failed)?;
        if info == self.info {
            return Ok(());
        }
        let end = self.base + self.buffer.len() as u64;
        let path = || self.path.to_string();
        let shrunk = |len| InputError::Shrunk {
            path: path(),
            offset,
            len,
        };
        if info.len < end {
            return Err(shrunk(info.len).into());
        }
        let Some([head, tail]) = edges(&*self.file, end).map_err(failed)? else {
            return Err(shrunk(self.file.info().map_err(failed)?.len).into());
        };
        if head != self.head || !self.buffer.ends_with(&tail) {
            let path = path();
            return Err(InputError::Changed { path, offset }.into());
        }
        self.info = info;
        Ok(())
    }
}
