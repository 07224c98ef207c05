//! Verifies that a savepoint can be restored: reads, checks and decodes every file, and reports all problems. Holds one row
//! group at a time.

use std::fmt::Write;

use regraft_model::id::OperatorUid;
use serde::Serialize;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use crate::savepoint::budget::Budget;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{MetadataError, ModuleFile, SavedStateKind, StateEntry, StateFile};
use crate::savepoint::positions::{POSITIONS_BYTES_MAX, PositionsOf};
use crate::savepoint::row_check::RowCheck;
use crate::savepoint::rows::StateRows;

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

/// Offset of the first row group, behind the word that begins every Parquet file.
const FIRST_OFFSET: u64 = 4;

/// Verifies every file of a savepoint, in as much memory as the budget has for a row group. Calls `progress` after each file
/// with the number of files done.
pub async fn verify(savepoint: &Savepoint, budget: &Budget, mut progress: impl FnMut(usize)) -> VerifyReport {
    let mut report = VerifyReport::default();
    for entry in &savepoint.metadata.operators {
        for state in &entry.states {
            for file in &state.files {
                report.files += 1;
                report.bytes += file.bytes;
                let mut of_file = OfFile::new(savepoint, state, file, budget);
                match of_file.check().await {
                    Ok(()) => report.entries += file.entries,
                    Err(error) => of_file.problems.push(error.to_string()),
                }
                report
                    .problems
                    .extend(of_file.problems.into_iter().map(|message| VerifyProblem {
                        uid: Some(entry.uid.clone()),
                        state: Some(state.name.clone()),
                        path: savepoint.url_of(&file.path),
                        message,
                    }));
                progress(report.files);
            }
        }
    }
    for module in &savepoint.metadata.modules {
        report.files += 1;
        report.bytes += module.bytes;
        let problem = check_module(savepoint, module).await;
        report.problems.extend(problem.err().map(|message| VerifyProblem {
            uid: None,
            state: None,
            path: savepoint.url_of(&module.path),
            message,
        }));
        progress(report.files);
    }
    report
}

/// Checks a component against both of its checksums.
async fn check_module(savepoint: &Savepoint, module: &ModuleFile) -> Result<(), String> {
    let (mut checksum, mut sha256) = (Xxh3::new(), Sha256::new());
    let each = |block: &[u8]| {
        checksum.update(block);
        sha256.update(block);
    };
    let read = savepoint.read_blocks(&module.path, module.bytes, each).await;
    read.map_err(|error| error.to_string())?;
    let path = savepoint.url_of(&module.path);
    check_checksum(path.clone(), &module.checksum, &checksum).map_err(|error| error.to_string())?;
    let found = hex(&sha256.finalize());
    if found != module.sha256 {
        return Err(format!(
            "{path} is damaged: expected the SHA-256 in its name, found {found}"
        ));
    }
    Ok(())
}

fn check_checksum(path: String, expected: &str, found: &Xxh3) -> Result<(), MetadataError> {
    let (expected, found) = (expected.to_owned(), format!("{:016x}", found.digest()));
    if found != expected {
        return Err(MetadataError::Damaged { path, expected, found });
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A state file that is being verified.
struct OfFile<'a> {
    savepoint: &'a Savepoint,
    state: &'a StateEntry,
    file: &'a StateFile,
    budget: &'a Budget,
    rows: RowCheck<'a>,
    positions: PositionsOf,
    problems: Vec<String>,
}

impl<'a> OfFile<'a> {
    fn new(savepoint: &'a Savepoint, state: &'a StateEntry, file: &'a StateFile, budget: &'a Budget) -> Self {
        Self {
            savepoint,
            state,
            file,
            budget,
            rows: RowCheck::new(state, file, savepoint.metadata.max_parallelism),
            positions: PositionsOf::default(),
            problems: vec![],
        }
    }

    /// Checks the file. Problems that do not hide others are collected.
    ///
    /// # Errors
    /// Returns the problem that hides the rest of the file.
    async fn check(&mut self) -> Result<(), MetadataError> {
        let (savepoint, file) = (self.savepoint, self.file);
        let path = savepoint.url_of(&file.path);
        savepoint.check_claims(self.state, file)?;
        let mut checksum = Xxh3::new();
        let each = |block: &[u8]| checksum.update(block);
        savepoint.read_blocks(&file.path, file.bytes, each).await?;
        check_checksum(path.clone(), &file.checksum, &checksum)?;
        let mut end = FIRST_OFFSET;
        for place in file
            .groups
            .iter()
            .filter_map(|extent| extent.place.as_ref())
            .chain(&file.footer)
        {
            if place.offset != end {
                self.problems.push(format!(
                    "{path}: bytes {end} to {} are in none of its parts",
                    place.offset
                ));
            }
            end = place.range().end;
        }
        // Positions of a source are restored together.
        let all = self.budget.at_most(match self.state.kind {
            SavedStateKind::Positions => POSITIONS_BYTES_MAX,
            _ => u64::MAX,
        });
        if file.footer.is_none() {
            let whole = savepoint.read_rows(self.state, file, file.key_groups, &all).await?;
            self.check_rows(&whole);
            return Ok(());
        }
        for extent in &file.groups {
            let one = match self.state.kind {
                SavedStateKind::Positions => all.clone(),
                _ => all.at_most(u64::MAX),
            };
            let rows = savepoint.read_row_group(self.state, file, extent, &one).await?;
            self.check_rows(&rows);
        }
        Ok(())
    }

    /// Notes the problems of the next rows, one for each key group.
    fn check_rows(&mut self, read: &[StateRows]) {
        let mut found: Vec<String> = read.iter().filter_map(|rows| self.rows.next(rows)).collect();
        if self.state.kind == SavedStateKind::Positions {
            found.extend(self.positions.add(self.file, read, self.budget).err());
        }
        let path = self.savepoint.url_of(&self.file.path);
        self.problems
            .extend(found.into_iter().map(|problem| format!("{path}: {problem}")));
    }
}

#[cfg(test)]
mod tests;
