//! What a snapshot says of its job beside the state, and what comes of storing one.

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

/// What a snapshot says of its job beside the state.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// The graph it runs.
    pub graph: Arc<JobGraph>,
    /// The parallel expansion of that graph.
    pub plan: Arc<Plan>,
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The version that the snapshot belongs to.
    pub version: JobVersion,
    /// What it was restored from.
    pub lineage: Vec<Ancestor>,
    /// The component of each operator.
    pub modules: Modules,
}

/// How a snapshot is to be stored.
#[derive(Debug, Clone, Copy)]
pub struct StoreAs {
    /// How state files are laid out. Those of checkpoints are native.
    pub layout: Layout,
    /// Why it was taken.
    pub trigger: Trigger,
    /// Who may delete it.
    pub owner: Owner,
    /// Milliseconds since the Unix epoch, when all state was collected.
    pub completed_ms: i64,
}

/// A stored snapshot.
#[derive(Debug)]
pub struct Stored {
    /// Size of all files that were written for it.
    pub bytes: u64,
    /// Size of all files that it refers to: what it shares with earlier ones too.
    pub full_bytes: u64,
    /// Permission to commit the output that it names.
    pub permit: CommitPermit,
    /// The states of each sink's subtasks.
    pub sink_states: BTreeMap<OperatorUid, Vec<serde_json::Value>>,
    /// What each subtask of each operator, source and sink did.
    pub subtasks: BTreeMap<OperatorUid, Vec<SubtaskRecord>>,
}

/// Why a snapshot could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The store said no.
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
        /// Why, with the state and the key group.
        error: RowsError,
    },
    /// An operator gave state that it has not declared.
    #[error(
        "operator \"{uid}\" gave operator state \"{state}\", which it does not declare; it declares {}. Declare it, or leave it out of `snapshot`.",
        if declared.is_empty() { "none".to_owned() } else { declared.join(", ") }
    )]
    Undeclared {
        /// The operator.
        uid: OperatorUid,
        /// As given.
        state: String,
        /// What there is.
        declared: Vec<String>,
    },
    /// The copies of a broadcast state are not equal.
    #[error(
        "operator \"{uid}\": broadcast state \"{state}\" of subtask {subtask} differs from that of subtask {first}. All subtasks must make the same of the records that all of them get."
    )]
    Broadcast {
        /// The operator.
        uid: OperatorUid,
        /// The state.
        state: String,
        /// The one that differs.
        subtask: u32,
        /// The one whose copy is stored.
        first: u32,
    },
    /// Changes came without what they are changes to.
    #[error(
        "subtask {subtask} of operator \"{uid}\" gave the changes since checkpoint {base}, which is not kept; this is a bug in Regraft, please report it"
    )]
    Base {
        /// The operator.
        uid: OperatorUid,
        /// Its subtask.
        subtask: u32,
        /// What they are changes to.
        base: CheckpointId,
    },
    /// It took longer than it may.
    #[error("it expired while it was being written")]
    Expired,
    /// The encoding thread failed.
    #[error("encoding state failed: {0}")]
    Encode(String),
}

impl StoreFailure {
    /// The operator whose state is at fault, where the same state cannot be saved however often it is tried.
    #[must_use]
    pub const fn at_fault(&self) -> Option<&OperatorUid> {
        match self {
            Self::Rows { uid, .. } | Self::Undeclared { uid, .. } | Self::Broadcast { uid, .. } => Some(uid),
            Self::Store(_) | Self::Metadata(_) | Self::Base { .. } | Self::Expired | Self::Encode(_) => None,
        }
    }
}

/// What helps where the operator has written what it does not declare.
const fn remedy(error: &RowsError) -> &'static str {
    match error {
        RowsError::Key { .. } | RowsError::Entry { .. } | RowsError::Value { .. } => {
            ". That is not what the operator declares: mend it. Checkpoints, and savepoints with --type native, keep the bytes as they are."
        }
        _ => "",
    }
}
