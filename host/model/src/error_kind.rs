//! The kinds of error, to which every error of Regraft maps.
//!
//! There are few of them, each defined by what the reader of the error does next.

use serde::{Deserialize, Serialize};

/// The kind of an error, which alone decides the exit status and the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The command line, the job file or a module is wrong, or the job does not exist: fix the input.
    Usage,
    /// The input was understood, but the operation failed.
    Failed,
    /// Saved data is damaged or not of the expected form: use another copy.
    Data,
    /// Two parts of Regraft contradict each other: report it.
    Bug,
    /// The user interrupted the operation.
    Interrupted,
}
