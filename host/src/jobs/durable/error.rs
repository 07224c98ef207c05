//! Errors of an attempt to go on with a job.

use crate::jobs::handle::JobError;
use crate::jobs::life::effect::PrepareFailure;
use crate::savepoint::metadata::MetadataError;

use super::records::RecordError;

/// Failure to make an attempt.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct AttemptError {
    /// The failure, for people.
    pub error: JobError,
    /// True if another try may succeed.
    pub restartable: bool,
}

impl AttemptError {
    /// Returns a failure that another try does not get over.
    #[must_use]
    pub const fn fatal(error: JobError) -> Self {
        Self {
            error,
            restartable: false,
        }
    }
}

impl From<RecordError> for AttemptError {
    fn from(error: RecordError) -> Self {
        let path = Some(error.path().to_owned());
        Self {
            restartable: error.may_pass(),
            error: JobError {
                path,
                ..JobError::failed(error.to_string())
            },
        }
    }
}

impl From<crate::storage::StoreError> for AttemptError {
    fn from(error: crate::storage::StoreError) -> Self {
        RecordError::from(error).into()
    }
}

impl From<MetadataError> for AttemptError {
    fn from(error: MetadataError) -> Self {
        Self {
            restartable: matches!(error, MetadataError::Store(_)),
            error: JobError {
                kind: error.kind(),
                ..JobError::failed(error.to_string())
            },
        }
    }
}

impl From<AttemptError> for PrepareFailure {
    fn from(error: AttemptError) -> Self {
        Self {
            error: error.error,
            may_pass: error.restartable,
        }
    }
}
