//! State of every kind survives savepoints, other parallelisms and failures: nothing is lost, and each timer fires
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::setup::{component, info, local, savepoint, show, shown, stop, text};
use crate::support::{Attached, World, wait_until};

/// A job of lines with word, event time and anything else in `in/*.txt`, watched: lines → parse → kinds → sums and
/// fired. `config` is that of `kinds`.
fn kinds_job(config: &str) -> String {
    format!(
        r#"name = "kinds"
[checkpoint]
interval = "off"
[savepoint]
dir = "savepoints"
[[source]]
uid = "lines"
connector = "file"
path = "in/*.txt"
mode = "watch"
poll = "10ms"
watermark = {{ max-out-of-orderness = "1s" }}
[[operator]]
uid = "parse"
module = {parse:?}
inputs = ["lines"]
[[operator]]
uid = "kinds"
module = {kinds:?}
inputs = [{{ from = "parse", by = "key" }}]
config = {config}
[[sink]]
uid = "sums"
connector = "file"
inputs = [{{ from = "kinds", port = "summaries" }}]
path = "sums"
format = "tsv"
[[sink]]
uid = "fired"
connector = "file"
inputs = [{{ from = "kinds", port = "fired" }}]
path = "fired"
format = "tsv"
"#,
        parse = component("parse"),
        kinds = component("kinds"),
    )
}

/// Returns records of `words` words, each `times` times, one millisecond apart from `from` on.
fn lines(words: usize, times: usize, from: u64) -> String {
    let line = |n: usize| format!("word{}\t{}\tx\n", n % words, from + n as u64);
    (0..words * times).map(line).collect()
}

fn reads(world: &World, job: &Attached, records: usize) {
    wait_until("records", || {
        let read = info(world, &job.job_id)["records_in"].as_u64();
        read.is_some_and(|read| read >= records as u64)
    });
}

/// Returns the entries of `kinds` in `state show`, by state; timers are under `timers`.
fn entries(world: &World, savepoint: &str) -> BTreeMap<String, Vec<Value>> {
    let args = ["state", "show", savepoint, "--entries=kinds", "--json"];
    let saved = world.run(&args).exits(0).json();
    let states = shown(&saved, "kinds")["states"].as_array().expect("states").clone();
    let state = |state: Value| {
        let entries = state["entries"].as_array().expect("entries").clone();
        (text(&state["name"]), entries)
    };
    states.into_iter().map(state).collect()
}

/// Returns the number of entries in each file of a state of `kinds`.
fn file_sizes(savepoint: &str, state: &str) -> Vec<u64> {
    let metadata = std::fs::read_to_string(local(savepoint).join("_metadata")).expect("_metadata");
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let of = |list: &Value, key: &str, name: &str| {
        let found = list.as_array().expect("a list").iter().find(|item| item[key] == name);
        found.unwrap_or_else(|| panic!("no {name} in {list}")).clone()
    };
    let kinds = of(&metadata["payload"]["operators"], "uid", "kinds");
    let files = of(&kinds["states"], "name", state)["files"].clone();
    let size = |file: &Value| file["entries"].as_u64().expect("entries");
    files.as_array().expect("files").iter().map(size).collect()
}

/// A timer: word, name and time.
type Timer = (String, String, i64);

/// Returns the pending timers of a savepoint.
fn pending(world: &World, savepoint: &str) -> BTreeSet<Timer> {
    let timer = |entry: &Value| {
        let time = entry["time"].as_i64().expect("a time");
        (text(&entry["key"]), text(&entry["timer"]), time)
    };
    entries(world, savepoint)["timers"].iter().map(timer).collect()
}

/// Parses a line of `fired`: the timer, and the number of records that its word had.
fn fired(line: &str) -> (Timer, u64) {
    let parts: Vec<&str> = line.split('\t').collect();
    let [word, timer, at, count] = parts[..] else {
        panic!("a line of fired: {line}")
    };
    let timer = (word.into(), timer.into(), at.parse().expect("a time"));
    (timer, count.parse().expect("a count"))
}

/// Returns all fired timers, by part, in the order of lines. `dir` is the directory of the sink.
fn firings(dir: &Path) -> Vec<Vec<(Timer, u64)>> {
    let parts = std::fs::read_dir(dir)
        .expect("parts")
        .map(|entry| entry.expect("entry").path());
    let part = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("text");
        text.lines().map(fired).collect()
    };
    parts.filter(|path| path.is_file()).map(part).collect()
}

/// Checks that each part has fired in order of (time, key), and returns all fired timers, each of which must be unique.
fn fired_once(dir: &Path) -> BTreeMap<Timer, u64> {
    let mut all = BTreeMap::new();
    for part in firings(dir) {
        let order: Vec<_> = part.iter().map(|((word, _, at), _)| (*at, word.clone())).collect();
        assert!(order.is_sorted(), "not in order of time and key: {order:?}");
        for (timer, count) in part {
            assert!(all.insert(timer.clone(), count).is_none(), "{timer:?} has fired twice");
        }
    }
    all
}

#[test]
fn event_timers_of_a_savepoint_fire_once_at_their_time_at_another_parallelism() {
    let world = World::new();
    // Timers are set for 60 to 90 seconds; the watermark reaches some 30.
    world.write("job.toml", &kinds_job("{ gap_ms = 60_000 }"));
    world.write("in/a.txt", &lines(30, 10, 100));
    world.write("in/b.txt", &lines(30, 5, 30_000));
    let job = world.start(&["job.toml", "-p", "2"]);
    reads(&world, &job, 450);
    let (saved, _) = stop(&world, job);
    assert_eq!(world.committed("fired"), [""; 0], "nothing was due");
    let watermark = shown(&show(&world, &saved), "kinds")["watermark"].clone();
    assert!(
        watermark.as_i64().is_some_and(|watermark| watermark > -1_000),
        "{watermark}"
    );
    let timers = pending(&world, &saved);
    let times = |from: u64, count: u64| (from..from + count).map(|at| at as i64 + 60_000);
    let expected: BTreeSet<i64> = times(100, 300).chain(times(30_000, 150)).collect();
    assert_eq!(timers.iter().map(|timer| timer.2).collect::<BTreeSet<_>>(), expected);

    // Add a record far ahead to each file, since the watermark is the minimum over all files.
    let ahead = |name: &str, at: u64| {
        let path = world.path().join("in").join(name);
        let text = std::fs::read_to_string(&path).expect("text") + &format!("late\t{at}\tx\n");
        std::fs::write(path, text).expect("written");
    };
    ahead("a.txt", 76_000);
    ahead("b.txt", 76_000);
    let job = world.start(&["-s", &saved, "job.toml", "-p", "3"]);
    reads(&world, &job, 2);
    let half: BTreeSet<_> = timers.iter().filter(|timer| timer.2 <= 74_999).cloned().collect();
    assert!(half.len() == 300, "{}", half.len());
    wait_until("half of the timers", || {
        info(&world, &job.job_id)["records_out"].as_u64() >= Some(300)
    });
    let (saved, _) = stop(&world, job);
    let first = fired_once(&world.path().join("fired"));
    assert_eq!(first.into_keys().collect::<BTreeSet<_>>(), half);
    let rest: BTreeSet<_> = timers.difference(&half).cloned().collect();
    assert!(pending(&world, &saved).is_superset(&rest));
    let told: Vec<_> = entries(&world, &saved)["instances"]
        .iter()
        .map(|entry| entry["value"]["watermark"].clone())
        .collect();
    assert_eq!(
        told,
        vec![watermark; 3],
        "what `open` is told is where the old subtasks stood"
    );

    let job = world.start(&["-s", &saved, "job.toml", "-p", "1", "--set", "fired.path=fired-rest"]);
    let answer = world.run(&["stop", &job.job_id, "--drain", "--json"]).exits(0).json();
    job.end().exits(0);
    let mut second: BTreeSet<_> = fired_once(&world.path().join("fired-rest")).into_keys().collect();
    second.retain(|(word, ..)| word != "late");
    assert_eq!(second, rest, "each once, and nothing is read again");
    assert!(pending(&world, &text(&answer["path"])).is_empty());
}

#[test]
fn overdue_processing_timers_fire_before_any_record_in_order() {
    let world = World::new();
    world.write("job.toml", &kinds_job("{ alarm_ms = 3_000 }"));
    world.write("in/a.txt", &lines(40, 3, 100));
    let job = world.start(&["job.toml", "-p", "2"]);
    reads(&world, &job, 120);
    let (saved, _) = stop(&world, job);
    let timers = pending(&world, &saved);
    assert!(!timers.is_empty(), "the machine is too slow for this test");
    let before = fired_once(&world.path().join("fired"));
    assert!(timers.iter().all(|timer| !before.contains_key(timer)));

    // Records wait when the job begins, and all timers are overdue.
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
    };
    let last = timers.iter().map(|timer| timer.2).max().expect("timers") as u64;
    while now() <= Duration::from_millis(last) {
        std::thread::sleep(Duration::from_millis(50));
    }
    world.write("in/b.txt", &lines(40, 3, 100));
    world.write("job.toml", &kinds_job("{}"));
    let job = world.start(&["-s", &saved, "job.toml", "-p", "3", "--set", "fired.path=fired-again"]);
    reads(&world, &job, 120);
    let (saved, _) = stop(&world, job);
    let after = fired_once(&world.path().join("fired-again"));
    assert_eq!(after.keys().cloned().collect::<BTreeSet<_>>(), timers);
    let early: Vec<_> = after.iter().filter(|(_, count)| **count > 3).collect();
    assert!(early.is_empty(), "records came before overdue timers: {early:?}");
    assert!(pending(&world, &saved).is_empty());
    assert!(entries(&world, &saved)["count"].iter().all(|entry| entry["value"] == 6));
}

/// Returns the entries of a savepoint that must be the same at any parallelism. Entries of `recent` expire, and
/// `instances` counts instances.
fn lasting(world: &World, savepoint: &str) -> BTreeMap<String, Vec<Value>> {
    let mut entries = entries(world, savepoint);
    entries.remove("recent").expect("a state");
    entries.remove("instances").expect("a state");
    entries
}

fn rescale(layout: &str) {
    let world = World::new();
    let config = "{ gap_ms = 3_600_000, alarm_ms = 3_600_000, table = 5 }";
    world.write("job.toml", &kinds_job(config));
    world.write("in/a.txt", &lines(60, 7, 100));
    let job = world.start(&["job.toml", "-p", "1"]);
    reads(&world, &job, 420);
    let stop = |job: Attached| {
        let args = ["stop", &job.job_id, "--type", layout, "--json"];
        let path = text(&world.run(&args).exits(0).json()["path"]);
        job.end().exits(0);
        path
    };
    let first = stop(job);
    let expected = lasting(&world, &first);
    for (state, count) in [
        ("count", 60),
        ("last", 60),
        ("items", 420),
        ("digits", 420),
        ("highest", 60),
        ("mean", 60),
        ("words", 420),
        ("table", 5),
    ] {
        assert_eq!(expected[state].len(), count, "{state}");
    }
    // One event timer per record, and one alarm per word and moment.
    assert!(expected["timers"].len() > 420, "{}", expected["timers"].len());
    let mut saved = first;
    for parallelism in [4, 3, 8, 1u64] {
        let p = parallelism.to_string();
        let job = world.start(&["-s", &saved, "job.toml", "-p", &p]);
        saved = stop(job);
        let found = lasting(&world, &saved);
        for (state, entries) in &expected {
            assert_eq!(found[state], *entries, "{state} at parallelism {parallelism}, {layout}");
        }
        let sizes = file_sizes(&saved, "words");
        assert_eq!(sizes.len() as u64, parallelism);
        let (least, most) = (sizes.iter().min(), sizes.iter().max());
        assert!(
            most.zip(least).is_some_and(|(most, least)| most - least <= 1),
            "{sizes:?}"
        );
        assert_eq!(file_sizes(&saved, "table"), [5], "one copy");
        let instances = &entries(&world, &saved)["instances"];
        let instances: Vec<_> = instances
            .iter()
            .map(|entry| entry["value"]["subtask"].clone())
            .collect();
        assert_eq!(instances, (0..parallelism).map(Value::from).collect::<Vec<_>>());
        world.run(&["state", "verify", &saved]).exits(0);
    }
    let text = world
        .run(&["state", "show", &saved, "--entries=kinds/table"])
        .exits(0)
        .stdout;
    let expected = "\nentries of kinds/table:\n  [0]: [0,\"row 0\"]\n  [1]: [1,\"row 1\"]\n";
    assert!(text.contains(expected) && text.contains("{u64: u64}"), "{text}");
    let refused = world.run(&["state", "show", &saved, "--entries=kinds/tables"]).exits(2);
    assert!(
        refused
            .stderr
            .contains("has no such state. Expected one of: kinds/last, kinds/count, "),
        "{refused:?}"
    );
    // The state is not only shown right: the results at the end are computed from it.
    let job = world.start(&["-s", &saved, "job.toml", "-p", "2"]);
    world.run(&["stop", &job.job_id, "--drain"]).exits(0);
    job.end().exits(0);
    let sums = world.committed("sums");
    assert_eq!(sums.len(), 60);
    for line in sums {
        let parts: Vec<&str> = line.split('\t').collect();
        let digits = "[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]";
        let last = format!("{}#7", parts[0]);
        // All event timers have fired, and no alarm.
        assert_eq!(parts[1..], ["7", &last, "7", "28", digits, "7", "4", "7"], "{line}");
    }
}

#[test]
fn rescaling_keeps_state_of_every_kind_in_canonical_savepoints() {
    rescale("canonical");
}

#[test]
fn rescaling_keeps_state_of_every_kind_in_native_savepoints() {
    rescale("native");
}

#[test]
fn copies_of_broadcast_state_that_differ_fail_the_savepoint() {
    let world = World::new();
    world.write("job.toml", &kinds_job("{ table = 5 }"));
    world.write("in/a.txt", "one\t1\tx\n");
    let job = world.start(&["job.toml", "-p", "2"]);
    reads(&world, &job, 1);
    wait_until("the record", || {
        info(&world, &job.job_id).to_string().contains("\"keys\":1")
    });
    let failed = world.run(&["savepoint", "kinds", "--json"]).exits(1).json();
    let message = text(&failed["error"]["message"]);
    assert!(
        message.contains("\"kinds\"") && message.contains("broadcast state \"table\""),
        "{message}"
    );
    world.run(&["cancel", "kinds"]).exits(0);
    job.end().exits(1);
}

#[test]
fn a_job_whose_state_cannot_be_saved_at_the_end_fails_and_does_not_read_its_input_again_and_again() {
    let world = World::new();
    let bounded = kinds_job("{ table = 5 }").replace("mode = \"watch\"\npoll = \"10ms\"\n", "");
    let restarts = "[restart]\nstrategy = \"fixed-delay\"\nattempts = 1000\ndelay = \"10ms\"\n";
    world.write("job.toml", &format!("{bounded}{restarts}"));
    world.write("in/a.txt", "one\t1\tx\n");
    let args = [
        "run",
        "job.toml",
        "-p",
        "2",
        "--json",
        "--savepoint-at-end",
        "kept",
        "--set",
        "checkpoint.tolerable-failures=5",
    ];
    let ran = world.run(&args).exits(1);
    let error = &ran.json()["error"];
    let message = text(&error["message"]);
    assert!(
        message.contains("FAILED: savepoint 1") && message.contains("broadcast state \"table\""),
        "{message}"
    );
    assert_eq!(error["uid"], "kinds");
    assert!(!ran.stderr.contains("RESTARTING"), "{}", ran.stderr);
    let left = std::fs::read_dir(world.path().join("kept")).expect("there").count();
    assert_eq!(left, 0, "nothing of it is left");
}

#[test]
fn what_has_expired_does_not_come_back_and_what_has_not_keeps_its_time() {
    let world = World::new();
    world.write("job.toml", &kinds_job("{}"));
    world.write("in/a.txt", &lines(20, 9, 100));
    let job = world.start(&["job.toml", "-p", "2"]);
    reads(&world, &job, 180);
    let (saved, _) = stop(&world, job);
    let first = entries(&world, &saved)["recent"].clone();
    assert_eq!(first.len(), 140, "7 entries of each word");
    let expires = |entry: &Value| entry["expires"].as_u64().expect("a time");
    let last = first.iter().map(expires).max().expect("entries");

    // Restored at once, entries keep their expiry times.
    let job = world.start(&["-s", &saved, "job.toml", "-p", "3"]);
    let (again, _) = stop(&world, job);
    let kept = &entries(&world, &again)["recent"];
    assert!(kept.iter().all(|entry| first.contains(entry)), "{kept:?}");

    // When all entries have expired, counts begin anew, and keys that are not touched are gone.
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
    };
    while now() <= Duration::from_millis(last) {
        std::thread::sleep(Duration::from_millis(50));
    }
    world.write("in/b.txt", &lines(5, 1, 9_000));
    let job = world.start(&["-s", &saved, "job.toml", "-p", "4"]);
    reads(&world, &job, 5);
    wait_until("the records", || {
        let path = savepoint(&world, "kinds");
        let counts = &entries(&world, &path)["count"];
        counts.iter().filter(|entry| entry["value"] == 10).count() == 5
    });
    let (saved, _) = stop(&world, job);
    let recent = &entries(&world, &saved)["recent"];
    let found: BTreeSet<String> = recent.iter().map(|entry| text(&entry["key"])).collect();
    assert_eq!((recent.len(), found.len()), (5, 5), "{recent:?}");
    for entry in recent {
        assert_eq!(
            (&entry["map_key"], &entry["value"]),
            (&Value::from(3), &Value::from(1)),
            "{entry}"
        );
        assert!(expires(entry) > last);
    }
}

/// A job of 20,000 generated words with event times one millisecond apart.
fn made_up_job() -> String {
    let job = kinds_job("{ gap_ms = 500, table = 3 }").replace("interval = \"off\"", "interval = \"100ms\"");
    let (from, to) = (
        job.find("[[source]]").expect("lines"),
        job.find("uid = \"kinds\"").expect("kinds"),
    );
    let source = r#"[[source]]
uid = "lines"
connector = "generator"
seed = 5
rate = 5000
rows = 20000
splits = 4
key = "word"
fields = [{ name = "word", type = "string", range = [0, 299] }, { name = "at", type = "u64", sequence = 1000 }]
watermark = { max-out-of-orderness = "50ms", timestamp = "at" }
[[operator]]
"#;
    let job = format!("{}{source}{}", &job[..from], &job[to..]);
    job.replace("from = \"parse\"", "from = \"lines\"")
}

/// Returns the sums, and the fired timers without the number of records that had come by then.
fn output(world: &World, sums: &str, fired: &str) -> (Vec<String>, Vec<String>) {
    let timers = world.committed(fired);
    let timer = |line: &String| line.rsplit_once('\t').expect("a count").0.to_owned();
    (world.committed(sums), timers.iter().map(timer).collect())
}

#[test]
fn a_host_that_is_killed_again_and_again_loses_no_timer_and_no_entry() {
    let world = World::new();
    world.write("job.toml", &made_up_job());
    let undisturbed = [
        "run",
        "job.toml",
        "-p",
        "1",
        "--set",
        "lines.rate=1000000",
        "--set",
        "sums.path=all-sums",
        "--set",
        "fired.path=all-fired",
    ];
    world.run(&undisturbed).exits(0);
    let expected = output(&world, "all-sums", "all-fired");
    assert_eq!(
        (expected.0.len(), expected.1.len()),
        (300, 20_000),
        "each record has a timer of its own"
    );

    let mut host = world.serve(&[]);
    let ran = world
        .run(&["run", "-d", "job.toml", "-p", "2", "--json"])
        .exits(0)
        .json();
    let id = text(&ran["job_id"]);
    for kill in 1..=5 {
        wait_until("timers that fire", || world.committed("fired").len() > kill * 2_500);
        host.kill();
        host = world.serve(&[]);
    }
    wait_until("its end", || {
        let jobs = world.run(&["list", "-a", "--json"]).exits(0).json()["jobs"].clone();
        let job = jobs
            .as_array()
            .expect("jobs")
            .iter()
            .find(|job| job["job_id"] == id.as_str())
            .cloned();
        job.is_some_and(|job| job["status"] == "FINISHED")
    });
    host.terminate();
    host.end().exits(0);
    let found = output(&world, "sums", "fired");
    assert!(
        found.1 == expected.1,
        "{} timers have fired of {}",
        found.1.len(),
        expected.1.len()
    );
    assert_eq!(found.0, expected.0);
}

#[test]
fn an_upgrade_hands_over_state_of_every_kind() {
    let world = World::new();
    world.write("job.toml", &kinds_job("{ gap_ms = 60_000, table = 5 }"));
    world.write("in/a.txt", &lines(30, 10, 100));
    let job = world.start(&["job.toml", "-p", "1"]);
    reads(&world, &job, 300);
    let before = savepoint(&world, "kinds");
    let module = format!("kinds={}", component("kinds").display());
    world.run(&["upgrade", "kinds", "--module", &module]).exits(0);
    let (after, _) = stop(&world, job);
    assert_eq!(lasting(&world, &after), lasting(&world, &before));
    let instances = &entries(&world, &after)["instances"];
    let watermark = shown(&show(&world, &before), "kinds")["watermark"].clone();
    assert_eq!(instances.len(), 1);
    assert_eq!(
        instances[0]["value"]["watermark"], watermark,
        "`open` is told where it stands"
    );
}

#[test]
fn a_timer_that_sets_itself_again_as_due_holds_up_neither_records_nor_checkpoints() {
    for config in ["{ alarm_ms = 0, again = true }", "{ gap_ms = 0, again = true }"] {
        let world = World::new();
        world.write("job.toml", &kinds_job(config).replace("\"off\"", "\"50ms\""));
        world.write("in/a.txt", &lines(2, 2_000, 1));
        let job = world.start(&["job.toml"]);
        reads(&world, &job, 4_000);
        // The watermark is behind by a second: by now it has reached timers that have fired again and again.
        let fired = || shown_firings(&info(&world, &job.job_id));
        wait_until("timers that fire again", || fired() > 6_000);
        let checkpoints = || info(&world, &job.job_id)["checkpoints"].as_u64().unwrap_or(0);
        let before = checkpoints();
        wait_until("checkpoints", || checkpoints() >= before + 3);
        world.write("in/b.txt", &lines(2, 10, 9_000));
        reads(&world, &job, 4_020);
        let before = checkpoints();
        wait_until("checkpoints behind the records", || checkpoints() >= before + 2);
        stop(&world, job);
    }
}

/// Returns the number of records that the sink of fired timers has got.
fn shown_firings(view: &Value) -> u64 {
    let nodes = view["operators"].as_array().expect("operators");
    let fired = nodes.iter().find(|node| node["uid"] == "fired").expect("the sink");
    fired["records_in"].as_u64().unwrap_or(0)
}
