//! Talking to a host over HTTP, on the loopback interface. An attached `run` serves the same routes as any host.
//!
//! - [`types`]: the shapes of requests and answers.
//! - [`announce`]: how hosts of this machine are found.
//! - [`host`]: the jobs of this process.
//! - [`routes`]: paths to operations.
//! - [`client`]: the other end.

pub mod types;
pub mod announce;
pub mod host;
pub mod routes;
pub mod client;
