//! Savepoints that were moved or damaged, or that were taken of a job that has changed since.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::setup::{counts, local, savepoint, show, shown, stop, text, tsv, wait_for_out, words_job};
use crate::support::World;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    for entry in std::fs::read_dir(from).expect("directory") {
        let entry = entry.expect("entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// Stops a job that has counted `a b a`, and returns its savepoint.
fn stopped(world: &World, p: &str) -> PathBuf {
    world.write("job.toml", &words_job("words", "update"));
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["job.toml", "-p", p]);
    wait_for_out(world, &job, 3);
    local(&stop(world, job).0)
}

#[test]
fn a_savepoint_is_restored_from_where_it_was_copied_to() {
    let world = World::new();
    let original = stopped(&world, "3");
    let moved = world.path().join("elsewhere/kept");
    copy(&original, &moved);
    std::fs::remove_dir_all(&original).expect("removed");
    std::fs::remove_dir_all(world.path().join("data/checkpoints")).ok();
    let path = moved.to_str().expect("UTF-8");
    let sound = world.run(&["state", "verify", path]).exits(0);
    assert!(
        sound.stdout.starts_with(&format!("file://{path} is sound: ")),
        "{}",
        sound.stdout
    );
    assert_eq!(tsv(&counts(&show(&world, path))), ["a\t2", "b\t1"]);
    // By its directory, by its `_metadata`, by a relative path, and by a URL.
    let relative = "elsewhere/kept".to_owned();
    for (n, location) in [format!("{path}/_metadata"), relative, format!("file://{path}")]
        .iter()
        .enumerate()
    {
        let out = format!("out-{n}");
        let job = world.start(&["-s", location, "job.toml", "--set", &format!("out.path={out}")]);
        world.write("in/more.txt", "a\n");
        wait_for_out(&world, &job, 1);
        stop(&world, job);
        std::fs::remove_file(world.path().join("in/more.txt")).expect("removed");
        assert_eq!(world.committed(&out), ["a\t3"]);
    }
    let gone = world
        .run(&["run", "-s", original.to_str().expect("UTF-8"), "job.toml"])
        .exits(1);
    let message = format!(
        "file://{}/_metadata does not exist. Expected a savepoint or checkpoint directory, or its _metadata file: one without _metadata was never completed.",
        original.display()
    );
    assert!(gone.stderr.contains(&message), "{}", gone.stderr);
}

#[test]
fn show_says_who_would_miss_a_savepoint() {
    let world = World::new();
    let saved = stopped(&world, "2");
    let saved = saved.to_str().expect("UTF-8");
    let asked = |more: &[&str]| {
        let mut args = vec!["state", "show", saved];
        args.extend_from_slice(more);
        (
            world.run(&args).exits(0).stdout,
            world.run(&[&args[..], &["--json"]].concat()).exits(0).json(),
        )
    };
    let (shown, json) = asked(&[]);
    assert!(shown.contains("\nsafe to delete:  yes\n\nUID "), "{shown}");
    assert_eq!(
        (&json["needed_by"], &json["safe_to_delete"]),
        (&json!([]), &json!(true))
    );
    // The modules of all operators, also of those without state, and the job file.
    let split = json["modules"]["split"].as_str().expect("its digest");
    assert!(
        shown.contains(&format!("\nmodule:          split {split}\n")),
        "{shown}"
    );
    assert!(shown.contains("\njob file:\n  name = \"words\"\n"), "{shown}");

    // The job has no checkpoint of its own: its interval is "off".
    let job = world.start(&["-s", saved, "job.toml", "--set", "out.path=again"]);
    let (shown, json) = asked(&[]);
    let needed = format!(
        "\nneeded by:       job words ({}) until first checkpoint\nsafe to delete:  no\n",
        job.job_id
    );
    assert!(shown.contains(&needed), "{shown}");
    assert_eq!(
        (&json["needed_by"][0]["job_id"], &json["safe_to_delete"]),
        (&json!(job.job_id), &json!(false))
    );
    // A host that does not answer leaves it unknown.
    let (shown, json) = asked(&["--host", "127.0.0.1:1"]);
    assert!(
        shown.contains("\nsafe to delete:  unknown: http://127.0.0.1:1/api/v1/jobs: "),
        "{shown}"
    );
    assert!(json["safe_to_delete"].is_null(), "{json}");
    drop(job);
    assert!(asked(&[]).0.contains("\nsafe to delete:  yes\n"));
}

#[test]
fn state_that_nobody_takes_is_refused_until_it_is_dropped() {
    let world = World::new();
    let saved = stopped(&world, "2");
    let saved = saved.to_str().expect("UTF-8");
    let shown_savepoint = show(&world, saved);
    let bytes = shown(&shown_savepoint, "count")["bytes"].as_u64().expect("bytes");
    let renamed = words_job("words", "update")
        .replace("uid = \"count\"", "uid = \"tally\"")
        .replace("inputs = [\"count\"]", "inputs = [\"tally\"]")
        .replace("uid = \"lines\"", "uid = \"text\"")
        .replace("inputs = [\"lines\"]", "inputs = [\"text\"]");
    world.write("renamed.toml", &renamed);
    let orphan = |uid: &str, kind: &str, keys: u64, bytes: u64| {
        format!(
            "\n  uid \"{uid}\": the savepoint has state of this {kind} ({keys} keys, {bytes} bytes); the job has no such uid. Add it, or drop its state with --drop-state {uid}, or that of all absent uids with -n/--allow-non-restored-state."
        )
    };
    let run = |more: &[&str]| {
        let mut args = vec!["run", "-s", saved, "renamed.toml", "--set", "out.path=new", "--json"];
        args.extend_from_slice(more);
        world.run(&args)
    };
    let refused = run(&[]).exits(1).json();
    let message = format!(
        "cannot restore from file://{saved}:{}{}",
        orphan("lines", "source", 0, 0),
        orphan("count", "operator", 2, bytes)
    );
    assert_eq!(text(&refused["error"]["message"]), message);
    assert_eq!(
        (&refused["error"]["kind"], &refused["error"]["path"]),
        (&"failed".into(), &format!("file://{saved}").into())
    );
    assert!(refused["error"]["uid"].is_null(), "it is about two of them: {refused}");
    let half = run(&["--drop-state", "count"]).exits(1).json();
    assert_eq!(half["error"]["uid"], "lines");
    let half = text(&half["error"]["message"]);
    assert!(
        half.contains(&orphan("lines", "source", 0, 0)) && !half.contains("uid \"count\""),
        "{half}"
    );
    let unknown = text(&run(&["-n", "--drop-state", "cuont"]).exits(1).json()["error"]["message"]);
    let expected = "--drop-state cuont: the savepoint has no such state. Expected one of: lines, count, count/count";
    assert!(unknown.contains(expected), "{unknown}");

    // With its state dropped, it starts from nothing, and says what is gone.
    let flags: [&[&str]; 2] = [&["-n"], &["--drop-state", "count", "--drop-state", "lines"]];
    for (n, flags) in flags.into_iter().enumerate() {
        let out = format!("out.path=out-{n}");
        let mut args = vec!["-s", saved, "renamed.toml", "--set", &out];
        args.extend_from_slice(flags);
        let job = world.start(&args);
        wait_for_out(&world, &job, 3);
        assert!(
            job.stderr()
                .contains(&format!("Dropped state of \"count\": 2 keys, {bytes} bytes.")),
            "{}",
            job.stderr()
        );
        assert!(
            job.stderr().contains("Dropped state of \"lines\": 0 keys, 0 bytes."),
            "{}",
            job.stderr()
        );
        stop(&world, job);
        assert_eq!(world.committed(&format!("out-{n}")), ["a\t1", "a\t2", "b\t1"]);
    }
    // Dropping a single state of a uid that stays: the source goes on where it was.
    let job = world.start(&[
        "-s",
        saved,
        "job.toml",
        "--drop-state",
        "count/count",
        "--set",
        "out.path=out-3",
    ]);
    world.write("in/words.txt", "a b a\na\n");
    wait_for_out(&world, &job, 1);
    assert!(
        job.stderr().contains("Dropped state of \"count/count\": 2 keys, "),
        "{}",
        job.stderr()
    );
    stop(&world, job);
    assert_eq!(world.committed("out-3"), ["a\t1"]);
}

#[test]
fn ordinary_tools_read_words_and_counts() {
    let world = World::new();
    world.write("job.toml", &words_job("words", "update"));
    world.write("in/words.txt", "to be or not to be\n");
    let job = world.start(&["job.toml", "-p", "4"]);
    wait_for_out(&world, &job, 6);
    let saved = show(&world, &savepoint(&world, "words"));
    let rows = crate::setup::parquet_rows(&saved, "count");
    let names: Vec<&String> = rows[0].keys().collect();
    assert_eq!(names, ["_key_group", "count", "word"]);
    assert_eq!(tsv(&counts(&saved)), ["be\t2", "not\t1", "or\t1", "to\t2"]);
    for file in shown(&saved, "count")["states"][0]["files"].as_array().expect("files") {
        let file = text(file);
        assert!(
            file.starts_with("operators/count-") && file.ends_with(".count.parquet"),
            "{file}"
        );
    }
    stop(&world, job);
}

/// A way to damage a file.
#[derive(Clone, Copy)]
enum Damage {
    Truncate,
    Flip,
}

#[test]
fn damaged_files_are_refused_by_name() {
    let world = World::new();
    let saved = stopped(&world, "1");
    let state = text(&shown(&show(&world, saved.to_str().expect("UTF-8")), "count")["states"][0]["files"][0]);
    let module = std::fs::read_dir(saved.join("modules"))
        .expect("modules")
        .next()
        .expect("one")
        .expect("entry")
        .file_name();
    let module = format!("modules/{}", module.to_str().expect("UTF-8"));
    for (n, (file, damage)) in [
        ("_metadata", Damage::Truncate),
        ("_metadata", Damage::Flip),
        (&*state, Damage::Truncate),
        (&*state, Damage::Flip),
        (&*module, Damage::Flip),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = world.path().join(format!("damaged-{n}"));
        copy(&saved, &dir);
        let path = dir.join(file);
        let mut bytes = std::fs::read(&path).expect("read");
        let whole = bytes.len();
        let middle = whole / 2;
        match damage {
            Damage::Truncate => bytes.truncate(middle),
            Damage::Flip => bytes[middle] ^= 1,
        }
        std::fs::write(&path, &bytes).expect("written");
        let url = format!("file://{}", path.display());
        let checksum = |bytes: &[u8]| format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes));
        let message = match (file, damage) {
            ("_metadata", Damage::Truncate) => {
                format!("{url} is truncated: it ends after {middle} bytes. Use another copy of it.")
            }
            // Which checksum fails depends on the part of the file that it covers.
            ("_metadata", Damage::Flip) => format!("{url} is damaged: expected checksum "),
            (_, Damage::Truncate) => {
                format!("{url} is damaged: expected {whole} bytes, found {middle}. Use another copy of it.")
            }
            (_, Damage::Flip) => {
                let expected = checksum(&std::fs::read(saved.join(file)).expect("read"));
                format!(
                    "{url} is damaged: expected checksum {expected}, found {}. Use another copy of it.",
                    checksum(&bytes)
                )
            }
        };
        let dir = dir.to_str().expect("UTF-8");
        let verify = world.run(&["state", "verify", dir, "--json"]).exits(1).json();
        let found = text(&verify["error"]["message"]);
        let as_expected = if message.ends_with('.') {
            found == message
        } else {
            found.starts_with(&message)
        };
        assert!(as_expected, "{file}: expected {message}\nfound {found}");
        assert_eq!(verify["error"]["kind"], "data");
        // A restore needs the state and not the modules, which come from the new job.
        if file != module {
            let run = world
                .run(&["run", "-s", dir, "job.toml", "--set", "out.path=never"])
                .exits(1);
            // A restore reads parts of state files, each of which has a checksum of its own.
            let part = format!("{url} is damaged: expected checksum ");
            let told = run.stderr.contains(&message) || (matches!(damage, Damage::Flip) && run.stderr.contains(&part));
            assert!(told, "{file}: expected {message}\nfound {}", run.stderr);
        }
    }
    assert!(!world.path().join("never").exists(), "nothing was written");
}
