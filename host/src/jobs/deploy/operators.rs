//! An operator of one subtask: its component's instance, its keyed state, and the reaction to a record that it cannot process.

use std::collections::BTreeMap;
use std::sync::Arc;

use regraft_guest_runtime::call::{Header, OperatorState};
use regraft_guest_runtime::events::GuestEvents;
use regraft_guest_runtime::instance::InstanceSettings;
use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;
use regraft_model::key_group::range_of;

use super::super::guest_log::GuestLog;
use super::sinks::open_sink;
use super::{DeployContext, DeployError, RestoredState};
use crate::connector::sink::SinkInput;
use crate::dataflow::control::NodeCounters;
use crate::dataflow::element::PreparedOperator;
use crate::dataflow::node::{NodePolicy, open_context};
use crate::dataflow::operator::OperatorModule;
use crate::dataflow::operator::dead_letters::{self, Budget, DeadLetters};
use crate::graph::job_graph::{JobGraph, Node, NodeKind, Operator, Partitioning};
use crate::state::backend::{StateBackend, bindings};
use crate::state::memory::MemoryBackend;
use crate::state::rows::RowsOf;

/// Opens an instance of a component for one subtask, and gives it the operator state that it had, if any.
///
/// # Errors
/// [`DeployError::Open`], [`DeployError::Restore`].
pub fn open_operator(
    graph: &JobGraph,
    node: &Node,
    operator: &Operator,
    module: &dyn OperatorModule,
    (subtask, counters): (u32, &Arc<NodeCounters>),
    header: Header,
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
        host_memory_max: operator.host_memory_max,
        time_per_batch_max: operator.time_per_batch_max,
        config: operator.config.to_string().into(),
        arguments: graph.arguments.clone().into(),
        sink: Arc::new(GuestLog::new(&node.uid, subtask, counters.clone())) as Arc<dyn GuestEvents>,
        log_budget: counters.log_budget.clone(),
        profiler: counters.profiler.clone(),
    };
    let mut instance = module.instantiate(&settings).map_err(failed)?;
    let context = open_context(&node.uid, subtask, node.parallelism, graph.max_parallelism);
    instance.open(header, &context).map_err(failed)?;
    if !states.is_empty() {
        instance.restore(header, states).map_err(|error| DeployError::Restore {
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

/// Keyed state for an operator whose inputs all come by key: it may have none today and some after an upgrade.
pub(super) fn backend(
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

pub(super) type Budgets = BTreeMap<OperatorUid, Arc<Budget>>;

/// Returns the allowed number of dead letters of each operator that has an output for them, with those in its state.
pub(super) fn budgets(graph: &JobGraph, restored: &RestoredState) -> Budgets {
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

/// Reaction to a record that an operator cannot process, with the output for its dead letters.
pub(super) fn policy(
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
        host_memory_max: operator.host_memory_max,
    };
    if let (Some(letters), Some(budget)) = (&operator.dead_letter, budgets.get(&node.uid)) {
        let failed = |error| DeployError::Sink {
            uid: node.uid.clone(),
            error,
        };
        let nothing = serde_json::Value::Null;
        let writer = open_sink(node, &letters.connector, subtask, &nothing, context, SinkInput::Lines);
        let writer = writer.map_err(failed)?;
        // The count goes on in one of the subtasks.
        let saved = restored.sinks.get(&node.uid).filter(|_| subtask == 0);
        let count = saved.map_or(0, dead_letters::count_of);
        policy.dead_letters = Some(DeadLetters::new(writer, budget.clone(), count));
    }
    Ok(policy)
}
