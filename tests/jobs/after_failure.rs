//! Messages after a failure, the list of jobs that no process runs, and `gc`.

use serde_json::Value;

use crate::setup::{component, info, local, savepoint, text, wait_for_out, words_job};
use crate::support::{Attached, World, wait_until};

/// A job that takes checkpoints for a second or two, and then fails on a record for good.
fn failing_job(name: &str) -> String {
    format!(
        r#"name = "{name}"
[checkpoint]
interval = "100ms"
[savepoint]
dir = "savepoints"
[[source]]
uid = "numbers"
connector = "generator"
seed = 3
splits = 1
rate = 20000
key = "user"
fields = [{{ name = "user", type = "u64", range = [0, 9] }}, {{ name = "n", type = "u64", sequence = 0 }}]
[[operator]]
uid = "picky"
module = {picky:?}
inputs = [{{ from = "numbers", by = "key" }}]
config = {{ how = "panic", every = 30000 }}
[[sink]]
uid = "counts"
connector = "file"
path = "out"
format = "tsv"
inputs = ["picky"]
"#,
        picky = component("picky"),
    )
}

/// Runs the failing job attached, and returns its id and its newest checkpoint as the message names it.
fn failed(world: &World, args: &[&str]) -> (String, String) {
    let mut all = vec!["run", "job.toml", "--json"];
    all.extend_from_slice(args);
    let ran = world.run(&all).exits(1);
    let line = ran
        .stderr
        .lines()
        .find(|line| line.starts_with("the newest snapshot is "));
    let line = line.unwrap_or_else(|| panic!("no way on in:\n{}", ran.stderr));
    let path = line["the newest snapshot is ".len()..]
        .split(';')
        .next()
        .expect("a path")
        .to_owned();
    let id = local(&path)
        .parent()
        .and_then(|job| job.file_name())
        .expect("the job's")
        .to_string_lossy()
        .into_owned();
    let flags: String = args.iter().map(|arg| format!(" {arg}")).collect();
    let expected = format!("the newest snapshot is {path}; go on from it with `regraft run -s {path}{flags} job.toml`");
    assert_eq!(line, expected);
    let message = text(&ran.json()["error"]["message"]);
    assert!(
        message.contains(&format!("({id}) FAILED: ")) && message.ends_with(&expected),
        "{message}"
    );
    (id, path)
}

fn list(world: &World, args: &[&str]) -> Vec<(String, String)> {
    let mut all = vec!["list", "--json"];
    all.extend_from_slice(args);
    let jobs = world.run(&all).exits(0).json();
    let jobs = jobs["jobs"].as_array().expect("jobs").iter();
    jobs.map(|job| (text(&job["job_id"]), text(&job["status"]))).collect()
}

fn rows(world: &World, job: &str) -> Vec<Value> {
    let listed = world.run(&["list", "--snapshots", job, "--json"]).exits(0).json();
    listed["snapshots"].as_array().expect("snapshots").clone()
}

#[test]
fn a_failed_attached_run_names_the_way_on_and_stays_listed() {
    let world = World::new();
    world.write("job.toml", &failing_job("picky"));
    let (id, newest) = failed(&world, &[]);
    assert_eq!(list(&world, &["-a"]), [(id.clone(), "FAILED".to_owned())]);
    assert_eq!(list(&world, &[]), []);
    let paths: Vec<String> = rows(&world, "picky").iter().map(|row| text(&row["path"])).collect();
    assert_eq!(paths, std::slice::from_ref(&newest));
    let info = world.run(&["info", &id[..8], "--json"]).exits(0).json();
    assert_eq!(text(&info["go_on"]["path"]), newest);
    assert_eq!(
        text(&info["go_on"]["command"]),
        format!("cd {} && regraft run -s {newest} job.toml", world.path().display()),
        "wherever it is asked for"
    );
    let shown = world.run(&["info", "picky"]).exits(0).stdout;
    assert!(shown.contains(&format!("go on from   {newest}\n")), "{shown}");
    // The command is one that runs, even if the record fails once more.
    let again = world.run(&["run", "-s", &newest, "job.toml"]).exits(1);
    assert!(
        again.stderr.contains(&format!("from savepoint {newest} (NO_CLAIM)")),
        "{}",
        again.stderr
    );
    assert_eq!(list(&world, &["-a"]).len(), 2);
}

#[test]
fn an_attached_run_that_ended_well_or_was_killed_is_listed() {
    let world = World::new();
    world.write(
        "job.toml",
        &words_job("words", "update").replace("\"off\"", "\"100ms\""),
    );
    world.write("in/words.txt", "a b a\n");
    let mut killed = world.start(&["job.toml"]);
    let saved = savepoint(&world, &killed.job_id);
    killed.kill();
    let id = killed.job_id.clone();
    assert_eq!(list(&world, &["-a"]), [(id.clone(), "FAILED".to_owned())]);
    let info = world.run(&["info", "words", "--json"]).exits(0).json();
    assert_eq!(text(&info["failure"]), "its process was killed");
    assert!(info["go_on"]["path"].is_string(), "{info}");
    assert!(
        rows(&world, &id).iter().any(|row| text(&row["path"]) == saved),
        "its savepoint is listed"
    );
    let stopped = world.start(&["job.toml", "--name", "other"]);
    let other = stopped.job_id.clone();
    world.run(&["stop", "other"]).exits(0);
    stopped.end().exits(0);
    let all = list(&world, &["-a"]);
    assert!(
        all.contains(&(other, "FINISHED".to_owned())) && all.len() == 2,
        "{all:?}"
    );
}

#[test]
fn the_way_on_has_the_modules_of_upgrades() {
    let world = World::new();
    let job_file = words_job("words", "update").replace("\"off\"", "\"100ms\"");
    world.write("job.toml", &job_file);
    world.write("in/words.txt", "a b a\n");
    let mut job = world.start(&["job.toml"]);
    wait_for_out(&world, &job, 3);
    let module = |view: &Value| text(&view["operators"][2]["module"]);
    let before = module(&info(&world, &job.job_id));
    let upgrade = format!("count={}", component("count-v2").display());
    world.run(&["upgrade", "words", "--module", &upgrade]).exits(0);
    let upgraded = module(&info(&world, &job.job_id));
    assert_ne!(before, upgraded);
    job.kill();
    let dead = world.run(&["info", &job.job_id, "--json"]).exits(0).json();
    let command = text(&dead["go_on"]["command"]);
    let (_, command) = command.split_once(" && regraft run ").expect("a directory first");
    let args: Vec<&str> = command.split(' ').collect();
    assert!(args.contains(&"--module"), "{args:?}");
    let again = world.start(&args);
    assert_eq!(module(&info(&world, &again.job_id)), upgraded);
    world.write("in/more.txt", "a\n");
    wait_for_out(&world, &again, 1);
}

#[test]
fn a_served_job_that_fails_names_the_way_on_in_its_log() {
    let world = World::new();
    world.write("job.toml", &failing_job("picky"));
    let mut host = world.serve(&[]);
    let id = text(
        &world
            .run(&["run", "-d", "job.toml", "--set", "picky.parallelism=1", "--json"])
            .exits(0)
            .json()["job_id"],
    );
    let line = host.wait_for_log(" FAILED; the newest snapshot is ");
    let logs = world.run(&["logs", &id]).exits(0).stdout;
    assert!(logs.contains(" FAILED; the newest snapshot is "), "{logs}");
    let dir = world.path().canonicalize().expect("there");
    let path = line
        .split("the newest snapshot is ")
        .nth(1)
        .and_then(|rest| rest.split(';').next())
        .expect("a path");
    let command = format!(
        "cd {} && regraft run -d -s {path} --set picky.parallelism=1 job.toml",
        dir.display()
    );
    assert!(line.ends_with(&format!("`{command}`.")), "{line}");
    // The line is logged a moment before.
    wait_until("info shows it", || {
        world.run(&["info", &id, "--json"]).exits(0).json()["go_on"]["command"] == command.as_str()
    });
}

#[test]
fn jobs_that_wait_for_a_host_are_listed_while_none_is_up() {
    let world = World::new();
    world.write(
        "job.toml",
        &words_job("words", "update").replace("\"off\"", "\"100ms\""),
    );
    world.write("in/words.txt", "a b a\n");
    let mut host = world.serve(&[]);
    let id = text(&world.run(&["run", "-d", "job.toml", "--json"]).exits(0).json()["job_id"]);
    host.kill();
    let ran = world.run(&["list"]).exits(0);
    assert!(
        ran.stdout.contains(&format!("{id} : words (SUSPENDED)")),
        "{}",
        ran.stdout
    );
    assert_eq!(
        ran.stderr,
        "no host is up: 1 job(s) wait on disk until `regraft serve` brings them back\n"
    );
    // It writes on when it is brought back.
    for (args, expected) in [
        (
            &[][..],
            "a job named \"words\" is suspended, and goes on when `regraft serve` is started (",
        ),
        (
            &["--name", "other"][..],
            ") writes when `regraft serve` brings it back; write elsewhere",
        ),
    ] {
        let refused = world.run(&[&["run", "job.toml"], args].concat()).exits(1).stderr;
        assert!(refused.contains(expected), "{refused}");
    }
    let host = world.serve(&[]);
    let back = |_: &Attached| list(&world, &[]) == [(id.clone(), "RUNNING".to_owned())];
    wait_until("it is back", || back(&host));
    assert_eq!(world.run(&["list"]).exits(0).stderr, "");
}

/// Returns the directories of jobs below the host's own checkpoint directory.
fn directories(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path().join("data/checkpoints")).expect("there");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn collect_garbage(world: &World, args: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut all = vec!["gc", "--json"];
    all.extend_from_slice(args);
    let answer = world.run(&all).exits(0).json();
    let of = |list: &Value, key: &str| {
        list.as_array()
            .expect("a list")
            .iter()
            .map(|row| text(&row[key]))
            .collect()
    };
    (of(&answer["directories"], "job_id"), of(&answer["left"], "reason"))
}

#[test]
fn garbage_is_what_ended_jobs_have_left_and_nothing_that_a_job_needs() {
    let world = World::new();
    world.write("job.toml", &failing_job("picky"));
    let (first, newest) = failed(&world, &[]);
    let (second, of_second) = failed(&world, &[]);
    let own = world.path().join("shared");
    let (third, _) = failed(&world, &["--set", &format!("checkpoint.dir={}", own.display())]);
    // A directory of another host, a link, and one of a run that was killed.
    let checkpoints = world.path().join("data/checkpoints");
    let (foreign, link) = ("0".repeat(32), "1".repeat(32));
    std::fs::create_dir(checkpoints.join(&foreign)).expect("made");
    std::fs::write(checkpoints.join(&foreign).join("ended.json"), "{}").expect("written");
    std::os::unix::fs::symlink(&own, checkpoints.join(&link)).expect("linked");
    world.write("watch.toml", &words_job("words", "update"));
    world.write("in/words.txt", "a b a\n");
    let mut running = world.start(&["watch.toml"]);
    // It started from a checkpoint of the first one, and has none of its own: it was killed, and may go on.
    let restored = failing_job("restored")
        .replace("\"100ms\"", "\"10m\"")
        .replace("30000", "30000000");
    world.write("restored.toml", &restored.replace("\"out\"", "\"out2\""));
    let mut killed = world.start(&["restored.toml", "-s", &newest]);
    killed.kill();
    let before = directories(&world);
    let (would, left) = collect_garbage(&world, &[]);
    assert_eq!(would, std::slice::from_ref(&second), "{left:?}");
    assert_eq!(directories(&world), before, "without --yes it only shows");
    for reason in [
        "another job started from a checkpoint of job \"picky\" and may go back to it",
        "job \"words\" has not ended",
        "job \"restored\" is not recorded as ended",
        "this data directory has no record of its job",
    ] {
        assert!(left.iter().any(|left| left == reason), "{reason} in {left:?}");
    }
    let shown = world.run(&["gc"]).exits(0).stdout;
    assert!(
        shown.starts_with("Would be removed by `regraft gc --yes`:\n") && shown.contains("picky FAILED"),
        "{shown}"
    );
    collect_garbage(&world, &["--yes"]);
    let others = |names: Vec<String>| names.into_iter().filter(|name| *name != second).collect::<Vec<_>>();
    assert_eq!(others(directories(&world)), others(before));
    assert!(!local(&of_second).exists(), "its checkpoint is gone");
    assert!(
        own.join(&third).is_dir(),
        "a checkpoint.dir of the user's is left alone"
    );
    assert!(local(&newest).join("_metadata").is_file(), "{first} is needed");
    assert!(running.runs());
    assert_eq!(rows(&world, &second), [Value::Null; 0]);
    assert_eq!(list(&world, &["-a"]).len(), 5);
    // A host that does not answer: it is not known what its jobs need.
    let pid = running.pid().to_string();
    let signal = |name: &str| {
        std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .expect("kill runs")
    };
    signal("STOP");
    let unknown = world.run(&["gc"]).exits(1);
    signal("CONT");
    assert!(
        unknown.stderr.contains("is the host still running?"),
        "{}",
        unknown.stderr
    );
}
