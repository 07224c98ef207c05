//! Whole scenarios of running jobs: savepoints, restores, rescaling, upgrades, forks.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

#[path = "../support/mod.rs"]
mod support;

mod setup;

mod after_failure;
mod api;
mod brought_back;
mod checkpoints;
mod endings;
mod examples;
mod fenced;
mod forks;
mod full_disk;
mod golden;
mod handbook;
mod host_starts;
mod isolation;
mod kinds;
mod kill;
mod life;
mod moved;
mod profile;
mod random;
mod raw;
mod recovery;
mod rescale;
mod serve;
mod threads;
mod upgrades;
mod verbs;
mod wit;
