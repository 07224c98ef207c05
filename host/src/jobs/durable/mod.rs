//! What is durable of a job: its records, the point to go on from, the commit of its output, and cleaning up.
//!
//! Reading changes nothing. What is written is written in the order of `docs/design/0010-recovery.md`.
//!
//! - [`records`]: what a job records of itself in its directory.
//! - [`error`]: why a job cannot go on.
//! - [`job`]: what stays over all attempts of a job in this process.
//! - [`commit`]: output becomes visible.
//! - [`point`]: where to go on from, decided over records that have been read.
//! - [`round`]: the writes behind a round.
//! - [`clean_up`]: the end of a job of which nothing runs any more.

pub mod records;
pub mod error;
pub mod job;
pub mod commit;
pub mod point;
pub mod round;
pub mod clean_up;
