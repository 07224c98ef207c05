//! Ctrl-C in the terminal of an attached run.

use std::process::Command;

use crate::fixtures::{COPY, files, plain};
use crate::support::{Attached, World};

/// An endless job, and settings of it.
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
