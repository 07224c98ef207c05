//! A source and the splits that it has: readers, one for each subtask.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{DeployError, RestoredState};
use crate::connector::source::{Assigned, SourceContext, SourceReader};
use crate::environment::files::FileSystem;
use crate::graph::job_graph::{Node, Source};

pub(super) type Readers = VecDeque<(Box<dyn SourceReader>, f64)>;

/// Opens a reader for each subtask, with its share of the rate. Splits are dealt out in sorted order.
pub(super) fn open_source(
    node: &Node,
    source: &Source,
    restored: &mut RestoredState,
    files: &Arc<dyn FileSystem>,
) -> Result<Readers, DeployError> {
    let failed = |error| DeployError::Source {
        uid: node.uid.clone(),
        error,
    };
    let saved = restored.splits.remove(&node.uid).unwrap_or_default();
    let splits = source.connector.assign(&**files, saved).map_err(failed)?;
    let mut context = SourceContext {
        files: files.clone(),
        subtask: 0,
        parallelism: node.parallelism,
        timestamp: node.watermark.as_ref().and_then(|strategy| strategy.timestamp),
        known: Arc::new(splits.clone()),
    };
    let mut shares: Vec<Vec<Assigned>> = (0..node.parallelism).map(|_| vec![]).collect();
    for (at, split) in splits.into_iter().enumerate() {
        shares[at % node.parallelism as usize].push(split);
    }
    let busy = shares.iter().filter(|share| !share.is_empty()).count().max(1);
    let mut readers = Readers::new();
    for (subtask, splits) in (0..).zip(shares) {
        context.subtask = subtask;
        let reader = source.connector.reader(&context, splits).map_err(failed)?;
        readers.push_back((reader, 1.0 / busy as f64));
    }
    Ok(readers)
}
