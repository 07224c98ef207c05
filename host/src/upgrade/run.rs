//! One upgrade: prepare beside the running job, swap at one barrier, report. Whatever is wrong before the barrier, the job
//! never notices.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use regraft_model::id::{CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::time::NO_TIMESTAMP;
use serde::{Deserialize, Serialize};

use super::compat;
use crate::dataflow::control::locked;
use crate::dataflow::element::{PreparedOperator, SwapSet};
use crate::dataflow::operator::Modules;
use crate::environment::run_blocking;
use crate::graph::job_graph::{JobGraph, NodeKind, Partitioning};
use crate::jobs::admission::{self, Descriptions, edge_shape};
use crate::jobs::deploy::open_operator;
use crate::jobs::handle::{JobError, JobHandle, SnapshotRequest, SwapRequest};

/// What an upgrade did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// The job, the same as before.
    pub job_id: JobId,
    /// The version it runs now.
    pub version: JobVersion,
    /// The round whose barrier carried it.
    pub checkpoint_id: CheckpointId,
    /// Each changed uid: digests from and to.
    pub uids: Vec<ChangedUid>,
    /// Loading, compiling, opening; the old version ran meanwhile.
    pub prepare_ms: f64,
    /// The longest alignment of a subtask.
    pub align_ms: f64,
    /// The longest replacement in a subtask.
    pub swap_ms: f64,
    /// The longest time without output of a changed operator, around the swap.
    pub gap_ms: f64,
    /// The longest time between two outputs of a changed operator just before the swap.
    pub usual_gap_ms: f64,
}

/// A changed uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedUid {
    /// The operator.
    pub uid: OperatorUid,
    /// First six digits of the old module's digest.
    pub from: String,
    /// First six digits of the new one's.
    pub to: String,
}

impl UpgradeReport {
    /// The closing line, which a person can quote.
    #[must_use]
    pub fn line(&self) -> String {
        let uids: Vec<String> = self
            .uids
            .iter()
            .map(|c| format!("{}: {} -> {}", c.uid, c.from, c.to))
            .collect();
        format!(
            "{} at checkpoint {}, no output for {} ms (prepare {} ms, align {} ms, swap {} ms)",
            uids.join(", "),
            self.checkpoint_id,
            whole(self.gap_ms),
            whole(self.prepare_ms),
            whole(self.align_ms),
            whole(self.swap_ms)
        )
    }
}

/// Milliseconds for people: whole, or with one digit where that would be 0.
fn whole(ms: f64) -> String {
    if ms < 0.95 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

/// Swaps modules into a running job. `loading` is when the caller began to load them.
///
/// # Errors
/// [`JobError`]: of kind usage where the modules do not fit; the job goes on as it was.
pub async fn upgrade(job: &JobHandle, modules: Modules, loading: Instant) -> Result<UpgradeReport, JobError> {
    let (old_modules, old_descriptions) = {
        let state = locked(&job.shared.state);
        (state.modules.clone(), state.descriptions.clone())
    };
    let graph = job.shared.graph.clone();
    let mut descriptions = old_descriptions.clone();
    for (uid, module) in &modules {
        descriptions.insert(uid.clone(), Arc::new(module.description().clone()));
    }
    check(&graph, &modules, &old_descriptions, &descriptions)?;
    let uids: Vec<ChangedUid> = modules
        .iter()
        .map(|(uid, module)| ChangedUid {
            uid: uid.clone(),
            from: old_modules.get(uid).map(|old| old.digest().short()).unwrap_or_default(),
            to: module.digest().short(),
        })
        .collect();
    let (prepared_graph, prepared_modules) = (graph.clone(), modules.clone());
    let watermarks = watermarks(job, &modules);
    let preparing = move || prepare(&prepared_graph, &prepared_modules, &descriptions, &watermarks);
    let prepared = run_blocking(&**job.environment(), preparing).await;
    let set = prepared.map_err(|error| JobError::failed(error.to_string()))??;
    let prepare_ms = loading.elapsed().as_secs_f64() * 1e3;
    let report = job
        .snapshot(SnapshotRequest::Upgrade(SwapRequest { set, modules }))
        .await?;
    // Where no record came by in time, what is known is how long the subtasks were busy with the swap.
    let measured = report
        .gaps
        .iter()
        .map(|gap| gap.gap_ms)
        .fold(None, |a: Option<f64>, b| Some(a.map_or(b, |a| a.max(b))));
    Ok(UpgradeReport {
        job_id: report.job_id,
        version: report.version,
        checkpoint_id: report.checkpoint_id,
        uids,
        prepare_ms,
        align_ms: report.align_ms,
        swap_ms: report.swap_ms,
        gap_ms: measured.unwrap_or(report.align_ms + report.sync_ms),
        usual_gap_ms: report.gaps.iter().map(|gap| gap.usual_ms).fold(0.0, f64::max),
    })
}

/// Everything that can be known without an instance.
fn check(graph: &JobGraph, modules: &Modules, old: &Descriptions, new: &Descriptions) -> Result<(), JobError> {
    let mut problems = vec![];
    for uid in modules.keys() {
        let Some(node) = graph
            .node(uid.as_str())
            .filter(|node| matches!(node.kind, NodeKind::Operator(_)))
        else {
            let operators = graph
                .nodes
                .iter()
                .filter(|node| matches!(node.kind, NodeKind::Operator(_)));
            let known: Vec<&str> = operators.map(|node| node.uid.as_str()).collect();
            problems.push(format!(
                "the job has no operator \"{uid}\"; it has: {}",
                known.join(", ")
            ));
            continue;
        };
        let keyed = node.inputs.iter().all(|input| input.by == Partitioning::Key);
        if let (Some(old), Some(new)) = (old.get(uid), new.get(uid)) {
            problems.extend(compat::problems(uid, old, new, keyed));
        }
    }
    if problems.is_empty()
        && let Err(refused) = admission::check(graph, new)
    {
        problems = refused.problems;
    }
    if problems.is_empty() {
        return Ok(());
    }
    let error = JobError::usage(format!(
        "the upgrade is refused, and the job goes on as it was:\n{}",
        problems.join("\n")
    ));
    let mut uids = modules.keys();
    Err(match (uids.next(), uids.next()) {
        (Some(uid), None) => error.on(uid),
        _ => error,
    })
}

/// Where the watermark of each subtask of a changed uid stands. It only advances: when the instances take over it is there or
/// further on.
fn watermarks(job: &JobHandle, modules: &Modules) -> BTreeMap<OperatorUid, Vec<i64>> {
    let of = |uid: &OperatorUid| {
        let counters = job.shared.counters.get(uid).into_iter().flatten();
        let watermarks = counters.map(|counters| counters.watermark.load(Ordering::Relaxed));
        (uid.clone(), watermarks.collect())
    };
    modules.keys().map(of).collect()
}

/// Opens an instance for every subtask of every changed uid.
fn prepare(
    graph: &JobGraph,
    modules: &Modules,
    descriptions: &Descriptions,
    watermarks: &BTreeMap<OperatorUid, Vec<i64>>,
) -> Result<SwapSet, JobError> {
    let mut set = SwapSet::default();
    for (uid, module) in modules {
        let Some(node) = graph.node(uid.as_str()) else { continue };
        let NodeKind::Operator(operator) = &node.kind else {
            continue;
        };
        let mut instances: Vec<Mutex<Option<PreparedOperator>>> = vec![];
        for subtask in 0..node.parallelism {
            let known = watermarks.get(uid).and_then(|all| all.get(subtask as usize));
            let watermark = known.copied().unwrap_or(NO_TIMESTAMP);
            let prepared = open_operator(graph, node, operator, &**module, subtask, watermark, &[]);
            let prepared = prepared.map_err(|error| {
                JobError::failed(format!(
                    "the upgrade is refused, and the job goes on as it was: {error}"
                ))
                .on(uid)
            })?;
            instances.push(Mutex::new(Some(prepared)));
        }
        set.operators.insert(uid.clone(), instances);
    }
    set.sink_inputs = sink_inputs(graph, modules, descriptions);
    Ok(set)
}

/// Sinks that read from a changed operator, and what they will read.
fn sink_inputs(
    graph: &JobGraph,
    modules: &Modules,
    descriptions: &Descriptions,
) -> BTreeMap<OperatorUid, regraft_model::describe::PortValue> {
    let mut inputs = BTreeMap::new();
    for node in graph.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Sink(_))) {
        for input in node
            .inputs
            .iter()
            .filter(|input| modules.contains_key(&graph.nodes[input.from].uid))
        {
            if let Ok(shape) = edge_shape(graph, descriptions, input) {
                inputs.insert(node.uid.clone(), shape.value);
            }
        }
    }
    inputs
}
