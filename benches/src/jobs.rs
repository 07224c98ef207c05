//! Whole jobs, run by the `regraft` program as its users run them: the cost of checkpoints, the bytes that they write,
//! the cost of isolation, and the effect of a misbehaving guest on its neighbour.
//!
//! Two settings of the same job run in turn, round by round, and are compared by the ratio within each round. The
//! output is counted and, where both settings must give the same output, compared.
//!
//! - [`lab`]: a directory for jobs, and the program.
//! - [`checkpoints`]: a checkpoint every second relative to none; bytes of increments.
//! - [`isolation`]: panics relative to none; a neighbour that loops or grows.

mod lab;

pub(crate) mod checkpoints;
pub(crate) mod isolation;
