//! How batches go from subtask to subtask.
//!
//! - [`channel`]: one bounded queue from one subtask to another; backpressure is its bound.
//! - [`align`]: barrier alignment over the inputs of a subtask, as a pure state machine.
//! - [`gate`]: merges a subtask's input channels.
//! - [`partitioner`]: which record goes to which subtask; buffers until a batch is worth sending.

pub mod channel;
pub mod align;
pub mod gate;
pub mod partitioner;
