//! Finds the regions of a graph: nodes that records connect, in any direction, restart together.

use super::job_graph::JobGraph;

/// Returns the connected components of a job: positions in [`JobGraph::nodes`], in order, each in exactly one region; regions in
/// the order of their first node.
///
/// A subtask that failed has lost records on their way to it, and those behind it have seen records that will come again;
/// so all that is connected with it goes back to the last checkpoint, and nothing else has to.
#[must_use]
pub(super) fn regions(graph: &JobGraph) -> Vec<Vec<usize>> {
    // For each node the least one that it is known to be connected with.
    let mut least: Vec<usize> = (0..graph.nodes.len()).collect();
    for (idx, node) in graph.nodes.iter().enumerate() {
        for input in &node.inputs {
            let (Some(&here), Some(&there)) = (least.get(idx), least.get(input.from)) else {
                continue;
            };
            let (low, high) = (here.min(there), here.max(there));
            for region in least.iter_mut().filter(|region| **region == high) {
                *region = low;
            }
        }
    }
    let mut regions: Vec<Vec<usize>> = Vec::new();
    for (idx, first) in least.iter().enumerate() {
        match regions.iter_mut().find(|region| region.first() == Some(first)) {
            Some(region) => region.push(idx),
            None => regions.push(vec![idx]),
        }
    }
    regions
}
