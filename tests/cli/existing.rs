//! A job that is run again into the directory of its output.

use crate::fixtures::COPY;
use crate::support::{World, wait_until};

/// A job that copies lines to files, with further settings of the sink.
fn copy(settings: &str) -> World {
    let world = World::new();
    world.write("job.toml", &job(settings));
    world.write("in/a", "a\n");
    world
}

fn job(settings: &str) -> String {
    COPY.replace("\"print\"", &format!("\"file\"\npath = \"out\"\n{settings}"))
}

fn parts(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path().join("out")).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[test]
fn by_default_earlier_parts_stay_and_a_warning_says_so() {
    let world = copy("");
    let first = world.run(&["run"]).exits(0);
    assert!(!first.stderr.contains("earlier runs"), "{}", first.stderr);
    let again = world.run(&["run"]).exits(0);
    let out = world.path().join("out");
    let said = format!(
        "sink \"out\": {} holds 1 part(s) of earlier runs of this job, which stay there beside those of this one (existing = \"keep\"). With \"replace\" the first commit removes them, with \"refuse\" the job does not start.",
        out.display()
    );
    assert!(again.stderr.contains(&said), "{}", again.stderr);
    assert!(
        !again.stderr.contains("run -s"),
        "no checkpoint is kept: {}",
        again.stderr
    );
    assert_eq!(world.committed("out"), ["a", "a"]);
    // A job of another name has no earlier runs here.
    let other = world.run(&["run", "--name", "other"]).exits(0);
    assert!(!other.stderr.contains("earlier runs"), "{}", other.stderr);
}

#[test]
fn the_warning_names_a_checkpoint_to_go_on_from() {
    let world = copy("");
    let watching = job("").replace("path = \"in/*\"", "path = \"in/*\"\nmode = \"watch\"\npoll = \"10ms\"");
    world.write("watch.toml", &format!("{watching}[checkpoint]\ninterval = \"50ms\"\n"));
    let mut killed = world.start(&["watch.toml"]);
    wait_until("output", || !world.committed("out").is_empty());
    killed.kill();
    let again = world.run(&["run"]).exits(0);
    let kept = format!(
        "To go on from where the last one was: run -s file://{}",
        world.path().display()
    );
    assert!(
        again.stderr.contains(&kept) && again.stderr.contains(&killed.job_id),
        "{}",
        again.stderr
    );
}

#[test]
fn replace_leaves_the_output_of_the_last_run() {
    let world = copy("existing = \"replace\"");
    world.run(&["run"]).exits(0);
    let first = parts(&world);
    world.write("out/part-out-0-0123456789ab-1-0.txt", "was here\n");
    world.run(&["run"]).exits(0);
    assert_eq!(world.committed("out"), ["a", "was here"]);
    assert!(!parts(&world).contains(&first[0]), "{first:?}");
    // A run that fails before it commits anything removes nothing.
    std::fs::remove_file(world.path().join("in/a")).expect("removed");
    world.run(&["run"]).exits(1);
    assert_eq!(world.committed("out"), ["a", "was here"]);
    // One without any output removes what was there before.
    world.write("in/b", "");
    world.run(&["run"]).exits(0);
    assert_eq!(world.committed("out"), ["was here"]);
}

#[test]
fn a_restore_replaces_nothing() {
    let world = copy("existing = \"replace\"");
    let saved = world
        .run(&["run", "--savepoint-at-end", "sp", "--json"])
        .exits(0)
        .json();
    let saved = saved["savepoint"].as_str().expect("a savepoint").to_owned();
    world.write("in/b", "b\n");
    world.run(&["run", "-s", &saved]).exits(0);
    assert_eq!(world.committed("out"), ["a", "b"]);
}

#[test]
fn refuse_does_not_start() {
    let world = copy("existing = \"refuse\"");
    world.run(&["run"]).exits(0);
    let first = parts(&world);
    let again = world.run(&["run", "--json"]).exits(1);
    let message = format!(
        "sink \"out\": {} holds 1 part(s) of earlier runs of this job, {} the first of them, and existing = \"refuse\". Remove them, write elsewhere (--set out.path=…), or set existing to \"keep\" or \"replace\"",
        world.path().join("out").display(),
        first[0]
    );
    assert_eq!(again.json()["error"]["message"], message.as_str());
    assert_eq!(again.json()["error"]["uid"], "out");
    assert_eq!(parts(&world), first);
}

#[test]
fn a_shared_directory_is_not_replaced() {
    let world = copy("existing = \"replace\"");
    let refused = world.run(&["run", "--allow-shared-output"]).exits(2).stderr;
    let said = "\"out\": existing = \"replace\" and --allow-shared-output do not go together";
    assert!(refused.contains(said), "{refused}");
}

#[test]
fn what_dead_runs_left_pending_is_removed_and_that_of_live_ones_is_not() {
    let world = copy("");
    // The part of the first line is written while the second record is awaited, and committed by no checkpoint.
    let watching = job("").replace("path = \"in/*\"", "path = \"in/*\"\nmode = \"watch\"\npoll = \"10ms\"");
    world.write("in/a", &"a\n".repeat(300_000));
    world.write("watch.toml", &format!("{watching}[checkpoint]\ninterval = \"off\"\n"));
    let pending = |job_id: &str| {
        let dir = world.path().join("out/.pending").join(job_id);
        let attempts = std::fs::read_dir(dir).into_iter().flatten();
        let parts = |attempt: std::fs::DirEntry| std::fs::read_dir(attempt.path()).map_or(0, Iterator::count);
        attempts.filter_map(Result::ok).map(parts).sum::<usize>()
    };
    let mut killed = world.start(&["watch.toml", "--name", "killed"]);
    wait_until("a pending part", || pending(&killed.job_id) == 1);
    let live = world.start(&["watch.toml", "--name", "live", "--allow-shared-output"]);
    wait_until("a pending part", || pending(&live.job_id) == 1);
    killed.kill();
    world.run(&["run", "--name", "third", "--allow-shared-output"]).exits(0);
    assert!(!world.path().join("out/.pending").join(&killed.job_id).exists());
    assert_eq!(pending(&live.job_id), 1);
}
