//! The Regraft host: runs jobs of streaming operators that are WebAssembly components, and changes their code while their
//! state stays.
//!
//! Modules stand in import order: each may use only those above it (a test checks it). Read in this order, they tell the
//! story: what the user asked for, how guest crates become components, where bytes are kept, keyed state, the data path,
//! what a savepoint is, one checkpoint round, a job's life, changing a running job, talking to it, and the command line.

#![warn(missing_docs)]

pub mod data_dir;
pub mod environment;
pub mod graph;
pub mod build;
pub mod scaffold;
pub mod storage;
pub mod state;
pub mod dataflow;
pub mod savepoint;
pub mod checkpoint;
pub mod jobs;
pub mod upgrade;
pub mod api;
pub mod cli;
