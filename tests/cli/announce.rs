//! `$REGRAFT_DATA/run/<JobID>.json`, the announcement by which a second terminal finds a job.

use std::process::Command;

use serde_json::{Value, json};

use crate::fixtures::{COPY, files};
use crate::support::{World, wait_until};

/// Returns a world with an endless job.
fn watching() -> World {
    let world = World::new();
    world.write(
        "job.toml",
        &COPY.replace("path = \"in/*\"", "path = \"in/*\"\nmode = \"watch\"\npoll = \"10ms\""),
    );
    world.write("in/a", "a\n");
    world
}

const NONE: &str = "No running jobs.\n";

#[test]
fn it_says_where_the_job_is_and_goes_with_it() {
    let world = watching();
    let job = world.start(&["job.toml"]);
    let (id, pid) = (job.job_id.clone(), job.pid());
    let path = world.path().join("data/run").join(format!("{id}.json"));
    let text = std::fs::read_to_string(&path).expect("an announcement");
    let said: Value = serde_json::from_str(&text).expect("JSON");
    let url = said["url"].as_str().expect("a URL");
    let (token, process) = (&said["token"], &said["process"]);
    let expected = json!({ "job_id": id, "name": "copy", "pid": pid, "url": url, "token": token, "process": process });
    assert_eq!(
        (said.clone(), process["pid"].as_u64()),
        (expected, Some(u64::from(pid)))
    );
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(files(&world.path().join("data/run")), [format!("{id}.json")]);
    // By name, by prefix, and at a named host.
    for args in [
        &["info", "copy", "--json"][..],
        &["info", &id[..8], "--json"],
        &["info", &id, "--json", "--host", url],
    ] {
        assert_eq!(world.run(args).exits(0).json()["job_id"], *id, "{args:?}");
    }
    let list = world.run(&["list", "--json"]).exits(0).json();
    assert_eq!(list["jobs"][0]["job_id"], *id);
    assert_eq!(list["jobs"][0]["status"], "RUNNING");
    assert_eq!(
        crate::fixtures::keys(&list["jobs"][0]),
        [
            "job_id",
            "name",
            "parallelism",
            "restored_from",
            "started_at",
            "status",
            "version"
        ]
    );
    let cancelled = world.run(&["cancel", "copy"]).exits(0);
    assert_eq!(cancelled.stdout, format!("Cancelling job {id}.\nCancelled job {id}.\n"));
    let ran = job.end().exits(1);
    assert!(
        ran.stderr.ends_with(&format!("error: job copy ({id}) was CANCELED\n")),
        "{}",
        ran.stderr
    );
    assert_eq!(files(&world.path().join("data/run")), [""; 0]);
    assert_eq!(world.run(&["list"]).exits(0).stdout, NONE);
    assert_eq!(world.run(&["list", "--json"]).exits(0).json(), json!({ "jobs": [] }));
}

/// Writes an announcement of a job that does not answer.
fn announce(world: &World, pid: u32) -> String {
    let id = "0123456789abcdef0123456789abcdef";
    let text = json!({ "job_id": id, "name": "old", "pid": pid, "url": "http://127.0.0.1:1" }).to_string();
    world.write(&format!("data/run/{id}.json"), &text);
    format!("{id}.json")
}

#[test]
fn a_stale_one_is_ignored_and_cleaned() {
    let world = World::new();
    let mut gone = Command::new("true").spawn().expect("a process");
    gone.wait().expect("ended");
    announce(&world, gone.id());
    assert_eq!(world.run(&["list"]).exits(0).stdout, NONE);
    assert_eq!(files(&world.path().join("data/run")), [""; 0]);
}

#[test]
fn one_that_does_not_answer_is_told_of() {
    let world = World::new();
    let name = announce(&world, std::process::id());
    for args in [&["list"][..], &["info", "old"], &["cancel", "old"]] {
        let ran = world.run(args).exits(1);
        let data = world.path().join("data");
        let begins = format!(
            "error: none of the hosts that are announced in the data directory {} answers, so their jobs are not known:\n  the host at http://127.0.0.1:1 does not answer: http://127.0.0.1:1/api/v1/jobs: ",
            data.display()
        );
        assert!(ran.stderr.starts_with(&begins), "{}", ran.stderr);
        assert!(ran.stderr.ends_with("; is the host still running?\n"), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    // Its process exists, so it may answer later.
    assert_eq!(files(&world.path().join("data/run")), [name]);
    // Beside one that answers.
    let host = world.serve(&[]);
    let listed = world.run(&["list"]).exits(0);
    assert_eq!(listed.stdout, NONE);
    let said = "the jobs of a host are left out: the host at http://127.0.0.1:1 does not answer: ";
    assert!(listed.stderr.contains(said), "{}", listed.stderr);
    drop(host);
}

#[test]
fn a_named_host_that_does_not_answer_is_an_error() {
    let ran = World::new().run(&["list", "--host", "127.0.0.1:1"]).exits(1);
    assert!(
        ran.stderr.starts_with("error: http://127.0.0.1:1/api/v1/jobs: "),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.ends_with("; is the host still running?\n"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn the_same_name_twice_is_refused() {
    let world = watching();
    let job = world.start(&["job.toml"]);
    let again = world.run(&["run", "job.toml"]).exits(1);
    let message = format!(
        "error: a job named \"copy\" is running already ({}); stop it, give this one another name with --name, or allow it with --allow-same-name\n",
        job.job_id
    );
    assert_eq!(again.stderr, message);
    let other = world.start(&["job.toml", "--name", "other"]);
    let list = world.run(&["list", "--json"]).exits(0).json();
    assert_eq!(list["jobs"].as_array().map(Vec::len), Some(2));
    // With two of them, a common prefix names neither.
    let both = world.run(&["info", ""]).exits(2);
    assert!(
        both.stderr.starts_with("error: there is no job \"\"; "),
        "{}",
        both.stderr
    );
    drop((job, other));
}

#[test]
fn jobs_of_several_hosts_are_listed_in_order_of_time() {
    let world = watching();
    let jobs = ["a", "b", "c", "d"].map(|name| world.start(&["job.toml", "--name", name]));
    let list = world.run(&["list"]).exits(0).stdout;
    let expected = jobs.each_ref().map(|job| job.job_id.as_str());
    let listed: Vec<&str> = list.lines().filter_map(|line| line.split(" : ").nth(1)).collect();
    assert_eq!(listed, expected, "{list}");
}

/// Returns true if no thread of a process runs.
fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let mut states = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok());
    states.all(|status| status.contains("\nState:\tT"))
}

/// Ctrl-Z in one terminal must not hold up the others.
#[test]
fn a_host_that_is_stopped_is_told_of() {
    let world = watching();
    let job = world.start(&["job.toml"]);
    let signal = |signal: &str| {
        let sent = Command::new("kill")
            .args(["-s", signal, &job.pid().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    };
    signal("STOP");
    wait_until("all threads have stopped", || is_stopped(job.pid()));
    let message = " does not answer; is its process stopped? (`fg` brings back what Ctrl-Z has stopped)\n";
    // It has not ended: it is not told how to go on from it.
    for args in [&["list", "-a"][..], &["info", "copy"]] {
        let silent = world.run(args).exits(1);
        assert_eq!(silent.stdout, "");
        assert!(silent.stderr.ends_with(message), "{}", silent.stderr);
    }
    signal("CONT");
    assert!(world.run(&["list"]).exits(0).stdout.contains(" : copy (RUNNING)"));
}

#[test]
fn cancel_with_a_savepoint_never_takes_the_job_for_a_directory() {
    let world = watching();
    let job = world.start(&["job.toml"]);
    let ran = world.run(&["cancel", "-s", "sp", "copy"]).exits(0);
    assert!(
        ran.stdout
            .starts_with(&format!("Cancelling job {} with savepoint to sp.\n", job.job_id)),
        "{}",
        ran.stdout
    );
    let saved = format!(
        "Cancelled job {}. Savepoint stored in file://{}/sp/savepoint-{}-",
        job.job_id,
        world.path().display(),
        &job.job_id[..6]
    );
    assert!(ran.stdout.contains(&saved), "{}", ran.stdout);
    job.end().exits(1);
}
