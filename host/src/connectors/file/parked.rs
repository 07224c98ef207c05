//! Files that a watching source has read to their end and keeps open.
//!
//! Through its handle, a file can be read to its end after it has lost its name, and a line without end need not be read
//! again when the file grows.

use std::collections::VecDeque;

use super::open_file::OpenFile;
use crate::environment::files::FileId;

/// Number of files kept open, at most, beside those that have no name any more.
const FILES_MAX: usize = 32;
/// Bytes of lines without end that are kept for them, at most.
const BYTES_MAX: usize = 64 << 20;

/// Open files, the last one that was read at the back.
#[derive(Debug, Default)]
pub(super) struct Parked(VecDeque<(FileId, OpenFile)>);

impl Parked {
    /// Adds a file, and closes the oldest ones of which there is no need.
    pub(super) fn add(&mut self, id: FileId, mut file: OpenFile, is_needed: impl Fn(FileId) -> bool) {
        file.rest();
        self.0.push_back((id, file));
        let mut bytes: usize = self.0.iter().map(|(_, file)| file.held_bytes()).sum();
        let mut at = 0;
        while at + 1 < self.0.len() && (self.0.len() > FILES_MAX || bytes > BYTES_MAX) {
            match self.0.get(at) {
                Some((id, file)) if !is_needed(*id) => {
                    bytes -= file.held_bytes();
                    self.0.remove(at);
                }
                _ => at += 1,
            }
        }
    }

    /// Takes a file out, to be read on or to be closed.
    pub(super) fn take(&mut self, id: FileId) -> Option<OpenFile> {
        let at = self.0.iter().position(|(parked, _)| *parked == id)?;
        self.0.remove(at).map(|(_, file)| file)
    }

    /// Returns a file.
    pub(super) fn get(&mut self, id: FileId) -> Option<&mut OpenFile> {
        self.0
            .iter_mut()
            .find(|(parked, _)| *parked == id)
            .map(|(_, file)| file)
    }
}
