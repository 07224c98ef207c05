//! `[[source]]`, `[[operator]]` and `[[sink]]`, each read by itself; how they fit together is `check`'s business.

use std::time::Duration;

use regraft_model::id::OperatorUid;

use super::connectors::{self, DEAD_LETTER_EXAMPLE};
use super::job_graph::{Artifact, NodeKind, Operator, Partitioning, Policy, Sink, WatermarkStrategy};
use super::problem::Place;
use super::reader::{Job, Reader};
use super::settings::NODES;
use super::tree::{Located, Table, Value, key_to_toml, text_to_toml};
use super::units;
use super::watermark::{self, EventTimes};

/// Limit of a guest's linear memory where the job file is silent, in bytes.
const MEMORY_DEFAULT: u64 = 256 << 20;
/// Least and greatest linear memory of a 32-bit guest, in bytes.
const MEMORY_SIZES: (u64, u64, &str) = (1 << 16, 4 << 30, "a size from 64KiB to 4GiB");
/// `limits.host-memory` where the job file is silent, in multiples of `limits.memory`.
const HOST_MEMORY_TIMES: u64 = 4;
/// Least and greatest `limits.host-memory`, in bytes.
const HOST_MEMORY_SIZES: (u64, u64, &str) = (1 << 16, 64 << 30, "a size from 64KiB to 64GiB");
/// Least and greatest `limits.state`, in bytes.
const STATE_SIZES: (u64, u64, &str) = (1 << 16, 1 << 50, "a size of at least 64KiB");
/// Limit of the time that one call computes, where the job file is silent.
const TIME_DEFAULT: Duration = Duration::from_secs(5);

/// A source, operator or sink as written. A part that could not be read is `None`, and a problem says why.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind_word: &'static str,
    /// `operator "count"`, or `operator #3`.
    pub(crate) title: String,
    pub(crate) place: Place,
    pub(crate) uid: Option<OperatorUid>,
    pub(crate) uid_place: Place,
    pub(crate) parallelism: Option<(u32, Place)>,
    pub(crate) inputs: Vec<InputDraft>,
    pub(crate) watermark: Option<WatermarkDraft>,
    pub(crate) kind: Option<NodeKind>,
}

/// A watermark strategy and where it stands.
#[derive(Debug)]
pub(crate) struct WatermarkDraft {
    pub(crate) place: Place,
    pub(crate) strategy: WatermarkStrategy,
}

/// One input as written.
#[derive(Debug)]
pub(crate) struct InputDraft {
    pub(crate) place: Place,
    pub(crate) from: String,
    pub(crate) port: Option<String>,
    pub(crate) by: Option<Partitioning>,
}

/// All of them, sources first, each kind in the order of the file.
pub(crate) fn read(job: &mut Job, root: &Table, max_parallelism: u32) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for word in NODES {
        let Some(at) = root.get(word) else { continue };
        let Value::List(items) = &at.value else {
            let message = format!(
                "{word}: expected an array of tables, found {}; write [[{word}]]",
                at.value.what()
            );
            job.findings.problem(&at.place, None, message);
            continue;
        };
        for (idx, item) in items.iter().enumerate() {
            match &item.value {
                Value::Table(table) => drafts.push(node(job, word, idx + 1, table, &item.place, max_parallelism)),
                other => {
                    let message = format!(
                        "{word} #{}: expected a table, found {}; write [[{word}]]",
                        idx + 1,
                        other.what()
                    );
                    job.findings.problem(&item.place, None, message);
                }
            }
        }
    }
    drafts
}

fn node(job: &mut Job, word: &'static str, number: usize, table: &Table, place: &Place, max: u32) -> Draft {
    let (uid, uid_place) = uid(job, word, number, table, place);
    let title = match &uid {
        Some(uid) => format!("{word} \"{uid}\""),
        None => format!("{word} #{number}"),
    };
    let prefix = uid.as_ref().map(|uid| format!("{uid}."));
    let mut reader = Reader::new(
        job,
        table,
        place,
        title.clone(),
        prefix,
        uid.as_ref().map(OperatorUid::as_str),
    );
    reader.raw("uid");
    let parallelism = reader
        .parallelism(max)
        .and_then(|value| Some((value, table.get("parallelism")?.place.clone())));
    let mut inputs = Vec::new();
    let mut strategy = None;
    let kind = match word {
        "source" => {
            if let Some(at) = table.get("inputs") {
                reader.raw("inputs");
                reader.problem_at(
                    &at.place,
                    "a source has no inputs; remove the key, or make it an [[operator]]",
                );
            }
            if let Some(at) = table.get("on-error") {
                reader.raw("on-error");
                let message = "on-error is not implemented yet; remove it: a record that cannot be read fails the job";
                reader.problem_at(&at.place, message);
            }
            let source = connectors::source(&mut reader);
            let connector = source.as_ref().map(|source| &*source.connector);
            strategy = watermark::read(&mut reader, EventTimes::Source(connector));
            source.map(NodeKind::Source)
        }
        "operator" => {
            inputs = read_inputs(&mut reader);
            strategy = watermark::read(&mut reader, EventTimes::Guest);
            operator(&mut reader).map(NodeKind::Operator)
        }
        _ => {
            inputs = read_inputs(&mut reader);
            connectors::sink(&mut reader).map(|connector| NodeKind::Sink(Sink { connector }))
        }
    };
    reader.finish();
    Draft {
        kind_word: word,
        title,
        place: place.clone(),
        uid,
        uid_place,
        parallelism,
        inputs,
        watermark: strategy.and_then(|strategy| {
            let place = table.get("watermark")?.place.clone();
            Some(WatermarkDraft { place, strategy })
        }),
        kind,
    }
}

fn uid(job: &mut Job, word: &str, number: usize, table: &Table, place: &Place) -> (Option<OperatorUid>, Place) {
    let Some(at) = table.get("uid") else {
        let what = ["module", "crate", "connector"]
            .iter()
            .find_map(|key| match table.get(*key) {
                Some(Located {
                    value: Value::Text(text),
                    ..
                }) => Some(format!(" ({key} {text})")),
                _ => None,
            });
        let message = format!(
            "{word} #{number}{} has no uid; add uid = \"…\"",
            what.unwrap_or_default()
        );
        job.findings.problem(place, None, message);
        return (None, place.clone());
    };
    let uid = match &at.value {
        Value::Text(text) => OperatorUid::new(text).map_err(|error| error.to_string()),
        other => Err(format!(
            "uid: expected a string, found {}; write uid = \"{word}-{number}\"",
            other.to_toml()
        )),
    };
    match uid {
        Ok(uid) => (Some(uid), at.place.clone()),
        Err(message) => {
            job.findings
                .problem(&at.place, None, format!("{word} #{number}: {message}"));
            (None, at.place.clone())
        }
    }
}

const INPUTS_EXAMPLE: &str = "inputs = [\"UID\"]";

fn read_inputs(reader: &mut Reader<'_>) -> Vec<InputDraft> {
    let Some(at) = reader.raw("inputs") else {
        reader.missing("inputs", INPUTS_EXAMPLE);
        return Vec::new();
    };
    match &at.value {
        Value::List(items) if !items.is_empty() => {
            reader.record("inputs", at.value.to_toml(), Some(&at.place));
            items.iter().filter_map(|item| input(reader, item)).collect()
        }
        _ => {
            reader.expected(at, "inputs", "an array with at least one input", INPUTS_EXAMPLE);
            Vec::new()
        }
    }
}

fn input(reader: &mut Reader<'_>, at: &Located) -> Option<InputDraft> {
    let plain = |from: &str| InputDraft {
        place: at.place.clone(),
        from: from.to_owned(),
        port: None,
        by: None,
    };
    let table = match &at.value {
        Value::Text(from) => return Some(plain(from)),
        Value::Table(table) => table,
        _ => {
            reader.expected(at, "inputs", "a uid or a table with from and by", INPUTS_EXAMPLE);
            return None;
        }
    };
    // The array is recorded as a whole, so an input's own settings are not.
    let title = format!("{}: inputs", reader.title);
    let mut reader = Reader::new(reader.job, table, &at.place, title, None, reader.uid);
    let from = reader.text("from", "UID").map(|(from, _)| from);
    if from.is_none() && !table.contains_key("from") {
        reader.missing("from", "from = \"UID\"");
    }
    let port = reader.text("port", "PORT").map(|(port, _)| port.to_owned());
    let words = ["forward", "key", "rebalance", "broadcast"];
    let by = table.contains_key("by").then(|| match reader.choice("by", &words) {
        "key" => Partitioning::Key,
        "rebalance" => Partitioning::Rebalance,
        "broadcast" => Partitioning::Broadcast,
        _ => Partitioning::Forward,
    });
    reader.raw("by");
    reader.finish();
    Some(InputDraft {
        port,
        by,
        ..plain(from?)
    })
}

fn operator(reader: &mut Reader<'_>) -> Option<Operator> {
    let artifact = artifact(reader);
    let config = config(reader);
    let limits = limits(reader);
    let (on_trap, on_failure) = policies(reader);
    let dead_letter = connectors::dead_letter(reader);
    check_policies(reader, [("on-trap", on_trap), ("on-failure", on_failure)]);
    let list = |value: &Value| matches!(value, Value::List(_));
    reader.only_default("imports", "[]", "an array of strings", list);
    Some(Operator {
        artifact: artifact?,
        config: config?,
        memory_max: limits.memory_max,
        host_memory_max: limits.host_memory_max,
        state_max: limits.state_max,
        time_per_batch_max: limits.time_per_batch_max,
        on_trap,
        on_failure,
        dead_letter,
    })
}

/// `on-trap`, and `on-failure`, which is the same where it is not there.
fn policies(reader: &mut Reader<'_>) -> (Policy, Policy) {
    let policy = |word| match word {
        "dead-letter" => Policy::DeadLetter,
        _ => Policy::Fail,
    };
    let words = ["fail", "dead-letter"];
    let on_trap = reader.choice("on-trap", &words);
    let on_failure = if reader.raw("on-failure").is_some() {
        reader.choice("on-failure", &words)
    } else {
        let at = reader.raw("on-trap").map(|at| &at.place);
        reader.record("on-failure", text_to_toml(on_trap), at);
        on_trap
    };
    (policy(on_trap), policy(on_failure))
}

/// Policies and `dead-letter` need each other.
fn check_policies(reader: &mut Reader<'_>, policies: [(&'static str, Policy); 2]) {
    let mut needing = policies
        .iter()
        .filter(|(_, policy)| *policy == Policy::DeadLetter)
        .filter_map(|(key, _)| Some((key, reader.raw(key)?)));
    let first = needing.next();
    drop(needing);
    match (first, reader.raw("dead-letter")) {
        (Some((key, at)), None) => {
            let message = format!(
                "{key} = \"dead-letter\" needs to know where dead letters go; add dead-letter = {DEAD_LETTER_EXAMPLE}"
            );
            reader.problem_at(&at.place, &message);
        }
        (None, Some(at)) => {
            let message =
                "dead-letter has no effect while on-trap and on-failure are \"fail\"; add on-trap = \"dead-letter\"";
            reader.warning_at(&at.place, message);
        }
        _ => {}
    }
}

fn artifact(reader: &mut Reader<'_>) -> Option<Artifact> {
    let places = [reader.raw("module"), reader.raw("crate")];
    match places {
        [None, None] => {
            reader.missing("module and no crate", "module = \"FILE.wasm\" or crate = \"DIRECTORY\"");
            None
        }
        [Some(_), Some(second)] => {
            reader.problem_at(&second.place, "has both module and crate; keep one of them");
            None
        }
        [Some(_), None] => {
            let (text, place) = reader.text("module", "FILE.wasm")?;
            reader.local_path("module", text, place).map(Artifact::Module)
        }
        [None, Some(_)] => {
            let (text, place) = reader.text("crate", "DIRECTORY")?;
            reader.local_path("crate", text, place).map(Artifact::Crate)
        }
    }
}

fn config(reader: &mut Reader<'_>) -> Option<serde_json::Value> {
    let Some(at) = reader.raw("config") else {
        return Some(serde_json::Value::Null);
    };
    if !matches!(at.value, Value::Table(_)) {
        reader.expected(at, "config", "a table", "config = { KEY = VALUE }");
        return None;
    }
    record_leaves(reader, "config", at);
    match at.value.to_json() {
        Ok(json) => Some(json),
        Err(why) => {
            reader.problem_at(
                &at.place,
                &format!("config is handed to the guest as JSON, and {why}; write it as a string"),
            );
            None
        }
    }
}

/// Records each value in a table under its own name, since one may come from the command line and another not.
fn record_leaves(reader: &mut Reader<'_>, name: &str, at: &Located) {
    match &at.value {
        Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                record_leaves(reader, &format!("{name}.{}", key_to_toml(key)), value);
            }
        }
        value => reader.record(name, value.to_toml(), Some(&at.place)),
    }
}

/// `limits` of an operator.
struct Limits {
    memory_max: u64,
    host_memory_max: u64,
    state_max: Option<u64>,
    time_per_batch_max: Duration,
}

const LIMITS_EXAMPLE: &str = "limits = { memory = \"256MiB\", time-per-batch = \"5s\" }";

fn limits(reader: &mut Reader<'_>) -> Limits {
    let empty = Table::new();
    let here = reader.place;
    let (table, place) = match reader.raw("limits") {
        None => (&empty, here),
        Some(Located {
            value: Value::Table(table),
            place,
        }) => (table, place),
        Some(at) => {
            reader.expected(at, "limits", "a table", LIMITS_EXAMPLE);
            (&empty, here)
        }
    };
    let mut reader = reader.nested(table, place, "limits");
    let time_per_batch_max = reader.duration("time-per-batch", TIME_DEFAULT, true);
    let memory_max = size(&mut reader, "memory", MEMORY_SIZES, "256MiB").unwrap_or_else(|| {
        reader.record_default("memory", MEMORY_DEFAULT);
        MEMORY_DEFAULT
    });
    let host_memory_max = size(&mut reader, "host-memory", HOST_MEMORY_SIZES, "1GiB").unwrap_or_else(|| {
        let default = HOST_MEMORY_TIMES * memory_max;
        reader.record_default("host-memory", default);
        default
    });
    let state_max = size(&mut reader, "state", STATE_SIZES, "2GiB");
    reader.finish();
    Limits {
        memory_max,
        host_memory_max,
        state_max,
        time_per_batch_max,
    }
}

/// Reads a size between two others; `None` where it is not there, or after a problem.
fn size(
    reader: &mut Reader<'_>,
    key: &'static str,
    (least, most, words): (u64, u64, &str),
    example: &str,
) -> Option<u64> {
    let at = reader.raw(key)?;
    let size = if let Value::Text(text) = &at.value {
        units::bytes(text)
    } else {
        None
    };
    let size = size.filter(|size| (least..=most).contains(size));
    if size.is_some() {
        reader.record(key, at.value.to_toml(), Some(&at.place));
    } else {
        reader.expected(at, key, words, &format!("{key} = \"{example}\""));
    }
    size
}
