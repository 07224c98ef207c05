//! Checkpoint rounds: from trigger to `_metadata` to commit.
//!
//! - [`round`]: the pure state machine.
//! - [`store`]: what every subtask saved becomes files, and at last `_metadata`.

pub mod round;
pub mod store;
