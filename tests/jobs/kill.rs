//! A serving host is killed again and again at random moments, and started again each time. In the end, its job has
//! committed what an undisturbed job commits, and nothing else is left behind.
//!
//! `REGRAFT_KILLS` sets the number of kills while a job runs, and `REGRAFT_SEED` repeats the moments of an earlier run:
//!
//! ```sh
//! REGRAFT_KILLS=500 cargo test -p regraft --test jobs kill -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::setup::{component, text};
use crate::support::{Attached, World, committed};

/// Default number of kills while a job runs.
const KILLS: u64 = 50;
/// Number of upgrades in the test of upgrades.
const UPGRADES: u64 = 20;
/// Number of times that a job is submitted, stopped or cancelled on a host that is killed.
const TURNS: u64 = 8;
/// The words that are counted.
const WORDS: [&str; 7] = ["to", "be", "or", "not", "that", "is", "question"];
/// Words read per second.
const RATE: u64 = 2_000;
/// Limit of every wait.
const PATIENCE: Duration = Duration::from_secs(240);

/// A seeded generator of random numbers (xorshift64*).
struct Random(u64);

impl Random {
    /// Seeds the generator from `REGRAFT_SEED`, else from the time. The seed is printed.
    fn new(test: &str) -> Self {
        let given = std::env::var("REGRAFT_SEED").ok();
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.map_or_else(
            || time.expect("after 1970").as_nanos() as u64,
            |seed| seed.parse().expect("REGRAFT_SEED is a number"),
        );
        eprintln!("{test}: REGRAFT_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }

    /// Sleeps for a random time below this many milliseconds.
    fn sleep(&mut self, below_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.below(below_ms)));
    }

    /// Returns this many random words, one per line.
    fn words(&mut self, count: u64) -> String {
        let word = |_| WORDS[self.below(WORDS.len() as u64) as usize].to_owned() + "\n";
        (0..count).map(word).collect()
    }
}

fn kills() -> u64 {
    let given = std::env::var("REGRAFT_KILLS").ok();
    given.map_or(KILLS, |kills| kills.parse().expect("REGRAFT_KILLS is a number"))
}

/// A job of lines of files → count → files.
fn job(mode: &str) -> String {
    format!(
        r#"name = "words"
parallelism = 2
[checkpoint]
interval = "50ms"
[savepoint]
dir = "savepoints"
[[source]]
uid = "lines"
connector = "file"
path = "in/*.txt"
mode = "{mode}"
poll = "10ms"
key = "line"
rate = {RATE}
[[operator]]
uid = "count"
module = {count:?}
inputs = [{{ from = "lines", by = "key" }}]
[[sink]]
uid = "out"
connector = "file"
inputs = ["count"]
path = "out"
format = "tsv"
"#,
        count = component("count"),
    )
}

/// Appends words to one of four files.
fn append(world: &World, random: &mut Random, count: u64) {
    let path = world.path().join(format!("in/{}.txt", random.below(4)));
    std::fs::create_dir_all(path.parent().expect("in")).expect("directory");
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
    file.write_all(random.words(count).as_bytes()).expect("written");
}

/// Returns the lines that counting must give: each word with every number from 1 to its number of occurrences in the
/// files.
fn counted_by_hand(world: &World) -> Vec<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut lines = vec![];
    for word in committed(&world.path().join("in")) {
        let count = counts.entry(word.clone()).or_default();
        *count += 1;
        lines.push(format!("{word}\t{count}"));
    }
    lines.sort();
    lines
}

/// Returns the newest job, in any status; `None` where no host answers.
fn newest(world: &World) -> Option<Value> {
    let listed = world.run(&["list", "-a", "--json"]);
    let list: Value = serde_json::from_str(&listed.stdout).ok()?;
    list["jobs"].as_array()?.last().cloned()
}

fn status(job: &Value) -> String {
    text(&job["status"])
}

/// Waits until the newest job fulfils a condition.
#[track_caller]
fn wait_for(world: &World, host: &mut Attached, mut is_so: impl FnMut(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let job = newest(world);
        if let Some(job) = job.as_ref().filter(|job| is_so(job)) {
            return job.clone();
        }
        assert!(host.runs() && Instant::now() < deadline, "{job:?}\n{}", host.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a command without waiting for it.
fn soon(world: &World, args: &[&str]) -> Child {
    let mut command = world.command(args);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawned")
}

/// Kills the host, and removes the notes of starts under way: hosts that are killed again and again within a moment would set
/// the job aside (`host_starts` has tests of that), and the later ones would have nothing to lose.
fn kill(world: &World, host: &mut Attached) {
    host.kill();
    let jobs = std::fs::read_dir(world.path().join("data/jobs")).into_iter().flatten();
    for job in jobs.flatten() {
        let _ = std::fs::remove_file(job.path().join("starting.json"));
    }
}

/// Returns the duration of an undisturbed operation, in milliseconds.
fn timed<T>(what: impl FnOnce() -> T) -> u64 {
    let start = Instant::now();
    what();
    start.elapsed().as_millis() as u64 + 1
}

/// Ends the host, and checks what is left.
fn end(world: &World, host: Attached) {
    host.terminate();
    host.end().exits(0);
    nothing_is_left(world);
}

/// Returns all files below a directory.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return vec![];
    };
    let mut found = vec![];
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Checks that nothing of a job is left but its committed output. The host removes the last files a moment after the
/// job's end.
#[track_caller]
fn nothing_is_left(world: &World) {
    let dirs = ["out/.pending", "data/checkpoints"].map(|dir| world.path().join(dir));
    let left = || dirs.iter().flat_map(|dir| files_below(dir)).collect::<Vec<PathBuf>>();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !left().is_empty() || dirs[0].exists() {
        assert!(
            Instant::now() < deadline,
            "{:?} is left, and maybe {:?}",
            left(),
            dirs[0]
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Checks that every line is there exactly once.
#[track_caller]
fn check(ours: &[String], by_hand: &[String]) {
    if ours == by_hand {
        return;
    }
    let mut differ: BTreeMap<&String, i64> = BTreeMap::new();
    ours.iter().for_each(|line| *differ.entry(line).or_default() += 1);
    by_hand.iter().for_each(|line| *differ.entry(line).or_default() -= 1);
    differ.retain(|_, n| *n != 0);
    let sample: Vec<_> = differ.iter().take(20).collect();
    panic!(
        "{} lines for {}; doubled (lost: below 0): {sample:?}",
        ours.len(),
        by_hand.len()
    );
}

#[test]
fn a_killed_host_loses_and_doubles_nothing() {
    let mut random = Random::new("a_killed_host_loses_and_doubles_nothing");
    let world = World::new();
    let moments: Vec<u64> = (0..kills()).map(|_| random.below(1_000)).collect();
    // The input is long enough for the job to outlive the last kill.
    let words = RATE * moments.iter().sum::<u64>() / 1_000 + RATE;
    (0..8).for_each(|_| append(&world, &mut random, words / 8 + 1));
    world.write("job.toml", &job("bounded"));
    let mut host = world.serve(&[]);
    let submitted = world.run(&["run", "-d", "job.toml"]).exits(0).stdout;
    for moment in &moments {
        std::thread::sleep(Duration::from_millis(*moment));
        kill(&world, &mut host);
        host = world.serve_soon(&[]);
    }
    // It is suspended until the host has found it.
    let last = wait_for(&world, &mut host, |job| {
        !["RESTARTING", "SUSPENDED"].contains(&status(job).as_str())
    });
    assert_eq!(status(&last), "RUNNING");
    let attempt = world.run(&["info", "words", "--json"]).exits(0).json()["attempt"].clone();
    eprintln!("{} kills, {attempt} attempts, {words} words", moments.len());
    let ended = wait_for(&world, &mut host, |job| status(job) != "RUNNING");
    assert_eq!(status(&ended), "FINISHED");
    assert_eq!(
        submitted,
        format!("Job has been submitted with JobID {}\n", text(&ended["job_id"]))
    );
    check(&world.committed("out"), &counted_by_hand(&world));
    end(&world, host);
}

#[test]
fn a_job_that_is_upgraded_meanwhile_is_wholly_old_or_wholly_new() {
    let mut random = Random::new("a_job_that_is_upgraded_meanwhile_is_wholly_old_or_wholly_new");
    let world = World::new();
    append(&world, &mut random, 500);
    world.write("job.toml", &job("watch"));
    let mut host = world.serve(&[]);
    world.run(&["run", "-d", "job.toml"]).exits(0);
    let modules = ["count", "count-v2"].map(|guest| format!("count={}", component(guest).display()));
    let upgrade = ["upgrade", "words", "--module"];
    // Measure an undisturbed upgrade; the first one of each module compiles it. The report waits for output after the
    // swap, which is not the part to be killed.
    let mut takes = 0;
    for version in 2..=3 {
        let mut first = soon(&world, &[&upgrade[..], &[&modules[(version - 1) % 2]]].concat());
        takes = timed(|| wait_for(&world, &mut host, |job| job["version"] == version));
        assert!(first.wait().expect("it ends").success());
    }
    let (mut kills, mut done_all_the_same, mut version) = (0, 0, 3);
    while version <= UPGRADES || kills < self::kills() {
        append(&world, &mut random, 300);
        random.sleep(300);
        kill(&world, &mut host);
        kills += 1;
        host = world.serve_soon(&[]);
        if version > UPGRADES {
            continue;
        }
        wait_for(&world, &mut host, |job| status(job) == "RUNNING");
        // Versions with an odd number are `count`, the others `count-v2`.
        let mut upgrading = soon(&world, &[&upgrade[..], &[&modules[version as usize % 2]]].concat());
        let killed = random.below(3) > 0;
        if killed {
            random.sleep(takes * 5 / 4);
            kill(&world, &mut host);
            kills += 1;
            host = world.serve_soon(&[]);
        }
        let done = upgrading.wait().expect("it ends").success();
        assert!(done || killed, "nothing disturbed it: {}", host.stderr());
        let job = wait_for(&world, &mut host, |job| status(job) == "RUNNING");
        let now = job["version"].as_u64().expect("a version");
        assert!(
            now == version + 1 || now == version && !done,
            "version {now} after {version}; told so: {done}"
        );
        done_all_the_same += u64::from(killed && now > version);
        version = now;
    }
    eprintln!("{UPGRADES} upgrades, {kills} kills, {done_all_the_same} upgrades of killed hosts were done");
    let by_hand = counted_by_hand(&world);
    wait_for(&world, &mut host, |_| world.committed("out").len() >= by_hand.len());
    world.run(&["stop", "words"]).exits(0);
    let mut lines = vec![];
    for line in world.committed("out") {
        let columns: Vec<&str> = line.split('\t').collect();
        // The second version appends the length of the word.
        assert!(
            columns.get(2).is_none_or(|len| *len == columns[0].len().to_string()),
            "{line}"
        );
        lines.push(format!("{}\t{}", columns[0], columns[1]));
    }
    lines.sort();
    check(&lines, &by_hand);
    end(&world, host);
}

#[test]
fn a_submission_is_taken_in_wholly_or_not_at_all() {
    let mut random = Random::new("a_submission_is_taken_in_wholly_or_not_at_all");
    let world = World::new();
    append(&world, &mut random, 100);
    world.write("job.toml", &job("bounded"));
    let by_hand = counted_by_hand(&world);
    let mut host = world.serve(&[]);
    let id = |job: &Value| text(&job["job_id"]);
    // Measure an undisturbed submission; the first one compiles the module.
    let (mut takes, mut before) = (0, String::new());
    for _ in 0..2 {
        takes = timed(|| world.run(&["run", "-d", "job.toml"]).exits(0));
        before = id(&wait_for(&world, &mut host, |job| {
            id(job) != before && status(job) == "FINISHED"
        }));
        std::fs::remove_dir_all(world.path().join("out")).expect("removed");
    }
    let mut taken = 0;
    for _ in 0..TURNS {
        let submitting = soon(&world, &["run", "-d", "job.toml"]);
        random.sleep(takes * 5 / 4);
        kill(&world, &mut host);
        let told = submitting.wait_with_output().expect("it ends");
        host = world.serve(&[]);
        let told = String::from_utf8_lossy(&told.stdout).trim_end().to_owned();
        let told = told.strip_prefix("Job has been submitted with JobID ");
        let new = newest(&world).as_ref().map(id).filter(|new| *new != before);
        assert!(
            told.is_none() || told == new.as_deref(),
            "{told:?} was told, {new:?} is there"
        );
        if let Some(new) = new {
            taken += 1;
            wait_for(&world, &mut host, |now| id(now) == new && status(now) == "FINISHED");
            before = new;
            check(&world.committed("out"), &by_hand);
            std::fs::remove_dir_all(world.path().join("out")).expect("removed");
        }
        nothing_is_left(&world);
    }
    eprintln!("{taken} of {TURNS} submissions were taken in");
    end(&world, host);
}

#[test]
fn what_ends_while_its_host_is_killed_is_ended_by_the_next_one() {
    let mut random = Random::new("what_ends_while_its_host_is_killed_is_ended_by_the_next_one");
    let world = World::new();
    let mut host = world.serve(&[]);
    let (mut takes, mut disturbed) = (300, 0);
    for turn in 0..2 * TURNS {
        let _ = std::fs::remove_dir_all(world.path().join("in"));
        append(&world, &mut random, 200);
        world.write("job.toml", &job("watch"));
        world.run(&["run", "-d", "job.toml"]).exits(0);
        random.sleep(300);
        let verb = if turn % 2 == 0 { "stop" } else { "cancel" };
        let mut ending = soon(&world, &[verb, "words"]);
        random.sleep(takes);
        kill(&world, &mut host);
        let done = ending.wait().expect("it ends").success();
        host = world.serve(&[]);
        let job = wait_for(&world, &mut host, |job| {
            !["RESTARTING", "CREATED"].contains(&&*status(job))
        });
        if status(&job) == "RUNNING" {
            assert!(!done, "{verb} was told to be done");
            // The verb had not taken effect before the kill: repeat it undisturbed.
            let by_hand = counted_by_hand(&world);
            wait_for(&world, &mut host, |_| world.committed("out").len() >= by_hand.len());
            takes = timed(|| world.run(&[verb, "words"]).exits(0));
        } else {
            disturbed += u64::from(!done);
        }
        let ended = newest(&world).expect("a job");
        assert_eq!(status(&ended), if verb == "stop" { "FINISHED" } else { "CANCELED" });
        let (ours, by_hand) = (world.committed("out"), counted_by_hand(&world));
        if ours.len() == by_hand.len() {
            check(&ours, &by_hand);
        } else {
            // It ended before all input was read: the numbers of each word have no gap and no duplicate.
            let by_word = |word: &str| ours.iter().filter(|line| line.split('\t').next() == Some(word)).count() as u64;
            let whole = WORDS
                .iter()
                .flat_map(|word| (1..=by_word(word)).map(move |n| format!("{word}\t{n}")));
            let mut whole: Vec<String> = whole.collect();
            whole.sort();
            check(&ours, &whole);
        }
        nothing_is_left(&world);
        let _ = std::fs::remove_dir_all(world.path().join("out"));
    }
    eprintln!("{disturbed} of {} ended without an answer", 2 * TURNS);
    end(&world, host);
}
