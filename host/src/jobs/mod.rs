//! The life of a job in this process, from its start to its end.
//!
//! - [`status`]: the stages, as a table.
//! - [`restart`], [`schedule`]: when to restart, when to take a checkpoint. Pure.
//! - [`admission`]: do components and graph fit?
//! - [`guest_log`]: what guests log.
//! - [`deploy`]: graph, components and restored state become subtasks.
//! - [`restore`]: a savepoint becomes restored state.
//! - [`request`], [`view`], [`handle`]: snapshots that are asked for; how a job is shown; how it is talked to.
//! - [`life`]: the protocol, pure: inputs become effects.
//! - [`records`]: what a job writes down of itself.
//! - [`job`]: what stays over all its attempts.
//! - [`commit`]: output becomes visible.
//! - [`resume`], [`begin`], [`attempt`]: where to go on from, with what state, and what else it takes to do so.
//! - [`end`], [`store`]: the writes at a job's end, and behind a round.
//! - [`driver`]: does the effects of a job's life.
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
pub mod request;
pub mod handle;
pub mod life;
pub mod records;
pub mod job;
pub mod commit;
pub mod resume;
pub mod begin;
pub mod attempt;
mod end;
mod store;
mod driver;
pub mod output;
pub mod start;
pub mod recover;
pub mod submission;
pub mod catalog;
