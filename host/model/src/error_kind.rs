//! The few kinds that every error of Regraft maps to, each defined by what its reader does next.

use serde::{Deserialize, Serialize};

/// What to do about an error. It alone decides the exit status and the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The command line, the job file or a module is wrong, or there is no such job: fix the input.
    Usage,
    /// The input was understood and the operation failed.
    Failed,
    /// Saved data is damaged or not what it should be: use another copy.
    Data,
    /// Two parts of Regraft disagree: report it.
    Bug,
    /// The operation was interrupted by the user.
    Interrupted,
}
