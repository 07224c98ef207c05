//! A job graph, its components and its restored state become subtasks, wired by channels. Nothing runs yet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use regraft_guest_runtime::call::OperatorState;
use regraft_guest_runtime::events::GuestEvents;
use regraft_guest_runtime::instance::InstanceSettings;
use regraft_guest_runtime::trap::GuestError;
use regraft_model::describe::{Description, PortValue};
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::key_group::range_of;
use regraft_model::time::{Clock, NO_TIMESTAMP};

use super::admission::{Descriptions, edge_shape};
use super::guest_log::GuestLog;
use crate::dataflow::chain::{Chain, ChainedKind, ChainedNode, SinkNode};
use crate::dataflow::control::{EventSink, Mailbox, NodeCounters, SubtaskId};
use crate::dataflow::element::PreparedOperator;
use crate::dataflow::exchange::channel::{Receiver, Sender, channel};
use crate::dataflow::exchange::gate::Gate;
use crate::dataflow::exchange::partitioner::OutputEdge;
use crate::dataflow::failure::Backtrace;
use crate::dataflow::operator::dead_letters::{self, Budget, DeadLetters};
use crate::dataflow::operator::node::{NodeParts, NodePolicy, OperatorNode, open_context};
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::dataflow::sink::blackhole::BlackholeWriter;
use crate::dataflow::sink::file::{FileSinkCommitter, FileSinkContext, FileSinkWriter};
use crate::dataflow::sink::print::{NoCommitter, PrintWriter};
use crate::dataflow::sink::{SinkCommitter, SinkError, SinkWriter};
use crate::dataflow::source::file::FileReader;
use crate::dataflow::source::generator::GeneratorReader;
use crate::dataflow::source::rate::Rate;
use crate::dataflow::source::{SourceError, SourceReader, SplitState, file, generator};
use crate::dataflow::subtask::{Head, SourceHead, Subtask};
use crate::dataflow::watermark::Watermarks;
use crate::environment::files::FileSystem;
use crate::graph::chaining;
use crate::graph::job_graph::{
    JobGraph, Node, NodeKind, Operator, Partitioning, SinkConnector, Source, SourceConnector,
};
use crate::state::backend::{BackendError, StateBackend, bindings};
use crate::state::memory::MemoryBackend;
use crate::state::rows::{RowsOf, StateRows};

/// Rows of one state, or of timers, for one subtask.
#[derive(Debug)]
pub struct RestoredRows {
    /// The state's name: it says which of the operator's states they are of.
    pub state: String,
    /// Its rows.
    pub rows: Vec<StateRows>,
}

/// What a job starts with.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// Keyed state, by uid and subtask.
    pub keyed: HashMap<(OperatorUid, u32), Vec<RestoredRows>>,
    /// All splits of each source.
    pub splits: HashMap<OperatorUid, Vec<SplitState>>,
    /// The states of each sink's subtasks, added up as the connector does.
    pub sinks: HashMap<OperatorUid, serde_json::Value>,
    /// Where each uid's watermark stood.
    pub watermarks: HashMap<OperatorUid, i64>,
    /// Subtasks of operators whose `finish` has run: what they emitted then is output already.
    pub finished: HashSet<(OperatorUid, u32)>,
    /// Operator state and private state, by uid and subtask.
    pub operator: HashMap<(OperatorUid, u32), Vec<OperatorState>>,
    /// Of each uid whose state is that of a checkpoint of the same job at the same parallelism, that checkpoint: the next one
    /// can hold what has changed since.
    pub rounds: HashMap<OperatorUid, CheckpointId>,
    /// Operators to run carefully: a failure of theirs is why the job was restarted, and the record at fault is to be found
    /// (`SubtaskFailure::unisolated`).
    pub careful: BTreeSet<OperatorUid>,
}

/// What identifies a deployment.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The version.
    pub version: JobVersion,
}

/// Subtasks ready to run.
pub struct Deployed {
    /// In order of chain and index.
    pub subtasks: Vec<Subtask>,
    /// The way into each.
    pub mailboxes: BTreeMap<SubtaskId, Arc<Mailbox>>,
    /// Those at the head of which is a source.
    pub sources: BTreeSet<SubtaskId>,
}

/// What each node of a job counts, subtask by subtask.
pub type Counters = BTreeMap<OperatorUid, Vec<Arc<NodeCounters>>>;

/// Why a job cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A component does not start.
    #[error("operator \"{uid}\", subtask {subtask}, failed in open: {error}{}", Backtrace(.error))]
    Open {
        /// The operator.
        uid: OperatorUid,
        /// The subtask.
        subtask: u32,
        /// Its words.
        error: GuestError,
    },
    /// A component does not take its state.
    #[error("operator \"{uid}\", subtask {subtask}, failed in restore: {error}{}", Backtrace(.error))]
    Restore {
        /// The operator.
        uid: OperatorUid,
        /// The subtask.
        subtask: u32,
        /// Its words.
        error: GuestError,
    },
    /// A source cannot be read.
    #[error("source \"{uid}\": {error}")]
    Source {
        /// The source.
        uid: OperatorUid,
        /// Why.
        error: SourceError,
    },
    /// A sink cannot be written.
    #[error("sink \"{uid}\": {error}")]
    Sink {
        /// The sink.
        uid: OperatorUid,
        /// Why.
        error: SinkError,
    },
    /// A broken rule in the host.
    #[error(transparent)]
    Bug(#[from] BackendError),
    /// Graph and components do not fit; admission tells first.
    #[error("{0}")]
    Shape(String),
}

/// What deployment needs beside the job itself.
pub struct DeployContext<'a> {
    /// Who it is.
    pub identity: Identity,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The files of sinks.
    pub files: Arc<dyn FileSystem>,
    /// Takes the subtasks' events.
    pub events: EventSink,
    /// The components.
    pub modules: &'a Modules,
    /// What they declare.
    pub descriptions: &'a Descriptions,
    /// Whether sources wait at the end of input.
    pub hold_at_end: bool,
    /// Where nodes count.
    pub counters: &'a Counters,
}

/// Opens an instance of a component for one subtask, and gives it the operator state that it had, if any.
///
/// # Errors
/// [`DeployError::Open`], [`DeployError::Restore`].
pub fn open_operator(
    graph: &JobGraph,
    node: &Node,
    operator: &Operator,
    module: &dyn OperatorModule,
    subtask: u32,
    watermark: i64,
    states: &[OperatorState],
) -> Result<PreparedOperator, DeployError> {
    let failed = |error| DeployError::Open {
        uid: node.uid.clone(),
        subtask,
        error,
    };
    let description = Arc::new(module.description().clone());
    let settings = InstanceSettings {
        memory_max: operator.memory_max,
        time_per_batch_max: operator.time_per_batch_max,
        config: operator.config.to_string().into(),
        arguments: graph.arguments.clone().into(),
        sink: Arc::new(GuestLog::new(&node.uid, subtask)) as Arc<dyn GuestEvents>,
    };
    let mut instance = module.instantiate(&settings).map_err(failed)?;
    let context = open_context(
        &node.uid,
        &description,
        subtask,
        node.parallelism,
        graph.max_parallelism,
        watermark,
    );
    instance.open(&context).map_err(failed)?;
    if !states.is_empty() {
        instance.restore(states).map_err(|error| DeployError::Restore {
            uid: node.uid.clone(),
            subtask,
            error,
        })?;
    }
    Ok(PreparedOperator {
        operator: instance,
        description,
        context,
    })
}

/// Builds the subtasks of some chains of a job, which are connected with no others. `wanted` are positions among the
/// job's chains.
///
/// # Errors
/// [`DeployError`]; then nothing is left behind.
pub fn deploy(
    graph: &JobGraph,
    wanted: &[usize],
    restored: &mut RestoredState,
    context: &DeployContext<'_>,
) -> Result<Deployed, DeployError> {
    let chains = chaining::chains(graph);
    let wanted = || chains.iter().enumerate().filter(|(c, _)| wanted.contains(c));
    let mut deployed = Deployed {
        subtasks: vec![],
        mailboxes: BTreeMap::new(),
        sources: BTreeSet::new(),
    };
    for (c, chain) in wanted() {
        for index in 0..chain.parallelism {
            deployed
                .mailboxes
                .insert(SubtaskId { chain: c as u32, index }, Arc::default());
        }
    }
    let budgets = budgets(graph, restored);
    let mut wiring = wire(graph, &chains, context.descriptions, &deployed.mailboxes)?;
    let mut readers = HashMap::new();
    for (c, chain) in wanted() {
        if let NodeKind::Source(source) = &graph.nodes[chain.nodes[0]].kind {
            readers.insert(c, open_source(&graph.nodes[chain.nodes[0]], source, restored)?);
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

/// Counters of every node of a job.
#[must_use]
pub fn counters(graph: &JobGraph) -> Counters {
    let of = |node: &Node| (0..node.parallelism).map(|_| Arc::default()).collect();
    graph.nodes.iter().map(|node| (node.uid.clone(), of(node))).collect()
}

fn counters_of(context: &DeployContext<'_>, node: &Node, index: u32) -> Result<Arc<NodeCounters>, DeployError> {
    let all = context.counters.get(&node.uid);
    let counters = all.and_then(|all| all.get(index as usize)).cloned();
    counters.ok_or_else(|| DeployError::Shape(format!("\"{}\" has no counters", node.uid)))
}

type Wiring = HashMap<SubtaskId, (Vec<(u32, Receiver)>, Vec<OutputEdge>)>;

/// Makes the channels of every edge between chains.
fn wire(
    graph: &JobGraph,
    chains: &[chaining::Chain],
    descriptions: &Descriptions,
    mailboxes: &BTreeMap<SubtaskId, Arc<Mailbox>>,
) -> Result<Wiring, DeployError> {
    let chain_of = |node: usize| chains.iter().position(|chain| chain.nodes.contains(&node)).unwrap_or(0);
    let mut wiring = Wiring::new();
    let deployed = |c: usize| {
        mailboxes.contains_key(&SubtaskId {
            chain: c as u32,
            index: 0,
        })
    };
    for (c, chain) in chains.iter().enumerate().filter(|(c, _)| deployed(*c)) {
        for (number, input) in graph.nodes[chain.nodes[0]].inputs.iter().enumerate() {
            let shape = edge_shape(graph, descriptions, input).map_err(DeployError::Shape)?;
            let from = chain_of(input.from);
            for i in 0..chains[from].parallelism {
                let producer = SubtaskId {
                    chain: from as u32,
                    index: i,
                };
                let consumers: Vec<u32> = if input.by == Partitioning::Forward {
                    vec![i]
                } else {
                    (0..chain.parallelism).collect()
                };
                let mut senders: Vec<Sender> = vec![];
                for index in consumers {
                    let consumer = SubtaskId { chain: c as u32, index };
                    let (sender, receiver) = channel(mailboxes[&producer].clone(), mailboxes[&consumer].clone());
                    senders.push(sender);
                    wiring.entry(consumer).or_default().0.push((number as u32, receiver));
                }
                let edge = OutputEdge::new(shape.port, input.by, graph.max_parallelism, i, senders);
                wiring.entry(producer).or_default().1.push(edge);
            }
        }
    }
    Ok(wiring)
}

type Readers = std::collections::VecDeque<(Box<dyn SourceReader>, f64)>;

/// A reader per subtask, each with its share of the rate. Splits are dealt out in sorted order.
fn open_source(node: &Node, source: &Source, restored: &mut RestoredState) -> Result<Readers, DeployError> {
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
            let prepared = open_operator(graph, node, operator, &**module, subtask, watermark, &states)?;
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
            let writer = open_sink(node, &sink.connector, subtask, &saved, context, &shape.value).map_err(|error| {
                DeployError::Sink {
                    uid: node.uid.clone(),
                    error,
                }
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

/// Keyed state for an operator whose inputs all come by key: it may have none today and some after an upgrade.
fn backend(
    graph: &JobGraph,
    node: &Node,
    subtask: u32,
    description: &Description,
    restored: &mut RestoredState,
) -> Result<Option<Box<dyn StateBackend>>, DeployError> {
    if !node.inputs.iter().all(|input| input.by == Partitioning::Key) {
        return Ok(None);
    }
    let range = range_of(subtask, node.parallelism, graph.max_parallelism);
    let mut backend = MemoryBackend::new(node.uid.clone(), range, graph.max_parallelism);
    let (states, timers) = bindings(description);
    backend.bind(&states, &timers);
    for restored in restored.keyed.remove(&(node.uid.clone(), subtask)).unwrap_or_default() {
        let position = states.iter().position(|state| state.name == restored.state);
        for mut rows in restored.rows {
            if let RowsOf::State(_) = rows.of {
                let missing = || DeployError::Shape(format!("\"{}\" has no state \"{}\"", node.uid, restored.state));
                rows.of = RowsOf::State(position.ok_or_else(missing)? as u16);
            }
            backend.load(&rows)?;
        }
    }
    backend.loaded(restored.rounds.get(&node.uid).copied());
    Ok(Some(Box::new(backend)))
}

type Budgets = BTreeMap<OperatorUid, Arc<Budget>>;

/// For each operator with dead letters how many there may be, together with those that its state tells of.
fn budgets(graph: &JobGraph, restored: &RestoredState) -> Budgets {
    let budget = |node: &Node| {
        let NodeKind::Operator(operator) = &node.kind else {
            return None;
        };
        let letters = operator.dead_letter.as_ref()?;
        let count = restored.sinks.get(&node.uid).map_or(0, dead_letters::count_of);
        Some((node.uid.clone(), Arc::new(Budget::new(letters.budget, count))))
    };
    graph.nodes.iter().filter_map(budget).collect()
}

/// What follows a record that an operator cannot process, with the output for its dead letters.
fn policy(
    node: &Node,
    operator: &Operator,
    subtask: u32,
    restored: &RestoredState,
    context: &DeployContext<'_>,
    budgets: &Budgets,
) -> Result<NodePolicy, DeployError> {
    let mut policy = NodePolicy {
        on_trap: operator.on_trap,
        on_failure: operator.on_failure,
        dead_letters: None,
        careful: restored.careful.contains(&node.uid),
    };
    if let (Some(letters), Some(budget)) = (&operator.dead_letter, budgets.get(&node.uid)) {
        let failed = |error| DeployError::Sink {
            uid: node.uid.clone(),
            error,
        };
        let mut writer: Box<dyn SinkWriter> = match &letters.connector {
            SinkConnector::File(settings) => {
                let context_of = file_context(node, subtask, context.identity);
                Box::new(FileSinkWriter::of_lines(
                    context.files.clone(),
                    settings.clone(),
                    context_of,
                ))
            }
            other => {
                let nothing = serde_json::Value::Null;
                open_sink(node, other, subtask, &nothing, context, &PortValue::Text).map_err(failed)?
            }
        };
        writer.begin().map_err(failed)?;
        // The count goes on in one of the subtasks.
        let saved = restored.sinks.get(&node.uid).filter(|_| subtask == 0);
        let count = saved.map_or(0, dead_letters::count_of);
        policy.dead_letters = Some(DeadLetters::new(writer, budget.clone(), count));
    }
    Ok(policy)
}

fn file_context(node: &Node, subtask: u32, identity: Identity) -> FileSinkContext {
    FileSinkContext {
        job_id: identity.job_id,
        uid: node.uid.clone(),
        subtask,
        attempt: identity.attempt,
        version: identity.version,
    }
}

fn open_sink(
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
