//! Talking to a host over HTTP. An attached `run` serves the same routes as a host that takes jobs.
//!
//! - [`types`]: the shapes of requests and answers.
//! - [`routes`]: from requests to operations of the host, and back to answers.
//! - [`client`]: the other end.

pub mod types;
pub mod routes;
pub mod client;
