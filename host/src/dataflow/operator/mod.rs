//! Operators: what records pass through.
//!
//! - [`guest`]: a component as an operator.
//! - [`node`]: what the host does around every call: group by key, fetch state, call, apply writes, route outputs.

pub mod guest;
pub mod node;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use regraft_guest_runtime::call::{BatchView, Header, KeyedView, OpenContext, Outcome};
use regraft_guest_runtime::describe::ModuleDigest;
use regraft_guest_runtime::instance::InstanceSettings;
use regraft_guest_runtime::trap::GuestError;
use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;

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

/// What instances of an operator are made of: a loaded component, or the same logic compiled natively.
pub trait OperatorModule: Send + Sync + Debug {
    /// The SHA-256 of its file: its identity.
    fn digest(&self) -> ModuleDigest;

    /// What it declares.
    fn description(&self) -> &Description;

    /// Its file, which savepoints carry.
    fn bytes(&self) -> &[u8];

    /// Makes an instance. It needs `open` before any other call.
    ///
    /// # Errors
    /// [`GuestError`] where the guest's own initialisation fails.
    fn instantiate(&self, settings: &InstanceSettings) -> Result<Box<dyn Operator>, GuestError>;
}

/// The module of each operator.
pub type Modules = HashMap<OperatorUid, Arc<dyn OperatorModule>>;
