//! Keyed state of one subtask: what the host holds so that a guest need not.
//!
//! - [`rows`]: entries of one key group on their way to or from a file.
//! - [`short`]: short byte strings, compared and copied in words.
//! - [`group`]: the distinct keys of a batch.
//! - [`backend`]: the contract of a backend: resolve the keys of a batch, apply what a call wrote, snapshot by a mark.
//! - [`arena`]: memory for tables, on huge pages.
//! - [`table`]: the hash table of one key group, keys and small values inline.
//! - [`memory`]: the backend that keeps everything in memory.

pub mod rows;
pub mod short;
pub mod group;
pub mod backend;
pub mod arena;
pub mod table;
pub mod memory;
