//! Admission: checks that the components of a job fit it and each other, before anything runs. Reports all problems at
//! once.

use std::collections::BTreeMap;
use std::sync::Arc;

use regraft_model::describe::{Description, PortValue, StateKind};
use regraft_model::id::OperatorUid;
use regraft_model::schema::Field;
use regraft_model::time::TimeDomain;

use crate::connector::source::RecordShape;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::graph::job_graph::{Input, JobGraph, Node, NodeKind, Partitioning};
use crate::graph::suggest::nearest;
use crate::savepoint::metadata::{DECLARED_BYTES_MAX, declared_bytes};
use crate::storage::paths;

/// The declarations of each operator's component.
pub type Descriptions = BTreeMap<OperatorUid, Arc<Description>>;

/// Returns the declarations of each module.
#[must_use]
pub fn descriptions(modules: &Modules) -> Descriptions {
    let declared =
        |(uid, module): (&OperatorUid, &Arc<dyn OperatorModule>)| (uid.clone(), Arc::new(module.description().clone()));
    modules.iter().map(declared).collect()
}

/// A job is not deployed because the job file or a module must change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", texts(problems).join("\n"))]
pub struct Refused {
    /// All problems.
    pub problems: Vec<Unfit>,
    /// The node at fault, if all problems are about a single one.
    pub uid: Option<OperatorUid>,
}

/// A problem of admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The node at fault.
    pub uid: OperatorUid,
    /// Message with the uid, the expected and the found value, and the remedy.
    pub message: String,
}

/// Returns the message of each problem.
fn texts(problems: &[Unfit]) -> Vec<&str> {
    problems.iter().map(|problem| problem.message.as_str()).collect()
}

/// The shape of the records of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeShape {
    /// Number of the output port.
    pub port: u32,
    /// Key of the records, if it is declared.
    pub key: Option<Field>,
    /// False if the records have no key. If true without a declared key, a port passes on the unknown keys of its
    /// input.
    pub keyed: bool,
    /// Type of the values.
    pub value: PortValue,
}

/// Returns the shape of the records of an edge.
///
/// # Errors
/// Returns a message if the upstream node has no such port, no output at all, or no component.
pub fn edge_shape(graph: &JobGraph, descriptions: &Descriptions, input: &Input) -> Result<EdgeShape, String> {
    let from = &graph.nodes[input.from];
    match &from.kind {
        NodeKind::Source(source) => match &input.port {
            None => Ok(source_shape(source.connector.records())),
            Some(port) => Err(format!(
                "source \"{}\" has one output and no port \"{port}\"; leave `port` out",
                from.uid
            )),
        },
        NodeKind::Operator(_) => operator_shape(from, descriptions, input),
        NodeKind::Sink(_) => Err(format!("\"{}\" is a sink and has no output", from.uid)),
    }
}

fn source_shape(RecordShape { key, value }: RecordShape) -> EdgeShape {
    EdgeShape {
        port: 0,
        keyed: key.is_some(),
        key,
        value,
    }
}

fn operator_shape(from: &Node, descriptions: &Descriptions, input: &Input) -> Result<EdgeShape, String> {
    let Some(description) = descriptions.get(&from.uid) else {
        return Err(format!("operator \"{}\" has no component", from.uid));
    };
    let names: Vec<&str> = description.outputs.iter().map(|port| port.name.as_str()).collect();
    let at = match &input.port {
        None if description.outputs.is_empty() => return Err(format!("operator \"{}\" declares no output", from.uid)),
        None => 0,
        Some(name) => description
            .outputs
            .iter()
            .position(|port| port.name == *name)
            .ok_or_else(|| {
                let near = nearest(name, &names).map(|near| format!("; did you mean \"{near}\"?"));
                format!(
                    "operator \"{}\" has no output port \"{name}\"; it declares: {}{}",
                    from.uid,
                    names.join(", "),
                    near.unwrap_or_default()
                )
            })?,
    };
    let port = &description.outputs[at];
    // A port without a declared key passes on the keys of its input, whose type is unknown here.
    Ok(EdgeShape {
        port: at as u32,
        key: port.key.clone(),
        keyed: true,
        value: port.value.clone(),
    })
}

/// Checks a whole job, whose operators all have components.
///
/// # Errors
/// Returns [`Refused`] with every problem.
pub fn check(graph: &JobGraph, descriptions: &Descriptions) -> Result<(), Refused> {
    check_all(graph, descriptions, |_| true)
}

/// Checks a job as far as the declarations of its operators are known.
///
/// # Errors
/// Returns [`Refused`] with every problem.
pub fn check_known(graph: &JobGraph, descriptions: &Descriptions) -> Result<(), Refused> {
    let known = |from: &Node| !matches!(from.kind, NodeKind::Operator(_)) || descriptions.contains_key(&from.uid);
    check_all(graph, descriptions, known)
}

/// Checks a job, except for the edges from nodes that `checked` leaves out.
fn check_all(graph: &JobGraph, descriptions: &Descriptions, checked: impl Fn(&Node) -> bool) -> Result<(), Refused> {
    let mut all = vec![];
    for node in &graph.nodes {
        let mut problems = vec![];
        if let Some(description) = descriptions.get(&node.uid) {
            declared(&node.uid, description, &mut problems);
            input_count(node, description, &mut problems);
            keyed_inputs(graph, node, description, &mut problems);
        }
        for (at, input) in node.inputs.iter().enumerate() {
            if !checked(&graph.nodes[input.from]) {
                continue;
            }
            match edge_shape(graph, descriptions, input) {
                Ok(shape) => edge(graph, descriptions, node, at, input, &shape, &mut problems),
                Err(problem) => problems.push(format!("input {at} of \"{}\": {problem}", node.uid)),
            }
        }
        let of_node = |message| Unfit {
            uid: node.uid.clone(),
            message,
        };
        all.extend(problems.into_iter().map(of_node));
    }
    all.extend(unsavable(graph, descriptions));
    let Some(first) = all.first() else { return Ok(()) };
    let only = all.iter().all(|problem| problem.uid == first.uid);
    let uid = only.then(|| first.uid.clone());
    Err(Refused { problems: all, uid })
}

/// Returns the problem of a job whose declarations do not fit in the `_metadata` of a snapshot, told of its largest operator.
fn unsavable(graph: &JobGraph, descriptions: &Descriptions) -> Option<Unfit> {
    let nodes = graph.nodes.iter();
    let sized = nodes.filter_map(|node| Some((declared_bytes(descriptions.get(&node.uid)?, node.parallelism), node)));
    let all: Vec<(u64, &Node)> = sized.collect();
    let sum = all.iter().map(|(bytes, _)| *bytes).fold(0, u64::saturating_add);
    let (bytes, node) = all.into_iter().max_by_key(|(bytes, _)| *bytes)?;
    let message = || {
        format!(
            "operator \"{}\": its states and their types take about {bytes} bytes in the _metadata of a snapshot at parallelism {}, and all operators {sum}; expected at most {DECLARED_BYTES_MAX}; lower the parallelism, or declare fewer or smaller states",
            node.uid, node.parallelism
        )
    };
    (sum > DECLARED_BYTES_MAX).then(|| Unfit {
        uid: node.uid.clone(),
        message: message(),
    })
}

/// Reports contradictions in a component's declarations.
fn declared(uid: &OperatorUid, description: &Description, problems: &mut Vec<String>) {
    let mut refuse = |what: String| problems.push(format!("operator \"{uid}\": its module declares {what}"));
    for state in &description.states {
        let (name, kind) = (&state.name, state.kind);
        match (kind == StateKind::Map, &state.map_key) {
            (true, None) => refuse(format!(
                "state \"{name}\" of kind map without the type of its keys; name it as `map_key`"
            )),
            (false, Some(_)) => refuse(format!(
                "state \"{name}\" of kind {kind} with a `map_key`, which only a map has; leave it out"
            )),
            _ => {}
        }
        if state.travels && matches!(kind, StateKind::Map | StateKind::List) {
            refuse(format!(
                "state \"{name}\" of kind {kind} that travels with the batch; expected \"travels\": false, as for all lists and maps"
            ));
        }
    }
    for timer in &description.timers {
        if TimeDomain::named(&timer.time).is_none() {
            refuse(format!(
                "timer \"{}\" by {:?}; expected \"event\" or \"processing\"",
                timer.name, timer.time
            ));
        }
    }
    for state in &description.operator_states {
        if !["list", "union", "broadcast"].contains(&state.kind.as_str()) {
            refuse(format!(
                "operator state \"{}\" of kind {:?}; expected \"list\", \"union\" or \"broadcast\"",
                state.name, state.kind
            ));
        }
    }
    let keyed = description.states.iter().map(|state| ("state", &state.name));
    let operator = description
        .operator_states
        .iter()
        .map(|state| ("operator state", &state.name));
    for (what, name) in keyed.chain(operator) {
        let length = paths::longest_file_name(uid, name);
        if length > paths::FILE_NAME_MAX {
            let shown: String = name.chars().take(40).collect();
            refuse(format!(
                "{what} \"{shown}…\", whose files in savepoints would have names of {length} bytes; expected at most {}: give it a shorter name",
                paths::FILE_NAME_MAX
            ));
        }
    }
    if description.is_keyed() && description.key.is_none() {
        refuse("keyed state or timers, and no key; name the key in `describe`".to_owned());
    }
    let states: Vec<&String> = description.states.iter().map(|state| &state.name).collect();
    let timers: Vec<&String> = description.timers.iter().map(|timer| &timer.name).collect();
    let operator: Vec<&String> = description.operator_states.iter().map(|state| &state.name).collect();
    for (what, names) in [("state", states), ("timer", timers), ("operator state", operator)] {
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                refuse(format!("{what} \"{name}\" twice; give one of them another name"));
            }
        }
    }
}

/// Reports a wrong number of inputs, for a module that distinguishes its inputs.
fn input_count(node: &Node, description: &Description, problems: &mut Vec<String>) {
    let (expected, found) = (description.inputs.len(), node.inputs.len());
    if expected > 1 && expected != found {
        let names: Vec<&str> = description.inputs.iter().map(|port| port.name.as_str()).collect();
        problems.push(format!(
            "operator \"{}\" takes {expected} inputs ({}), and the job gives it {found}; list {expected} in `inputs`, in that order",
            node.uid,
            names.join(", ")
        ));
    }
}

fn keyed_inputs(graph: &JobGraph, node: &Node, description: &Description, problems: &mut Vec<String>) {
    if !description.is_keyed() {
        return;
    }
    for input in &node.inputs {
        if input.by != Partitioning::Key {
            let from = &graph.nodes[input.from].uid;
            problems.push(format!(
                "operator \"{}\" has keyed state, so every input must come by key; the one from \"{from}\" does not: write inputs = [{{ from = \"{from}\", by = \"key\" }}]",
                node.uid
            ));
        }
    }
}

fn edge(
    graph: &JobGraph,
    descriptions: &Descriptions,
    node: &Node,
    at: usize,
    input: &Input,
    shape: &EdgeShape,
    problems: &mut Vec<String>,
) {
    let from = &graph.nodes[input.from].uid;
    if input.by == Partitioning::Key && !shape.keyed {
        problems.push(format!(
            "input {at} of \"{}\" comes by key, but records of source \"{from}\" have none: give the source a `key`",
            node.uid
        ));
    }
    let Some(description) = descriptions.get(&node.uid) else {
        if let NodeKind::Sink(sink) = &node.kind
            && let Err(why) = sink.connector.check_input(&shape.value)
        {
            problems.push(format!("sink \"{}\": {why}", node.uid));
        }
        return;
    };
    let Some(port) = description.input(at) else {
        // It accepts any input, or `input_count` has reported it.
        return;
    };
    if !reads(&port.value, &shape.value) {
        problems.push(format!(
            "operator \"{}\" reads {} from \"{from}\", which emits {}; deploy modules whose ports agree",
            node.uid, port.value, shape.value
        ));
    }
    if let (Some(expected), Some(found)) = (description.key.as_ref().or(port.key.as_ref()), &shape.key)
        && expected.ty.digest() != found.ty.digest()
    {
        problems.push(format!(
            "operator \"{}\" is keyed by {} {}, but \"{from}\" emits the key {} {}; deploy modules whose keys agree",
            node.uid, expected.name, expected.ty, found.name, found.ty
        ));
    }
}

/// Returns true if an operator that reads `input` accepts `output`. Bytes accept anything, as it is encoded.
fn reads(input: &PortValue, output: &PortValue) -> bool {
    match (input, output) {
        (PortValue::Bytes, _) | (PortValue::Text, PortValue::Text) => true,
        (PortValue::Record(a), PortValue::Record(b)) => {
            a.fields.len() == b.fields.len()
                && a.fields
                    .iter()
                    .zip(&b.fields)
                    .all(|(a, b)| a.name == b.name && a.ty.digest() == b.ty.digest())
        }
        _ => false,
    }
}
