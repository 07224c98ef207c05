//! Checkpoint rounds: from trigger to `_metadata` to commit.
//!
//! - [`round`]: the pure state machine of a round.
//! - [`retain`]: decides which checkpoints and files are kept.
//! - [`chain`]: decides which incremental files are merged.
//! - [`facts`]: the facts about a job in a snapshot, and the result of storing one.
//! - [`store`]: writes the state of all subtasks as files, and `_metadata` last.
//! - [`kept`]: the checkpoints of one job, and the files they share.

pub mod round;
pub mod retain;
pub mod chain;
pub mod facts;
mod describe;
mod merge;
mod write;
pub mod store;
pub mod kept;
