//! Prepares a change beside the running job: checks the new modules, and opens an instance for every subtask.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use regraft_model::describe::PortValue;
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::OperatorUid;

use super::error::UpgradeError;
use super::report::ChangedUid;
use crate::dataflow::control::{NodeCounters, locked};
use crate::dataflow::element::{PreparedOperator, SwapSet};
use crate::dataflow::node::plain_header;
use crate::dataflow::operator::Modules;
use crate::environment::run_blocking;
use crate::graph::job_graph::{JobGraph, Node, NodeKind};
use crate::jobs::admission::{self, Descriptions, edge_shape};
use crate::jobs::attempt::load::new_job;
use crate::jobs::deploy::{Counters, open_operator};
use crate::jobs::handle::{JobHandle, JobProblem};
use crate::savepoint::compat::{Existing, Problem, RestoreOptions, compare};

/// Prepares a swap of these modules: the instances that travel in the barrier, and the uids that change.
///
/// # Errors
/// [`UpgradeError`], as [`upgrade`](super::upgrade) says.
pub(super) async fn prepare(job: &JobHandle, modules: &Modules) -> Result<(SwapSet, Vec<ChangedUid>), UpgradeError> {
    let (old_modules, old) = {
        let state = locked(&job.shared.state);
        (state.modules.clone(), state.descriptions.clone())
    };
    let graph = job.shared.graph.clone();
    let mut new = old.clone();
    for (uid, module) in modules {
        new.insert(uid.clone(), Arc::new(module.description().clone()));
    }
    let uids: Vec<&OperatorUid> = modules.keys().collect();
    check(&graph, &uids, &old, &new)?;
    let instances = Instances {
        graph,
        modules: modules.clone(),
        descriptions: new,
        counters: job.shared.counters.clone(),
        now: job.environment().clock().now_ms(),
    };
    let set = run_blocking(&**job.environment(), move || instances.open()).await??;
    Ok((set, changed(&old_modules, modules)))
}

/// Names each changed uid with its old and its new module.
fn changed(old: &Modules, new: &Modules) -> Vec<ChangedUid> {
    let changed = new.iter().map(|(uid, module)| ChangedUid {
        uid: uid.clone(),
        from: old.get(uid).map(|old| old.digest().short()).unwrap_or_default(),
        to: module.digest().short(),
    });
    changed.collect()
}

/// Checks everything that is known without an instance, and lists all problems at once.
fn check(graph: &JobGraph, uids: &[&OperatorUid], old: &Descriptions, new: &Descriptions) -> Result<(), UpgradeError> {
    let mut unfit = unknown(graph, uids);
    if let Err(refused) = admission::check(graph, new) {
        unfit.extend(refused.problems.iter().map(JobProblem::from));
    }
    let running = Existing::running(&new_job(graph, old));
    let verdict = compare(&running, &new_job(graph, new), &RestoreOptions::default());
    let incompatible: Vec<Problem> = verdict.problems().cloned().collect();
    if unfit.is_empty() && incompatible.is_empty() {
        return Ok(());
    }
    let uid = match uids {
        [uid] => Some(OperatorUid::clone(uid)),
        _ => None,
    };
    Err(UpgradeError::Refused {
        uid,
        incompatible,
        unfit,
    })
}

/// Returns a problem for each uid that is no operator of the job.
fn unknown(graph: &JobGraph, uids: &[&OperatorUid]) -> Vec<JobProblem> {
    let operators = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.kind, NodeKind::Operator(_)));
    let known: Vec<&str> = operators.map(|node| node.uid.as_str()).collect();
    let unknown = uids.iter().filter(|uid| !known.contains(&uid.as_str()));
    let problem = |uid: &&OperatorUid| JobProblem {
        kind: ErrorKind::Usage,
        message: format!("the job has no operator \"{uid}\"; it has: {}", known.join(", ")),
        uid: Some(uid.to_string()),
        path: None,
        remedy: None,
    };
    unknown.map(problem).collect()
}

/// Instances to be opened.
struct Instances {
    graph: Arc<JobGraph>,
    modules: Modules,
    descriptions: Descriptions,
    /// Counters of the job's subtasks, which the new instances go on with.
    counters: Counters,
    /// Processing time at which they are opened.
    now: i64,
}

impl Instances {
    /// Opens an instance for every subtask of every changed uid.
    fn open(&self) -> Result<SwapSet, UpgradeError> {
        let mut set = SwapSet::default();
        for uid in self.modules.keys() {
            if let Some(node) = self.graph.node(uid.as_str()) {
                set.operators.insert(uid.clone(), self.open_all(node)?);
            }
        }
        set.sink_inputs = self.sink_inputs();
        Ok(set)
    }

    /// Opens an instance for every subtask of one node.
    fn open_all(&self, node: &Node) -> Result<Vec<Mutex<Option<PreparedOperator>>>, UpgradeError> {
        let uid = &node.uid;
        let (NodeKind::Operator(operator), Some(module)) = (&node.kind, self.modules.get(uid)) else {
            return Ok(vec![]);
        };
        let counters = self.counters.get(uid).into_iter().flatten();
        let open = |(subtask, counters): (u32, &Arc<NodeCounters>)| {
            // Watermarks only advance: when the instance takes over, it is there or further on.
            let watermark = counters.watermark.load(Ordering::Relaxed);
            let opened = open_operator(
                &self.graph,
                node,
                operator,
                &**module,
                (subtask, counters),
                plain_header(self.now, watermark),
                &[],
            );
            let prepared = opened.map_err(|source| UpgradeError::NotOpened {
                uid: uid.clone(),
                source,
            })?;
            Ok(Mutex::new(Some(prepared)))
        };
        (0..node.parallelism).zip(counters).map(open).collect()
    }

    /// Returns the new shape of the input of each sink that reads from a changed operator.
    fn sink_inputs(&self) -> BTreeMap<OperatorUid, PortValue> {
        let mut inputs = BTreeMap::new();
        let sinks = self
            .graph
            .nodes
            .iter()
            .filter(|node| matches!(node.kind, NodeKind::Sink(_)));
        for (node, input) in sinks.flat_map(|node| node.inputs.iter().map(move |input| (node, input))) {
            let is_changed = self.modules.contains_key(&self.graph.nodes[input.from].uid);
            if is_changed && let Ok(shape) = edge_shape(&self.graph, &self.descriptions, input) {
                inputs.insert(node.uid.clone(), shape.value);
            }
        }
        inputs
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use regraft_model::describe::{Description, Port, StateDescription, StateKind};
    use regraft_model::error_kind::ErrorKind;
    use regraft_model::schema::{Field, Type};

    use super::*;
    use crate::graph::{Overrides, parse_job};

    const JOB: &str = "name = \"words\"
[[source]]
uid = \"lines\"
connector = \"file\"
path = \"in\"
key = \"line\"
[[operator]]
uid = \"count\"
module = \"count.wasm\"
inputs = [{ from = \"lines\", by = \"key\" }]
[[sink]]
uid = \"out\"
connector = \"blackhole\"
inputs = [\"count\"]
";

    fn count() -> Description {
        let state = StateDescription {
            name: "count".to_owned(),
            kind: StateKind::Value,
            schema: Type::U64,
            map_key: None,
            travels: true,
            ttl_ms: None,
            version: None,
        };
        let output = Port {
            name: "out".to_owned(),
            key: None,
            value: PortValue::Text,
        };
        Description {
            key: Some(Field {
                name: "line".to_owned(),
                ty: Type::String,
                aliases: vec![],
                default: false,
            }),
            states: vec![state],
            outputs: vec![output],
            ..Description::default()
        }
    }

    fn of(description: Description) -> Descriptions {
        Descriptions::from([(OperatorUid::new("count").expect("uid"), Arc::new(description))])
    }

    #[track_caller]
    fn check_refusal(uid: &str, new: Description, kind: ErrorKind, problems: &[&str]) {
        let (graph, _) = parse_job(
            JOB,
            "job.toml",
            Path::new("/j"),
            &Overrides::default(),
            crate::connectors::BUILT_IN,
        )
        .expect("a good job");
        let uid = OperatorUid::new(uid).expect("uid");
        let error = check(&graph, &[&uid], &of(count()), &of(new)).expect_err("refused");
        let message = problems.iter().fold(
            "the upgrade is refused, and the job goes on as it was:".to_owned(),
            |all, problem| format!("{all}\n  {problem}"),
        );
        assert_eq!((error.kind(), error.to_string()), (kind, message));
        assert_eq!(error.uid(), Some(uid.to_string()));
    }

    #[test]
    fn state_that_is_lost_fails_and_a_module_that_does_not_fit_is_a_mistake() {
        let lost = "uid \"count\": the running job has state \"count\"; this component does not declare it. Deploy a component that does, or drop the state: stop the job, and start the new one with run -s SAVEPOINT --drop-state count/count.";
        let mut new = count();
        new.states.clear();
        check_refusal("count", new.clone(), ErrorKind::Failed, &[lost]);
        // As `run -s` says it, whose checks of the graph come first; here both are listed.
        new.outputs.clear();
        let unfit = "input 0 of \"out\": operator \"count\" declares no output";
        check_refusal("count", new, ErrorKind::Usage, &[lost, unfit]);
        let unknown = "the job has no operator \"tally\"; it has: count";
        check_refusal("tally", count(), ErrorKind::Usage, &[unknown]);
    }
}
