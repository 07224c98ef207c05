//! The Regraft host: runs jobs of streaming operators that are WebAssembly components, and replaces their code while
//! their state stays.
//!
//! Modules are declared in import order: each may use only those above it, which a test checks. Read in this order,
//! they go from what the user asked for to how it is run: the job graph, guest crates built into components, storage,
//! keyed state, the data path, savepoints, checkpoint rounds, the life of a job, upgrades, the host of many
//! jobs, the HTTP API, and the command line.

#![warn(missing_docs)]

pub mod data_dir;
pub mod stdout;
pub mod escape;
pub mod log_queue;
pub mod backoff;
pub mod environment;
pub mod connector;
pub mod graph;
pub mod compile;
pub mod scaffold;
pub mod storage;
pub mod state;
pub mod dataflow;
pub mod connectors;
pub mod savepoint;
pub mod checkpoint;
pub mod jobs;
pub mod upgrade;
pub mod serve;
pub mod api;
pub mod cli;
