//! The exports of a component, for `operator!`. On wasm only.

use crate::bindings::regraft::operator::host;
use crate::hint::hint;
use crate::native::{
    Batch, Failure, Header, Instance, Keyed, OpenRecord, Outcome, StateItems, TimerBatch, current_row,
};
use crate::operator::Operator;
use std::cell::UnsafeCell;
use std::panic::PanicHookInfo;

/// The place of a component's one instance.
pub struct Slot<O: Operator>(UnsafeCell<Option<Instance<O>>>);

// SAFETY: a component has one thread, and the canonical ABI refuses a call while another is under way.
unsafe impl<O: Operator> Sync for Slot<O> {}

#[allow(clippy::new_without_default)]
impl<O: Operator> Slot<O> {
    /// An empty place.
    pub const fn new() -> Self {
        Slot(UnsafeCell::new(None))
    }

    /// The export `describe`.
    pub fn describe(&self) -> String {
        install_hook();
        crate::native::describe::<O>()
    }

    /// The export `open`.
    pub fn open(&self, header: Header, context: OpenRecord) -> Result<(), Failure> {
        install_hook();
        let instance = Instance::open(header, &context, &host::config(), &host::arguments())?;
        // SAFETY: no other call is under way, so nobody has a reference into the place.
        unsafe { *self.0.get() = Some(instance) };
        Ok(())
    }

    #[allow(clippy::mut_from_ref)]
    fn instance(&self) -> Result<&mut Instance<O>, Failure> {
        // SAFETY: no other call is under way, and a call takes one reference.
        match unsafe { &mut *self.0.get() } {
            Some(instance) => Ok(instance),
            None => refuse("the instance was not opened"),
        }
    }

    /// The export `process`.
    pub fn process(&self, header: Header, records: Batch, state: Keyed) -> Result<Outcome, Failure> {
        self.instance()?.process(header, records, state)
    }

    /// The export `on-timers`.
    pub fn on_timers(&self, header: Header, timers: TimerBatch, state: Keyed) -> Result<Outcome, Failure> {
        self.instance()?.on_timers(header, timers, state)
    }

    /// The export `on-watermark`.
    pub fn on_watermark(&self, header: Header) -> Result<Outcome, Failure> {
        self.instance()?.on_watermark(header)
    }

    /// The export `finish-keys`.
    pub fn finish_keys(&self, header: Header, state: Keyed) -> Result<Outcome, Failure> {
        self.instance()?.finish_keys(header, state)
    }

    /// The export `finish`.
    pub fn finish(&self, header: Header) -> Result<Outcome, Failure> {
        self.instance()?.finish(header)
    }

    /// The export `snapshot`: keyed state is the host's, so this is operator state and private state.
    pub fn snapshot(&self) -> Result<Vec<StateItems>, Failure> {
        self.instance()?.snapshot()
    }

    /// The export `restore`.
    pub fn restore(&self, header: Header, states: Vec<StateItems>) -> Result<(), Failure> {
        self.instance()?.restore(header, &states)
    }
}

#[cold]
fn refuse<T>(message: &str) -> Result<T, Failure> {
    Err(Failure {
        row: None,
        message: message.into(),
    })
}

/// Tells the host of a panic just before its trap.
fn install_hook() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        let hint = hint(message);
        let hinted;
        let message = if hint.is_empty() {
            message
        } else {
            hinted = format!("{message}{hint}");
            &hinted
        };
        let (file, line, column) = info
            .location()
            .map_or(("", 0, 0), |at| (at.file(), at.line(), at.column()));
        host::panicked(message, file, line, column, current_row::get());
    }));
}
