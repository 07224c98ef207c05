//! Whole jobs on one seeded thread, with a simulated clock, a faulty store, a forgetful disk, and crashes at any
//! moment: nothing is lost, doubled or left behind (`docs/design/0013-simulation.md`).

mod boot;
mod check;
mod disk;
mod fate;
mod guests;
mod held;
mod input;
mod machine;
mod model;
mod play;
mod random;
mod store;
mod trace;
mod user;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use play::{Played, play};

/// Default number of seeds in a run.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Plays a seed, treating a panic of the host as a failure.
fn played(seed: u64, keep_trace: bool) -> Played {
    play::note_panics();
    std::panic::catch_unwind(|| play(seed, keep_trace)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Played {
            failure: Some(format!("panicked: {}", text.unwrap_or_default())),
            hash: 0,
            trace: String::new(),
            steps: 0,
            tally: play::Tally::new(),
        }
    })
}

/// Makes the two tests run one after the other. The log level is decided for the whole process, so a test without a
/// trace would take log lines from the trace of the other.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn nothing_is_lost_doubled_or_left_behind() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(seed) = number("REGRAFT_SIM_SEED") {
        let trace = number("REGRAFT_SIM_TRACE").is_some_and(|trace| trace > 0);
        let played = played(seed, trace);
        if trace {
            println!("{}", played.trace);
        }
        if let Some(failure) = played.failure {
            panic!("seed {seed}: {failure}");
        }
        return;
    }
    let first = number("REGRAFT_SIM_FIRST").unwrap_or(0);
    let count = number("REGRAFT_SIM_SEEDS").unwrap_or(SEEDS);
    let start = Instant::now();
    let next = AtomicU64::new(first);
    let (failures, sums) = (Mutex::new(vec![]), Mutex::new((0, play::Tally::new())));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let played = played(seed, false);
                    let mut sums = sums.lock().expect("not poisoned");
                    sums.0 += played.steps;
                    for (what, n) in played.tally {
                        *sums.1.entry(what).or_default() += n;
                    }
                    if let Some(failure) = played.failure {
                        println!("seed {seed}: {failure}");
                        failures.lock().expect("not poisoned").push(seed);
                    }
                }
            });
        }
    });
    let (steps, tally) = sums.into_inner().expect("not poisoned");
    for (what, n) in &tally {
        println!("{n:>8} {what}");
    }
    println!(
        "{count} seeds from {first}: {steps} steps in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let mut failures = failures.into_inner().expect("not poisoned");
    failures.sort_unstable();
    assert!(
        failures.is_empty(),
        "{} seed(s) failed: {failures:?}\nreplay one: REGRAFT_SIM_SEED={} REGRAFT_SIM_TRACE=1 cargo test --test simulation nothing_is_lost -- --nocapture",
        failures.len(),
        failures[0]
    );
}

#[test]
fn two_runs_of_one_seed_agree() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for seed in 0..40 {
        let (one, two) = (played(seed, true), played(seed, true));
        if one.trace != two.trace || one.hash != two.hash {
            let line = one
                .trace
                .lines()
                .zip(two.trace.lines())
                .position(|(one, two)| one != two);
            let of = |trace: &str| line.and_then(|line| trace.lines().nth(line).map(str::to_owned));
            panic!(
                "seed {seed}: two runs differ from line {line:?} on: {:?}, and {:?}",
                of(&one.trace),
                of(&two.trace)
            );
        }
        assert_eq!(one.failure, two.failure, "seed {seed}");
    }
}
