//! The layers of settings and their precedence: the host's `config.toml`, then the job file, then the environment, then
//! the command line, which wins.
//!
//! Flink's spellings are translated here; no other code knows them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft_model::id::{OperatorUid, TABLES};

use super::choose::{self, Choice};
use super::job_graph::Artifact;
use super::problem::{Findings, JobFileError, Place};
use super::suggest::instead_of;
use super::tree::{self, Located, Table, Value};
use crate::environment::files::read_text;

/// The longest job file or configuration, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Settings of a job from outside its file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--name`.
    pub name: Option<String>,
    /// `-c`: the job in the file to take, by its name.
    pub entry: Option<String>,
    /// The job to take without `-c`, where the file holds several.
    pub prefer: Option<String>,
    /// `-p`.
    pub parallelism: Option<u64>,
    /// Each `--set KEY=VALUE`.
    pub set: Vec<String>,
    /// Each `--module UID=PATH`; see [`parse_module`].
    pub modules: Vec<ModuleOverride>,
    /// Arguments that followed `--`.
    pub arguments: Vec<String>,
    /// Environment variables, of which those in [`ENVIRONMENT`] are read.
    pub environment: Vec<(String, String)>,
    /// Path and text of the host's configuration.
    pub config: Option<(PathBuf, String)>,
    /// Directory to which paths on the command line are relative.
    pub current_dir: PathBuf,
}

impl Overrides {
    /// Returns the settings of this process's environment and of `config.toml` in the data directory; the rest has its
    /// defaults.
    ///
    /// # Errors
    /// Returns [`JobFileError::Unreadable`] if `config.toml` exists and cannot be read.
    pub fn from_process(data_dir: &Path) -> Result<Self, JobFileError> {
        let path = data_dir.join("config.toml");
        let config = match read_text(&path, FILE_BYTES_MAX) {
            Ok(text) => Some((path, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(JobFileError::Unreadable { path, source }),
        };
        let environment = ENVIRONMENT
            .iter()
            .filter_map(|(name, _)| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        let current_dir = std::env::current_dir().unwrap_or_default();
        Ok(Self {
            environment,
            config,
            current_dir,
            ..Self::default()
        })
    }
}

/// Environment variables that are settings, with the paths of these settings.
pub const ENVIRONMENT: [(&str, &str); 6] = [
    ("REGRAFT_PARALLELISM", "parallelism"),
    ("REGRAFT_MAX_PARALLELISM", "max-parallelism"),
    ("REGRAFT_CHECKPOINT_INTERVAL", "checkpoint.interval"),
    ("REGRAFT_CHECKPOINT_TIMEOUT", "checkpoint.timeout"),
    ("REGRAFT_CHECKPOINT_DIR", "checkpoint.dir"),
    ("REGRAFT_SAVEPOINT_DIR", "savepoint.dir"),
];

/// An argument `--module UID=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleOverride {
    /// The operator.
    pub uid: OperatorUid,
    /// A component file, or the directory of a guest crate.
    pub artifact: Artifact,
    /// The argument as it was typed.
    pub text: String,
}

/// Parses the argument of `--module`. A directory is a guest crate, any other path a component file.
///
/// # Errors
/// Returns a one-line message if the text is not `UID=PATH` or the uid is not valid.
pub fn parse_module(text: &str, current_dir: &Path) -> Result<ModuleOverride, String> {
    let expected = || format!("--module {text}: expected UID=PATH, for example count=count.wasm");
    let (uid, path) = text.split_once('=').ok_or_else(expected)?;
    if path.is_empty() {
        return Err(expected());
    }
    let uid = OperatorUid::new(uid).map_err(|error| format!("--module {text}: {error}"))?;
    let path = current_dir.join(path);
    let artifact = if path.is_dir() {
        Artifact::Crate(path)
    } else {
        Artifact::Module(path)
    };
    Ok(ModuleOverride {
        uid,
        artifact,
        text: text.to_owned(),
    })
}

/// Top-level keys of a job file that hold a single value.
pub(crate) const SCALARS: [&str; 3] = ["name", "parallelism", "max-parallelism"];
pub(crate) use super::choose::NODES;
/// Keys that do not depend on the connector, and so outlive a change of it.
const COMMON: [&str; 7] = ["uid", "connector", "inputs", "parallelism", "rate", "key", "watermark"];

/// Alternative spellings of settings and ours, as dotted paths from the root.
const ALIASES: [(&str, &str); 28] = [
    ("parallelism.default", "parallelism"),
    ("pipeline.max-parallelism", "max-parallelism"),
    ("pipeline.name", "name"),
    ("state.backend.type", "state.backend"),
    ("state.savepoints.dir", "savepoint.dir"),
    ("execution.checkpointing.savepoint-dir", "savepoint.dir"),
    ("state.checkpoints.dir", "checkpoint.dir"),
    ("execution.checkpointing.dir", "checkpoint.dir"),
    ("state.checkpoints.num-retained", "checkpoint.retain"),
    ("execution.checkpointing.num-retained", "checkpoint.retain"),
    ("execution.checkpointing.interval", "checkpoint.interval"),
    ("execution.checkpointing.mode", "checkpoint.mode"),
    ("execution.checkpointing.min-pause", "checkpoint.min-pause"),
    ("execution.checkpointing.timeout", "checkpoint.timeout"),
    (
        "execution.checkpointing.tolerable-failed-checkpoints",
        "checkpoint.tolerable-failures",
    ),
    (
        "execution.checkpointing.max-concurrent-checkpoints",
        "checkpoint.max-concurrent",
    ),
    ("execution.checkpointing.unaligned.enabled", "checkpoint.unaligned"),
    ("execution.checkpointing.unaligned", "checkpoint.unaligned"),
    (
        "execution.checkpointing.externalized-checkpoint-retention",
        "checkpoint.on-cancel",
    ),
    ("restart-strategy.type", "restart.strategy"),
    ("restart-strategy.fixed-delay.attempts", "restart.attempts"),
    ("restart-strategy.fixed-delay.delay", "restart.delay"),
    (
        "restart-strategy.exponential-delay.initial-backoff",
        "restart.initial-backoff",
    ),
    ("restart-strategy.exponential-delay.max-backoff", "restart.max-backoff"),
    (
        "restart-strategy.exponential-delay.backoff-multiplier",
        "restart.backoff-multiplier",
    ),
    (
        "restart-strategy.exponential-delay.reset-backoff-threshold",
        "restart.reset-backoff-threshold",
    ),
    (
        "restart-strategy.exponential-delay.jitter-factor",
        "restart.jitter-factor",
    ),
    (
        "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        "restart.attempts-before-reset-backoff",
    ),
];

/// Words of Flink and ours, for settings with a choice of words, as a dotted path. Letter case does not count.
const WORDS: [(&str, &str, &str); 10] = [
    ("checkpoint.on-cancel", "RETAIN_ON_CANCELLATION", "retain"),
    ("checkpoint.on-cancel", "DELETE_ON_CANCELLATION", "delete"),
    ("checkpoint.mode", "EXACTLY_ONCE", "exactly-once"),
    ("checkpoint.mode", "AT_LEAST_ONCE", "at-least-once"),
    ("state.backend", "hashmap", "memory"),
    ("state.backend", "rocksdb", "disk"),
    ("restart.strategy", "fixeddelay", "fixed-delay"),
    ("restart.strategy", "exponentialdelay", "exponential-delay"),
    ("restart.strategy", "off", "none"),
    ("restart.strategy", "disable", "none"),
];

/// Settings of other systems that have no meaning here, with the reason.
const REFUSED: [(&str, &str); 6] = [
    (
        "state.backend.incremental",
        "every checkpoint writes only what has changed",
    ),
    (
        "execution.checkpointing.incremental",
        "every checkpoint writes only what has changed",
    ),
    ("s3.entropy.key", "paths need no entropy here"),
    ("s3.entropy.length", "paths need no entropy here"),
    (
        "state.storage.fs.memory-threshold",
        "state is always a file of its own, never inside _metadata",
    ),
    (
        "execution.checkpointing.data-inline-threshold",
        "state is always a file of its own, never inside _metadata",
    ),
];

/// Merges all layers into one tree, in our spelling.
pub(crate) fn layered(text: &str, file: &Arc<str>, overrides: &Overrides, findings: &mut Findings) -> Table {
    let mut root = config_layer(overrides, findings);
    let place = |line| Place::JobFile {
        file: file.clone(),
        line,
    };
    let job = tree::parse(text, findings, &place);
    if findings.broken {
        return root;
    }
    let choice = Choice {
        entry: overrides.entry.as_deref(),
        prefer: overrides.prefer.as_deref(),
    };
    let mut job = choose::one_job(job, choice, findings);
    normalize(&mut job, findings);
    if findings.broken {
        return root;
    }
    tree::merge(&mut root, job);
    for (name, key) in ENVIRONMENT {
        // Scripts unset a variable by setting it to the empty string.
        let is_set = |(variable, value): &&(String, String)| variable == name && !value.trim().is_empty();
        if let Some((_, value)) = overrides.environment.iter().find(is_set) {
            let place = Place::Environment(name.into());
            let parts = key.split('.').map(str::to_owned).collect::<Vec<_>>();
            set_path(&mut root, &parts, tree::parse_value(value, &place), findings);
        }
    }
    command_line(&mut root, overrides, findings);
    root
}

fn config_layer(overrides: &Overrides, findings: &mut Findings) -> Table {
    let Some((path, text)) = &overrides.config else {
        return Table::new();
    };
    let file = tree::file_name(path);
    let mut table = tree::parse(text, findings, &|line| Place::Config {
        file: file.clone(),
        line,
    });
    normalize(&mut table, findings);
    table.retain(|key, at| {
        let of_one_job = ["name", choose::JOBS].contains(&key.as_str()) || NODES.contains(&key.as_str());
        if of_one_job {
            findings.problem(
                &at.place,
                None,
                format!("{key} belongs to one job; move it to the job file"),
            );
        }
        !of_one_job
    });
    table
}

fn command_line(root: &mut Table, overrides: &Overrides, findings: &mut Findings) {
    for text in &overrides.set {
        let place = Place::CommandLine(format!("--set {text}").into());
        match key_and_value(text) {
            Some((parts, value)) => apply_set(root, parts, tree::parse_value(value, &place), findings),
            None => findings.problem(&place, None, "expected KEY=VALUE, for example count.parallelism=2"),
        }
    }
    if let Some(value) = overrides.parallelism {
        let place = Place::CommandLine(format!("-p {value}").into());
        root.insert(
            "parallelism".to_owned(),
            Located {
                place,
                value: Value::Int(value.into()),
            },
        );
    }
    if let Some(name) = &overrides.name {
        let place = Place::CommandLine(format!("--name {name}").into());
        root.insert(
            "name".to_owned(),
            Located {
                place,
                value: Value::Text(name.clone()),
            },
        );
    }
    for module in &overrides.modules {
        let place = Place::CommandLine(format!("--module {}", module.text).into());
        let (key, path) = match &module.artifact {
            Artifact::Module(path) => ("module", path),
            Artifact::Crate(path) => ("crate", path),
        };
        let value = Located {
            place,
            value: Value::Text(path.to_string_lossy().into_owned()),
        };
        apply_set(root, vec![module.uid.to_string(), key.to_owned()], value, findings);
    }
}

/// Splits `KEY=VALUE`. A quoted part of the key may contain `=`.
fn key_and_value(text: &str) -> Option<(Vec<String>, &str)> {
    let mut splits = text.match_indices('=').take(16).map(|(at, _)| text.split_at(at));
    splits.find_map(|(key, value)| Some((tree::parse_key(key.trim())?, value.get(1..)?.trim())))
}

/// Applies one setting by its dotted path: that of a table of the job file, or a uid and a key.
fn apply_set(root: &mut Table, parts: Vec<String>, value: Located, findings: &mut Findings) {
    let first = parts.first().map(String::as_str).unwrap_or_default();
    let flink = ["execution", "pipeline", "restart-strategy", "s3"].contains(&first);
    if flink || SCALARS.contains(&first) || TABLES.contains(&first) {
        let mut layer = Table::new();
        set_path(&mut layer, &parts, value, findings);
        normalize(&mut layer, findings);
        tree::merge(root, layer);
        return;
    }
    let place = value.place.clone();
    let Some(node) = find_node(root, first) else {
        let uids = all_uids(root);
        let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
        let remedy = if uids.is_empty() {
            "it has none".to_owned()
        } else {
            instead_of(first, &uids)
        };
        return findings.problem(
            &place,
            None,
            format!("nothing in the job has the uid \"{first}\"; {remedy}"),
        );
    };
    match parts.get(1).map(String::as_str) {
        None => {
            let message = format!("expected {first}.KEY=VALUE, for example {first}.parallelism=2");
            return findings.problem(&place, Some(first), message);
        }
        Some("uid") => {
            let message = "a uid is what state is bound to and cannot be set here; change the job file";
            return findings.problem(&place, Some(first), message);
        }
        Some("module") => drop(node.remove("crate")),
        Some("crate") => drop(node.remove("module")),
        Some("connector") => {
            node.retain(|key, at| COMMON.contains(&key.as_str()) || matches!(at.place, Place::CommandLine(_)));
        }
        Some(_) => {}
    }
    set_path(node, parts.get(1..).unwrap_or_default(), value, findings);
}

fn node_tables(root: &mut Table) -> impl Iterator<Item = &mut Table> {
    root.iter_mut()
        .filter(|(key, _)| NODES.contains(&key.as_str()))
        .filter_map(|(_, at)| {
            if let Value::List(items) = &mut at.value {
                Some(items)
            } else {
                None
            }
        })
        .flatten()
        .filter_map(|item| {
            if let Value::Table(table) = &mut item.value {
                Some(table)
            } else {
                None
            }
        })
}

fn uid_of(table: &Table) -> Option<&str> {
    match table.get("uid") {
        Some(Located {
            value: Value::Text(uid),
            ..
        }) => Some(uid),
        _ => None,
    }
}

fn find_node<'a>(root: &'a mut Table, uid: &str) -> Option<&'a mut Table> {
    node_tables(root).find(|table| uid_of(table) == Some(uid))
}

fn all_uids(root: &mut Table) -> Vec<String> {
    node_tables(root)
        .filter_map(|table| uid_of(table).map(str::to_owned))
        .collect()
}

/// Puts a value at a path and creates the tables on the way.
fn set_path(table: &mut Table, parts: &[String], value: Located, findings: &mut Findings) {
    let Some((first, rest)) = parts.split_first() else {
        return;
    };
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return;
    }
    let place = value.place.clone();
    let entry = table.entry(first.clone());
    let next = entry.or_insert_with(|| Located {
        place: place.clone(),
        value: Value::Table(Table::new()),
    });
    match &mut next.value {
        Value::Table(next) => set_path(next, rest, value, findings),
        other => {
            let message = format!(
                "\"{first}\" is {}, not a table, so it has no \"{}\"",
                other.what(),
                rest.join(".")
            );
            findings.problem(&place, None, message);
        }
    }
}

/// Removes the value at a dotted path, or at the path as one quoted key.
fn take_path(table: &mut Table, path: &str) -> Option<Located> {
    if let Some(value) = table.remove(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    let Value::Table(next) = &mut table.get_mut(first)?.value else {
        return None;
    };
    let value = take_path(next, rest)?;
    if next.is_empty() {
        table.remove(first);
    }
    Some(value)
}

fn normalize(root: &mut Table, findings: &mut Findings) {
    for (path, why) in REFUSED {
        if let Some(at) = take_path(root, path) {
            findings.problem(&at.place, None, format!("{path} has no meaning here: {why}; remove it"));
        }
    }
    for (path, ours) in ALIASES {
        let Some(value) = take_path(root, path) else { continue };
        let parts: Vec<String> = ours.split('.').map(str::to_owned).collect();
        if let Some(there) = take_path(root, ours) {
            let message = format!(
                "{path} and {ours} (at {}) are the same setting; remove one",
                there.place
            );
            findings.problem(&value.place, None, message);
        }
        set_path(root, &parts, value, findings);
    }
    for (path, theirs, ours) in WORDS {
        if let Some(Located {
            value: Value::Text(word),
            ..
        }) = get_path(root, path)
            && word.eq_ignore_ascii_case(theirs)
        {
            ours.clone_into(word);
        }
    }
}

/// Returns the value at a dotted path.
fn get_path<'a>(table: &'a mut Table, path: &str) -> Option<&'a mut Located> {
    match path.split_once('.') {
        None => table.get_mut(path),
        Some((first, rest)) => match &mut table.get_mut(first)?.value {
            Value::Table(next) => get_path(next, rest),
            _ => None,
        },
    }
}
