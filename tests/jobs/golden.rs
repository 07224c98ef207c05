//! Savepoints and checkpoints written by earlier versions of the format (`tests/golden/savepoint/README.md`).

use std::path::PathBuf;

use crate::setup::{component, show, shown, text};
use crate::support::{World, root};

fn golden(version: &str) -> PathBuf {
    root().join("tests/golden/savepoint").join(version)
}

fn golden_text(version: &str, name: &str) -> String {
    std::fs::read_to_string(golden(version).join(name)).expect("golden file")
}

/// Returns the job that wrote them, with components built from today's code.
fn job(version: &str) -> String {
    let module = |guest: &str| component(guest).to_str().expect("UTF-8").to_owned();
    golden_text(version, "job.toml")
        .replace("COUNT", &module("count"))
        .replace("ROLLING", &module("rolling"))
        .replace("KINDS", &module("kinds"))
}

#[test]
fn version_1_is_restored_at_any_parallelism() {
    let undisturbed = golden_text("v1", "undisturbed.txt");
    let world = World::new();
    world.write("job.toml", &job("v1"));
    for (name, parallelism) in [
        ("canonical", "1"),
        ("native", "3"),
        ("checkpoint", "2"),
        ("checkpoint", "5"),
    ] {
        let saved = golden("v1").join(name);
        let ran = world
            .run(&[
                "run",
                "-s",
                saved.to_str().expect("UTF-8"),
                "job.toml",
                "-p",
                parallelism,
                "--set",
                "words.rate=1000000",
                "--set",
                "numbers.rate=1000000",
            ])
            .exits(0);
        assert_eq!(ran.stdout, undisturbed, "{name} at parallelism {parallelism}");
    }
}

#[test]
fn version_1_is_shown_and_verified() {
    let world = World::new();
    for (name, format) in [
        ("canonical", "canonical"),
        ("native", "native"),
        ("checkpoint", "native"),
    ] {
        let saved = golden("v1").join(name);
        let saved = saved.to_str().expect("UTF-8");
        let shown_savepoint = show(&world, saved);
        assert_eq!(text(&shown_savepoint["format"]), format);
        for uid in ["count", "rolling"] {
            assert_eq!(shown(&shown_savepoint, uid)["keys"], 150, "{name} {uid}");
        }
        // Every state file is intact; the components are not in the repository.
        let report = world.run(&["state", "verify", saved, "--json"]).exits(1).json();
        let message = text(&report["error"]["message"]);
        let problems: Vec<&str> = message.lines().collect();
        assert_eq!(problems.len(), 2, "{message}");
        for problem in problems {
            assert!(
                problem.contains("/modules/") && problem.contains(" is missing"),
                "{problem}"
            );
        }
    }
}

/// The savepoints and the checkpoint of version 2, each with the file of its expected entries.
const VERSION_2: [(&str, &str); 3] = [
    ("canonical", "canonical.entries.txt"),
    ("native", "native.entries.txt"),
    ("checkpoints/chk-7", "checkpoints.entries.txt"),
];

#[test]
fn version_2_has_state_of_every_kind_and_is_restored_at_any_parallelism() {
    // The number of records that a word had when its timer fired depends on timing.
    let sums = |text: &str| {
        let sums: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("blackhole sums"))
            .map(str::to_owned)
            .collect();
        assert!(text.contains("blackhole fired: records=600 checksum="), "{text}");
        sums
    };
    let undisturbed = sums(&golden_text("v2", "undisturbed.txt"));
    assert_eq!(undisturbed.len(), 1);
    let world = World::new();
    world.write("job.toml", &job("v2"));
    for (at, (name, _)) in VERSION_2.iter().enumerate() {
        let saved = golden("v2").join(name);
        let saved = saved.to_str().expect("UTF-8");
        for parallelism in [["1", "3"], ["4", "1"], ["2", "5"]][at] {
            let args = [
                "run",
                "-s",
                saved,
                "job.toml",
                "-p",
                parallelism,
                "--set",
                "words.rate=1000000",
            ];
            let ran = world.run(&args).exits(0);
            assert_eq!(sums(&ran.stdout), undisturbed, "{name} at parallelism {parallelism}");
        }
    }
}

/// Returns entries as they were shown at the time: with milliseconds instead of a date and milliseconds in parentheses.
fn without_dates(entries: &str) -> String {
    let line = |line: &str| {
        let dated = line.split_once(" at ").and_then(|(before, time)| {
            let (_date, millis) = time.split_once(" (")?;
            let (millis, after) = millis.split_once(" ms)")?;
            Some(format!("{before} at {millis}{after}\n"))
        });
        dated.unwrap_or_else(|| format!("{line}\n"))
    };
    entries.lines().map(line).collect()
}

#[test]
fn version_2_is_shown_and_verified() {
    let world = World::new();
    for (name, entries) in VERSION_2 {
        let saved = golden("v2").join(name);
        let saved = saved.to_str().expect("UTF-8");
        let shown = world.run(&["state", "show", saved, "--entries"]).exits(0).stdout;
        let from = shown.find("entries of ").expect("entries");
        let to = shown.find("positions of ").expect("positions");
        let shown = without_dates(&shown[from..to]);
        assert!(shown == golden_text("v2", entries), "{name}: {shown}");
        let report = world.run(&["state", "verify", saved, "--json"]).exits(1).json();
        let message = text(&report["error"]["message"]);
        assert!(
            message.lines().count() == 1 && message.contains(".wasm is missing"),
            "{message}"
        );
    }
}

/// The savepoints and the checkpoint of version 3: positions of 140 files, of which each had one line, and every seventh two.
const VERSION_3: [&str; 3] = ["canonical", "native", "checkpoints/chk-63"];

#[test]
fn version_3_has_positions_in_files_and_goes_on_where_it_was() {
    for (at, name) in VERSION_3.iter().enumerate() {
        let saved = golden("v3").join(name);
        let saved = saved.to_str().expect("UTF-8");
        for parallelism in [["1", "3"], ["2", "1"], ["2", "5"]][at] {
            // The files of another machine: known by their paths relative to the job file, and by their content.
            let world = World::new();
            world.write("job.toml", &job("v3"));
            for n in 0..140 {
                let second = if n % 7 == 0 {
                    format!("{n} again\n")
                } else {
                    String::new()
                };
                let new = if n % 10 == 0 {
                    format!("{n} new\n")
                } else {
                    String::new()
                };
                world.write(&format!("in/{n:03}.txt"), &format!("{n}\n{second}{new}"));
            }
            let bounded = ["--set", "lines.mode=bounded"];
            let args = ["run", "-s", saved, "job.toml", "-p", parallelism];
            world.run(&[args.as_slice(), &bounded].concat()).exits(0);
            let mut expected: Vec<String> = (0..140).step_by(10).map(|n| format!("{n} new")).collect();
            expected.sort();
            assert_eq!(world.committed("out"), expected, "{name} at parallelism {parallelism}");
        }
    }
}

#[test]
fn version_3_is_shown_and_verified() {
    let world = World::new();
    for name in VERSION_3 {
        let saved = golden("v3").join(name);
        let saved = saved.to_str().expect("UTF-8");
        let savepoint = show(&world, saved);
        let splits = shown(&savepoint, "lines")["splits"].as_array().expect("a list");
        assert_eq!(splits.len(), 140, "{name}");
        for (n, split) in splits.iter().enumerate() {
            assert!(text(&split["split"]).ends_with(&format!("/in/{n:03}.txt")), "{split}");
            let lines = if n % 7 == 0 { 2 } else { 1 };
            assert_eq!(split["position"]["line"], lines, "{split}");
        }
        world.run(&["state", "verify", saved]).exits(0);
    }
}
