//! The full texts of all errors, and the graphs of valid jobs.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::job_graph::{Artifact, JobGraph, NodeKind, Partitioning, SettingOrigin};
use regraft_model::id::OperatorUid;

use super::*;
use crate::connectors::BUILT_IN;
use crate::connectors::file::settings::{FileSink, FileSource, LineKey};
use crate::connectors::format::TextFormat;
use crate::connectors::generator::settings::{GeneratorSource, GeneratorValues};

mod policies;
mod several;
mod size;
mod watermarks;

const GOOD: &str = r#"name = "word-count"
parallelism = 2

[savepoint]
dir = "file:///var/my%20savepoints"

[[source]]
uid = "lines"
connector = "file"
path = "input/*.txt"

[[operator]]
uid = "split"
crate = "split"
inputs = ["lines"]

[[operator]]
uid = "count"
module = "count.wasm"
inputs = [{ from = "split", by = "key" }]
config = { min = 3 }

[[sink]]
uid = "out"
connector = "file"
inputs = ["count"]
path = "out"
format = "tsv"
"#;

/// Wraps lines in a job, in which they begin at line 2.
fn around(lines: &str) -> String {
    format!(
        "name = \"j\"\n{lines}\n[[source]]\nuid = \"src\"\nconnector = \"file\"\npath = \"a\"\n[[sink]]\nuid = \"snk\"\nconnector = \"print\"\ninputs = [\"src\"]\n"
    )
}

/// The settings behind a connector.
fn settings_of<T: 'static>(connector: &dyn Any) -> &T {
    connector.downcast_ref().expect("the settings of another connector")
}

fn overrides() -> Overrides {
    Overrides {
        current_dir: PathBuf::from("/cwd"),
        ..Overrides::default()
    }
}

fn parse_with(text: &str, overrides: &Overrides) -> Result<(JobGraph, Vec<Warning>), String> {
    parse_job(text, "job.toml", Path::new("/job"), overrides, BUILT_IN).map_err(|error| error.to_string())
}

fn good(text: &str, overrides: &Overrides) -> JobGraph {
    parse_with(text, overrides).unwrap().0
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    refused_with(text, &overrides(), expected);
}

#[track_caller]
fn refused_with(text: &str, overrides: &Overrides, expected: &[&str]) {
    let error = parse_with(text, overrides).map(|_| ()).unwrap_err();
    assert_eq!(error.lines().collect::<Vec<_>>(), expected);
}

#[track_caller]
fn refused_around(lines: &str, expected: &[&str]) {
    refused(&around(lines), expected);
}

#[test]
fn a_good_job_has_all_its_defaults() {
    let (graph, warnings) = parse_with(GOOD, &overrides()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        (graph.name.as_str(), graph.parallelism, graph.max_parallelism),
        ("word-count", 2, 128)
    );
    assert_eq!(graph.checkpoint.interval, Some(Duration::from_secs(10)));
    assert_eq!(graph.checkpoint.timeout, Duration::from_secs(600));
    assert_eq!(graph.savepoint_dir.as_deref(), Some("/var/my savepoints"));
    let uids: Vec<&str> = graph.nodes.iter().map(|node| node.uid.as_str()).collect();
    assert_eq!(uids, ["lines", "split", "count", "out"]);
    let by: Vec<Partitioning> = graph
        .nodes
        .iter()
        .flat_map(|node| &node.inputs)
        .map(|input| input.by)
        .collect();
    assert_eq!(by, [Partitioning::Forward, Partitioning::Key, Partitioning::Forward]);
    let NodeKind::Source(source) = &graph.nodes[0].kind else {
        panic!()
    };
    let file: &FileSource = settings_of(&*source.connector);
    assert_eq!(
        (file.path.as_str(), file.watch, file.key),
        ("/job/input/*.txt", false, LineKey::None)
    );
    let NodeKind::Operator(split) = &graph.nodes[1].kind else {
        panic!()
    };
    assert_eq!(split.artifact, Artifact::Crate("/job/split".into()));
    assert_eq!(
        (split.memory_max, split.time_per_batch_max),
        (256 << 20, Duration::from_secs(5))
    );
    assert_eq!((split.host_memory_max, split.state_max), (1 << 30, None));
    let NodeKind::Operator(count) = &graph.nodes[2].kind else {
        panic!()
    };
    assert_eq!(count.artifact, Artifact::Module("/job/count.wasm".into()));
    assert_eq!(count.config, serde_json::json!({"min": 3}));
    let NodeKind::Sink(sink) = &graph.nodes[3].kind else {
        panic!()
    };
    let file: &FileSink = settings_of(&*sink.connector);
    assert_eq!(
        (file.path.as_path(), file.format),
        (Path::new("/job/out"), TextFormat::Tsv)
    );
}

#[test]
fn settings_say_what_set_them() {
    let overrides = Overrides {
        set: vec![
            "count.config.min=4".into(),
            "checkpoint.interval=1s".into(),
            "out.path=b".into(),
        ],
        parallelism: Some(3),
        environment: vec![
            ("REGRAFT_CHECKPOINT_TIMEOUT".into(), "1m".into()),
            // As scripts unset a variable.
            ("REGRAFT_CHECKPOINT_INTERVAL".into(), String::new()),
            ("REGRAFT_MAX_PARALLELISM".into(), " ".into()),
        ],
        config: Some((
            "/data/config.toml".into(),
            "max-parallelism = 64\n[checkpoint]\ndir = \"ckpt\"\n".into(),
        )),
        ..overrides()
    };
    let graph = good(GOOD, &overrides);
    let setting = |key: &str| {
        let setting = &graph.settings[key];
        (setting.value.clone(), setting.origin.word().to_owned())
    };
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(setting("count.config.min"), pair("4", "command line"));
    assert_eq!(setting("checkpoint.interval"), pair("\"1s\"", "command line"));
    assert_eq!(setting("checkpoint.timeout"), pair("\"1m\"", "environment"));
    assert_eq!(setting("checkpoint.mode"), pair("\"exactly-once\"", "default"));
    assert_eq!(setting("max-parallelism"), pair("64", "config"));
    assert_eq!(setting("count.parallelism"), pair("3", "command line"));
    assert_eq!(setting("lines.path"), pair("\"input/*.txt\"", "job file"));
    // A path is relative to where it was written.
    assert_eq!(graph.checkpoint.dir.as_deref(), Some("/data/ckpt"));
    let NodeKind::Sink(sink) = &graph.node("out").unwrap().kind else {
        panic!()
    };
    let file: &FileSink = settings_of(&*sink.connector);
    assert_eq!(file.path, Path::new("/cwd/b"));
}

#[test]
fn settings_can_be_given_as_they_are_recorded() {
    let config = r##"config = { "a b" = 1, "x=y" = { "#" = "z" } }"##;
    let text = GOOD.replace("config = { min = 3 }", config);
    let graph = good(&text, &overrides());
    let value = |key: &str| graph.settings[key].value.as_str();
    assert_eq!(value("split.inputs"), "[\"lines\"]");
    assert_eq!(value("count.inputs"), "[{ by = \"key\", from = \"split\" }]");
    assert_eq!(value("count.config.\"a b\""), "1");
    let set = graph
        .settings
        .iter()
        .map(|(key, setting)| format!("{key}={}", setting.value));
    let set = Overrides {
        set: set.collect(),
        current_dir: PathBuf::from("/job"),
        ..overrides()
    };
    let again = good(&text, &set);
    assert!(
        again
            .settings
            .values()
            .all(|setting| setting.origin == SettingOrigin::CommandLine)
    );
    let essence = |graph: &JobGraph| format!("{:?}{:?}{:?}", graph.nodes, graph.checkpoint, graph.restart);
    // A path that the command line gives does not move with the job file.
    let relative = "relative: Some((\"input/*.txt\", \"/job\"))";
    assert_eq!(essence(&again), essence(&graph).replace(relative, "relative: None"));
}

#[test]
fn a_problem_is_one_line_whatever_was_typed() {
    let set = Overrides {
        set: vec!["a\nb=3".into()],
        ..overrides()
    };
    refused_with(
        &around("\"x\\ny\" = 3\n[[operator]]\nuid = \"o\"\nmodule = \"m\"\ninputs = [\"\\n\"]"),
        &set,
        &[
            "job.toml:2: unknown key \"x\\ny\"; expected \"name\", \"max-parallelism\", \"parallelism\", \"source\", \"operator\", \"sink\", \"checkpoint\", \"savepoint\", \"state\" or \"restart\"",
            "job.toml:6: operator \"o\": inputs: nothing has the uid \"\\n\"; expected \"src\"",
            "--set a\\nb=3: expected KEY=VALUE, for example count.parallelism=2",
        ],
    );
}

#[test]
fn a_module_given_on_the_command_line_replaces_a_crate() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("count-v2")).unwrap();
    let modules = ["split=x.wasm", "count=count-v2"].map(|text| parse_module(text, dir.path()).unwrap());
    let graph = good(
        GOOD,
        &Overrides {
            modules: modules.into(),
            ..overrides()
        },
    );
    let artifact = |uid: &str| match &graph.node(uid).unwrap().kind {
        NodeKind::Operator(operator) => operator.artifact.clone(),
        _ => panic!(),
    };
    assert_eq!(artifact("split"), Artifact::Module(dir.path().join("x.wasm")));
    assert_eq!(artifact("count"), Artifact::Crate(dir.path().join("count-v2")));
    assert_eq!(
        parse_module("count", dir.path()).unwrap_err(),
        "--module count: expected UID=PATH, for example count=count.wasm"
    );
}

#[test]
fn another_connector_drops_the_settings_of_the_one_in_the_file() {
    let graph = good(
        GOOD,
        &Overrides {
            set: vec!["out.connector=blackhole".into()],
            ..overrides()
        },
    );
    let NodeKind::Sink(sink) = &graph.node("out").unwrap().kind else {
        panic!()
    };
    assert_eq!(sink.connector.name(), "blackhole");
}

#[test]
fn flink_spellings_are_understood() {
    for lines in [
        "[state.savepoints]\ndir = \"sp\"",
        "execution.checkpointing.savepoint-dir = \"sp\"",
        "\"state.savepoints.dir\" = \"sp\"",
    ] {
        assert_eq!(
            good(&around(lines), &overrides()).savepoint_dir.as_deref(),
            Some("/job/sp"),
            "{lines}"
        );
    }
    let graph = good(
        &around(""),
        &Overrides {
            set: vec!["state.savepoints.dir=sp".into()],
            ..overrides()
        },
    );
    assert_eq!(graph.savepoint_dir.as_deref(), Some("/cwd/sp"));
    refused_around(
        "s3.entropy.key = \"x\"\n[state]\nsavepoints.dir = \"a\"\n[savepoint]\ndir = \"b\"",
        &[
            "job.toml:2: s3.entropy.key has no meaning here: paths need no entropy here; remove it",
            "job.toml:4: state.savepoints.dir and savepoint.dir (at job.toml:6) are the same setting; remove one",
        ],
    );
}

#[test]
fn generators_are_read() {
    let text = r#"name = "g"
[[source]]
uid = "gen"
connector = "generator"
rate = 1000
seed = 7
rows = 18446744073709551615
fields = [
  { name = "user", type = "u64", zipf = { n = 1000, exponent = 1 } },
  { name = "n", type = "u64", sequence = 5 },
  { name = "page", type = "string", len = 8 },
]
key = "user"
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["gen"]
"#;
    let graph = good(text, &overrides());
    let NodeKind::Source(source) = &graph.nodes[0].kind else {
        panic!()
    };
    let generator: &GeneratorSource = settings_of(&*source.connector);
    assert_eq!(
        (source.rate, generator.seed, generator.splits, generator.rows),
        (Some(1000), 7, 8, Some(u64::MAX))
    );
    assert_eq!(generator.key, Some(0));
    assert_eq!(
        generator.fields[0].values,
        GeneratorValues::Zipf { n: 1000, exponent: 1.0 }
    );
    assert_eq!(generator.fields[1].values, GeneratorValues::Sequence { first: 5 });
    assert_eq!(generator.fields[2].values, GeneratorValues::Random { len: 8 });
}

#[test]
fn warnings() {
    let text =
        around("[checkpoint]\ninterval = \"off\"\n[[operator]]\nuid = \"lost\"\nmodule = \"m\"\ninputs = [\"src\"]");
    let (graph, warnings) = parse_with(&text, &overrides()).unwrap();
    assert_eq!(graph.checkpoint.interval, None);
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["job.toml:4: operator \"lost\": nothing reads its output, which is dropped; add a [[sink]] that does"]
    );
    let (_, warnings) = parse_with(
        GOOD,
        &Overrides {
            set: vec!["checkpoint.interval=off".into()],
            ..overrides()
        },
    )
    .unwrap();
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "job.toml:1: sink \"out\": checkpoint.interval is \"off\", so its output becomes visible only when the job ends; set checkpoint.interval = \"10s\""
        ]
    );
}

#[test]
fn other_parallelism_means_rebalance_unless_forward_is_asked_for() {
    let text = |by: &str| {
        format!(
            "name = \"j\"\n[[source]]\nuid = \"s\"\nconnector = \"file\"\npath = \"a\"\n[[sink]]\nuid = \"k\"\nconnector = \"print\"\nparallelism = 3\ninputs = [{{ from = \"s\"{by} }}]\n"
        )
    };
    assert_eq!(
        good(&text(""), &overrides()).nodes[1].inputs[0].by,
        Partitioning::Rebalance
    );
    refused(
        &text(", by = \"forward\""),
        &[
            "job.toml:10: sink \"k\": inputs: by = \"forward\" needs equal parallelism, found 1 at \"s\" and 3 here; make them equal, or write by = \"rebalance\"",
        ],
    );
}

#[test]
fn malformed_toml() {
    refused(
        "name = \nfoo = [1,\n[[x]\n",
        &[
            "job.toml:1: not TOML: string values must be quoted, expected literal string",
            "job.toml:3: not TOML: unclosed array, expected `]`",
            "job.toml:3: not TOML: string values must be quoted, expected literal string",
        ],
    );
}

#[test]
fn an_empty_file() {
    refused(
        "",
        &[
            "job.toml:1: the job has no name; add name = \"my-job\"",
            "job.toml:1: the job has no source; add a [[source]]",
            "job.toml:1: the job has no sink; add a [[sink]]",
        ],
    );
}

#[test]
fn unknown_keys() {
    refused_around(
        "colour = 1\nparalelism = 2\n[checkpoint]\nintervall = \"1s\"",
        &[
            "job.toml:2: unknown key \"colour\"; expected \"name\", \"max-parallelism\", \"parallelism\", \"source\", \"operator\", \"sink\", \"checkpoint\", \"savepoint\", \"state\" or \"restart\"",
            "job.toml:3: unknown key \"paralelism\"; did you mean \"parallelism\"?",
            "job.toml:5: [checkpoint]: unknown key \"intervall\"; did you mean \"interval\"?",
        ],
    );
    refused_around(
        "[[sources]]\nuid = \"a\"\n[[operator]]\nuid = \"o\"\nmodule = \"m\"\ninputs = [{ from = \"src\", prt = \"a\" }]\nlimits = { memroy = \"1GiB\" }",
        &[
            "job.toml:2: unknown key \"sources\"; did you mean \"source\"?",
            "job.toml:7: operator \"o\": inputs: unknown key \"prt\"; did you mean \"port\"?",
            "job.toml:8: operator \"o\": limits: unknown key \"memroy\"; did you mean \"memory\"?",
        ],
    );
}

#[test]
fn uids() {
    refused(
        r#"name = "j"
[[source]]
connector = "file"
path = "a"
[[source]]
uid = "s"
connector = "file"
path = "a"
[[operator]]
module = "sum.wasm"
inputs = ["s"]
[[operator]]
uid = "1x"
module = "m"
inputs = ["s"]
[[operator]]
uid = 5
module = "m"
inputs = ["s"]
[[sink]]
uid = "state"
connector = "print"
inputs = ["s"]
[[sink]]
uid = "s"
connector = "print"
inputs = ["s"]
"#,
        &[
            "job.toml:2: source #1 (connector file) has no uid; add uid = \"…\"",
            "job.toml:9: operator #1 (module sum.wasm) has no uid; add uid = \"…\"",
            "job.toml:13: operator #2: \"1x\" is not a uid: expected a letter or '_', then up to 62 letters, digits, '_' or '-'",
            "job.toml:17: operator #3: uid: expected a string, found 5; write uid = \"operator-3\"",
            "job.toml:21: sink #1: \"state\" cannot be a uid: it is reserved for a table of the job file; choose another",
            "job.toml:25: sink \"s\": the uid is taken by the source at job.toml:6; every source, operator and sink needs its own",
        ],
    );
}

#[test]
fn inputs() {
    refused(
        r#"name = "j"
[[source]]
uid = "src"
connector = "file"
path = "a"
inputs = ["x"]
[[operator]]
uid = "a"
module = "m"
[[operator]]
uid = "b"
module = "m"
inputs = []
[[operator]]
uid = "c"
module = "m"
inputs = ["scr", "nothing", 3, { by = "key" }, { from = "src", by = "hash" }, { from = "src", port = "x" }]
[[sink]]
uid = "out"
connector = "print"
inputs = ["end"]
[[sink]]
uid = "end"
connector = "print"
inputs = "a"
"#,
        &[
            "job.toml:6: source \"src\": a source has no inputs; remove the key, or make it an [[operator]]",
            "job.toml:7: operator \"a\": has no inputs; add inputs = [\"UID\"]",
            "job.toml:13: operator \"b\": inputs: expected an array with at least one input, found []; write inputs = [\"UID\"]",
            "job.toml:17: operator \"c\": inputs: expected a uid or a table with from and by, found 3; write inputs = [\"UID\"]",
            "job.toml:17: operator \"c\": inputs: has no from; add from = \"UID\"",
            "job.toml:17: operator \"c\": inputs: by: expected \"forward\", \"key\", \"rebalance\" or \"broadcast\", found \"hash\"",
            "job.toml:17: operator \"c\": inputs: nothing has the uid \"scr\"; did you mean \"src\"?",
            "job.toml:17: operator \"c\": inputs: nothing has the uid \"nothing\"; expected \"src\", \"a\" or \"b\"",
            "job.toml:17: operator \"c\": inputs: a source has one output, so \"src\" has no port \"x\"; remove port",
            "job.toml:21: sink \"out\": inputs: \"end\" is a sink, which has no output; name one of its inputs instead",
            "job.toml:25: sink \"end\": inputs: expected an array with at least one input, found \"a\"; write inputs = [\"UID\"]",
        ],
    );
}

#[test]
fn output_within_the_input() {
    let job = |glob: &str| {
        format!(
            "name = \"j\"\n[[source]]\nuid = \"src\"\nconnector = \"file\"\npath = \"{glob}\"\n[[sink]]\nuid = \"snk\"\nconnector = \"file\"\ninputs = [\"src\"]\npath = \"data/out\"\n"
        )
    };
    for glob in ["data/**/*.txt", "./data/out/*", "/job/data/*/part-*"] {
        let last = glob.rsplit('/').next().unwrap();
        let expected = format!(
            "job.toml:1: \"snk\" writes to /job/data/out, and source \"src\" reads such files there (file {last}); write to another directory, or let the source's path match fewer files"
        );
        refused(&job(glob), &[&expected]);
    }
    for glob in ["data/*.txt", "data/out/*.log", "data/out"] {
        good(&job(glob), &overrides());
    }
}

#[test]
fn a_cycle() {
    refused_around(
        "[[operator]]\nuid = \"a\"\nmodule = \"m\"\ninputs = [\"src\", \"b\"]\n[[operator]]\nuid = \"b\"\nmodule = \"m\"\ninputs = [\"c\"]\n[[operator]]\nuid = \"c\"\nmodule = \"m\"\ninputs = [\"a\"]",
        &["job.toml:2: the inputs form a cycle: a -> c -> b -> a; remove one of these inputs"],
    );
    refused_around(
        "[[operator]]\nuid = \"a\"\nmodule = \"m\"\ninputs = [\"a\"]",
        &["job.toml:2: the inputs form a cycle: a -> a; remove one of these inputs"],
    );
}

#[test]
fn parallelism() {
    refused_around(
        "parallelism = 0\nmax-parallelism = 40000",
        &[
            "job.toml:2: parallelism: expected an integer from 1 to 128 (max-parallelism), found 0; write parallelism = 1",
            "job.toml:3: max-parallelism: expected an integer from 1 to 32768, found 40000; write max-parallelism = 128",
        ],
    );
    refused_around(
        "max-parallelism = 4\n[[operator]]\nuid = \"o\"\nmodule = \"m\"\ninputs = [\"src\"]\nparallelism = 5",
        &[
            "job.toml:7: operator \"o\": parallelism: expected an integer from 1 to 4 (max-parallelism), found 5; write parallelism = 4",
        ],
    );
    refused_with(
        &around("parallelism = \"two\""),
        &Overrides {
            parallelism: Some(1000),
            ..overrides()
        },
        &[
            "-p 1000: parallelism: expected an integer from 1 to 128 (max-parallelism), found 1000; write parallelism = 128",
        ],
    );
}

#[test]
fn settings_that_come_later() {
    refused_around(
        r#"[checkpoint]
unaligned = true
dir = "s3://bucket/x"
[state]
backend = "disk"
[[operator]]
uid = "o"
module = "m"
inputs = ["src"]
imports = ["wasi:clocks"]
[[source]]
uid = "t"
connector = "file"
path = "s3://bucket/in"
compression = "gzip"
format = "json""#,
        &[
            "job.toml:3: [checkpoint]: unaligned = true is not implemented yet; remove it or set it to its default (false)",
            "job.toml:4: [checkpoint]: dir = \"s3://bucket/x\" is not implemented yet; remove it or set it to a local path",
            "job.toml:6: [state]: backend = \"disk\" is not implemented yet; remove it or set it to its default (\"memory\")",
            "job.toml:11: operator \"o\": imports = [\"wasi:clocks\"] is not implemented yet; remove it or set it to its default ([])",
            "job.toml:15: source \"t\": path = \"s3://bucket/in\" is not implemented yet; remove it or set it to a local path",
            "job.toml:16: source \"t\": compression = \"gzip\" is not implemented yet; remove it or set it to its default (\"none\")",
            "job.toml:17: source \"t\": format = \"json\" is not implemented yet; remove it or set it to its default (\"lines\")",
        ],
    );
    // The defaults themselves may be written.
    good(
        &around(
            "[checkpoint]\nunaligned = false\n[state]\nbackend = \"memory\"\n[[operator]]\nuid = \"o\"\nmodule = \"m\"\ninputs = [\"src\"]\nimports = []",
        ),
        &overrides(),
    );
}

#[test]
fn values_of_the_wrong_kind() {
    refused_around(
        r#"savepoint = 3
[checkpoint]
interval = 10
timeout = "0s"
mode = "sometimes"
dir = ""
[[operator]]
uid = "a"
inputs = ["src"]
config = 3
limits = { memory = "1KiB", time-per-batch = "soon" }
[[operator]]
uid = "b"
module = "m"
crate = "c"
inputs = ["src"]
[[source]]
uid = "c"
connector = "file"
path = "a/***"
mode = "follow"
poll = 5
key = "word"
rate = 0
[[source]]
uid = "d"
connector = "kafka"
topic = "x"
[[sink]]
uid = "e"
inputs = ["src"]
[[sink]]
uid = "f"
connector = "file"
inputs = ["src"]
format = "xml"
[[sink]]
uid = "g"
connector = "file"
inputs = ["src"]
path = "ftp://x""#,
        &[
            "job.toml:2: savepoint: expected a table, found an integer; write [savepoint]",
            "job.toml:4: [checkpoint]: interval: expected a duration above zero, or \"off\", found 10; write interval = \"10s\"",
            "job.toml:5: [checkpoint]: timeout: expected a duration above zero, found \"0s\"; write timeout = \"10m\"",
            "job.toml:6: [checkpoint]: mode: expected \"exactly-once\" or \"at-least-once\", found \"sometimes\"",
            "job.toml:7: [checkpoint]: dir: expected a string that is not empty, found \"\"; write dir = \"checkpoints\"",
            "job.toml:8: operator \"a\": has no module and no crate; add module = \"FILE.wasm\" or crate = \"DIRECTORY\"",
            "job.toml:11: operator \"a\": config: expected a table, found 3; write config = { KEY = VALUE }",
            "job.toml:12: operator \"a\": limits: time-per-batch: expected a duration above zero, found \"soon\"; write time-per-batch = \"5s\"",
            "job.toml:12: operator \"a\": limits: memory: expected a size from 64KiB to 4GiB, found \"1KiB\"; write memory = \"256MiB\"",
            "job.toml:16: operator \"b\": has both module and crate; keep one of them",
            "job.toml:21: source \"c\": path: expected a glob, found \"a/***\": wildcards are either regular `*` or recursive `**`; write [*] for a plain *",
            "job.toml:22: source \"c\": mode: expected \"bounded\" or \"watch\", found \"follow\"",
            "job.toml:23: source \"c\": poll: expected a duration above zero, found 5; write poll = \"1s\"",
            "job.toml:24: source \"c\": key: expected \"line\", found \"word\"; write key = \"line\", or leave it out",
            "job.toml:25: source \"c\": rate: expected an integer of at least 1, found 0; write rate = 1000",
            "job.toml:28: source \"d\": connector: expected \"file\" or \"generator\", found \"kafka\"",
            "job.toml:30: sink \"e\": has no connector; add connector = \"file\"",
            "job.toml:33: sink \"f\": has no path; add path = \"out\"",
            "job.toml:37: sink \"f\": format: expected \"lines\", \"tsv\", \"csv\" or \"json\", found \"xml\"",
            "job.toml:42: sink \"g\": path: expected a path or a file:// URL, found \"ftp://x\", whose scheme ftp:// is not known; write path = \"DIR\"",
        ],
    );
}

#[test]
fn generator_fields() {
    refused(
        r#"name = "g"
[[source]]
uid = "g"
connector = "generator"
splits = 0
fields = [
  { name = "k", type = "u64", len = 3 },
  { name = "z", type = "string" },
  { type = "u64", range = [3, 1] },
  { name = "q", type = "u32", zipf = { n = 0, exponent = -1.0, m = 1 }, sequence = 3 },
  { name = "t", range = [0, 1] },
  3,
]
[[source]]
uid = "h"
connector = "generator"
[[source]]
uid = "i"
connector = "generator"
key = "nope"
fields = [{ name = "a", type = "u64", sequence = 0 }]
[[source]]
uid = "j"
connector = "generator"
fields = [{ name = "a", type = "u64", sequence = 0 }, { name = "a", type = "u64", sequence = 0 }]
[[sink]]
uid = "out"
connector = "print"
inputs = ["g", "h", "i", "j"]
"#,
        &[
            "job.toml:5: source \"g\": splits: expected an integer from 1 to 32768, found 0; write splits = 8",
            "job.toml:7: source \"g\": fields \"k\": len is for strings and bytes; write range = [0, 999]",
            "job.toml:8: source \"g\": fields \"z\": says nothing of its values; expected \"range\", \"zipf\", \"sequence\" or \"len\"; add range = [0, 999]",
            "job.toml:9: source \"g\": fields: has no name; add name = \"id\"",
            "job.toml:9: source \"g\": fields: range: expected [first, last], with 0 <= first <= last, found [3, 1]; write range = [0, 999]",
            "job.toml:10: source \"g\": fields \"q\": type: expected \"u64\", \"string\" or \"bytes\", found \"u32\"",
            "job.toml:10: source \"g\": fields \"q\": has zipf and sequence; keep one of them",
            "job.toml:10: source \"g\": fields \"q\": zipf: n: expected an integer of at least 1, found 0; write n = 1000",
            "job.toml:10: source \"g\": fields \"q\": zipf: exponent: expected a number of at least 0, found -1.0; write exponent = 1.1",
            "job.toml:10: source \"g\": fields \"q\": zipf: unknown key \"m\"; did you mean \"n\"?",
            "job.toml:11: source \"g\": fields \"t\": has no type; add type = \"u64\"",
            "job.toml:12: source \"g\": fields: expected a table, found 3; write fields = [{ name = \"id\", type = \"u64\", range = [0, 999] }]",
            "job.toml:14: source \"h\": has no fields; add fields = [{ name = \"id\", type = \"u64\", range = [0, 999] }]",
            "job.toml:20: source \"i\": key: expected the name of a field, found \"nope\"; expected \"a\"",
            "job.toml:25: source \"j\": fields: two are called \"a\"; rename one",
        ],
    );
}

#[test]
fn the_command_line_has_the_same_errors() {
    let set = [
        "cuont.config.min=3",
        "count.config.min=4",
        "count.pth=x",
        "count=3",
        "foo",
        "checkpoint.interval=x",
        "checkpoint.intervl=3s",
        "out.path.x=3",
        "count.uid=z",
    ];
    let overrides = Overrides {
        set: set.map(str::to_owned).into(),
        entry: Some("other".into()),
        environment: vec![("REGRAFT_CHECKPOINT_TIMEOUT".into(), "-1".into())],
        config: Some(("/data/config.toml".into(), "[[sink]]\nuid = 'x'".into())),
        ..overrides()
    };
    refused_with(
        GOOD,
        &overrides,
        &[
            "/data/config.toml:1: sink belongs to one job; move it to the job file",
            "REGRAFT_CHECKPOINT_TIMEOUT: [checkpoint]: timeout: expected a duration above zero, found -1; write timeout = \"10m\"",
            "-c other: the file holds one job, \"word-count\"; write -c word-count, or leave -c out",
            "--set cuont.config.min=3: nothing in the job has the uid \"cuont\"; did you mean \"count\"?",
            "--set count=3: expected count.KEY=VALUE, for example count.parallelism=2",
            "--set foo: expected KEY=VALUE, for example count.parallelism=2",
            "--set out.path.x=3: \"path\" is a string, not a table, so it has no \"x\"",
            "--set count.uid=z: a uid is what state is bound to and cannot be set here; change the job file",
            "--set checkpoint.interval=x: [checkpoint]: interval: expected a duration above zero, or \"off\", found \"x\"; write interval = \"10s\"",
            "--set checkpoint.intervl=3s: [checkpoint]: unknown key \"intervl\"; did you mean \"interval\"?",
            "--set count.pth=x: operator \"count\": unknown key \"pth\"; expected \"uid\", \"parallelism\", \"inputs\", \"watermark\", \"module\", \"crate\", \"config\", \"limits\", \"on-trap\", \"on-failure\", \"dead-letter\" or \"imports\"",
        ],
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = load_job(Path::new("/nowhere/job.toml"), &overrides(), BUILT_IN)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read /nowhere/job.toml: No such file or directory (os error 2); name a job file, or make a job with `regraft new NAME`"
    );
}

#[test]
fn a_chain_has_an_end() {
    let mut text = "name = \"long\"\n[[source]]\nuid = \"o0\"\nconnector = \"file\"\npath = \"a\"\n".to_owned();
    for at in 1..=250 {
        text += &format!(
            "[[operator]]\nuid = \"o{at}\"\nmodule = \"m\"\ninputs = [\"o{}\"]\n",
            at - 1
        );
    }
    text += "[[sink]]\nuid = \"out\"\nconnector = \"print\"\ninputs = [\"o250\"]\n";
    let graph = good(&text, &overrides());
    let plan = plan::Plan::new(&graph);
    let lens: Vec<usize> = plan.chains().iter().map(|chain| chain.nodes.len()).collect();
    assert_eq!(lens, [100, 100, 52]);
}

#[test]
fn chains_and_their_picture() {
    let graph = good(GOOD, &overrides());
    let plan = plan::Plan::new(&graph);
    let chains: Vec<&[usize]> = plan.chains().iter().map(|chain| &*chain.nodes).collect();
    assert_eq!(chains, [[0, 1], [2, 3]]);
    assert_eq!(
        render::text(&graph),
        "job word-count (parallelism 2, max 128)

chain 1 x 2
  source lines (file *.txt)
  operator split (crate split)

chain 2 x 2
  operator count (module count.wasm)
    from split by key
  sink out (file out)
"
    );
    assert_eq!(
        render::mermaid(&graph),
        "flowchart LR
  subgraph chain1[\"x 2\"]
    n0([\"lines<br/>file *.txt\"])
    n1[\"split<br/>crate split\"]
  end
  subgraph chain2[\"x 2\"]
    n2[\"count<br/>module count.wasm\"]
    n3[/\"out<br/>file out\"/]
  end
  n0 -->|\"forward\"| n1
  n1 -->|\"key\"| n2
  n2 -->|\"forward\"| n3
"
    );
    assert_eq!(regions::regions(&graph), [[0, 1, 2, 3]]);
    let subtask = |chain, index| plan::SubtaskId { chain, index };
    assert_eq!(
        plan.subtasks().collect::<Vec<_>>(),
        [subtask(0, 0), subtask(0, 1), subtask(1, 0), subtask(1, 1)]
    );
    assert_eq!(plan.name(subtask(1, 1)), "count+out#1");
    assert_eq!(plan.sources(), 2);
    let count = OperatorUid::new("count").expect("a uid");
    assert_eq!(plan.subtask_of(&count, 1), Some(subtask(1, 1)));
    assert_eq!(plan.region_of_uid(&count), plan.region_of(subtask(0, 0)));
    let edge = plan::Edge {
        from: 0,
        by: job_graph::Partitioning::Key,
    };
    assert_eq!(plan.chains()[1].inputs, [edge]);
    // A second reader, a second input and another parallelism each break a chain.
    let broken = around(
        "[[operator]]\nuid = \"a\"\nmodule = \"m\"\ninputs = [\"src\"]\n[[operator]]\nuid = \"b\"\nmodule = \"m\"\ninputs = [\"a\", \"src\"]\n[[operator]]\nuid = \"c\"\nmodule = \"m\"\nparallelism = 2\ninputs = [\"b\"]",
    );
    let graph = good(&broken, &overrides());
    assert!(chaining::chains(&graph).iter().all(|chain| chain.nodes.len() == 1));
}

#[test]
fn what_records_connect_is_one_region() {
    let node = |word: &str, uid: &str, settings: &str| format!("[[{word}]]\nuid = \"{uid}\"\n{settings}\n");
    let source = |uid: &str| node("source", uid, "connector = \"file\"\npath = \"a\"");
    let sink = |uid: &str, inputs: &str| node("sink", uid, &format!("connector = \"print\"\ninputs = {inputs}"));
    let operator = |uid: &str, inputs: &str| node("operator", uid, &format!("module = \"m\"\ninputs = {inputs}"));
    let regions = |nodes: &[String]| {
        let graph = good(&format!("name = \"j\"\n{}", nodes.concat()), &overrides());
        let uids = |region: &Vec<usize>| region.iter().map(|idx| graph.nodes[*idx].uid.to_string()).collect();
        let named: Vec<Vec<String>> = regions::regions(&graph).iter().map(uids).collect();
        let all: usize = named.iter().map(Vec::len).sum();
        assert_eq!(all, graph.nodes.len(), "each node is in one region");
        named
    };
    let [a, b, c] = ["a", "b", "c"].map(source);
    let apart = [a.clone(), b.clone(), sink("x", "[\"a\"]"), sink("y", "[\"b\"]")];
    assert_eq!(regions(&apart), [["a", "x"], ["b", "y"]]);
    // Two regions that are joined late become one, with all that each was connected with before.
    let joined = [
        a.clone(),
        b.clone(),
        c.clone(),
        sink("x", "[\"a\"]"),
        sink("y", "[\"b\"]"),
        sink("z", "[\"c\"]"),
        operator("join", "[\"c\", \"a\"]"),
        sink("out", "[\"join\"]"),
    ];
    assert_eq!(
        regions(&joined),
        [vec!["a", "c", "join", "x", "z", "out"], vec!["b", "y"]]
    );
    let chained = [a, b, c, sink("x", "[\"b\", \"c\"]"), sink("y", "[\"a\", \"c\"]")];
    assert_eq!(regions(&chained), [["a", "b", "c", "x", "y"]]);
}

/// Generates texts of pieces that reach deeper into the reader than random characters do.
fn pieces() -> impl Strategy<Value = String> {
    let words: Vec<&'static str> = vec![
        "[[source]]\n",
        "[[operator]]\n",
        "[[sink]]\n",
        "[checkpoint]\n",
        "[savepoint]\n",
        "[state]\n",
        "uid",
        "inputs",
        "connector",
        "fields",
        "limits",
        "config",
        "watermark",
        "dead-letter",
        "on-trap",
        "[restart]\n",
        "strategy",
        "{ connector = \"file\", path = \"p\" }",
        "path",
        "key",
        " = ",
        "\"file\"",
        "\"generator\"",
        "\"a\"",
        "[\"a\"]",
        "{ from = \"a\", by = \"key\" }",
        "[",
        "]",
        "{",
        "}",
        "\n",
        ",",
        ".",
        "1e400",
        "-1",
        "0x",
        "\"",
        "'''",
        "#",
        "é",
        "s3://",
        "state.savepoints.dir",
        "parallelism",
    ];
    prop::collection::vec(prop::sample::select(words), 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*", set in "\\PC{0,20}") {
        let _ = parse_with(&text, &Overrides { set: vec![set.clone(), format!("a.{set}")], ..overrides() });
    }

    #[test]
    fn arbitrary_settings_never_panic(text in pieces(), set in pieces()) {
        let _ = parse_with(&text, &Overrides { set: vec![set.clone(), format!("src.{set}")], ..overrides() });
        let _ = parse_with(&around(&text), &Overrides { set: vec![set], ..overrides() });
    }
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        format!("{} = 1", ["a"; 100_000].join(".")),
        format!("a = {}", "[".repeat(100_000)),
        format!("[{}]", ["a"; 100_000].join(".")),
    ] {
        assert!(parse_with(&text, &overrides()).is_err());
    }
}
