//! The vocabulary of Regraft: jobs, uids, key groups, batches and schemas as all other crates understand them.
//!
//! This crate does no I/O and knows neither a runtime nor WebAssembly.
//! Modules are declared in import order: each may use only those above it.
//!
//! - [`error_kind`]: the few kinds to which every error maps, and which decide the exit status.
//! - [`id`]: newtypes for ids and indices.
//! - [`key_group`]: key → hash → key group → subtask, as in Flink.
//! - [`time`]: event time, watermarks and the clock of the dataflow.
//! - [`snapshot`]: the purposes of a snapshot.
//! - [`schema`]: types of state values and ports, their digests and their compatibility.
//! - [`value`]: values of these types, decoded and encoded without the guest.
//! - [`describe`]: the declarations of a component.
//! - [`origin`]: source positions of a batch's records.
//! - [`batch`]: records as columns.

#![warn(missing_docs)]

pub mod error_kind;
pub mod id;
pub mod key_group;
pub mod time;
pub mod snapshot;
pub mod json_scan;
pub mod schema;
pub mod value;
pub mod describe;
pub mod origin;
pub mod batch;
