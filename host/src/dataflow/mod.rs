//! The data path, in reading order.
//!
//! A record comes in by a [`source`], passes through the operators of its [`chain`], goes over the [`exchange`] to the
//! subtasks of the next chain, and ends in a [`sink`]. Barriers travel the same way, in-band. One [`subtask`] is a step
//! function: clock, state and channels are handed to it, so that an executor of threads or a simulation can drive it.
//!
//! - [`element`]: what flows: batches, watermarks, barriers, the end of input.
//! - [`control`]: messages into a subtask, and what it tells its coordinator.
//! - [`failure`]: why a subtask failed, as it is shown to people.
//! - [`watermark`]: how far event time has come, and who holds nobody back.
//! - [`operator`]: the contract of an operator; components, and the node that groups, calls and applies.
//! - [`executor`]: runs subtasks on threads.

pub mod element;
pub mod control;
pub mod failure;
pub mod watermark;
pub mod source;
pub mod sink;
pub mod operator;
pub mod chain;
pub mod exchange;
pub mod subtask;
pub mod executor;
