//! Runs an operator in an ordinary unit test, as the host would: keys grouped, state kept as encoded bytes between
//! calls, timers fired when their time comes, a new instance for every call, so that whatever an operator keeps in
//! itself shows.

mod harness;
mod records;
mod store;

pub use crate::host::{Captured, take_captured};
pub use harness::{Harness, Snapshot};
pub use records::{Emitted, Input};
pub use serde_json::json;
