//! The ways in which a job ends, and what each leaves behind.

use serde_json::{Value, json};

use crate::setup::{
    BLACKHOLE, FILE_SINK, counted_by_hand, counts, graph, info, local, made_up_job, show, shown, signal, stop, text,
    tsv, wait_for_out, words_job,
};
use crate::support::{Attached, World, wait_until};

/// Starts a job, and waits until it has counted `a b a`.
fn counted(world: &World, job_file: &str) -> Attached {
    world.write("job.toml", job_file);
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["job.toml"]);
    let in_count = |view: &Value| view["operators"][2]["records_in"].as_u64();
    wait_until("three words", || in_count(&info(world, &job.job_id)) == Some(3));
    job
}

#[test]
fn draining_draws_the_final_results() {
    let world = World::new();
    let job_file = made_up_job("words", 0, 500, 20_000, "final", FILE_SINK);
    world.write("job.toml", &job_file);
    let job = world.start(&["job.toml", "-p", "2"]);
    wait_until("records", || {
        info(&world, "words")["records_in"].as_u64().is_some_and(|n| n > 1_000)
    });
    let stopped = world.run(&["stop", "words", "--drain"]).exits(0);
    let (first, last) = stopped.stdout.split_once('\n').expect("two lines");
    assert_eq!(
        first,
        "Draining job \"".to_owned() + &job.job_id + "\" with a CANONICAL savepoint."
    );
    let path = last
        .trim_end()
        .strip_prefix("Savepoint completed. Path: ")
        .expect("a path");
    job.end().exits(0);
    let saved = show(&world, path);
    let by_hand = counted_by_hand(
        &graph(&job_file, world.path(), &regraft::graph::Overrides::default()),
        &shown(&saved, "events")["splits"],
    );
    assert!(
        world.committed("out") == tsv(&by_hand),
        "the final results of what was read"
    );
    assert!(counts(&saved) == by_hand, "and the state they were drawn from");
}

#[test]
fn a_stop_draws_no_final_results() {
    let world = World::new();
    let job = counted(&world, &words_job("words", "final"));
    let (saved, _) = stop(&world, job);
    assert!(world.committed("out").is_empty());
    // When the job has read all its input, it emits them.
    let bounded = words_job("words", "final").replace("mode = \"watch\"\npoll = \"10ms\"\n", "");
    world.write("bounded.toml", &bounded);
    world.run(&["run", "-s", &saved, "bounded.toml"]).exits(0);
    assert_eq!(world.committed("out"), ["a\t2", "b\t1"]);
}

#[test]
fn a_savepoint_at_the_end_leaves_the_results_to_be_drawn() {
    let world = World::new();
    world.write("in/words.txt", "a b a\nb");
    let bounded = words_job("words", "final").replace("mode = \"watch\"\npoll = \"10ms\"\n", "");
    world.write("job.toml", &bounded);
    let ran = world
        .run(&["run", "job.toml", "-p", "2", "--savepoint-at-end", "kept", "--json"])
        .exits(0);
    let answer = ran.json();
    let saved = text(&answer["savepoint"]);
    assert!(local(&saved).starts_with(world.path().join("kept")), "{saved}");
    assert_eq!(
        (&answer["status"], &answer["records_in"], &answer["records_out"]),
        (&"FINISHED".into(), &1.into(), &0.into())
    );
    assert!(world.committed("out").is_empty(), "nothing was drawn");
    assert_eq!(tsv(&counts(&show(&world, &saved))), ["a\t2", "b\t1"]);
    // The unterminated line was left to the run that goes on, which reads all of it.
    world.write("in/words.txt", "a b a\nb b\n");
    world.run(&["run", "-s", &saved, "job.toml"]).exits(0);
    assert_eq!(world.committed("out"), ["a\t2", "b\t3"]);
}

#[test]
fn results_that_were_drawn_are_drawn_again_only_for_more_records() {
    let world = World::new();
    let job = counted(&world, &words_job("words", "final"));
    let answer = world.run(&["stop", "words", "--drain", "--json"]).exits(0).json();
    job.end().exits(0);
    assert_eq!(world.committed("out"), ["a\t2", "b\t1"]);
    let saved = text(&answer["path"]);
    let bounded = words_job("words", "final").replace("mode = \"watch\"\npoll = \"10ms\"\n", "");
    world.write("bounded.toml", &bounded);
    world.run(&["run", "-s", &saved, "bounded.toml"]).exits(0);
    assert_eq!(
        world.committed("out"),
        ["a\t2", "b\t1"],
        "there was nothing more to read"
    );
    world.write("in/words.txt", "a b a\na\n");
    world
        .run(&["run", "-s", &saved, "bounded.toml", "--set", "out.path=out2"])
        .exits(0);
    assert_eq!(world.committed("out2"), ["a\t3", "b\t1"]);
}

#[test]
fn ctrl_c_saves_where_it_can() {
    for (name, word) in [("INT", "SIGINT"), ("TERM", "SIGTERM"), ("HUP", "SIGHUP")] {
        let world = World::new();
        let job = counted(&world, &words_job("words", "update"));
        signal(&job, name);
        let ran = job.end().exits(0);
        assert_eq!(ran.stdout, "", "{word}");
        assert!(
            ran.stderr
                .contains("interrupted: stopping with a savepoint; Ctrl-C again ends at once, with nothing saved")
        );
        let path = ran
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("Savepoint completed. Path: "))
            .expect("a path");
        assert!(local(path).starts_with(world.path().join("savepoints")));
        assert_eq!(
            world.committed("out"),
            ["a\t1", "a\t2", "b\t1"],
            "{word}: a stop commits"
        );
        assert_eq!(tsv(&counts(&show(&world, path))), ["a\t2", "b\t1"]);
        // The keys of the state are known before there is a record.
        let restored = world.start(&["-s", path, "job.toml", "--set", "out.path=out-restored"]);
        let count = &info(&world, &restored.job_id)["operators"][2];
        assert_eq!((&count["keys"], &count["records_in"]), (&json!(2), &json!(0)), "{word}");
        world.run(&["cancel", &restored.job_id]).exits(0);
    }
}

#[test]
fn ctrl_c_without_a_savepoint_directory_says_what_is_lost() {
    let world = World::new();
    let job = counted(
        &world,
        &words_job("words", "update").replace("[savepoint]\ndir = \"savepoints\"\n", ""),
    );
    // A verb that needs a directory says so, and the job goes on.
    let refused = world.run(&["savepoint", "words"]).exits(1);
    let message = format!(
        "no savepoint directory is known for job {}: name one with the command (`regraft savepoint JOB DIR`, `regraft stop JOB --savepoint-path DIR`), or set `dir` in [savepoint] of the job file (Flink's state.savepoints.dir); the job goes on",
        job.job_id
    );
    assert!(refused.stderr.contains(&message), "{}", refused.stderr);
    assert!(world.run(&["stop", "words"]).exits(1).stderr.contains(&message));
    assert_eq!(info(&world, "words")["status"], "RUNNING");
    let id = job.job_id.clone();
    signal(&job, "INT");
    let ran = job.end().exits(130);
    assert!(
        ran.stderr.contains(
            "interrupted: the job is cancelled; nothing is saved, since no savepoint directory is known: set `dir` in [savepoint], or use `regraft stop JOB --savepoint-path DIR`"
        ),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(&format!("job words ({id}) was CANCELED")),
        "{}",
        ran.stderr
    );
    assert!(world.committed("out").is_empty(), "nothing is committed");
}

#[test]
fn cancel_ends_at_once_and_commits_nothing() {
    let world = World::new();
    let job = counted(&world, &words_job("words", "update"));
    let id = job.job_id.clone();
    let cancelled = world.run(&["cancel", "words"]).exits(0);
    assert_eq!(cancelled.stdout, format!("Cancelling job {id}.\nCancelled job {id}.\n"));
    let ran = job.end().exits(1);
    assert!(
        ran.stderr.contains(&format!("job words ({id}) was CANCELED")),
        "{}",
        ran.stderr
    );
    assert!(world.committed("out").is_empty());
    assert!(!world.path().join("savepoints").exists());
    assert!(
        !world.path().join("data/checkpoints").join(&id).exists(),
        "its checkpoints go"
    );
    let gone = world.run(&["cancel", &id]).exits(1).stderr;
    let said = format!("job words ({id}) is CANCELED, and no process runs it any more");
    assert!(gone.contains(&said), "{gone}");
}

/// A checkpoint that is being stored when the job is cancelled must not be written after the cleanup.
#[test]
fn cancel_in_the_middle_of_a_checkpoint_leaves_nothing() {
    let world = World::new();
    let job = made_up_job("busy", 0, 100_000, 200_000, "update", BLACKHOLE);
    world.write("job.toml", &job.replace("interval = \"off\"", "interval = \"1ms\""));
    for _ in 0..8 {
        let mut job = world.start(&["job.toml"]);
        job.wait_for_log("Completed checkpoint 3 ");
        world.run(&["cancel", &job.job_id]).exits(0);
        let id = job.job_id.clone();
        job.end().exits(1);
        let left = world.path().join("data/checkpoints").join(id);
        assert!(!left.exists(), "{} is left behind", left.display());
    }
}

#[test]
fn cancel_with_a_savepoint_keeps_the_state() {
    for (n, flag) in ["-s", "--withSavepoint=other"].iter().enumerate() {
        let world = World::new();
        let job = counted(&world, &words_job("words", "update"));
        let id = job.job_id.clone();
        let cancelled = world.run(&["cancel", flag, "words"]).exits(0);
        assert!(
            cancelled.stderr.contains("is preferred to `cancel -s`"),
            "{}",
            cancelled.stderr
        );
        let lines: Vec<&str> = cancelled.stdout.lines().collect();
        let to = ["default savepoint directory", "other"][n];
        assert_eq!(lines[0], format!("Cancelling job {id} with savepoint to {to}."));
        let path = lines[1]
            .strip_prefix(&format!("Cancelled job {id}. Savepoint stored in "))
            .expect("a path");
        let path = path.strip_suffix('.').expect("a full stop");
        assert!(
            local(path).starts_with(world.path().join(["savepoints", "other"][n])),
            "{path}"
        );
        job.end().exits(1);
        assert!(world.committed("out").is_empty());
        let again = world.start(&["-s", path, "job.toml"]);
        world.write("in/words.txt", "a b a\nb\n");
        wait_for_out(&world, &again, 1);
        stop(&world, again);
        assert_eq!(world.committed("out"), ["a\t1", "a\t2", "b\t1", "b\t2"]);
    }
}

#[test]
fn checkpoints_make_output_visible_while_the_job_runs() {
    let world = World::new();
    world.write(
        "job.toml",
        &words_job("words", "update").replace("interval = \"off\"", "interval = \"100ms\""),
    );
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["job.toml"]);
    wait_until("visible output", || world.committed("out") == ["a\t1", "a\t2", "b\t1"]);
    world.write("in/words.txt", "a b a\nb\n");
    wait_until("more of it", || world.committed("out").len() == 4);
    let view = info(&world, "words");
    assert_eq!(view["status"], "RUNNING");
    assert!(view["checkpoints"].as_u64().is_some_and(|n| n >= 2), "{view}");
    assert_eq!(view["last_checkpoint"]["kind"], "checkpoint");
    let kept = local(&text(&view["last_checkpoint"]["path"]));
    assert!(
        kept.starts_with(world.path().join("data/checkpoints").join(&job.job_id)),
        "{}",
        kept.display()
    );
    stop(&world, job);
    assert!(!world.path().join("out/.pending").exists(), "nothing is left pending");
}
