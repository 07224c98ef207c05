//! Whole scenarios of running jobs: savepoints, restores, rescaling, upgrades, forks.

#[path = "../support/mod.rs"]
mod support;
