//! Talking to a host over HTTP. An attached `run` serves the same routes as a host that takes jobs.
//!
//! - [`types`]: the shapes of requests and answers.
//! - `problem`: failures as answers.
//! - `write_timeout`, `connections`, [`access`], `body`: limits of connections, tokens and their scopes, limits of bodies.
//! - [`routes`]: from requests to operations of the host, and back to answers.
//! - [`client`]: the other end.

pub mod types;
mod problem;
mod write_timeout;
mod connections;
pub mod access;
mod body;
pub mod routes;
pub mod client;
