//! Checkpoint rounds: from trigger to `_metadata` to commit.
//!
//! - [`round`]: the pure state machine.
//! - [`retain`]: which checkpoints and files stay.
//! - [`chain`]: which incremental files are merged.
//! - [`facts`]: what a snapshot says of its job, and what comes of storing one.
//! - [`store`]: what every subtask saved becomes files, and at last `_metadata`.
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
