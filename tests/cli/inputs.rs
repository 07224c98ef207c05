//! What a job starts from and is not there.

use crate::fixtures::{COPY, Expected, files, refused, words_world};
use crate::support::World;

#[test]
fn no_input_file() {
    let world = World::new();
    world.write("job.toml", COPY);
    let path = None;
    refused(
        &world,
        &["run"],
        &Expected {
            status: 1,
            kind: "failed",
            message: "",
            uid: Some("lines"),
            path,
        },
    );
    std::fs::create_dir(world.path().join("in")).expect("made");
    refused(
        &world,
        &["run"],
        &Expected {
            status: 1,
            kind: "failed",
            message: "",
            uid: Some("lines"),
            path,
        },
    );
}

#[test]
fn an_input_that_cannot_be_read() {
    let world = World::new();
    world.write("job.toml", COPY);
    std::fs::create_dir_all(world.path().join("in/dir")).expect("made");
    refused(
        &world,
        &["run"],
        &Expected {
            status: 1,
            kind: "failed",
            message: "",
            uid: Some("lines"),
            path: None,
        },
    );
}

#[test]
fn an_output_directory_that_cannot_be_made() {
    let world = words_world();
    world.write("in/a.txt", "a");
    world.write("out", "a file");
    refused(
        &world,
        &["run"],
        &Expected {
            status: 1,
            kind: "failed",
            message: "",
            uid: Some("out"),
            path: None,
        },
    );
}

#[test]
fn no_savepoint() {
    let world = words_world();
    world.write("in/a.txt", "a");
    world.write("text", "x");
    world.write("empty/_metadata", "");
    world.write("other/_metadata", "{}");
    for (path, message) in [
        ("nowhere", ""),
        ("in", ""),
        ("text", ""),
        ("empty", ""),
        ("other/_metadata", ""),
        ("s3://bucket/sp", ""),
    ] {
        let expected = Expected {
            status: 1,
            kind: "data",
            message,
            uid: None,
            path: Some(path),
        };
        eprintln!("{path}: {}", world.run(&["run", "-s", path]).stderr);
        eprintln!("{path}: {}", world.run(&["run", "-s", path, "--json"]).stdout);
        let _ = expected;
    }
    assert_eq!(files(&world.path().join("out")), [""; 0]);
    panic!();
}
