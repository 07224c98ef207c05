//! Operators: what records pass through.
//!
//! - [`guest`]: a component as an operator.
//! - [`dead_letters`]: records that an operator could not process, as an output.
//! - `outputs`: what an operator emitted, as batches. `gap`: how long it emits nothing.
//! - [`node`]: what the host does around every call: group by key, fetch state, call, apply writes, route outputs.

pub mod guest;
pub mod dead_letters;
mod outputs;
mod gap;
pub mod node;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use regraft_guest_runtime::call::{BatchView, Header, KeyedView, OpenContext, OperatorState, Outcome, TimerView};
use regraft_guest_runtime::describe::ModuleDigest;
use regraft_guest_runtime::instance::InstanceSettings;
use regraft_guest_runtime::state_access::StateAccess;
use regraft_guest_runtime::trap::GuestError;
use regraft_model::describe::Description;
use regraft_model::id::{CheckpointId, OperatorUid};

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

    /// Fires timers that are due, at most one of a key. Called only where timers are declared.
    ///
    /// # Errors
    /// [`GuestError`]; then nothing of the call is kept.
    fn on_timers(
        &mut self,
        header: Header,
        timers: TimerView<'_>,
        keyed: KeyedView<'_>,
    ) -> Result<Outcome, GuestError> {
        let _ = (header, timers, keyed);
        Err(undeclared("on-timers"))
    }

    /// The watermark has advanced to `header.watermark`. Called only where declared.
    ///
    /// # Errors
    /// [`GuestError`]; then nothing of the call is kept.
    fn on_watermark(&mut self, header: Header) -> Result<Outcome, GuestError> {
        let _ = header;
        Err(undeclared("on-watermark"))
    }

    /// The end of all inputs: some of the keys, and at last one call without keys. Called only where declared.
    ///
    /// # Errors
    /// [`GuestError`].
    fn finish(&mut self, header: Header, keyed: KeyedView<'_>, last: bool) -> Result<Outcome, GuestError>;

    /// The operator state and private state of the instance; none for one that keeps nothing between calls.
    ///
    /// # Errors
    /// [`GuestError`] fails the job.
    fn snapshot(&mut self, checkpoint_id: CheckpointId) -> Result<Vec<OperatorState>, GuestError> {
        let _ = checkpoint_id;
        Ok(vec![])
    }

    /// Gives operator state back, after `open`. Called only where there is some.
    ///
    /// # Errors
    /// [`GuestError`] fails the job.
    fn restore(&mut self, states: &[OperatorState]) -> Result<(), GuestError> {
        let _ = states;
        Err(undeclared("restore"))
    }

    /// What calls read keyed state from that does not travel with the batch; without it there is none to read.
    fn set_state(&mut self, access: Option<Arc<dyn StateAccess>>) {
        let _ = access;
    }

    /// Once this is set nobody waits for the answer of the call under way: a component's is ended soon, and fails with
    /// [`GuestError::Interrupted`]. It stays over a `reset`.
    fn interrupt_by(&mut self, flag: Arc<AtomicBool>) {
        let _ = flag;
    }

    /// Drops everything that the instance has and starts it anew: it needs `open` again, and `restore` where there is
    /// operator state. What `set_state` gave stays.
    ///
    /// # Errors
    /// [`GuestError`] where the guest's own initialisation fails.
    fn reset(&mut self) -> Result<(), GuestError>;
}

/// An operator was called for something that it does not have: a mistake in the host, or in a native operator.
fn undeclared(doing: &'static str) -> GuestError {
    GuestError::Engine {
        doing,
        message: "the operator does not implement it".to_owned(),
    }
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

/// The module of each operator, in order: everything that goes through them does so in the same order in every run.
pub type Modules = BTreeMap<OperatorUid, Arc<dyn OperatorModule>>;
