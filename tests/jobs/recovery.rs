//! Jobs that fail and recover: sinks, sources and stores that fail for a while, guests that get stuck, restart
//! strategies.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::setup::{FILE_SINK, component, info, made_up_job, stop, text, words_job};
use crate::support::{Attached, World, wait_until};

/// Restarts that are quick enough for a test.
const QUICK: &str = "[restart]\nstrategy = \"fixed-delay\"\nattempts = 10000\ndelay = \"50ms\"\n";

/// Adds tables before the first source of a job, and sets ten checkpoints per second.
fn with(job: &str, tables: &str) -> String {
    job.replace("interval = \"off\"", "interval = \"100ms\"")
        .replace("[[source]]", &format!("{tables}[[source]]"))
}

fn counter(view: &Value, name: &str) -> u64 {
    view[name].as_u64().unwrap_or_else(|| panic!("no {name} in {view}"))
}

/// Returns the output of an undisturbed run.
fn undisturbed(world: &World, job: &str) -> Vec<String> {
    world.write("undisturbed.toml", job);
    world
        .run(&[
            "run",
            "undisturbed.toml",
            "--set",
            "out.path=undisturbed",
            "--set",
            "events.rate=1000000",
        ])
        .exits(0);
    world.committed("undisturbed")
}

/// Replaces a directory by a file, so that every use of it fails.
fn take_away(dir: &Path) {
    std::fs::rename(dir, dir.with_extension("away")).expect("renamed");
    std::fs::write(dir, "").expect("written");
}

fn give_back(dir: &Path) {
    std::fs::remove_file(dir).expect("removed");
    std::fs::rename(dir.with_extension("away"), dir).expect("renamed");
}

fn nothing_pending(world: &World) {
    let pending = world.path().join("out/.pending");
    assert!(
        !pending.exists(),
        "left: {:?}",
        std::fs::read_dir(&pending).map(|dir| dir.count())
    );
}

#[test]
fn a_sink_that_fails_for_a_while_loses_and_doubles_nothing() {
    let world = World::new();
    let job_file = with(&made_up_job("words", 20_000, 500, 4_000, "update", FILE_SINK), QUICK);
    let expected = undisturbed(&world, &job_file);
    world.write("job.toml", &job_file);
    let mut job = world.start(&["job.toml", "-p", "2"]);
    let out = world.path().join("out");
    for n in 1..=3 {
        wait_until("more output", || world.committed("out").len() > n * 3_000);
        take_away(&out);
        let before = counter(&info(&world, &job.job_id), "restarts");
        wait_until("a restart", || {
            counter(&info(&world, &job.job_id), "restarts") > before + 1
        });
        give_back(&out);
    }
    job.wait_for_log("; it restarts in 50ms.");
    let ran = job.end().exits(0);
    assert!(
        world.committed("out") == expected,
        "the output is that of an undisturbed run"
    );
    nothing_pending(&world);
    assert!(ran.stderr.contains(" goes on from checkpoint "), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("from state RUNNING to RESTARTING"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_source_that_fails_for_a_while_goes_on_where_it_was() {
    let world = World::new();
    world.write("job.toml", &with(&words_job("words", "update"), QUICK));
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["job.toml"]);
    wait_until("output", || world.committed("out").len() == 3);
    // The memory of the process cannot be read at its beginning, where nothing is mapped.
    let file = world.path().join("in/unreadable.txt");
    std::os::unix::fs::symlink("/proc/self/mem", &file).expect("linked");
    world.write("in/more.txt", "c\n");
    wait_until("a restart", || counter(&info(&world, &job.job_id), "restarts") > 1);
    let failure = text(&info(&world, &job.job_id)["last_failure"]);
    assert!(failure.contains("unreadable.txt"), "{failure}");
    std::fs::remove_file(&file).expect("removed");
    world.write("in/words.txt", "a b a\nb\n");
    wait_until("all output", || world.committed("out").len() == 5);
    stop(&world, job);
    assert_eq!(world.committed("out"), ["a\t1", "a\t2", "b\t1", "b\t2", "c\t1"]);
}

/// Runs a job whose sink cannot write to its end, and returns its log.
fn unwritable(restart: &str) -> String {
    let world = World::new();
    world.write(
        "job.toml",
        &with(&made_up_job("words", 0, 500, 2_000, "update", FILE_SINK), restart),
    );
    let job = world.start(&["job.toml"]);
    wait_until("output", || !world.committed("out").is_empty());
    take_away(&world.path().join("out"));
    let ran = job.end().exits(1);
    assert!(ran.stderr.contains("sink \"out\""), "{}", ran.stderr);
    // Where output was about to be committed, a restart already fails before anything runs.
    ran.stderr.replace("; tried again in ", "; it restarts in ")
}

#[test]
fn the_restart_strategy_says_how_often() {
    let none = unwritable("[restart]\nstrategy = \"none\"\n");
    assert!(!none.contains("RESTARTING"), "{none}");
    let fixed = unwritable("[restart]\nstrategy = \"fixed-delay\"\nattempts = 2\ndelay = \"20ms\"\n");
    assert_eq!(fixed.matches("; it restarts in 20ms.").count(), 2, "{fixed}");
    assert!(fixed.contains("restarted 2 times; [restart] allows no more"), "{fixed}");
    let exponential = unwritable(
        "[restart]\nstrategy = \"exponential-delay\"\ninitial-backoff = \"10ms\"\nmax-backoff = \"30ms\"\nbackoff-multiplier = 2.0\njitter-factor = 0.0\nattempts-before-reset-backoff = 4\n",
    );
    let waits: Vec<&str> = exponential
        .lines()
        .filter_map(|line| line.split("; it restarts in ").nth(1))
        .collect();
    assert_eq!(waits, ["10ms.", "20ms.", "30ms.", "30ms."], "{exponential}");
}

#[test]
fn what_fails_on_the_same_input_again_is_not_restarted() {
    let world = World::new();
    world.write("job.toml", &picky_job("panic", &with_limits(""), QUICK));
    let ran = world.run(&["run", "job.toml"]).exits(1);
    assert!(!ran.stderr.contains("RESTARTING"), "{}", ran.stderr);
    assert!(ran.stderr.contains("record 4999 is one too many"), "{}", ran.stderr);
}

fn with_limits(limits: &str) -> String {
    if limits.is_empty() {
        String::new()
    } else {
        format!("limits = {{ {limits} }}\n")
    }
}

/// A job of numbered records, on one in 5000 of which the guest misbehaves.
fn picky_job(how: &str, limits: &str, tables: &str) -> String {
    format!(
        r#"name = "picky"
[checkpoint]
interval = "100ms"
timeout = "300ms"
tolerable-failures = 10000
{tables}
[[source]]
uid = "events"
connector = "generator"
seed = 7
splits = 1
rate = 20000
key = "key"
fields = [{{ name = "key", type = "u64", range = [0, 99] }}, {{ name = "n", type = "u64", sequence = 0 }}]
[[operator]]
uid = "count"
module = {picky:?}
inputs = [{{ from = "events", by = "key" }}]
config = {{ how = "{how}", every = 5000 }}
{limits}[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#,
        picky = component("picky"),
    )
}

#[test]
fn a_stuck_guest_lets_checkpoints_expire_and_does_not_stop_the_job_from_being_asked() {
    let world = World::new();
    world.write(
        "job.toml",
        &picky_job("loop", &with_limits("time-per-batch = \"4s\""), QUICK),
    );
    let mut job = world.start(&["job.toml"]);
    let line = job.wait_for_log("FAILED (expired before completing");
    assert!(
        line.contains(&format!(
            "of job {} FAILED (expired before completing; not acked: count+out#0)",
            job.job_id
        )),
        "{line}"
    );
    let slow = "The barrier has not reached count+out#0: records before it, or a call that takes long, hold it up.";
    assert!(line.ends_with(slow), "{line}");
    let view = info(&world, &job.job_id);
    let rounds = view["recent_checkpoints"].as_array().expect("rounds");
    let failed = rounds
        .iter()
        .find(|round| round["status"] == "FAILED")
        .expect("one failed");
    assert_eq!(failed["failure"], "expired before completing; not acked: count+out#0");
    let kept = world.path().join("data/checkpoints").join(&job.job_id);
    let ran = job.end().exits(1);
    assert!(
        ran.stderr.contains("computed for more than 4s in one call"),
        "{}",
        ran.stderr
    );
    let incomplete: Vec<_> = std::fs::read_dir(kept)
        .expect("a failed job's checkpoints stay")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("chk-"))
        })
        .filter(|path| !path.join("_metadata").exists())
        .collect();
    assert!(incomplete.is_empty(), "{incomplete:?}");
}

#[test]
fn checkpoints_that_may_fail_do_not_stop_a_job() {
    let world = World::new();
    let job_file = with(&made_up_job("words", 12_000, 500, 4_000, "update", FILE_SINK), "");
    let expected = undisturbed(&world, &job_file);
    let tolerant = job_file.replace(
        "interval = \"100ms\"",
        "interval = \"100ms\"\ndir = \"ckpt\"\ntolerable-failures = 10000",
    );
    world.write("job.toml", &tolerant);
    let mut job = world.start(&["job.toml"]);
    job.wait_for_log("Completed checkpoint 2 ");
    let own = world.path().join("ckpt").join(&job.job_id);
    take_away(&own);
    job.wait_for_log(" FAILED (");
    let committed = world.committed("out").len();
    wait_until("more records", || {
        counter(&info(&world, &job.job_id), "records_out") > committed as u64 + 1_000
    });
    assert_eq!(info(&world, &job.job_id)["status"], "RUNNING");
    give_back(&own);
    let failed = last_failed(&info(&world, &job.job_id));
    wait_until("a later one", || {
        let view = info(&world, &job.job_id);
        view["last_checkpoint"]["checkpoint_id"].as_u64() > Some(failed)
    });
    job.end().exits(0);
    assert!(
        world.committed("out") == expected,
        "the output is that of an undisturbed run"
    );
}

pub fn last_failed(view: &Value) -> u64 {
    let rounds = view["recent_checkpoints"].as_array().expect("rounds");
    let failed = rounds.iter().filter(|round| round["status"] == "FAILED");
    failed
        .filter_map(|round| round["checkpoint_id"].as_u64())
        .max()
        .expect("one failed")
}

#[test]
fn one_failed_checkpoint_more_than_is_tolerated_restarts_the_job() {
    let world = World::new();
    let restart = "[restart]\nstrategy = \"fixed-delay\"\nattempts = 1\ndelay = \"20ms\"\n";
    let job_file = with(&made_up_job("words", 0, 500, 2_000, "update", FILE_SINK), restart);
    let strict = job_file.replace(
        "interval = \"100ms\"",
        "interval = \"100ms\"\ndir = \"ckpt\"\ntolerable-failures = 2",
    );
    world.write("job.toml", &strict);
    let mut job = world.start(&["job.toml"]);
    job.wait_for_log("Completed checkpoint 2 ");
    take_away(&world.path().join("ckpt").join(&job.job_id));
    let ran = job.end().exits(1);
    assert!(
        ran.stderr.contains("; tolerable-failures = 2; it restarts in 20ms."),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(" not be restarted: ") || ran.stderr.contains("cannot be restarted: "),
        "{}",
        ran.stderr
    );
}

/// Two parts of a job that share no records: one fails, and the other is not affected.
#[test]
fn only_the_region_that_failed_restarts() {
    let world = World::new();
    let one = with(&made_up_job("two", 8_000, 500, 2_000, "update", FILE_SINK), QUICK);
    let second = made_up_job("x", 8_000, 500, 2_000, "update", "connector = \"blackhole\"");
    let second = &second[second.find("[[source]]").expect("a source")..];
    let second = second
        .replace("\"events\"", "\"events2\"")
        .replace("\"count\"", "\"count2\"")
        .replace("\"out\"", "\"out2\"");
    let job_file = format!("{one}{second}");
    world.write("calm.toml", &job_file);
    let calm = world
        .run(&["run", "calm.toml", "--set", "out.path=undisturbed"])
        .exits(0);
    world.write("job.toml", &job_file);
    let job = world.start(&["job.toml"]);
    let out = world.path().join("out");
    wait_until("output", || world.committed("out").len() > 2_000);
    take_away(&out);
    let read = |job: &Attached| {
        let view = info(&world, &job.job_id);
        let nodes = view["operators"].as_array().expect("nodes").clone();
        let node = nodes.into_iter().find(|node| node["uid"] == "events2").expect("there");
        (
            counter(&view, "restarts"),
            node["records_in"].as_u64().expect("a number"),
        )
    };
    wait_until("restarts", || read(&job).0 > 3);
    let (_, before) = read(&job);
    wait_until("records of the other region", || read(&job).1 > before + 500);
    give_back(&out);
    wait_until("its end", || read(&job).1 == 8_000);
    let ran = job.end().exits(0);
    assert_eq!(
        ran.stdout, calm.stdout,
        "each record was counted once, without a restart"
    );
    assert!(world.committed("out") == world.committed("undisturbed"));
}

#[test]
fn a_stuck_guest_holds_up_neither_a_restart_nor_a_cancel() {
    let world = World::new();
    let job_file = picky_job("loop", &with_limits("time-per-batch = \"10m\""), QUICK);
    world.write(
        "job.toml",
        &job_file.replace("tolerable-failures = 10000", "tolerable-failures = 0"),
    );
    let mut job = world.start(&["job.toml"]);
    // The checkpoint that it holds up expires, and the job goes back to the previous one.
    job.wait_for_log("tolerable-failures = 0; it restarts in");
    job.wait_for_log("attempt 2");
    let asked = Instant::now();
    world.run(&["cancel", &job.job_id]).exits(0);
    let ran = job.end().exits(1);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(ran.stderr.contains("was CANCELED"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("computed for more than"), "{}", ran.stderr);
}

#[test]
fn a_second_ctrl_c_ends_at_once_whatever_a_guest_does() {
    let world = World::new();
    let tables = format!("[savepoint]\ndir = \"savepoints\"\n{QUICK}");
    let job_file = picky_job("loop", &with_limits("time-per-batch = \"10m\""), &tables);
    world.write("job.toml", &job_file.replace("timeout = \"300ms\"", "timeout = \"5s\""));
    let mut job = world.start(&["job.toml"]);
    job.wait_for_log("FAILED (expired before completing");
    let interrupt = |job: &Attached| {
        let sent = Command::new("kill")
            .args(["-s", "INT", &job.pid().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    };
    interrupt(&job);
    // The savepoint waits for the guest.
    job.wait_for_log("interrupted: stopping with a savepoint");
    interrupt(&job);
    let ran = job.end().exits(130);
    assert!(
        ran.stderr
            .contains("interrupted again: ended at once, nothing is saved"),
        "{}",
        ran.stderr
    );
}
