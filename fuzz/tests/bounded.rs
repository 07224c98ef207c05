//! The bounded run of CI: the corpus, and then some thousands of mutations of it, from a fixed seed.
//! `REGRAFT_FUZZ_SEED` sets another seed, `REGRAFT_FUZZ_ITERATIONS` another number.

use regraft_fuzz::run::{Bound, Settings, fuzz};
use regraft_fuzz::targets::find;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text}: expected a number")),
        Err(_) => default,
    }
}

#[track_caller]
fn bounded(name: &str, iterations: u64) {
    let target = find(name).unwrap_or_else(|| panic!("{name} is no target"));
    let seed = number("REGRAFT_FUZZ_SEED", 1);
    let settings = Settings {
        seed,
        bound: Bound::Iterations(number("REGRAFT_FUZZ_ITERATIONS", iterations)),
        keep: None,
        record: true,
    };
    println!("seed {seed}");
    match fuzz(target, &settings) {
        Ok(summary) => assert!(
            summary.sound > 2,
            "{name}: hardly anything in the corpus is accepted: {summary:?}"
        ),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn handle() {
    bounded("handle", 20_000);
}

#[test]
fn job_file() {
    bounded("job-file", 15_000);
}

#[test]
fn metadata() {
    bounded("metadata", 8_000);
}

#[test]
fn outcome() {
    bounded("outcome", 50_000);
}

#[test]
fn describe() {
    bounded("describe", 10_000);
}

#[test]
fn request() {
    bounded("request", 5_000);
}

#[test]
fn value() {
    bounded("value", 50_000);
}

#[test]
fn state_file() {
    bounded("state-file", 10_000);
}

#[test]
fn splits() {
    bounded("splits", 20_000);
}
