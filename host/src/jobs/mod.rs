//! The life of a job in this process, from its start to its end.
//!
//! - [`status`]: the stages, as a table.
//! - [`sinks`]: output and counts of sinks.
//! - [`admission`]: checks that components and graph fit.
//! - [`guest_log`]: log lines of guests.
//! - [`deploy`]: turns graph, components and restored state into subtasks.
//! - [`observe`], [`request`], [`handle`]: a job as other modules see it; snapshots that are asked for; commands to it.
//! - [`profile`]: samples of an operator's guest.
//! - [`life`]: the protocol, pure: inputs become effects.
//! - [`durable`]: records, the point to go on from, commits, cleaning up.
//! - [`output`]: output of other runs, where a job starts. [`abandoned`]: output that dead runs have left pending.
//! - [`attempt`]: the one way to get a job running, new or brought back.
//! - `driver`: does the effects of a job's life.
//! - [`start`]: a new job. [`bring_back`]: one that another process ran.

pub mod status;
pub mod sinks;
pub mod admission;
pub mod guest_log;
pub mod deploy;
pub mod observe;
pub mod request;
pub mod handle;
pub mod profile;
pub mod life;
pub mod durable;
pub mod output;
mod abandoned;
pub mod attempt;
mod driver;
pub mod start;
pub mod bring_back;
