//! Job files that are wrong: every problem at once, each with its line, and nothing runs.

use crate::fixtures::{Expected, files, refused};
use crate::support::World;

/// Checks what a job file is refused with, by `validate` and by `run`.
#[track_caller]
fn check(job: &str, uid: Option<&str>, message: &str) {
    check_args(job, &[], uid, message);
}

#[track_caller]
fn check_args(job: &str, args: &[&str], uid: Option<&str>, message: &str) {
    let world = World::new();
    world.write("job.toml", job);
    let expected = Expected {
        status: 2,
        kind: "usage",
        message,
        uid,
        path: None,
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
    check("name = \"j\"\nparallelism = \n[[source]\n", None, "");
}

#[test]
fn unknown_key() {
    check(&GOOD.replace("path = ", "pth = "), Some("lines"), "");
}

#[test]
fn several_problems_at_once() {
    let job = GOOD
        .replace("name = \"j\"", "colour = 1")
        .replace("\"print\"", "\"prnt\"")
        .replace("module = \"count.wasm\"\n", "");
    check(&job, None, "");
}

#[test]
fn duplicate_uid() {
    check(&GOOD.replace("uid = \"out\"", "uid = \"lines\""), Some("lines"), "");
}

#[test]
fn missing_uid() {
    check(&GOOD.replace("uid = \"out\"\n", ""), None, "");
}

#[test]
fn unknown_input() {
    check(
        &GOOD.replace("inputs = [\"count\"]", "inputs = [\"cuont\"]"),
        Some("out"),
        "",
    );
}

#[test]
fn cycle() {
    let two = "[[operator]]\nuid = \"again\"\nmodule = \"m\"\ninputs = [\"count\"]\n[[sink]]";
    let job = GOOD
        .replace("[[sink]]", two)
        .replace("from = \"lines\"", "from = \"again\"");
    check(&job, Some("count"), "");
}

#[test]
fn parallelism_above_max() {
    let job = GOOD.replace("name = \"j\"", "name = \"j\"\nmax-parallelism = 4\nparallelism = 5");
    check(&job, None, "");
    let job = GOOD.replace("uid = \"count\"", "uid = \"count\"\nparallelism = 129");
    check(&job, Some("count"), "");
    check_args(GOOD, &["-p", "200"], None, "");
}

#[test]
fn settings_that_are_not_implemented_yet() {
    let more = "name = \"j\"\n[checkpoint]\nunaligned = true\n[state]\nbackend = \"disk\"";
    let job = GOOD
        .replace("name = \"j\"", more)
        .replace("uid = \"count\"", "uid = \"count\"\non-trap = \"dead-letter\"");
    check(&job, None, "");
}

#[test]
fn a_setting_that_is_not_there() {
    check_args(
        GOOD,
        &["--set", "coutn.parallelism=2", "--set", "lines.pth=x"],
        None,
        "",
    );
}

#[test]
fn no_job_file() {
    let world = World::new();
    let message = "cannot read job.toml: No such file or directory (os error 2)";
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
