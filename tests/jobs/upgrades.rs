//! Modules are swapped in a running job: nothing is lost, every swap is reported, and modules that do not fit are
//! refused.

use std::collections::BTreeMap;

use regraft::graph::Overrides;
use regraft_model::schema::Type;
use serde_json::{Value, json};

use crate::setup::{
    FILE_SINK, component, counted_by_hand, counts, graph, info, made_up_job, show, shown, stop, text, wait_for_out,
};
use crate::support::{Attached, Ran, World, wait_until};

const UPGRADES: u64 = 20;

/// Returns the value of `--module` for a guest at uid `count`.
fn module(guest: &str) -> String {
    format!("count={}", component(guest).display())
}

fn upgrade(world: &World, guest: &str, more: &[&str]) -> Ran {
    let module = module(guest);
    let mut args = vec!["upgrade", "words", "--module", &module];
    args.extend_from_slice(more);
    world.run(&args)
}

/// Returns the first six digits of a component's digest.
fn digest(world: &World, guest: &str) -> String {
    let path = component(guest).to_str().expect("UTF-8");
    text(&world.run(&["inspect", path, "--json"]).exits(0).json()["digest"])[..6].to_owned()
}

/// Checks the JSON object of an upgrade, and returns the id of its checkpoint.
fn check_json(answer: &Value, job: &Attached, version: u64, from: &str, to: &str) -> u64 {
    assert_eq!(answer["job_id"], job.job_id.as_str());
    assert_eq!(answer["version"], version);
    assert_eq!(answer["uids"], json!([{ "uid": "count", "from": from, "to": to }]));
    for key in ["prepare_ms", "align_ms", "swap_ms", "gap_ms"] {
        assert!(answer[key].as_f64().is_some_and(|ms| ms >= 0.0), "{key} in {answer}");
    }
    answer["checkpoint_id"].as_u64().expect("checkpoint_id")
}

/// Checks the closing line of an upgrade, and returns the id of its checkpoint.
fn check_line(line: &str, from: &str, to: &str) -> u64 {
    let rest = line
        .strip_prefix(&format!("count: {from} -> {to} at checkpoint "))
        .expect(line);
    let (id, rest) = rest.split_once(", no output for ").expect(line);
    let words: Vec<&str> = rest.trim_end().split(' ').collect();
    let [
        gap,
        "ms",
        "(prepare",
        prepare,
        "ms,",
        "align",
        align,
        "ms,",
        "swap",
        swap,
        "ms)",
    ] = words[..]
    else {
        panic!("{line}")
    };
    for ms in [gap, prepare, align, swap] {
        assert!(ms.parse::<f64>().is_ok_and(|ms| ms >= 0.0), "{ms:?} in {line}");
    }
    id.parse().expect(line)
}

#[test]
fn twenty_upgrades_under_load_lose_nothing() {
    let world = World::new();
    let job_file = made_up_job("words", 0, 100_000, 20_000, "update", FILE_SINK);
    world.write("job.toml", &job_file);
    let digests = [digest(&world, "count"), digest(&world, "count-v2")];
    let job = world.start(&["job.toml", "-p", "2", "--set", "checkpoint.interval=500ms"]);
    wait_for_out(&world, &job, 10_000);
    let (mut last, mut records) = (0, 0);
    for n in 0..UPGRADES {
        let to = if n % 2 == 0 { 1 } else { 0 };
        let guest = ["count", "count-v2"][to];
        let id = if n % 3 == 0 {
            let ran = upgrade(&world, guest, &[]).exits(0);
            println!("{}", ran.stdout.trim_end());
            check_line(&ran.stdout, &digests[1 - to], &digests[to])
        } else {
            let ran = upgrade(&world, guest, &["--json"]).exits(0);
            println!("{}", ran.stdout.trim_end());
            check_json(&ran.json(), &job, n + 2, &digests[1 - to], &digests[to])
        };
        assert!(id > last, "checkpoints count up");
        last = id;
        let view = info(&world, "words");
        assert_eq!((&view["job_id"], &view["version"]), (&json!(job.job_id), &json!(n + 2)));
        assert_eq!(view["operators"][1]["module"], digests[to]);
        let out = view["records_out"].as_u64().expect("a number");
        assert!(out > records, "it goes on: {out}");
        records = out;
    }
    let log = job.stderr();
    let upgrades = log
        .lines()
        .filter(|line| line.contains("Triggering checkpoint ") && line.contains("(type=UPGRADE)"));
    assert_eq!(upgrades.count() as u64, UPGRADES);
    let (stopped, _) = stop(&world, job);

    // Every record has been counted once, by one version or the other, and emitted once.
    let stopped = show(&world, &stopped);
    let expected = counted_by_hand(
        &graph(&job_file, world.path(), &Overrides::default()),
        &shown(&stopped, "events")["splits"],
    );
    assert!(expected.values().sum::<u64>() >= records);
    assert!(
        counts(&stopped) == expected,
        "the state is that of an uninterrupted run"
    );
    let mut seen = BTreeMap::<String, Vec<u64>>::new();
    let mut with_length = 0u64;
    for line in world.committed("out") {
        let columns: Vec<&str> = line.split('\t').collect();
        let (word, count) = (columns[0].to_owned(), columns[1].parse().expect("a count"));
        if let Some(length) = columns.get(2) {
            assert_eq!(*length, word.len().to_string());
            with_length += 1;
        }
        seen.entry(word).or_default().push(count);
    }
    assert_eq!(seen.len(), expected.len());
    for (word, counts) in &mut seen {
        counts.sort_unstable();
        assert!(
            counts.iter().copied().eq(1..=expected[word]),
            "{word}: {counts:?}, expected 1 to {}",
            expected[word]
        );
    }
    assert!(with_length > 0, "the second version has run");
}

#[test]
fn final_results_come_from_the_new_version_and_the_old_state() {
    let world = World::new();
    let job_file = made_up_job("words", 0, 2_000, 20_000, "final", FILE_SINK);
    world.write("job.toml", &job_file);
    let job = world.start(&["job.toml", "-p", "3"]);
    wait_until("records", || {
        info(&world, "words")["records_in"].as_u64().is_some_and(|n| n > 2_000)
    });
    upgrade(&world, "count-v2", &[]).exits(0);
    let answer = world.run(&["stop", "words", "--drain", "--json"]).exits(0).json();
    job.end().exits(0);
    let splits = show(&world, &text(&answer["path"]));
    let expected = counted_by_hand(
        &graph(&job_file, world.path(), &Overrides::default()),
        &shown(&splits, "events")["splits"],
    );
    let lines: Vec<String> = expected
        .iter()
        .map(|(word, count)| format!("{word}\t{count}\t{}", word.len()))
        .collect();
    assert!(
        world.committed("out") == lines,
        "the final output is that of an uninterrupted run of the new version"
    );
}

#[test]
fn two_upgrades_at_once_are_both_done_and_both_reported() {
    let world = World::new();
    // Nothing is emitted, so a report waits a while for output that would end the gap.
    world.write("job.toml", &made_up_job("words", 0, 100, 1_000, "final", FILE_SINK));
    let job = world.start(&["job.toml"]);
    let versions: Vec<Value> = std::thread::scope(|scope| {
        let both =
            ["count-v2", "count"].map(|guest| scope.spawn(|| upgrade(&world, guest, &["--json"]).exits(0).json()));
        both.into_iter()
            .map(|one| one.join().expect("upgraded")["version"].clone())
            .collect()
    });
    assert!(versions == [2, 3] || versions == [3, 2], "{versions:?}");
    stop(&world, job);
}

#[test]
fn a_module_of_another_schema_is_refused_and_the_job_goes_on() {
    let world = World::new();
    world.write("job.toml", &made_up_job("words", 0, 1_000, 10_000, "update", FILE_SINK));
    let job = world.start(&["job.toml", "-p", "2"]);
    wait_for_out(&world, &job, 1_000);
    let before = info(&world, "words");
    let message = format!(
        "the upgrade is refused, and the job goes on as it was:\n  uid \"count\": state \"count\": expected schema u64 (digest {}), as in the running job; this component reads string (digest {}). Deploy a component that reads u64, or drop the state: stop the job, and start the new one with run -s SAVEPOINT --drop-state count/count.",
        Type::U64.digest(),
        Type::String.digest()
    );
    let refused = upgrade(&world, "count-v3", &[]).exits(1);
    assert_eq!(refused.stdout, "");
    assert!(refused.stderr.contains(&message), "{}", refused.stderr);
    let refused = upgrade(&world, "count-v3", &["--json"]).exits(1).json();
    assert_eq!(refused["error"]["kind"], "failed");
    assert_eq!(refused["error"]["uid"], "count");
    assert_eq!(refused["error"]["message"], message);
    let unknown = format!("tally={}", component("count-v2").display());
    let unknown = world.run(&["upgrade", "words", "--module", &unknown]).exits(2);
    assert!(
        unknown
            .stderr
            .contains("the job has no operator \"tally\"; it has: count"),
        "{}",
        unknown.stderr
    );

    let records = before["records_out"].as_u64().expect("a number");
    wait_for_out(&world, &job, records + 2_000);
    let after = info(&world, "words");
    for key in ["job_id", "status", "version", "started_at", "checkpoints"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(after["status"], "RUNNING");
    assert!(!job.stderr().contains("type=UPGRADE"), "it never noticed");
    stop(&world, job);
}
