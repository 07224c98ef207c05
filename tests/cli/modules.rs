//! Files that are not modules, and modules that do not fit: both are refused before anything runs.

use crate::fixtures::{
    Expected, KEYED, PLAIN, components, files, hostile, hostile_world, job_around, refused, words_world,
};
use crate::support::{Ran, World};

const BY_KEY: &str = "inputs = [{ from = \"lines\", by = \"key\" }]";

/// Checks that `run` refuses these bytes as `bad.wasm` with this message.
#[track_caller]
fn check(module: &[u8], message: &str) {
    let world = World::new();
    std::fs::write(world.path().join("bad.wasm"), module).expect("written");
    world.write("in/a.txt", "a\n");
    world.write("job.toml", &job_around(BY_KEY));
    let path = Some("DIR/bad.wasm");
    refused(
        &world,
        &["run", "job.toml"],
        &Expected {
            status: 2,
            kind: "usage",
            message,
            uid: Some("bad"),
            path,
        },
    );
    assert_eq!(files(world.path()), ["bad.wasm", "in/a.txt", "job.toml"]);
}

/// Checks that a job whose modules do not fit is refused with this message.
#[track_caller]
fn unfit(world: &World, uid: Option<&str>, message: &str) {
    for verb in ["validate", "run"] {
        refused(
            world,
            &[verb, "job.toml"],
            &Expected {
                status: 2,
                kind: "usage",
                message,
                uid,
                path: None,
            },
        );
    }
    assert!(!world.path().join("out").exists() && !world.path().join("data/run").exists());
}

#[test]
fn a_text_file() {
    check(
        b"#!/bin/sh\nexit 0\n",
        "operator \"bad\": DIR/bad.wasm: not a WebAssembly file: expected it to begin with \\0asm, found #!/bin/s",
    );
}

#[test]
fn an_empty_file() {
    check(
        b"",
        "operator \"bad\": DIR/bad.wasm: not a WebAssembly file: expected it to begin with \\0asm, found an empty file",
    );
}

#[test]
fn a_core_module() {
    check(
        b"\0asm\x01\0\0\0",
        "operator \"bad\": DIR/bad.wasm: a core WebAssembly module, not a component; build it with `regraft build`",
    );
}

#[test]
fn a_component_of_another_world() {
    check(
        OTHER_WORLD,
        "operator \"bad\": DIR/bad.wasm: not an operator of Regraft: expected the export `regraft:operator/guest@0.2.0`, found `wasi:cli/run@0.2.0`",
    );
}

/// `(component (instance) (export "wasi:cli/run@0.2.0" (instance 0)))`.
const OTHER_WORLD: &[u8] = b"\0asm\x0d\0\x01\0\x05\x03\x01\x01\0\x0b\x18\x01\0\x12wasi:cli/run@0.2.0\x05\0\0";

#[test]
fn a_component_of_another_version() {
    let newer = replaced(hostile(KEYED), "@0.2.0", "@0.9.0");
    check(
        &newer,
        "operator \"bad\": DIR/bad.wasm: built for version 0.9.0 of the package regraft:operator, this host offers 0.2.0; build it again with an SDK of this version, which `regraft sdk` puts into a job, and `regraft build`",
    );
}

#[test]
fn a_description_of_a_million_timers() {
    let world = hostile_world(r#"{"wit":"0.2.0","sdk":"bomb"}"#, BY_KEY);
    refused(
        &world,
        &["run", "job.toml"],
        &Expected {
            status: 2,
            kind: "usage",
            message: "operator \"bad\": DIR/bad.wasm: its `describe` failed: it returned, or logged, more than 1048576 bytes at once",
            uid: Some("bad"),
            path: Some("DIR/bad.wasm"),
        },
    );
}

fn replaced(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

#[test]
fn a_component_that_was_cut_short() {
    let whole = std::fs::read(&components().count).expect("built");
    check(
        &whole[..whole.len() / 2],
        "operator \"bad\": DIR/bad.wasm: it was changed after it was built: its section `regraft:describe` is of a file with the digest SHA256, found SHA256; build it again with `regraft build`",
    );
}

#[test]
fn no_such_file() {
    let world = World::new();
    world.write("job.toml", &job_around(BY_KEY));
    let message = "operator \"bad\": cannot read the module DIR/bad.wasm: No such file or directory (os error 2); expected a component file, as `regraft build` makes it";
    let path = Some("DIR/bad.wasm");
    refused(
        &world,
        &["run", "job.toml"],
        &Expected {
            status: 2,
            kind: "usage",
            message,
            uid: Some("bad"),
            path,
        },
    );
}

#[test]
fn no_such_crate() {
    let world = World::new();
    world.write(
        "job.toml",
        &job_around(BY_KEY).replace("module = \"bad.wasm\"", "crate = \"bad\""),
    );
    let expected = Expected {
        status: 2,
        kind: "usage",
        message: "cannot build operator \"bad\": DIR/bad has no Cargo.toml; expected the directory of a guest crate",
        uid: Some("bad"),
        path: Some("DIR/bad"),
    };
    refused(&world, &["run", "job.toml"], &expected);
}

#[test]
fn keyed_state_without_keys() {
    let world = hostile_world(KEYED, "inputs = [\"lines\"]");
    unfit(
        &world,
        Some("bad"),
        "operator \"bad\" has keyed state, so every input must come by key; the one from \"lines\" does not: write inputs = [{ from = \"lines\", by = \"key\" }]",
    );
}

#[test]
fn by_key_from_a_source_without_one() {
    let world = hostile_world(KEYED, BY_KEY);
    world.write("job.toml", &job_around(BY_KEY).replace("key = \"line\"\n", ""));
    let message = "input 0 of \"bad\" comes by key, but records of source \"lines\" have none: give the source a `key`";
    unfit(&world, Some("bad"), message);
}

#[test]
fn ports_that_do_not_agree() {
    let record = KEYED.replace(
        r#""value":"bytes"}],"out"#,
        r#""value":{"record":{"name":"Row","fields":[{"name":"n","type":"u64"}]}}}],"out"#,
    );
    let world = hostile_world(&record, BY_KEY);
    unfit(
        &world,
        Some("bad"),
        "operator \"bad\" reads Row {n: u64} from \"lines\", which emits text; deploy modules whose ports agree",
    );
}

#[test]
fn keys_that_do_not_agree() {
    let numbers = KEYED.replace(r#""type":"string""#, r#""type":"u64""#);
    let world = hostile_world(&numbers, BY_KEY);
    unfit(
        &world,
        Some("bad"),
        "operator \"bad\" is keyed by key u64, but \"lines\" emits the key line string; deploy modules whose keys agree",
    );
}

#[test]
fn a_port_that_is_not_there() {
    let world = hostile_world(KEYED, BY_KEY);
    let job = job_around(BY_KEY).replace("inputs = [\"bad\"]", "inputs = [{ from = \"bad\", port = \"late\" }]");
    world.write("job.toml", &job);
    unfit(
        &world,
        Some("out"),
        "input 0 of \"out\": operator \"bad\" has no output port \"late\"; it declares: out",
    );
}

#[test]
fn more_inputs_than_ports() {
    // A single declared port stands for any number of inputs; two ports stand for two.
    let two = PLAIN.replace(
        r#"[{"name":"in","key":null,"value":"bytes"}]"#,
        r#"[{"name":"a","key":null,"value":"bytes"},{"name":"b","key":null,"value":"bytes"}]"#,
    );
    let world = hostile_world(&two, "inputs = [\"lines\", \"lines\", \"lines\"]");
    unfit(
        &world,
        Some("bad"),
        "operator \"bad\" takes 2 inputs (a, b), and the job gives it 3; list 2 in `inputs`, in that order",
    );
    world.write("job.toml", &job_around("inputs = [\"lines\"]"));
    unfit(
        &world,
        Some("bad"),
        "operator \"bad\" takes 2 inputs (a, b), and the job gives it 1; list 2 in `inputs`, in that order",
    );
}

#[test]
fn records_written_as_lines() {
    let record = PLAIN.replace(
        r#""value":"bytes"}]}"#,
        r#""value":{"record":{"name":"Row","fields":[{"name":"n","type":"u64"}]}}}]}"#,
    );
    let world = hostile_world(&record, "inputs = [\"lines\"]");
    unfit(
        &world,
        Some("out"),
        "sink \"out\": format \"lines\" writes raw text, but its input is Row {n: u64}; use \"tsv\", \"csv\" or \"json\"",
    );
}

#[test]
fn what_contradicts_itself() {
    let states = r#""states":[{"name":"log","kind":"list","schema":"u64","travels":true},{"name":"log","kind":"map","schema":"u64","travels":false}],"#;
    let wrong = KEYED.replacen(
        r#""inputs""#,
        &format!(
            r#"{states}"timers":[{{"name":"gap","time":"lunch"}}],"operator_states":[{{"name":"seen","kind":"heap","schema":"u64"}}],"inputs""#
        ),
        1,
    );
    let wrong = wrong.replacen(
        r#""states":[{"name":"count","kind":"value","schema":"u64","travels":true}],"#,
        "",
        1,
    );
    // Without this list, all interfaces that the module exports are called.
    let wrong = wrong.replacen(r#""calls":[],"#, "", 1);
    let world = hostile_world(&wrong, BY_KEY);
    let declares = |what: &str| format!("operator \"bad\": its module declares {what}");
    let message = [
        declares(
            "state \"log\" of kind list that travels with the batch; expected \"travels\": false, as for all lists and maps",
        ),
        declares("state \"log\" of kind map without the type of its keys; name it as `map_key`"),
        declares("timer \"gap\" by \"lunch\"; expected \"event\" or \"processing\""),
        declares("operator state \"seen\" of kind \"heap\"; expected \"list\", \"union\" or \"broadcast\""),
        declares("state \"log\" twice; give one of them another name"),
    ];
    unfit(&world, Some("bad"), &message.join("\n"));
}

/// It would make a file name that no file system takes, and so fail each checkpoint.
#[test]
fn a_state_whose_name_is_too_long() {
    let name = "s".repeat(160);
    let long = KEYED.replacen(r#""name":"count""#, &format!(r#""name":"{name}""#), 1);
    let world = hostile_world(&long, BY_KEY);
    let message = format!(
        "operator \"bad\": its module declares state \"{}…\", whose files in savepoints would have names of {} bytes; expected at most 220: give it a shorter name",
        "s".repeat(40),
        "bad-32767-".len() + 36 + 1 + 160 + ".operator.parquet".len()
    );
    unfit(&world, Some("bad"), &message);
}

/// Lack of memory for an instance is not blamed on the module.
#[cfg(target_os = "linux")]
#[test]
fn no_room_for_an_instance() {
    let world = words_world();
    world.write("in/a", "a\n");
    let run = world.command(&["run"]);
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -v 4000000; exec \"$0\" run"])
        .arg(run.get_program())
        .current_dir(world.path())
        .env("REGRAFT_DATA", world.path().join("data"));
    let ran = Ran::from(limited.output().expect("runs")).exits(1);
    let message = "making an instance of the module failed: Cannot allocate memory (os error 12); an instance reserves 4 GiB of addresses, without using them: allow more (`ulimit -v`), or run fewer subtasks\n";
    assert!(ran.stderr.ends_with(message), "{}", ran.stderr);
}
