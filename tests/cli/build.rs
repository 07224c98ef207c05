//! `validate`, `graph` and `inspect`: verbs about a job that does not run.

use serde_json::json;

use crate::fixtures::{COPY, Expected, KEYED, components, hostile, keys, message, plain, refused, words_world};
use crate::support::World;

#[test]
fn validate() {
    let world = words_world();
    assert_eq!(
        world.run(&["validate"]).exits(0).stdout,
        format!("job.toml is valid: job words, 4 nodes\n{STATEFUL}")
    );
    let json = world.run(&["validate", "--json"]).exits(0).json();
    let operators = json!([
        { "uid": "split", "stateful": false, "states": [] },
        { "uid": "count", "stateful": true, "states": ["count"] },
    ]);
    assert_eq!(
        json,
        json!({ "name": "words", "valid": true, "warnings": [], "operators": operators })
    );
}

/// Table of the operators of `words_world`.
const STATEFUL: &str = "\
OPERATOR  STATEFUL  STATES
split     no
count     yes       count
";

#[test]
fn a_savepoint_is_read_before_anything_is_built() {
    let world = words_world();
    world.write("split/Cargo.toml", "no manifest");
    let args = ["run", "-s", "gone", "--module", "split=split"];
    let ran = world.run(&args).exits(1);
    assert!(
        ran.stderr.contains("/gone/_metadata does not exist. "),
        "{}",
        ran.stderr
    );
    // Where a host is named, only that one knows its files.
    let args = [&args[..], &["-d", "--host", "127.0.0.1:1"]].concat();
    let ran = world.run(&args).exits(2);
    assert!(ran.stderr.contains("cannot build operator \"split\""), "{}", ran.stderr);
}

#[test]
fn validate_refuses_modules_that_are_none_and_says_what_it_cannot_know() {
    let world = words_world();
    world.write("no.wasm", "no component");
    world.write("split/Cargo.toml", "[package]\nname = \"split\"\n");
    let args = ["validate", "--module", "split=gone.wasm", "--module", "count=no.wasm"];
    let ran = world.run(&[&args[..], &["--json"]].concat()).exits(2);
    let lines = [
        "operator \"split\": cannot read the module DIR/gone.wasm: No such file or directory (os error 2); expected a component file, as `regraft build` makes it",
        "operator \"count\": DIR/no.wasm: not a WebAssembly file: expected it to begin with \\0asm, found no compo",
    ];
    assert_eq!(message(&world, &ran), lines.join("\n"));
    let error = &ran.json()["error"];
    let uids: Vec<_> = [0, 1].iter().map(|i| error["problems"][i]["uid"].as_str()).collect();
    assert_eq!(uids, [Some("split"), Some("count")], "{error}");
    assert!(error["uid"].is_null() && error["problems"][2].is_null(), "{error}");
    let no_crate = world.run(&["validate", "--module", "split=."]).exits(2);
    assert_eq!(
        message(&world, &no_crate),
        "cannot build operator \"split\": DIR/. has no Cargo.toml; expected the directory of a guest crate"
    );
    // A component without a description in its file is asked for it; a crate that is not built is no problem.
    std::fs::write(world.path().join("no.wasm"), hostile(KEYED)).expect("written");
    let args = ["validate", "--module", "split=split", "--module", "count=no.wasm"];
    let expected = "job.toml is valid: job words, 4 nodes\nOPERATOR  STATEFUL  STATES\n\
                    split     unknown   not built yet; `regraft build` builds it\ncount     yes       count\n";
    assert_eq!(world.run(&args).exits(0).stdout, expected);
    let json = world.run(&[&args[..], &["--json"]].concat()).exits(0).json();
    assert!(json["operators"][0]["stateful"].is_null(), "{json}");
}

#[test]
fn validate_warns() {
    let world = words_world();
    let warning = "sink \"out\": checkpoint.interval is \"off\", so its output becomes visible only when the job ends; set checkpoint.interval = \"10s\"";
    let args = ["validate", "--set", "checkpoint.interval=off"];
    let expected = format!("warning: job.toml:1: {warning}\njob.toml is valid: job words, 4 nodes\n{STATEFUL}");
    assert_eq!(world.run(&args).exits(0).stdout, expected);
}

#[test]
fn graph() {
    let world = words_world();
    let expected = "job words (parallelism 2, max 128)\n\nchain 1 x 2\n  source lines (file *)\n  operator split (module \
                    word_count_split.wasm)\n\nchain 2 x 2\n  operator count (module word_count_count.wasm)\n    from \
                    split by key\n  sink out (file out)\n";
    assert_eq!(world.run(&["graph", "-p", "2"]).exits(0).stdout, expected);
}

#[test]
fn graph_as_mermaid() {
    let world = words_world();
    let expected = r#"flowchart LR
  subgraph chain1["x 1"]
    n0(["lines<br/>file *"])
    n1["split<br/>module word_count_split.wasm"]
  end
  subgraph chain2["x 1"]
    n2["count<br/>module word_count_count.wasm"]
    n3[/"out<br/>file out"/]
  end
  n0 -->|"forward"| n1
  n1 -->|"key"| n2
  n2 -->|"forward"| n3
"#;
    assert_eq!(world.run(&["graph", "--mermaid"]).exits(0).stdout, expected);
}

#[test]
fn graph_as_json() {
    let world = words_world();
    let json = world.run(&["graph", "--json"]).exits(0).json();
    assert_eq!(keys(&json), ["name", "nodes", "text"]);
    let node = |uid: &str, kind: &str, inputs| json!({ "uid": uid, "kind": kind, "parallelism": 1, "inputs": inputs });
    let input = |from: &str, by: &str| json!([{ "from": from, "port": null, "by": by }]);
    assert_eq!(
        json["nodes"],
        json!([
            node("lines", "source", json!([])),
            node("split", "operator", input("lines", "forward")),
            node("count", "operator", input("split", "key")),
            node("out", "sink", input("count", "forward")),
        ])
    );
}

#[test]
fn inspect() {
    let world = World::new();
    let count = components().count.display().to_string();
    let bytes = std::fs::metadata(&count).expect("built").len();
    let ran = world.run(&["inspect", &count]).exits(0);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "sha256 SHA256, {bytes} bytes, regraft:operator@0.2.0, regraft-sdk {version}\n\
         key     word: string\n\
         state   count: u64 (value, digest 0cb58e27a1401917)\n\
         output  counts: Counted {{word: string, count: u64}}, key word: string\n\
         uses    ending\n\
         imports regraft:operator/* only\n"
    );
    assert_eq!(plain(&world, &ran.stdout), expected);
    let json = world.run(&["inspect", &count, "--json"]).exits(0).json();
    assert_eq!(keys(&json), ["bytes", "describe", "digest", "path"]);
    assert_eq!(
        (json["bytes"].as_u64(), json["path"].as_str()),
        (Some(bytes), Some(count.as_str()))
    );
    assert_eq!(
        json["digest"].as_str().map(|digest| plain(&world, digest)).as_deref(),
        Some("SHA256")
    );
    assert_eq!(json["describe"]["key"], json!({ "name": "word", "type": "string" }));
    assert_eq!(json["describe"]["states"][0]["name"], "count");
}

#[test]
fn inspect_of_what_is_no_component() {
    let world = World::new();
    world.write("job.toml", COPY);
    let not = "job.toml: not a WebAssembly file: expected it to begin with \\0asm, found name = \\\"";
    let expected = Expected {
        status: 2,
        kind: "usage",
        message: not,
        uid: None,
        path: Some("job.toml"),
    };
    refused(&world, &["inspect", "job.toml"], &expected);
    let message = "cannot read no.wasm: No such file or directory (os error 2)";
    let expected = Expected {
        status: 2,
        kind: "usage",
        message,
        uid: None,
        path: Some("no.wasm"),
    };
    refused(&world, &["inspect", "no.wasm"], &expected);
}
