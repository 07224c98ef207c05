//! The life of a job in this process, from its start to its end.
//!
//! - [`status`]: the stages, as a table.
//! - [`admission`]: do components and graph fit?
//! - [`guest_log`]: what guests log.
//! - [`deploy`]: graph, components and restored state become subtasks.
//! - [`view`], [`request`], [`handle`]: how a job is shown; snapshots that are asked for; how a job is talked to.
//! - [`life`]: the protocol, pure: inputs become effects.
//! - [`durable`]: records, the point to go on from, commits, cleaning up.
//! - [`attempt`]: one way to get a job running, new or brought back.
//! - [`driver`]: does the effects of a job's life.
//! - [`output`]: output of other runs, where a job starts from a savepoint.
//! - [`start`]: a new job. [`bring_back`]: one that another process ran.
//! - [`submission`], [`catalog`]: what it takes to start a job again, and the durable list of a host's jobs.

pub mod status;
pub mod admission;
pub mod guest_log;
pub mod deploy;
pub mod view;
pub mod request;
pub mod handle;
pub mod life;
pub mod durable;
pub mod attempt;
mod driver;
pub mod output;
pub mod start;
pub mod bring_back;
pub mod submission;
pub mod catalog;
