//! Keyed state of one subtask: what the host holds so that a guest need not.
//!
//! - [`rows`]: entries of one key group on their way to or from a file.
//! - [`group`]: the distinct keys of a batch.
//! - [`backend`]: the contract of a backend: resolve the keys of a batch, apply what a call wrote, snapshot by a mark.
//! - [`table`]: the hash table of one key group, keys and small values inline.
//! - [`memory`]: the backend that keeps everything in memory.

pub mod rows;
pub mod group;
pub mod backend;
pub mod table;
pub mod memory;
