//! Keyed state of one subtask, which the host holds so that guests do not have to.
//!
//! - [`rows`]: rows of one state on their way to or from a file.
//! - [`short`]: short byte strings, compared and copied in words.
//! - [`group`]: the distinct keys of a batch.
//! - [`backend`]: the contract of a backend: resolve the keys of a batch, apply the writes of a call, fire timers,
//!   snapshot by a mark.
//! - [`mark`]: generations, which tell what a mark has seen and what has changed since.
//! - [`arena`]: memory for tables, on huge pages.
//! - [`blob`]: the values of one key in one byte string.
//! - [`table`]: the hash table of one key group, with keys and small values inline.
//! - [`ordered`]: the entries of one map or list, in order.
//! - [`entries`]: the maps and lists of one key group, and values that do not travel.
//! - [`access`]: read access of instances to these entries.
//! - [`timers`]: pending timers, by key group and in order of time.
//! - [`weight`]: the memory that rows take once they are loaded.
//! - [`budget`]: how large the state of an operator, and of all jobs, may become.
//! - [`memory`]: the backend that keeps all state in memory.

pub mod rows;
pub mod short;
pub mod group;
pub mod backend;
pub mod mark;
pub mod arena;
pub mod blob;
pub mod table;
pub mod ordered;
pub mod entries;
pub mod access;
pub mod timers;
pub mod weight;
pub mod budget;
#[cfg(test)]
pub mod conformance;
pub mod memory;
