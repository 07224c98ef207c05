//! Components of an older WIT package: refused, and their state lives on with rebuilt guests.

use std::path::PathBuf;

use serde_json::Value;

use crate::setup::{component, info, text, wait_for_out, words_job};
use crate::support::{World, root, wait_until};

/// `examples/word-count/count`, as `regraft build` made it for `regraft:operator@0.1.0`.
fn old_component() -> PathBuf {
    root().join("tests/golden/component/count-wit-0.1.0.wasm")
}

/// Refusal of such a component.
const REFUSED: &str = "built for version 0.1.0 of the package regraft:operator, this host offers 0.2.0; build it again with an SDK of this version, which `regraft sdk` puts into a job, and `regraft build`";

#[test]
fn a_component_of_an_older_package_is_refused_and_names_the_rebuild() {
    let world = World::new();
    let old = old_component().display().to_string();
    let new = component("count").to_str().expect("UTF-8");
    world.write("job.toml", &words_job("words", "update").replace(new, &old));
    world.write("in/words.txt", "a\n");
    let refused = world.run(&["run", "job.toml", "--json"]).exits(2).json();
    let message = text(&refused["error"]["message"]);
    assert!(message.contains(REFUSED) && message.contains("count"), "{message}");
    let refused = world.run(&["inspect", &old, "--json"]).exits(2).json();
    assert!(text(&refused["error"]["message"]).ends_with(REFUSED), "{refused}");
    // A running job does not take it either.
    world.write("job.toml", &words_job("words", "update"));
    let job = world.start(&["job.toml"]);
    let module = format!("count={old}");
    let refused = world
        .run(&["upgrade", &job.job_id, "--module", &module, "--json"])
        .exits(2)
        .json();
    assert!(text(&refused["error"]["message"]).contains(REFUSED), "{refused}");
    assert_eq!(info(&world, &job.job_id)["status"], "RUNNING");
}

#[test]
fn a_served_job_of_an_older_package_is_suspended_and_goes_on_with_rebuilt_guests() {
    let world = World::new();
    world.write(
        "job.toml",
        &words_job("words", "update").replace("\"off\"", "\"100ms\""),
    );
    world.write("in/words.txt", "a b a\n");
    let mut host = world.serve(&[]);
    let submitted = world.run(&["run", "-d", "job.toml"]).exits(0).stdout;
    let id = submitted.trim_end().rsplit(' ').next().expect("a JobID").to_owned();
    wait_until("all is committed", || world.committed("out").len() == 3);
    let known = info(&world, "words")["checkpoints"].as_u64();
    wait_until("a checkpoint behind it", || {
        info(&world, "words")["checkpoints"].as_u64() > known
    });
    host.kill();
    // An upgrade of the host in between: the job has kept the component of its time.
    let kept = world.path().join("data/checkpoints").join(&id);
    let count = std::fs::read(component("count")).expect("built");
    let mut replaced = 0;
    for file in std::fs::read_dir(kept.join("shared")).expect("the job's own") {
        let path = file.expect("an entry").path();
        if std::fs::read(&path).expect("read") == count {
            std::fs::copy(old_component(), &path).expect("replaced");
            replaced += 1;
        }
    }
    assert_eq!(replaced, 1);
    let host = world.serve(&[]);
    wait_until("it is suspended", || info(&world, "words")["status"] == "SUSPENDED");
    let view = info(&world, "words");
    // Its checkpoints are on disk, and shown.
    assert!(view["last_checkpoint"]["checkpoint_id"].is_u64(), "{view}");
    assert!(text(&view["failure"]).ends_with(REFUSED), "{view}");
    assert!(
        text(&view["failure"]).contains("the module of operator \"count\""),
        "{view}"
    );

    let last = |checkpoint: &PathBuf| {
        let name = checkpoint
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.strip_prefix("chk-").and_then(|number| number.parse::<u64>().ok())
    };
    let entries = std::fs::read_dir(&kept).expect("checkpoints");
    let checkpoints = entries.map(|entry| entry.expect("an entry").path());
    let newest = checkpoints
        .filter(|path| last(path).is_some())
        .max_by_key(last)
        .expect("one");
    world.write("in/words.txt", "a b a\na\n");
    let newest = newest.to_str().expect("UTF-8");
    let job = world.start(&["-s", newest, "job.toml", "--name", "again", "--set", "out.path=again"]);
    wait_for_out(&world, &job, 1);
    let stopped: Value = world.run(&["stop", &job.job_id, "--json"]).exits(0).json();
    assert!(stopped["path"].is_string());
    assert_eq!(world.committed("again"), ["a\t3"]);
    drop(host);
}
