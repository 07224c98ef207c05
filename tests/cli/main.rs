//! The command line as a user meets it: the real program, exact words and statuses.
//!
//! - [`fixtures`]: the jobs, components and comparisons that the others share.
//! - [`words`], [`text`], [`output`]: what a job reads and prints.
//! - [`job_file`], [`modules`], [`inputs`], [`guests`]: each thing that can be wrong, with the whole message.
//! - [`new`], [`build`], [`usage`], [`announce`], [`interrupt`]: the verbs, the help, the files that hosts leave, Ctrl-C.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "../support/mod.rs"]
mod support;

mod announce;
mod build;
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
