//! Whole jobs, run by the `regraft` program as its users run them: beside other programs, with checkpoints, with panics,
//! and beside a misbehaving guest.
//!
//! Two settings of the same job run in turn, round by round, and are compared by the ratio within each round. The
//! output is counted and, where both settings must give the same output, compared.
//!
//! - [`process`]: a program that runs to its end, and what it used.
//! - [`lab`]: a directory for jobs, and the program.
//! - [`programs`]: whole programs: Regraft, the hand-written loop, timely dataflow, Flink.
//! - [`checkpoints`]: a checkpoint every second relative to none; bytes of increments.
//! - [`isolation`]: panics relative to none; a neighbour that loops or grows.

mod process;
mod lab;

pub(crate) mod programs;
pub(crate) mod checkpoints;
pub(crate) mod isolation;
