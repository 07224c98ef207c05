//! Verifies that a savepoint can be restored: reads, checks and decodes every file, and reports all problems.

use std::fmt::Write;

use regraft_model::id::OperatorUid;
use regraft_model::key_group::{hash32, key_group};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{MetadataError, StateEntry, StateFile, checksum};
use crate::savepoint::rows::{Entries, StateRows};

/// The result of verifying a savepoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Number of checked files, without `_metadata`.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Number of decoded rows.
    pub entries: u64,
    /// All problems, in order of the files; empty if the savepoint is sound.
    pub problems: Vec<VerifyProblem>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyProblem {
    /// Uid that the file belongs to; `None` for a component.
    pub uid: Option<OperatorUid>,
    /// State that the file belongs to.
    pub state: Option<String>,
    /// URL of the file.
    pub path: String,
    /// Message for people, which names the path.
    pub message: String,
}

/// Verifies every file of a savepoint. Calls `progress` after each file with the number of files done.
pub async fn verify(savepoint: &Savepoint, mut progress: impl FnMut(usize)) -> VerifyReport {
    let mut report = VerifyReport::default();
    for entry in &savepoint.metadata.operators {
        for state in &entry.states {
            for file in &state.files {
                report.files += 1;
                report.bytes += file.bytes;
                let problem = |message| VerifyProblem {
                    uid: Some(entry.uid.clone()),
                    state: Some(state.name.clone()),
                    path: savepoint.url_of(&file.path),
                    message,
                };
                match check_state_file(savepoint, state, file).await {
                    Ok(messages) => {
                        report.entries += file.entries;
                        report.problems.extend(messages.into_iter().map(problem));
                    }
                    Err(error) => report.problems.push(problem(error.to_string())),
                }
                progress(report.files);
            }
        }
    }
    for module in &savepoint.metadata.modules {
        report.files += 1;
        report.bytes += module.bytes;
        let path = savepoint.url_of(&module.path);
        let message = match savepoint.read_module(module).await {
            Ok(bytes) => {
                let found = sha256(&bytes);
                (found != module.sha256)
                    .then(|| format!("{path} is damaged: expected the SHA-256 in its name, found {found}"))
            }
            Err(error) => Some(error.to_string()),
        };
        report.problems.extend(message.map(|message| VerifyProblem {
            uid: None,
            state: None,
            path,
            message,
        }));
        progress(report.files);
    }
    report
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

async fn check_state_file(
    savepoint: &Savepoint,
    state: &StateEntry,
    file: &StateFile,
) -> Result<Vec<String>, MetadataError> {
    let path = savepoint.url_of(&file.path);
    let mut problems = Vec::new();
    let bytes = savepoint.read_file(file).await?;
    for place in file
        .groups
        .iter()
        .filter_map(|extent| extent.place.as_ref())
        .chain(&file.footer)
    {
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
        let found = checksum(&bytes[at(place.offset)..at(place.range().end)]);
        if found != place.checksum {
            problems.push(format!(
                "{path} is damaged: expected checksum {} of its part at byte {}, found {found}",
                place.checksum, place.offset
            ));
        }
    }
    for rows in savepoint.decode_rows(state, file, file.key_groups, bytes)? {
        problems.extend(check_group(state, &rows, savepoint.metadata.max_parallelism).map(|p| format!("{path}: {p}")));
    }
    Ok(problems)
}

/// Returns the first problem with the rows of a key group.
fn check_group(state: &StateEntry, rows: &StateRows, max_parallelism: u32) -> Option<String> {
    let group = rows.group;
    // Items of operator state are in order of their positions, all other rows in order of bytes.
    let position = |key: &[u8]| match state.entries_of_key() {
        Entries::Items => key.first_chunk().copied().map(u64::from_le_bytes),
        _ => None,
    };
    let at = |row: usize| (position(rows.keys.get(row)), rows.keys.get(row), rows.entry_key(row));
    for row in 0..rows.len() {
        let key = rows.keys.get(row);
        let expected = key_group(hash32(key), max_parallelism);
        if state.kind.is_keyed() && expected != group {
            return Some(format!(
                "a key in key group {} belongs to key group {}",
                group.0, expected.0
            ));
        }
        if row > 0 && at(row - 1) >= at(row) {
            let name = |row: usize| {
                format!(
                    "{}{}",
                    hex(rows.keys.get(row)),
                    rows.entry_key(row)
                        .map(hex)
                        .map_or_else(String::new, |entry| format!("/{entry}"))
                )
            };
            return Some(format!(
                "keys of key group {} are out of order or repeated ({} before {})",
                group.0,
                name(row - 1),
                name(row)
            ));
        }
    }
    let greatest = state.schemas.len();
    let mut numbers = rows.schemas.iter();
    numbers.find(|number| usize::from(**number) > greatest).map(|number| {
        format!(
            "a value of key group {} has schema {number}, expected at most {greatest}",
            group.0
        )
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests;
