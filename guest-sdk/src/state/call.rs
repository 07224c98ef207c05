//! The current call of an instance, as its handles see it.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Mutex, PoisonError};

/// No turn: the lock is free.
const FREE: usize = 0;
/// The runtime's turn. No thread has this number.
const RUNTIME: usize = 1;

/// The current call of an instance: whose turn it is in the instance's cells (`cell`), which key is at hand, and why
/// state could not be used.
#[derive(Default)]
pub(crate) struct Call {
    /// `FREE`, `RUNTIME`, or the thread that runs operator code.
    turn: AtomicUsize,
    key: AtomicUsize,
    failed: AtomicBool,
    /// The first reason why state could not be used.
    failure: Mutex<Option<String>>,
    /// Stands in for the imports.
    #[cfg(not(target_family = "wasm"))]
    reads: Mutex<Option<std::sync::Arc<dyn super::StateReads>>>,
}

/// A turn, which ends when this is dropped, also by a panic. It stays on its thread.
pub(crate) struct Turn<'a>(&'a Call, PhantomData<*const ()>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turn.store(FREE, Release);
    }
}

impl Call {
    /// Lets handles work on this thread until the guard is dropped.
    pub(crate) fn run(&self) -> Turn<'_> {
        self.take(thread())
    }

    /// Lets the runtime into the cells until the guard is dropped.
    pub(super) fn hold(&self) -> Turn<'_> {
        self.take(RUNTIME)
    }

    fn take(&self, turn: usize) -> Turn<'_> {
        let taken = self.turn.compare_exchange(FREE, turn, Acquire, Relaxed);
        assert!(taken.is_ok(), "two turns in the cells of one instance at once");
        Turn(self, PhantomData)
    }

    /// True while operator code of the instance runs on this thread.
    #[inline(always)]
    pub(super) fn is_running(&self) -> bool {
        self.turn.load(Relaxed) == thread()
    }

    /// Sets the key that handles mean.
    #[inline(always)]
    pub(crate) fn set_key(&self, key: usize) {
        self.key.store(key, Relaxed);
    }

    /// Takes the key away that handles mean.
    pub(crate) fn set_no_key(&self) {
        self.set_key(usize::MAX);
    }

    /// The index of the key at hand. It is beyond the call's keys where the call is at none.
    #[inline(always)]
    pub(super) fn key(&self) -> usize {
        self.key.load(Relaxed)
    }

    /// True if state could not be used since the last `take_failure`.
    #[inline(always)]
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Says why state cannot be used: the call fails, and not for a row. The first reason counts.
    #[cold]
    pub(crate) fn fail(&self, message: String) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(message);
        self.failed.store(true, Relaxed);
    }

    /// Forgets and returns the reason why state could not be used.
    pub(crate) fn take_failure(&self) -> Option<String> {
        if !self.failed.swap(false, Relaxed) {
            return None;
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sets what stands in for the imports.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn set_reads(&self, reads: Option<std::sync::Arc<dyn super::StateReads>>) {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = reads;
    }

    /// Stands in for the imports.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn reads(&self) -> Option<std::sync::Arc<dyn super::StateReads>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A number that no other running thread has; neither `FREE` nor `RUNTIME`.
#[cfg(not(target_family = "wasm"))]
#[inline(always)]
fn thread() -> usize {
    // Of two bytes, so that its address is even.
    thread_local!(static PLACE: u16 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place) as usize)
}

/// There is one thread only.
#[cfg(target_family = "wasm")]
#[inline(always)]
fn thread() -> usize {
    2
}
