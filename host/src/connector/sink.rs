//! The contract of a sink: output in transactions that are cut at barriers.
//!
//! The two halves of two-phase commit: a [`SinkWriter`] in the subtask begins, writes and prepares; a [`SinkCommitter`] at
//! the coordinator commits what was prepared once the snapshot that names it is durable. A handle names one prepared piece
//! of output. It is in every snapshot until it is committed, and committing it twice is harmless.
//!
//! A process may sleep between any two of its steps and wake up when another one runs the job. No check before a commit
//! helps against that, so the sink is the fence (`docs/design/0019-fencing.md`): an attempt [takes it
//! over](SinkCommitter::take_over), and from then on no earlier attempt can prepare or commit anything there.

use std::any::Any;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};

use crate::environment::files::FileSystem;

/// The checked settings of a sink, which open what they describe. A sink without transactions leaves out most of it.
pub trait SinkConnector: Any + Debug + Send + Sync {
    /// Returns the connector's name in job files.
    fn name(&self) -> &'static str;

    /// Returns the settings that make it the same sink: where one of them differs, its saved state is of no use.
    fn identity(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Returns what `regraft graph` shows of it: the name, and a word that tells it from others.
    fn label(&self) -> String {
        self.name().to_owned()
    }

    /// Returns the directory that it writes to, for messages and to find jobs that share one; `None` where it has none.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// Returns the path of a file such as it writes; `None` if it writes none.
    fn example_output(&self) -> Option<PathBuf> {
        None
    }

    /// True if output becomes visible only when a snapshot has been committed.
    fn is_transactional(&self) -> bool {
        false
    }

    /// Checks, before anything runs, that it can write records of this shape.
    ///
    /// # Errors
    /// A clause that says why not, and what to change.
    fn check_input(&self, input: &PortValue) -> Result<(), String> {
        let _ = input;
        Ok(())
    }

    /// Opens the writer of one subtask. `saved`: the states of all writers, merged; null where there is none.
    ///
    /// # Errors
    /// [`SinkError`].
    fn writer(
        &self,
        context: SinkContext,
        input: SinkInput<'_>,
        saved: &serde_json::Value,
    ) -> Result<Box<dyn SinkWriter>, SinkError>;

    /// Returns what it does with output of earlier runs of the same job.
    fn existing(&self) -> Existing {
        Existing::Keep
    }

    /// Returns what commits the output that a run's writers prepare.
    fn committer(&self, files: &Arc<dyn FileSystem>, run: OutputRun) -> Arc<dyn SinkCommitter> {
        let _ = (files, run);
        Arc::new(NoCommitter)
    }

    /// Returns the jobs that have pending output there, in no order.
    fn pending_jobs(&self, files: &dyn FileSystem) -> Vec<JobId> {
        let _ = files;
        vec![]
    }

    /// Merges the states of all writers into one; at least one of them is not null.
    fn merge(&self, states: &[serde_json::Value]) -> serde_json::Value {
        let _ = states;
        serde_json::Value::Null
    }

    /// Returns the number of records that the states of writers tell of, and the checksum of their values; `None` of a sink
    /// that does not count.
    fn totals(&self, states: &[serde_json::Value]) -> Option<(u64, u64)> {
        let _ = states;
        None
    }

    /// Returns the names of committed output of later snapshots than `checkpoint`, sorted. A sink whose output has no names has
    /// none.
    ///
    /// # Errors
    /// [`SinkError::Io`]; it is then not known what there is.
    fn later_output(
        &self,
        files: &dyn FileSystem,
        uid: &OperatorUid,
        of: OutputOf,
        checkpoint: CheckpointId,
    ) -> Result<Vec<String>, SinkError> {
        let _ = (files, uid, of, checkpoint);
        Ok(vec![])
    }
}

/// Treatment of output of earlier runs of a job (`existing`), when the job starts from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays.
    Keep,
    /// It is removed once the new run has committed output.
    Replace,
    /// The job does not start.
    Refuse,
}

/// A run of a job at one sink: the owner of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRun {
    /// The sink, or the operator whose dead letters it writes.
    pub uid: OperatorUid,
    /// Name of the job.
    pub job: String,
    /// The run.
    pub job_id: JobId,
    /// True for the run that commits; false for an earlier one, whose pending output is committed or removed for it.
    pub is_own: bool,
}

/// Output of earlier runs of a job, at one sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EarlierOutput {
    /// Parts that are known to be of this job.
    pub parts: Vec<String>,
    /// Parts that may be of this job, and are never removed: no list has them.
    pub unlisted: Vec<String>,
    /// The runs that wrote them, the oldest first.
    pub runs: Vec<JobId>,
}

/// Whose output is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputOf {
    /// Output of one job.
    Job(JobId),
    /// Output of all jobs but one.
    AllBut(JobId),
}

/// The shape of what a writer is given.
#[derive(Debug, Clone, Copy)]
pub enum SinkInput<'a> {
    /// Records, which the sink formats.
    Records(&'a PortValue),
    /// Lines of JSON, which it writes as they are: dead letters.
    Lines,
}

/// Everything that a writer needs beside its settings: whose output it is.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The files of this machine.
    pub files: Arc<dyn FileSystem>,
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Random number of the attempt, which tells it from one of the same number that a host without its records began.
    pub nonce: u32,
    /// The job's version at the start of the attempt.
    pub version: JobVersion,
    /// The sink, or the operator whose dead letters it writes.
    pub uid: OperatorUid,
    /// The subtask, from 0.
    pub subtask: u32,
    /// Number of subtasks.
    pub parallelism: u32,
}

/// Contribution of one subtask's writer to a snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SinkSnapshot {
    /// Handles of all output that is prepared and not yet committed.
    pub handles: Vec<serde_json::Value>,
    /// The writer's own state; null where it has none.
    pub state: serde_json::Value,
}

/// Writes the records of one subtask.
pub trait SinkWriter: Send {
    /// Begins a transaction: at the start, and after each [`SinkWriter::prepare`].
    ///
    /// # Errors
    /// [`SinkError`].
    fn begin(&mut self) -> Result<(), SinkError>;

    /// Writes records, in order.
    ///
    /// # Errors
    /// [`SinkError`].
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError>;

    /// Makes everything written so far durable and leaves it invisible; returns the handles of all that is not committed.
    ///
    /// # Errors
    /// [`SinkError`].
    fn prepare(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError>;

    /// Forgets the handles of this round and of earlier ones: they have been committed.
    fn committed(&mut self, id: CheckpointId);

    /// Drops what was written and not prepared; what was prepared stays for its snapshot.
    fn abort(&mut self);

    /// Takes the flag that is set when the job is to end, for sinks that may wait in a write.
    fn set_cancelled(&mut self, _cancelled: Arc<AtomicBool>) {}

    /// Takes records of another shape from now on.
    ///
    /// # Errors
    /// [`SinkError::Format`] where the sink cannot write them.
    fn set_input(&mut self, input: &PortValue) -> Result<(), SinkError>;

    /// Returns the state that the line about this sink at the job's end is made of; `None` for most sinks.
    fn summary(&self) -> Option<serde_json::Value> {
        None
    }
}

/// Commits prepared output.
pub trait SinkCommitter: Send + Sync {
    /// Checks, before a job starts, that there can be output at all.
    ///
    /// # Errors
    /// [`SinkError`] that a user has to do something about.
    fn check(&self) -> Result<(), SinkError>;

    /// Looks for output of earlier runs of this job, before it starts from the beginning. With [`Existing::Replace`] it
    /// is recorded as what this run replaces.
    ///
    /// # Errors
    /// [`SinkError`].
    fn earlier_output(&self) -> Result<EarlierOutput, SinkError> {
        Ok(EarlierOutput::default())
    }

    /// Handles the end of a job that has finished: all of its output is committed, of which there may be none.
    ///
    /// # Errors
    /// [`SinkError`].
    fn finished(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Makes output visible, durably, that the running attempt has prepared. Output that is already committed is accepted.
    ///
    /// All handles are checked before anything becomes visible.
    ///
    /// # Errors
    /// - [`SinkError::Handle`]: a handle is not one of this job at this sink. Nothing has become visible.
    /// - [`SinkError::Lost`] names every handle whose output is neither prepared nor committed.
    /// - [`SinkError::Taken`]: it is not there since another attempt has taken the sink over.
    fn commit(&self, handles: &[serde_json::Value]) -> Result<(), SinkError>;

    /// Makes output visible that the snapshot has pending from which an attempt goes on. Unlike [`SinkCommitter::commit`], it
    /// finds also what [`SinkCommitter::take_over`] has kept of earlier attempts.
    ///
    /// # Errors
    /// As [`SinkCommitter::commit`], except [`SinkError::Taken`].
    fn commit_restored(&self, handles: &[serde_json::Value]) -> Result<(), SinkError>;

    /// Begins the output of a new attempt, and fences off every other one: when this returns, what they prepare or commit from
    /// now on fails. Their pending output is removed, except what these handles name. Called when the attempt is recorded and its snapshot
    /// committed, before its writers write, and while no earlier writer of this process does.
    ///
    /// `nonce` is that of the writers' [`SinkContext`]; `None` for an attempt that writes nothing, and only ends the job.
    ///
    /// On a file system, the directory of each other attempt is removed, which its owner never makes again. On an object
    /// store, the uploads of all others would be aborted.
    ///
    /// # Errors
    /// - [`SinkError::Taken`]: a later attempt than this one, or one that it does not know of, has the sink.
    /// - [`SinkError::Io`]; it can be tried again by another attempt.
    fn take_over(&self, attempt: AttemptId, nonce: Option<u32>, keep: &[serde_json::Value]) -> Result<(), SinkError>;

    /// Returns true if an attempt that another process began has taken the sink over from this one.
    fn is_taken(&self) -> bool;

    /// Returns the names of the job's committed output that attempts have written of which its records do not know, sorted: those
    /// of a host with other records.
    ///
    /// # Errors
    /// [`SinkError::Io`]; it is then not known what there is.
    fn foreign_output(&self, known: &KnownAttempts) -> Result<Vec<String>, SinkError>;

    /// Drops the pending output of a run that is over, but for these handles. Called while no subtask writes.
    ///
    /// # Errors
    /// [`SinkError`]; what is left is never committed by anything, and only takes room.
    fn clean_leftovers(&self, keep: &[serde_json::Value]) -> Result<(), SinkError>;

    /// Removes what an ended job does not need: everything but committed output, and pending output that a snapshot names.
    fn clean(&self);
}

/// The attempts that a job's records know of, oldest first, each with the nonce of its writers ([`SinkContext`]). None where the
/// records are of a version that did not keep them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownAttempts(Vec<(AttemptId, u32)>);

impl KnownAttempts {
    /// Number of attempts that are kept. Older ones are not told from those of other hosts.
    const MOST: usize = 256;

    /// Adds the newest attempt, and forgets the oldest one if there are too many.
    #[must_use]
    pub fn with(mut self, attempt: AttemptId, nonce: u32) -> Self {
        if self.0.len() >= Self::MOST {
            self.0.drain(..=self.0.len() - Self::MOST);
        }
        self.0.push((attempt, nonce));
        self
    }

    /// Returns true if there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if an attempt is of another host: of its number, or of one close to it, there are others only. `is` compares
    /// it with one that is known.
    pub fn lack(&self, attempt: AttemptId, is: impl Fn(AttemptId, u32) -> bool) -> bool {
        let oldest = self.0.first();
        oldest.is_some_and(|(oldest, _)| attempt >= *oldest) && !self.0.iter().any(|(known, nonce)| is(*known, *nonce))
    }
}

/// The committer of sinks without transactions.
#[derive(Debug)]
pub struct NoCommitter;

impl SinkCommitter for NoCommitter {
    fn check(&self) -> Result<(), SinkError> {
        Ok(())
    }

    fn commit(&self, _: &[serde_json::Value]) -> Result<(), SinkError> {
        Ok(())
    }

    fn commit_restored(&self, _: &[serde_json::Value]) -> Result<(), SinkError> {
        Ok(())
    }

    fn take_over(&self, _: AttemptId, _: Option<u32>, _: &[serde_json::Value]) -> Result<(), SinkError> {
        Ok(())
    }

    fn is_taken(&self) -> bool {
        false
    }

    fn foreign_output(&self, _: &KnownAttempts) -> Result<Vec<String>, SinkError> {
        Ok(vec![])
    }

    fn clean_leftovers(&self, _: &[serde_json::Value]) -> Result<(), SinkError> {
        Ok(())
    }

    fn clean(&self) {}
}

/// Failure of a sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A request to the system failed.
    #[error("cannot {doing} {path}: {error}")]
    Io {
        /// The request, as a verb: `cannot {doing} {path}`.
        doing: &'static str,
        /// The file or directory.
        path: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// The process at the other end of a pipe has closed it.
    #[error("cannot write to {path}: {error}; its reader has closed it")]
    ReaderGone {
        /// stdout or stderr.
        path: &'static str,
        /// The system's error.
        error: std::io::Error,
    },
    /// Output of a job cannot be printed. Unlike [`SinkError::Io`], a restart does not try it again.
    #[error("cannot write to {path}: {error}")]
    Print {
        /// stdout or stderr.
        path: &'static str,
        /// The system's error.
        error: std::io::Error,
    },
    /// Prepared output is neither pending nor committed.
    #[error("output that a savepoint or checkpoint names is neither pending nor committed: {}; put it back, or drop the sink's state with --drop-state UID", parts.join(", "))]
    Lost {
        /// The parts.
        parts: Vec<String>,
    },
    /// A handle that the connector has not written for this job and sink.
    #[error(
        "a saved handle is not one of a {connector} sink of job {job}: {problem}; use another copy of the savepoint, or drop the sink's state with --drop-state UID"
    )]
    Handle {
        /// The connector.
        connector: &'static str,
        /// The job that is said to have written the output.
        job: JobId,
        /// Found and expected.
        problem: String,
    },
    /// A file or directory of pending output is a link, or something else than it should be.
    #[error(
        "{path} is {found}, expected {expected}: a sink follows no links among its pending output. Remove it, or put the output back"
    )]
    Foreign {
        /// Its path.
        path: String,
        /// Its kind.
        found: &'static str,
        /// The kind that a sink makes.
        expected: &'static str,
    },
    /// The list of a sink's committed parts is not one.
    #[error(
        "{path} is {found}: expected the list of a sink's committed parts, a regular file of at most {most} bytes. Put the list back, or remove what is there: the parts in it stay then, and no run replaces them"
    )]
    Listing {
        /// Its path.
        path: String,
        /// What is there.
        found: String,
        /// The most bytes of a list.
        most: u64,
    },
    /// Another attempt has taken the sink over.
    #[error(
        "another host has taken this job over: {found}; it runs this job now, and two must not. This one writes nothing more: stop one of the two hosts, or, where this one is the only one, start it again"
    )]
    Taken {
        /// The fact that shows it.
        found: String,
    },
    /// Records of a shape that the format cannot write.
    #[error("format \"{format}\" cannot write {found}; expected {expected}")]
    Format {
        /// The format.
        format: &'static str,
        /// The shapes that it writes.
        expected: &'static str,
        /// The shape of the input.
        found: String,
    },
    /// A record that is not of the declared schema.
    #[error("a record does not match the schema of its port ({schema}): {message}")]
    Record {
        /// The declared schema.
        schema: String,
        /// The decoder's message.
        message: String,
    },
}

impl SinkError {
    /// Returns the file or directory that could not be written.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Io { path, .. } => Some(path),
            _ => None,
        }
    }
}
