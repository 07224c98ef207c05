//! Errors of a command: one message for people, or with `--json` one object for scripts. Errors of other modules become those
//! of a command here.

use regraft_model::error_kind::ErrorKind;
use serde::Serialize;
use tokio::task::JoinError;

use super::exit_status::ExitStatus;
use crate::api::client::ClientError;
use crate::api::types::{ErrorBody, ProblemBody};
use crate::compile::BuildError;
use crate::data_dir::{DataDirError, UnsafeDir};
use crate::graph::problem::Place;
use crate::graph::{JobFileError, Problem};
use crate::jobs::durable::error::AttemptError;
use crate::savepoint::metadata::MetadataError;
use crate::scaffold::ScaffoldError;
use crate::serve::error::HostError;
use crate::serve::lock::LockError;

/// The error of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Kind of the error, which decides the exit status.
    pub kind: ErrorKind,
    /// Message: what failed, what was expected, what was found, what to do.
    pub message: String,
    /// Source, operator or sink that the error is about, if it is about one.
    pub uid: Option<String>,
    /// File that the error is about, if it is about one.
    pub path: Option<String>,
    /// Each problem on its own, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemBody>,
    /// True if no host has the job that the command is about.
    #[serde(skip)]
    pub is_no_such_job: bool,
}

impl Failure {
    /// Creates an error that is about no uid and no file.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            uid: None,
            path: None,
            problems: vec![],
            is_no_such_job: false,
        }
    }

    /// Creates an error in the arguments.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Creates an error in a savepoint, which is named as the user has named it.
    #[must_use]
    pub fn of_savepoint(path: &str, error: &MetadataError) -> Self {
        Self {
            path: Some(path.to_owned()),
            ..Self::new(error.kind(), error.to_string())
        }
    }

    /// Adds the problems one by one, unless there is only one, which the error itself describes.
    #[must_use]
    pub fn with_problems(self, problems: Vec<ProblemBody>) -> Self {
        if problems.len() < 2 {
            return self;
        }
        Self { problems, ..self }
    }

    /// Returns the exit status.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.kind.into()
    }

    /// Renders `{"error": {"kind", "message", "uid", "path"}}` on one line, with `problems` where there are several.
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
        let problems = error.problems().iter().map(problem_body).collect();
        let failure = Self::usage(error.to_string()).with_problems(problems);
        Self { uid, path, ..failure }
    }
}

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Self {
        Self {
            kind: body.kind,
            message: body.message,
            uid: body.uid,
            path: body.path,
            problems: body.problems,
            is_no_such_job: false,
        }
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        ErrorBody::from(&error).into()
    }
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Self {
        HostError::from(error).into()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let is_no_such_job = matches!(error, ClientError::NoSuchJob { .. } | ClientError::Gone(_));
        let failure = match error {
            ClientError::Refused(body) | ClientError::Gone(body) => body.into(),
            other => Self::new(other.kind(), other.to_string()),
        };
        Self {
            is_no_such_job,
            ..failure
        }
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let path = match &error {
            LockError::Held { dir, .. } => dir,
            LockError::Io { path, .. } => path,
        };
        Self {
            path: Some(path.display().to_string()),
            ..Self::new(ErrorKind::Failed, error.to_string())
        }
    }
}

impl From<JoinError> for Failure {
    fn from(panicked: JoinError) -> Self {
        Self::new(ErrorKind::Bug, panicked.to_string())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let path = error.path().map(|path| path.to_string_lossy().into_owned());
        Self {
            uid: error.uid().map(str::to_owned),
            path,
            ..Self::new(error.kind(), error.to_string())
        }
    }
}

impl From<ScaffoldError> for Failure {
    fn from(error: ScaffoldError) -> Self {
        let path = match &error {
            ScaffoldError::Name { .. } => None,
            ScaffoldError::Exists { path }
            | ScaffoldError::NoJob { path }
            | ScaffoldError::Changed { path }
            | ScaffoldError::Io { path, .. } => Some(path.to_string_lossy().into_owned()),
        };
        Self {
            path,
            ..Self::new(error.kind(), error.to_string())
        }
    }
}

impl From<UnsafeDir> for Failure {
    fn from(error: UnsafeDir) -> Self {
        let (UnsafeDir::Foreign { dir, .. }
        | UnsafeDir::Writable { dir, .. }
        | UnsafeDir::Planted { dir, .. }
        | UnsafeDir::Io { dir, .. }) = &error;
        Self {
            path: Some(dir.display().to_string()),
            ..Self::new(ErrorKind::Failed, error.to_string())
        }
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        Self::usage(error.to_string())
    }
}

/// Returns a problem of a job file. Its message begins with its place.
fn problem_body(problem: &Problem) -> ProblemBody {
    ProblemBody {
        kind: ErrorKind::Usage,
        message: problem.to_string(),
        uid: problem.uid.clone(),
        path: file_of(problem),
        remedy: None,
    }
}

/// Returns the file that a problem is in.
fn file_of(problem: &Problem) -> Option<String> {
    match &problem.place {
        Place::JobFile { file, .. } | Place::Config { file, .. } => Some(file.to_string()),
        Place::Environment(_) | Place::CommandLine(_) => None,
    }
}

/// Returns the uid if all problems are about the same one.
fn common_uid(problems: &[Problem]) -> Option<String> {
    let first = problems.first()?.uid.clone()?;
    problems
        .iter()
        .all(|problem| problem.uid.as_deref() == Some(first.as_str()))
        .then_some(first)
}

/// Returns the file if all problems are in the same one.
fn common_file(problems: &[Problem]) -> Option<String> {
    let first = file_of(problems.first()?)?;
    problems
        .iter()
        .all(|problem| file_of(problem).as_deref() == Some(first.as_str()))
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

    #[test]
    fn a_job_that_no_host_has_is_known_by_its_type() {
        let body = || ErrorBody::new(ErrorKind::Usage, "there is no job 7 on this host");
        assert!(Failure::from(ClientError::Gone(body())).is_no_such_job);
        assert!(!Failure::from(ClientError::Refused(body())).is_no_such_job);
        let missing = ClientError::NoSuchJob {
            job: "7".to_owned(),
            near: None,
            running: vec![],
        };
        assert!(Failure::from(missing).is_no_such_job);
    }
}
