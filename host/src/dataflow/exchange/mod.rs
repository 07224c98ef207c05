//! The exchange of batches between subtasks.
//!
//! - [`channel`]: a bounded queue from one subtask to another; its bound is the backpressure.
//! - [`align`]: barrier alignment over the inputs of a subtask, as a pure state machine.
//! - [`gate`]: merges the input channels of a subtask.
//! - [`partitioner`]: assigns records to subtasks, and buffers them until a batch is worth sending.

pub mod channel;
pub mod align;
pub mod gate;
pub mod partitioner;
