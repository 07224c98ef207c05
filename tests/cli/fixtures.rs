//! Components to run, jobs around them, and the comparison of messages.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::{Ran, World, root};

/// A description for the hostile guest: one keyed state, and none of the features that this host does not run yet.
pub const KEYED: &str = concat!(
    r#"{"wit":"0.2.0","sdk":"none","calls":[],"key":{"name":"key","type":"string"},"#,
    r#""states":[{"name":"count","kind":"value","schema":"u64","travels":true}],"#,
    r#""inputs":[{"name":"in","key":null,"value":"bytes"}],"outputs":[{"name":"out","key":null,"value":"bytes"}]}"#
);

/// Like [`KEYED`] without a state, so that it takes any input.
pub const PLAIN: &str = concat!(
    r#"{"wit":"0.2.0","sdk":"none","calls":[],"key":null,"states":[],"#,
    r#""inputs":[{"name":"in","key":null,"value":"bytes"}],"outputs":[{"name":"out","key":null,"value":"bytes"}]}"#
);

/// Returns a job file that reads `in/*.txt` into the operator `bad`, at the module `bad.wasm`, and writes to `out`.
/// `settings` are further lines of the operator.
pub fn job_around(settings: &str) -> String {
    format!(
        r#"name = "j"
[[source]]
uid = "lines"
connector = "file"
path = "in/*.txt"
key = "line"
[[operator]]
uid = "bad"
module = "bad.wasm"
{settings}
[[sink]]
uid = "out"
connector = "file"
path = "out"
inputs = ["bad"]
"#
    )
}

/// A job of one source and one sink, which prints what is read.
pub const COPY: &str = r#"name = "copy"
[[source]]
uid = "lines"
connector = "file"
path = "in/*"
[[sink]]
uid = "out"
connector = "print"
inputs = ["lines"]
"#;

/// Builds guest crates, given by directories relative to the repository, and returns their components.
fn build(crates: &[&str]) -> Vec<PathBuf> {
    let mut text = "name = \"b\"\n[[source]]\nuid = \"lines\"\nconnector = \"file\"\npath = \"x\"\n".to_owned();
    for (i, dir) in crates.iter().enumerate() {
        let dir = root().join(dir);
        text += &format!(
            "[[operator]]\nuid = \"o{i}\"\ncrate = {:?}\ninputs = [\"lines\"]\n",
            dir.display().to_string()
        );
    }
    text += "[[sink]]\nuid = \"out\"\nconnector = \"blackhole\"\ninputs = [\"lines\"]\n";
    let world = World::new();
    world.write("job.toml", &text);
    let built = world.run(&["build", "--json"]).exits(0).json();
    let components = built["components"].as_array().expect("components");
    components
        .iter()
        .map(|built| PathBuf::from(built["component"].as_str().expect("a path")))
        .collect()
}

/// The components of the word count example, and of the hostile guest.
pub struct Components {
    pub split: PathBuf,
    pub count: PathBuf,
    pub hostile: PathBuf,
}

/// Returns the components, which are built once.
pub fn components() -> &'static Components {
    static BUILT: OnceLock<Components> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = build(&[
            "examples/word-count/split",
            "examples/word-count/count",
            "tests/guests/hostile",
        ]);
        let [split, count, hostile] = built.try_into().expect("three components");
        Components { split, count, hostile }
    })
}

/// Returns the hostile guest's component with another description.
pub fn hostile(describe: &str) -> Vec<u8> {
    let component = std::fs::read(&components().hostile).expect("built");
    let mut component = without_section(component);
    let (from, to) = ("{\"wit\":\"0.2.0\",\"sdk\":\"none\"", "\"schema\":\"bytes\"}]}");
    let start = find(&component, from.as_bytes()).expect("its description");
    let end = start + find(&component[start..], to.as_bytes()).expect("the end of it") + to.len();
    let padded = format!("{describe:width$}", width = end - start);
    assert_eq!(padded.len(), end - start, "a description that is not longer");
    component[start..end].copy_from_slice(padded.as_bytes());
    component
}

/// Removes the description that `regraft build` puts first in a component, since it would contradict the new one.
fn without_section(mut component: Vec<u8>) -> Vec<u8> {
    // Eight bytes of preamble; the id of the section, 0; its length in LEB128; its content.
    assert_eq!(component[8], 0, "a custom section");
    let digits = 1 + component[9..].iter().take_while(|byte| **byte >= 0x80).count();
    let length = &component[9..9 + digits];
    let length = length
        .iter()
        .rev()
        .fold(0, |length, digit| length << 7 | usize::from(digit & 0x7f));
    assert!(
        component[9 + digits..].starts_with(b"\x10regraft:describe"),
        "the description's section"
    );
    component.drain(8..9 + digits + length);
    component
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// A world in which `bad.wasm` is the hostile guest with this description, and `in/a.txt` has the lines `a`, `bad`,
/// `c`.
pub fn hostile_world(describe: &str, settings: &str) -> World {
    let world = World::new();
    std::fs::write(world.path().join("bad.wasm"), hostile(describe)).expect("written");
    world.write("in/a.txt", "a\nbad\nc\n");
    world.write("job.toml", &job_around(settings));
    world
}

/// A world with the word count of `in/*` at parallelism 1, with the modules of the example.
pub fn words_world() -> World {
    let world = World::new();
    let Components { split, count, .. } = components();
    let text = format!(
        r#"name = "words"
[[source]]
uid = "lines"
connector = "file"
path = "in/*"
[[operator]]
uid = "split"
module = {split:?}
inputs = ["lines"]
[[operator]]
uid = "count"
module = {count:?}
inputs = [{{ from = "split", by = "key" }}]
config = {{ emit = "final" }}
[[sink]]
uid = "out"
connector = "file"
path = "out"
format = "tsv"
inputs = ["count"]
"#
    );
    world.write("job.toml", &text);
    world
}

/// Replaces paths of this machine and ids of this run: the working directory by `DIR`, the repository by `ROOT`, JobIDs
/// by `JOB`, digests by `SHA256`.
pub fn plain(world: &World, text: &str) -> String {
    let text = text
        .replace(&world.path().display().to_string(), "DIR")
        .replace(&root().display().to_string(), "ROOT");
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let hex = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if hex == 32 || hex == 64 {
            out.push_str(if hex == 32 { "JOB" } else { "SHA256" });
            rest = &rest[hex..];
        } else {
            let taken = hex.max(rest.chars().next().map_or(0, char::len_utf8));
            out.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
    }
    out
}

/// Returns the message of a failure: all of stderr after `error: `, which is printed last.
#[track_caller]
pub fn message(world: &World, ran: &Ran) -> String {
    let stderr = plain(world, &ran.stderr);
    let at = stderr
        .find("error: ")
        .filter(|at| *at == 0 || stderr[..*at].ends_with('\n'));
    let at = at.unwrap_or_else(|| panic!("no error in:\n{stderr}"));
    stderr[at + "error: ".len()..].trim_end().to_owned()
}

/// The expected failure of a command.
pub struct Expected<'a> {
    pub status: i32,
    pub kind: &'a str,
    pub message: &'a str,
    pub uid: Option<&'a str>,
    pub path: Option<&'a str>,
}

/// Runs a command without and with `--json`, and checks the whole message, the error object as the only output on
/// stdout, and the same status for both.
#[track_caller]
pub fn refused(world: &World, args: &[&str], expected: &Expected<'_>) {
    let ran = world.run(args).exits(expected.status);
    assert_eq!(message(world, &ran), expected.message);
    assert_eq!(ran.stdout, "");
    let with_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let ran = world.run(&with_json).exits(expected.status);
    assert_eq!(message(world, &ran), expected.message);
    let path = ran.json()["error"]["path"].as_str().map(|path| plain(world, path));
    let mut error = ran.json();
    error["error"]["path"] = path.into();
    let text = error["error"]["message"].as_str().map(|text| plain(world, text));
    error["error"]["message"] = text.into();
    let Expected {
        kind,
        message,
        uid,
        path,
        ..
    } = expected;
    let problems = error["error"]
        .as_object_mut()
        .and_then(|error| error.remove("problems"));
    assert_eq!(
        error,
        json!({ "error": { "kind": kind, "message": message, "uid": uid, "path": path } })
    );
    check_problems(problems.as_ref(), message, &|text| plain(world, text));
}

/// Checks that each problem stands for itself where there are several, and that the message has all of them.
#[track_caller]
fn check_problems(problems: Option<&Value>, message: &str, plain: &dyn Fn(&str) -> String) {
    let Some(problems) = problems.and_then(Value::as_array) else {
        return;
    };
    assert!(problems.len() > 1, "{problems:?}");
    for problem in problems {
        assert_eq!(keys(problem), ["kind", "message", "path", "remedy", "uid"]);
        let text = problem["message"].as_str().map(plain).expect("a text");
        let remedy = problem["remedy"].as_str().map(plain).unwrap_or_default();
        assert!(message.contains(&text) && message.contains(&remedy), "{text} {remedy}");
    }
}

/// Returns the names of all files below a directory, sorted; empty if it does not exist.
pub fn files(dir: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            continue;
        };
        for path in entries.map(|entry| entry.expect("entry").path()) {
            if path.is_dir() {
                left.push(path);
            } else {
                found.push(path.strip_prefix(dir).expect("below").display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Returns the keys of a JSON object, sorted.
pub fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
    keys.sort();
    keys
}
