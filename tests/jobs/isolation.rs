//! Guests that fail on some records: what happens to these records, to the others, and to the job.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::setup::{component, info, stop, text};
use crate::support::{Ran, World, wait_until};

const SPLITS: u64 = 8;

/// A job of numbers with a few keys: numbers → picky → counts. Every `every`th number makes `picky` fail.
fn picky_job(rows: Option<u64>, how: &str, every: u64, settings: &str) -> String {
    format!(
        r#"name = "picky"
[checkpoint]
interval = "off"
[savepoint]
dir = "savepoints"
[[source]]
uid = "numbers"
connector = "generator"
seed = 3
splits = {SPLITS}
{rows}
key = "user"
fields = [{{ name = "user", type = "u64", range = [0, 9] }}, {{ name = "n", type = "u64", sequence = 0 }}]
[[operator]]
uid = "picky"
module = {picky:?}
inputs = [{{ from = "numbers", by = "key" }}]
config = {{ how = "{how}", every = {every} }}
{settings}
[[sink]]
uid = "counts"
connector = "file"
path = "out"
format = "tsv"
inputs = ["picky"]
"#,
        rows = rows.map_or_else(|| "rate = 20000".to_owned(), |rows| format!("rows = {rows}")),
        picky = component("picky"),
    )
}

const REJECTS: &str = "dead-letter = { connector = \"file\", path = \"rejects\" }";

/// Returns the committed dead letters, by the number that failed.
#[track_caller]
fn rejects(world: &World) -> BTreeMap<u64, Value> {
    let mut rejects = BTreeMap::new();
    for line in world.committed("rejects") {
        let letter: Value = serde_json::from_str(&line).expect("a line of JSON");
        let n = letter["value"]["n"].as_u64().expect("the record's value");
        assert!(rejects.insert(n, letter).is_none(), "{n} is there twice");
    }
    rejects
}

/// Returns the sum of all counts.
fn counted(world: &World) -> u64 {
    let count = |line: &String| {
        line.split_once('\t')
            .expect("two columns")
            .1
            .parse::<u64>()
            .expect("a count")
    };
    world.committed("out").iter().map(count).sum()
}

fn too_many(rows: u64, every: u64) -> BTreeSet<u64> {
    (0..rows).filter(|n| n % every == every - 1).collect()
}

#[test]
fn the_record_that_panics_is_among_the_dead_letters_and_all_others_are_counted() {
    let (rows, every) = (200_000, 50_000);
    let world = World::new();
    let settings = format!("on-trap = \"dead-letter\"\non-failure = \"fail\"\n{REJECTS}");
    world.write("job.toml", &picky_job(Some(rows), "panic", every, &settings));
    let ran = world.run(&["run", "job.toml", "-p", "2"]).exits(0);
    assert!(ran.stderr.contains("WARN operator \"picky\""), "{}", ran.stderr);
    let rejects = rejects(&world);
    assert_eq!(
        rejects.keys().copied().collect::<BTreeSet<u64>>(),
        too_many(rows, every)
    );
    for (n, letter) in &rejects {
        // Split s of 8 has the numbers s, s + 8, s + 16, …
        let position = format!("{:05}:{}", n % SPLITS, n / SPLITS);
        let error = text(&letter["error"]);
        assert!(
            error.starts_with("the module panicked at tests/guests/picky/src/lib.rs:"),
            "{error}"
        );
        assert!(error.ends_with(&format!(": record {n} is one too many")), "{error}");
        let key = &letter["key"];
        assert!(key.as_u64().is_some_and(|key| key < 10), "{key}");
        let subtask = &letter["subtask"];
        assert!(subtask.as_u64().is_some_and(|subtask| subtask < 2), "{subtask}");
        let expected = json!({
            "uid": "picky", "subtask": subtask, "position": position, "key": key, "value": { "n": n },
            "kind": "trap", "error": error,
        });
        assert_eq!(letter, &expected);
    }
    assert_eq!(counted(&world), rows - rejects.len() as u64);
}

#[test]
fn an_error_of_the_guests_own_has_a_policy_of_its_own() {
    let (rows, every) = (20_000, 100);
    let world = World::new();
    let settings = format!("on-trap = \"fail\"\non-failure = \"dead-letter\"\n{REJECTS}");
    world.write("job.toml", &picky_job(Some(rows), "fail", every, &settings));
    world.run(&["run", "job.toml", "-p", "2"]).exits(0);
    let rejects = rejects(&world);
    assert_eq!(
        rejects.keys().copied().collect::<BTreeSet<u64>>(),
        too_many(rows, every)
    );
    let first = &rejects[&(every - 1)];
    assert_eq!(first["kind"], "failure");
    assert_eq!(first["error"], format!("record {} is not to be counted", every - 1));
    assert_eq!(counted(&world), rows - rejects.len() as u64);

    // With the policies exchanged, it fails the job.
    let settings = format!("on-trap = \"dead-letter\"\non-failure = \"fail\"\n{REJECTS}");
    world.write("job.toml", &picky_job(Some(rows), "fail", every, &settings));
    let ran = world.run(&["run", "job.toml", "--set", "counts.path=out2"]).exits(1);
    assert!(
        ran.stderr.contains("on-failure = \"fail\": the job fails"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_record_that_takes_all_time_or_memory_is_found_alone() {
    for (how, limits, error) in [
        (
            "loop",
            "time-per-batch = \"100ms\"",
            "the module computed for more than 100ms in one call",
        ),
        ("grow", "memory = \"32MiB\"", "the module ran out of memory"),
    ] {
        let (rows, every) = (3_000, 1_500);
        let world = World::new();
        let settings = format!("on-trap = \"dead-letter\"\n{REJECTS}\nlimits = {{ {limits} }}");
        world.write("job.toml", &picky_job(Some(rows), how, every, &settings));
        world.run(&["run", "job.toml"]).exits(0);
        let rejects = rejects(&world);
        assert_eq!(
            rejects.keys().copied().collect::<BTreeSet<u64>>(),
            too_many(rows, every),
            "{how}"
        );
        for letter in rejects.values() {
            assert!(text(&letter["error"]).starts_with(error), "{letter}");
        }
        assert_eq!(counted(&world), rows - rejects.len() as u64, "{how}");
    }
}

#[test]
fn a_budget_is_the_operators_whatever_its_parallelism() {
    let world = World::new();
    let letters = REJECTS.replace(" }", ", budget = 20 }");
    let settings = format!("on-trap = \"dead-letter\"\n{letters}");
    world.write("job.toml", &picky_job(Some(20_000), "panic", 1_000, &settings));
    world.run(&["run", "job.toml", "-p", "4"]).exits(0);
    assert_eq!(rejects(&world).len(), 20);

    world.write("job.toml", &picky_job(Some(21_000), "panic", 1_000, &settings));
    let args = [
        "run",
        "job.toml",
        "-p",
        "4",
        "--set",
        "counts.path=out2",
        "--set",
        "picky.dead-letter.path=rejects2",
    ];
    let ran = world.run(&args).exits(1);
    let message = "the operator has more dead letters than `dead-letter.budget` allows, which is 20; the next one would be: the module panicked";
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
    assert!(ran.stderr.contains(", value {\"n\":"), "{}", ran.stderr);
    assert_eq!(world.committed("rejects2"), [""; 0]);
}

#[test]
fn dead_letters_are_committed_once_and_counted_on_after_a_restore() {
    let world = World::new();
    let letters = REJECTS.replace(" }", ", budget = 1000000 }");
    let settings = format!("on-trap = \"dead-letter\"\n{letters}");
    world.write("job.toml", &picky_job(None, "panic", 500, &settings));
    let mut from: Option<String> = None;
    for parallelism in ["2", "1", "3"] {
        let mut args = vec!["job.toml", "-p", parallelism];
        if let Some(from) = &from {
            args.extend(["-s", from.as_str()]);
        }
        let job = world.start(&args);
        let read = |view: &Value| view["records_in"].as_u64().is_some_and(|n| n > 3_000);
        wait_until("records", || read(&info(&world, &job.job_id)));
        // A savepoint in between names the pending output, and commits none of it.
        let before = world.committed("rejects").len();
        world.run(&["savepoint", &job.job_id]).exits(0);
        assert_eq!(world.committed("rejects").len(), before);
        from = Some(stop(&world, job).0);
    }
    let saved = crate::setup::show(&world, &from.expect("a savepoint"));
    let splits = crate::setup::shown(&saved, "numbers")["splits"].clone();
    // Each split has been read up to its offset.
    let mut expected = BTreeSet::new();
    for split in splits.as_array().expect("splits") {
        let number: u64 = text(&split["split"]).parse().expect("a number");
        let offset = split["position"]["offset"].as_u64().expect("an offset");
        let numbers = (0..offset).map(|i| i * SPLITS + number);
        expected.extend(numbers.filter(|n| n % 500 == 499));
    }
    assert!(expected.len() > 15);
    assert_eq!(rejects(&world).keys().copied().collect::<BTreeSet<u64>>(), expected);
}

#[test]
fn a_guest_that_loops_on_every_record_does_not_hold_up_a_cancel() {
    let world = World::new();
    let settings = format!("on-trap = \"dead-letter\"\n{REJECTS}\nlimits = {{ time-per-batch = \"200ms\" }}");
    world.write("job.toml", &picky_job(None, "loop", 1, &settings));
    let job = world.start(&["job.toml"]);
    std::thread::sleep(Duration::from_secs(1));
    let asked = Instant::now();
    world.run(&["cancel", &job.job_id]).exits(0);
    let ran = job.end().exits(1);
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}: {}",
        asked.elapsed(),
        ran.stderr
    );
}

#[test]
fn a_call_without_end_fails_the_job_near_its_limit() {
    let world = World::new();
    let settings = "limits = { time-per-batch = \"2s\" }";
    let job = picky_job(Some(3_000), "loop", 1, settings);
    world.write("job.toml", &job);
    let began = Instant::now();
    let ran = world
        .run(&["run", "job.toml", "--set", "restart.strategy=none"])
        .exits(1);
    let took = began.elapsed();
    println!("it took {took:?}");
    assert!(
        ran.stderr.contains("the module computed for more than 2s in one call"),
        "{}",
        ran.stderr
    );
    // It is called again with fewer records, to find the one at fault; all calls together have little more than twice the
    // time. Each having it whole, there would be a dozen of them.
    assert!(took < Duration::from_secs(12), "it took {took:?}");
}

/// A job of numbers: numbers → private → told. The operator numbers its records from a counter in its own memory.
fn private_job(rows: u64, config: &str, settings: &str) -> String {
    format!(
        r#"name = "private"
[checkpoint]
interval = "50ms"
[restart]
strategy = "fixed-delay"
attempts = 5
delay = "10ms"
[[source]]
uid = "numbers"
connector = "generator"
rate = 400
splits = 1
rows = {rows}
key = "user"
fields = [{{ name = "user", type = "u64", range = [0, 9] }}, {{ name = "n", type = "u64", sequence = 0 }}]
[[operator]]
uid = "private"
module = {private:?}
inputs = ["numbers"]
config = {{ {config} }}
{settings}
[[sink]]
uid = "told"
connector = "file"
path = "out"
format = "tsv"
inputs = ["private"]
"#,
        private = component("private"),
    )
}

/// Returns each record with the operator's number for it, in order of the records.
fn told(world: &World) -> Vec<(u64, u64)> {
    let row = |line: &String| {
        let (n, seen) = line.split_once('\t').expect("two columns");
        (n.parse().expect("a number"), seen.parse().expect("a number"))
    };
    let mut told: Vec<(u64, u64)> = world.committed("out").iter().map(row).collect();
    told.sort_unstable();
    told
}

/// Returns the number of restarts of the job.
fn restarts(ran: &Ran) -> usize {
    ran.stderr.matches("; it restarts in ").count()
}

#[test]
fn a_record_that_fails_twice_on_a_guest_with_private_state_fails_the_job() {
    let (rows, bad) = (600, 300);
    let world = World::new();
    world.write("job.toml", &private_job(rows, &format!("panic_at = {bad}"), ""));
    let ran = world.run(&["run", "job.toml"]).exits(1);
    // One restart from the last checkpoint finds the record; there is no second one.
    assert_eq!(restarts(&ran), 1, "{}", ran.stderr);
    let unisolated =
        "the operator keeps state of its own, so the job goes back to its last checkpoint to find the record";
    assert!(ran.stderr.contains("goes on from checkpoint "), "{}", ran.stderr);
    let last = ran.stderr.rsplit("operator \"private\"").next().expect("its failure");
    assert!(!last.contains(unisolated), "{last}");
    for expected in [
        ", subtask 0, failed in process: the module panicked at tests/guests/private/src/lib.rs:".to_owned(),
        format!(": record {bad} is one too many"),
        format!("value {{\"n\":{bad}}}, from 00000:{bad}"),
        "policy: on-trap = \"fail\": the job fails".to_owned(),
    ] {
        assert!(last.contains(&expected), "{expected}\n{last}");
    }
    // Exactly the records before it are committed, once each, as far as a checkpoint had come.
    let told = told(&world);
    assert!(!told.is_empty() && told.len() as u64 <= bad, "{}", told.len());
    assert!(
        told.iter().copied().eq((0..told.len() as u64).map(|n| (n, n + 1))),
        "{told:?}"
    );
}

#[test]
fn a_guest_with_private_state_that_fails_once_goes_on_from_the_checkpoint() {
    // An instance runs out of memory after some 200 records. No single record is at fault, so none is blamed.
    let rows = 700;
    let world = World::new();
    let limits = "limits = { memory = \"16MiB\" }";
    world.write("job.toml", &private_job(rows, "leak_bytes = 65536", limits));
    let ran = world.run(&["run", "job.toml"]).exits(0);
    assert_eq!(restarts(&ran), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("goes on from checkpoint "), "{}", ran.stderr);
    // After the restart, a new instance is given the state from before the failed call.
    assert!(
        ran.stderr.contains("no record of it failed alone; nothing is lost"),
        "{}",
        ran.stderr
    );
    assert!(
        told(&world).into_iter().eq((0..rows).map(|n| (n, n + 1))),
        "{:?}",
        told(&world)
    );
}

#[test]
fn a_dead_letter_of_a_guest_with_private_state_leaves_no_trace_in_it() {
    let (rows, bad) = (300, 100);
    let world = World::new();
    let settings = format!("on-trap = \"dead-letter\"\n{REJECTS}");
    world.write("job.toml", &private_job(rows, &format!("panic_at = {bad}"), &settings));
    let ran = world.run(&["run", "job.toml"]).exits(0);
    assert_eq!(restarts(&ran), 0, "{}", ran.stderr);
    assert_eq!(rejects(&world).keys().copied().collect::<Vec<_>>(), [bad]);
    // It had counted the record before it panicked.
    let others = (0..rows).filter(|n| *n != bad);
    assert!(told(&world).into_iter().eq(others.zip(1..)), "{:?}", told(&world));
}

/// The log is all that the user of a detached job has.
#[test]
fn the_log_of_a_served_job_has_the_record_that_it_failed_on() {
    let world = World::new();
    world.write("job.toml", &picky_job(Some(1000), "panic", 100, ""));
    let host = world.serve(&[]);
    world.run(&["run", "-d", "job.toml"]).exits(0);
    let mut logs = String::new();
    wait_until("the job has failed", || {
        logs = world.run(&["logs", "picky"]).exits(0).stdout;
        logs.contains("switched from state FAILING to FAILED")
    });
    for part in [
        "failed in process: the module panicked at tests/guests/picky/src/lib.rs:",
        "\n  record: key ",
        "\n  policy: on-trap = \"fail\": the job fails\n",
    ] {
        assert!(logs.contains(part), "no {part:?} in:\n{logs}");
    }
    drop(host);
}
