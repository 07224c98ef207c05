//! stdout carries results and nothing else.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use xxhash_rust::xxh3::xxh3_64;

use crate::fixtures::{COPY, keys, plain};
use crate::support::{Ran, World};

fn copy(lines: &[&str], parallelism: u32, connector: &str) -> World {
    let world = World::new();
    let job = COPY.replace(
        "name = \"copy\"",
        &format!("name = \"copy\"\nparallelism = {parallelism}"),
    );
    world.write("job.toml", &job.replace("\"print\"", &format!("\"{connector}\"")));
    for (i, lines) in lines.iter().enumerate() {
        world.write(&format!("in/{i}"), lines);
    }
    world
}

#[test]
fn print_at_parallelism_one() {
    let world = copy(&["a\nb c\n", "d"], 1, "print");
    assert_eq!(world.run(&["run"]).exits(0).stdout, "a\nb c\nd\n");
}

#[test]
fn print_at_a_higher_parallelism_names_the_subtask() {
    // Files are assigned to subtasks in order, one each.
    let world = copy(&["a\nb\n", "c\n", "d\n"], 3, "print");
    let ran = world.run(&["run"]).exits(0);
    let mut lines: Vec<&str> = ran.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1> a", "1> b", "2> c", "3> d"]);
}

#[test]
fn blackhole_says_how_many_and_which() {
    let lines: Vec<String> = (0..1000).map(|i| format!("line {i}")).collect();
    let sum = lines
        .iter()
        .fold(0u64, |sum, line| sum.wrapping_add(xxh3_64(line.as_bytes())));
    let expected = format!("blackhole out: records=1000 checksum={sum:016x}\n");
    for parallelism in [1, 3] {
        let (head, tail) = lines.split_at(300);
        let world = copy(&[&head.join("\n"), &tail.join("\n"), ""], parallelism, "blackhole");
        assert_eq!(
            world.run(&["run"]).exits(0).stdout,
            expected,
            "parallelism {parallelism}"
        );
    }
}

#[test]
fn blackhole_of_nothing() {
    let world = copy(&[""], 1, "blackhole");
    assert_eq!(
        world.run(&["run"]).exits(0).stdout,
        "blackhole out: records=0 checksum=0000000000000000\n"
    );
}

#[test]
fn json_of_a_run() {
    let world = copy(&["a\nb\n"], 1, "blackhole");
    let ran = world.run(&["run", "--json"]).exits(0);
    let json = ran.json();
    assert_eq!(
        keys(&json),
        [
            "blackholes",
            "dead_letters",
            "duration_ms",
            "job_id",
            "name",
            "records_in",
            "records_out",
            "savepoint",
            "status"
        ]
    );
    let sum = xxh3_64(b"a").wrapping_add(xxh3_64(b"b"));
    assert_eq!(json["blackholes"]["out"]["records"], 2);
    assert_eq!(json["blackholes"]["out"]["checksum"], format!("{sum:016x}"));
    assert_eq!(
        (json["name"].as_str(), json["status"].as_str()),
        (Some("copy"), Some("FINISHED"))
    );
    assert_eq!(
        (json["records_in"].as_u64(), json["records_out"].as_u64()),
        (Some(2), Some(2))
    );
    assert_eq!(
        (json["dead_letters"].as_u64(), json["savepoint"].is_null()),
        (Some(0), true)
    );
    assert_eq!(
        json["job_id"].as_str().map(|id| plain(&world, id)).as_deref(),
        Some("JOB")
    );
}

#[test]
fn json_leaves_stdout_to_one_object() {
    let world = copy(&["a\nb\n"], 1, "print");
    let ran = world.run(&["run", "--json"]).exits(0);
    assert_eq!(ran.json()["status"], "FINISHED", "{}", ran.stdout);
    // The output of a print sink goes to stderr instead, and is not lost.
    assert!(ran.stderr.contains("a\nb\n"), "{}", ran.stderr);
}

#[test]
fn what_happens_is_told_on_stderr() {
    let world = copy(&["a\nb\n"], 1, "blackhole");
    let ran = world.run(&["run"]).exits(0);
    let log = plain(&world, &ran.stderr);
    for line in [
        " Job copy (JOB) listens on http://127.0.0.1:",
        " Job copy (JOB) switched from state CREATED to RUNNING.",
        " Triggering checkpoint 1 (type=CHECKPOINT) @ ",
        " Completed checkpoint 1 for job JOB (",
        " Job copy (JOB) switched from state RUNNING to FINISHED.",
        "Job copy (JOB) finished: 2 records in, 2 out, in ",
    ] {
        assert!(log.contains(line), "no {line:?} in:\n{log}");
    }
}

#[test]
fn a_failure_is_told_once_and_its_first_line_in_the_log() {
    let world = crate::fixtures::hostile_world(
        crate::fixtures::PLAIN,
        "inputs = [\"lines\"]\nconfig = { do = \"panic\" }",
    );
    let ran = world.run(&["run"]).exits(1);
    assert_eq!(ran.stderr.matches("\n  record: ").count(), 1, "{}", ran.stderr);
    assert_eq!(
        ran.stderr.matches("failed in process: the module panicked at ").count(),
        2,
        "{}",
        ran.stderr
    );
    assert!(plain(&world, &ran.stderr).contains(" (JOB) failed: operator \"bad\", subtask 0, failed in "));
}

/// A closed stdout stays closed: the job ends, although it is endless and its restarts are unlimited.
#[test]
fn a_job_ends_when_nobody_reads_its_stdout() {
    let lines: Vec<String> = (0..100_000).map(|i| format!("line {i}")).collect();
    let world = copy(&[&lines.join("\n")], 1, "print");
    let mut command = world.command(&["run", "--set", "lines.mode=watch"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut first).expect("a line");
    drop(stdout);
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("waitable").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("killed");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let ran = Ran::from(child.wait_with_output().expect("it has ended")).exits(1);
    assert_eq!(first, "line 0\n");
    let message = "FAILED: sink \"out\", subtask 0, failed in write: cannot write to stdout: Broken pipe (os error 32); its reader has closed it\n";
    assert!(ran.stderr.ends_with(message), "{}", ran.stderr);
    assert!(!ran.stderr.contains("restarts"), "{}", ran.stderr);
}

/// Opens a pseudoterminal. Text written to the second end is read from the first.
fn terminal() -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("granted");
    unlockpt(&ours).expect("unlocked");
    let path = ptsname(&ours, vec![]).expect("its name");
    let theirs = open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).expect("its other end");
    (ours.into(), theirs)
}

/// On a terminal, the progress line is at the place of the next line.
#[test]
fn what_is_printed_is_not_appended_to_the_progress_line() {
    let world = copy(&["early\n"], 1, "print");
    let (mut ours, theirs) = terminal();
    let again = theirs.try_clone().expect("a second one");
    let mut command = world.command(&["run", "--set", "lines.mode=watch", "--set", "lines.poll=10ms"]);
    let mut child = command.stdout(theirs).stderr(again).spawn().expect("runs");
    drop(command);
    let mut seen = Vec::new();
    let mut until = |text: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !String::from_utf8_lossy(&seen).contains(text) {
            assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&seen));
            let mut bytes = [0; 4096];
            let read = ours.read(&mut bytes).expect("it runs");
            seen.extend_from_slice(&bytes[..read]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    };
    until("copy RUNNING: ");
    world.write("in/0", "early\nlate\n");
    let text = until("late\r\n");
    child.kill().expect("killed");
    child.wait().expect("waitable");
    let before = &text[..text.find("late").expect("there")];
    assert!(
        before.ends_with('\n') || before.ends_with("\x1b[2K") || before.ends_with('\r'),
        "{before:?}"
    );
}
