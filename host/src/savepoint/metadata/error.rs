//! Errors of reading a savepoint or one of its files. Every variant names the path.

use regraft_model::error_kind::ErrorKind;

use crate::savepoint::rows::RowsError;
use crate::storage::{Refusal, StoreError};

/// Number of violations that a message names.
const PROBLEMS_SHOWN: usize = 20;

/// A savepoint or one of its files cannot be used. Every variant names the path.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// There is no `_metadata`.
    #[error(
        "{path} does not exist. Expected a savepoint or checkpoint directory, or its _metadata file: one without _metadata was never completed."
    )]
    Missing {
        /// Its expected URL.
        path: String,
    },
    /// The file ends too early.
    #[error("{path} is truncated: it ends after {bytes} bytes. Use another copy of it.")]
    Truncated {
        /// The file.
        path: String,
        /// Its size.
        bytes: usize,
    },
    /// The file was changed after it was written.
    #[error("{path} is damaged: expected checksum {expected}, found {found}. Use another copy of it.")]
    Damaged {
        /// The file.
        path: String,
        /// Expected checksum.
        expected: String,
        /// Actual checksum.
        found: String,
    },
    /// The file was written by a later version of Regraft.
    #[error("{path} has format version {found}; this host reads 1 to {supported}. Use a newer Regraft.")]
    NewerVersion {
        /// The file.
        path: String,
        /// Its format version.
        found: u64,
        /// The newest supported format version.
        supported: u32,
    },
    /// The file is not a `_metadata` file.
    #[error("{path} is not a Regraft _metadata file: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// The reason, as a clause.
        reason: String,
    },
    /// It is larger than what is read.
    #[error(
        "{path} has {found} {what}, expected at most {most}. To save a job that needs more, lower its parallelism, or the number of its states."
    )]
    TooLarge {
        /// The file.
        path: String,
        /// Number of bytes, or of what else is limited.
        found: u64,
        /// The limit.
        most: u64,
        /// The unit.
        what: &'static str,
    },
    /// The file is not what it has to be.
    #[error("{path} {refusal}")]
    Refused {
        /// The file.
        path: String,
        /// The reason.
        refusal: Refusal,
    },
    /// The content violates invariants.
    #[error("{path} is not valid: {}", joined(problems))]
    Invalid {
        /// The file.
        path: String,
        /// All violations.
        problems: Vec<String>,
    },
    /// A file that `_metadata` lists is missing.
    #[error("{path} is missing, but _metadata lists it. A savepoint is moved or copied as a whole directory.")]
    FileMissing {
        /// The file.
        path: String,
    },
    /// A file that a checkpoint shares with others is missing.
    #[error(
        "{path} is missing, but the checkpoint's _metadata refers to it. A checkpoint shares files with others of its job and cannot be moved alone: restore it from where it was written, or take a savepoint, which can be moved."
    )]
    SharedMissing {
        /// The file.
        path: String,
    },
    /// A file does not have the size that `_metadata` lists.
    #[error("{path} is damaged: expected {expected} bytes, found {found}. Use another copy of it.")]
    FileSize {
        /// The file.
        path: String,
        /// Size in `_metadata`.
        expected: u64,
        /// Actual size.
        found: u64,
    },
    /// The rows of a state file do not match its description.
    #[error("{path} cannot be read: {source}")]
    Rows {
        /// The file.
        path: String,
        /// The mismatch.
        source: Box<RowsError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

/// Maps errors about the object itself to damage of the snapshot, and all others to errors of the store.
impl From<StoreError> for MetadataError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused { path, refusal } => match refusal {
                Refusal::Size { expected, found } => Self::FileSize { path, expected, found },
                refusal => Self::Refused { path, refusal },
            },
            error => Self::Store(error),
        }
    }
}

/// Joins the first problems.
fn joined(problems: &[String]) -> String {
    let shown = problems.get(..PROBLEMS_SHOWN).unwrap_or(problems).join("; ");
    match problems.len().saturating_sub(PROBLEMS_SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

impl MetadataError {
    /// Returns the kind of this error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::Failed,
            Self::Store(error) => error.kind(),
            _ => ErrorKind::Data,
        }
    }
}
