//! The command line as a user meets it: the real program, exact words and statuses.

#[path = "../support/mod.rs"]
mod support;

mod words;
