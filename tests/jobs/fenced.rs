//! Two hosts that run one job: the first one is stopped in the middle of its work, the second one takes its place although
//! both locks say otherwise, and the first one goes on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::setup::{FILE_SINK, made_up_job, signal, text};
use crate::support::{Attached, World, wait_until};

const ROWS: u64 = 30_000;

/// Ways around the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bypass {
    /// Both lock files are removed; the hosts share one data directory.
    Removed,
    /// The second host has a copy of the data directory, and writes to the same output.
    Copied,
    /// The second host has a copy of the list of jobs, and shares the checkpoints, whose lock is removed.
    SharedCheckpoints,
}

impl Bypass {
    /// Returns the data directory of the second host.
    fn apply(self, world: &World, job: &str) -> PathBuf {
        let (data, copy) = (world.path().join("data"), world.path().join("copy"));
        let lock = |dir: &Path| dir.join(format!("{job}.lock"));
        match self {
            Self::Removed => {
                std::fs::remove_file(data.join("host.lock")).expect("removed");
                std::fs::remove_file(lock(&data.join("checkpoints"))).ok();
                return data;
            }
            Self::Copied => {}
            Self::SharedCheckpoints => _ = std::fs::remove_file(lock(&world.path().join("shared"))),
        }
        let copied = Command::new("cp").arg("-a").arg(&data).arg(&copy).status();
        assert!(copied.expect("cp runs").success());
        copy
    }
}

/// Returns the status of a job as the host of a data directory says.
fn status(world: &World, data: &Path, job: &str) -> Option<String> {
    let mut command = world.command(&["info", job, "--json"]);
    let out = command.env("REGRAFT_DATA", data).output().expect("it runs");
    let info: Value = serde_json::from_slice(&out.stdout).ok()?;
    Some(text(&info["status"]))
}

fn in_time(what: &str, world: &World, data: &Path, job: &str, is_so: impl Fn(&str) -> bool) {
    wait_until(what, || {
        std::thread::sleep(Duration::from_millis(30));
        status(world, data, job).is_some_and(|status| is_so(&status))
    });
}

/// Runs the experiment once, and returns the log of the first host.
fn stopped_host(bypass: Bypass, pause: Duration) -> String {
    let world = World::new();
    let job_file = made_up_job("words", ROWS, 400, 12_000, "update", FILE_SINK);
    let quick = "interval = \"40ms\"\ntolerable-failures = 100";
    world.write("job.toml", &job_file.replace("interval = \"off\"", quick));
    let first = world.serve(&[]);
    let mut args = vec!["run", "-d", "job.toml", "-p", "2"];
    if bypass == Bypass::SharedCheckpoints {
        args.extend(["--set", "checkpoint.dir=shared"]);
    }
    let ran = world.run(&args).exits(0);
    let job = ran.stdout.trim().rsplit(' ').next().expect("a JobID").to_owned();
    wait_until("output", || world.committed("out").len() > 1_000);
    std::thread::sleep(pause);
    signal(&first, "STOP");
    let data = bypass.apply(&world, &job);
    let second = world.serve_in(&data);
    in_time("it is brought back", &world, &data, &job, |status| {
        matches!(status, "RUNNING" | "FINISHED")
    });
    std::thread::sleep(pause);
    signal(&first, "CONT");
    in_time("it has finished", &world, &data, &job, |status| status == "FINISHED");
    // The first one finds out by itself.
    wait_until("the first one stops", || has_stopped(&first));
    std::thread::sleep(Duration::from_millis(300));
    let lines = world.committed("out");
    let mut distinct = lines.clone();
    distinct.dedup();
    let (first, second) = (first.stderr(), second.stderr());
    assert_eq!(
        (lines.len() as u64, distinct.len()),
        (ROWS, lines.len()),
        "{bypass:?}: records are lost or doubled\n--- first\n{first}\n--- second\n{second}"
    );
    first
}

fn has_stopped(first: &Attached) -> bool {
    let log = first.stderr();
    let says = [
        "another host runs job ",
        "another host has taken",
        "has been written by another host",
    ];
    says.iter().any(|says| log.contains(says))
}

#[test]
fn a_host_that_wakes_up_beside_its_successor_writes_nothing_more() {
    // By hand: REGRAFT_FENCE_RUNS=20.
    let runs = std::env::var("REGRAFT_FENCE_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok());
    for run in 0..runs.unwrap_or(2_u64) {
        let bypass = [Bypass::Removed, Bypass::Copied, Bypass::SharedCheckpoints][run as usize % 3];
        let log = stopped_host(bypass, Duration::from_millis(37 * (run + 1) % 450));
        let said = log
            .lines()
            .find(|line| line.contains("another host"))
            .unwrap_or_default();
        println!("run {run}, {bypass:?}: {said}");
    }
}
