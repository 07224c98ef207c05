//! The durable form of a job's state: savepoints and checkpoints (`docs/formats/savepoint.md`).
//!
//! This module does not know a running dataflow.
//! Its modules are declared in import order; state files know nothing of `_metadata`, which refers to them by relative
//! path.
//! A pure function decides how to restore, given data already read.

pub mod budget;
mod json_size;
pub mod rows;
pub mod metadata;
pub mod permit;
pub mod publish;
mod row_check;
pub mod load;
pub mod positions;
pub mod verify;
pub mod entries;
pub mod show;
pub mod compat;
pub mod restore;
pub mod dispose;

#[cfg(test)]
pub(crate) mod test_data;
