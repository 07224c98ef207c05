//! From a job file, and all settings that override it, to a checked [`job_graph::JobGraph`].
//!
//! Pure but for reading the files it is given.
//! The file is not deserialized by `serde` derives, because those stop at the first problem: [`parse`] walks a tree in
//! which every value knows its line, and reports all problems at once.
//! Modules are declared in import order.
//!
//! - [`job_graph`]: the result.
//! - [`problem`]: problems and their places.
//! - [`suggest`], [`units`]: near misses; durations and sizes.
//! - `tree`, `choose`, [`settings`]: files and arguments as layers of one tree; one job of a file that holds several.
//! - `reader`, `job_tables`, [`connectors`], `watermark`, `nodes`: the tree, table by table. Each connector reads its own
//!   settings.
//! - `check`: how they fit together.
//! - `chaining`, `regions`, [`plan`]: fused operators; what restarts together; the parallel expansion of a graph.
//! - [`size`]: limits of its subtasks and channels. [`parse`]: the way in.
//! - [`render`]: the graph for people.

pub mod job_graph;
pub mod identity;
pub mod problem;
pub mod suggest;
pub mod units;
pub(crate) mod tree;
mod choose;
pub mod settings;
pub(crate) mod reader;
mod job_tables;
pub mod connectors;
mod watermark;
mod nodes;
mod check;
mod chaining;
mod regions;
pub mod plan;
pub mod size;
pub mod parse;
pub mod render;

pub use parse::{load_job, parse_job};
pub use problem::{JobFileError, Problem, Warning};
pub use settings::{ModuleOverride, Overrides, parse_module};

#[cfg(test)]
mod tests;
