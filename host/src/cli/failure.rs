//! A failed command as its user and their scripts see it: one message, or with `--json` one object.

use regraft_model::error_kind::ErrorKind;
use serde::Serialize;

use super::exit_status::ExitStatus;
use crate::build::BuildError;
use crate::data_dir::DataDirError;
use crate::graph::problem::Place;
use crate::graph::{JobFileError, Problem};
use crate::scaffold::ScaffoldError;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What to do about it; decides the exit status.
    pub kind: ErrorKind,
    /// What failed, what was expected, what was found, what to do.
    pub message: String,
    /// Of which source, operator or sink, where it is about one.
    pub uid: Option<String>,
    /// About which file, where it is about one.
    pub path: Option<String>,
}

impl Failure {
    /// One that is about no uid and no file.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            uid: None,
            path: None,
        }
    }

    /// A mistake in the arguments.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// How the process ends.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.kind.into()
    }

    /// `{"error": {"kind", "message", "uid", "path"}}` on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!({ "error": self }).to_string()
    }
}

impl From<JobFileError> for Failure {
    fn from(error: JobFileError) -> Self {
        let (uid, path) = match &error {
            JobFileError::Unreadable { path, .. } => (None, Some(path.to_string_lossy().into_owned())),
            JobFileError::Invalid(problems) => (common_uid(problems), common_file(problems)),
        };
        Self {
            uid,
            path,
            ..Self::usage(error.to_string())
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let path = error.path().map(|path| path.to_string_lossy().into_owned());
        Self {
            kind: error.kind(),
            uid: error.uid().map(str::to_owned),
            path,
            message: error.to_string(),
        }
    }
}

impl From<ScaffoldError> for Failure {
    fn from(error: ScaffoldError) -> Self {
        let path = match &error {
            ScaffoldError::Name { .. } => None,
            ScaffoldError::Exists { path } | ScaffoldError::Write { path, .. } => {
                Some(path.to_string_lossy().into_owned())
            }
        };
        Self {
            path,
            ..Self::new(error.kind(), error.to_string())
        }
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        Self::usage(error.to_string())
    }
}

/// The uid that all problems are about.
fn common_uid(problems: &[Problem]) -> Option<String> {
    let first = problems.first()?.uid.clone()?;
    problems
        .iter()
        .all(|problem| problem.uid.as_deref() == Some(first.as_str()))
        .then_some(first)
}

/// The file that all problems stand in.
fn common_file(problems: &[Problem]) -> Option<String> {
    let file = |problem: &Problem| match &problem.place {
        Place::JobFile { file, .. } | Place::Config { file, .. } => Some(file.to_string()),
        Place::Environment(_) | Place::CommandLine(_) => None,
    };
    let first = file(problems.first()?)?;
    problems
        .iter()
        .all(|problem| file(problem).as_deref() == Some(first.as_str()))
        .then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_all_four_keys() {
        let failure = Failure {
            uid: Some("count".into()),
            ..Failure::usage("no")
        };
        assert_eq!(
            failure.to_json(),
            r#"{"error":{"kind":"usage","message":"no","path":null,"uid":"count"}}"#
        );
        assert_eq!(failure.status(), ExitStatus::Usage);
    }
}
