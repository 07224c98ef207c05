//! A sink's connector: what writes its output, and what commits it.

use std::sync::Arc;

use regraft_model::describe::PortValue;
use regraft_model::id::{JobId, OperatorUid};

use super::{DeployContext, Identity};
use crate::dataflow::sink::blackhole::BlackholeWriter;
use crate::dataflow::sink::file::{FileSinkCommitter, FileSinkContext, FileSinkWriter};
use crate::dataflow::sink::print::{NoCommitter, PrintWriter};
use crate::dataflow::sink::{SinkCommitter, SinkError, SinkWriter};
use crate::environment::files::FileSystem;
use crate::graph::job_graph::{Node, SinkConnector};

pub(super) fn open_sink(
    node: &Node,
    connector: &SinkConnector,
    subtask: u32,
    saved: &serde_json::Value,
    context: &DeployContext<'_>,
    input: &PortValue,
) -> Result<Box<dyn SinkWriter>, SinkError> {
    let mut writer: Box<dyn SinkWriter> = match connector {
        SinkConnector::File(settings) => {
            let (files, of) = (context.files.clone(), file_context(node, subtask, context.identity));
            Box::new(FileSinkWriter::new(files, settings.clone(), of, input)?)
        }
        SinkConnector::Print => Box::new(PrintWriter::new(subtask, node.parallelism, input)?),
        // Totals are sums: all of what was saved goes to one subtask.
        SinkConnector::Blackhole if subtask == 0 => Box::new(BlackholeWriter::new(saved)),
        SinkConnector::Blackhole => Box::new(BlackholeWriter::new(&serde_json::Value::Null)),
    };
    writer.begin()?;
    Ok(writer)
}

pub(super) fn file_context(node: &Node, subtask: u32, identity: Identity) -> FileSinkContext {
    FileSinkContext {
        job_id: identity.job_id,
        uid: node.uid.clone(),
        subtask,
        attempt: identity.attempt,
        version: identity.version,
    }
}

/// What commits the output of a connector.
#[must_use]
pub fn committer(
    files: &Arc<dyn FileSystem>,
    uid: &OperatorUid,
    connector: &SinkConnector,
    job_id: JobId,
) -> Arc<dyn SinkCommitter> {
    match connector {
        SinkConnector::File(settings) => Arc::new(FileSinkCommitter {
            files: files.clone(),
            path: settings.path.clone(),
            job_id,
            uid: uid.clone(),
        }),
        SinkConnector::Print | SinkConnector::Blackhole => Arc::new(NoCommitter),
    }
}
