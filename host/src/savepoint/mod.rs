//! The durable form of a job's state: savepoints and checkpoints (`docs/formats/savepoint.md`).
//!
//! Nothing here knows a running dataflow. Modules stand in import order; state files know nothing of `_metadata`, which refers to
//! them by relative path. Restoring is decided by a pure function over what was read.

pub mod rows;
pub mod metadata;
pub mod permit;
pub mod publish;
pub mod load;
pub mod verify;
pub mod entries;
pub mod show;
pub mod restore;
pub mod dispose;

#[cfg(test)]
mod test_data;
