//! Savepoints and checkpoints that earlier versions of the format wrote (`tests/golden/savepoint/README.md`).

use std::path::PathBuf;

use crate::setup::{component, show, shown, text};
use crate::support::{World, root};

fn golden(version: &str) -> PathBuf {
    root().join("tests/golden/savepoint").join(version)
}

fn golden_text(version: &str, name: &str) -> String {
    std::fs::read_to_string(golden(version).join(name)).expect("golden file")
}

/// The job that wrote them, with components of today.
fn job(version: &str) -> String {
    let module = |guest: &str| component(guest).to_str().expect("UTF-8").to_owned();
    golden_text(version, "job.toml")
        .replace("COUNT", &module("count"))
        .replace("ROLLING", &module("rolling"))
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
        // Every state file is sound; the components are not in the repository.
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
