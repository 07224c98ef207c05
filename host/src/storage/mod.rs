//! Where savepoints and checkpoints live: the only user of `object_store`.
//!
//! What is written here is durable when the call returns: files and directories are fsynced. What must happen at most once is
//! a create-only put. Nothing here knows what the objects mean; their names are made in [`paths`].

pub mod paths;
pub mod object;
pub mod retry;
mod location;
mod error;

pub use error::StoreError;
pub use object::{LocalStores, Storage, Stores};

#[cfg(test)]
mod tests;
