//! Reasons why files cannot be the input of a source, or cannot be read on.

use crate::connector::source::SourceError;

/// A reason why the files that a source names cannot be its input, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Nothing matches.
    #[error(
        "no file matches {path}; expected at least one; check the path{hint}, or use mode = \"watch\" to wait for files"
    )]
    NothingMatches {
        /// The glob.
        path: String,
        /// A hint at characters that have no meaning in a glob, in parentheses; empty for none.
        hint: String,
    },
    /// A directory where files are expected.
    #[error("{path} is a directory; to read the files in it, write {path}/*")]
    Directory {
        /// The directory.
        path: String,
    },
    /// A glob that cannot be parsed.
    #[error("{path} is not a glob: {message}")]
    Glob {
        /// The glob.
        path: String,
        /// The parser's message.
        message: String,
    },
    /// Links that lead to one directory in very many ways.
    #[error(
        "more than {most} ways lead to {path} below a ** of the path, over links to directories; take some of the links away, or name the directories without **"
    )]
    Maze {
        /// The directory, by one of the ways.
        path: String,
        /// The limit.
        most: u32,
    },
    /// A file that had been read from is gone.
    #[error(
        "{path} has vanished: it was read to byte {offset}, and no file that the source reads has that content; put it back, set on-truncate = \"restart\" to go on without it, or drop the source's state with --drop-state UID"
    )]
    Vanished {
        /// The file.
        path: String,
        /// Position up to which it was read, in bytes.
        offset: u64,
    },
    /// A snapshot has a position in a file that the source does not read.
    #[error(
        "{path} is not a file of the source, whose path is {glob}, so it is not read, and no file that the source reads has the content of the snapshot's position in it; put the file back under a name that matches, set on-truncate = \"restart\" to go on without it, or drop the source's state with --drop-state UID"
    )]
    Outside {
        /// The path in the snapshot.
        path: String,
        /// The glob of the source.
        glob: String,
    },
    /// Another file is at the path, and the old one had not been read to its end.
    #[error(
        "{path} has been replaced by another file: the old one was read to byte {offset} of {len}, and no file that the source reads has its content; put it back under a name that matches, set on-truncate = \"restart\" to go on with the new file, or drop the source's state with --drop-state UID"
    )]
    Replaced {
        /// The file.
        path: String,
        /// Position up to which the old one was read, in bytes.
        offset: u64,
        /// The last known length of the old one.
        len: u64,
    },
    /// A file is shorter than what was read of it.
    #[error(
        "{path} has shrunk: it was read to byte {offset}, and has {len} bytes; put the old content back, set on-truncate = \"restart\" to read such a file again from its start, or drop the source's state with --drop-state UID"
    )]
    Shrunk {
        /// The file.
        path: String,
        /// Position up to which it was read, in bytes.
        offset: u64,
        /// Its length now, in bytes.
        len: u64,
    },
    /// A file no longer has the content that was read from it.
    #[error(
        "{path} has changed within what was read of it: expected the same content up to byte {offset}, found other content; put the old content back, set on-truncate = \"restart\" to read such a file again from its start, or drop the source's state with --drop-state UID"
    )]
    Changed {
        /// The file.
        path: String,
        /// Position up to which it was read, in bytes.
        offset: u64,
    },
    /// The last line of a file was read without its end, and has gone on since.
    #[error(
        "{path}: line {line} was read up to byte {offset}, the end of the file, and goes on now; restore an earlier snapshot, set on-truncate = \"restart\" to read the file again from its start, or drop the source's state with --drop-state UID"
    )]
    WentOn {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// Position up to which it was read, in bytes.
        offset: u64,
    },
    /// A line that is longer than `max-record`.
    #[error(
        "{path}: line {line} is longer than {max} bytes; expected lines of at most max-record; set a greater max-record, or take the line out"
    )]
    TooLong {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// The limit in bytes.
        max: usize,
    },
}

impl InputError {
    /// Returns true if the file is not what it was, so that `on-truncate = "restart"` reads it from its start.
    pub(super) const fn is_other_content(&self) -> bool {
        matches!(self, Self::Shrunk { .. } | Self::Changed { .. } | Self::WentOn { .. })
    }
}

impl From<InputError> for SourceError {
    fn from(error: InputError) -> Self {
        let (InputError::NothingMatches { path, .. }
        | InputError::Directory { path }
        | InputError::Maze { path, .. }
        | InputError::Glob { path, .. }
        | InputError::Vanished { path, .. }
        | InputError::Outside { path, .. }
        | InputError::Replaced { path, .. }
        | InputError::Shrunk { path, .. }
        | InputError::Changed { path, .. }
        | InputError::WentOn { path, .. }
        | InputError::TooLong { path, .. }) = &error;
        Self::Input {
            path: path.clone(),
            error: Box::new(error),
        }
    }
}

/// A file cannot be read, or not as the file that it was.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The input is not as it was.
    Input(InputError),
    /// The system failed.
    Source(SourceError),
}

impl From<InputError> for ReadError {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

impl From<SourceError> for ReadError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<ReadError> for SourceError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Input(error) => error.into(),
            ReadError::Source(error) => error,
        }
    }
}

/// Returns the error of a request about a path.
pub(super) fn io_error(path: &str, error: std::io::Error) -> SourceError {
    SourceError::Io {
        path: path.to_owned(),
        error,
    }
}
