//! A source and the splits that it has: readers, one for each subtask.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{DeployError, RestoredState};
use crate::dataflow::source::file::FileReader;
use crate::dataflow::source::generator::GeneratorReader;
use crate::dataflow::source::{SourceError, SourceReader, SplitState, file, generator};
use crate::graph::job_graph::{Node, Source, SourceConnector};

pub(super) type Readers = VecDeque<(Box<dyn SourceReader>, f64)>;

/// A reader per subtask, each with its share of the rate. Splits are dealt out in sorted order.
pub(super) fn open_source(node: &Node, source: &Source, restored: &mut RestoredState) -> Result<Readers, DeployError> {
    let failed = |error| DeployError::Source {
        uid: node.uid.clone(),
        error,
    };
    let mut saved: BTreeMap<String, Option<serde_json::Value>> = BTreeMap::new();
    match &source.connector {
        SourceConnector::File(settings) => {
            // Files known from before are opened even where the glob misses them now, so that a lost one is told.
            let known = restored.splits.get(&node.uid).is_some_and(|splits| !splits.is_empty());
            let names = match file::list(settings) {
                Err(SourceError::NothingMatches { .. }) if known => vec![],
                names => names.map_err(failed)?,
            };
            saved.extend(names.into_iter().map(|name| (name, None)));
        }
        SourceConnector::Generator(settings) => {
            saved.extend(generator::list(settings).into_iter().map(|name| (name, None)));
        }
    }
    for SplitState { split, position } in restored.splits.remove(&node.uid).unwrap_or_default() {
        saved.insert(split, Some(position));
    }
    let known: Arc<HashSet<String>> = Arc::new(saved.keys().cloned().collect());
    let parallelism = node.parallelism;
    let mut shares: Vec<Vec<_>> = (0..parallelism).map(|_| vec![]).collect();
    for (i, split) in saved.into_iter().enumerate() {
        shares[i % parallelism as usize].push(split);
    }
    let busy = shares.iter().filter(|share| !share.is_empty()).count().max(1);
    let mut readers = Readers::new();
    for (subtask, splits) in shares.into_iter().enumerate() {
        let reader: Box<dyn SourceReader> = match &source.connector {
            SourceConnector::File(settings) => {
                let reader = FileReader::new(settings.clone(), subtask as u32, parallelism, splits, known.clone());
                Box::new(reader.map_err(failed)?)
            }
            SourceConnector::Generator(settings) => {
                let reader = GeneratorReader::new(settings.clone(), splits).map_err(failed)?;
                let timestamp = node.watermark.as_ref().and_then(|strategy| strategy.timestamp);
                Box::new(reader.with_timestamps(timestamp))
            }
        };
        readers.push_back((reader, 1.0 / busy as f64));
    }
    Ok(readers)
}
