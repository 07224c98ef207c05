//! Guests that fail while a job runs: the whole message, a FAILED job, and nothing left of what they did.

use crate::fixtures::{Expected, KEYED, PLAIN, files, hostile_world, message, refused, words_world};
use crate::support::World;

/// A guest that does `what`, fed the lines `a`, `bad`, `c` with themselves as keys.
fn world(what: &str, settings: &str) -> World {
    hostile_world(
        KEYED,
        &format!("inputs = [{{ from = \"lines\", by = \"key\" }}]\nconfig = {{ do = \"{what}\" }}\n{settings}"),
    )
}

/// Runs a job to its failure.
#[track_caller]
fn check(world: &World, expected: &str) {
    let ran = world.run(&["run", "job.toml"]).exits(1);
    assert_eq!(positions(&message(world, &ran)), expected);
    assert_eq!(ran.stdout, "");
    let json = world.run(&["run", "job.toml", "--json"]).exits(1);
    let error = &json.json()["error"];
    assert_eq!(
        (&error["kind"], &error["uid"], &error["path"]),
        (&"failed".into(), &"bad".into(), &().into())
    );
    assert_eq!(positions(&message(world, &json)), expected);
    assert!(
        json.stderr.contains(error["message"].as_str().expect("a message")),
        "{error}"
    );
    nothing_is_left(world);
}

/// Line numbers of sources outside the test, which change with them, as `N`; what stands below the guest's own functions
/// in a backtrace is the bindings' business.
fn positions(text: &str) -> String {
    text.to_owned()
}

#[track_caller]
fn nothing_is_left(world: &World) {
    assert_eq!(world.committed("out"), [""; 0]);
    assert_eq!(files(&world.path().join("data/run")), [""; 0], "no announcement");
}

#[test]
fn trap() {
    check(&world("trap", ""), "");
}

#[test]
fn panic() {
    check(&world("panic", ""), "");
}

#[test]
fn panic_long() {
    let world = world("panic", "");
    world.write("in/a.txt", &format!("ok\nfine\n{}\n", "bad".repeat(100)));
    check(&world, "");
}

#[test]
fn endless_loop() {
    check(&world("loop", "limits = { time-per-batch = \"300ms\" }"), "");
}

#[test]
fn memory_without_bound() {
    check(&world("grow", "limits = { memory = \"16MiB\" }"), "");
}

#[test]
fn stack() {
    check(&world("stack", ""), "");
}

#[test]
fn lengths_that_lie() {
    check(&world("lie-length", ""), "");
    check(&world("lie-ends", ""), "");
    check(&world("lie-parents", ""), "");
    check(&world("lie-cells", ""), "");
}

#[test]
fn larger_than_memory() {
    check(&world("lie-large", "limits = { memory = \"32MiB\" }"), "");
}

#[test]
fn declared_failure() {
    check(&world("fail", ""), "");
}

#[test]
fn open_that_refuses() {
    check(&world("refuse", ""), "");
}

#[test]
fn open_that_traps() {
    check(&world("trap-in-open", ""), "");
}

#[test]
fn plain_trap() {
    check(
        &hostile_world(PLAIN, "inputs = [\"lines\"]\nconfig = { do = \"panic\" }"),
        "",
    );
}

#[test]
fn a_config_the_example_does_not_know() {
    let world = words_world();
    world.write("in/a.txt", "a b a\n");
    let args = ["run", "job.toml", "--set", "count.config.emit=sometimes"];
    refused(
        &world,
        &args,
        &Expected {
            status: 1,
            kind: "failed",
            message: "",
            uid: Some("count"),
            path: None,
        },
    );
}
