//! Problems of a job file. Every problem names its place and a remedy.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::job_graph::SettingOrigin;
use crate::escape::one_line;

/// The place where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the job file, counted from 1.
    JobFile {
        /// The file, as the user named it.
        file: Arc<str>,
        /// The line.
        line: usize,
    },
    /// A line of the host's `config.toml`, counted from 1.
    Config {
        /// The file.
        file: Arc<str>,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Environment(Arc<str>),
    /// An argument, as it was typed.
    CommandLine(Arc<str>),
}

impl Place {
    /// Returns the layer of settings that it is in.
    #[must_use]
    pub const fn origin(&self) -> SettingOrigin {
        match self {
            Self::JobFile { .. } => SettingOrigin::JobFile,
            Self::Config { .. } => SettingOrigin::Config,
            Self::Environment(_) => SettingOrigin::Environment,
            Self::CommandLine(_) => SettingOrigin::CommandLine,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JobFile { file, line } | Self::Config { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(name) => f.write_str(name),
            Self::CommandLine(argument) => f.write_str(&one_line(argument)),
        }
    }
}

/// A problem, or (as a [`Warning`]) a doubtful setting. It is shown on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its place.
    pub place: Place,
    /// The source, operator or sink it belongs to, if any.
    pub uid: Option<String>,
    /// Message with what was expected, what was found, and the remedy.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A doubtful setting, which does not stop the job but which its author should know about.
pub type Warning = Problem;

/// A job could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}{}", remedy(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The job has problems. They are in order of their places, and shown on one line each.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

impl JobFileError {
    /// Returns all problems; empty if the file could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid(problems) => problems,
        }
    }
}

/// Returns the remedy for a missing file.
fn remedy(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::NotFound {
        "; name a job file, or make a job with `regraft new NAME`"
    } else {
        ""
    }
}

/// Displays problems, one per line.
struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, problem) in self.0.iter().enumerate() {
            if idx > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// The problems and warnings collected while a job is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Warning>,
    /// True if a file is not valid TOML, so that the meaning of the rest would be a guess.
    pub(crate) broken: bool,
}

impl Findings {
    /// Adds a problem.
    pub(crate) fn problem(&mut self, place: &Place, uid: Option<&str>, message: impl Into<String>) {
        self.problems.push(Problem {
            place: place.clone(),
            uid: uid.map(str::to_owned),
            message: one_line(&message.into()).into_owned(),
        });
    }

    /// Adds a warning.
    pub(crate) fn warning(&mut self, place: &Place, uid: Option<&str>, message: impl Into<String>) {
        self.warnings.push(Problem {
            place: place.clone(),
            uid: uid.map(str::to_owned),
            message: one_line(&message.into()).into_owned(),
        });
    }

    /// Returns the problems as an error, without duplicates and in order of place: files by line first.
    pub(crate) fn into_error(mut self) -> JobFileError {
        self.problems.sort_by_key(|problem| match &problem.place {
            Place::Config { line, .. } => (0, *line),
            Place::JobFile { line, .. } => (1, *line),
            Place::Environment(_) => (2, 0),
            Place::CommandLine(_) => (3, 0),
        });
        self.problems.dedup();
        JobFileError::Invalid(self.problems)
    }
}
