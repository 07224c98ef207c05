//! Shared parts of the scenarios: the example guests as components, job files, and the contents of savepoints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use regraft::connector::source::{Polled, SourceContext};
use regraft::connectors::BUILT_IN;
use regraft::environment::files::LocalFiles;
use regraft::graph::job_graph::{JobGraph, NodeKind};
use regraft::graph::{Overrides, parse_job};
use serde_json::Value;

use crate::support::{Attached, Ran, World, root, wait_until};

/// Guest crates, by the uid that they are built under.
const GUESTS: [(&str, &str); 10] = [
    ("split", "examples/word-count/split"),
    ("count", "examples/word-count/count"),
    ("count-v2", "examples/word-count/count-v2"),
    ("count-v3", "tests/guests/count-v3"),
    ("rolling", "examples/rolling-count/count"),
    ("picky", "tests/guests/picky"),
    ("private", "tests/guests/private"),
    ("kinds", "tests/guests/kinds"),
    ("raw", "tests/guests/raw"),
    ("parse", "examples/sessions/parse"),
];

/// Returns the component of a guest crate. All are built once, by the program itself.
pub fn component(guest: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let world = World::new();
        let mut job =
            "name = \"guests\"\n[[source]]\nuid = \"lines\"\nconnector = \"file\"\npath = \"in\"\n".to_owned();
        for (uid, dir) in GUESTS {
            let dir = root().join(dir);
            let _ = write!(
                job,
                "[[operator]]\nuid = {uid:?}\ncrate = {dir:?}\ninputs = [{{ from = \"lines\", by = \"key\" }}]\n"
            );
        }
        let all: Vec<&str> = GUESTS.iter().map(|(uid, _)| *uid).collect();
        let _ = write!(
            job,
            "[[sink]]\nuid = \"out\"\nconnector = \"blackhole\"\ninputs = {all:?}\n"
        );
        world.write("job.toml", &job);
        let answer = world.run(&["build", "job.toml", "--json"]).exits(0).json();
        let component = |c: &Value| (text(&c["uid"]), PathBuf::from(text(&c["component"])));
        answer["components"]
            .as_array()
            .expect("components")
            .iter()
            .map(component)
            .collect()
    });
    &built[guest]
}

/// A job of the words of files in `in/`, watched: lines → split → count → out.
pub fn words_job(name: &str, emit: &str) -> String {
    format!(
        r#"name = "{name}"
[checkpoint]
interval = "off"
[savepoint]
dir = "savepoints"
[[source]]
uid = "lines"
connector = "file"
path = "in/*.txt"
mode = "watch"
poll = "10ms"
[[operator]]
uid = "split"
module = {split:?}
inputs = ["lines"]
[[operator]]
uid = "count"
module = {count:?}
inputs = [{{ from = "split", by = "key" }}]
config = {{ emit = "{emit}" }}
[[sink]]
uid = "out"
connector = "file"
inputs = ["count"]
path = "out"
format = "tsv"
"#,
        split = component("split"),
        count = component("count"),
    )
}

/// A job of generated words drawn from `keys` keys: events → count → out. Endless if `rows` is 0.
pub fn made_up_job(name: &str, rows: u64, keys: u64, rate: u64, emit: &str, sink: &str) -> String {
    let rows = if rows == 0 {
        String::new()
    } else {
        format!("rows = {rows}\n")
    };
    format!(
        r#"name = "{name}"
[checkpoint]
interval = "off"
[savepoint]
dir = "savepoints"
[[source]]
uid = "events"
connector = "generator"
seed = 7
rate = {rate}
{rows}key = "word"
fields = [{{ name = "word", type = "string", range = [0, {last}] }}, {{ name = "payload", type = "bytes", len = 8 }}]
[[operator]]
uid = "count"
module = {count:?}
inputs = [{{ from = "events", by = "key" }}]
config = {{ emit = "{emit}" }}
[[sink]]
uid = "out"
inputs = ["count"]
{sink}
"#,
        last = keys - 1,
        count = component("count"),
    )
}

/// Sends a signal, by its short name, to the process of an attached run.
pub fn signal(job: &Attached, name: &str) {
    let status = std::process::Command::new("kill")
        .args(["-s", name, &job.pid().to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

pub const FILE_SINK: &str = "connector = \"file\"\npath = \"out\"\nformat = \"tsv\"";
pub const BLACKHOLE: &str = "connector = \"blackhole\"";

/// Parses a job file as the program does, with relative paths below `dir`.
pub fn graph(text: &str, dir: &Path, overrides: &Overrides) -> JobGraph {
    parse_job(text, "job.toml", dir, overrides, BUILT_IN)
        .unwrap_or_else(|error| panic!("{error}"))
        .0
}

/// Returns the counts of generated words when every split has been read up to the given offset, computed without the
/// host.
pub fn counted_by_hand(graph: &JobGraph, splits: &Value) -> BTreeMap<String, u64> {
    let source = graph.nodes.iter().find_map(|node| match &node.kind {
        NodeKind::Source(source) => Some(&source.connector),
        _ => None,
    });
    let source = source.expect("a source");
    let offsets: BTreeMap<String, u64> = splits
        .as_array()
        .expect("splits")
        .iter()
        .map(|split| {
            (
                text(&split["split"]),
                split["position"]["offset"].as_u64().expect("offset"),
            )
        })
        .collect();
    assert_eq!(
        offsets.keys().cloned().collect::<Vec<_>>(),
        source.splits(&LocalFiles, false).expect("splits"),
        "every split is there, once"
    );
    let context = SourceContext {
        files: Arc::new(LocalFiles),
        subtask: 0,
        parallelism: 1,
        timestamp: None,
        known: Arc::default(),
    };
    let mut counts = BTreeMap::new();
    for (split, offset) in offsets {
        let mut reader = source.reader(&context, vec![(split, None)]).expect("reader");
        let mut left = usize::try_from(offset).expect("few");
        while left > 0 {
            let Ok(Polled::Batch(batch)) = reader.poll(left.min(1000), 0) else {
                panic!("it has so many")
            };
            left -= batch.len();
            for row in 0..batch.len() {
                let word = std::str::from_utf8(batch.key(row)).expect("a word");
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    counts
}

/// Returns the rows of all states of a uid, read from the Parquet files of a savepoint, with columns by name.
pub fn parquet_rows(savepoint: &Value, uid: &str) -> Vec<BTreeMap<String, Field>> {
    let dir = local(&text(&savepoint["path"]));
    let mut rows = vec![];
    for state in shown(savepoint, uid)["states"].as_array().expect("states") {
        for file in state["files"].as_array().expect("files") {
            let file = File::open(dir.join(text(file))).expect("file");
            let reader = SerializedFileReader::new(file).expect("Parquet");
            let columns =
                |row: parquet::record::Row| row.get_column_iter().map(|(n, f)| (n.clone(), f.clone())).collect();
            rows.extend(
                reader
                    .get_row_iter(None)
                    .expect("rows")
                    .map(|row| columns(row.expect("row"))),
            );
        }
    }
    rows
}

/// Returns the state of `count`: its columns `word` and `count`.
pub fn counts(savepoint: &Value) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for row in parquet_rows(savepoint, "count") {
        let (Field::Str(word), Field::ULong(count)) = (&row["word"], &row["count"]) else {
            panic!("types: {row:?}")
        };
        assert!(
            counts.insert(word.clone(), *count).is_none(),
            "a key is in one file, once"
        );
    }
    counts
}

/// Renders `word<TAB>count`, as the sink writes it.
pub fn tsv(counts: &BTreeMap<String, u64>) -> Vec<String> {
    counts.iter().map(|(word, count)| format!("{word}\t{count}")).collect()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Returns the path of a `file://` URL.
pub fn local(url: &str) -> PathBuf {
    url.strip_prefix("file://").expect("a file URL").into()
}

pub fn info(world: &World, job: &str) -> Value {
    world.run(&["info", job, "--json"]).exits(0).json()
}

/// Returns the output of `state show` for a savepoint.
pub fn show(world: &World, savepoint: &str) -> Value {
    world.run(&["state", "show", savepoint, "--json"]).exits(0).json()
}

/// Returns one uid from the output of `state show`.
#[track_caller]
pub fn shown<'a>(savepoint: &'a Value, uid: &str) -> &'a Value {
    let operators = savepoint["operators"].as_array().expect("operators");
    operators
        .iter()
        .find(|operator| operator["uid"] == uid)
        .unwrap_or_else(|| panic!("no {uid} in {savepoint}"))
}

/// Takes a savepoint, and returns its URL.
pub fn savepoint(world: &World, job: &str) -> String {
    text(&world.run(&["savepoint", job, "--json"]).exits(0).json()["path"])
}

/// Stops a job with a savepoint, and returns its URL and what the attached run printed.
pub fn stop(world: &World, job: Attached) -> (String, Ran) {
    let answer = world.run(&["stop", &job.job_id, "--json"]).exits(0).json();
    (text(&answer["path"]), job.end().exits(0))
}

/// Waits until sinks have written this many records.
#[track_caller]
pub fn wait_for_out(world: &World, job: &Attached, records: u64) {
    let mut seen = Value::Null;
    wait_until(&format!("{records} records out"), || {
        seen = info(world, &job.job_id)["records_out"].clone();
        seen.as_u64().is_some_and(|seen| seen >= records)
    });
    if records < 100 {
        assert_eq!(seen, records, "and no more");
    }
}

/// Returns the line of a blackhole sink on stdout.
pub fn blackhole(ran: &Ran) -> String {
    ran.stdout
        .lines()
        .find(|line| line.starts_with("blackhole "))
        .unwrap_or_else(|| panic!("no line: {ran:?}"))
        .to_owned()
}
