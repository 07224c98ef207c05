//! Small disks that are full: a snapshot that cannot be saved is reported, and the job goes on. Where file systems
//! cannot be mounted, these tests print that they are not run and pass.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use regraft::graph::Overrides;
use serde_json::json;

use crate::recovery::last_failed;
use crate::setup::{
    BLACKHOLE, FILE_SINK, component, counted_by_hand, counts, graph, info, made_up_job, show, shown, stop, words_job,
};
use crate::support::{World, wait_until};

#[test]
fn a_full_disk_is_told_and_got_over() {
    let world = World::new();
    let Some((dir, _mounted)) = small_disk(&world, "ckpt", "4m") else {
        return;
    };
    world.write("job.toml", &tolerant());
    let mut job = world.start(&["job.toml"]);
    job.wait_for_log("Completed checkpoint 2 ");
    fill(&dir.join("filler"));
    let line = job.wait_for_log(" FAILED (");
    assert!(
        line.contains("no space left writing file://") && line.contains("Free some space"),
        "{line}"
    );
    wait_until("no partial files", || partial(&dir.join(&job.job_id)).is_empty());
    assert_eq!(info(&world, &job.job_id)["status"], "RUNNING");
    std::fs::remove_file(dir.join("filler")).expect("removed");
    let failed = last_failed(&info(&world, &job.job_id));
    wait_until("a later one", || {
        let view = info(&world, &job.job_id);
        view["last_checkpoint"]["checkpoint_id"].as_u64() > Some(failed)
    });
    stop(&world, job);
}

#[test]
fn a_drain_whose_savepoint_fails_goes_back_and_reads_on() {
    let world = World::new();
    let Some((dir, _mounted)) = small_disk(&world, "kept", "8m") else {
        return;
    };
    world.write("job.toml", &words_job("words", "final"));
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["job.toml"]);
    let counted = |words: u64| info(&world, "words")["operators"][2]["records_in"].as_u64() >= Some(words);
    wait_until("three words", || counted(3));
    fill_nearly(&dir.join("filler"));
    let stop = ["stop", "words", "--drain", "--savepoint-path", "kept"];
    let failed = world.run(&stop).exits(1).stderr;
    assert!(failed.contains(" FAILED (no space left writing file://"), "{failed}");
    wait_until("it runs again", || info(&world, "words")["status"] == "RUNNING");
    assert!(world.committed("out").is_empty(), "nothing is final yet");
    std::fs::remove_file(dir.join("filler")).expect("removed");
    world.write("in/words.txt", "a b a\nb b\n");
    // The count goes on over attempts, and the second one reads the first three words again.
    wait_until("two more words", || counted(8));
    world.run(&stop).exits(0);
    let log = job.end().exits(0).stderr;
    let back = "it was drained, and its savepoint failed; the job goes back to its last checkpoint.";
    assert!(log.contains(back), "{log}");
    assert_eq!(world.committed("out"), ["a\t2", "b\t3"], "each count once");
}

#[test]
fn a_savepoint_at_the_end_is_taken_again_with_a_pause() {
    let world = World::new();
    let Some((dir, _mounted)) = small_disk(&world, "kept", "8m") else {
        return;
    };
    let bounded = words_job("words", "final").replace("mode = \"watch\"\npoll = \"10ms\"\n", "");
    let tolerant = "interval = \"off\"\ntolerable-failures = 100000";
    world.write("job.toml", &bounded.replace("interval = \"off\"", tolerant));
    world.write("in/words.txt", "a b a\n");
    fill_nearly(&dir.join("filler"));
    let mut job = world.start(&["job.toml", "--savepoint-at-end", "kept"]);
    job.wait_for_log(" FAILED (no space left writing file://");
    std::thread::sleep(Duration::from_secs(3));
    let failed = job.stderr().matches(" FAILED (no space left").count();
    assert!((2..=5).contains(&failed), "{failed} times in three seconds");
    std::fs::remove_file(dir.join("filler")).expect("removed");
    let ran = job.end().exits(0);
    assert!(ran.stderr.contains("Savepoint completed. Path: "), "{}", ran.stderr);
}

#[test]
fn a_host_whose_disk_is_full_when_it_starts_brings_its_jobs_back_when_there_is_room() {
    let world = World::new();
    let Some((dir, _mounted)) = small_disk(&world, "ckpt", "8m") else {
        return;
    };
    let job_file = tolerant();
    world.write("job.toml", &job_file);
    let mut host = world.serve(&[]);
    world.run(&["run", "-d", "job.toml"]).exits(0);
    wait_until("output", || !world.committed("out").is_empty());
    fill(&dir.join("filler"));
    host.kill();
    let mut host = world.serve(&[]);
    host.wait_for_log("It is tried again in 1s");
    let held = info(&world, "words");
    assert_eq!(held["status"], "RESTARTING", "{held}");
    assert!(
        held["failure"]
            .as_str()
            .is_some_and(|why| why.contains("no space left")),
        "{held}"
    );
    let refused = world.run(&["savepoint", "words"]).exits(1).stderr;
    assert!(refused.contains("is RESTARTING, not RUNNING"), "{refused}");
    std::fs::remove_file(dir.join("filler")).expect("removed");
    wait_until("it runs again", || info(&world, "words")["status"] == "RUNNING");
    let answer = world.run(&["stop", "words", "--json"]).exits(0).json();
    let saved = show(&world, answer["path"].as_str().expect("a path"));
    let by_hand = counted_by_hand(
        &graph(&job_file, world.path(), &Overrides::default()),
        &shown(&saved, "events")["splits"],
    );
    assert!(counts(&saved) == by_hand, "nothing is lost or counted twice");
    assert_eq!(world.committed("out").len() as u64, by_hand.values().sum::<u64>());
    // A job that is waiting to be brought back can be cancelled.
    world
        .run(&["run", "-d", "job.toml", "--set", "out.path=other"])
        .exits(0);
    wait_until("output", || !world.committed("other").is_empty());
    fill(&dir.join("filler"));
    host.kill();
    let mut host = world.serve(&[]);
    host.wait_for_log("It is tried again in 1s");
    std::fs::remove_file(dir.join("filler")).expect("removed");
    world.run(&["cancel", "words"]).exits(0);
}

#[test]
fn an_upgrade_on_a_full_disk_is_refused_and_the_job_runs_on() {
    let world = World::new();
    let Some((dir, _mounted)) = small_disk(&world, "ckpt", "8m") else {
        return;
    };
    world.write("job.toml", &tolerant());
    let mut job = world.start(&["job.toml", "-p", "2"]);
    job.wait_for_log("Completed checkpoint 2 ");
    fill_nearly(&dir.join("filler"));
    let module = format!("count={}", component("count-v2").display());
    let failed = world.run(&["upgrade", "words", "--module", &module]).exits(1).stderr;
    let expected = "the upgrade is refused, and the job goes on as it was: it could not be recorded: no space left writing file://";
    assert!(failed.contains(expected), "{failed}");
    let view = info(&world, "words");
    assert_eq!((&view["status"], &view["version"]), (&json!("RUNNING"), &json!(1)));
    let log = job.stderr();
    assert!(!log.contains("goes back to its last checkpoint"), "{log}");
    let names = std::fs::read_dir(dir.join(&job.job_id))
        .expect("its directory")
        .flatten();
    let probes = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(".probe"));
    assert_eq!(probes.count(), 0);
    std::fs::remove_file(dir.join("filler")).expect("removed");
    stop(&world, job);
}

#[test]
fn an_upgrade_that_fails_behind_its_barrier_goes_back_to_the_old_modules() {
    let world = World::new();
    let Some((dir, _mounted)) = small_disk(&world, "ckpt", "64m") else {
        return;
    };
    // It is never restarted by itself.
    let job_file = made_up_job("words", 0, 700_000, 400_000, "update", FILE_SINK)
        .replace("interval = \"off\"", "interval = \"off\"\ndir = \"ckpt\"");
    world.write("job.toml", &job_file);
    let mut job = world.start(&["job.toml", "-p", "2"]);
    let read = || info(&world, "words")["records_in"].as_u64().expect("a number");
    let upgrade = |guest: &str| {
        let module = format!("count={}", component(guest).display());
        world.run(&["upgrade", "words", "--module", &module])
    };
    upgrade("count-v2").exits(0);
    // There is room for the records and the module, and not for the state that changes meanwhile. The module is there already,
    // since it was kept as the way back.
    let room = std::fs::metadata(component("count")).expect("built").len() + 96 * 1024;
    // What is still being removed would make more room.
    wait_until("the directory is at rest", || {
        let before = files_in(&dir);
        std::thread::sleep(Duration::from_millis(500));
        files_in(&dir) == before
    });
    fill_but(&dir.join("filler"), room);
    let changed = read() + 1_400_000;
    wait_until("much has changed", || read() > changed);
    let failed = upgrade("count").exits(1).stderr;
    assert!(failed.contains("no space left writing file://"), "{failed}");
    std::fs::remove_file(dir.join("filler")).expect("removed");
    job.wait_for_log("an upgrade failed; the job goes back to its last checkpoint.");
    wait_until("it runs again", || {
        info(&world, "words")["status"] == "RUNNING" && read() > 100
    });
    assert_eq!(info(&world, "words")["version"], 2, "with the modules it had");
    // With enough room it succeeds.
    upgrade("count").exits(0);
    assert_eq!(info(&world, "words")["version"], 3);
    let (saved, _) = stop(&world, job);
    let saved = show(&world, &saved);
    let by_hand = counted_by_hand(
        &graph(&job_file, world.path(), &Overrides::default()),
        &shown(&saved, "events")["splits"],
    );
    assert!(counts(&saved) == by_hand, "nothing is lost or counted twice");
    let updates = world.committed("out").len() as u64;
    assert_eq!(updates, by_hand.values().sum::<u64>(), "one line for each record");
}

/// Mounts a small disk at a directory of the world, for as long as the second value is kept. Prints that the test is
/// not run and returns `None` where that is impossible.
fn small_disk(world: &World, name: &str, size: &str) -> Option<(PathBuf, Mounted)> {
    let dir = world.path().join(name);
    std::fs::create_dir(&dir).expect("made");
    let mounted = Mounted::new(&dir, size);
    if mounted.is_none() {
        println!("not run: file systems cannot be mounted here");
    }
    Some((dir, mounted?))
}

#[test]
fn a_host_whose_data_directory_is_full_starts_and_answers() {
    let world = World::new();
    let Some((dir, _mounted)) = small_disk(&world, "data", "64m") else {
        return;
    };
    let job_file = made_up_job("words", 0, 50, 500, "update", BLACKHOLE);
    world.write(
        "job.toml",
        &job_file.replace("interval = \"off\"", "interval = \"100ms\""),
    );
    let mut host = world.serve(&[]);
    world.run(&["run", "-d", "job.toml"]).exits(0);
    wait_until("a checkpoint", || {
        info(&world, "words")["checkpoints"].as_u64() > Some(0)
    });
    host.kill();
    fill(&dir.join("filler"));
    let mut host = world.serve(&[]);
    let line = host.wait_for_log("Serving on http://");
    let url = line
        .split("Serving on ")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .expect("a URL")
        .to_owned();
    let status = || {
        let ran = world.run(&["info", "words", "--json", "--host", &url]).exits(0).json();
        ran["status"].as_str().unwrap_or_default().to_owned()
    };
    host.wait_for_log("It is tried again in 1s");
    assert_eq!(status(), "RESTARTING");
    std::fs::remove_file(dir.join("filler")).expect("removed");
    wait_until("it runs again", || status() == "RUNNING");
    host.terminate();
    host.end().exits(0);
}

/// A job with a checkpoint ten times a second, which tolerates a full disk.
fn tolerant() -> String {
    made_up_job("words", 0, 500, 2_000, "update", FILE_SINK).replace(
        "interval = \"off\"",
        "interval = \"100ms\"\ndir = \"ckpt\"\ntolerable-failures = 10000",
    )
}

/// Fills a disk, leaving room for one small file.
fn fill_nearly(path: &Path) {
    fill_but(path, 16 * 1024);
}

/// Fills a disk, leaving room for this number of bytes.
fn fill_but(path: &Path, room: u64) {
    fill(path);
    let filler = std::fs::OpenOptions::new().write(true).open(path).expect("there");
    let size = filler.metadata().expect("a size").len();
    filler.set_len(size - room).expect("cut");
}

/// Returns the paths of all files below a directory, in order.
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut waiting) = (vec![], vec![dir.to_owned()]);
    while let Some(next) = waiting.pop() {
        // One that is being removed may be gone.
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => waiting.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// Writes a file that takes all the room there is.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).expect("made");
    for size in [1 << 16, 1 << 12, 1] {
        while file.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
    }
}

/// Returns the checkpoints of a job that have no `_metadata`: partial ones, or one that is just being written.
fn partial(job: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(job) else {
        return vec![];
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with("chk-") && !job.join(name).join("_metadata").exists())
        .collect()
}

/// A small file system in memory, mounted while this value lives.
struct Mounted(PathBuf);

impl Mounted {
    fn new(dir: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
