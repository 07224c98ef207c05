//! Two jobs started from one savepoint, side by side.

use std::collections::BTreeMap;

use crate::setup::{FILE_SINK, component, info, made_up_job, savepoint, show, stop, text, wait_for_out, words_job};
use crate::support::{World, committed, wait_until};

#[test]
fn both_write_what_they_would_write_alone() {
    let world = World::new();
    world.write("job.toml", &words_job("left", "update"));
    world.write("in/words.txt", "x y x\n");
    let a = world.start(&["job.toml"]);
    wait_for_out(&world, &a, 3);
    let saved = savepoint(&world, "left");
    let v2 = format!("count={}", component("count-v2").display());
    let fork = [
        "-s",
        &saved,
        "job.toml",
        "--name",
        "right",
        "--set",
        "out.path=out-b",
        "--module",
        &v2,
    ];
    let b = world.start(&fork);
    let list = world.run(&["list", "--json"]).exits(0).json();
    let names: BTreeMap<String, String> = list["jobs"]
        .as_array()
        .expect("jobs")
        .iter()
        .map(|job| (text(&job["name"]), text(&job["status"])))
        .collect();
    assert_eq!(
        names,
        BTreeMap::from([("left", "RUNNING"), ("right", "RUNNING")].map(|(n, s)| (n.into(), s.into())))
    );
    assert_eq!(info(&world, "right")["restored_from"], saved.as_str());

    world.write("in/words.txt", "x y x\nyy x\n");
    wait_for_out(&world, &a, 5);
    wait_for_out(&world, &b, 2);
    let a_id = a.job_id.clone();
    let (_, a_ran) = stop(&world, a);
    let (b_saved, b_ran) = stop(&world, b);
    assert!(!a_ran.stderr.contains(" FAILED"), "{}", a_ran.stderr);
    assert!(!b_ran.stderr.contains(" FAILED"), "{}", b_ran.stderr);
    assert_eq!(world.committed("out"), ["x\t1", "x\t2", "x\t3", "y\t1", "yy\t1"]);
    assert_eq!(
        world.committed("out-b"),
        ["x\t3\t1", "yy\t1\t2"],
        "what A had pending is A's"
    );
    assert_eq!(show(&world, &b_saved)["lineage"][0]["job_id"], a_id.as_str());
}

#[test]
fn both_run_to_the_end_of_their_input() {
    let world = World::new();
    world.write(
        "job.toml",
        &made_up_job("left", 120_000, 3_000, 40_000, "final", FILE_SINK),
    );
    world
        .run(&[
            "run",
            "job.toml",
            "--set",
            "events.rate=100000000",
            "--set",
            "out.path=alone",
        ])
        .exits(0);
    let alone = world.committed("alone");
    assert_eq!(alone.len(), 3_000);
    let a = world.start(&["job.toml", "-p", "2", "--set", "checkpoint.interval=300ms"]);
    wait_until("records", || {
        info(&world, &a.job_id)["records_in"]
            .as_u64()
            .is_some_and(|n| n > 10_000)
    });
    let saved = savepoint(&world, "left");
    let v2 = format!("count={}", component("count-v2").display());
    let b = world.start(&[
        "-s",
        &saved,
        "job.toml",
        "--name",
        "right",
        "--set",
        "out.path=out-b",
        "--module",
        &v2,
    ]);
    a.end().exits(0);
    b.end().exits(0);
    assert!(world.committed("out") == alone, "A is as it would be alone");
    let with_length = |line: &String| format!("{line}\t{}", line.find('\t').expect("two columns"));
    assert!(
        world.committed("out-b") == alone.iter().map(with_length).collect::<Vec<_>>(),
        "and so is B"
    );
}

#[test]
fn a_shared_name_or_target_needs_a_flag() {
    let world = World::new();
    world.write("job.toml", &words_job("left", "update"));
    world.write("in/words.txt", "x y x\n");
    let a = world.start(&["job.toml"]);
    let a_id = a.job_id.clone();
    wait_for_out(&world, &a, 3);
    let saved = savepoint(&world, "left");

    let same_name = world
        .run(&["run", "-s", &saved, "job.toml", "--set", "out.path=out-b"])
        .exits(1);
    let message = format!(
        "a job named \"left\" is running already ({a_id}); stop it, give this one another name with --name, or allow it with --allow-same-name"
    );
    assert!(same_name.stderr.contains(&message), "{}", same_name.stderr);

    let out = world.path().join("out");
    let message = format!(
        "sink \"out\" writes to {}, where job \"left\" ({a_id}) writes already; write elsewhere (--set out.path=…), or allow it with --allow-shared-output",
        out.display()
    );
    for path in ["out", "./out/../out"] {
        let set = format!("out.path={path}");
        let args = ["run", "-s", &saved, "job.toml", "--name", "right", "--set", &set];
        let refused = world.run(&args).exits(1);
        assert!(refused.stderr.contains("writes already"), "{path}: {}", refused.stderr);
    }
    let refused = world
        .run(&["run", "-s", &saved, "job.toml", "--name", "right", "--json"])
        .exits(1)
        .json();
    assert_eq!(refused["error"]["message"], message);
    assert_eq!(
        (&refused["error"]["kind"], &refused["error"]["uid"]),
        (&"failed".into(), &"out".into())
    );
    assert_eq!(refused["error"]["path"], out.display().to_string());

    // From then on the name is ambiguous, and the id is needed.
    let b = world.start(&["-s", &saved, "job.toml", "--set", "out.path=out-b", "--allow-same-name"]);
    let both = world.run(&["info", "left"]).exits(2);
    assert!(
        both.stderr
            .contains("\"left\" names several jobs; give more of the id:\n"),
        "{}",
        both.stderr
    );
    for id in [&a_id, &b.job_id] {
        assert!(
            both.stderr.contains(&format!("  {id}  left  RUNNING")),
            "{}",
            both.stderr
        );
    }
    stop(&world, b);

    let c = world.start(&["-s", &saved, "job.toml", "--name", "third", "--allow-shared-output"]);
    world.write("in/words.txt", "x y x\nz\n");
    wait_for_out(&world, &a, 4);
    wait_for_out(&world, &c, 1);
    stop(&world, c);
    stop(&world, a);
    assert_eq!(committed(&out), ["x\t1", "x\t2", "y\t1", "z\t1", "z\t1"]);
}
