//! Size of a job as it is run, and its limits. Pure: a job that is too large is refused before anything is allocated for it.
//!
//! Each subtask has a thread and its guests' instances, and a keyed edge has a channel for every pair of subtasks, so a
//! parallelism of a few thousand asks for millions of channels. A process that runs out of threads or of memory mappings
//! takes every job of the host with it.

use std::fmt::Write as _;

use regraft_model::id::OperatorUid;

use super::job_graph::{JobGraph, Partitioning};
use super::plan::Plan;
use super::problem::{Findings, Place};

/// Limit of subtasks of one job.
pub const SUBTASKS_MAX: u64 = 4096;
/// Limit of channels of one job: eight keyed edges between 128 and 128 subtasks have as many. Their buffers take some
/// kilobytes each.
pub const CHANNELS_MAX: u64 = 1 << 17;
/// Number of uids that a message names at most.
const NAMED_MAX: usize = 3;

/// Returns the number of subtasks of a job.
#[must_use]
pub fn subtasks(plan: &Plan) -> u64 {
    plan.chains().iter().map(|chain| u64::from(chain.parallelism)).sum()
}

/// Reports a job that has too many subtasks or channels. The message names those that contribute most, and a parallelism that
/// fits.
pub(crate) fn check(graph: &JobGraph, top: &Place, findings: &mut Findings) {
    let plan = Plan::new(graph);
    let found = subtasks(&plan);
    let mut chains: Vec<_> = plan.chains().iter().collect();
    chains.sort_by_key(|chain| std::cmp::Reverse(chain.parallelism));
    if found > SUBTASKS_MAX {
        let uid = chains.first().and_then(|chain| chain.uids.first());
        let named = chains.iter().filter_map(|chain| {
            let uid = chain.uids.first()?;
            Some(format!("\"{uid}\" has {}", chain.parallelism))
        });
        let fits = (SUBTASKS_MAX / chains.len().max(1) as u64).max(1);
        let message = format!(
            "the job has {found} subtasks, each of them a thread with instances of its own, and at most {SUBTASKS_MAX} are run ({}); lower parallelism: {fits} for each of them fits",
            most(named)
        );
        findings.problem(top, uid.map(OperatorUid::as_str), message);
    }
    let mut edges = edges(&plan);
    edges.sort_by_key(|edge| std::cmp::Reverse(edge.channels));
    let found = edges.iter().map(|edge| edge.channels).fold(0, u64::saturating_add);
    if found > CHANNELS_MAX {
        let uid = edges.first().map(|edge| edge.to.as_str());
        let named = edges
            .iter()
            .map(|edge| format!("\"{}\" to \"{}\" has {}", edge.from, edge.to, edge.channels));
        let fits = (CHANNELS_MAX / edges.len().max(1) as u64).isqrt().max(1);
        let message = format!(
            "the job has {found} channels between subtasks, one for each pair that an edge connects, and at most {CHANNELS_MAX} are made ({}); lower parallelism: {fits} at both ends fits",
            most(named)
        );
        findings.problem(top, uid, message);
    }
}

/// An edge between two chains.
struct Edge<'a> {
    from: &'a OperatorUid,
    to: &'a OperatorUid,
    channels: u64,
}

fn edges(plan: &Plan) -> Vec<Edge<'_>> {
    let mut edges = vec![];
    for to in plan.chains() {
        for input in &to.inputs {
            let fan_out = match input.by {
                Partitioning::Forward => 1,
                _ => u64::from(to.parallelism),
            };
            let from = plan.chain(input.from);
            let ends = from.and_then(|from| Some((from, from.uids.last()?, to.uids.first()?)));
            edges.extend(ends.map(|(producer, from, to)| Edge {
                from,
                to,
                channels: u64::from(producer.parallelism) * fan_out,
            }));
        }
    }
    edges
}

/// Joins the first texts, and says how many are left out.
fn most(named: impl Iterator<Item = String>) -> String {
    let mut named: Vec<String> = named.collect();
    let left_out = named.len().saturating_sub(NAMED_MAX);
    named.truncate(NAMED_MAX);
    let mut text = named.join(", ");
    if left_out > 0 {
        let _ = write!(text, " and {left_out} more");
    }
    text
}
