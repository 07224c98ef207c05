//! Attacks on the host through everything that others give it. Each must end with an error that says what is wrong, while
//! the host stays small and alive.
//!
//! - [`forge`]: savepoints with correct checksums and any content.
//! - [`watched`]: commands under a time limit, with their peak memory.
//! - [`clients`]: those who connect to a host.
//! - [`guests`]: greedy guests and input.
//! - [`savepoints`]: forged and planted savepoints.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "../support/mod.rs"]
mod support;

mod forge;
mod watched;

mod clients;
mod guests;
mod savepoints;
