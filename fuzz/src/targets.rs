//! What is fuzzed. A target is a function of any bytes; it panics where a property does not hold.

use crate::random::Random;

mod job_file;
mod metadata;
mod outcome;
mod typed;
mod state_file;

/// One thing that is fuzzed.
#[derive(Debug)]
pub struct Target {
    /// What its corpus is called.
    pub name: &'static str,
    /// Runs an input, and says whether it was accepted. Panics where a property does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Makes one change; the last one is another input of the corpus.
    pub mutate: fn(&mut Random, &mut Vec<u8>, &[u8]),
    /// Makes an input of nothing.
    pub generate: fn(&mut Random) -> Vec<u8>,
    /// No input is longer.
    pub len_max: usize,
    /// What an input of a length may hold in memory.
    pub memory_max: fn(usize) -> usize,
}

/// All targets.
pub const TARGETS: [&Target; 5] = [
    &job_file::TARGET,
    &metadata::TARGET,
    &outcome::TARGET,
    &typed::TARGET,
    &state_file::TARGET,
];

/// The target of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Checks that an error is one that a person can use: not empty, not endless, and it has the word.
fn check_error(text: &str, word: &str, len_max: usize) {
    assert!(text.contains(word), "the error does not name {word:?}: {text}");
    assert!(
        text.len() <= len_max,
        "the error has {} bytes: {:.500}…",
        text.len(),
        text
    );
}
