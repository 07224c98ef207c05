//! The host: the jobs of this process, and for a host that serves, their durable list, which brings them back.
//!
//! Knows no wire format: `api` turns requests into calls and results into answers.
//!
//! - [`announce`], [`lock`]: discovery of the hosts of this machine, and one host per data directory.
//! - [`logs`]: the log of each job.
//! - [`submission`]: a job to start. [`start_order`]: who starts first after a process that has died, and who waits.
//! - [`catalog`]: the durable list of a host's jobs.
//! - [`error`]: the errors of the host. [`waiting`]: the snapshots that jobs of the list need while no host runs.
//! - [`entries`]: the jobs that a host knows, with collisions between them.
//! - [`snapshots`]: their checkpoints and savepoints. [`go_on`]: the way on after an end.
//! - [`attached`]: the list of attached runs. [`offline`]: jobs that no process runs. [`gc`]: checkpoints that no job needs.
//! - [`operations`]: operations that take time. `uploads`: components for submissions and upgrades. [`host`]: all operations.
//! - [`submit`]: starting a job, and its end. [`starting`]: notes of starts under way.
//! - [`bring_back`]: jobs of an earlier process.

pub mod announce;
pub mod lock;
pub mod logs;
pub mod submission;
pub mod start_order;
pub mod catalog;
pub mod error;
pub mod waiting;
pub mod entries;
pub mod snapshots;
pub mod go_on;
pub mod offline;
pub mod attached;
pub mod gc;
pub mod operations;
mod uploads;
pub mod host;
pub mod starting;
pub mod submit;
pub mod bring_back;
