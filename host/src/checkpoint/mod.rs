//! Checkpoint rounds: from trigger to `_metadata` to commit.
//!
//! - [`round`]: the pure state machine.
//! - [`retain`]: which checkpoints and files stay.
//! - [`chain`]: which incremental files are merged.
//! - [`store`]: what every subtask saved becomes files, and at last `_metadata`.

pub mod round;
pub mod retain;
pub mod chain;
pub mod store;
