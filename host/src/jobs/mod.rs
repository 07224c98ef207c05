//! The life of a job in this process. Knows nothing of upgrades: it takes a snapshot that swaps modules like any other.
//!
//! - [`status`]: the stages, as a table.
//! - [`admission`]: do components and graph fit?
//! - [`guest_log`]: what guests log.
//! - [`deploy`]: graph, components and restored state become subtasks.
//! - [`restore`]: a savepoint becomes restored state.
//! - [`handle`]: how the rest of the host talks to a job.
//! - [`control`]: one job's control loop: events in, rounds driven, the end.
//! - [`start`]: all of it together.

pub mod status;
pub mod admission;
pub mod guest_log;
pub mod deploy;
pub mod restore;
pub mod handle;
pub mod control;
pub mod start;
