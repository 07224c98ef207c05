//! Operators: what records pass through.
//!
//! - [`guest`]: a component as an operator.
//! - [`node`]: what the host does around every call: group by key, fetch state, call, apply writes, route outputs.

pub mod guest;
pub mod node;

use std::fmt::Debug;

use regraft_guest_runtime::call::{BatchView, Header, KeyedView, OpenContext, Outcome};
use regraft_guest_runtime::trap::GuestError;

/// One subtask's instance of an operator: a component, or the same logic compiled natively.
///
/// Keyed state is handed over with each call and written by its outcome; an operator keeps none of it.
pub trait Operator: Send + Debug {
    /// Makes the instance ready.
    ///
    /// # Errors
    /// [`GuestError`] fails the deployment.
    fn open(&mut self, context: &OpenContext) -> Result<(), GuestError>;

    /// Processes one batch.
    ///
    /// # Errors
    /// [`GuestError`]; then nothing of the call is kept.
    fn process(&mut self, header: Header, batch: BatchView<'_>, keyed: KeyedView<'_>) -> Result<Outcome, GuestError>;

    /// The end of all inputs: some of the keys, and at last one call without keys.
    ///
    /// # Errors
    /// [`GuestError`].
    fn finish(&mut self, header: Header, keyed: KeyedView<'_>, last: bool) -> Result<Outcome, GuestError>;
}
