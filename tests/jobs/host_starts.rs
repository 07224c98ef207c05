//! Starts of a host after crashes and beside damaged files, and hosts whose stdout and stderr are not read.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::setup::{info, made_up_job, text, words_job};
use crate::support::{World, wait_until};

/// A sink for made-up jobs whose output is of no interest.
const NOWHERE: &str = "connector = \"blackhole\"\n";

fn status_of(world: &World, job: &str) -> String {
    let view = world.run(&["info", job, "--json"]);
    match view.status {
        0 => text(&view.json()["status"]),
        _ => view.stderr,
    }
}

fn wait_for_status(world: &World, job: &str, status: &str) {
    wait_until(&format!("{job} {status}"), || status_of(world, job) == status);
}

fn notes(world: &World, job_id: &str) -> Option<Value> {
    let note = world.path().join("data/jobs").join(job_id).join("starting.json");
    let note = std::fs::read(note).ok()?;
    serde_json::from_slice(&note).ok()
}

fn id_of(world: &World, job: &str) -> String {
    text(&info(world, job)["job_id"])
}

/// A job that never completes a checkpoint, so that its start is over after ten seconds only.
fn slow(name: &str) -> String {
    made_up_job(name, 0, 50, 100, "update", NOWHERE)
}

fn quick(name: &str) -> String {
    slow(name).replace("interval = \"off\"", "interval = \"100ms\"")
}

#[test]
fn a_job_that_is_starting_whenever_the_host_dies_is_set_aside_and_tried_again() {
    let world = World::new();
    world.write("quick.toml", &quick("quick"));
    world.write("slow.toml", &slow("slow"));
    let mut host = world.serve(&[]);
    world.run(&["run", "-d", "quick.toml"]).exits(0);
    let quick = id_of(&world, "quick");
    wait_until("the start of quick is over", || notes(&world, &quick).is_none());
    world.run(&["run", "-d", "slow.toml"]).exits(0);
    let slow = id_of(&world, "slow");
    // `kill -9` stands for the kernel ending a process that is out of memory: the next host cannot tell them apart.
    for death in 1..=3 {
        host.kill();
        host = world.serve(&[]);
        if death < 3 {
            host.wait_for_log(&format!("Job slow ({slow}) waits: the host died while it was starting"));
            wait_for_status(&world, "slow", "RUNNING");
            let noted = notes(&world, &slow).expect("a note");
            assert_eq!(
                (&noted["starting"], noted["deaths"].as_u64()),
                (&Value::Bool(true), Some(death))
            );
        }
        wait_for_status(&world, "quick", "RUNNING");
    }
    let said = host.wait_for_log(&format!("Job slow ({slow}) is SUSPENDED: "));
    for part in [
        "died 3 times in a row while nothing but this job was starting",
        "tries it again, alone, 10s after",
        "regraft cancel",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let listed = world.run(&["list", "--json"]).exits(0).json();
    let listed = listed["jobs"].as_array().expect("jobs").clone();
    assert!(
        listed
            .iter()
            .any(|job| job["name"] == "slow" && job["status"] == "SUSPENDED"),
        "{listed:?}"
    );
    assert!(text(&info(&world, "slow")["failure"]).contains("start `regraft serve` again"));
    let refused = world.run(&["savepoint", "slow"]).exits(1).stderr;
    assert!(
        refused.contains("is SUSPENDED, not RUNNING") && refused.contains("regraft cancel"),
        "{refused}"
    );
    // It was healthy all the time.
    wait_for_status(&world, "slow", "RUNNING");
    wait_for_status(&world, "quick", "RUNNING");
}

#[test]
fn a_job_that_is_set_aside_can_be_cancelled_and_a_host_that_is_started_anew_tries_it_at_once() {
    let world = World::new();
    let file = made_up_job("slow", 0, 50, 100, "update", NOWHERE);
    world.write("slow.toml", &file.replace("interval = \"off\"", "interval = \"1s\""));
    let mut host = world.serve(&[]);
    world.run(&["run", "-d", "slow.toml"]).exits(0);
    let slow = id_of(&world, "slow");
    host.wait_for_log("Completed checkpoint 1 ");
    host.kill();
    // As after many deaths.
    let note = world.path().join("data/jobs").join(&slow).join("starting.json");
    std::fs::write(&note, "{\"starting\": true, \"deaths\": 6}").expect("written");
    let mut host = world.serve(&[]);
    host.wait_for_log("tries it again, alone, 900s after its own start");
    assert_eq!(status_of(&world, "slow"), "SUSPENDED");
    host.terminate();
    host.end().exits(0);
    let mut host = world.serve(&[]);
    wait_for_status(&world, "slow", "RUNNING");
    host.kill();
    let host = world.serve(&[]);
    wait_for_status(&world, "slow", "SUSPENDED");
    let dir = world.path().join("data/checkpoints").join(&slow);
    let checkpoint = std::fs::read_dir(&dir).expect("its checkpoints").flatten();
    let checkpoint = checkpoint.map(|entry| entry.file_name().into_string().expect("a name"));
    let checkpoint = checkpoint
        .filter(|name| name.starts_with("chk-"))
        .max()
        .expect("a checkpoint");
    let said = world.run(&["cancel", "slow"]).exits(0).stdout;
    assert!(said.contains("Its checkpoints stay: it goes on from file://"), "{said}");
    assert!(
        dir.join(&checkpoint).join("_metadata").exists(),
        "the state is still there"
    );
    assert_eq!(status_of(&world, &slow), "CANCELED");
    let (_, way_on) = said.split_once("&& regraft ").expect("a command");
    let way_on: Vec<&str> = way_on.trim_end().trim_end_matches("`.").split(' ').collect();
    world.run(&way_on).exits(0);
    wait_for_status(&world, "slow", "RUNNING");
    world.run(&["cancel", "slow"]).exits(0);
    host.terminate();
    host.end().exits(0);
    let _host = world.serve(&[]);
    assert_eq!(status_of(&world, &slow), "CANCELED", "for good");
}

#[test]
fn verbs_say_what_has_become_of_a_job_that_nothing_runs() {
    let world = World::new();
    world.write("job.toml", &quick("quick"));
    world.write("in/words.txt", "a b a\n");
    let once = words_job("once", "final").replace("mode = \"watch\"\npoll = \"10ms\"\n", "");
    world.write("once.toml", &once);
    let host = world.serve(&[]);
    world.run(&["run", "-d", "job.toml"]).exits(0);
    world.run(&["run", "-d", "once.toml"]).exits(0);
    wait_for_status(&world, "once", "FINISHED");
    let finished = id_of(&world, "once");
    let refused = world.run(&["savepoint", "once"]).exits(1).stderr;
    assert!(refused.contains("is FINISHED, not RUNNING"), "{refused}");
    host.terminate();
    host.end().exits(0);
    for verb in ["savepoint", "stop", "cancel"] {
        let refused = world.run(&[verb, "quick"]).exits(1).stderr;
        assert!(
            refused.contains(") is SUSPENDED: no host runs it. `regraft serve` with the data directory "),
            "{refused}"
        );
        let refused = world.run(&[verb, "once"]).exits(1).stderr;
        assert!(
            refused.contains(&format!(
                "once ({finished}) is FINISHED, and no process runs it any more"
            )),
            "{refused}"
        );
        world.run(&[verb, "nothing"]).exits(2);
    }
    let log = world.run(&["logs", "quick"]).exits(0).stdout;
    assert!(
        log.contains("from state CREATED to RUNNING") && log.contains("SUSPENDED"),
        "{log}"
    );
}

#[test]
fn damage_in_the_list_of_jobs_is_told_and_keeps_no_other_job_down() {
    let world = World::new();
    world.write("job.toml", &quick("quick"));
    let mut host = world.serve(&[]);
    world.run(&["run", "-d", "job.toml"]).exits(0);
    let id = id_of(&world, "quick");
    wait_until("the start is over", || notes(&world, &id).is_none());
    host.kill();
    let jobs = world.path().join("data/jobs");
    let other = |last: char, write: &dyn Fn(&Path)| {
        let dir = jobs.join(format!("{}{last}", "0".repeat(31)));
        std::fs::create_dir_all(&dir).expect("created");
        write(&dir.join("job.json"));
    };
    let fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    other('1', &fifo);
    other('2', &|path| symlink("/dev/zero", path).expect("linked"));
    other('3', &|path| {
        std::fs::File::create(path)
            .and_then(|file| file.set_len(1 << 40))
            .expect("made")
    });
    other('4', &|path| std::fs::write(path, "{").expect("written"));
    other('5', &|path| {
        _ = std::fs::copy(jobs.join(&id).join("job.json"), path).expect("copied")
    });
    // The log of a job that is in order, too.
    let log = jobs.join(&id).join("log");
    std::fs::remove_dir_all(&log).expect("removed");
    std::fs::create_dir(&log).expect("created");
    fifo(&log.join("00000000000000000000.log"));
    let mut host = world.serve(&[]);
    for (last, why) in [
        ('1', "it is not a regular file"),
        ('2', "it is a symbolic link"),
        ('3', "it has 1099511627776 bytes"),
        ('4', "EOF while parsing"),
        ('5', "it is that of job"),
    ] {
        let line = host.wait_for_log(&format!("{}{last}/job.json is damaged: {why}", "0".repeat(31)));
        assert!(
            line.contains("A job is left out: ") && line.contains("start it anew from"),
            "{line}"
        );
    }
    wait_for_status(&world, "quick", "RUNNING");
    let before = info(&world, "quick")["records_in"].as_u64();
    wait_until("it runs", || info(&world, "quick")["records_in"].as_u64() > before);
    host.terminate();
    host.end().exits(0);
}

/// Process with stdout and stderr connected to unread pipes; killed on drop.
struct Unread(Child);

impl Unread {
    fn start(world: &World, args: &[&str]) -> Self {
        let mut command = world.command(args);
        command
            .env("REGRAFT_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().expect("spawned"))
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.0.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    fn ends_within(&mut self, patience: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < patience {
            if self.0.try_wait().expect("waitable").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_job_no_request_and_no_signal() {
    let world = World::new();
    world.write("job.toml", &quick("quick").replace("\"100ms\"", "\"1ms\""));
    let mut host = Unread::start(&world, &["serve", "--listen", "127.0.0.1:0"]);
    wait_until("the host", || {
        world.run(&["list"]).status == 0 && world.path().join("data/run/host.json").exists()
    });
    world.run(&["run", "-d", "job.toml"]).exits(0);
    // With two lines each, this is more than the 64 KiB that a pipe holds.
    wait_until("many checkpoints", || {
        info(&world, "quick")["checkpoints"].as_u64() > Some(400)
    });
    host.signal("TERM");
    assert!(
        host.ends_within(Duration::from_secs(15)),
        "it ends though its log is stuck"
    );
}

#[test]
fn output_that_nobody_reads_holds_up_its_own_job_alone() {
    let world = World::new();
    let endless = made_up_job("shown", 0, 50, 1_000_000, "update", "connector = \"print\"\n");
    world.write("job.toml", &endless.replace("interval = \"off\"", "interval = \"1h\""));
    let mut run = Unread::start(&world, &["run", "job.toml"]);
    let read = || world.run(&["info", "shown", "--json"]);
    wait_until("the job", || read().status == 0);
    let records = || read().json()["operators"][2]["records_in"].as_u64();
    let mut last = None;
    wait_until("it is held up", || {
        let now = records();
        std::thread::sleep(Duration::from_millis(300));
        now > Some(0) && std::mem::replace(&mut last, now) == now
    });
    world.run(&["cancel", "shown"]).exits(0);
    assert!(
        run.ends_within(Duration::from_secs(15)),
        "it ends though its output is stuck"
    );
}
