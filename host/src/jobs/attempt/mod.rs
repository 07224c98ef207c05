//! An attempt of a job: from what is durable to subtasks that are ready to run, for a new job as for one that is brought back.
//!
//! - [`load`]: reads a savepoint or checkpoint.
//! - [`initial`]: the state that an attempt begins with.
//! - [`prepare`]: reads, builds, records, commits, cleans up; in this order.

pub mod load;
pub mod initial;
pub mod prepare;
