//! Output and counts of the sinks of a job, as each connector reports its own.

use std::collections::BTreeMap;

use regraft_model::id::{CheckpointId, JobId, OperatorUid};
use serde_json::Value;

use crate::connector::sink::{OutputOf, SinkError};
use crate::environment::files::FileSystem;
use crate::graph::job_graph::{JobGraph, Node, NodeKind};

/// Returns the names of the committed output of a job that a node wrote for later snapshots than this one.
///
/// # Errors
/// [`SinkError::Io`].
pub fn later_parts(
    files: &dyn FileSystem,
    node: &Node,
    job_id: JobId,
    checkpoint: CheckpointId,
) -> Result<Vec<String>, SinkError> {
    later_output(files, node, OutputOf::Job(job_id), checkpoint)
}

pub(super) fn later_output(
    files: &dyn FileSystem,
    node: &Node,
    of: OutputOf,
    checkpoint: CheckpointId,
) -> Result<Vec<String>, SinkError> {
    match node.output() {
        Some(connector) => connector.later_output(files, &node.uid, of, checkpoint),
        None => Ok(vec![]),
    }
}

/// Returns the totals of each sink that counts what it is given, out of the states of its writers.
pub fn totals<'a>(
    graph: &JobGraph,
    states: impl IntoIterator<Item = (&'a OperatorUid, &'a [Value])>,
) -> BTreeMap<OperatorUid, (u64, u64)> {
    let of = |(uid, states): (&OperatorUid, &[Value])| match &graph.node(uid.as_str())?.kind {
        NodeKind::Sink(sink) => Some((uid.clone(), sink.connector.totals(states)?)),
        NodeKind::Source(_) | NodeKind::Operator(_) => None,
    };
    states.into_iter().filter_map(of).collect()
}
