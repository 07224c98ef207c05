//! Whole jobs, run by the `regraft` program as its users run them: what checkpoints cost, what they write, what isolation
//! costs, and what a guest that misbehaves does to its neighbour.
//!
//! Two settings of the same job run in turn, round by round, and are compared as a ratio of each round. What comes out is
//! counted and, where both must give the same, compared.
//!
//! - [`lab`]: a place for jobs, and the program.
//! - [`checkpoints`]: a checkpoint every second beside none; bytes of increments.
//! - [`isolation`]: panics beside none; a neighbour that loops or grows.

mod lab;

pub(crate) mod checkpoints;
pub(crate) mod isolation;
