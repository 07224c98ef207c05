//! Position within a file, and the identity of that file: everything that a snapshot keeps of a split.
//!
//! The identity has two parts, see `docs/design/0016-file-identity.md`: what the file system says of the file ([`FileInfo`]),
//! and a fingerprint of what was read of it. Pure, but for [`edges`], which reads a file.

use std::io;

use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use crate::connector::source::SourceError;
use crate::environment::files::{FileId, FileInfo, FileKind, ReadFile};

/// Bytes of a file's beginning that its fingerprint covers, at most.
pub(super) const HEAD_BYTES: usize = 1024;
/// Bytes before the position that the fingerprint covers, at most.
pub(super) const TAIL_BYTES: usize = 256;

/// The greatest offset or number of lines in a saved position, so that more can be counted.
const NUMBER_MAX: u64 = u64::MAX >> 2;

/// A position within a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Byte offset behind the last record.
    pub(super) offset: u64,
    /// Number of lines before it.
    pub(super) line: u64,
    /// The file that was read; `None` in snapshots of earlier versions, and before the file was looked at.
    pub(super) file: Option<Known>,
}

/// A file as it was when it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Facts about it.
    pub(super) info: FileInfo,
    /// Fingerprint of what was read of it.
    pub(super) fingerprint: u64,
}

impl Position {
    /// The beginning of a file of which nothing was read.
    pub(super) const START: Self = Self {
        offset: 0,
        line: 0,
        file: None,
    };

    /// Parses a saved position.
    ///
    /// # Errors
    /// Returns [`SourceError::Position`] if it is none of a file source.
    pub(super) fn parse(split: &str, saved: &Value) -> Result<Self, SourceError> {
        let of_file = match &saved["file"] {
            Value::Null => Some(None),
            Value::String(text) => Known::parse(text).map(Some),
            _ => None,
        };
        let number = |key: &str| saved[key].as_u64().filter(|number| *number <= NUMBER_MAX);
        match (number("offset"), number("line"), of_file) {
            (Some(offset), Some(line), Some(file)) => Ok(Self { offset, line, file }),
            _ => Err(SourceError::Position {
                split: split.to_owned(),
                position: saved.to_string(),
                connector: "file",
            }),
        }
    }

    /// Returns it as it is saved.
    pub(super) fn to_json(self) -> Value {
        match self.file {
            None => json!({ "offset": self.offset, "line": self.line }),
            Some(file) => json!({ "offset": self.offset, "line": self.line, "file": file.to_text() }),
        }
    }

    /// True if the file was not read to the end that it had when it was last looked at, or not looked at by a reader yet.
    pub(super) fn is_behind(self) -> bool {
        self.file
            .is_none_or(|file| self.offset < file.info.len || file.info.modified_ns == 0)
    }
}

impl Known {
    /// Formats it as `device.inode.born.length.modified.changed.fingerprint`, all in hex: numbers, times in nanoseconds as
    /// two's complement.
    fn to_text(self) -> String {
        let info = self.info;
        format!(
            "{:x}.{:x}.{:x}.{:x}.{:x}.{:x}.{:016x}",
            info.id.device,
            info.id.inode,
            info.id.born_ns,
            info.len,
            info.modified_ns,
            info.changed_ns,
            self.fingerprint
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = text.split('.').map(|part| u64::from_str_radix(part, 16).ok()).collect();
        let &[device, inode, born, len, modified, changed, fingerprint] = numbers?.as_slice() else {
            return None;
        };
        let id = FileId {
            device,
            inode,
            born_ns: born.cast_signed(),
        };
        let info = FileInfo {
            kind: FileKind::File,
            len,
            id,
            modified_ns: modified.cast_signed(),
            changed_ns: changed.cast_signed(),
        };
        Some(Self { info, fingerprint })
    }
}

/// Returns the number of bytes of the beginning and before the position that a fingerprint at `offset` covers.
pub(super) fn spans(offset: u64) -> (usize, usize) {
    let up_to = |most: usize| usize::try_from(offset).map_or(most, |offset| offset.min(most));
    (up_to(HEAD_BYTES), up_to(TAIL_BYTES))
}

/// Returns the fingerprint of a beginning and of the bytes before a position: their XXH3-64, one after the other.
pub(super) fn fingerprint(head: &[u8], tail: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(tail);
    hash.digest()
}

/// Reads the beginning of a file and the bytes before a position, as far as [`spans`] says; `None` if the file ends before
/// that.
///
/// # Errors
/// Returns the system's error.
pub(super) fn edges(file: &dyn ReadFile, offset: u64) -> io::Result<Option<[Vec<u8>; 2]>> {
    let (head, tail) = spans(offset);
    let mut edges = [vec![0; head], vec![0; tail]];
    let [of_head, of_tail] = &mut edges;
    let is_whole = read_exact(file, 0, of_head)? && read_exact(file, offset - tail as u64, of_tail)?;
    Ok(is_whole.then_some(edges))
}

/// Fills a buffer from a position of a file; returns false if the file ends before that.
fn read_exact(file: &dyn ReadFile, position: u64, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(position + filled as u64, rest) {
            Ok(0) => return Ok(false),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_saved_and_parsed() {
        let info = FileInfo {
            kind: FileKind::File,
            len: 300,
            id: FileId {
                device: 0x801,
                inode: 12,
                born_ns: -1,
            },
            modified_ns: 1,
            changed_ns: i64::MAX,
        };
        let file = Some(Known { info, fingerprint: 7 });
        for file in [None, file] {
            let position = Position {
                offset: 5,
                line: 2,
                file,
            };
            assert_eq!(Position::parse("a", &position.to_json()).expect("a position"), position);
        }
        let saved = Position {
            offset: 5,
            line: 2,
            file,
        }
        .to_json();
        assert_eq!(
            saved["file"],
            "801.c.ffffffffffffffff.12c.1.7fffffffffffffff.0000000000000007"
        );
        for other in [
            json!({"offset": 1}),
            json!({"offset": 1, "line": 1, "file": "1.2"}),
            json!(7),
        ] {
            let error = Position::parse("a.txt", &other).expect_err("no position").to_string();
            assert_eq!(
                error,
                format!("split a.txt: {other} is not a position of a file source")
            );
        }
    }
}
