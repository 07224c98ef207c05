//! Beginnings and ends that come at a bad moment: a cancel while a savepoint is being written, a host that was killed.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::setup::{BLACKHOLE, info, local, made_up_job, savepoint, signal, stop, text, wait_for_out, words_job};
use crate::support::{World, wait_until};

/// Returns the names in a directory, which need not exist.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Starts a job with so much state that a savepoint takes a while, and takes one. Returns the job and the time that it took.
fn with_much_state(world: &World, settings: &str) -> (crate::support::Attached, Duration) {
    let job = made_up_job("words", 400_000, 200_000, 10_000_000, "final", BLACKHOLE);
    let job = job
        .replace("rows = 400000\n", "")
        .replace("interval = \"off\"", settings);
    world.write("job.toml", &job);
    let job = world.start(&["job.toml", "-p", "2"]);
    wait_until("much state", || {
        info(world, "words")["operators"][1]["keys"].as_u64() >= Some(150_000)
    });
    let saved = world.run(&["savepoint", "words", "--json"]).exits(0).json();
    let took = Duration::from_millis(saved["duration_ms"].as_u64().expect("a time"));
    println!("a savepoint takes {took:?}");
    (job, took)
}

#[test]
fn cancel_ends_a_job_while_a_savepoint_is_being_written() {
    let world = World::new();
    let (job, took) = with_much_state(&world, "interval = \"off\"");
    let before = names(&world.path().join("savepoints"));
    let records = world
        .path()
        .join("data/checkpoints")
        .join(&job.job_id)
        .join("savepoints");
    let (asked, cancelled) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| world.run(&["savepoint", "words"]));
        wait_until("it is being written", || {
            names(&records).iter().any(|name| name == "2-1.json")
        });
        let began = Instant::now();
        world.run(&["cancel", "words"]).exits(0);
        job.end().exits(1);
        (asked.join().expect("no panic"), began.elapsed())
    });
    println!("cancelled within {cancelled:?}");
    let asked = asked.exits(1).stderr;
    assert!(
        asked.contains("savepoint 2 of job ") && asked.contains(" was cancelled)"),
        "{asked}"
    );
    assert_eq!(names(&world.path().join("savepoints")), before, "nothing is left of it");
    assert!(
        took < Duration::from_secs(4) || cancelled < took / 2,
        "it took {cancelled:?}, and a savepoint {took:?}"
    );
}

#[test]
fn a_savepoint_that_a_job_needs_which_waits_for_its_host_stays() {
    let world = World::new();
    world.write("job.toml", &words_job("words", "update"));
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["job.toml"]);
    wait_for_out(&world, &job, 3);
    let (saved, _) = stop(&world, job);
    let dir = local(&saved);
    std::os::unix::fs::symlink(&dir, world.path().join("link")).expect("linked");
    let mut host = world.serve(&[]);
    let submitted = [
        "run",
        "-d",
        "-s",
        &saved,
        "job.toml",
        "--set",
        "out.path=again",
        "--json",
    ];
    let id = text(&world.run(&submitted).exits(0).json()["job_id"]);
    wait_until("it runs", || info(&world, &id)["status"] == "RUNNING");
    host.kill();
    // By its directory and by a link to it.
    for path in [dir.to_str().expect("UTF-8"), "link"] {
        let shown = world.run(&["state", "show", path]).exits(0).stdout;
        let needed = format!(
            "\nneeded by:       job words ({id}) until first checkpoint, which waits for its host\nsafe to delete:  no\n"
        );
        assert!(shown.contains(&needed), "{shown}");
        let shown = world.run(&["state", "show", path, "--json"]).exits(0).json();
        let why = "until first checkpoint";
        let job = json!({ "job_id": id, "name": "words", "why": why, "waits": true });
        assert_eq!(
            (&shown["needed_by"], &shown["safe_to_delete"]),
            (&json!([job]), &json!(false))
        );
        let refused = world.run(&["savepoint", "-d", path]).exits(1).stderr;
        let expected = format!(
            "error: job \"words\" ({id}) waits in {} for its host, was started from file://",
            world.path().join("data").display()
        );
        assert!(
            refused.starts_with(&expected) && refused.contains("Run `regraft serve` and wait"),
            "{refused}"
        );
    }
    assert!(dir.join("_metadata").exists());
    let mut host = world.serve(&[]);
    wait_until("it is back", || info(&world, &id)["status"] == "RUNNING");
    world.run(&["cancel", &id]).exits(0);
    host.kill();
    let shown = world.run(&["state", "show", &saved]).exits(0).stdout;
    assert!(shown.contains("\nsafe to delete:  yes\n"), "{shown}");
    world.run(&["savepoint", "-d", &saved]).exits(0);
}

#[test]
fn time_in_which_the_host_is_stopped_counts_for_no_guest() {
    let world = World::new();
    let job = made_up_job("words", 0, 200_000, 100_000_000, "final", BLACKHOLE);
    let job = job.replace("config = {", "limits = { time-per-batch = \"500ms\" }\nconfig = {");
    world.write("job.toml", &job);
    let job = world.start(&["job.toml", "-p", "2"]);
    let read = || info(&world, "words")["records_in"].as_u64().expect("a number");
    for _ in 0..5 {
        let before = read();
        wait_until("records", || read() > before + 200_000);
        signal(&job, "STOP");
        std::thread::sleep(Duration::from_secs(1));
        signal(&job, "CONT");
    }
    let before = read();
    wait_until("records", || read() > before);
    let view = info(&world, "words");
    assert_eq!(
        (&view["status"], &view["restarts"]),
        (&json!("RUNNING"), &json!(0)),
        "{view}"
    );
    world.run(&["cancel", "words"]).exits(0);
    job.end().exits(1);
}

#[test]
fn a_host_starts_at_once_after_the_last_one_was_killed() {
    let world = World::new();
    world.write(
        "job.toml",
        &words_job("words", "update").replace("\"off\"", "\"100ms\""),
    );
    world.write("in/words.txt", "a b a\n");
    let first = world.serve(&[]);
    let url = |world: &World| -> Value {
        let text = std::fs::read_to_string(world.path().join("data/run/host.json")).expect("announced");
        serde_json::from_str(&text).expect("JSON")
    };
    let address = text(&url(&world)["url"]).replace("http://", "");
    world.run(&["run", "-d", "job.toml"]).exits(0);
    wait_until("output", || world.committed("out").len() == 3);
    // As a supervisor does: the process may not be gone yet when the next one starts, on the same port.
    let killed = std::process::Command::new("kill")
        .args(["-s", "KILL", &first.pid().to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
    let mut second = world.serve_soon(&["--listen", &address]);
    second.wait_for_log("Serving on http://");
    wait_until("it is back", || info(&world, "words")["status"] == "RUNNING");
    let _ = savepoint(&world, "words");
    drop(first);
}
