//! Parses a job's text into a [`JobGraph`]: reads every layer and every table, finds all problems, fills in all
//! defaults.

use std::path::Path;
use std::sync::Arc;

use super::check::{self, Defaults};
use super::connectors::Connectors;
use super::job_graph::JobGraph;
use super::job_tables;
use super::nodes;
use super::problem::{Findings, JobFileError, Place, Warning};
use super::reader::{Bases, Job, Reader};
use super::settings::{FILE_BYTES_MAX, NODES, Overrides, layered};
use super::size;
use super::tree::{Located, Table, Value};
use crate::environment::files::read_text;

/// Default number of key groups, as in Flink.
const MAX_PARALLELISM_DEFAULT: u32 = 128;
/// Upper bound of the number of key groups, as in Flink.
const MAX_PARALLELISM_MAX: u32 = 32_768;
/// Upper bound of a name's length, in bytes.
const NAME_LEN_MAX: usize = 200;
/// Upper bound of the number of sources, operators and sinks. Checks take time in proportion to its square.
const NODES_MAX: usize = 1000;

/// Reads a job file, which may name these connectors. Relative paths in it are relative to its directory, those in
/// `overrides` to their current directory.
///
/// # Errors
/// The file cannot be read, or [`parse_job`]'s.
pub fn load_job(
    path: &Path,
    overrides: &Overrides,
    connectors: Connectors,
) -> Result<(JobGraph, Vec<Warning>), JobFileError> {
    let text = read_text(path, FILE_BYTES_MAX).map_err(|source| JobFileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let absolute = std::path::absolute(path).map_err(|source| JobFileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let base_dir = absolute.parent().unwrap_or(Path::new("/"));
    parse_job(&text, &path.to_string_lossy(), base_dir, overrides, connectors)
}

/// Parses a job's text, which may come from a savepoint. Messages refer to it as `file`. Does no I/O.
///
/// # Errors
/// Returns [`JobFileError::Invalid`] with all problems at once.
pub fn parse_job(
    text: &str,
    file: &str,
    base_dir: &Path,
    overrides: &Overrides,
    connectors: Connectors,
) -> Result<(JobGraph, Vec<Warning>), JobFileError> {
    let file: Arc<str> = file.into();
    let mut findings = Findings::default();
    let root = layered(text, &file, overrides, &mut findings);
    if findings.broken {
        return Err(findings.into_error());
    }
    let top = Place::JobFile { file, line: 1 };
    let bases = Bases {
        job: base_dir.to_owned(),
        config: overrides
            .config
            .as_ref()
            .and_then(|(path, _)| path.parent())
            .map(Path::to_owned)
            .unwrap_or_default(),
        current: overrides.current_dir.clone(),
    };
    let nodes = NODES.iter().filter_map(|kind| root.get(*kind));
    let items = |kind: &Located| match &kind.value {
        Value::List(items) => items.len(),
        _ => 0,
    };
    let nodes: usize = nodes.map(items).sum();
    if nodes > NODES_MAX {
        let message = format!(
            "the job has {nodes} sources, operators and sinks, and at most {NODES_MAX} are run; split it into several jobs"
        );
        findings.problem(&top, None, message);
        return Err(findings.into_error());
    }
    let mut job = Job {
        findings,
        settings: std::collections::BTreeMap::new(),
        bases,
        connectors,
    };
    let (name, max_parallelism, parallelism) = scalars(&mut job, &root, &top);
    let checkpoint = job_tables::checkpoint(&mut job, &root, &top);
    let savepoint_dir = job_tables::savepoint(&mut job, &root, &top);
    job_tables::state(&mut job, &root, &top);
    let restart = job_tables::restart(&mut job, &root, &top, checkpoint.interval);
    let mut drafts = nodes::read(&mut job, &root, max_parallelism);
    for draft in &drafts {
        if let (Some(uid), None) = (&draft.uid, &draft.parallelism) {
            let value = job.settings.get("parallelism").cloned();
            job.settings
                .extend(value.map(|value| (format!("{uid}.parallelism"), value)));
        }
    }
    for [source, operator] in check::hand_on_watermarks(&mut drafts, &mut job.findings) {
        let prefix = format!("{source}.watermark.");
        let handed = job.settings.iter().filter_map(|(key, setting)| {
            let key = key.strip_prefix(&prefix)?;
            Some((format!("{operator}.watermark.{key}"), setting.clone()))
        });
        let handed: Vec<_> = handed.collect();
        job.settings.extend(handed);
    }
    let defaults = Defaults {
        parallelism,
        top: top.clone(),
    };
    let nodes = check::connect(drafts, &defaults, &mut job.findings);
    if job.findings.problems.is_empty() {
        check::refuse_own_input(&nodes, &top, &mut job.findings);
    }
    if !job.findings.problems.is_empty() {
        return Err(job.findings.into_error());
    }
    check::warn_interval_off(&nodes, &checkpoint, &top, &mut job.findings);
    let graph = JobGraph {
        name: name.unwrap_or_default(),
        parallelism,
        max_parallelism,
        checkpoint,
        restart,
        savepoint_dir,
        nodes,
        arguments: overrides.arguments.clone(),
        settings: job.settings,
        text: text.to_owned(),
        base_dir: base_dir.to_owned(),
    };
    size::check(&graph, &top, &mut job.findings);
    if !job.findings.problems.is_empty() {
        return Err(job.findings.into_error());
    }
    Ok((graph, job.findings.warnings))
}

/// Reads name, max parallelism and default parallelism, and reports every other top-level key that does not belong to a
/// job.
fn scalars(job: &mut Job, root: &Table, top: &Place) -> (Option<String>, u32, u32) {
    let mut reader = Reader::new(job, root, top, "", Some(String::new()), None);
    let name = name(&mut reader);
    let max_parallelism = reader.integer32("max-parallelism", 1, MAX_PARALLELISM_MAX, MAX_PARALLELISM_DEFAULT);
    let max_parallelism = max_parallelism.unwrap_or_else(|| {
        if !root.contains_key("max-parallelism") {
            reader.record("max-parallelism", MAX_PARALLELISM_DEFAULT.to_string(), None);
        }
        MAX_PARALLELISM_DEFAULT
    });
    let parallelism = reader.parallelism(max_parallelism).unwrap_or_else(|| {
        if !root.contains_key("parallelism") {
            reader.record("parallelism", "1".to_owned(), None);
        }
        1
    });
    for key in NODES.into_iter().chain(regraft_model::id::TABLES) {
        reader.raw(key);
    }
    reader.finish();
    (name, max_parallelism, parallelism)
}

fn name(reader: &mut Reader<'_>) -> Option<String> {
    let Some(at) = reader.raw("name") else {
        let place = reader.place;
        reader.problem_at(place, "the job has no name; add name = \"my-job\"");
        return None;
    };
    let (name, _) = reader.text("name", "my-job")?;
    if name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
        let expected = format!("at most {NAME_LEN_MAX} bytes without control characters");
        reader.expected(at, "name", &expected, "name = \"my-job\"");
        return None;
    }
    Some(name.to_owned())
}
