//! Ctrl-C in the terminal of an attached run.

use std::process::Command;

use crate::fixtures::{COPY, PLAIN, files, hostile_world, plain};
use crate::support::{Attached, World};

/// Returns a world with an endless job with these settings.
fn world(settings: &str) -> World {
    let world = World::new();
    let job = COPY.replace("path = \"in/*\"", "path = \"in/*\"\nmode = \"watch\"\npoll = \"10ms\"");
    world.write(
        "job.toml",
        &job.replace("name = \"copy\"", &format!("name = \"copy\"\n{settings}")),
    );
    world.write("in/a", "a\n");
    world
}

fn interrupt(job: &Attached) {
    let sent = Command::new("kill")
        .args(["-INT", &job.pid().to_string()])
        .status()
        .expect("kill runs");
    assert!(sent.success());
}

#[test]
fn it_stops_with_a_savepoint_where_there_is_a_place_for_one() {
    let world = world("[savepoint]\ndir = \"sp\"");
    let job = world.start(&["job.toml"]);
    let id = job.job_id.clone();
    interrupt(&job);
    let ran = job.end().exits(0);
    let log = plain(&world, &ran.stderr);
    assert!(
        log.contains("interrupted: stopping with a savepoint; Ctrl-C again ends at once, with nothing saved\n"),
        "{log}"
    );
    let path = format!("file://DIR/sp/savepoint-{}-", &id[..6]);
    let line = log
        .lines()
        .find(|line| line.starts_with("Savepoint completed. Path: "))
        .expect("a savepoint");
    assert!(
        line.starts_with(&format!("Savepoint completed. Path: {path}")),
        "{line}"
    );
    assert!(
        files(&world.path().join("sp"))
            .iter()
            .any(|file| file.ends_with("/_metadata"))
    );
    assert_eq!(files(&world.path().join("data/run")), [""; 0]);
}

#[test]
fn it_cancels_and_says_what_is_lost_where_there_is_none() {
    let world = world("");
    let job = world.start(&["job.toml"]);
    interrupt(&job);
    let ran = job.end().exits(130);
    let said = "interrupted: the job is cancelled; nothing is saved, since no savepoint directory is known: set `dir` in \
                [savepoint], or use `regraft stop JOB --savepoint-path DIR`\n";
    let log = plain(&world, &ran.stderr);
    assert!(
        log.contains(said) && log.ends_with("error: job copy (JOB) was CANCELED\n"),
        "{log}"
    );
    assert_eq!(files(&world.path().join("data/run")), [""; 0]);
}

#[test]
fn the_second_one_ends_at_once_and_json_says_so() {
    // A guest that computes without end cannot be saved.
    let settings = "inputs = [\"lines\"]\nconfig = { do = \"loop\" }\nlimits.time-per-batch = \"1h\"";
    for json in [false, true] {
        let world = hostile_world(PLAIN, settings);
        let mut job = world.start(if json { &["job.toml", "--json"] } else { &["job.toml"] });
        job.wait_for_log("switched from state CREATED to RUNNING");
        std::thread::sleep(std::time::Duration::from_millis(200));
        interrupt(&job);
        job.wait_for_log("interrupted: ");
        interrupt(&job);
        let ran = job.end().exits(130);
        let said = "interrupted again: ended at once, nothing is saved";
        assert!(ran.stderr.ends_with(&format!("{said}\n")), "{}", ran.stderr);
        if json {
            let error = &ran.json()["error"];
            assert_eq!(
                (
                    error["kind"].as_str(),
                    plain(&world, error["message"].as_str().expect("a message")).as_str()
                ),
                (Some("interrupted"), format!("job j (JOB): {said}").as_str())
            );
        } else {
            assert_eq!(ran.stdout, "");
        }
        // The next command cleans up what it has left behind.
        assert_eq!(world.run(&["list"]).exits(0).stdout, "No running jobs.\n");
        assert_eq!(files(&world.path().join("data/run")), [""; 0]);
    }
}

#[test]
fn it_says_so_where_the_savepoint_fails() {
    let world = world("[savepoint]\ndir = \"sp\"");
    world.write("sp", "a file");
    let mut job = world.start(&["job.toml"]);
    interrupt(&job);
    job.wait_for_log("no savepoint was taken: ");
    // It goes on, with all of its state.
    assert_eq!(
        world.run(&["info", &job.job_id, "--json"]).exits(0).json()["status"],
        "RUNNING"
    );
    interrupt(&job);
    let ran = job.end().exits(130);
    let log = plain(&world, &ran.stderr);
    let at = log.find("no savepoint was taken: ").expect("a message");
    let line = log[at..].lines().next().unwrap_or_default();
    let (before, after) = line.split_once("/.probe-").expect("the probe");
    assert_eq!(
        before,
        "no savepoint was taken: the savepoint directory cannot be used: cannot write file://DIR/sp"
    );
    assert!(
        after.ends_with(": Not a directory (os error 20); the job goes on; Ctrl-C again ends it at once"),
        "{line}"
    );
}
