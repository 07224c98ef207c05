//! The durable parts of a job: its records, the point to go on from, the commit of its output, and cleaning up.
//!
//! Reading changes nothing. Writes follow the order of `docs/design/0010-recovery.md`.
//!
//! - [`records`]: records that a job keeps of itself in its directory.
//! - [`job_lock`]: one process for each job of a machine.
//! - [`error`]: errors of starting a job and of going on with one.
//! - [`job`]: the parts that stay over all attempts of a job in this process.
//! - [`commit`]: output becomes visible.
//! - [`round`]: the writes behind a round.
//! - [`point`]: the point to go on from, decided over records that have been read.
//! - [`clean_up`]: the end of a job of which nothing runs any more.

pub mod records;
pub mod job_lock;
pub mod error;
pub mod job;
pub mod commit;
pub mod round;
pub mod point;
pub mod clean_up;
