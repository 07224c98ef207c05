//! Why a savepoint, or a file of it, is not believed. Every variant names the path.

use regraft_model::error_kind::ErrorKind;

use crate::savepoint::rows::RowsError;
use crate::storage::StoreError;

/// Why there is no believable `_metadata`, or no believable file of it. Every variant names the path.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// There is no `_metadata`.
    #[error(
        "{path} does not exist. Expected a savepoint or checkpoint directory, or its _metadata file: one without _metadata was never completed."
    )]
    Missing {
        /// Where it should be.
        path: String,
    },
    /// It ends too early.
    #[error("{path} is truncated: it ends after {bytes} bytes. Use another copy of it.")]
    Truncated {
        /// The file.
        path: String,
        /// Its size.
        bytes: usize,
    },
    /// It was changed after it was written.
    #[error("{path} is damaged: expected checksum {expected}, found {found}. Use another copy of it.")]
    Damaged {
        /// The file.
        path: String,
        /// What it should have.
        expected: String,
        /// What it has.
        found: String,
    },
    /// It was written by a later Regraft.
    #[error("{path} has format version {found}; this host reads 1 to {supported}. Use a newer Regraft.")]
    NewerVersion {
        /// The file.
        path: String,
        /// Its version.
        found: u64,
        /// The newest that is known.
        supported: u32,
    },
    /// It is no such file at all.
    #[error("{path} is not a Regraft _metadata file: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// What it says contradicts itself.
    #[error("{path} is not valid: {}", problems.join("; "))]
    Invalid {
        /// The file.
        path: String,
        /// All that is wrong.
        problems: Vec<String>,
    },
    /// A file that it refers to is missing.
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
    /// A file that it refers to has another size.
    #[error("{path} is damaged: expected {expected} bytes, found {found}. Use another copy of it.")]
    FileSize {
        /// The file.
        path: String,
        /// The size in `_metadata`.
        expected: u64,
        /// Its size.
        found: u64,
    },
    /// The rows of a state file are not what it says.
    #[error("{path} cannot be read: {source}")]
    Rows {
        /// The file.
        path: String,
        /// What is wrong.
        source: Box<RowsError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MetadataError {
    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::Failed,
            Self::Store(error) => error.kind(),
            _ => ErrorKind::Data,
        }
    }
}
