//! A job goes on at another parallelism, with the totals of an uninterrupted run.

use std::collections::BTreeSet;

use crate::setup::{blackhole, component, info, parquet_rows, savepoint, show, stop, text};
use crate::support::{Attached, World, wait_until};

const ROWS: u64 = 200_000;
const RATE: &str = "events.rate=50000";
const NO_RATE: &str = "events.rate=100000000";

fn rolling_job() -> String {
    format!(
        r#"name = "rolling"
[checkpoint]
interval = "200ms"
[savepoint]
dir = "savepoints"
[[source]]
uid = "events"
connector = "generator"
rate = 50000
seed = 3
rows = {ROWS}
key = "id"
fields = [{{ name = "id", type = "u64", range = [0, 4999] }}, {{ name = "payload", type = "bytes", len = 32 }}]
[[operator]]
uid = "count"
module = {module:?}
inputs = [{{ from = "events", by = "key" }}]
config = {{ emit = "final" }}
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#,
        module = component("rolling"),
    )
}

/// Waits until this run has read this many records.
fn reads(world: &World, job: &Attached, records: u64) {
    wait_until("records", || {
        info(world, &job.job_id)["records_in"]
            .as_u64()
            .is_some_and(|n| n >= records)
    });
}

/// Returns key, count and sum of every key.
fn state(world: &World, savepoint: &str) -> BTreeSet<String> {
    let shown = show(world, savepoint);
    let rows = parquet_rows(&shown, "count");
    let set: BTreeSet<String> = rows.iter().map(|row| format!("{row:?}")).collect();
    assert_eq!(set.len(), rows.len(), "a key is there once");
    set
}

#[test]
fn totals_are_those_of_an_uninterrupted_run() {
    let world = World::new();
    world.write("job.toml", &rolling_job());
    let whole = blackhole(&world.run(&["run", "job.toml", "--set", NO_RATE]).exits(0));
    assert!(whole.starts_with("blackhole out: records=5000 checksum="), "{whole}");
    let whole_state = world
        .run(&[
            "run",
            "job.toml",
            "--set",
            NO_RATE,
            "--savepoint-at-end",
            "whole",
            "--json",
        ])
        .exits(0);
    let whole_state = state(&world, &text(&whole_state.json()["savepoint"]));

    let one = world.start(&["job.toml", "-p", "1", "--set", RATE]);
    reads(&world, &one, 20_000);
    savepoint(&world, "rolling");
    let (one, ran) = stop(&world, one);
    assert_eq!(blackhole(&ran), "blackhole out: records=0 checksum=0000000000000000");

    // From a stop at parallelism 1 to 2; then from a savepoint, after which the run went on.
    let two = world.start(&["-s", &one, "job.toml", "-p", "2", "--set", RATE]);
    assert_eq!(info(&world, &two.job_id)["parallelism"], 2);
    reads(&world, &two, 20_000);
    let saved = savepoint(&world, "rolling");
    reads(&world, &two, 30_000);
    world.run(&["cancel", "rolling"]).exits(0);
    two.end().exits(1);

    let three = world.start(&["-s", &saved, "job.toml", "-p", "3", "--set", RATE]);
    reads(&world, &three, 20_000);
    let (three, _) = stop(&world, three);
    let again = world
        .run(&["run", "-s", &three, "job.toml", "-p", "1", "--set", NO_RATE])
        .exits(0);
    assert_eq!(blackhole(&again), whole);

    // The state is checked too, not just the results drawn from it, at a parallelism above the number of splits.
    let args = [
        "run",
        "-s",
        &three,
        "job.toml",
        "-p",
        "11",
        "--set",
        NO_RATE,
        "--savepoint-at-end",
        "again",
        "--json",
    ];
    let again_state = text(&world.run(&args).exits(0).json()["savepoint"]);
    assert_eq!(state(&world, &again_state), whole_state);
    let last = world.run(&["run", "-s", &again_state, "job.toml", "-p", "2"]).exits(0);
    assert_eq!(blackhole(&last), whole, "a savepoint at the end has drawn nothing yet");
}
