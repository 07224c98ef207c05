//! What is wrong with a job, and where: every problem names the place it comes from and what to do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a setting was written.
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
    /// The word for it in `info --json`.
    #[must_use]
    pub const fn origin(&self) -> &'static str {
        match self {
            Self::JobFile { .. } => "job file",
            Self::Config { .. } => "config",
            Self::Environment(_) => "environment",
            Self::CommandLine(_) => "command line",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JobFile { file, line } | Self::Config { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(name) => f.write_str(name),
            Self::CommandLine(argument) => f.write_str(&on_one_line(argument)),
        }
    }
}

/// One thing that is wrong, or (as a [`Warning`]) doubtful. It is shown on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Of which source, operator or sink, where it has one.
    pub uid: Option<String>,
    /// What was expected, what was found, what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Something that does not stop a job but that its author should know.
pub type Warning = Problem;

/// Why there is no job.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}{}", remedy(.source))]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everything that is wrong with it, in the order of places; one line each.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

impl JobFileError {
    /// All problems; none where the file could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid(problems) => problems,
        }
    }
}

/// What to do about a file that is not there.
fn remedy(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::NotFound {
        "; name a job file, or make a job with `regraft new NAME`"
    } else {
        ""
    }
}

/// Problems, one a line.
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

/// A text without line ends and other control characters: what was typed comes in as it is, and problems are lines.
fn on_one_line(text: &str) -> String {
    let escaped = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escaped).collect()
}

/// Collects problems and warnings while a job is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Warning>,
    /// A file is not TOML: what the rest of it means would be a guess.
    pub(crate) broken: bool,
}

impl Findings {
    /// Notes a problem.
    pub(crate) fn problem(&mut self, place: &Place, uid: Option<&str>, message: impl Into<String>) {
        self.problems.push(Problem {
            place: place.clone(),
            uid: uid.map(str::to_owned),
            message: on_one_line(&message.into()),
        });
    }

    /// Notes a warning.
    pub(crate) fn warning(&mut self, place: &Place, uid: Option<&str>, message: impl Into<String>) {
        self.warnings.push(Problem {
            place: place.clone(),
            uid: uid.map(str::to_owned),
            message: on_one_line(&message.into()),
        });
    }

    /// The problems as an error, files by line first, each once.
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
