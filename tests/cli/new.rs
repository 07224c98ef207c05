//! First steps of a new user who has this program and Rust: `new`, `run`, `build`, a mistake, and the messages.

use crate::fixtures::{Expected, files, message, plain, refused};
use crate::support::World;

/// A directory outside the repository. Only crates that are on this machine are used.
fn stranger() -> World {
    World::new()
}

#[test]
fn a_new_job_runs_and_a_mistake_in_it_is_told() {
    let world = stranger();
    let made = world.run(&["new", "hello"]).exits(0);
    assert_eq!(
        made.stdout,
        "Made hello in hello:\n  job.toml\n  README.md\n  input/sample.txt\n  .gitignore\n  Cargo.toml\n  split/Cargo.toml\n  \
         split/src/lib.rs\n  count/Cargo.toml\n  count/src/lib.rs\n  sdk/ (the SDK)\nRun it with:\n  cd hello && regraft run \
         job.toml\n"
    );
    let hello = world.path().join("hello");
    let in_hello = |args: &[&str]| {
        let mut command = world.command(args);
        command
            .current_dir(&hello)
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("CARGO_TARGET_DIR");
        crate::support::Ran::from(command.output().expect("runs"))
    };
    let job = std::fs::read_to_string(hello.join("job.toml")).expect("a job file");
    assert!(
        job.contains("[savepoint]\ndir = \"savepoints\"") && job.contains("interval = \"10s\""),
        "{job}"
    );

    let ran = in_hello(&["run", "job.toml"]).exits(0);
    assert_eq!(ran.stdout, "");
    let log = plain(&world, &ran.stderr);
    for line in [
        "building split (DIR/hello/split)\n",
        "built split in ",
        "building count (DIR/hello/count)\n",
        "compiled count (",
    ] {
        assert!(log.contains(line), "no {line:?} in:\n{log}");
    }
    let sample = std::fs::read_to_string(hello.join("input/sample.txt")).expect("a sample");
    let expected = crate::words::counted(&[sample]);
    assert!(expected.len() > 5, "{expected:?}");
    assert_eq!(crate::support::committed(&hello.join("out")), expected);

    // Nothing is left to build.
    let again = in_hello(&["build"]).exits(0);
    assert_eq!(told(&again), [""; 0]);
    let lines: Vec<String> = again.stdout.lines().map(|line| plain(&world, line)).collect();
    let begins = |line: &str, uid: &str| line.starts_with(&format!("{uid}: DIR/hello/target/regraft/{uid}.wasm ("));
    assert!(
        lines.len() == 2 && begins(&lines[0], "split") && begins(&lines[1], "count"),
        "{lines:?}"
    );
    let json = in_hello(&["build", "--json"]).exits(0).json();
    let built: Vec<_> = json["components"]
        .as_array()
        .expect("components")
        .iter()
        .map(|c| c["built"].as_bool())
        .collect();
    assert_eq!(built, [Some(false), Some(false)]);
    let rerun = in_hello(&["run", "job.toml", "--set", "out.path=again"]).exits(0);
    let builds = |line: &&&str| line.contains("buil") || line.contains("compiled");
    assert_eq!(told(&rerun).iter().find(builds), None);
    assert_eq!(crate::support::committed(&hello.join("again")), expected);

    a_panic_in_it(&world, &in_hello);
    another_job_runs_its_own_code(&world, &expected);
    a_compile_error_in_it(&world, &in_hello);
}

/// Returns the lines on stderr, but for what other tests cause that build at the same time.
fn told(ran: &crate::support::Ran) -> Vec<&str> {
    let waits = |line: &&str| line.ends_with(": another build is in progress; this one goes on when it is done");
    ran.stderr.lines().filter(|line| !waits(line)).collect()
}

/// A job whose crates have the names and the older files of those that were built last.
fn another_job_runs_its_own_code(world: &World, expected: &[String]) {
    world.run(&["new", "other"]).exits(0);
    let other = world.path().join("other");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for file in ["Cargo.toml", "count/Cargo.toml", "count/src/lib.rs", "split/src/lib.rs"] {
        let file = std::fs::File::options().write(true).open(other.join(file));
        file.expect("opened").set_modified(long_ago).expect("its time is set");
    }
    let mut command = world.command(&["run", "job.toml"]);
    command
        .current_dir(&other)
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR");
    crate::support::Ran::from(command.output().expect("runs")).exits(0);
    assert_eq!(crate::support::committed(&other.join("out")), expected);
    let sources = ["hello", "other"].map(|job| {
        let component = world.path().join(job).join("target/regraft/count.wasm");
        std::fs::read(component).expect("built")
    });
    assert!(sources[0] != sources[1], "each is built from its own source");
}

type InHello<'a> = &'a dyn Fn(&[&str]) -> crate::support::Ran;

fn edit(world: &World, file: &str, from: &str, to: &str) {
    let path = world.path().join("hello").join(file);
    let text = std::fs::read_to_string(&path).expect("read");
    assert!(text.contains(from), "{from:?} in {text}");
    std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
}

fn a_panic_in_it(world: &World, in_hello: InHello<'_>) {
    edit(
        world,
        "count/src/lib.rs",
        "        let count = self.count.update(",
        "        println!(\"counting {word}\");\n        assert!(word != \"wrong\", \"a word that I cannot count\");\n        \
         if word == \"now\" {\n            let _ = std::time::SystemTime::now();\n        }\n        let count = \
         self.count.update(",
    );
    std::fs::write(world.path().join("hello/input/sample.txt"), "this is wrong\n").expect("written");
    let ran = in_hello(&["run", "job.toml", "-p", "1", "--set", "out.path=third"]).exits(1);
    let source = std::fs::read_to_string(world.path().join("hello/count/src/lib.rs")).expect("read");
    let line = 1 + source
        .lines()
        .position(|line| line.contains("cannot count"))
        .expect("the assertion");
    let text = message(world, &ran);
    let expected = format!(
        "job hello (JOB) FAILED: operator \"count\", subtask 0, failed in process: the module panicked at \
         count/src/lib.rs:{line}:9: a word that I cannot count\n  record: key \"wrong\", value \"\", from \
         DIR/hello/input/sample.txt:1\n  at process (DIR/hello/count/src/lib.rs:{line})\n  by "
    );
    assert!(text.starts_with(&expected), "{text}\nexpected:\n{expected}");
    assert!(
        text.ends_with("\n  policy: on-trap = \"fail\": the job fails"),
        "{text}"
    );
    assert!(ran.stderr.contains("counting wrong"), "{}", ran.stderr);
    assert_eq!(crate::support::committed(&world.path().join("hello/third")), [""; 0]);

    std::fs::write(world.path().join("hello/input/sample.txt"), "now\n").expect("written");
    let ran = in_hello(&["run", "job.toml", "-p", "1", "--set", "out.path=fourth"]).exits(1);
    let text = message(world, &ran);
    assert!(
        text.contains(
            ": time not implemented on this platform. A component has no clock of its own: declare `d.clock()`"
        ),
        "{text}"
    );
}

fn a_compile_error_in_it(world: &World, in_hello: InHello<'_>) {
    edit(
        world,
        "count/src/lib.rs",
        "let count = self",
        "let count: String = self",
    );
    let ran = in_hello(&["build", "--json"]).exits(2);
    let text = message(world, &ran);
    let first = "cannot build operator \"count\" from DIR/hello/count:\nerror[E0308]: mismatched types\n";
    assert!(
        text.starts_with(first) && text.contains("--> count/src/lib.rs:"),
        "{text}"
    );
    let error = &ran.json()["error"];
    assert_eq!(
        (error["kind"].as_str(), error["uid"].as_str()),
        (Some("usage"), Some("count"))
    );
    assert_eq!(
        error["path"].as_str().map(|path| plain(world, path)).as_deref(),
        Some("DIR/hello/count")
    );
}

#[test]
fn what_is_there_is_not_overwritten() {
    let world = stranger();
    world.run(&["new", "hello"]).exits(0);
    let before = files(&world.path().join("hello"));
    let message = "cannot make a job in hello: it already exists; choose another name, or remove it";
    refused(
        &world,
        &["new", "hello"],
        &Expected {
            status: 2,
            kind: "usage",
            message,
            uid: None,
            path: Some("hello"),
        },
    );
    assert_eq!(files(&world.path().join("hello")), before);
}

#[test]
fn a_name_that_is_none() {
    let world = stranger();
    let message = "cannot make a job called \"a b\": expected letters, digits, '.', '_' and '-', beginning with a letter or digit";
    refused(
        &world,
        &["new", "a b"],
        &Expected {
            status: 2,
            kind: "usage",
            message,
            uid: None,
            path: None,
        },
    );
    assert_eq!(files(world.path()), [""; 0]);
}

#[test]
fn new_as_json() {
    let world = stranger();
    let json = world.run(&["new", "in/there", "--json"]).exits(0).json();
    assert_eq!(
        (json["name"].as_str(), json["dir"].as_str()),
        (Some("there"), Some("in/there"))
    );
    let mut listed: Vec<_> = json["files"]
        .as_array()
        .expect("files")
        .iter()
        .filter_map(|f| f.as_str())
        .collect();
    listed.sort_unstable();
    let (sdk, made): (Vec<_>, Vec<_>) = files(&world.path().join("in/there"))
        .into_iter()
        .partition(|file| file.starts_with("sdk/"));
    assert_eq!(made, listed);
    assert!(sdk.len() > 20 && sdk.iter().any(|file| file == "sdk/guest-sdk/src/lib.rs"));
    assert_eq!(json["sdk"], "sdk");
    // The SDK is that of this program already.
    let json = world.run(&["sdk", "in/there", "--json"]).exits(0).json();
    assert_eq!(
        (json["changed"].as_bool(), json["manifest_changed"].as_bool()),
        (Some(false), Some(false))
    );
    assert_eq!(json["from"], json["to"]);
    let none = world.run(&["sdk", "in"]).exits(2);
    assert!(
        none.stderr.contains("in/Cargo.toml does not name the SDK"),
        "{}",
        none.stderr
    );
}
