//! `build`, `validate`, `graph`, `inspect`: verbs about jobs and modules that do not run.

use std::path::Path;
use std::sync::Arc;

use regraft_guest_runtime::engine::{COMPONENT_BYTES_MAX, EngineSettings, GuestEngine};
use regraft_guest_runtime::module_error::ModuleError;
use regraft_model::describe::{Description, StateDescription, interface};
use regraft_model::error_kind::ErrorKind;
use serde_json::json;

use super::args::{GraphArgs, InspectArgs, JobFileArgs};
use super::failure::Failure;
use super::log;
use super::output::Output;
use super::table::{Column, labelled, table};
use crate::api::types::ProblemBody;
use crate::compile::declared::{DeclaredOperator, Undeclared, declared};
use crate::compile::{StderrReport, Tools, build_guests, component_paths, guest_crates};
use crate::dataflow::operator::Modules;
use crate::environment::files::read_regular;
use crate::graph::job_graph::JobGraph;
use crate::graph::render;
use crate::jobs::admission::{Descriptions, check_known};
use crate::jobs::handle::JobProblem;

/// Width of the labels of `inspect`.
const LABEL: usize = 8;

/// Creates the engine, with its cache of compiled components in the data directory.
///
/// # Errors
/// [`Failure`] where this machine cannot run guests.
pub fn engine(data_dir: &Path) -> Result<GuestEngine, Failure> {
    let settings = EngineSettings {
        cache_dir: Some(data_dir.join("modules")),
    };
    GuestEngine::new(&settings).map_err(|error| module_failure(&error, None, None))
}

/// Wraps an error of loading a component, adding the uid and path that it is about.
#[must_use]
pub fn module_failure(error: &ModuleError, uid: Option<&str>, path: Option<&Path>) -> Failure {
    let place = path.map(|path| format!("{}: ", path.display())).unwrap_or_default();
    let operator = uid.map(|uid| format!("operator \"{uid}\": ")).unwrap_or_default();
    Failure {
        uid: uid.map(str::to_owned),
        path: path.map(|path| path.display().to_string()),
        ..Failure::new(error.kind(), format!("{operator}{place}{error}"))
    }
}

/// Reads and compiles a component file, with a log line where it has to be compiled.
///
/// # Errors
/// [`Failure`] of kind usage where the file is not such a component.
pub fn load_module(
    engine: &GuestEngine,
    uid: &str,
    path: &Path,
) -> Result<regraft_guest_runtime::module::GuestModule, Failure> {
    let bytes = read_regular(path, COMPONENT_BYTES_MAX).map_err(|error| Failure {
        uid: Some(uid.to_owned()),
        path: Some(path.display().to_string()),
        ..Failure::usage(format!(
            "operator \"{uid}\": cannot read the module {}: {error}; expected a component file, as `regraft build` makes it",
            path.display()
        ))
    })?;
    let loaded = engine
        .load(bytes)
        .map_err(|error| module_failure(&error, Some(uid), Some(path)))?;
    if loaded.compiled {
        let (digest, ms) = (loaded.module.digest().short(), loaded.took.as_millis());
        log::line(&format!("compiled {uid} ({digest}) in {ms} ms"));
    }
    Ok(loaded.module)
}

/// Builds the guest crates of a job, and loads all its components.
///
/// # Errors
/// [`Failure`] of the first one that cannot be built or loaded.
pub fn build_and_load(graph: &JobGraph, engine: &GuestEngine, data_dir: &Path) -> Result<Modules, Failure> {
    let crates = guest_crates(graph);
    let built = build_guests(&crates, &Tools::from_env(data_dir), engine, &StderrReport::new())?;
    let mut modules = Modules::new();
    for (uid, path) in component_paths(graph, &built) {
        let module = load_module(engine, uid.as_str(), &path)?;
        modules.insert(uid, std::sync::Arc::new(module));
    }
    Ok(modules)
}

/// `regraft build`.
///
/// # Errors
/// [`Failure`] where the job file is wrong, or a guest crate cannot be built.
pub fn build(args: &JobFileArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let (graph, warnings) = args.load(data_dir, &[])?;
    log::warnings(&warnings);
    let engine = engine(data_dir)?;
    let crates = guest_crates(&graph);
    // A user who doubts that a crate is unchanged asks here.
    let tools = Tools::from_env(data_dir).always_asking();
    let built = build_guests(&crates, &tools, &engine, &StderrReport::new())?;
    let shown: Vec<_> = built
        .iter()
        .map(|b| {
            let ms = b.took.as_millis();
            json!({ "uid": b.uid, "component": b.component, "bytes": b.bytes, "built": b.made, "duration_ms": ms })
        })
        .collect();
    output.result(&json!({ "components": shown }), || {
        if built.is_empty() {
            return "There is nothing to build: no operator of the job has a crate.".to_owned();
        }
        let line = |b: &crate::compile::Built| format!("{}: {} ({} bytes)", b.uid, b.component.display(), b.bytes);
        built.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

/// `regraft validate`: checks the job file, and shows the states that the components of its operators declare, where
/// they have been built.
///
/// # Errors
/// [`Failure`] with every problem.
pub fn validate(args: &JobFileArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let (graph, warnings) = args.load(data_dir, &[])?;
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let operators = declared(&graph, &engine(data_dir)?);
    refuse_unfit(&graph, &operators)?;
    let shown: Vec<_> = operators
        .iter()
        .map(|operator| match &operator.description {
            Ok(description) => {
                json!({ "uid": operator.uid, "stateful": is_stateful(description), "states": state_names(description) })
            }
            Err(why) => json!({ "uid": operator.uid, "stateful": null, "states": [], "unknown": why.to_string() }),
        })
        .collect();
    let value = json!({ "name": graph.name, "valid": true, "warnings": texts, "operators": shown });
    output.result(&value, || {
        let warnings: String = texts.iter().map(|text| format!("warning: {text}\n")).collect();
        format!(
            "{warnings}{} is valid: job {}, {} nodes{}",
            args.job.display(),
            graph.name,
            graph.nodes.len(),
            stateful_text(&operators)
        )
    });
    Ok(())
}

/// Refuses what `run` would refuse, as far as that is known without a build. A crate that has changed since its last build is
/// left out.
fn refuse_unfit(graph: &JobGraph, operators: &[DeclaredOperator]) -> Result<(), Failure> {
    let mut problems = vec![];
    let mut known = Descriptions::new();
    for operator in operators {
        match &operator.description {
            Ok(description) if !operator.stale => {
                known.insert(operator.uid.clone(), Arc::new(description.clone()));
            }
            Err(Undeclared::Unusable { path, message }) => problems.push(ProblemBody {
                kind: ErrorKind::Usage,
                message: message.clone(),
                uid: Some(operator.uid.to_string()),
                path: Some(path.display().to_string()),
                remedy: None,
            }),
            Ok(_) | Err(Undeclared::NotBuilt) => {}
        }
    }
    if let Err(refused) = check_known(graph, &known) {
        problems.extend(refused.problems.iter().map(|unfit| JobProblem::from(unfit).into()));
    }
    let Some(first) = problems.first() else { return Ok(()) };
    let texts: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    let same = |of: fn(&ProblemBody) -> &Option<String>| {
        let same = problems.iter().all(|problem| of(problem) == of(first));
        of(first).clone().filter(|_| same)
    };
    let failure = Failure {
        uid: same(|problem| &problem.uid),
        path: same(|problem| &problem.path),
        ..Failure::usage(texts.join("\n"))
    };
    Err(failure.with_problems(problems))
}

/// Returns true if the operator has anything in a savepoint.
fn is_stateful(d: &Description) -> bool {
    d.is_keyed() || d.private_state || !d.operator_states.is_empty()
}

fn state_names(d: &Description) -> Vec<&str> {
    let keyed = d.states.iter().map(|state| state.name.as_str());
    let timers = d.timers.iter().map(|timer| timer.name.as_str());
    let operator = d.operator_states.iter().map(|state| state.name.as_str());
    keyed.chain(timers).chain(operator).collect()
}

/// Returns a table of the operators with their states, with a line feed before each line; empty without operators.
fn stateful_text(operators: &[DeclaredOperator]) -> String {
    if operators.is_empty() {
        return String::new();
    }
    let row = |operator: &DeclaredOperator| match &operator.description {
        Ok(d) if is_stateful(d) => [operator.uid.to_string(), "yes".into(), state_names(d).join(", ")],
        Ok(_) => [operator.uid.to_string(), "no".into(), String::new()],
        Err(why) => [operator.uid.to_string(), "unknown".into(), why.to_string()],
    };
    let columns = [
        Column::text("OPERATOR"),
        Column::text("STATEFUL").apart(),
        Column::text("STATES").apart(),
    ];
    let rows: Vec<_> = operators.iter().map(row).collect();
    let lines = table(&columns, &rows);
    lines.iter().map(|line| format!("\n{}", line.trim_end())).collect()
}

/// `regraft graph`.
///
/// # Errors
/// [`Failure`] where the job file is wrong.
pub fn graph(args: &GraphArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let (graph, _) = args.job.load(data_dir, &[])?;
    let text = if args.mermaid {
        render::mermaid(&graph)
    } else {
        render::text(&graph)
    };
    let node = |node: &crate::graph::job_graph::Node| {
        let input = |input: &crate::graph::job_graph::Input| json!({ "from": graph.nodes[input.from].uid, "port": input.port, "by": input.by });
        let kind = crate::checkpoint::store::entry_kind(node).to_string();
        let inputs: Vec<_> = node.inputs.iter().map(input).collect();
        json!({ "uid": node.uid, "kind": kind, "parallelism": node.parallelism, "inputs": inputs })
    };
    let nodes: Vec<_> = graph.nodes.iter().map(node).collect();
    output.result(&json!({ "name": graph.name, "nodes": nodes, "text": text }), || {
        text.trim_end().to_owned()
    });
    Ok(())
}

/// `regraft inspect`.
///
/// # Errors
/// [`Failure`] of kind usage where the file is not a component of the world.
pub fn inspect(args: &InspectArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let path = &args.module;
    let bytes = read_regular(path, COMPONENT_BYTES_MAX).map_err(|error| Failure {
        path: Some(path.display().to_string()),
        ..Failure::usage(format!("cannot read {}: {error}", path.display()))
    })?;
    let size = bytes.len();
    let loaded = engine(data_dir)?
        .load(bytes)
        .map_err(|error| module_failure(&error, None, Some(path)))?;
    let (digest, description) = (loaded.module.digest(), loaded.module.description());
    let value = json!({ "path": path, "digest": digest.to_string(), "bytes": size, "describe": description });
    output.result(&value, || description_text(&digest.to_string(), size, description));
    Ok(())
}

fn description_text(digest: &str, size: usize, d: &Description) -> String {
    let mut lines = vec![format!(
        "sha256 {digest}, {size} bytes, regraft:operator@{}, {}",
        d.wit, d.sdk
    )];
    if let Some(key) = &d.key {
        lines.push(labelled(LABEL, "key", &format!("{}: {}", key.name, key.ty)));
    }
    lines.extend(d.states.iter().map(state_text));
    for state in &d.operator_states {
        let text = format!(
            "{}: {} (operator state, {}, digest {})",
            state.name,
            state.schema,
            state.kind,
            state.schema.digest()
        );
        lines.push(labelled(LABEL, "state", &text));
    }
    let port = |label: &str, port: &regraft_model::describe::Port| {
        let key = port
            .key
            .as_ref()
            .map(|key| format!(", key {}: {}", key.name, key.ty))
            .unwrap_or_default();
        labelled(LABEL, label, &format!("{}: {}{key}", port.name, port.value))
    };
    lines.extend(d.inputs.iter().map(|input| port("input", input)));
    lines.extend(d.outputs.iter().map(|output| port("output", output)));
    for timer in &d.timers {
        lines.push(labelled(
            LABEL,
            "timer",
            &format!("{} ({} time)", timer.name, timer.time),
        ));
    }
    let flags = [
        (d.private_state, "private state"),
        (d.reads_clock, "the clock"),
        (d.reads_random, "randomness"),
    ];
    let flags = flags.iter().filter(|(on, _)| *on).map(|(_, word)| *word);
    // What timers and operator states need is told by these.
    let declared = [interface::TIMERS, interface::OPERATOR_STATE];
    let calls = d.calls.iter().flatten().map(String::as_str);
    let used: Vec<&str> = calls.filter(|call| !declared.contains(call)).chain(flags).collect();
    if !used.is_empty() {
        lines.push(labelled(LABEL, "uses", &used.join(", ")));
    }
    lines.push(labelled(LABEL, "imports", "regraft:operator/* only"));
    lines.join("\n")
}

fn state_text(state: &StateDescription) -> String {
    let map_key = state.map_key.as_ref().map(|key| format!(", keys {key}"));
    let ttl = state.ttl_ms.map(|ms| format!(", expires after {ms} ms"));
    let text = format!(
        "{}: {} ({}{}{}, digest {})",
        state.name,
        state.schema,
        state.kind,
        map_key.unwrap_or_default(),
        ttl.unwrap_or_default(),
        state.schema.digest()
    );
    labelled(LABEL, "state", &text)
}
