//! Missing inputs of a job.

use crate::fixtures::{COPY, Expected, files, refused, words_world};
use crate::support::World;

#[test]
fn no_input_file() {
    let world = World::new();
    world.write("job.toml", COPY);
    let message = "source \"lines\": no file matches DIR/in/*; expected at least one; check the path, or use mode = \
                   \"watch\" to wait for files";
    let expected = Expected {
        status: 1,
        kind: "failed",
        message,
        uid: Some("lines"),
        path: Some("DIR/in/*"),
    };
    refused(&world, &["run"], &expected);
    // An empty directory, and one that contains only directories.
    std::fs::create_dir_all(world.path().join("in")).expect("made");
    refused(&world, &["run"], &expected);
    std::fs::create_dir_all(world.path().join("in/dir")).expect("made");
    refused(&world, &["run"], &expected);
    assert_eq!(files(&world.path().join("data/run")), [""; 0]);
}

#[test]
fn an_output_directory_that_cannot_be_made() {
    let world = words_world();
    world.write("in/a.txt", "a");
    world.write("out", "a file");
    let message = "sink \"out\": cannot create directory DIR/out/.pending/JOB: Not a directory (os error 20)";
    let expected = Expected {
        status: 1,
        kind: "failed",
        message,
        uid: Some("out"),
        path: Some("DIR/out/.pending/JOB"),
    };
    refused(&world, &["run"], &expected);
}

#[test]
fn no_savepoint() {
    let world = words_world();
    world.write("in/a.txt", "a");
    world.write("text", "x");
    world.write("empty/_metadata", "");
    world.write("other/_metadata", "{}");
    let check = |path: &str, kind: &str, message: &str| {
        let status = if kind == "usage" { 2 } else { 1 };
        refused(
            &world,
            &["run", "-s", path],
            &Expected {
                status,
                kind,
                message,
                uid: None,
                path: Some(path),
            },
        );
    };
    let nothing = "does not exist. Expected a savepoint or checkpoint directory, or its _metadata file: one without \
                   _metadata was never completed.";
    check("nowhere", "failed", &format!("file://DIR/nowhere/_metadata {nothing}"));
    check("in", "failed", &format!("file://DIR/in/_metadata {nothing}"));
    check(
        "text",
        "failed",
        "cannot read file://DIR/text/_metadata: Not a directory (os error 20)",
    );
    check(
        "empty",
        "data",
        "file://DIR/empty/_metadata is truncated: it ends after 0 bytes. Use another copy of it.",
    );
    let message =
        "file://DIR/other/_metadata is not a Regraft _metadata file: expected {\"format_version\":… at its beginning";
    check("other/_metadata", "data", message);
    let message = "cannot open s3://bucket/sp: the scheme \"s3\" is not supported. Supported today: a plain path, or file:///PATH.";
    check("s3://bucket/sp", "usage", message);
    assert_eq!(files(&world.path().join("out")), [""; 0]);
}

#[test]
fn a_directory_is_no_file() {
    let world = World::new();
    world.write("job.toml", COPY);
    world.write("in/a", "a\n");
    for mode in ["bounded", "watch"] {
        let set = format!("lines.mode={mode}");
        let expected = Expected {
            status: 1,
            kind: "failed",
            message: "source \"lines\": DIR/in is a directory; to read the files in it, write DIR/in/*",
            uid: Some("lines"),
            path: Some("DIR/in"),
        };
        refused(&world, &["run", "--set", "lines.path=in", "--set", &set], &expected);
    }
}

/// Writers give a file a hidden name first, and rename it when it is complete.
#[test]
fn a_star_does_not_match_hidden_files() {
    let world = World::new();
    world.write("job.toml", COPY);
    world.write("in/a", "a\n");
    world.write("in/.b.tmp", "b\n");
    assert_eq!(world.run(&["run"]).exits(0).stdout, "a\n");
    let all = world.run(&["run", "--set", "lines.path=in/.*"]).exits(0);
    assert_eq!(all.stdout, "b\n");
}

/// An impossible `--savepoint-at-end` fails at the start, not when all input has been read.
#[test]
fn a_savepoint_at_the_end_that_cannot_be_is_told_at_the_beginning() {
    let world = World::new();
    world.write("job.toml", COPY);
    world.write("in/a", "a\n");
    world.write("sp", "a file");
    let ran = world.run(&["run", "--savepoint-at-end", "sp"]).exits(1);
    assert_eq!(ran.stdout, "");
    let message = "error: the savepoint directory cannot be used: cannot write file://";
    assert!(ran.stderr.starts_with(message), "{}", ran.stderr);
    assert!(
        ran.stderr.ends_with(": Not a directory (os error 20)\n"),
        "{}",
        ran.stderr
    );
    let ran = world.run(&["run", "--savepoint-at-end", "new/sp"]).exits(0);
    assert_eq!(ran.stdout, "a\n");
    assert_eq!(
        files(&world.path().join("new/sp")).len(),
        1,
        "its _metadata, and no probe"
    );
}
