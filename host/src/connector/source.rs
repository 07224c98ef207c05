//! The contract of a source: splits, each with a position, and readers of them.
//!
//! A split is a file, a stream of a generator, a partition of a topic. Splits do not depend on parallelism, and are dealt
//! out anew when it changes. A source never commits anything: positions live only in snapshots.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::schema::Field;

use crate::environment::files::FileSystem;

/// The checked settings of a source, which open what they describe.
pub trait SourceConnector: Any + Debug + Send + Sync {
    /// Returns the connector's name in job files.
    fn name(&self) -> &'static str;

    /// Returns the settings that make it the same source: where one of them differs, saved positions are of no use.
    fn identity(&self) -> serde_json::Value;

    /// Returns what `regraft graph` shows of it: the name, and a word that tells it from others.
    fn label(&self) -> String {
        self.name().to_owned()
    }

    /// Returns the shape of its records.
    fn records(&self) -> RecordShape;

    /// Returns true if it would read a file of this path, so that no sink of the job may write one.
    fn reads(&self, path: &Path) -> bool {
        let _ = path;
        false
    }

    /// Returns position and name of each field that can be a record's event time.
    ///
    /// # Errors
    /// A clause that says why its records have no event time.
    fn time_fields(&self) -> Result<Vec<(usize, &str)>, &'static str>;

    /// Returns the names of all splits that there are now. `is_restored`: there are saved positions, so it may be that none
    /// of them is there any more; their reader tells.
    ///
    /// # Errors
    /// [`SourceError`] where they cannot be listed, or where there must be one and is none.
    fn splits(&self, files: &dyn FileSystem, is_restored: bool) -> Result<Vec<String>, SourceError>;

    /// Returns the splits to be read, in order of their names: those of the saved positions, wherever they are now, and those
    /// that are new.
    ///
    /// # Errors
    /// As [`SourceConnector::splits`], or [`SourceError::Input`] if a split that was read from is not as it was.
    fn assign(&self, files: &dyn FileSystem, saved: Vec<SplitState>) -> Result<Vec<Assigned>, SourceError> {
        let names = self.splits(files, !saved.is_empty())?;
        let mut splits: BTreeMap<String, Option<serde_json::Value>> =
            names.into_iter().map(|name| (name, None)).collect();
        // Those known from before are opened even if they are not listed now, so that a lost one is reported.
        splits.extend(
            saved
                .into_iter()
                .map(|SplitState { split, position }| (split, Some(position))),
        );
        Ok(splits.into_iter().collect())
    }

    /// Gives a split another name, since a split of another subtask has the same one.
    fn tell_apart(&self, split: &mut String, position: &mut serde_json::Value) {
        let _ = (split, position);
    }

    /// Opens a reader of the splits of one subtask.
    ///
    /// # Errors
    /// [`SourceError`] where a saved position is none of this connector's, or there is nothing at it any more.
    fn reader(&self, context: &SourceContext, splits: Vec<Assigned>) -> Result<Box<dyn SourceReader>, SourceError>;
}

/// The shape of a source's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordShape {
    /// Their key; `None` where they have none.
    pub key: Option<Field>,
    /// Their value.
    pub value: PortValue,
}

/// A split that a subtask reads: its name, and its saved position where it has one.
pub type Assigned = (String, Option<serde_json::Value>);

/// Everything that a reader needs beside its settings and its splits.
#[derive(Debug, Clone)]
pub struct SourceContext {
    /// The files of this machine.
    pub files: Arc<dyn FileSystem>,
    /// The subtask, from 0.
    pub subtask: u32,
    /// Number of subtasks.
    pub parallelism: u32,
    /// Position of the field that is a record's event time, out of [`SourceConnector::time_fields`].
    pub timestamp: Option<usize>,
    /// The splits of all subtasks, as they were assigned. One that appears later is found by its reader.
    pub known: Arc<Vec<Assigned>>,
}

/// A split and the position up to which it has been read.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SplitState {
    /// Name of the split, unique in its source.
    pub split: String,
    /// Position, in the connector's own shape.
    pub position: serde_json::Value,
}

/// Outcome of a poll.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it is not kept")]
#[derive(Debug)]
pub enum Polled {
    /// Records of one split, in order.
    Batch(Batch),
    /// Nothing to read before this monotonic time, in nanoseconds.
    Idle(u64),
    /// All splits are at their end.
    Exhausted,
}

/// Reads the splits of one subtask.
pub trait SourceReader: Send {
    /// Returns the next records, at most `records_max` of them, all of one split.
    ///
    /// # Errors
    /// [`SourceError`] where the source cannot be read, or has changed in a way that would lose or double records.
    fn poll(&mut self, records_max: usize, now_ns: u64) -> Result<Polled, SourceError>;

    /// Returns the position of every split, behind the last record that was polled.
    fn snapshot(&self) -> Vec<SplitState>;

    /// Returns the number of splits.
    fn split_count(&self) -> usize {
        self.snapshot().len()
    }

    /// Returns the names of the splits that may have come, gone or changed their positions since the last call; the first call
    /// may return none.
    fn changed(&mut self) -> Vec<Arc<str>> {
        self.snapshot().into_iter().map(|state| state.split.into()).collect()
    }

    /// Returns the position of a split; `None` where there is none of that name.
    fn position(&self, split: &str) -> Option<SplitState> {
        self.snapshot().into_iter().find(|state| state.split == split)
    }

    /// Returns the names of the splits that records may still come from, always in the same order.
    fn open_splits(&self) -> Vec<Arc<str>> {
        self.snapshot().into_iter().map(|state| state.split.into()).collect()
    }

    /// True if there are splits that records may still come from.
    fn has_splits(&self) -> bool {
        !self.open_splits().is_empty()
    }

    /// Sets a flag that ends a long poll before its time: it fails then, with any error.
    fn interrupt_by(&mut self, flag: Arc<AtomicBool>) {
        let _ = flag;
    }

    /// Tells that the job is cut before the end of its input (`--savepoint-at-end`): what only that end would make a record
    /// is left to the run that goes on.
    fn cut_before_end(&mut self) {}
}

/// Failure of a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A request to the system failed; the next one may not.
    #[error("cannot read {path}: {error}")]
    Io {
        /// The file or directory.
        path: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// The input is not there, or not as it was; only its owner can help.
    #[error("{error}")]
    Input {
        /// The input, as the user knows it.
        path: String,
        /// The connector's own error.
        error: Box<dyn Error + Send + Sync>,
    },
    /// A saved position that is none of this connector's.
    #[error("split {split}: {position} is not a position of a {connector} source")]
    Position {
        /// The split.
        split: String,
        /// The saved position, as JSON.
        position: String,
        /// The connector.
        connector: &'static str,
    },
}

impl SourceError {
    /// Returns the file or other input that could not be read.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Io { path, .. } | Self::Input { path, .. } => Some(path),
            Self::Position { .. } => None,
        }
    }
}
