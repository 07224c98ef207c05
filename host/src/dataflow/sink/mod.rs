//! Sinks: where records go out, in transactions cut at barriers.
//!
//! The two halves of two-phase commit: a [`SinkWriter`] in the subtask begins, writes and prepares; a [`SinkCommitter`] at
//! the coordinator commits what was prepared once the snapshot that names it is durable. A handle names one
//! prepared piece of output; it is in every snapshot until it is committed, and committing it twice is harmless.
//!
//! - [`format`]: a record as text.
//! - [`file`]: parts in a directory. [`print`], [`blackhole`]: no transactions.

pub mod format;
pub mod file;
pub mod print;
pub mod blackhole;

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::CheckpointId;

/// What a sink saved for one barrier.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SinkSnapshot {
    /// Output that is prepared and not yet committed.
    pub handles: Vec<serde_json::Value>,
    /// What the sink itself must remember; null: nothing.
    pub state: serde_json::Value,
}

/// Writes the records of one subtask.
pub trait SinkWriter: Send {
    /// Begins a transaction: at the start, and after each `prepare`.
    ///
    /// # Errors
    /// [`SinkError`].
    fn begin(&mut self) -> Result<(), SinkError>;

    /// Writes records, in order.
    ///
    /// # Errors
    /// [`SinkError`].
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError>;

    /// Makes everything written so far durable and nothing of it visible; gives the handles of all that is not committed.
    ///
    /// # Errors
    /// [`SinkError`].
    fn prepare(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError>;

    /// Everything prepared up to this round has been committed.
    fn committed(&mut self, id: CheckpointId);

    /// Drops what was written and not prepared; what was prepared stays for its snapshot.
    fn abort(&mut self);

    /// The records that follow are of another shape.
    ///
    /// # Errors
    /// [`SinkError::Format`] where the sink cannot write them.
    fn set_input(&mut self, input: &PortValue) -> Result<(), SinkError>;

    /// The line for stdout at the job's end, from the states of all subtasks; none for most sinks.
    fn summary(&self) -> Option<serde_json::Value> {
        None
    }
}

/// Commits prepared output.
pub trait SinkCommitter: Send + Sync {
    /// A job is about to start: whether there can be output at all.
    ///
    /// # Errors
    /// [`SinkError`] that a user has to do something about.
    fn check(&self) -> Result<(), SinkError>;

    /// Makes prepared output visible, durably. What is already committed is accepted.
    ///
    /// # Errors
    /// [`SinkError::Lost`] names every handle whose output is neither prepared nor committed.
    fn commit(&self, handles: &[serde_json::Value]) -> Result<(), SinkError>;

    /// Nothing of this job writes: drops what its attempts have left pending, but for what these handles name.
    ///
    /// # Errors
    /// [`SinkError`]; what is left is never committed by anything, and only takes room.
    fn clean_leftovers(&self, keep: &[serde_json::Value]) -> Result<(), SinkError>;

    /// The job has ended: leaves nothing behind but what is committed, or pending and named by a snapshot.
    fn clean(&self);
}

/// Why a sink cannot write or commit.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file system said no.
    #[error("cannot {doing} {path}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// Whoever read what is written has gone, and does not come back.
    #[error("cannot write to {path}: {error}; whoever read it has gone")]
    ReaderGone {
        /// stdout or stderr.
        path: &'static str,
        /// The system's words.
        error: std::io::Error,
    },
    /// Prepared output is gone.
    #[error("output that a savepoint or checkpoint names is neither pending nor committed: {}; put it back, or drop the sink's state with --drop-state", parts.join(", "))]
    Lost {
        /// The parts.
        parts: Vec<String>,
    },
    /// A handle of another connector.
    #[error("{handle} is no handle of a {connector} sink")]
    Handle {
        /// What was saved.
        handle: String,
        /// The connector.
        connector: &'static str,
    },
    /// Records that the format cannot show.
    #[error("format \"{format}\" cannot write {found}; expected {expected}")]
    Format {
        /// The format.
        format: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What the input is.
        found: String,
    },
    /// A record that is not of the declared schema.
    #[error("a record is not what its port declares ({schema}): {message}")]
    Record {
        /// The declared schema.
        schema: String,
        /// What is wrong.
        message: String,
    },
}

impl SinkError {
    /// The file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Io { path, .. } => Some(path),
            _ => None,
        }
    }
}
