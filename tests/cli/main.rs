//! The command line as users see it: the real program, exact messages and statuses.
//!
//! - [`fixtures`]: jobs, components and comparisons that the other modules share.
//! - [`words`], [`text`], [`output`]: what a job reads and prints.
//! - [`job_file`], [`modules`], [`inputs`], [`guests`]: each possible mistake, with the whole message.
//! - [`new`], [`build`], [`usage`], [`announce`], [`interrupt`]: verbs, help, the files that hosts leave, Ctrl-C.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "../support/mod.rs"]
mod support;

mod announce;
mod build;
mod existing;
mod fixtures;
mod guests;
mod inputs;
mod interrupt;
mod job_file;
mod modules;
mod new;
mod output;
mod text;
mod usage;
mod words;
