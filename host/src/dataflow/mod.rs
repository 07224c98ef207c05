//! The data path.
//!
//! A record enters through a source, passes through the operators of its [`chain`], crosses the [`exchange`] to the
//! subtasks of the next chain, and ends in a sink. Barriers travel the same way, in-band. A [`subtask`] is a step
//! function: its clock, state and channels are passed in, so that workers or a simulation can drive it.
//!
//! - [`element`]: the items that flow: batches, watermarks, barriers, the end of input.
//! - [`control`]: messages into a subtask, and the events that it reports to its coordinator.
//! - [`failure`]: the cause of a subtask's failure, with its rendering for users.
//! - [`watermark`]: progress of event time, and idle streams, which do not hold it back.
//! - [`rate`]: the number of records that a source may read now.
//! - [`operator`]: the contract of an operator, and components as operators.
//! - [`node`]: the host's part of every call: group by key, fetch state, call, apply writes, route outputs.
//! - [`executor`]: the contract of what drives subtasks.
//! - [`workers`]: drives the subtasks of all jobs of this process on as many threads as it has cores.

pub mod watermark;
pub mod rate;
pub mod failure;
pub mod operator;
pub mod element;
pub mod control;
pub mod positions;
pub mod node;
pub mod exchange;
pub mod chain;
pub mod subtask;
pub mod executor;
pub mod workers;
