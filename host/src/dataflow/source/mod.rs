//! Sources: where records come in.
//!
//! A source has splits (a file, a generator's stream), each with a position. Splits are read independently of parallelism
//! and reassigned when it changes. A source never commits anything: positions live only in snapshots.
//!
//! - [`file`]: lines of files.
//! - [`generator`]: made-up records, a function of (seed, split, offset).
//! - [`rate`]: records per second.

pub mod file;
pub mod generator;
pub mod rate;

use std::sync::Arc;

use regraft_model::batch::Batch;

/// A split and where reading stands in it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SplitState {
    /// The split's name, unique in its source.
    pub split: String,
    /// The connector's own shape.
    pub position: serde_json::Value,
}

/// What a poll gave.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it is not kept")]
#[derive(Debug)]
pub enum Polled {
    /// Records of one split, in order.
    Batch(Batch),
    /// Nothing now; ask again at this monotonic time in nanoseconds.
    Idle(u64),
    /// Nothing any more.
    Exhausted,
}

/// Reads the splits of one subtask.
pub trait SourceReader: Send {
    /// The next records, at most `records_max` of them.
    ///
    /// # Errors
    /// [`SourceError`] where the source cannot be read, or has changed in a way that would lose or double records.
    fn poll(&mut self, records_max: usize, now_ns: u64) -> Result<Polled, SourceError>;

    /// The position of every split, after the last record that was polled.
    fn snapshot(&self) -> Vec<SplitState>;

    /// The splits that records may still come from, by name, always in the same order.
    fn open_splits(&self) -> Vec<Arc<str>> {
        self.snapshot().into_iter().map(|state| state.split.into()).collect()
    }
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing matches.
    #[error("no file matches {path}; expected at least one; check the path, or use mode = \"watch\" to wait for files")]
    NothingMatches {
        /// The glob.
        path: String,
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
        /// The parser's words.
        message: String,
    },
    /// A file cannot be opened or read.
    #[error("cannot read {path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// A file that had been read from is gone.
    #[error(
        "{path} has vanished: it was read to byte {offset}; put it back, or drop the source's state with --drop-state"
    )]
    Vanished {
        /// The file.
        path: String,
        /// Where reading stood.
        offset: u64,
    },
    /// A file is shorter than what was read of it.
    #[error(
        "{path} has shrunk: it was read to byte {offset}, and has {len} bytes; put the old content back, or drop the source's state with --drop-state"
    )]
    Shrunk {
        /// The file.
        path: String,
        /// Where reading stood.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// A saved position is not one of this connector's.
    #[error("split {split}: {position} is no position of a {connector} source")]
    Position {
        /// The split.
        split: String,
        /// What was saved.
        position: String,
        /// The connector.
        connector: &'static str,
    },
}

impl SourceError {
    /// The file or glob it is about.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::NothingMatches { path }
            | Self::Directory { path }
            | Self::Glob { path, .. }
            | Self::Io { path, .. }
            | Self::Vanished { path, .. }
            | Self::Shrunk { path, .. } => Some(path),
            Self::Position { .. } => None,
        }
    }
}
