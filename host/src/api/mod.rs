//! Talking to a host over HTTP, on the loopback interface. An attached `run` serves the same routes as any host.
//!
//! - [`types`]: the shapes of requests and answers.
//! - [`announce`], [`lock`]: how hosts of this machine are found, and that there is one for each data directory.
//! - [`logs`]: each job's log.
//! - [`entries`], [`host`]: the jobs of this process, and what can be asked of them.
//! - [`snapshots`]: a job's checkpoints and savepoints.
//! - [`serving`]: taking jobs, and bringing them back.
//! - [`routes`]: paths to operations.
//! - [`client`]: the other end.

pub mod types;
pub mod announce;
pub mod lock;
pub mod logs;
pub mod entries;
pub mod host;
pub mod snapshots;
pub mod serving;
pub mod routes;
pub mod client;
