//! The vocabulary of Regraft: what the other crates mean by a job, a uid, a key group, a batch, a schema.
//!
//! Nothing here does I/O, knows a runtime, or knows wasm. Modules stand in import order: each may use only those above it.
//!
//! - [`error_kind`]: the few kinds that every error maps to, and with them the exit status.
//! - [`id`]: newtypes for every id and index.
//! - [`key_group`]: key → hash → key group → subtask, as Flink does it.
//! - [`time`]: event time, watermarks and the clock that the dataflow is given.
//! - [`snapshot`]: what a snapshot is taken for.
//! - [`schema`]: types of state values and ports, their digest, and whether one reads the other.
//! - [`value`]: a value of such a type, decoded and encoded without the guest.
//! - [`describe`]: what a component declares.
//! - [`origin`]: where the records of a batch came from.
//! - [`batch`]: records as columns.

#![warn(missing_docs)]

pub mod error_kind;
pub mod id;
pub mod key_group;
pub mod time;
pub mod snapshot;
pub mod schema;
pub mod value;
pub mod describe;
pub mod origin;
pub mod batch;
