//! Operators: the nodes that records pass through.
//!
//! - [`guest`]: a component as an operator.
//! - [`dead_letters`]: records that an operator could not process, as an output.

pub mod guest;
pub mod dead_letters;

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
    /// Makes the instance ready for calls.
    ///
    /// # Errors
    /// [`GuestError`], which fails the deployment.
    fn open(&mut self, header: Header, context: &OpenContext) -> Result<(), GuestError>;

    /// Processes one batch.
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the call is kept then.
    fn process(&mut self, header: Header, batch: BatchView<'_>, keyed: KeyedView<'_>) -> Result<Outcome, GuestError>;

    /// Fires timers that are due, at most one per key. Called only where timers are declared.
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the call is kept then.
    fn on_timers(
        &mut self,
        header: Header,
        timers: TimerView<'_>,
        keyed: KeyedView<'_>,
    ) -> Result<Outcome, GuestError> {
        let _ = (header, timers, keyed);
        Err(undeclared("on-timers"))
    }

    /// Handles the advance of the watermark to `header.watermark`. Called only where it is declared.
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the call is kept then.
    fn on_watermark(&mut self, header: Header) -> Result<Outcome, GuestError> {
        let _ = header;
        Err(undeclared("on-watermark"))
    }

    /// Handles a part of the keys at the end of all inputs. Called only where `ending` is to be called.
    ///
    /// # Errors
    /// [`GuestError`], which fails the job.
    fn finish_keys(&mut self, header: Header, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        let _ = (header, keyed);
        Err(undeclared("finish-keys"))
    }

    /// Handles the end of all inputs, after all keys. Called only where `ending` is to be called.
    ///
    /// # Errors
    /// [`GuestError`], which fails the job.
    fn finish(&mut self, header: Header) -> Result<Outcome, GuestError> {
        let _ = header;
        Err(undeclared("finish"))
    }

    /// Returns the operator state and private state of the instance; empty if it keeps nothing between calls.
    ///
    /// # Errors
    /// [`GuestError`], which fails the job.
    fn snapshot(&mut self, header: Header, checkpoint_id: CheckpointId) -> Result<Vec<OperatorState>, GuestError> {
        let _ = (header, checkpoint_id);
        Ok(vec![])
    }

    /// Restores operator state and private state, after `open`. Called only where there is some.
    ///
    /// # Errors
    /// [`GuestError`], which fails the job.
    fn restore(&mut self, header: Header, states: &[OperatorState]) -> Result<(), GuestError> {
        let _ = (header, states);
        Err(undeclared("restore"))
    }

    /// Sets the access through which calls read the keyed state that does not travel with the batch; `None` where there
    /// is none.
    fn set_state(&mut self, access: Option<Arc<dyn StateAccess>>) {
        let _ = access;
    }

    /// Sets a flag that interrupts calls: once it is set, the result of a call under way is not needed, and a
    /// component's call is ended soon and fails with [`GuestError::Interrupted`]. A `reset` keeps the flag.
    fn interrupt_by(&mut self, flag: Arc<AtomicBool>) {
        let _ = flag;
    }

    /// Lets a component's calls compute for only a small part of their limit, to find the record that takes too long, or for
    /// all of it again.
    fn search(&mut self, search: bool) {
        let _ = search;
    }

    /// Drops all of the instance's memory and starts it anew. It needs `open` again, and `restore` where there is
    /// operator state. The access given to `set_state` is kept.
    ///
    /// # Errors
    /// [`GuestError`] where the guest's own initialisation fails.
    fn reset(&mut self) -> Result<(), GuestError>;
}

/// Error of a call that the operator does not implement: a bug in the host, or in a native operator.
fn undeclared(doing: &'static str) -> GuestError {
    GuestError::Engine {
        doing,
        message: "the operator does not implement it".to_owned(),
    }
}

/// The code of an operator, from which instances are made: a loaded component, or the same logic compiled natively.
pub trait OperatorModule: Send + Sync + Debug {
    /// Returns the SHA-256 of its file, which identifies it.
    fn digest(&self) -> ModuleDigest;

    /// Returns the description that the module declares.
    fn description(&self) -> &Description;

    /// Returns its file, which savepoints carry.
    fn bytes(&self) -> &[u8];

    /// Creates an instance, which needs `open` before any other call.
    ///
    /// # Errors
    /// [`GuestError`] where the guest's own initialisation fails.
    fn instantiate(&self, settings: &InstanceSettings) -> Result<Box<dyn Operator>, GuestError>;
}

/// The module of each operator. Ordered, so that every run goes through them in the same order.
pub type Modules = BTreeMap<OperatorUid, Arc<dyn OperatorModule>>;
