//! An attempt of a job: from what is durable to subtasks that are ready to run.
//!
//! - [`load`]: reads a savepoint or checkpoint.
//! - [`initial`]: the state that an attempt begins with.
//! - [`build`]: builds, records and commits an attempt, for a new job as for one that is brought back.
//! - [`first`]: the first attempt of a new job.
//! - [`prepare`]: every later one: reads, builds, records, commits, cleans up; in this order.

pub mod load;
pub mod initial;
pub mod build;
pub mod first;
pub mod prepare;
