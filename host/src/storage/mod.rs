//! Storage of savepoints and checkpoints: the only user of `object_store`.
//!
//! Data written here is durable when the call returns: files and directories are fsynced.
//! Anything that must happen at most once is a create-only put.
//! This module does not know the meaning of the objects; their names are made in [`paths`].

pub mod paths;
mod error;
mod location;
pub mod retry;
mod below;
pub mod object;
mod content;

pub use error::{Refusal, StoreError};
pub use object::{LocalStores, Storage, Stores};

#[cfg(test)]
mod tests;
