//! Checkpoints of whole jobs: retained and started from, written as increments in chains of bounded length, without
//! alignment, several at once, and with pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regraft::graph::Overrides;
use serde_json::Value;

use crate::setup::{
    FILE_SINK, component, counted_by_hand, counts, graph, info, local, made_up_job, savepoint, show, shown, stop, text,
};
use crate::support::{Attached, World, wait_until};

/// Replaces the `[checkpoint]` settings of a job, which are off, by these.
fn with(job: &str, settings: &str) -> String {
    job.replace("interval = \"off\"", settings)
}

fn completed(view: &Value) -> Vec<&Value> {
    let rounds = view["recent_checkpoints"].as_array().expect("rounds");
    rounds.iter().filter(|round| round["status"] == "COMPLETED").collect()
}

fn wait_for_checkpoints(world: &World, job: &Attached, number: u64) {
    wait_until(&format!("{number} checkpoints"), || {
        info(world, &job.job_id)["checkpoints"]
            .as_u64()
            .is_some_and(|n| n >= number)
    });
}

/// Returns the directories `chk-<n>` of a job, in order.
fn kept(world: &World, job_id: &str) -> Vec<PathBuf> {
    let dir = world.path().join("data/checkpoints").join(job_id);
    let names = std::fs::read_dir(dir)
        .expect("the job's directory")
        .map(|entry| entry.expect("entry").path());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("chk-")?.parse::<u64>().ok();
    let mut found: Vec<_> = names.filter_map(|path| Some((number(&path)?, path))).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn metadata(checkpoint: &Path) -> Value {
    let text = std::fs::read_to_string(checkpoint.join("_metadata")).expect("_metadata");
    let mut envelope: Value = serde_json::from_str(&text).expect("JSON");
    envelope["payload"].take()
}

/// Returns the state files of `count` that a checkpoint refers to, relative to it.
fn files_of_count(checkpoint: &Path) -> Vec<String> {
    let metadata = metadata(checkpoint);
    let operators = metadata["operators"].as_array().expect("operators");
    let count = operators.iter().find(|entry| entry["uid"] == "count").expect("count");
    let states = count["states"].as_array().expect("states").iter();
    let files = states.flat_map(|state| state["files"].as_array().expect("files"));
    files.map(|file| text(&file["path"])).collect()
}

fn str_of(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_job_starts_from_a_retained_checkpoint_and_shares_nothing_with_it_after_its_first_own() {
    let world = World::new();
    let job_file = with(
        &made_up_job("words", 24_000, 500, 4_000, "update", FILE_SINK),
        "interval = \"100ms\"\nretain = 3\non-cancel = \"retain\"",
    );
    world.write("job.toml", &job_file);
    let undisturbed = ["--set", "out.path=undisturbed", "--set", "events.rate=1000000"];
    world.run(&[&["run", "job.toml"][..], &undisturbed].concat()).exits(0);
    let job = world.start(&["job.toml"]);
    let id = job.job_id.clone();
    wait_for_checkpoints(&world, &job, 6);
    world.run(&["cancel", &id]).exits(0);
    job.end().exits(1);
    let checkpoints = kept(&world, &id);
    assert!(checkpoints.len() <= 3 && !checkpoints.is_empty(), "{checkpoints:?}");
    assert!(checkpoints.iter().all(|dir| dir.join("_metadata").exists()));
    let newest = checkpoints.last().expect("one");
    // All files that they refer to are there, and no others.
    let shared = newest.with_file_name("shared");
    let there: BTreeSet<PathBuf> = std::fs::read_dir(&shared)
        .expect("shared files")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    let named = checkpoints.iter().flat_map(|dir| files_of_count(dir));
    let named: BTreeSet<PathBuf> = named
        .map(|file| shared.join(file.strip_prefix("../shared/").expect("shared")))
        .collect();
    assert_eq!(there, named);

    let mut second = world.start(&["-s", str_of(newest), "job.toml"]);
    second.wait_for_log("(NO_CLAIM)");
    wait_for_checkpoints(&world, &second, 1);
    std::fs::remove_dir_all(newest.parent().expect("the first job's directory")).expect("removed");
    // It fails, and goes back to a checkpoint of its own.
    let out = world.path().join("out");
    std::fs::rename(&out, world.path().join("away")).expect("renamed");
    std::fs::write(&out, "").expect("written");
    wait_until("a restart", || {
        info(&world, &second.job_id)["restarts"].as_u64() > Some(0)
    });
    std::fs::remove_file(&out).expect("removed");
    std::fs::rename(world.path().join("away"), &out).expect("renamed");
    second.end().exits(0);
    assert!(world.committed("out") == world.committed("undisturbed"));
}

#[test]
fn a_cancelled_job_leaves_no_checkpoint_where_it_is_not_to_retain_them() {
    let world = World::new();
    let job_file = with(
        &made_up_job("words", 0, 500, 2_000, "update", FILE_SINK),
        "interval = \"100ms\"\nretain = 3",
    );
    world.write("job.toml", &job_file);
    let job = world.start(&["job.toml"]);
    let id = job.job_id.clone();
    wait_for_checkpoints(&world, &job, 4);
    world.run(&["cancel", &id]).exits(0);
    job.end().exits(1);
    assert!(!world.path().join("data/checkpoints").join(&id).exists());
}

#[test]
fn after_a_hundred_checkpoints_little_is_written_and_a_restore_reads_a_few_files() {
    let world = World::new();
    let text_of_job = made_up_job("words", 0, 5_000, 2_000, "update", FILE_SINK);
    let job_file = with(&text_of_job, "interval = \"50ms\"\non-cancel = \"retain\"");
    world.write("job.toml", &job_file);
    let job = world.start(&["job.toml"]);
    let id = job.job_id.clone();
    wait_for_checkpoints(&world, &job, 110);
    let view = info(&world, &id);
    let of_count = |round: &Value| {
        let subtasks = round["subtasks"].as_array().expect("subtasks").iter();
        let mut of_count = subtasks.filter(|part| part["uid"] == "count");
        let part = of_count.next().expect("count").clone();
        (
            part["bytes"].as_f64().expect("bytes"),
            part["state_bytes"].as_f64().expect("bytes"),
        )
    };
    let rounds: Vec<(f64, f64)> = completed(&view).into_iter().rev().take(50).map(of_count).collect();
    let (written, all) = rounds
        .iter()
        .fold((0.0, 0.0), |sum, round| (sum.0 + round.0, sum.1 + round.1));
    assert!(written > 0.0 && written * 5.0 < all, "{rounds:?}");
    let shown = world.run(&["info", &id]).exits(0).stdout;
    assert!(shown.contains("SYNC MS") && shown.contains("STATE"), "{shown}");
    // A savepoint is complete and self-contained.
    let saved = local(&savepoint(&world, &id));
    assert!(files_of_count(&saved).iter().all(|file| file.starts_with("operators/")));

    world.run(&["cancel", &id]).exits(0);
    job.end().exits(1);
    let checkpoint = kept(&world, &id).pop().expect("one is retained");
    let files = files_of_count(&checkpoint);
    assert!(files.len() > 1 && files.len() <= 20, "{files:?}");
    let again = world.start(&["-s", str_of(&checkpoint), "job.toml", "--set", "out.path=out2"]);
    let (saved, _) = stop(&world, again);
    let saved = show(&world, &saved);
    let by_hand = counted_by_hand(
        &graph(&job_file, world.path(), &Overrides::default()),
        &shown_splits(&saved),
    );
    assert!(counts(&saved) == by_hand, "what is restored is what was counted");

    // If one of the files is missing, nothing is restored, and the message names it.
    let missing = checkpoint.join(&files[0]);
    let name = missing.file_name().expect("name").to_str().expect("UTF-8").to_owned();
    std::fs::remove_file(&missing).expect("removed");
    let refused = world
        .run(&["run", "-s", str_of(&checkpoint), "job.toml", "--set", "out.path=out3"])
        .exits(1);
    assert!(
        refused.stderr.contains(&format!(
            "{name} is missing, but the checkpoint's _metadata refers to it"
        )),
        "{}",
        refused.stderr
    );
}

fn shown_splits(saved: &Value) -> Value {
    shown(saved, "events")["splits"].clone()
}

#[test]
fn at_least_once_counts_again_and_loses_nothing() {
    let world = World::new();
    let restart = "[restart]\nstrategy = \"fixed-delay\"\nattempts = 1000\ndelay = \"50ms\"\n[[source]]";
    let settings = "interval = \"100ms\"\nmode = \"at-least-once\"";
    let job_file =
        with(&made_up_job("words", 20_000, 500, 4_000, "update", FILE_SINK), settings).replace("[[source]]", restart);
    world.write("job.toml", &job_file);
    let undisturbed = ["--set", "out.path=undisturbed", "--set", "events.rate=1000000"];
    world.run(&[&["run", "job.toml"][..], &undisturbed].concat()).exits(0);
    let job = world.start(&["job.toml", "-p", "2"]);
    let out = world.path().join("out");
    wait_until("output", || world.committed("out").len() > 3_000);
    std::fs::rename(&out, world.path().join("away")).expect("renamed");
    std::fs::write(&out, "").expect("written");
    wait_until("a restart", || info(&world, &job.job_id)["restarts"].as_u64() > Some(0));
    std::fs::remove_file(&out).expect("removed");
    std::fs::rename(world.path().join("away"), &out).expect("renamed");
    job.end().exits(0);
    let greatest = |dir: &str| {
        let mut greatest: BTreeMap<String, u64> = BTreeMap::new();
        for line in world.committed(dir) {
            let (word, count) = line.split_once('\t').expect("two columns");
            let entry = greatest.entry(word.to_owned()).or_default();
            *entry = (*entry).max(count.parse().expect("a count"));
        }
        greatest
    };
    let (expected, found) = (greatest("undisturbed"), greatest("out"));
    assert_eq!(expected.len(), found.len());
    for (word, count) in expected {
        assert!(found[&word] >= count, "{word}: {} of {count}", found[&word]);
    }
}

/// Returns trigger and end of each of the last rounds, in milliseconds.
fn spans(view: &Value) -> Vec<(i64, i64)> {
    let rounds = view["recent_checkpoints"].as_array().expect("rounds").iter();
    let number = |round: &Value, key: &str| round[key].as_i64().expect("a number");
    let span = |round: &Value| {
        let from = number(round, "triggered_at");
        (from, from + number(round, "duration_ms"))
    };
    let mut spans: Vec<_> = rounds.map(span).collect();
    spans.sort_unstable();
    spans
}

#[test]
fn rounds_pause_as_long_as_they_are_told() {
    let world = World::new();
    let job_file = with(
        &made_up_job("words", 0, 500, 2_000, "update", FILE_SINK),
        "interval = \"50ms\"\nmin-pause = \"400ms\"",
    );
    world.write("job.toml", &job_file);
    let job = world.start(&["job.toml"]);
    wait_for_checkpoints(&world, &job, 5);
    let spans = spans(&info(&world, &job.job_id));
    for pair in spans.windows(2) {
        // Times are truncated to milliseconds.
        assert!(pair[1].0 - pair[0].1 >= 398, "{spans:?}");
    }
    world.run(&["cancel", &job.job_id]).exits(0);
    job.end().exits(1);
}

#[test]
fn several_rounds_are_under_way_at_once_where_that_is_allowed() {
    let world = World::new();
    let job_file = format!(
        r#"name = "picky"
[checkpoint]
interval = "100ms"
timeout = "1s"
max-concurrent = 3
tolerable-failures = 1000
[[source]]
uid = "events"
connector = "generator"
seed = 1
rate = 2000
key = "key"
fields = [{{ name = "key", type = "u64", range = [0, 99] }}, {{ name = "n", type = "u64", sequence = 0 }}]
[[operator]]
uid = "count"
module = {picky:?}
inputs = [{{ from = "events", by = "key" }}]
config = {{ how = "loop", every = 2000 }}
limits = {{ time-per-batch = "5s" }}
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#,
        picky = component("picky"),
    );
    world.write("job.toml", &job_file);
    let job = world.start(&["job.toml"]);
    let mut seen = vec![];
    wait_until("some rounds that expired", || {
        let view = info(&world, &job.job_id);
        let rounds = view["recent_checkpoints"].as_array().expect("rounds").iter();
        seen = spans(&view);
        rounds.filter(|round| round["status"] == "FAILED").count() >= 4
    });
    let at_once = |at: i64| seen.iter().filter(|(from, to)| *from <= at && at < *to).count();
    let most = seen.iter().map(|(from, _)| at_once(*from)).max();
    assert_eq!(most, Some(3), "{seen:?}");
    world.run(&["cancel", &job.job_id]).exits(0);
    job.end().exits(1);
}

#[test]
fn a_checkpoint_whose_files_are_removed_is_followed_by_a_full_one() {
    let world = World::new();
    let job_file = with(
        &made_up_job("words", 40_000, 500, 4_000, "update", FILE_SINK),
        "interval = \"100ms\"\non-cancel = \"retain\"\ntolerable-failures = 3",
    );
    world.write("job.toml", &job_file);
    let undisturbed = ["--set", "out.path=undisturbed", "--set", "events.rate=1000000"];
    world.run(&[&["run", "job.toml"][..], &undisturbed].concat()).exits(0);
    let mut job = world.start(&["job.toml"]);
    let id = job.job_id.clone();
    let dir = world.path().join("data/checkpoints").join(&id);
    wait_for_checkpoints(&world, &job, 3);
    // All that the increments are built on, the component included.
    for file in std::fs::read_dir(dir.join("shared")).expect("files") {
        // The host may be faster.
        let _ = std::fs::remove_file(file.expect("a file").path());
    }
    let warning = job.wait_for_log(" are gone or have another size, ");
    assert!(
        warning.contains("/shared/") && warning.contains("the next checkpoint, which is full"),
        "{warning}"
    );
    let completed = |view: &Value| view["checkpoints"].as_u64().unwrap_or(0);
    wait_for_checkpoints(&world, &job, completed(&info(&world, &id)) + 2);
    // And a checkpoint of which only `_metadata` is gone.
    let newest = kept(&world, &id).pop().expect("a checkpoint");
    let _ = std::fs::remove_file(newest.join("_metadata"));
    wait_for_checkpoints(&world, &job, completed(&info(&world, &id)) + 3);
    world.run(&["cancel", &id]).exits(0);
    let log = job.end().exits(1).stderr;
    assert!(!log.contains("restarts in"), "no round has failed: {log}");
    let last = kept(&world, &id).pop().expect("a checkpoint");
    for file in files_of_count(&last) {
        assert!(last.join(&file).is_file(), "{file} of {}", last.display());
    }
    world
        .run(&["run", "-s", str_of(&last), "job.toml", "--set", "events.rate=1000000"])
        .exits(0);
    assert_eq!(world.committed("out"), world.committed("undisturbed"));
}
