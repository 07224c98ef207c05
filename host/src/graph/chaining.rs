//! Fuses forward neighbours into chains, so that a batch goes from one operator to the next without a channel.

use super::job_graph::{JobGraph, Partitioning};

/// The most nodes of a chain, which call one another on one stack.
const CHAIN_MAX: usize = 100;

/// Nodes that are fused into one chain, in the order of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fused {
    /// Positions in [`JobGraph::nodes`]; each but the first is fed only by the one before it.
    pub(super) nodes: Vec<usize>,
    /// Number of subtasks.
    pub(super) parallelism: u32,
}

/// Returns all chains, each after those that feed it; every node is in exactly one.
///
/// A node joins the chain of its input if it has no other input, the edge is forward between equal parallelisms, and
/// the input has no other reader.
#[must_use]
pub(super) fn chains(graph: &JobGraph) -> Vec<Fused> {
    let mut readers = vec![0_usize; graph.nodes.len()];
    for input in graph.nodes.iter().flat_map(|node| &node.inputs) {
        if let Some(count) = readers.get_mut(input.from) {
            *count += 1;
        }
    }
    let mut chains: Vec<Fused> = Vec::new();
    // `nodes` is in topological order, so the chain of an input is always there already.
    for (idx, node) in graph.nodes.iter().enumerate() {
        let joins = match node.inputs.as_slice() {
            [input] => {
                let single = readers.get(input.from) == Some(&1);
                let equal = graph
                    .nodes
                    .get(input.from)
                    .is_some_and(|above| above.parallelism == node.parallelism);
                (input.by == Partitioning::Forward && single && equal).then_some(input.from)
            }
            _ => None,
        };
        let chain = joins.and_then(|above| chains.iter_mut().find(|chain| chain.nodes.last() == Some(&above)));
        match chain.filter(|chain| chain.nodes.len() < CHAIN_MAX) {
            Some(chain) => chain.nodes.push(idx),
            None => chains.push(Fused {
                nodes: vec![idx],
                parallelism: node.parallelism,
            }),
        }
    }
    chains
}
