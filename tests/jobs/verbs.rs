//! Output of the verbs about running jobs: exact words for people, one object for programs.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::profile::{busy_job, wait_until_busy};
use crate::setup::{component, info, local, savepoint, show, stop, text, wait_for_out, words_job};
use crate::support::{Attached, Ran, World};

fn keys(object: &Value) -> BTreeSet<&str> {
    object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

fn running(world: &World) -> Attached {
    world.write("job.toml", &words_job("words", "update"));
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["job.toml", "-p", "2"]);
    wait_for_out(world, &job, 3);
    job
}

#[test]
fn list_and_info_tell_what_runs() {
    let world = World::new();
    assert_eq!(world.run(&["list"]).exits(0).stdout, "No running jobs.\n");
    assert_eq!(world.run(&["list", "--json"]).exits(0).json(), json!({ "jobs": [] }));
    let job = running(&world);
    let id = job.job_id.clone();
    let list = world.run(&["list", "--json"]).exits(0).json();
    let started_at = list["jobs"][0]["started_at"].as_i64().expect("milliseconds");
    assert_eq!(
        list,
        json!({ "jobs": [{ "job_id": id, "name": "words", "status": "RUNNING", "parallelism": 2,
            "started_at": started_at, "restored_from": null, "version": 1 }] })
    );
    let line = world.run(&["list"]).exits(0).stdout;
    assert!(line.ends_with(&format!(" : {id} : words (RUNNING)\n")), "{line}");

    let view = info(&world, "words");
    for (key, value) in [
        ("job_id", json!(id)),
        ("name", json!("words")),
        ("status", json!("RUNNING")),
        ("parallelism", json!(2)),
        ("max_parallelism", json!(128)),
        ("started_at", json!(started_at)),
        ("restored_from", Value::Null),
        ("version", json!(1)),
        ("records_in", json!(1)),
        ("records_out", json!(3)),
        ("last_checkpoint", Value::Null),
        ("checkpoints", json!(0)),
        ("failure", Value::Null),
    ] {
        assert_eq!(view[key], value, "{key}");
    }
    let uids: Vec<String> = view["operators"]
        .as_array()
        .expect("operators")
        .iter()
        .map(|node| text(&node["uid"]))
        .collect();
    assert_eq!(uids, ["lines", "split", "count", "out"]);
    let count = &view["operators"][2];
    assert_eq!(
        (&count["records_in"], &count["records_out"], &count["keys"]),
        (&json!(3), &json!(3), &json!(2))
    );
    assert_eq!(count["states"], json!(["count"]));
    // Each setting is shown with its origin.
    assert_eq!(view["settings"]["checkpoint.interval"]["value"], "\"off\"");
    assert_eq!(view["settings"]["checkpoint.interval"]["origin"], "job file");
    assert_eq!(
        view["settings"]["parallelism"],
        json!({ "value": "2", "origin": "command line" })
    );

    // The announcement exists while the job runs, and is removed afterwards.
    let announced = world.path().join("data/run").join(format!("{id}.json"));
    let announcement: Value = serde_json::from_slice(&std::fs::read(&announced).expect("announced")).expect("JSON");
    assert_eq!(
        keys(&announcement),
        ["job_id", "name", "pid", "process", "token", "url"].into()
    );
    let url = text(&announcement["url"]);
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(world.run(&["list", "--host", &url, "--json"]).exits(0).json(), list);
    stop(&world, job);
    assert!(!announced.exists());
}

#[test]
fn savepoint_and_stop_speak_as_the_contract_says() {
    let world = World::new();
    let job = running(&world);
    let id = job.job_id.clone();
    let saved = world.run(&["savepoint", &id[..8]]).exits(0);
    let lines: Vec<&str> = saved.stdout.lines().collect();
    let path = lines[2].strip_prefix("Savepoint completed. Path: ").expect("a path");
    assert_eq!(
        lines,
        [
            &format!("Triggering savepoint for job {id}."),
            "Waiting for response...",
            &format!("Savepoint completed. Path: {path}"),
            "You can resume your program from this savepoint with the run command.",
        ]
    );
    let name = local(path)
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name")
        .to_owned();
    let random = name.strip_prefix(&format!("savepoint-{}-", &id[..6])).expect(&name);
    assert!(
        random.len() == 12 && random.bytes().all(|b| b.is_ascii_hexdigit()),
        "{name}"
    );

    let native = world
        .run(&["savepoint", "words", "native dir", "--type", "native", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        keys(&native),
        ["bytes", "checkpoint_id", "duration_ms", "format", "job_id", "path"].into()
    );
    assert_eq!(
        (&native["job_id"], &native["checkpoint_id"], &native["format"]),
        (&json!(id), &json!(2), &json!("native"))
    );
    let native_path = text(&native["path"]);
    assert!(
        native_path.starts_with(&format!("file://{}", world.path().display())),
        "{native_path}"
    );
    assert_eq!(show(&world, &native_path)["checkpoint_id"], 2);

    let stopped = world.run(&["stop", "-p", "words"]).exits(0);
    let (first, last) = stopped.stdout.split_once('\n').expect("two lines");
    assert_eq!(first, format!("Suspending job \"{id}\" with a CANONICAL savepoint."));
    let path = last
        .trim_end()
        .strip_prefix("Savepoint completed. Path: ")
        .expect("a path");
    assert_eq!(show(&world, path)["trigger"], "stop");
    let ran = job.end().exits(0);
    assert_eq!(ran.stdout, "", "results only, and there are none");
    // A native savepoint is restored like any other.
    let again = world.start(&["-s", &native_path, "job.toml", "--set", "out.path=out2"]);
    world.write("in/words.txt", "a b a\nb\n");
    wait_for_out(&world, &again, 1);
    stop(&world, again);
    assert_eq!(world.committed("out2"), ["b\t2"]);
}

#[test]
fn a_run_tells_its_end_as_one_object() {
    let world = World::new();
    world.write("job.toml", &words_job("words", "update"));
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["job.toml", "--json"]);
    wait_for_out(&world, &job, 3);
    let (saved, ran) = stop(&world, job);
    let answer = ran.json();
    let contract = [
        "job_id",
        "name",
        "status",
        "records_in",
        "records_out",
        "dead_letters",
        "duration_ms",
        "savepoint",
    ];
    assert!(keys(&answer).is_superset(&contract.into()), "{answer}");
    for (key, value) in [
        ("status", json!("FINISHED")),
        ("records_in", json!(1)),
        ("records_out", json!(3)),
        ("dead_letters", json!(0)),
        ("savepoint", json!(saved)),
    ] {
        assert_eq!(answer[key], value, "{key}");
    }
}

#[test]
fn an_unknown_or_ambiguous_job_is_usage() {
    let world = World::new();
    for verb in ["info", "savepoint", "stop", "cancel"] {
        let none = world.run(&[verb, "nobody"]).exits(2);
        let message =
            "there is no job \"nobody\"; expected an id, a unique prefix of one, or a name; no job is running";
        assert!(none.stderr.contains(message), "{verb}: {}", none.stderr);
    }
    let job = running(&world);
    let error = world.run(&["info", "nobody", "--json"]).exits(2).json();
    let message = format!(
        "there is no job \"nobody\"; expected an id, a unique prefix of one, or a name; running:\n  {}  words  RUNNING",
        job.job_id
    );
    assert_eq!(
        error,
        json!({ "error": { "kind": "usage", "message": message, "uid": null, "path": null } })
    );
    // It would take sixteen more jobs to be sure that two share a first digit; a name that looks like a prefix does as
    // well.
    let prefix = job.job_id[..4].to_owned();
    let other = world.start(&["job.toml", "--name", &prefix, "--set", "out.path=out2"]);
    let both = world.run(&["info", &prefix]).exits(2);
    assert!(
        both.stderr
            .contains(&format!("{prefix:?} names several jobs; give more of the id:\n")),
        "{}",
        both.stderr
    );
    for line in [
        format!("  {}  words  RUNNING", job.job_id),
        format!("  {}  {prefix}  RUNNING", other.job_id),
    ] {
        assert!(both.stderr.contains(&line), "{line}: {}", both.stderr);
    }
    assert_eq!(info(&world, &job.job_id[..9])["name"], "words");
    stop(&world, other);
    stop(&world, job);
}

/// Runs a command whose stdout takes nothing, as on a full disk.
fn run_full(world: &World, args: &[&str]) -> Ran {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("a device");
    let output = world.command(args).stdout(full).stderr(Stdio::piped()).output();
    Ran::from(output.expect("the program runs"))
}

const COUNTED: &str = r#"name = "counted"
[[source]]
uid = "lines"
connector = "file"
path = "in/*.txt"
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["lines"]
"#;

#[test]
fn every_verb_fails_whose_result_cannot_be_written() {
    let world = World::new();
    let _host = world.serve(&[]);
    world.write("in/words.txt", "a b a\n");
    world.write("job.toml", &words_job("words", "update"));
    world.write("counted.toml", COUNTED);
    world.write("printed.toml", &COUNTED.replace("blackhole", "print"));
    let submit = |name: &str| {
        let path = format!("out.path={name}");
        world
            .run(&["run", "-d", "job.toml", "--name", name, "--set", &path])
            .exits(0);
    };
    ["words", "cancelled", "stopped"].iter().for_each(|name| submit(name));
    world.write("busy.toml", &busy_job("busy"));
    world.run(&["run", "-d", "busy.toml"]).exits(0);
    wait_until_busy(&world, "busy");
    let saved = savepoint(&world, "words");
    let component = component("count-v2").to_string_lossy().into_owned();
    let module = format!("count={component}");
    let listen = ["serve", "--json", "--listen", "127.0.0.1:0"];
    let commands: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["list"],
        &["list", "--json"],
        &["list", "--snapshots", "words"],
        &["info", "words"],
        &["info", "words", "--json"],
        &["gc"],
        &["gc", "--json"],
        &["logs", "words"],
        &["logs", "words", "--json"],
        &["inspect", &component],
        &["inspect", &component, "--json"],
        &["graph", "job.toml"],
        &["validate", "job.toml"],
        &["build", "job.toml"],
        &["new", "fresh"],
        &["sdk", "fresh"],
        &["state", "show", &saved],
        &["state", "verify", &saved, "--json"],
        &["savepoint", "words", "sp"],
        &["savepoint", "words", "sp", "--json"],
        &["savepoint", "-d", &saved],
        &["upgrade", "words", "--module", &module, "--json"],
        &["run", "-d", "counted.toml", "--name", "submitted"],
        &["run", "counted.toml"],
        &["run", "counted.toml", "--json"],
        &["profile", "busy", "--uid", "picky", "--duration", "1s"],
        &["profile", "busy", "--uid", "picky", "--duration", "1s", "--json"],
        &["profile", "busy", "--uid", "picky", "--duration", "1s", "-o", "-"],
        &["cancel", "busy"],
        &["cancel", "cancelled"],
        &["stop", "stopped", "--savepoint-path", "sp"],
        &listen,
    ];
    for args in commands {
        let ran = match args {
            // Another host, as there is one of this data directory.
            ["serve", ..] => run_full(&World::new(), args),
            _ => run_full(&world, args),
        };
        let reason = "error: the result could not be written to stdout: No space left on device";
        assert!(ran.stderr.contains(reason), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.status, 1, "{args:?}: {}", ran.stderr);
    }
    // Every verb is among them.
    let help = world.run(&["--help"]).exits(0).stdout;
    let (_, verbs) = help.split_once("Commands:\n").expect("a list of verbs");
    let verb = |line: &str| Some(line.strip_prefix("  ")?.split_whitespace().next()?.to_owned());
    let verbs: Vec<String> = verbs
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(verb)
        .collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs.iter().filter(|verb| *verb != "help") {
        assert!(commands.iter().any(|args| args[0] == verb), "{verb} is not tried");
    }
    // What they did is done.
    assert!(world.path().join("fresh").exists());
    assert_eq!(info(&world, "words")["version"], 2);
    // A print sink fails its job, which is not restarted.
    let ran = run_full(&world, &["run", "printed.toml"]);
    let reason = "cannot write to stdout: No space left on device";
    assert!(ran.stderr.contains(reason), "{}", ran.stderr);
    assert_eq!(ran.status, 1);
}
