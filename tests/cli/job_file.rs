//! Wrong job files: every problem is reported at once with its line, and nothing runs.

use crate::fixtures::{Expected, files, refused};
use crate::support::World;

/// Checks that `validate` and `run` refuse a job file with this message.
#[track_caller]
fn check(job: &str, uid: Option<&str>, message: &str) {
    check_args(job, &[], uid, message);
}

#[track_caller]
fn check_args(job: &str, args: &[&str], uid: Option<&str>, message: &str) {
    let world = World::new();
    world.write("job.toml", job);
    let in_file = message.lines().all(|line| line.starts_with("job.toml:"));
    let expected = Expected {
        status: 2,
        kind: "usage",
        message,
        uid,
        path: in_file.then_some("job.toml"),
    };
    for verb in ["validate", "run"] {
        let mut all = vec![verb, "job.toml"];
        all.extend_from_slice(args);
        refused(&world, &all, &expected);
    }
    assert_eq!(files(world.path()), ["job.toml"], "nothing has been made");
}

const GOOD: &str = r#"name = "j"
[[source]]
uid = "lines"
connector = "file"
path = "in"
[[operator]]
uid = "count"
module = "count.wasm"
inputs = [{ from = "lines", by = "key" }]
[[sink]]
uid = "out"
connector = "print"
inputs = ["count"]
"#;

#[test]
fn malformed_toml() {
    check(
        "name = \"j\"\nparallelism = \n[[source]\n",
        None,
        "job.toml:2: not TOML: string values must be quoted, expected literal string\njob.toml:3: not TOML: unclosed array table, expected `]`",
    );
}

#[test]
fn unknown_key() {
    check(
        &GOOD.replace("path = ", "pth = "),
        Some("lines"),
        "job.toml:2: source \"lines\": has no path; add path = \"input/*.txt\"\njob.toml:5: source \"lines\": unknown key \"pth\"; did you mean \"path\"?",
    );
}

#[test]
fn several_problems_at_once() {
    let job = GOOD
        .replace("name = \"j\"", "colour = 1")
        .replace("\"print\"", "\"prnt\"");
    let job = job.replace("module = \"count.wasm\"\n", "");
    let problems = [
        "job.toml:1: the job has no name; add name = \"my-job\"",
        "job.toml:1: unknown key \"colour\"; expected \"name\", \"max-parallelism\", \"parallelism\", \"source\", \
         \"operator\", \"sink\", \"checkpoint\", \"savepoint\", \"state\" or \"restart\"",
        "job.toml:6: operator \"count\": has no module and no crate; add module = \"FILE.wasm\" or crate = \"DIRECTORY\"",
        "job.toml:11: sink \"out\": connector: expected \"file\", \"print\" or \"blackhole\", found \"prnt\"; write \
         connector = \"print\"",
    ];
    check(&job, None, &problems.join("\n"));
}

#[test]
fn duplicate_uid() {
    check(
        &GOOD.replace("uid = \"out\"", "uid = \"lines\""),
        Some("lines"),
        "job.toml:11: sink \"lines\": the uid is taken by the source at job.toml:3; every source, operator and sink needs its own",
    );
}

#[test]
fn missing_uid() {
    let job = GOOD.replace("uid = \"out\"\n", "");
    check(
        &job,
        None,
        "job.toml:10: sink #1 (connector print) has no uid; add uid = \"…\"",
    );
}

#[test]
fn unknown_input() {
    check(
        &GOOD.replace("inputs = [\"count\"]", "inputs = [\"cuont\"]"),
        Some("out"),
        "job.toml:13: sink \"out\": inputs: nothing has the uid \"cuont\"; did you mean \"count\"?",
    );
}

#[test]
fn cycle() {
    let two = "[[operator]]\nuid = \"again\"\nmodule = \"m\"\ninputs = [\"count\"]\n[[sink]]";
    let job = GOOD
        .replace("[[sink]]", two)
        .replace("from = \"lines\"", "from = \"again\"");
    check(
        &job,
        Some("count"),
        "job.toml:6: the inputs form a cycle: count -> again -> count; remove one of these inputs",
    );
}

#[test]
fn parallelism_above_max() {
    let job = GOOD.replace("name = \"j\"", "name = \"j\"\nmax-parallelism = 4\nparallelism = 5");
    check(
        &job,
        None,
        "job.toml:3: parallelism: expected an integer from 1 to 4 (max-parallelism), found 5; write parallelism = 4",
    );
    let job = GOOD.replace("uid = \"count\"", "uid = \"count\"\nparallelism = 129");
    check(
        &job,
        Some("count"),
        "job.toml:8: operator \"count\": parallelism: expected an integer from 1 to 128 (max-parallelism), found 129; write parallelism = 128",
    );
    check_args(
        GOOD,
        &["-p", "200"],
        None,
        "-p 200: parallelism: expected an integer from 1 to 128 (max-parallelism), found 200; write parallelism = 128",
    );
}

#[test]
fn settings_that_are_not_implemented_yet() {
    let more = "name = \"j\"\n[checkpoint]\nunaligned = true\n[state]\nbackend = \"disk\"";
    let job = GOOD
        .replace("name = \"j\"", more)
        .replace("uid = \"count\"", "uid = \"count\"\nimports = [\"wasi:clocks\"]");
    check(
        &job,
        None,
        "job.toml:3: [checkpoint]: unaligned = true is not implemented yet; remove it or set it to its default (false)\njob.toml:5: [state]: backend = \"disk\" is not implemented yet; remove it or set it to its default (\"memory\")\njob.toml:12: operator \"count\": imports = [\"wasi:clocks\"] is not implemented yet; remove it or set it to its default ([])",
    );
}

#[test]
fn settings_of_failures() {
    let more = "name = \"j\"\n[checkpoint]\nretain = 0\non-cancel = \"keep\"\n[restart]\nstrategy = \"fixed-delay\"\ndelai = \"1s\"";
    let job = GOOD
        .replace("name = \"j\"", more)
        .replace("uid = \"count\"", "uid = \"count\"\non-trap = \"dead-letter\"");
    check(
        &job,
        None,
        "job.toml:3: [checkpoint]: retain: expected an integer from 1 to 4294967295, found 0; write retain = 1\njob.toml:4: [checkpoint]: on-cancel: expected \"delete\" or \"retain\", found \"keep\"\njob.toml:7: [restart]: unknown key \"delai\"; did you mean \"delay\"?\njob.toml:14: operator \"count\": on-trap = \"dead-letter\" needs to know where dead letters go; add dead-letter = { connector = \"file\", path = \"rejects\" }",
    );
    check_args(
        GOOD,
        &[
            "--set",
            "lines.watermark.idlenes=1s",
            "--set",
            "restart.jitter-factor=2",
        ],
        None,
        "--set restart.jitter-factor=2: [restart]: jitter-factor: expected a number from 0 to 1, found 2; write jitter-factor = 0.1\n--set lines.watermark.idlenes=1s: source \"lines\": watermark: unknown key \"idlenes\"; did you mean \"idleness\"?",
    );
}

#[test]
fn a_setting_that_is_not_there() {
    check_args(
        GOOD,
        &["--set", "coutn.parallelism=2", "--set", "lines.pth=x"],
        None,
        "--set coutn.parallelism=2: nothing in the job has the uid \"coutn\"; did you mean \"count\"?\n--set lines.pth=x: source \"lines\": unknown key \"pth\"; did you mean \"path\"?",
    );
}

#[test]
fn no_job_file() {
    let world = World::new();
    let message = "cannot read job.toml: No such file or directory (os error 2); name a job file, or make a job with `regraft new NAME`";
    let expected = Expected {
        status: 2,
        kind: "usage",
        message,
        uid: None,
        path: Some("job.toml"),
    };
    for args in [
        &["run"][..],
        &["run", "job.toml"],
        &["validate"],
        &["graph"],
        &["build"],
    ] {
        refused(&world, args, &expected);
    }
}

#[test]
fn with_json_each_problem_stands_for_itself() {
    let world = World::new();
    let job = GOOD.replace("\"print\"", "\"prnt\"").replace("path = ", "pth = ");
    world.write("job.toml", &job);
    for verb in ["validate", "run"] {
        let error = world.run(&[verb, "--json"]).exits(2).json()["error"].clone();
        let problems = error["problems"].as_array().expect("problems").clone();
        let uids: Vec<_> = problems.iter().map(|problem| problem["uid"].as_str()).collect();
        assert_eq!(uids, [Some("lines"), Some("lines"), Some("out")], "{error}");
        let all: Vec<_> = problems
            .iter()
            .map(|problem| problem["message"].as_str().expect("a text"))
            .collect();
        assert_eq!(error["message"].as_str(), Some(all.join("\n").as_str()));
        assert!(
            problems
                .iter()
                .all(|problem| problem["path"] == "job.toml" && problem["kind"] == "usage")
        );
    }
    // One problem is the error itself.
    world.write("one.toml", &GOOD.replace("\"print\"", "\"prnt\""));
    let error = world.run(&["validate", "one.toml", "--json"]).exits(2).json()["error"].clone();
    assert!(error["problems"].is_null() && error["uid"] == "out", "{error}");
}

#[test]
fn one_of_several_jobs() {
    let nodes = GOOD.trim_start_matches("name = \"j\"\n").replace("[[", "[[job.");
    let world = World::new();
    world.write("in/a", "a\n");
    let nodes = nodes.replace("path = \"in\"", "path = \"in/*\"");
    let (start, end) = (
        nodes.find("[[job.operator]]").expect("it"),
        nodes.find("[[job.sink]]").expect("it"),
    );
    let nodes = format!("{}{}", &nodes[..start], nodes[end..].replace("\"count\"", "\"lines\""));
    world.write(
        "job.toml",
        &format!("[[job]]\nname = \"a\"\n{nodes}[[job]]\nname = \"b\"\n{nodes}"),
    );
    let ran = world.run(&["run", "-c", "b", "--json"]).exits(0);
    assert_eq!(ran.json()["name"], "b");
    let expected = "error: job.toml:1: the file holds the jobs \"a\" and \"b\"; choose one with -c a\n";
    assert_eq!(world.run(&["run"]).exits(2).stderr, expected);
    let unknown = world.run(&["validate", "-c", "nightly"]).exits(2).stderr;
    assert_eq!(unknown, "error: -c nightly: the file holds the jobs \"a\" and \"b\"\n");
}
