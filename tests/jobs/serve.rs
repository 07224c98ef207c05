//! A serving host: jobs are submitted to it, can be queried, and are brought back by the next host.

use serde_json::{Value, json};

use crate::api::{announced, http};
use crate::setup::{component, info, local, savepoint, show, text, tsv, words_job};
use crate::support::{Attached, World, wait_until};

/// Submits a job, and returns its JobID.
#[track_caller]
fn submit(world: &World, args: &[&str]) -> String {
    let mut all = vec!["run", "-d"];
    all.extend_from_slice(args);
    let ran = world.run(&all).exits(0);
    let id = ran.stdout.strip_prefix("Job has been submitted with JobID ");
    let id = id
        .and_then(|rest| rest.strip_suffix('\n'))
        .unwrap_or_else(|| panic!("{ran:?}"));
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    id.to_owned()
}

fn counted(world: &World, job: &str, records: u64) {
    wait_until("records out", || {
        info(world, job)["records_out"].as_u64() >= Some(records)
    });
}

fn jobs(world: &World, args: &[&str]) -> Vec<(String, String)> {
    let mut all = vec!["list", "--json"];
    all.extend_from_slice(args);
    let list = world.run(&all).exits(0).json();
    let job = |job: &Value| (text(&job["name"]), text(&job["status"]));
    list["jobs"].as_array().expect("jobs").iter().map(job).collect()
}

fn named(name: &str, status: &str) -> (String, String) {
    (name.to_owned(), status.to_owned())
}

/// Starts a served job, and waits until it has counted `a b a`.
pub fn serving(world: &World) -> (Attached, String) {
    world.write(
        "job.toml",
        &words_job("words", "update").replace("\"off\"", "\"100ms\""),
    );
    world.write("in/words.txt", "a b a\n");
    let host = world.serve(&[]);
    let id = submit(world, &["job.toml"]);
    counted(world, &id, 3);
    (host, id)
}

#[test]
fn without_a_host_a_job_is_not_submitted() {
    let world = World::new();
    world.write("job.toml", &words_job("words", "update").replace("\"off\"", "\"1s\""));
    let ran = world.run(&["run", "-d", "job.toml"]).exits(1);
    let data = world.path().join("data");
    // A host of another data directory may listen on the usual address of this machine.
    let expected = format!(
        "error: no host serves the data directory {}: start one with `regraft serve`",
        data.display()
    );
    assert!(
        ran.stderr.starts_with(&expected) && ran.stderr.contains(", or name one with --host URL."),
        "{}",
        ran.stderr
    );
    // An attached run does not accept other jobs.
    let attached = world.start(&["job.toml"]);
    assert_eq!(world.run(&["run", "-d", "job.toml"]).exits(1).stderr, ran.stderr);
    let announced = world.path().join("data/run").join(format!("{}.json", attached.job_id));
    let announced: Value = serde_json::from_slice(&std::fs::read(announced).expect("there")).expect("JSON");
    let ran = world.run(&[
        "run",
        "-d",
        "job.toml",
        "--name",
        "other",
        "--set",
        "out.path=other",
        "--host",
        &text(&announced["url"]),
    ]);
    assert_eq!(
        ran.exits(1).stderr,
        "error: this host is a `regraft run` with a job of its own and takes no others: start `regraft serve`, and submit to that\n"
    );
}

#[test]
fn a_served_job_is_asked_about_saved_stopped_and_started_again() {
    let world = World::new();
    let (host, id) = serving(&world);
    assert_eq!(announced(&world)["pid"], host.pid());
    assert_eq!(jobs(&world, &[]), [named("words", "RUNNING")]);
    let line = world.run(&["list"]).exits(0).stdout;
    assert!(line.ends_with(&format!(" : {id} : words (RUNNING)\n")), "{line}");
    let saved = savepoint(&world, &id[..8]);
    assert!(
        local(&saved).starts_with(world.path().join("savepoints")),
        "of the job file's directory: {saved}"
    );
    let log = world.run(&["logs", "words"]).exits(0).stdout;
    assert!(
        log.contains(&format!(
            " INFO Job words ({id}) switched from state CREATED to RUNNING.\n"
        )),
        "{log}"
    );
    assert!(log.contains("(type=SAVEPOINT)"), "{log}");
    let last = world.run(&["logs", "words", "--lines", "1", "--json"]).exits(0).json();
    assert_eq!(last["lines"].as_array().map(Vec::len), Some(1));

    let stopped = world.run(&["stop", "words"]).exits(0);
    let (first, last) = stopped.stdout.split_once('\n').expect("two lines");
    assert_eq!(first, format!("Suspending job \"{id}\" with a CANONICAL savepoint."));
    let path = last
        .trim_end()
        .strip_prefix("Savepoint completed. Path: ")
        .expect("a path");
    assert_eq!(world.committed("out"), ["a\t1", "a\t2", "b\t1"]);
    assert_eq!(jobs(&world, &[]), []);
    assert_eq!(jobs(&world, &["--all"]), [named("words", "FINISHED")]);
    // It can still be queried, but no savepoint can be taken.
    assert_eq!(info(&world, "words")["status"], "FINISHED");
    let again = world.run(&["savepoint", "words"]).exits(1).stderr;
    assert_eq!(again, format!("error: job {id} is FINISHED, not RUNNING\n"));
    // Restored from its savepoint on the same host: name and output are free again, and the id is new.
    world.write("in/words.txt", "a b a\na\n");
    let second = submit(&world, &["-s", path, "job.toml"]);
    assert_ne!(second, id);
    wait_until("the fourth", || {
        world.committed("out") == ["a\t1", "a\t2", "a\t3", "b\t1"]
    });
    assert_eq!(info(&world, "words")["job_id"], *second, "the one that runs is meant");
    assert_eq!(
        jobs(&world, &["-a"]),
        [named("words", "FINISHED"), named("words", "RUNNING")]
    );
    let cancelled = world.run(&["cancel", "words"]).exits(0).stdout;
    assert_eq!(
        cancelled,
        format!("Cancelling job {second}.\nCancelled job {second}.\n")
    );
    host.terminate();
    host.end().exits(0);
    assert!(!world.path().join("data/run/host.json").exists());
    assert!(
        world
            .path()
            .join("data/checkpoints")
            .read_dir()
            .map_or(true, |mut rest| rest.next().is_none())
    );
}

#[test]
fn jobs_come_back_with_the_next_host_and_ended_ones_do_not() {
    let world = World::new();
    let (host, id) = serving(&world);
    let other = submit(&world, &["job.toml", "--name", "other", "--set", "out.path=out-other"]);
    world.run(&["cancel", "other"]).exits(0);
    host.terminate();
    let ended = host.end().exits(0);
    assert!(
        ended
            .stderr
            .contains("ending: jobs are suspended, and the next `regraft serve` brings them back"),
        "{}",
        ended.stderr
    );
    // The suspended job waits on disk.
    let listed = world.run(&["list"]).exits(0).stdout;
    let expected = format!(" : {id} : words (SUSPENDED)\n");
    assert!(listed.lines().count() == 1 && listed.ends_with(&expected), "{listed}");
    // The job file is not needed any more.
    std::fs::remove_file(world.path().join("job.toml")).expect("removed");
    world.write("in/words.txt", "a b a\nb\n");
    let mut host = world.serve(&[]);
    wait_until("both are there", || {
        jobs(&world, &["-a"]) == [named("words", "RUNNING"), named("other", "CANCELED")]
    });
    wait_until("the fourth", || {
        world.committed("out") == ["a\t1", "a\t2", "b\t1", "b\t2"]
    });
    let view = info(&world, "words");
    assert_eq!(
        (text(&view["job_id"]), text(&info(&world, "other")["job_id"])),
        (id.clone(), other)
    );
    assert_eq!(view["attempt"], 2);
    // The same after a kill.
    host.kill();
    world.write("in/words.txt", "a b a\nb\nc\n");
    let host = world.serve(&[]);
    wait_until("the fifth", || {
        world.committed("out") == ["a\t1", "a\t2", "b\t1", "b\t2", "c\t1"]
    });
    assert_eq!(info(&world, "words")["attempt"], 3);
    let stopped = world.run(&["stop", "words", "--json"]).exits(0).json();
    assert_eq!(
        tsv(&crate::setup::counts(&show(&world, &text(&stopped["path"])))),
        ["a\t2", "b\t2", "c\t1"]
    );
    drop(host);
    let host = world.serve(&[]);
    assert_eq!(
        jobs(&world, &["-a"]),
        [named("words", "FINISHED"), named("other", "CANCELED")]
    );
    drop(host);
}

#[test]
fn a_job_that_cannot_be_brought_back_for_now_is_tried_again() {
    let world = World::new();
    let (mut host, id) = serving(&world);
    let ended = world.path().join("data/checkpoints").join(&id).join("ended.json");
    for given_up in [false, true] {
        host.kill();
        // For now, the store cannot read whether the job has ended.
        std::os::unix::fs::symlink(&ended, &ended).expect("a loop");
        host = world.serve(&[]);
        wait_until("a try has failed", || {
            let view = info(&world, "words");
            view["failure"].as_str().is_some_and(|why| why.contains("ended.json"))
        });
        let view = info(&world, "words");
        assert_eq!(view["status"], "RESTARTING");
        let refused = world.run(&["savepoint", "words", "savepoints"]).exits(1).stderr;
        assert!(
            refused.contains("is RESTARTING, not RUNNING, and is not brought back yet: ")
                && refused.contains(". This host tries again; `regraft cancel "),
            "{refused}"
        );
        std::fs::remove_file(&ended).expect("removed");
        if given_up {
            world.run(&["cancel", "words"]).exits(0);
            assert_eq!(jobs(&world, &["-a"]), [named("words", "CANCELED")]);
        } else {
            wait_until("it runs again", || jobs(&world, &[]) == [named("words", "RUNNING")]);
            world.write("in/words.txt", "a b a\nb\n");
            wait_until("the fourth", || {
                world.committed("out") == ["a\t1", "a\t2", "b\t1", "b\t2"]
            });
        }
    }
    drop(host);
}

#[test]
fn one_data_directory_has_one_host() {
    let world = World::new();
    let mut first = world.serve(&[]);
    let (pid, url) = (first.pid(), text(&announced(&world)["url"]));
    let second = world.run(&["serve", "--listen", "127.0.0.1:0"]).exits(1);
    let data = world.path().join("data");
    assert_eq!(
        second.stderr,
        format!(
            "error: the data directory {} is in use by another `regraft serve` (pid {pid}, {url}): two hosts would run the same jobs twice. Use that one, stop it, or set REGRAFT_DATA to another directory.\n",
            data.display()
        )
    );
    first.kill();
    // The lock has died with its process.
    let third = world.serve(&[]);
    let (other, url) = (World::new(), text(&announced(&world)["url"]));
    let taken = other
        .run(&["serve", "--listen", url.trim_start_matches("http://")])
        .exits(1);
    let address = url.trim_start_matches("http://");
    assert_eq!(
        taken.stderr,
        format!(
            "error: cannot listen on {address}: Address already in use (os error 98). It is that of another host, of another user or data directory: use that one with --host {url} and its token, or stop it. To serve {}, choose another port with --listen, for example --listen 127.0.0.1:0.\n",
            other.path().join("data").display()
        )
    );
    // It does not count as a host that has died.
    assert!(!other.path().join("data/jobs/running.json").exists());
    drop(third);
}

#[test]
fn what_collides_or_does_not_fit_is_no_job() {
    let world = World::new();
    let (host, id) = serving(&world);
    let same = world.run(&["run", "-d", "job.toml"]).exits(1).stderr;
    assert!(
        same.starts_with(&format!("error: a job named \"words\" is running already ({id}); ")),
        "{same}"
    );
    let shared = world.run(&["run", "-d", "job.toml", "--name", "b"]).exits(1).stderr;
    assert!(shared.starts_with("error: sink \"out\" writes to "), "{shared}");
    // The host checks by itself, regardless of what the client has seen.
    let api = announced(&world);
    let record = world.path().join("data/jobs").join(&id).join("job.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record).expect("there")).expect("JSON");
    let mut submission = record["submission"].clone();
    let (status, body) = http(&api, "POST", "/api/v1/jobs", "", &submission.to_string());
    assert_eq!(
        (status, text(&body["message"])),
        (409, same["error: ".len()..].trim_end().to_owned())
    );
    submission["layers"]["name"] = json!("b");
    submission["layers"]["set"] = json!(["out.path=other"]);
    submission["modules"] = json!({});
    let (status, body) = http(&api, "POST", "/api/v1/jobs", "", &submission.to_string());
    assert_eq!((status, &body["uid"]), (400, &json!("split")), "{body}");
    // A savepoint that does not exist, and a job with different state.
    let nothing = world
        .run(&[
            "run",
            "-d",
            "-s",
            "nowhere",
            "job.toml",
            "--name",
            "b",
            "--set",
            "out.path=other",
        ])
        .exits(1);
    assert!(nothing.stderr.contains("nowhere"), "{}", nothing.stderr);
    assert_eq!(
        jobs(&world, &["-a"]),
        [named("words", "RUNNING")],
        "none of them is listed"
    );
    let kept = std::fs::read_dir(world.path().join("data/jobs")).expect("there");
    let kept = kept.flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(kept, 1, "and nothing is kept of them");
    drop(host);
}

#[test]
fn settings_are_those_of_the_client_and_of_the_hosts_configuration() {
    let world = World::new();
    world.write("in/words.txt", "a\n");
    world.write(
        "there/job.toml",
        &words_job("words", "update").replace("[checkpoint]\ninterval = \"off\"\n", ""),
    );
    world.write("there/in/words.txt", "b\n");
    world.write("host.toml", "[checkpoint]\ninterval = \"150ms\"\nretain = 3\n");
    let host = world.serve(&["--config", "host.toml"]);
    let mut command = world.command(&[
        "run",
        "-d",
        "there/job.toml",
        "--set",
        "count.config.emit=final",
        "--",
        "x",
    ]);
    let ran = command.env("REGRAFT_CHECKPOINT_TIMEOUT", "77s").output().expect("ran");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    wait_until("a checkpoint", || {
        info(&world, "words")["checkpoints"].as_u64() > Some(0)
    });
    let settings = info(&world, "words")["settings"].clone();
    let expected = [
        ("checkpoint.interval", "\"150ms\"", "config"),
        ("checkpoint.retain", "3", "config"),
        ("checkpoint.timeout", "\"77s\"", "environment"),
        ("count.config.emit", "\"final\"", "command line"),
    ];
    for (key, value, origin) in expected {
        assert!(
            settings[key]["value"] == value && text(&settings[key]["origin"]).starts_with(origin),
            "{key}: {}",
            settings[key]
        );
    }
    // Relative paths are resolved against the directory of the job file.
    let stopped = world.run(&["stop", "words", "--json"]).exits(0).json();
    let saved = show(&world, &text(&stopped["path"]));
    assert!(local(&text(&stopped["path"])).starts_with(world.path().join("there/savepoints")));
    assert_eq!(tsv(&crate::setup::counts(&saved)), ["b\t1"]);
    drop(host);
}

#[test]
fn a_served_job_is_upgraded_and_forked() {
    let world = World::new();
    let (host, id) = serving(&world);
    let v2 = format!("count={}", component("count-v2").display());
    let saved = savepoint(&world, "words");
    let fork = submit(
        &world,
        &[
            "-s",
            &saved,
            "job.toml",
            "--name",
            "trial",
            "--module",
            &v2,
            "--set",
            "out.path=out-b",
        ],
    );
    let upgraded = world
        .run(&["upgrade", "words", "--module", &v2, "--json"])
        .exits(0)
        .json();
    assert_eq!((&upgraded["job_id"], &upgraded["version"]), (&json!(id), &json!(2)));
    world.write("in/words.txt", "a b a\na\n");
    wait_until("both have it", || {
        let has = |dir: &str| world.committed(dir).contains(&"a\t3\t1".to_owned());
        has("out") && has("out-b")
    });
    assert_eq!(world.committed("out-b"), ["a\t3\t1"]);
    assert_eq!(info(&world, "trial")["job_id"], *fork);
    drop(host);
}
