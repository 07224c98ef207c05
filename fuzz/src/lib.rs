//! Fuzzes everything that comes from outside, with the stable compiler: `cargo test -p regraft-fuzz`, or for longer
//! `cargo run --release -p regraft-fuzz -- TARGET --seconds 600`.
//!
//! A target is a function of bytes that panics where a property does not hold. The driver mutates the committed corpus,
//! from a seed that is printed and can be given. A finding is any panic, any use of memory beyond what the length of
//! the input justifies, and any run that takes seconds. It is shrunk, and becomes a file of the corpus.
//!
//! - [`random`]: repeatable choices.
//! - [`memory`]: an allocator that counts.
//! - [`coverage`]: the code that an input reaches, where the build is instrumented.
//! - [`mutate`], [`tree`]: changes to bytes and texts; changes to JSON.
//! - [`corpus`]: the committed inputs.
//! - [`targets`]: the code under test.
//! - [`run`]: the driver.

pub mod random;
pub mod memory;
pub mod coverage;
pub mod mutate;
pub mod tree;
pub mod corpus;
pub mod targets;
pub mod run;
