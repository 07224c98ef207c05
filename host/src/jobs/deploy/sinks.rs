//! Opens writers and committers of the output of a node.

use std::sync::Arc;

use super::DeployContext;
use crate::connector::sink::{OutputRun, SinkCommitter, SinkConnector, SinkContext, SinkError, SinkInput, SinkWriter};
use crate::environment::files::FileSystem;
use crate::graph::job_graph::Node;

/// Opens the writer of one subtask, and begins its first transaction.
pub(super) fn open_sink(
    node: &Node,
    connector: &Arc<dyn SinkConnector>,
    subtask: u32,
    saved: &serde_json::Value,
    context: &DeployContext<'_>,
    input: SinkInput<'_>,
) -> Result<Box<dyn SinkWriter>, SinkError> {
    let of = SinkContext {
        files: context.files.clone(),
        job_id: context.identity.job_id,
        attempt: context.identity.attempt,
        nonce: context.identity.nonce,
        version: context.identity.version,
        uid: node.uid.clone(),
        subtask,
        parallelism: node.parallelism,
    };
    let mut writer = connector.writer(of, input, saved)?;
    writer.begin()?;
    Ok(writer)
}

/// Returns what commits the output of a connector.
#[must_use]
pub fn committer(
    files: &Arc<dyn FileSystem>,
    connector: &Arc<dyn SinkConnector>,
    run: OutputRun,
) -> Arc<dyn SinkCommitter> {
    connector.committer(files, run)
}
