//! A job graph, its components and its restored state become subtasks, wired by channels. Nothing runs yet.

mod sources;
mod sinks;
mod operators;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use regraft_guest_runtime::call::OperatorState;
use regraft_guest_runtime::trap::GuestError;
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::time::{Clock, NO_TIMESTAMP};

use self::operators::{Budgets, backend, budgets, policy};
use self::sinks::open_sink;
use self::sources::open_source;
pub use self::{operators::open_operator, sinks::committer};
use super::admission::{Descriptions, edge_shape};
use crate::connector::sink::{SinkError, SinkInput};
use crate::connector::source::{SourceError, SplitState};
use crate::dataflow::chain::{Chain, ChainedKind, ChainedNode, SinkNode};
use crate::dataflow::control::{EventSink, Mailbox, NodeCounters, SubtaskId};
use crate::dataflow::exchange::channel::{Receiver, Sender, channel};
use crate::dataflow::exchange::gate::Gate;
use crate::dataflow::exchange::partitioner::OutputEdge;
use crate::dataflow::failure::Backtrace;
use crate::dataflow::node::{NodeParts, OperatorNode, plain_header};
use crate::dataflow::operator::Modules;
use crate::dataflow::positions::PositionLog;
use crate::dataflow::rate::Rate;
use crate::dataflow::subtask::{Head, SourceHead, Subtask};
use crate::dataflow::watermark::Watermarks;
use crate::environment::files::FileSystem;
use crate::environment::memory::StateBudget;
use crate::graph::job_graph::{JobGraph, Node, NodeKind};
use crate::graph::plan::{Plan, RegionIndex, consumers};
use crate::state::backend::BackendError;
use crate::state::budget::OperatorStateBytes;
use crate::state::rows::StateRows;

/// Rows of one state, or of timers, for one subtask.
#[derive(Debug)]
pub struct RestoredRows {
    /// Name of the state among those of the operator.
    pub state: String,
    /// Its rows.
    pub rows: Vec<StateRows>,
}

/// State that a job starts with.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// Keyed state, by uid and subtask.
    pub keyed: HashMap<(OperatorUid, u32), Vec<RestoredRows>>,
    /// All splits of each source.
    pub splits: HashMap<OperatorUid, Vec<SplitState>>,
    /// The states of each sink's subtasks, added up as the connector does.
    pub sinks: HashMap<OperatorUid, serde_json::Value>,
    /// Watermark of each uid.
    pub watermarks: HashMap<OperatorUid, i64>,
    /// Subtasks of operators whose `finish` has run: what they emitted then is output already.
    pub finished: HashSet<(OperatorUid, u32)>,
    /// Operator state and private state, by uid and subtask.
    pub operator: HashMap<(OperatorUid, u32), Vec<OperatorState>>,
    /// Checkpoint of each uid whose state is that of the same job at the same parallelism: the next checkpoint can hold only
    /// the changes since.
    pub rounds: HashMap<OperatorUid, CheckpointId>,
    /// Operators to run carefully: a failure of theirs is why the job was restarted, and the record at fault is to be found
    /// (`SubtaskFailure::unisolated`).
    pub careful: BTreeSet<OperatorUid>,
}

/// Identity of a deployment.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The version.
    pub version: JobVersion,
    /// Random number of the attempt.
    pub nonce: u32,
}

/// Subtasks ready to run.
pub struct Deployed {
    /// In order of chain and index.
    pub subtasks: Vec<Subtask>,
    /// Mailbox of each.
    pub mailboxes: BTreeMap<SubtaskId, Arc<Mailbox>>,
    /// Those with a source at their head.
    pub sources: BTreeSet<SubtaskId>,
}

/// Counters of each node of a job, subtask by subtask.
pub type Counters = BTreeMap<OperatorUid, Vec<Arc<NodeCounters>>>;

/// Failure to deploy a job.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A component does not start.
    #[error("operator \"{uid}\", subtask {subtask}, failed in open: {error}{}", Backtrace(.error))]
    Open {
        /// The operator.
        uid: OperatorUid,
        /// The subtask.
        subtask: u32,
        /// The error of the component.
        error: GuestError,
    },
    /// A component does not take its state.
    #[error("operator \"{uid}\", subtask {subtask}, failed in restore: {error}{}", Backtrace(.error))]
    Restore {
        /// The operator.
        uid: OperatorUid,
        /// The subtask.
        subtask: u32,
        /// The error of the component.
        error: GuestError,
    },
    /// A source cannot be read.
    #[error("source \"{uid}\": {error}")]
    Source {
        /// The source.
        uid: OperatorUid,
        /// The error of the connector.
        error: SourceError,
    },
    /// A sink cannot be written.
    #[error("sink \"{uid}\": {error}")]
    Sink {
        /// The sink.
        uid: OperatorUid,
        /// The error of the connector.
        error: SinkError,
    },
    /// A broken rule in the host.
    #[error(transparent)]
    Bug(#[from] BackendError),
    /// Graph and components do not fit; admission tells first.
    #[error("{0}")]
    Shape(String),
}

impl DeployError {
    /// Returns its kind. A component that does not open is the job's configuration; a missing file is a failed operation.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Open { .. } | Self::Restore { .. } | Self::Source { .. } | Self::Sink { .. } => ErrorKind::Failed,
            Self::Bug(_) => ErrorKind::Bug,
            Self::Shape(_) => ErrorKind::Usage,
        }
    }

    /// Returns the uid of the node that it is about.
    #[must_use]
    pub const fn uid(&self) -> Option<&OperatorUid> {
        match self {
            Self::Open { uid, .. } | Self::Restore { uid, .. } | Self::Source { uid, .. } | Self::Sink { uid, .. } => {
                Some(uid)
            }
            Self::Bug(_) | Self::Shape(_) => None,
        }
    }

    /// Returns the file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Source { error, .. } => error.path(),
            Self::Sink { error, .. } => error.path(),
            _ => None,
        }
    }

    /// Returns true if another try may succeed.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Open { error, .. } | Self::Restore { error, .. } => matches!(error, GuestError::Engine { .. }),
            Self::Source { error, .. } => matches!(error, SourceError::Io { .. }),
            Self::Sink { error, .. } => matches!(error, SinkError::Io { .. }),
            Self::Bug(_) | Self::Shape(_) => false,
        }
    }
}

/// The surroundings of a deployment.
pub struct DeployContext<'a> {
    /// Its identity.
    pub identity: Identity,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The files of sources and sinks.
    pub files: Arc<dyn FileSystem>,
    /// Takes the subtasks' events.
    pub events: EventSink,
    /// The components.
    pub modules: &'a Modules,
    /// Their declarations.
    pub descriptions: &'a Descriptions,
    /// True if sources wait at the end of input.
    pub hold_at_end: bool,
    /// Number of splits of a subtask up to which their positions are listed in `_metadata`.
    pub listed_splits_most: usize,
    /// Counters of the nodes.
    pub counters: &'a Counters,
}

/// Builds the subtasks of one region of a job.
///
/// # Errors
/// [`DeployError`]; then nothing is left behind.
pub fn deploy(
    graph: &JobGraph,
    plan: &Plan,
    region: RegionIndex,
    restored: &mut RestoredState,
    context: &DeployContext<'_>,
) -> Result<Deployed, DeployError> {
    let chains = plan.chains();
    let wanted = || chains.iter().enumerate().filter(|(_, chain)| chain.region == region);
    let mut deployed = Deployed {
        subtasks: vec![],
        mailboxes: BTreeMap::new(),
        sources: BTreeSet::new(),
    };
    for id in plan.subtasks_of(region) {
        deployed.mailboxes.insert(id, Arc::default());
    }
    let budgets = budgets(graph, restored);
    let mut wiring = wire(graph, plan, region, context.descriptions, &deployed.mailboxes)?;
    let mut readers = HashMap::new();
    for (c, chain) in wanted() {
        if let NodeKind::Source(source) = &graph.nodes[chain.nodes[0]].kind {
            readers.insert(
                c,
                open_source(&graph.nodes[chain.nodes[0]], source, restored, &context.files)?,
            );
        }
    }
    for (c, chain) in wanted() {
        for index in 0..chain.parallelism {
            let id = SubtaskId { chain: c as u32, index };
            let first = &graph.nodes[chain.nodes[0]];
            let watermark = restored.watermarks.get(&first.uid).copied().unwrap_or(NO_TIMESTAMP);
            let (inputs, edges) = wiring.remove(&id).unwrap_or_default();
            let (head, rest) = if let NodeKind::Source(source) = &first.kind {
                deployed.sources.insert(id);
                let reader = readers.get_mut(&c).and_then(|readers| readers.pop_front());
                let Some((reader, share)) = reader else {
                    return Err(DeployError::Shape("no reader".to_owned()));
                };
                let rate = source
                    .rate
                    .map(|rate| Rate::new(rate as f64 * share, context.clock.monotonic_ns()));
                let counters = counters_of(context, first, index)?;
                let uid = first.uid.clone();
                let strategy = first.watermark.as_ref();
                let head = SourceHead {
                    positions: PositionLog::new(context.listed_splits_most),
                    uid,
                    reader,
                    rate,
                    watermarks: strategy.map(|strategy| Watermarks::of_source(strategy, watermark)),
                    counters,
                    hold_at_end: context.hold_at_end,
                };
                (Head::Source(head), &chain.nodes[1..])
            } else {
                (Head::Gate(Gate::new(inputs, watermark)), &chain.nodes[..])
            };
            let mut nodes = vec![];
            for &at in rest {
                let counters = counters_of(context, &graph.nodes[at], index)?;
                nodes.push(chained(graph, at, index, restored, context, (counters, &budgets))?);
            }
            let (mailbox, events) = (deployed.mailboxes[&id].clone(), context.events.clone());
            let chain = Chain::new(nodes, edges);
            deployed.subtasks.push(Subtask::new(
                id,
                head,
                chain,
                mailbox,
                events,
                context.clock.clone(),
                watermark,
            ));
        }
    }
    Ok(deployed)
}

/// Counters of every node of a job. The state of its operators counts towards `budget`.
#[must_use]
pub fn counters(graph: &JobGraph, budget: &Arc<StateBudget>) -> Counters {
    let of = |node: &Node| {
        let state_max = match &node.kind {
            NodeKind::Operator(operator) => operator.state_max,
            _ => None,
        };
        let state = Arc::new(OperatorStateBytes::new(state_max, budget.clone()));
        let lines = Arc::default();
        let each = (0..node.parallelism).map(|_| Arc::new(NodeCounters::sharing(&state, &lines)));
        each.collect()
    };
    graph.nodes.iter().map(|node| (node.uid.clone(), of(node))).collect()
}

fn counters_of(context: &DeployContext<'_>, node: &Node, index: u32) -> Result<Arc<NodeCounters>, DeployError> {
    let all = context.counters.get(&node.uid);
    let counters = all.and_then(|all| all.get(index as usize)).cloned();
    counters.ok_or_else(|| DeployError::Shape(format!("\"{}\" has no counters", node.uid)))
}

type Wiring = HashMap<SubtaskId, (Vec<(u32, Receiver)>, Vec<OutputEdge>)>;

/// Makes the channels of every edge between chains of a region.
fn wire(
    graph: &JobGraph,
    plan: &Plan,
    region: RegionIndex,
    descriptions: &Descriptions,
    mailboxes: &BTreeMap<SubtaskId, Arc<Mailbox>>,
) -> Result<Wiring, DeployError> {
    let mut wiring = Wiring::new();
    let chains = plan.chains().iter().enumerate();
    for (c, chain) in chains.filter(|(_, chain)| chain.region == region) {
        let inputs = &graph.nodes[chain.nodes[0]].inputs;
        for (number, (input, edge)) in inputs.iter().zip(&chain.inputs).enumerate() {
            let shape = edge_shape(graph, descriptions, input).map_err(DeployError::Shape)?;
            let producers = plan.chain(edge.from).map_or(0, |chain| chain.parallelism);
            for i in 0..producers {
                let producer = SubtaskId {
                    chain: edge.from,
                    index: i,
                };
                let mut senders: Vec<Sender> = vec![];
                for index in consumers(edge.by, i, chain.parallelism) {
                    let consumer = SubtaskId { chain: c as u32, index };
                    let (sender, receiver) = channel(mailboxes[&producer].clone(), mailboxes[&consumer].clone());
                    senders.push(sender);
                    wiring.entry(consumer).or_default().0.push((number as u32, receiver));
                }
                let edge = OutputEdge::new(shape.port, edge.by, graph.max_parallelism, i, senders);
                wiring.entry(producer).or_default().1.push(edge);
            }
        }
    }
    Ok(wiring)
}

fn chained(
    graph: &JobGraph,
    at: usize,
    subtask: u32,
    restored: &mut RestoredState,
    context: &DeployContext<'_>,
    (counters, budgets): (Arc<NodeCounters>, &Budgets),
) -> Result<ChainedNode, DeployError> {
    let node = &graph.nodes[at];
    let input = node
        .inputs
        .first()
        .ok_or_else(|| DeployError::Shape(format!("\"{}\" has no input", node.uid)))?;
    let shape = edge_shape(graph, context.descriptions, input).map_err(DeployError::Shape)?;
    let kind = match &node.kind {
        NodeKind::Operator(operator) => {
            let watermark = restored.watermarks.get(&node.uid).copied().unwrap_or(NO_TIMESTAMP);
            let module = context.modules.get(&node.uid);
            let module = module.ok_or_else(|| DeployError::Shape(format!("\"{}\" has no module", node.uid)))?;
            let states = restored
                .operator
                .remove(&(node.uid.clone(), subtask))
                .unwrap_or_default();
            let header = plain_header(context.clock.now_ms(), watermark);
            let prepared = open_operator(graph, node, operator, &**module, (subtask, &counters), header, &states)?;
            let policy = policy(node, operator, subtask, restored, context, budgets)?;
            let backend = backend(graph, node, subtask, &prepared.description, restored)?;
            let seed = u64::from(subtask) ^ xxhash_rust::xxh3::xxh3_64(node.uid.as_str().as_bytes());
            let parts = NodeParts {
                uid: node.uid.clone(),
                subtask,
                prepared,
                backend,
                clock: context.clock.clone(),
                counters,
                watermark,
                strategy: node.watermark.clone(),
                policy,
                seed,
            };
            let mut operator = OperatorNode::new(parts);
            operator.set_finished(restored.finished.contains(&(node.uid.clone(), subtask)));
            ChainedKind::Operator(Box::new(operator))
        }
        NodeKind::Sink(sink) => {
            let saved = restored.sinks.get(&node.uid).cloned().unwrap_or_default();
            let writer = open_sink(
                node,
                &sink.connector,
                subtask,
                &saved,
                context,
                SinkInput::Records(&shape.value),
            )
            .map_err(|error| DeployError::Sink {
                uid: node.uid.clone(),
                error,
            })?;
            ChainedKind::Sink(SinkNode {
                uid: node.uid.clone(),
                subtask,
                writer,
                counters,
            })
        }
        NodeKind::Source(_) => return Err(DeployError::Shape(format!("source \"{}\" has an input", node.uid))),
    };
    Ok(ChainedNode { port: shape.port, kind })
}
