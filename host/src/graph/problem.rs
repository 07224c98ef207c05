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
    /// Number of problems beyond [`KEPT_MAX`], which are only counted.
    more: usize,
}

/// The most problems, and warnings, that are kept while a job is read.
const KEPT_MAX: usize = 1_000;
/// The most problems that are shown.
const SHOWN_MAX: usize = 100;
/// Length of a message, in bytes. A longer one is cut.
const MESSAGE_MAX: usize = 4_000;

/// Returns a message on one line, cut where it is very long.
fn message_of(message: &str) -> String {
    let message = one_line(message);
    match message.floor_char_boundary(MESSAGE_MAX) {
        end if end < message.len() => format!("{}…", &message[..end]),
        _ => message.into_owned(),
    }
}

impl Findings {
    /// Adds a problem.
    pub(crate) fn problem(&mut self, place: &Place, uid: Option<&str>, message: impl Into<String>) {
        if self.problems.len() >= KEPT_MAX {
            self.more += 1;
            return;
        }
        self.problems.push(Problem {
            place: place.clone(),
            uid: uid.map(str::to_owned),
            message: message_of(&message.into()),
        });
    }

    /// Adds a warning.
    pub(crate) fn warning(&mut self, place: &Place, uid: Option<&str>, message: impl Into<String>) {
        if self.warnings.len() >= KEPT_MAX {
            return;
        }
        self.warnings.push(Problem {
            place: place.clone(),
            uid: uid.map(str::to_owned),
            message: message_of(&message.into()),
        });
    }

    /// Returns the first problems as an error, without duplicates and in order of place, files by line first; where there are
    /// more, the last one says how many.
    pub(crate) fn into_error(mut self) -> JobFileError {
        self.problems.sort_by_key(|problem| match &problem.place {
            Place::Config { line, .. } => (0, *line),
            Place::JobFile { line, .. } => (1, *line),
            Place::Environment(_) => (2, 0),
            Place::CommandLine(_) => (3, 0),
        });
        self.problems.dedup();
        let more = self.problems.len().saturating_sub(SHOWN_MAX) + self.more;
        self.problems.truncate(SHOWN_MAX);
        if let (Some(last), true) = (self.problems.last(), more > 0) {
            let place = last.place.clone();
            let (uid, message) = (
                None,
                format!("and {more} more problems; solve the first ones, and try again"),
            );
            self.problems.push(Problem { place, uid, message });
        }
        JobFileError::Invalid(self.problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: usize) -> Place {
        Place::JobFile {
            file: "job.toml".into(),
            line,
        }
    }

    #[test]
    fn very_many_problems_are_counted() {
        let mut findings = Findings::default();
        for line in (1..=100_000).rev() {
            findings.problem(&place(line), None, "wrong");
            findings.warning(&place(line), None, "odd");
        }
        assert_eq!(findings.warnings.len(), KEPT_MAX);
        let error = findings.into_error();
        let shown: Vec<String> = error.problems().iter().map(Problem::to_string).collect();
        assert_eq!((shown.len(), shown[0].as_str()), (101, "job.toml:99001: wrong"));
        assert_eq!(
            shown[100],
            "job.toml:99100: and 99900 more problems; solve the first ones, and try again"
        );
    }

    #[test]
    fn a_long_message_is_cut() {
        let mut findings = Findings::default();
        findings.problem(&place(1), None, "é".repeat(5_000));
        assert_eq!(findings.problems[0].message, format!("{}…", "é".repeat(2_000)));
    }
}
