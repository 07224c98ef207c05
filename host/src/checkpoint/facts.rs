//! The facts about a job that a snapshot records beside the state, and the result of storing one.

use std::collections::BTreeMap;
use std::sync::Arc;

use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};

use crate::dataflow::operator::Modules;
use crate::graph::job_graph::JobGraph;
use crate::graph::plan::Plan;
use crate::savepoint::metadata::{Ancestor, MetadataError, Owner, SubtaskRecord, Trigger};
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::rows::{Layout, RowsError};
use crate::storage::StoreError;

/// The facts about a job that a snapshot records beside the state.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// The job graph in effect.
    pub graph: Arc<JobGraph>,
    /// The parallel expansion of that graph.
    pub plan: Arc<Plan>,
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Version of the job that the snapshot belongs to.
    pub version: JobVersion,
    /// Jobs that this one descends from, newest first.
    pub lineage: Vec<Ancestor>,
    /// The component of each operator.
    pub modules: Modules,
}

/// The form in which a snapshot is stored.
#[derive(Debug, Clone, Copy)]
pub struct StoreAs {
    /// Layout of the state files; native for checkpoints.
    pub layout: Layout,
    /// Cause of the snapshot.
    pub trigger: Trigger,
    /// Party that may delete it.
    pub owner: Owner,
    /// Time at which all state was collected, in milliseconds since the Unix epoch.
    pub completed_ms: i64,
}

/// A stored snapshot.
#[derive(Debug)]
pub struct Stored {
    /// Size of all files written for it, in bytes.
    pub bytes: u64,
    /// Size of all files that it refers to, including those shared with earlier checkpoints, in bytes.
    pub full_bytes: u64,
    /// Permission to commit the output that it names.
    pub permit: CommitPermit,
    /// The states of each sink's subtasks.
    pub sink_states: BTreeMap<OperatorUid, Vec<serde_json::Value>>,
    /// Record of each subtask of each operator, source and sink.
    pub subtasks: BTreeMap<OperatorUid, Vec<SubtaskRecord>>,
}

/// A snapshot could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `_metadata` was not written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Rows do not fit their schema.
    #[error("operator \"{uid}\": {error}{}", remedy(error))]
    Rows {
        /// The operator.
        uid: OperatorUid,
        /// The mismatch, with the state and the key group.
        error: RowsError,
    },
    /// An operator returned state that it does not declare.
    #[error(
        "operator \"{uid}\" gave operator state \"{state}\", which it does not declare; it declares {}. Declare it, or leave it out of `snapshot`.",
        if declared.is_empty() { "none".to_owned() } else { declared.join(", ") }
    )]
    Undeclared {
        /// The operator.
        uid: OperatorUid,
        /// Name of that state.
        state: String,
        /// Names of the declared operator states.
        declared: Vec<String>,
    },
    /// The copies of a broadcast state differ.
    #[error(
        "operator \"{uid}\": broadcast state \"{state}\" of subtask {subtask} differs from that of subtask {first}. All subtasks get the same broadcast records, and must derive the same state from them."
    )]
    Broadcast {
        /// The operator.
        uid: OperatorUid,
        /// The state.
        state: String,
        /// The subtask with a different copy.
        subtask: u32,
        /// The subtask that it was compared with.
        first: u32,
    },
    /// An increment came without its base.
    #[error(
        "subtask {subtask} of operator \"{uid}\" gave the changes since checkpoint {base}, which is not kept; this is a bug in Regraft, please report it"
    )]
    Base {
        /// The operator.
        uid: OperatorUid,
        /// Its subtask.
        subtask: u32,
        /// Base of the increment.
        base: CheckpointId,
    },
    /// It was cancelled: it exceeded its timeout, or the job was cancelled.
    #[error("it was cancelled while it was being written")]
    Cancelled,
    /// The encoding thread failed.
    #[error("encoding state failed: {0}")]
    Encode(String),
}

impl StoreFailure {
    /// Returns true if another process has written `_metadata` of the same number.
    #[must_use]
    pub const fn is_occupied(&self) -> bool {
        matches!(
            self,
            Self::Metadata(MetadataError::Store(StoreError::AlreadyExists { .. }))
        )
    }

    /// Returns the operator at fault if its state cannot be saved, so that trying again will fail too.
    #[must_use]
    pub const fn at_fault(&self) -> Option<&OperatorUid> {
        match self {
            Self::Rows { uid, .. } | Self::Undeclared { uid, .. } | Self::Broadcast { uid, .. } => Some(uid),
            Self::Store(_) | Self::Metadata(_) | Self::Base { .. } | Self::Cancelled | Self::Encode(_) => None,
        }
    }
}

/// Returns the remedy if the operator has written something that it does not declare.
const fn remedy(error: &RowsError) -> &'static str {
    match error {
        RowsError::Key { .. } | RowsError::Entry { .. } | RowsError::Value { .. } => {
            ". That is not what the operator declares: mend it. Checkpoints, and savepoints with --type native, keep the bytes as they are."
        }
        _ => "",
    }
}
