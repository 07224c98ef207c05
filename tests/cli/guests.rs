//! Guests that fail while a job runs: the whole message, a FAILED job, and no effect left behind.

use crate::fixtures::{Expected, KEYED, PLAIN, files, hostile_world, message, refused, words_world};
use crate::support::{World, wait_until};

const BY_KEY: &str = "inputs = [{ from = \"lines\", by = \"key\" }]";

/// Returns a world with a guest that does `what` on the lines `a`, `bad`, `c`, which are their own keys.
fn world(what: &str, settings: &str) -> World {
    hostile_world(KEYED, &format!("{BY_KEY}\nconfig = {{ do = \"{what}\" }}\n{settings}"))
}

/// Runs a job until it fails, without and with `--json`.
#[track_caller]
fn check(world: &World, expected: &str) {
    let ran = world.run(&["run", "job.toml"]).exits(1);
    assert_eq!(lines_hidden(&message(world, &ran)), expected);
    assert_eq!(ran.stdout, "");
    let json = world.run(&["run", "job.toml", "--json"]).exits(1);
    let error = &json.json()["error"];
    assert_eq!(crate::fixtures::keys(error), ["kind", "message", "path", "uid"]);
    assert_eq!(
        (error["kind"].as_str(), error["uid"].as_str()),
        (Some("failed"), Some("bad"))
    );
    assert!(error["path"].is_null(), "{error}");
    assert!(
        json.stderr.contains(error["message"].as_str().expect("a message")),
        "{error}"
    );
    assert_eq!(lines_hidden(&message(world, &json)), expected);
    assert_eq!(world.committed("out"), [""; 0]);
    assert_eq!(files(&world.path().join("data/run")), [""; 0]);
}

/// Builds the message of a job that fails on a trap: the cause, then indented lines.
fn failed(cause: &str, lines: &[&str]) -> String {
    failed_by("on-trap", cause, lines)
}

/// Builds the same message for another policy.
fn failed_by(policy: &str, cause: &str, lines: &[&str]) -> String {
    let mut text = format!("job j (JOB) FAILED: operator \"bad\", subtask 0, failed in process: {cause}");
    for line in lines
        .iter()
        .chain(&[format!("policy: {policy} = \"fail\": the job fails").as_str()])
    {
        text += &format!("\n  {line}");
    }
    text
}

/// The record in the message where the guest names none and every record fails: the first one.
const FIRST: &str = "record: key \"a\", value \"a\", from DIR/in/a.txt:1";
/// The record in the message where the failure names it.
const SECOND: &str = "record: key \"bad\", value \"bad\", from DIR/in/a.txt:2";
/// Frames of the backtrace at the guest's `process`.
const PROCESS: &str = "<regraft_test_hostile::Hostile as regraft_test_hostile::exports::regraft::operator::guest::Guest>::process (ROOT/tests/guests/hostile/src/lib.rs:N)";
const EXPORT: [&str; 2] = [
    "by _export_process_cabi<regraft_test_hostile::Hostile> (ROOT/tests/guests/hostile/src/lib.rs:N)",
    "by regraft:operator/guest@0.2.0#process (ROOT/tests/guests/hostile/src/lib.rs:N)",
];

/// Replaces line numbers of source files, which change with every edit, by `N`.
fn lines_hidden(text: &str) -> String {
    let mut parts = text.split(".rs:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = rest
            .strip_prefix(':')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            .map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        out += ".rs:N";
        out += rest;
    }
    out
}

#[test]
fn a_trap() {
    let lines = [FIRST, &format!("at {PROCESS}"), EXPORT[0], EXPORT[1]];
    check(
        &world("trap", ""),
        &failed("the module trapped: wasm `unreachable` instruction executed", &lines),
    );
}

#[test]
fn a_panic_shows_the_record_and_where_it_was() {
    let own = "at panic_at_bad_value (ROOT/tests/guests/hostile/src/lib.rs:N)";
    let lines = [SECOND, own, &format!("by {PROCESS}"), EXPORT[0], EXPORT[1]];
    let cause = "the module panicked at tests/guests/hostile/src/lib.rs:N: cannot parse \"bad\"";
    let world = world("panic", "");
    check(&world, &failed(cause, &lines));
    // The backtrace has line numbers: the first is that of the assertion.
    let source = std::fs::read_to_string(crate::support::root().join("tests/guests/hostile/src/lib.rs")).expect("read");
    let line = 1 + source
        .lines()
        .position(|line| line.contains("cannot parse"))
        .expect("the assertion");
    let text = message(&world, &world.run(&["run", "job.toml"]).exits(1));
    assert!(
        text.contains(&format!("panicked at tests/guests/hostile/src/lib.rs:{line}:")),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "at panic_at_bad_value (ROOT/tests/guests/hostile/src/lib.rs:{line})"
        )),
        "{text}"
    );
}

#[test]
fn an_endless_loop() {
    let own = "by endless (ROOT/tests/guests/hostile/src/lib.rs:N)";
    let lines = [
        FIRST,
        "at black_box<u64> (core/src/hint.rs:N)",
        own,
        &format!("by {PROCESS}"),
        EXPORT[0],
        EXPORT[1],
    ];
    let cause =
        "the module computed for more than 300ms in one call; raise `limits.time-per-batch` if it needs that long";
    let world = world("loop", "limits = { time-per-batch = \"300ms\" }");
    let ran = world.run(&["run", "job.toml"]).exits(1);
    // The loop is interrupted at any point in it.
    let text = lines_hidden(&message(&world, &ran)).replace("at endless (", "by endless (");
    let expected = failed(cause, &lines);
    let without = expected.replace("  at black_box<u64> (core/src/hint.rs:N)\n", "");
    assert!(text == expected || text == without, "{text}");
    assert_eq!(world.committed("out"), [""; 0]);
    assert_eq!(files(&world.path().join("data/run")), [""; 0]);
}

#[test]
fn memory_without_bound() {
    let own = "at regraft_test_hostile::grow (ROOT/tests/guests/hostile/src/lib.rs:N)";
    let lines = [FIRST, own, &format!("by {PROCESS}"), EXPORT[0], EXPORT[1]];
    let cause = "the module ran out of memory: it asked for 16.1 MiB, and the limit is 16 MiB; raise `limits.memory` if it needs that much";
    check(
        &world("grow", "limits = { memory = \"16MiB\" }"),
        &failed(cause, &lines),
    );
}

#[test]
fn a_recursion_without_end() {
    let world = world("stack", "");
    let ran = world.run(&["run", "job.toml"]).exits(1);
    let text = lines_hidden(&message(&world, &ran));
    let cause = "the module's stack overflowed: a function calls itself without end, or too deep";
    assert!(
        text.starts_with(failed(cause, &[FIRST]).lines().next().expect("a line")),
        "{text}"
    );
    assert!(
        text.contains("regraft_test_hostile::deep (ROOT/tests/guests/hostile/src/lib.rs:N)"),
        "{text}"
    );
    // The backtrace is bounded.
    assert!(text.lines().count() < 30, "{text}");
}

#[test]
fn a_length_that_lies() {
    let cause =
        "the module returned a wrong outcome: outputs[0].value-ends has 2 entries: expected 1, as many as parents";
    check(&world("lie-length", ""), &failed(cause, &[FIRST]));
}

#[test]
fn an_offset_that_lies() {
    let cause =
        "the module returned a wrong outcome: outputs[0].value-ends has 3 entries: expected 1, as many as parents";
    check(&world("lie-ends", ""), &failed(cause, &[FIRST]));
}

#[test]
fn a_parent_that_is_none() {
    let cause =
        "the module returned a wrong outcome: outputs[0].parents[0] is 1: expected less than 1 (1 rows of the call)";
    check(&world("lie-parents", ""), &failed(cause, &[FIRST]));
}

#[test]
fn a_state_of_no_key() {
    let cause = "the module returned a wrong outcome: cells[0].keys[1] is 99: expected less than 1 (1 keys)";
    check(&world("lie-cells", ""), &failed(cause, &[FIRST]));
}

#[test]
fn an_outcome_larger_than_the_memory() {
    let cause = "the module returned a wrong outcome: it is larger than the instance's whole memory may be (32 MiB)";
    check(
        &world("lie-large", "limits = { memory = \"32MiB\" }"),
        &failed(cause, &[FIRST]),
    );
}

#[test]
fn a_failure_that_the_guest_declares() {
    check(
        &world("fail", ""),
        &failed_by("on-failure", "not a number: \"x\"", &[SECOND]),
    );
}

#[test]
fn a_record_is_shown_cut_at_200_bytes() {
    let world = world("fail", "");
    let long = "0123456789".repeat(30);
    world.write("in/a.txt", &format!("a\n{long}\nc\n"));
    let cut = format!("\"{}\"… (300 bytes)", "0123456789".repeat(20));
    let record = format!("record: key {cut}, value {cut}, from DIR/in/a.txt:2");
    check(&world, &failed_by("on-failure", "not a number: \"x\"", &[&record]));
}

#[test]
fn a_record_that_is_no_text() {
    let world = world("fail", "");
    std::fs::write(world.path().join("in/a.txt"), b"a\n\xff\x00\n").expect("written");
    let record = "record: key 0xff00, value 0xff00, from DIR/in/a.txt:2";
    check(&world, &failed_by("on-failure", "not a number: \"x\"", &[record]));
}

#[test]
fn an_open_that_refuses() {
    check(
        &world("refuse", ""),
        "operator \"bad\", subtask 0, failed in open: refused with []",
    );
}

#[test]
fn an_open_that_traps() {
    let at = "open (ROOT/tests/guests/hostile/src/lib.rs:N)";
    let world = world("trap-in-open", "");
    let text = lines_hidden(&message(&world, &world.run(&["run", "job.toml"]).exits(1)));
    let first =
        "operator \"bad\", subtask 0, failed in open: the module trapped: wasm `unreachable` instruction executed";
    assert_eq!(text.lines().next(), Some(first));
    assert_eq!(text.lines().nth(1), Some(format!("  at {at}").as_str()), "{text}");
}

#[test]
fn a_config_that_the_example_does_not_know() {
    let world = words_world();
    world.write("in/a.txt", "a b a\n");
    let args = ["run", "job.toml", "--set", "count.config.emit=sometimes"];
    let message = "operator \"count\", subtask 0, failed in open: config {\"emit\":\"sometimes\"}: unknown variant \
                   `sometimes`, expected `update` or `final`";
    refused(
        &world,
        &args,
        &Expected {
            status: 1,
            kind: "failed",
            message,
            uid: Some("count"),
            path: None,
        },
    );
    assert_eq!(files(&world.path().join("data/run")), [""; 0]);
}

#[test]
fn what_came_before_the_failure_is_not_committed_either() {
    // No checkpoint was completed in between. A batch of several files has no known position.
    let world = world("panic", "");
    world.write("in/a.txt", "fine\n");
    world.write("in/b.txt", "bad\n");
    let ran = world.run(&["run", "job.toml"]).exits(1);
    assert!(
        message(&world, &ran).contains("\n  record: key \"bad\", value \"bad\""),
        "{}",
        ran.stderr
    );
    assert_eq!(world.committed("out"), [""; 0]);
}

#[test]
fn dead_letters_are_counted_and_have_a_directory_of_their_own() {
    let settings = "inputs = [\"lines\"]\nconfig = { do = \"panic\" }\non-trap = \"dead-letter\"\ndead-letter = { connector = \"file\", path = \"rejects\" }";
    let world = hostile_world(PLAIN, settings);
    let set = "lines.mode=watch";
    let job = world.start(&["job.toml", "--set", set]);
    wait_until("a dead letter", || {
        world
            .run(&["info", "j"])
            .exits(0)
            .stdout
            .contains("\nrecords      3 in, 2 out, 1 dead letter(s); ")
    });
    // Another job is refused the same directory.
    let more = [
        "run",
        "job.toml",
        "--set",
        set,
        "--name",
        "k",
        "--set",
        "out.path=other",
    ];
    let refused = world.run(&more).exits(1);
    let message = format!(
        "error: operator \"bad\" writes dead letters to DIR/rejects, where job \"j\" ({}) writes already; write elsewhere (--set bad.dead-letter.path=…), or allow it with --allow-shared-output\n",
        job.job_id
    );
    assert_eq!(
        refused.stderr.replace(&world.path().display().to_string(), "DIR"),
        message
    );
    world.run(&["stop", "j", "--savepoint-path=sp"]).exits(0);
    let ran = job.end().exits(0);
    assert!(
        ran.stderr
            .contains(" finished: 3 records in, 2 out, 1 dead letter(s), in "),
        "{}",
        ran.stderr
    );
}

/// An output and a state whose items have no bytes.
const EMPTY_ITEMS: &str = concat!(
    r#"{"wit":"0.2.0","sdk":"none","calls":[],"key":{"name":"key","type":"string"},"#,
    r#""states":[{"name":"count","kind":"value","schema":{"list":"unit"},"travels":true}],"#,
    r#""inputs":[{"name":"in","key":null,"value":"bytes"}],"outputs":[{"name":"out","key":null,"#,
    r#""value":{"record":{"name":"R","fields":[{"name":"f","type":{"list":"unit"}}]}}}]}"#
);

#[test]
fn values_of_few_bytes_and_many_parts() {
    for (greed, of) in [
        ("parts", "outputs[0].values[0], of port \"out\""),
        ("cell", "cells[0].values[0], of state \"count\""),
    ] {
        let world = hostile_world(EMPTY_ITEMS, &format!("{BY_KEY}\nconfig = {{ do = \"greed-{greed}\" }}"));
        let job = world.path().join("job.toml");
        let text = std::fs::read_to_string(&job).expect("a job");
        world.write(
            "job.toml",
            &text.replace("path = \"out\"", "path = \"out\"\nformat = \"json\""),
        );
        let many = "the value of 3 bytes has more than 268 parts: expected at most 256 and 4 for each byte, and never more than 16777216 (an item that is encoded as no bytes is a part too: keep the number of such items instead)";
        check(
            &world,
            &failed(&format!("the module returned a wrong outcome: {of}: {many}"), &[FIRST]),
        );
    }
}
