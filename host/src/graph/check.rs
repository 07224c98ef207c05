//! Checks that sources, operators and sinks fit together: uids, inputs, cycles, parallelism. Pure.

use std::collections::{BTreeMap, BTreeSet};

use regraft_model::id::OperatorUid;

use super::job_graph::{CheckpointSettings, Input, Node, NodeKind, Partitioning};
use super::nodes::{Draft, InputDraft, WatermarkDraft};
use super::problem::{Findings, Place};
use super::suggest::instead_of;

/// Settings of the job that apply to all of its nodes.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    pub(crate) parallelism: u32,
    /// Place of the job as a whole, for problems about a part that is missing.
    pub(crate) top: Place,
}

/// Connects the drafts and returns the nodes in topological order. They must not be used if `findings` has problems.
pub(crate) fn connect(drafts: Vec<Draft>, defaults: &Defaults, findings: &mut Findings) -> Vec<Node> {
    check_uids(&drafts, findings);
    for word in ["source", "sink"] {
        if !drafts.iter().any(|draft| draft.kind_word == word) {
            findings.problem(&defaults.top, None, format!("the job has no {word}; add a [[{word}]]"));
        }
    }
    let by_uid: BTreeMap<String, usize> = drafts
        .iter()
        .enumerate()
        .rev()
        .filter_map(|(idx, draft)| Some((draft.uid.as_ref()?.to_string(), idx)))
        .collect();
    let parallelism = |idx: usize| {
        drafts
            .get(idx)
            .and_then(|draft| draft.parallelism.as_ref())
            .map_or(defaults.parallelism, |(value, _)| *value)
    };
    let inputs: Vec<Vec<Input>> = drafts
        .iter()
        .enumerate()
        .map(|(idx, draft)| {
            let resolved = draft.inputs.iter().filter_map(|input| {
                let from = resolve(draft, input, &drafts, &by_uid, findings)?;
                let by = partitioning(draft, input, &drafts, [parallelism(from), parallelism(idx)], findings);
                Some(Input {
                    from,
                    port: input.port.clone(),
                    by,
                })
            });
            resolved.collect()
        })
        .collect();
    warn_unread(&drafts, &inputs, findings);
    let order = sort(&drafts, &inputs, findings);
    let parallelism: Vec<u32> = (0..drafts.len()).map(parallelism).collect();
    arrange(drafts, inputs, &order, &parallelism)
}

fn check_uids(drafts: &[Draft], findings: &mut Findings) {
    let mut seen: BTreeMap<&str, &Draft> = BTreeMap::new();
    for draft in drafts {
        let Some(uid) = &draft.uid else { continue };
        if let Some(first) = seen.get(uid.as_str()) {
            let message = format!(
                "{}: the uid is taken by the {} at {}; every source, operator and sink needs its own",
                draft.title, first.kind_word, first.uid_place
            );
            findings.problem(&draft.uid_place, Some(uid.as_str()), message);
        } else {
            seen.insert(uid.as_str(), draft);
        }
    }
}

fn resolve(
    draft: &Draft,
    input: &InputDraft,
    drafts: &[Draft],
    by_uid: &BTreeMap<String, usize>,
    findings: &mut Findings,
) -> Option<usize> {
    let uid = draft.uid.as_ref().map(|uid| uid.as_str());
    let mut problem = |message: String| {
        findings.problem(&input.place, uid, format!("{}: {message}", draft.title));
        None
    };
    let Some(&from) = by_uid.get(&input.from) else {
        let uids: Vec<&str> = drafts
            .iter()
            .filter(|other| other.kind_word != "sink" && other.uid != draft.uid)
            .filter_map(|other| other.uid.as_ref().map(|uid| uid.as_str()))
            .collect();
        let remedy = if uids.is_empty() {
            "the job has none yet".to_owned()
        } else {
            instead_of(&input.from, &uids)
        };
        return problem(format!("inputs: nothing has the uid \"{}\"; {remedy}", input.from));
    };
    let upstream = drafts.get(from)?;
    if upstream.kind_word == "sink" {
        return problem(format!(
            "inputs: \"{}\" is a sink, which has no output; name one of its inputs instead",
            input.from
        ));
    }
    if let (Some(port), "source") = (&input.port, upstream.kind_word) {
        return problem(format!(
            "inputs: a source has one output, so \"{}\" has no port \"{port}\"; remove port",
            input.from
        ));
    }
    Some(from)
}

fn partitioning(
    draft: &Draft,
    input: &InputDraft,
    drafts: &[Draft],
    [above, below]: [u32; 2],
    findings: &mut Findings,
) -> Partitioning {
    match input.by {
        None if above == below => Partitioning::Forward,
        None => Partitioning::Rebalance,
        Some(Partitioning::Forward) if above != below => {
            // A wrong uid is a problem of its own; do not report the edge too.
            let known = |uid: &str| {
                drafts
                    .iter()
                    .any(|other| other.uid.as_ref().is_some_and(|other| other.as_str() == uid))
            };
            if known(&input.from) {
                let message = format!(
                    "{}: inputs: by = \"forward\" needs equal parallelism, found {above} at \"{}\" and {below} here; make them equal, or write by = \"rebalance\"",
                    draft.title, input.from
                );
                findings.problem(&input.place, draft.uid.as_ref().map(|uid| uid.as_str()), message);
            }
            Partitioning::Rebalance
        }
        Some(by) => by,
    }
}

fn warn_unread(drafts: &[Draft], inputs: &[Vec<Input>], findings: &mut Findings) {
    for (idx, draft) in drafts.iter().enumerate() {
        let read = inputs.iter().flatten().any(|input| input.from == idx);
        if draft.kind_word != "sink" && !read && draft.uid.is_some() {
            let uid = draft.uid.as_ref().map(|uid| uid.as_str());
            let message = format!(
                "{}: nothing reads its output, which is dropped; add a [[sink]] that does",
                draft.title
            );
            findings.warning(&draft.place, uid, message);
        }
    }
}

/// Returns positions in topological order. Ties are broken by the order in the file.
fn sort(drafts: &[Draft], inputs: &[Vec<Input>], findings: &mut Findings) -> Vec<usize> {
    let mut waiting: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let mut ready: BTreeSet<usize> = waiting
        .iter()
        .enumerate()
        .filter(|(_, count)| **count == 0)
        .map(|(idx, _)| idx)
        .collect();
    let mut order = Vec::with_capacity(drafts.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for (idx, (inputs, count)) in inputs.iter().zip(&mut waiting).enumerate() {
            let edges = inputs.iter().filter(|input| input.from == next).count();
            *count -= edges;
            if edges > 0 && *count == 0 {
                ready.insert(idx);
            }
        }
    }
    if order.len() < drafts.len() {
        let left: Vec<usize> = (0..drafts.len()).filter(|idx| !order.contains(idx)).collect();
        name_cycle(drafts, inputs, &left, findings);
    }
    order
}

fn name_cycle(drafts: &[Draft], inputs: &[Vec<Input>], left: &[usize], findings: &mut Findings) {
    let Some(&start) = left.first() else { return };
    // Every node that is left over has an input among them, so walking up from any of them comes back to a visited
    // node.
    let mut path = vec![start];
    let mut at = start;
    let start_of_cycle = loop {
        let Some(up) = inputs
            .get(at)
            .and_then(|inputs| inputs.iter().find(|input| left.contains(&input.from)))
        else {
            return;
        };
        at = up.from;
        if let Some(position) = path.iter().position(|seen| *seen == at) {
            break position;
        }
        path.push(at);
    };
    let mut cycle: Vec<usize> = path.split_off(start_of_cycle);
    cycle.reverse();
    // Begin with the node that comes first in the file.
    let least = cycle
        .iter()
        .enumerate()
        .min_by_key(|(_, idx)| **idx)
        .map_or(0, |(position, _)| position);
    cycle.rotate_left(least);
    let name = |idx: &usize| {
        drafts
            .get(*idx)
            .and_then(|draft| draft.uid.as_ref())
            .map_or("?", |uid| uid.as_str())
    };
    let mut names: Vec<&str> = cycle.iter().map(name).collect();
    let first = names.first().copied().unwrap_or_default();
    names.push(first);
    let place = cycle.first().and_then(|idx| drafts.get(*idx)).map(|draft| &draft.place);
    if let Some(place) = place {
        let message = format!(
            "the inputs form a cycle: {}; remove one of these inputs",
            names.join(" -> ")
        );
        findings.problem(place, Some(first), message);
    }
}

/// Moves the watermark strategies of sources without event times to the operators that read them directly and have
/// none.
///
/// Returns source and operator of each strategy that was moved.
pub(crate) fn hand_on_watermarks(drafts: &mut [Draft], findings: &mut Findings) -> Vec<[OperatorUid; 2]> {
    let mut handed: Vec<[OperatorUid; 2]> = Vec::new();
    for at in 0..drafts.len() {
        let Some((source, draft)) = without_event_times(drafts, at) else {
            continue;
        };
        let readers: Vec<&mut Draft> = drafts
            .iter_mut()
            .filter(|reader| reader.kind_word == "operator")
            .filter(|reader| reader.inputs.iter().any(|input| input.from == source.as_str()))
            .collect();
        if readers.is_empty() {
            let message = format!(
                "source \"{source}\": watermark has no effect: its records have no event time, and no operator reads them; remove it"
            );
            findings.warning(&draft.place, Some(source.as_str()), message);
        }
        for reader in readers {
            let Some(uid) = reader.uid.clone() else { continue };
            let first = handed.iter().find(|[_, to]| *to == uid).map(|[from, _]| from);
            match (&reader.watermark, first) {
                (None, _) => {
                    reader.watermark = Some(WatermarkDraft {
                        place: draft.place.clone(),
                        strategy: draft.strategy.clone(),
                    });
                    handed.push([source.clone(), uid]);
                }
                (Some(own), Some(first)) if own.strategy != draft.strategy => {
                    let message = format!(
                        "{}: takes its watermark from \"{first}\" and from \"{source}\", and they differ; give it its own, watermark = {{ max-out-of-orderness = \"5s\" }}",
                        reader.title
                    );
                    findings.problem(&reader.place, Some(uid.as_str()), message);
                }
                _ => {}
            }
        }
    }
    handed
}

/// Takes the strategy out of a source that does not know the event times of its records.
fn without_event_times(drafts: &mut [Draft], at: usize) -> Option<(OperatorUid, WatermarkDraft)> {
    let draft = drafts.get_mut(at)?;
    let uid = draft.uid.clone()?;
    if draft.kind_word == "source" && draft.watermark.as_ref()?.strategy.timestamp.is_none() {
        return Some((uid, draft.watermark.take()?));
    }
    None
}

fn arrange(drafts: Vec<Draft>, inputs: Vec<Vec<Input>>, order: &[usize], parallelism: &[u32]) -> Vec<Node> {
    let position: BTreeMap<usize, usize> = order.iter().enumerate().map(|(to, from)| (*from, to)).collect();
    let mut nodes: Vec<Option<Node>> = drafts
        .into_iter()
        .zip(inputs)
        .zip(parallelism)
        .map(|((draft, inputs), parallelism)| {
            let inputs = inputs
                .into_iter()
                .filter_map(|input| {
                    Some(Input {
                        from: *position.get(&input.from)?,
                        ..input
                    })
                })
                .collect();
            Some(Node {
                uid: draft.uid?,
                parallelism: *parallelism,
                inputs,
                watermark: draft.watermark.map(|draft| draft.strategy),
                kind: draft.kind?,
            })
        })
        .collect();
    order.iter().filter_map(|idx| nodes.get_mut(*idx)?.take()).collect()
}

/// Warns of output that is committed only at the end, since there are no checkpoints.
pub(crate) fn warn_interval_off(nodes: &[Node], checkpoint: &CheckpointSettings, top: &Place, findings: &mut Findings) {
    if checkpoint.interval.is_some() {
        return;
    }
    for node in nodes {
        let what = match &node.kind {
            NodeKind::Sink(_) => format!("sink \"{}\"", node.uid),
            NodeKind::Operator(_) => format!("operator \"{}\": dead-letter", node.uid),
            NodeKind::Source(_) => continue,
        };
        if node.output().is_some_and(|connector| connector.is_transactional()) {
            let message = format!(
                "{what}: checkpoint.interval is \"off\", so its output becomes visible only when the job ends; set checkpoint.interval = \"10s\""
            );
            findings.warning(top, Some(node.uid.as_str()), message);
        }
    }
}

/// Reports sinks and dead letters that write to where a source of the job reads: their output would be its input.
pub(crate) fn refuse_own_input(nodes: &[Node], top: &Place, findings: &mut Findings) {
    for source in nodes {
        let NodeKind::Source(reads) = &source.kind else {
            continue;
        };
        for node in nodes {
            let Some(sink) = node.output() else { continue };
            let Some(example) = sink.example_output() else { continue };
            if reads.connector.reads(&example) {
                let message = format!(
                    "\"{}\" writes to {}, and source \"{}\" reads such files there ({}); write to another directory, or let the source's path match fewer files",
                    node.uid,
                    example.parent().unwrap_or(&example).display(),
                    source.uid,
                    reads.connector.label(),
                );
                findings.problem(top, Some(node.uid.as_str()), message);
            }
        }
    }
}
