//! The parallel expansion of a job graph: chains, subtasks, regions, and the channels between subtasks.
//!
//! Computed once per version of a job, and pure: the same graph always gives the same plan. Everything that has to know
//! which subtask runs which node, or what restarts together, asks the plan (Flink: `ExecutionGraph`).

use std::collections::BTreeMap;

use regraft_model::id::OperatorUid;

use super::chaining;
use super::job_graph::{JobGraph, NodeKind, Partitioning};
use super::regions;

/// One parallel instance of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubtaskId {
    /// Position of the chain in [`Plan::chains`].
    pub chain: u32,
    /// Parallel index within the chain, from 0.
    pub index: u32,
}

/// Position of a region in [`Plan::regions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionIndex(pub u32);

/// Nodes that run in one subtask, in the order of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Positions in [`JobGraph::nodes`]; each but the first is fed only by the one before it.
    pub nodes: Vec<usize>,
    /// Uids of these nodes.
    pub uids: Vec<OperatorUid>,
    /// Number of subtasks.
    pub parallelism: u32,
    /// The region that the chain belongs to.
    pub region: RegionIndex,
    /// True if the first node is a source.
    pub reads: bool,
    /// Edges into the first node, in the order of its inputs.
    pub inputs: Vec<Edge>,
}

/// An edge between two chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Position of the producing chain.
    pub from: u32,
    /// Distribution of records over the consumer's subtasks.
    pub by: Partitioning,
}

/// Chains that restart together: those which records connect, in any direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Positions in [`Plan::chains`], in order.
    pub chains: Vec<u32>,
    /// Uids of all nodes of these chains, in the order of the graph.
    pub uids: Vec<OperatorUid>,
}

/// The parallel expansion of one version of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    chains: Vec<Chain>,
    regions: Vec<Region>,
    chain_of: BTreeMap<OperatorUid, u32>,
}

impl Plan {
    /// Expands a graph.
    #[must_use]
    pub fn new(graph: &JobGraph) -> Self {
        let fused = chaining::chains(graph);
        let connected = regions::regions(graph);
        let uid = |node: &usize| graph.nodes.get(*node).map(|node| node.uid.clone());
        let chain_at = |node: usize| fused.iter().position(|chain| chain.nodes.contains(&node)).unwrap_or(0) as u32;
        let region_at = |node: usize| connected.iter().position(|region| region.contains(&node)).unwrap_or(0) as u32;
        let chain = |chain: &chaining::Fused| {
            let first = chain.nodes.first().copied().unwrap_or_default();
            let head = graph.nodes.get(first);
            let inputs = head.map_or(&[][..], |head| &head.inputs);
            Chain {
                uids: chain.nodes.iter().filter_map(uid).collect(),
                parallelism: chain.parallelism,
                region: RegionIndex(region_at(first)),
                reads: head.is_some_and(|head| matches!(head.kind, NodeKind::Source(_))),
                inputs: inputs
                    .iter()
                    .map(|input| Edge {
                        from: chain_at(input.from),
                        by: input.by,
                    })
                    .collect(),
                nodes: chain.nodes.clone(),
            }
        };
        let chains: Vec<Chain> = fused.iter().map(chain).collect();
        let region = |(index, nodes): (usize, &Vec<usize>)| {
            let own = |(_, chain): &(usize, &Chain)| chain.region == RegionIndex(index as u32);
            Region {
                chains: chains.iter().enumerate().filter(own).map(|(at, _)| at as u32).collect(),
                uids: nodes.iter().filter_map(uid).collect(),
            }
        };
        let of_chain = |(at, chain): (usize, &Chain)| {
            let uids = chain.uids.clone();
            uids.into_iter().map(move |uid| (uid, at as u32))
        };
        Self {
            regions: connected.iter().enumerate().map(region).collect(),
            chain_of: chains.iter().enumerate().flat_map(of_chain).collect(),
            chains,
        }
    }

    /// All chains, each after those that feed it.
    #[must_use]
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The chain at a position.
    #[must_use]
    pub fn chain(&self, chain: u32) -> Option<&Chain> {
        self.chains.get(chain as usize)
    }

    /// All regions, in the order of their first node.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The region at a position.
    #[must_use]
    pub fn region(&self, region: RegionIndex) -> Option<&Region> {
        self.regions.get(region.0 as usize)
    }

    /// The positions of all regions.
    pub fn region_indices(&self) -> impl Iterator<Item = RegionIndex> + use<> {
        (0..self.regions.len() as u32).map(RegionIndex)
    }

    /// All subtasks, in order of chain and index.
    pub fn subtasks(&self) -> impl Iterator<Item = SubtaskId> {
        let chains = self.chains.iter().enumerate();
        chains.flat_map(|(at, chain)| subtasks_of(at as u32, chain))
    }

    /// The subtasks of a region, in order of chain and index.
    pub fn subtasks_of(&self, region: RegionIndex) -> impl Iterator<Item = SubtaskId> {
        let chains = self.chains.iter().enumerate();
        let own = chains.filter(move |(_, chain)| chain.region == region);
        own.flat_map(|(at, chain)| subtasks_of(at as u32, chain))
    }

    /// True if the subtask has a source at its head.
    #[must_use]
    pub fn reads(&self, subtask: SubtaskId) -> bool {
        self.chain(subtask.chain).is_some_and(|chain| chain.reads)
    }

    /// Number of subtasks that have a source at their head.
    #[must_use]
    pub fn sources(&self) -> usize {
        let reading = self.chains.iter().filter(|chain| chain.reads);
        reading.map(|chain| chain.parallelism as usize).sum()
    }

    /// The region of a subtask; `None` if the plan has no such chain.
    #[must_use]
    pub fn region_of(&self, subtask: SubtaskId) -> Option<RegionIndex> {
        self.chain(subtask.chain).map(|chain| chain.region)
    }

    /// The region of a node; `None` if the job has no such uid.
    #[must_use]
    pub fn region_of_uid(&self, uid: &OperatorUid) -> Option<RegionIndex> {
        let chain = self.chain_of.get(uid)?;
        self.chain(*chain).map(|chain| chain.region)
    }

    /// The subtask that runs subtask `index` of a node; `None` if the job has no such uid.
    #[must_use]
    pub fn subtask_of(&self, uid: &OperatorUid, index: u32) -> Option<SubtaskId> {
        let chain = *self.chain_of.get(uid)?;
        Some(SubtaskId { chain, index })
    }

    /// Number of subtasks of a node; 0 if the job has no such uid.
    #[must_use]
    pub fn parallelism_of(&self, uid: &OperatorUid) -> u32 {
        let chain = self.chain_of.get(uid).and_then(|chain| self.chain(*chain));
        chain.map_or(0, |chain| chain.parallelism)
    }

    /// Uids that a subtask runs, in the order of the data.
    #[must_use]
    pub fn uids(&self, subtask: SubtaskId) -> &[OperatorUid] {
        self.chain(subtask.chain).map_or(&[], |chain| &chain.uids)
    }

    /// A subtask as messages name it: the uids of its chain and its index, as in `lines+split#0`.
    #[must_use]
    pub fn name(&self, subtask: SubtaskId) -> String {
        let uids: Vec<&str> = self.uids(subtask).iter().map(OperatorUid::as_str).collect();
        format!("{}#{}", uids.join("+"), subtask.index)
    }
}

/// The consumers of subtask `producer` over an edge to a chain of `parallelism` subtasks, in order.
pub fn consumers(by: Partitioning, producer: u32, parallelism: u32) -> std::ops::Range<u32> {
    if by == Partitioning::Forward {
        producer..producer + 1
    } else {
        0..parallelism
    }
}

fn subtasks_of(at: u32, chain: &Chain) -> impl Iterator<Item = SubtaskId> + use<> {
    (0..chain.parallelism).map(move |index| SubtaskId { chain: at, index })
}
