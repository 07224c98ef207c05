//! Profiles of guests in running jobs, as the command line draws them.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::setup::{BLACKHOLE, component, info, made_up_job, text, words_job};
use crate::support::{Ran, World, wait_until};

/// A job whose guest computes for most of the time, in a function with a name of its own.
pub fn busy_job(name: &str) -> String {
    format!(
        r#"name = "{name}"
[checkpoint]
interval = "off"
[[source]]
uid = "numbers"
connector = "generator"
seed = 3
rate = 2000
key = "user"
fields = [{{ name = "user", type = "u64", range = [0, 9] }}, {{ name = "n", type = "u64", sequence = 0 }}]
[[operator]]
uid = "picky"
module = {picky:?}
inputs = [{{ from = "numbers", by = "key" }}]
config = {{ how = "busy", every = 1 }}
[[sink]]
uid = "counts"
connector = "blackhole"
inputs = ["picky"]
"#,
        picky = component("picky"),
    )
}

/// Begins a profile, and waits until the host samples.
fn begun(world: &World, args: &[&str]) -> Child {
    // A second profile of the same guest is refused only while the first one is under way; and so may the first one be, while
    // the second one is.
    let second = ["profile", args[0], "--uid", args[2], "--duration", "100ms", "-o", "-"];
    for _ in 0..20 {
        let mut command = world.command(&["profile"]);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("spawned");
        while child.try_wait().expect("waitable").is_none() {
            std::thread::sleep(Duration::from_millis(300));
            if world.run(&second).stderr.contains("is being profiled already") {
                return child;
            }
        }
    }
    panic!("no profile is under way");
}

fn ended(child: Child) -> Ran {
    Ran::from(child.wait_with_output().expect("it ends"))
}

/// Waits until records reach the guest of a job made by [`busy_job`].
pub fn wait_until_busy(world: &World, job: &str) {
    wait_until("records reach the guest", || {
        info(world, job)["operators"][1]["records_in"].as_u64() > Some(0)
    });
}

#[test]
fn a_flame_graph_shows_where_a_busy_guest_computes() {
    let world = World::new();
    let host = world.serve(&[]);
    world.write("job.toml", &busy_job("busy"));
    let submitted = world
        .run(&["run", "-d", "job.toml", "-p", "2", "--json"])
        .exits(0)
        .json();
    let id = text(&submitted["job_id"]);
    wait_until_busy(&world, "busy");

    let ran = world
        .run(&["profile", "busy", "--uid", "picky", "--duration", "1s"])
        .exits(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], format!("Profiled operator \"picky\" of job busy ({id})."));
    assert!(
        lines[1].contains(" calls in 2 subtasks") && lines[2].starts_with("calls computed "),
        "{ran:?}"
    );
    assert!(lines[4].ends_with("burn_processor_time"), "{ran:?}");
    assert_eq!(lines.last(), Some(&"picky.svg"), "{ran:?}");
    let svg = std::fs::read_to_string(world.path().join("picky.svg")).expect("the graph");
    assert!(
        svg.contains("burn_processor_time") && svg.contains("#process: "),
        "{svg}"
    );

    let folded = [
        "profile",
        "busy",
        "--uid",
        "picky",
        "--duration",
        "500ms",
        "--subtask",
        "1",
        "--format",
        "folded",
    ];
    let stacks = world.run(&[&folded[..], &["-o", "-"]].concat()).exits(0).stdout;
    let samples = |line: &str| {
        line.rsplit(' ')
            .next()
            .and_then(|count| count.parse().ok())
            .unwrap_or(0)
    };
    let hot = stacks.lines().filter(|line| line.contains("burn_processor_time"));
    assert!(hot.map(samples).sum::<u64>() > 5, "{stacks}");
    assert!(
        stacks
            .lines()
            .all(|line| line.starts_with("picky;") && samples(line) > 0),
        "{stacks}"
    );

    let report = world
        .run(&[&folded[..], &["-o", "p.txt", "--json"]].concat())
        .exits(0)
        .json();
    assert_eq!(
        [
            &report["job_id"],
            &report["uid"],
            &report["path"],
            &report["subtask"],
            &report["status"]
        ],
        [
            &json!(id),
            &json!("picky"),
            &json!("p.txt"),
            &json!(1),
            &json!("RUNNING")
        ]
    );
    let of = |name: &str| report[name].as_f64().expect(name);
    assert!(
        of("samples") > 5.0 && of("calls") > 0.0 && of("computed_ms") > of("answers_ms"),
        "{report}"
    );
    assert!(world.path().join("p.txt").is_file());

    refusals(&world, &id);

    // A job that ends leaves what was sampled until then.
    let profile = begun(&world, &["busy", "--uid", "picky", "--duration", "60s"]);
    std::thread::sleep(Duration::from_millis(300));
    world.run(&["cancel", "busy"]).exits(0);
    let ran = ended(profile).exits(0);
    assert!(ran.stderr.contains("note: the job is CANCELED: it ended "), "{ran:?}");
    let again = world.run(&["profile", &id, "--uid", "picky"]).exits(1);
    assert!(again.stderr.contains("is CANCELED, not RUNNING"), "{again:?}");
    drop(host);
}

fn refusals(world: &World, id: &str) {
    let refused = |args: &[&str], status, message: &str| {
        let ran = world.run(&[&["profile", "busy"], args].concat()).exits(status);
        assert!(ran.stderr.contains(message), "{ran:?}");
    };
    let guests =
        format!("job busy ({id}) has no operator \"pikcy\" to profile. Did you mean \"picky\"? Its guests are: picky");
    refused(&["--uid", "pikcy"], 2, &guests);
    refused(&["--uid", "numbers"], 2, "is a source, which runs no guest");
    refused(
        &["--uid", "picky", "--subtask", "2"],
        2,
        "has no subtask 2: expected 0 to 1",
    );
    refused(
        &["--uid", "picky", "--duration", "1h"],
        2,
        "a profile takes 100ms to 10m",
    );
    refused(
        &["--uid", "picky", "--duration", "1"],
        2,
        "expected a number and a unit",
    );
    refused(&["--uid", "picky", "-o", "no/p.svg"], 1, "its directory does not exist");
    refused(&["--uid", "picky", "-o", "-", "--json"], 2, "name a file with -o FILE");
    let first = begun(world, &["busy", "--uid", "picky", "--duration", "3s"]);
    refused(&["--uid", "picky"], 1, "is being profiled already");
    ended(first).exits(0);
}

#[test]
fn an_idle_guest_has_no_profile() {
    let world = World::new();
    world.write("job.toml", &words_job("words", "update"));
    let job = world.start(&["job.toml"]);
    let args = ["profile", "words", "--uid", "count", "--duration", "200ms"];
    wait_until("the job runs", || info(&world, "words")["status"] == "RUNNING");
    let ran = world.run(&args).exits(1);
    let id = &job.job_id;
    assert_eq!(
        ran.stderr,
        format!(
            "error: operator \"count\" of job words ({id}) was never seen at work in 0.2 s: no call of its guest has ended. `regraft info {id}` shows whether records reach it; profile it while they do\n"
        )
    );
    assert!(!world.path().join("count.svg").exists());
}

#[test]
fn a_profile_goes_on_over_an_upgrade() {
    let world = World::new();
    world.write(
        "job.toml",
        &made_up_job("words", 0, 1_000, 200_000, "update", BLACKHOLE),
    );
    let _job = world.start(&["job.toml"]);
    wait_until_busy(&world, "words");
    let profile = begun(
        &world,
        &["words", "--uid", "count", "--duration", "4s", "--format", "folded"],
    );
    let module = format!("count={}", component("count-v2").display());
    world.run(&["upgrade", "words", "--module", &module]).exits(0);
    let ran = ended(profile).exits(0);
    assert!(
        ran.stderr
            .contains("note: the job was upgraded meanwhile, from version 1 to 2"),
        "{ran:?}"
    );
    let stacks = std::fs::read_to_string(world.path().join("count.folded")).expect("stacks");
    assert!(stacks.contains("count_v2"), "{stacks}");
}
