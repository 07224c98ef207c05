//! Guests and input that make the host hold much with few bytes of their own. The operator's policy decides about the record,
//! and the job goes on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::{World, root};
use crate::watched::watched;

/// Returns the component of `tests/guests/hostile`, which is built once.
fn component() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let world = World::new();
        let job = greedy_job("", 1, "len = 1", "").replace("module = \"\"", "crate = \"CRATE\"");
        let dir = root().join("tests/guests/hostile");
        world.write("job.toml", &job.replace("CRATE", &dir.display().to_string()));
        let answer = world.run(&["build", "job.toml", "--json"]).exits(0).json();
        PathBuf::from(answer["components"][0]["component"].as_str().expect("a path"))
    })
}

/// A job of made-up records: made-up → greedy → nothing. `key` says which keys there are.
fn greedy_job(greed: &str, rows: u64, key: &str, settings: &str) -> String {
    format!(
        r#"name = "greedy"
[checkpoint]
interval = "100ms"
[[source]]
uid = "made-up"
connector = "generator"
splits = 1
rate = 100
rows = {rows}
key = "k"
fields = [{{ name = "k", type = "bytes", {key} }}, {{ name = "v", type = "bytes", len = 2000 }}]
[[operator]]
uid = "greedy"
module = ""
inputs = [{{ from = "made-up", by = "key" }}]
config = {{ do = "greed-{greed}" }}
on-trap = "dead-letter"
dead-letter = {{ connector = "file", path = "rejects" }}
{settings}
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["greedy"]
"#
    )
}

/// Runs a job to its end. Returns the errors of its dead letters.
#[track_caller]
fn rejected(greed: &str, rows: u64, key: &str, settings: &str) -> Vec<String> {
    let world = World::new();
    let job = greedy_job(greed, rows, key, settings);
    let module = format!("module = {:?}", component());
    world.write("job.toml", &job.replace("module = \"\"", &module));
    watched(&world, &["run", "job.toml"]).says(0, " finished: ");
    let letters = world.committed("rejects");
    let error = |line: &String| {
        let letter: Value = serde_json::from_str(line).expect("a line of JSON");
        letter["error"].as_str().expect("text").to_owned()
    };
    letters.iter().map(error).collect()
}

const DISTINCT: &str = "len = 8";
const ONE: &str = "range = [0, 0]";
const SMALL: &str = "limits = { host-memory = \"64MiB\" }";
const BEYOND_SMALL: &str =
    "the module made the host hold more than 64 MiB for one call; raise `limits.host-memory` if it needs that much";

#[test]
fn outputs_that_multiply_their_parents() {
    assert_eq!(rejected("outputs", 2, DISTINCT, SMALL), [BEYOND_SMALL; 2]);
}

#[test]
fn one_value_that_is_read_again_and_again() {
    let errors = rejected("reads", 20, ONE, "limits = { host-memory = \"8MiB\" }");
    // The first call has nothing to read, and stores what the others read. It may have more than one record.
    let expected = BEYOND_SMALL.replace("64 MiB", "8 MiB");
    assert!(
        errors.len() >= 5 && errors.iter().all(|error| *error == expected),
        "{errors:?}"
    );
}

#[test]
fn state_that_grows_for_each_record() {
    let errors = rejected("state", 60, DISTINCT, "limits = { state = \"34MiB\" }");
    // Eight values of 4 MiB fit.
    assert_eq!(errors.len(), 52);
    for error in errors {
        let limit = " bytes, and the limit is 34 MiB; remove what is not needed, let it expire (`ttl`), or raise `limits.state`";
        assert!(
            error.starts_with("the operator's keyed state would grow from 3") && error.ends_with(limit),
            "{error}"
        );
    }
}

#[test]
fn a_failure_of_many_words() {
    let errors = rejected("failure", 2, DISTINCT, "");
    assert_eq!(errors, ["x".repeat(16 << 10), "x".repeat(16 << 10)]);
}

#[test]
fn a_line_without_end() {
    let world = World::new();
    let job = r#"name = "lines"
[[source]]
uid = "lines"
connector = "file"
path = "in/*.txt"
mode = "watch"
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["lines"]
"#;
    world.write("job.toml", job);
    std::fs::create_dir_all(world.path().join("in")).expect("a directory");
    let file = File::create(world.path().join("in/x.txt")).expect("a file");
    file.set_len(20 << 30).expect("a hole");
    let ran = watched(&world, &["run", "job.toml"]);
    ran.says(1, "in/x.txt: line 1 is longer than 67108864 bytes; ");
}

#[test]
fn a_job_file_of_many_mistakes() {
    let world = World::new();
    let mistakes: String = (0..100_000).map(|n| format!("k{n} = 1\n")).collect();
    world.write("job.toml", &format!("name = \"many\"\n[checkpoint]\n{mistakes}"));
    let ran = watched(&world, &["validate", "job.toml"]);
    ran.says(2, " more problems; solve the first ones, and try again");
    assert!(ran.ran.stderr.len() < 100_000, "{} bytes", ran.ran.stderr.len());
}

/// A job that copies a line into a file sink.
const COPY: &str = r#"name = "copy"
[[source]]
uid = "lines"
connector = "file"
path = "in.txt"
[[sink]]
uid = "out"
connector = "file"
path = "out"
inputs = ["lines"]
"#;

/// Returns the path of the list of the sink's parts, whose directory exists.
fn list_of_parts(world: &World) -> PathBuf {
    world.write("in.txt", "a\n");
    world.write("job.toml", COPY);
    let dir = world.path().join("out/.regraft");
    std::fs::create_dir_all(&dir).expect("a directory");
    dir.join("out.json")
}

#[test]
fn a_list_of_parts_of_any_size() {
    let world = World::new();
    let list = list_of_parts(&world);
    let file = File::create(&list).expect("a file");
    file.set_len(20 << 30).expect("a hole");
    let ran = watched(&world, &["run", "job.toml"]);
    ran.says(
        1,
        "out/.regraft/out.json is a file of 21474836480 bytes: expected the list of a sink's committed parts, ",
    );
    file.set_len(0).expect("empty");
    watched(&world, &["run", "job.toml"]).says(0, " finished: ");
}

#[test]
fn a_list_of_parts_that_is_none() {
    let world = World::new();
    let list = list_of_parts(&world);
    let others = world.write("others.txt", "mine\n");
    std::os::unix::fs::symlink(&others, &list).expect("a link");
    watched(&world, &["run", "job.toml"]).says(1, "out/.regraft/out.json is a symbolic link: ");
    assert_eq!(std::fs::read_to_string(&others).expect("there"), "mine\n");
    std::fs::remove_file(&list).expect("removed");
    pipe(&list);
    watched(&world, &["run", "job.toml"]).says(1, "out/.regraft/out.json is no regular file: ");
    std::fs::remove_file(&list).expect("removed");
    watched(&world, &["run", "job.toml"]).says(0, " finished: ");
}

/// Makes a pipe without a writer.
fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
    assert!(made.success());
}

#[test]
fn modules_and_job_files_that_are_none() {
    let world = World::new();
    world.write(
        "job.toml",
        &greedy_job("", 1, DISTINCT, "").replace("module = \"\"", "module = \"m\""),
    );
    let module = world.path().join("m");
    let all: [&[&str]; 3] = [&["validate", "job.toml"], &["run", "job.toml"], &["inspect", "m"]];
    pipe(&module);
    for args in all {
        watched(&world, args).says(2, "m: it is a pipe or a device, expected a regular file");
    }
    std::fs::remove_file(&module).expect("removed");
    let file = File::create(&module).expect("a file");
    file.set_len(3 << 30).expect("a hole");
    for args in all {
        watched(&world, args).says(2, "m: it has 3221225472 bytes, expected at most 134217728");
    }
    let (job, hole) = (world.path().join("pipe.toml"), world.path().join("hole.toml"));
    pipe(&job);
    watched(&world, &["validate", "pipe.toml"]).says(2, "it is a pipe or a device, expected a regular file");
    File::create(hole).expect("a file").set_len(3 << 30).expect("a hole");
    watched(&world, &["validate", "hole.toml"]).says(2, "it has 3221225472 bytes, expected at most 16777216");
}
