//! The current call of an instance, as its handles see it.

use std::cell::UnsafeCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// The current call of an instance: which key it is at, and the encoded cells it came with.
#[derive(Default)]
pub(crate) struct Call {
    /// Which thread runs the operator's code, 0 when none does.
    owner: AtomicUsize,
    key: AtomicUsize,
    failed: AtomicBool,
    /// Why state could not be read: the first reason of the call.
    failure: Mutex<Option<String>>,
    cells: UnsafeCell<Cells>,
    /// What stands in for the imports.
    #[cfg(not(target_family = "wasm"))]
    reads: UnsafeCell<Option<std::sync::Arc<dyn super::StateReads>>>,
}

// SAFETY: what is in cells is reached by the runtime, which has the instance mutably, between stretches of the
// operator's code, and by handles within such a stretch, on its thread only (`enter` panics elsewhere). All of it is
// `Send`.
unsafe impl Sync for Call {}

/// The cells of a call, as they came.
#[derive(Default)]
pub(super) struct Cells {
    pub(super) keys: usize,
    pub(super) data: Vec<u8>,
    pub(super) ends: Vec<u32>,
    pub(super) schemas: Vec<u16>,
}

/// Ends the stretch of operator code when dropped, also by a panic.
pub(crate) struct Running<'a>(&'a Call);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.owner.store(0, Relaxed);
    }
}

impl Call {
    /// Takes over a call's cells. Fails when their number is not the one declared, or when a value was written by
    /// another schema than this operator's own. `names` are those of the states that travel.
    ///
    /// # Safety
    ///
    /// No operator code of the instance may be running.
    pub(crate) unsafe fn begin(
        &self,
        keys: usize,
        (data, ends, schemas): (Vec<u8>, Vec<u32>, Vec<u16>),
        names: &[String],
    ) -> Result<(), String> {
        let states = names.len();
        let cells = keys * states;
        if ends.len() != cells || schemas.len() != cells {
            return Err(format!(
                "the call has {} cells and {} cell schemas, not {cells}: {keys} keys and {states} states that travel",
                ends.len(),
                schemas.len()
            ));
        }
        if let Some(cell) = schemas.iter().position(|schema| *schema > 1) {
            return Err(format!(
                "state `{}`: {}",
                names[cell / keys],
                other_schema(schemas[cell])
            ));
        }
        self.failed.store(false, Relaxed);
        // SAFETY: by the contract, nobody else is in the cells.
        unsafe {
            *self.cells.get() = Cells {
                keys,
                data,
                ends,
                schemas,
            }
        };
        Ok(())
    }

    /// Lets handles work on this thread until the guard is dropped.
    pub(crate) fn run(&self) -> Running<'_> {
        self.owner.store(thread(), Relaxed);
        Running(self)
    }

    /// Sets the key that handles mean.
    #[inline(always)]
    pub(crate) fn set_key(&self, key: usize) {
        self.key.store(key, Relaxed);
    }

    /// Whether state could not be read in this call.
    #[inline(always)]
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Drops the cells, and says why state could not be read, if so.
    ///
    /// # Safety
    ///
    /// As for `begin`.
    pub(crate) unsafe fn end(&self) -> Option<String> {
        // SAFETY: by the contract, nobody else is in the cells.
        unsafe { *self.cells.get() = Cells::default() };
        if self.failed() {
            self.failure.lock().ok().and_then(|mut failure| failure.take())
        } else {
            None
        }
    }

    /// Says why state cannot be read: the call fails, and not for a row.
    #[cold]
    pub(super) fn fail(&self, message: String) {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert(message);
        }
        self.failed.store(true, Relaxed);
    }

    /// The current key's index, for a handle on the thread of the call. It may be beyond the call's keys, where the
    /// call is at none.
    ///
    /// # Panics
    ///
    /// Outside of a call.
    #[inline(always)]
    pub(super) fn enter(&self, name: &str) -> usize {
        if !self.is_running() {
            outside(name);
        }
        self.key.load(Relaxed)
    }

    /// Whether the operator's code runs, on this thread.
    #[inline(always)]
    pub(crate) fn is_running(&self) -> bool {
        self.owner.load(Relaxed) == thread()
    }

    /// The cells of the call. To be used before the stretch of operator code ends.
    #[inline(always)]
    pub(super) fn cells(&self) -> &Cells {
        // SAFETY: this is reached through `enter` or from the runtime; while the operator's code runs, and in
        // `StateColumn::end`, the cells are only read.
        unsafe { &*self.cells.get() }
    }

    /// Sets what stands in for the imports.
    ///
    /// # Safety
    ///
    /// As for `begin`.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) unsafe fn set_reads(&self, reads: Option<std::sync::Arc<dyn super::StateReads>>) {
        // SAFETY: by the contract, nobody is in it.
        unsafe { *self.reads.get() = reads };
    }

    /// What stands in for the imports.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn reads(&self) -> Option<&dyn super::StateReads> {
        // SAFETY: as for `cells`.
        unsafe { &*self.reads.get() }.as_deref()
    }
}

/// Why a value of another schema fails the call.
#[cold]
pub(super) fn other_schema(schema: u16) -> String {
    format!("a value was written by another schema (number {schema}), and this operator reads its own only")
}

/// A number that no other running thread has; not 0.
#[cfg(not(target_family = "wasm"))]
#[inline(always)]
fn thread() -> usize {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place) as usize)
}

/// There is one thread only.
#[cfg(target_family = "wasm")]
#[inline(always)]
fn thread() -> usize {
    1
}

#[cold]
pub(super) fn outside(name: &str) -> ! {
    panic!("state `{name}` was touched where no key is at hand: it can be in `process`, `on_timer` and `finish` only")
}
