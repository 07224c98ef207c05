//! The code under test. A target is a function of any bytes that panics where a property does not hold.

use crate::random::Random;

mod describe;
mod handle;
mod job_file;
mod metadata;
mod outcome;
mod request;
mod typed;
mod state_file;
mod splits;

/// A piece of code under test.
#[derive(Debug)]
pub struct Target {
    /// Name, which is also that of its corpus directory.
    pub name: &'static str,
    /// Runs an input. Returns true if the input was accepted; panics where a property does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Makes one change to an input. The last argument is another input of the corpus.
    pub mutate: fn(&mut Random, &mut Vec<u8>, &[u8]),
    /// Makes an input from scratch.
    pub generate: fn(&mut Random) -> Vec<u8>,
    /// Limit of an input's length.
    pub len_max: usize,
    /// Limit of memory for an input of this length.
    pub memory_max: fn(usize) -> usize,
}

/// All targets.
pub const TARGETS: [&Target; 9] = [
    &describe::TARGET,
    &handle::TARGET,
    &job_file::TARGET,
    &metadata::TARGET,
    &outcome::TARGET,
    &request::TARGET,
    &typed::TARGET,
    &state_file::TARGET,
    &splits::TARGET,
];

/// Returns the target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Checks that an error is usable: it is not empty, has a bounded length, and contains the word.
fn check_error(text: &str, word: &str, len_max: usize) {
    assert!(text.contains(word), "the error does not name {word:?}: {text}");
    assert!(
        text.len() <= len_max,
        "the error has {} bytes: {:.500}…",
        text.len(),
        text
    );
}
