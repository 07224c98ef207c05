//! The handbook's scenario: count, take a savepoint, count on, stop; then go on from the savepoint, not from the stop.

use serde_json::{Value, json};

use crate::setup::{counts, info, local, savepoint, show, shown, stop, text, tsv, wait_for_out, words_job};
use crate::support::{World, committed, wait_until};

fn append(world: &World, lines: &str) {
    let path = world.path().join("in/words.txt");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    world.write("in/words.txt", &(old + lines));
}

fn offset(shown_savepoint: &Value) -> Value {
    let mut splits = shown(shown_savepoint, "lines")["splits"].clone();
    for split in splits.as_array_mut().expect("splits") {
        // The identity of the file differs from run to run.
        let position = split["position"].as_object_mut().expect("a position");
        assert!(position.remove("file").is_some());
    }
    splits
}

#[test]
fn what_came_after_the_savepoint_is_read_again() {
    let world = World::new();
    let job_file = words_job("words", "update");
    world.write("job.toml", &job_file);
    append(&world, "a b a\n");
    let job = world.start(&["job.toml"]);
    let first_id = job.job_id.clone();
    wait_for_out(&world, &job, 3);
    let saved = savepoint(&world, "words");
    assert!(
        world.committed("out").is_empty(),
        "an intermediate savepoint commits nothing"
    );
    append(&world, "b a\n");
    wait_for_out(&world, &job, 5);
    let (stopped, ran) = stop(&world, job);
    for line in [
        format!("Completed checkpoint 1 for job {first_id} ("),
        format!("Completed checkpoint 2 for job {first_id} ("),
    ] {
        assert!(ran.stderr.contains(&line), "{line:?} in {}", ran.stderr);
    }
    let triggered = |n: u32, kind: &str| {
        let (start, end) = (
            format!("Triggering checkpoint {n} (type={kind}) @ "),
            format!(" for job {first_id}."),
        );
        ran.stderr
            .lines()
            .any(|line| line.contains(&start) && line.ends_with(&end))
    };
    assert!(triggered(1, "SAVEPOINT"), "{}", ran.stderr);
    assert!(triggered(2, "SAVEPOINT"), "{}", ran.stderr);
    assert_eq!(world.committed("out"), ["a\t1", "a\t2", "a\t3", "b\t1", "b\t2"]);

    // Positions are exact: in bytes and lines of the file.
    let split = world.path().join("in/words.txt");
    let at = |offset: u64, line: u64| json!([{ "split": split, "position": { "offset": offset, "line": line } }]);
    let (saved_shown, stopped_shown) = (show(&world, &saved), show(&world, &stopped));
    assert_eq!(offset(&saved_shown), at(6, 1));
    assert_eq!(offset(&stopped_shown), at(10, 2));
    assert_eq!(tsv(&counts(&saved_shown)), ["a\t2", "b\t1"]);
    assert_eq!(tsv(&counts(&stopped_shown)), ["a\t3", "b\t2"]);

    // A new run, with another output directory, goes on from the savepoint.
    let again = world.start(&["-s", &saved, "job.toml", "--set", "out.path=out2"]);
    let second_id = again.job_id.clone();
    assert_ne!(second_id, first_id);
    wait_for_out(&world, &again, 2);
    let view = info(&world, &second_id);
    assert_eq!(view["restored_from"], json!(saved));
    assert_eq!(view["version"], 1);
    let (second, ran) = stop(&world, again);
    for line in [
        format!("Starting job words ({second_id}) from savepoint {saved} (NO_CLAIM)"),
        format!("Reset the checkpoint ID of job {second_id} to 2."),
        format!("Completed checkpoint 2 for job {second_id} ("),
    ] {
        assert!(ran.stderr.contains(&line), "{line:?} in {}", ran.stderr);
    }
    assert_eq!(world.committed("out2"), ["a\t3", "b\t2"]);
    let second_shown = show(&world, &second);
    assert_eq!(offset(&second_shown), at(10, 2));
    assert_eq!(tsv(&counts(&second_shown)), ["a\t3", "b\t2"]);
    assert_eq!(
        second_shown["lineage"],
        json!([{ "job_id": first_id, "savepoint": saved }])
    );
    assert_eq!(text(&second_shown["job_id"]), second_id);
    assert!(
        local(&saved).join("_metadata").is_file(),
        "no-claim: the savepoint stays the user's"
    );

    // From the stop, nothing is left to read.
    let third = world.start(&["-s", &stopped, "job.toml", "--set", "out.path=out3"]);
    append(&world, "a\n");
    wait_for_out(&world, &third, 1);
    stop(&world, third);
    assert_eq!(world.committed("out3"), ["a\t4"]);
}

#[test]
fn the_same_output_directory_needs_a_flag() {
    let world = World::new();
    world.write("job.toml", &words_job("words", "update"));
    append(&world, "a b a\n");
    let job = world.start(&["job.toml"]);
    let first = job.job_id[..12].to_owned();
    wait_for_out(&world, &job, 3);
    let saved = savepoint(&world, "words");
    append(&world, "b a\n");
    wait_for_out(&world, &job, 5);
    stop(&world, job);
    let refused = world.run(&["run", "-s", &saved, "job.toml"]).exits(1);
    let out = world.path().join("out");
    assert!(
        refused.stderr.contains(&format!(
            "sink \"out\": {} holds 1 part(s) of a later state than checkpoint 1 of the savepoint, part-out-0-{first}-2-0.tsv the first of them: restoring would write their records again. Remove them, write elsewhere (--set out.path=…), or allow it with --allow-later-output",
            out.display()
        )),
        "{}",
        refused.stderr
    );
    assert_eq!(committed(&out).len(), 5, "nothing has changed");
    let again = world.start(&["-s", &saved, "job.toml", "--allow-later-output"]);
    wait_for_out(&world, &again, 2);
    stop(&world, again);
    assert_eq!(
        world.committed("out"),
        ["a\t1", "a\t2", "a\t3", "a\t3", "b\t1", "b\t2", "b\t2"]
    );
}

#[test]
fn a_savepoint_that_another_job_went_on_from_is_not_gone_on_from_into_the_same_output() {
    let world = World::new();
    let job_file = words_job("words", "update").replace("interval = \"off\"", "interval = \"50ms\"");
    world.write("job.toml", &job_file);
    append(&world, "a b a\n");
    let job = world.start(&["job.toml"]);
    wait_until("output", || world.committed("out").len() == 3);
    let (saved, _) = stop(&world, job);
    append(&world, "b a\n");
    let mut killed = world.start(&["-s", &saved, "job.toml"]);
    wait_until("more output", || world.committed("out").len() == 5);
    killed.kill();
    let refused = world.run(&["run", "-s", &saved, "job.toml"]).exits(1);
    let id = &killed.job_id;
    for said in [
        format!(" part(s) of job \"words\" ({id}), part-out-0-{}-", &id[..12]),
        "which went on from this savepoint before".to_owned(),
        "or allow it with --allow-later-output".to_owned(),
    ] {
        assert!(refused.stderr.contains(&said), "{said}: {}", refused.stderr);
    }
    // Its advice works.
    let (_, checkpoint) = refused.stderr.split_once("with run -s ").expect("a checkpoint");
    let (checkpoint, _) = checkpoint.split_once(',').expect("and more");
    append(&world, "a\n");
    let again = world.start(&["-s", checkpoint, "job.toml"]);
    wait_until("the rest", || world.committed("out").len() == 6);
    stop(&world, again);
    assert_eq!(
        world.committed("out"),
        ["a\t1", "a\t2", "a\t3", "a\t4", "b\t1", "b\t2"],
        "each record once"
    );
}

#[test]
fn what_the_savepoint_has_pending_is_committed_by_the_restore() {
    let world = World::new();
    world.write("job.toml", &words_job("words", "update"));
    append(&world, "a b a\n");
    let job = world.start(&["job.toml"]);
    wait_for_out(&world, &job, 3);
    let saved = savepoint(&world, "words");
    append(&world, "b a\n");
    wait_for_out(&world, &job, 5);
    world.run(&["cancel", "words"]).exits(0);
    job.end().exits(1);
    assert!(world.committed("out").is_empty(), "a cancelled job commits nothing");
    let pending = shown(&show(&world, &saved), "out")["pending"]
        .as_array()
        .map_or(0, Vec::len);
    assert_eq!(pending, 1);
    let again = world.start(&["-s", &saved, "job.toml"]);
    wait_for_out(&world, &again, 2);
    assert_eq!(
        world.committed("out"),
        ["a\t1", "a\t2", "b\t1"],
        "committed before the job starts"
    );
    stop(&world, again);
    assert_eq!(
        world.committed("out"),
        ["a\t1", "a\t2", "a\t3", "b\t1", "b\t2"],
        "each record once"
    );
    // Without the sink, the pending output would be lost, and the message says so.
    let other = words_job("words", "update")
        .replace("uid = \"out\"", "uid = \"other\"")
        .replace("mode = \"watch\"\npoll = \"10ms\"\n", "");
    world.write("other.toml", &other);
    let orphan = ["run", "-s", &saved, "other.toml", "--allow-later-output"];
    let refused = world.run(&orphan).exits(1);
    let said = "uid \"out\": the savepoint has state of this sink (0 keys, 0 bytes, 1 part(s) of output that is not committed)";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    let dropped = world.run(&[&orphan[..], &["-n"]].concat()).exits(0);
    let said = "1 part(s) of output that the savepoint has pending for \"out\" are left to the run that wrote them";
    assert!(dropped.stderr.contains(said), "{}", dropped.stderr);
    // Pending output that is in neither place is an error.
    std::fs::remove_dir_all(world.path().join("out")).expect("removed");
    let lost = world.run(&["run", "-s", &saved, "job.toml"]).exits(1);
    assert!(
        lost.stderr
            .contains("output that a savepoint or checkpoint names is neither pending nor committed: ")
            && lost
                .stderr
                .contains("-1-0.tsv; put it back, or drop the sink's state with --drop-state"),
        "{}",
        lost.stderr
    );
}
