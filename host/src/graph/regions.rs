//! Finds the regions of a graph: nodes that records connect, in any direction, restart together.

use super::job_graph::JobGraph;

/// Returns the connected components of a job: positions in [`JobGraph::nodes`], in order, each in exactly one region; regions in
/// the order of their first node.
///
/// The nodes of a region are in order, the regions are in order of their first node, and every node is in exactly one.
///
/// A failed subtask has lost records on their way to it, and the subtasks behind it have seen records that will come
/// again.
/// Therefore all nodes connected with it, and no others, go back to the last checkpoint.
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
