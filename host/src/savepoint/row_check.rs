//! The rules for rows that `_metadata` cannot show: their order, their key groups and their schema numbers. Pure.

use std::fmt::Write;

use regraft_model::key_group::{hash32, key_group};

use super::metadata::{StateEntry, StateFile};
use super::rows::{Entries, StateRows};
use crate::state::rows::REMOVED;

/// Checks the rows of one file, in the order in which they are read.
#[derive(Debug)]
pub(super) struct RowCheck<'a> {
    state: &'a StateEntry,
    file: &'a StateFile,
    max_parallelism: u32,
    /// The last row of the rows before.
    last: Option<(u16, Place)>,
}

/// The part of a row that orders it in its key group: the position of an item, the key, and the entry key.
type Place = (Option<u64>, Vec<u8>, Option<Vec<u8>>);

impl<'a> RowCheck<'a> {
    pub(super) const fn new(state: &'a StateEntry, file: &'a StateFile, max_parallelism: u32) -> Self {
        Self {
            state,
            file,
            max_parallelism,
            last: None,
        }
    }

    /// Returns the first problem with the next rows, which are of one key group, as a clause.
    pub(super) fn next(&mut self, rows: &StateRows) -> Option<String> {
        let group = rows.group.0;
        let greatest = self.state.schemas.len();
        // Items of operator state are in order of their positions, all other rows in order of bytes.
        let position = |key: &[u8]| match self.state.entries_of_key() {
            Entries::Items => key.first_chunk().copied().map(u64::from_le_bytes),
            _ => None,
        };
        let place = |row: usize| (position(rows.keys.get(row)), rows.keys.get(row), rows.entry_key(row));
        let before = self.last.take().filter(|(last, _)| *last == group);
        let before = before
            .as_ref()
            .map(|(_, (position, key, entry))| (*position, key.as_slice(), entry.as_deref()));
        for row in 0..rows.len() {
            let key = rows.keys.get(row);
            let expected = key_group(hash32(key), self.max_parallelism).0;
            if self.state.kind.is_keyed() && expected != group {
                return Some(format!("a key in key group {group} belongs to key group {expected}"));
            }
            let previous = row.checked_sub(1).map(place).or(before);
            if let Some(previous) = previous.filter(|previous| *previous >= place(row)) {
                let (one, other) = (shown(previous), shown(place(row)));
                return Some(format!(
                    "keys of key group {group} are out of order or repeated ({one} before {other})"
                ));
            }
            let number = rows.schemas[row];
            if usize::from(number) > greatest {
                return Some(format!(
                    "a value of key group {group} has schema {number}, expected at most {greatest}"
                ));
            }
            if number == REMOVED && !self.file.increment {
                return Some(format!(
                    "a row of key group {group} removes a key, which only a file of changes may do"
                ));
            }
        }
        let last = rows.len().checked_sub(1).map(place);
        self.last = last.map(|(position, key, entry)| (group, (position, key.to_vec(), entry.map(<[u8]>::to_vec))));
        None
    }
}

/// Returns the keys of a row in hex, cut after some bytes.
fn shown((_, key, entry): (Option<u64>, &[u8], Option<&[u8]>)) -> String {
    match entry {
        Some(entry) => format!("{}/{}", hex(key), hex(entry)),
        None => hex(key),
    }
}

fn hex(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 64;
    let mut text = String::new();
    for byte in bytes.iter().take(SHOWN_BYTES) {
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > SHOWN_BYTES {
        text.push('…');
    }
    text
}
