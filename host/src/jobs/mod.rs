//! The life of a job in this process. Knows nothing of upgrades: it takes a snapshot that swaps modules like any other.
//!
//! - [`status`]: the stages, as a table.
//! - [`restart`], [`schedule`]: when to restart, when to take a checkpoint. Pure.
//! - [`admission`]: do components and graph fit?
//! - [`guest_log`]: what guests log.
//! - [`deploy`]: graph, components and restored state become subtasks.
//! - [`restore`]: a savepoint becomes restored state.
//! - [`view`], [`handle`]: how the rest of the host sees a job, and talks to it.
//! - [`records`]: what a job writes down of itself.
//! - [`job`]: what stays over all its attempts.
//! - [`commit`]: output becomes visible.
//! - [`resume`], [`begin`], [`attempt`]: where to go on from, with what state, and what else it takes to do so.
//! - [`control`]: one job's control loop: events in, rounds driven, failures answered, the end.
//! - [`start`]: a new job. [`recover`]: one that another process ran.
//! - [`submission`], [`catalog`]: what it takes to start a job again, and the durable list of a host's jobs.

pub mod status;
pub mod restart;
pub mod schedule;
pub mod admission;
pub mod guest_log;
pub mod deploy;
pub mod restore;
pub mod view;
pub mod handle;
pub mod records;
pub mod job;
pub mod commit;
pub mod resume;
pub mod begin;
pub mod attempt;
pub mod control;
pub mod output;
pub mod start;
pub mod recover;
pub mod submission;
pub mod catalog;
