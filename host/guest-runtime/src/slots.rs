//! Limits how much runs at once of what a component's author can make slow: compiling it, and its `describe`.
//!
//! Compiling cannot be ended before its time. It runs on threads of its own, keeps its slot until it has ended, and the one
//! who asked is answered after [`TIME_MAX`] in any case.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::module_error::ModuleError;

/// The longest wait for a slot.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest time that compiling one component may take.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Slots for work of one kind.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A slot that is taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Slots>);

impl Slots {
    /// Makes so many slots.
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        })
    }

    /// Takes a slot, waiting for one to become free.
    ///
    /// # Errors
    /// [`ModuleError::Busy`] where none does within a minute.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Slot, ModuleError> {
        self.take_within(WAIT_MAX)
    }

    fn take_within(self: &Arc<Self>, limit: Duration) -> Result<Slot, ModuleError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut free, _) = self
            .freed
            .wait_timeout_while(free, limit, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        if *free == 0 {
            return Err(ModuleError::Busy { limit });
        }
        *free -= 1;
        Ok(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// Compiles a component on threads of its own, so that one that is slow to compile keeps no other from it.
///
/// # Errors
/// The first of: no slot, not valid, too slow.
pub(crate) fn compile(slots: &Arc<Slots>, engine: &Engine, bytes: &Arc<[u8]>) -> Result<Component, ModuleError> {
    let slot = slots.take()?;
    let (engine, bytes) = (engine.clone(), Arc::clone(bytes));
    let work = move || {
        let compile = || Component::new(&engine, &bytes);
        // The compiler spreads its work over the pool that it is called in.
        match rayon::ThreadPoolBuilder::new().build() {
            Ok(pool) => pool.install(compile),
            Err(_) => compile(),
        }
    };
    within(TIME_MAX, slot, work)?.map_err(|error| ModuleError::Invalid {
        message: crate::module_error::chain(&error),
    })
}

/// Runs work on a thread, which has the slot until it ends, and waits for it for some time.
fn within<T: Send + 'static>(
    limit: Duration,
    slot: Slot,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ModuleError> {
    let failed = |message: String| ModuleError::Engine {
        doing: "compiling the module",
        message,
    };
    let (done, result) = channel();
    std::thread::Builder::new()
        .name("compile".into())
        .spawn(move || {
            let result = work();
            drop(slot);
            // Where the time is over, there is no receiver any more.
            let _ = done.send(result);
        })
        .map_err(|error| failed(error.to_string()))?;
    result.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => ModuleError::Slow { limit },
        RecvTimeoutError::Disconnected => failed("the compiler panicked".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn slow_work_is_answered_and_keeps_its_slot() {
        let slots = Slots::new(1);
        let (end, ends) = channel::<()>();
        let slot = slots.take().expect("free");
        let slow = within(SOON, slot, move || ends.recv());
        assert_eq!(slow.map(|_| ()), Err(ModuleError::Slow { limit: SOON }));
        let busy = slots.take_within(SOON).map(|_| ());
        assert_eq!(busy, Err(ModuleError::Busy { limit: SOON }));
        drop(end);
        let slot = slots.take().expect("free again");
        assert_eq!(within(WAIT_MAX, slot, || 7), Ok(7));
    }
}
