//! The examples that have an `expected.tsv`, run to the end of their input, and stopped and restored on the way.

use serde_json::json;

use crate::setup::{info, show, shown, stop};
use crate::support::{Attached, World, root, wait_until};

/// An example in a world of its own.
struct Example {
    world: World,
    job: String,
    expected: Vec<String>,
}

impl Example {
    fn new(name: &str) -> Self {
        let dir = root().join("examples").join(name);
        let expected = std::fs::read_to_string(dir.join("expected.tsv")).expect("what is expected");
        let mut expected: Vec<String> = expected.lines().map(str::to_owned).collect();
        expected.sort();
        assert!(expected.len() > 10, "the example does something");
        Self {
            world: World::new(),
            job: dir.join("job.toml").to_str().expect("UTF-8").to_owned(),
            expected,
        }
    }

    /// Reads a file of the example's input.
    fn input(&self, name: &str) -> String {
        let path = std::path::Path::new(&self.job).with_file_name("input").join(name);
        std::fs::read_to_string(path).expect("input")
    }

    /// Returns the arguments of a run whose output and savepoints stay in the world.
    fn arguments(&self, settings: &[&str]) -> Vec<String> {
        let place = |key: &str, name: &str| format!("{key}={}", self.world.path().join(name).display());
        let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        settings.extend([place("out.path", "out"), place("savepoint.dir", "savepoints")]);
        let settings = settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]);
        [self.job.clone()].into_iter().chain(settings).collect()
    }

    /// Returns a setting whose value is a path in the world.
    fn place(&self, key: &str, name: &str) -> String {
        format!("{key}={}", self.world.path().join(name).display())
    }

    fn run(&self, settings: &[&str], more: &[&str]) {
        let arguments = self.arguments(settings);
        let mut all = vec!["run"];
        all.extend(arguments.iter().map(String::as_str));
        all.extend(more);
        self.world.run(&all).exits(0);
    }

    fn start(&self, settings: &[&str], more: &[&str]) -> Attached {
        let arguments = self.arguments(settings);
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(more);
        self.world.start(&all)
    }

    /// Waits until a run has read this many records.
    fn reads(&self, job: &Attached, records: u64) {
        wait_until("records", || {
            info(&self.world, &job.job_id)["records_in"].as_u64() >= Some(records)
        });
    }

    #[track_caller]
    fn is_as_expected(&self) {
        assert_eq!(self.world.committed("out"), self.expected);
    }
}

#[test]
fn sessions_are_as_expected_at_every_parallelism() {
    for parallelism in ["1", "2", "3"] {
        let example = Example::new("sessions");
        example.run(&[], &["-p", parallelism]);
        example.is_as_expected();
    }
}

#[test]
fn info_shows_what_guests_count_and_what_came_late() {
    let example = Example::new("sessions");
    let path = example.place("lines.path", "in/clicks.tsv");
    let watched = [path.as_str(), "lines.mode=watch", "lines.poll=10ms"];
    example
        .world
        .write("in/clicks.tsv", "ann\t90000000\t/\nbob\t180000000\t/\n");
    let job = example.start(&watched, &["-p", "1"]);
    example.reads(&job, 2);
    let sessionize = || info(&example.world, &job.job_id)["operators"][2].clone();
    wait_until("a watermark", || sessionize()["watermark"] == 179_994_999);
    assert_eq!(
        (&sessionize()["late"], &sessionize()["counters"]),
        (&json!(0), &json!(null))
    );
    // One that the guest takes, and two that are too late for it as well.
    let late = "bob\t179994999\t/\nann\t1\t/\nann\t2\t/\n";
    let file = std::fs::OpenOptions::new()
        .append(true)
        .open(example.world.path().join("in/clicks.tsv"));
    std::io::Write::write_all(&mut file.expect("opened"), late.as_bytes()).expect("written");
    wait_until("late records", || sessionize()["late"] == 3);
    assert_eq!(sessionize()["counters"], json!({ "late": 2 }));
    let shown = example.world.run(&["info", &job.job_id]).exits(0).stdout;
    let watermark = "watermark of sessionize: 1970-01-03 01:59:54 (179994999 ms); 3 records came late\n";
    assert!(shown.contains(watermark), "{shown}");
    assert!(shown.contains("\ncounters of sessionize: late 2\n"), "{shown}");
}

#[test]
fn orders_are_enriched_at_every_parallelism() {
    for parallelism in ["1", "2", "3"] {
        let example = Example::new("enrichment");
        example.run(&[], &["-p", parallelism]);
        example.is_as_expected();
    }
}

#[test]
fn open_sessions_and_their_timers_go_on_at_another_parallelism() {
    let example = Example::new("sessions");
    let clicks = example.input("clicks.tsv");
    let lines: Vec<&str> = clicks.split_inclusive('\n').collect();
    let (path, watch) = (
        example.place("lines.path", "in/clicks.tsv"),
        ["lines.mode=watch", "lines.poll=10ms"],
    );
    let settings = [&path, watch[0], watch[1]];
    let mut from: Option<String> = None;
    let mut read = 0;
    for (upto, parallelism) in [(10, "2"), (25, "3"), (33, "1")] {
        example.world.write("in/clicks.tsv", &lines[..upto].concat());
        let mut more = vec!["-p", parallelism];
        more.extend(from.iter().flat_map(|from| ["-s", from.as_str()]));
        let job = example.start(&settings, &more);
        example.reads(&job, (upto - read) as u64);
        read = upto;
        let (saved, _) = stop(&example.world, job);
        let saved_shown = show(&example.world, &saved);
        let states = shown(&saved_shown, "sessionize")["states"].to_string();
        assert!(states.contains("\"open\"") && states.contains("\"pages\""), "{states}");
        from = Some(saved);
    }
    example.world.write("in/clicks.tsv", &clicks);
    let from = from.expect("a savepoint");
    example.run(&[&path], &["-p", "2", "-s", &from]);
    example.is_as_expected();
}

#[test]
fn orders_that_wait_and_the_table_go_on_at_another_parallelism() {
    let example = Example::new("enrichment");
    let users = example.input("users.tsv");
    let lines: Vec<&str> = users.split_inclusive('\n').collect();
    for file in ["orders-a.tsv", "orders-b.tsv"] {
        example.world.write(&format!("in/{file}"), &example.input(file));
    }
    let places = [
        example.place("orders.path", "in/orders-*.tsv"),
        example.place("users.path", "in/users.tsv"),
    ];
    let settings = [
        places[0].as_str(),
        &places[1],
        "orders.mode=watch",
        "users.mode=watch",
        "orders.poll=10ms",
        "users.poll=10ms",
    ];
    let mut from: Option<String> = None;
    // All orders and two users, then two more users, then one.
    for (upto, reads, parallelism) in [(2, 42, "2"), (4, 2, "4"), (5, 1, "1")] {
        example.world.write("in/users.tsv", &lines[..upto].concat());
        let mut more = vec!["-p", parallelism];
        more.extend(from.iter().flat_map(|from| ["-s", from.as_str()]));
        let job = example.start(&settings, &more);
        example.reads(&job, reads);
        let (saved, _) = stop(&example.world, job);
        let saved_shown = show(&example.world, &saved);
        let states = shown(&saved_shown, "enrich")["states"].to_string();
        assert!(
            states.contains("\"users\"") && states.contains("\"waiting\""),
            "{states}"
        );
        from = Some(saved);
    }
    example.world.write("in/users.tsv", &users);
    let from = from.expect("a savepoint");
    example.run(&[&places[0], &places[1]], &["-p", "3", "-s", &from]);
    example.is_as_expected();
}
