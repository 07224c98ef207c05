//! The cell that a handle and the runtime share: all `unsafe` code of state is here.
//!
//! A handle and the runtime take turns, and [`Call`] says whose turn it is. It is a lock: a thread enters it to run
//! operator code ([`Call::run`]) or to do the runtime's part ([`Call::hold`]), and no other can until it has left. Each
//! side can reach the value during its own turns only.
//!
//! # Why this is sound
//!
//! - The runtime's side gives the value to a closure that runs while the lock is held for the runtime.
//! - The handle's side gives the value only on the thread that holds the lock to run operator code. Its references live
//!   no longer than a borrow of that side, which a handle takes inside its methods and never hands out: values go to
//!   closures or are copied. So each reference is gone when the method returns to the operator's code, and the turn ends
//!   only after that code has returned. (The guard that ends it stays on the runtime's stack.)
//! - There is one handle's side for each cell, neither side is `Clone`, and writing takes a mutable borrow. So no two
//!   references within a turn exclude each other.
//! - The lock is taken by an acquiring and left by a releasing operation, so each turn sees what the one before wrote,
//!   also on another thread. A value may be made on one thread and dropped on another, hence `T: Send`.

use super::call::Call;
use std::cell::UnsafeCell;
use std::sync::Arc;

struct Shared<T> {
    call: Arc<Call>,
    value: UnsafeCell<T>,
}

// SAFETY: by the argument above, one thread at a time is in the value.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The side of the handle.
pub(crate) struct HandleSide<T>(Arc<Shared<T>>);

/// The side of the runtime.
pub(crate) struct RuntimeSide<T>(Arc<Shared<T>>);

/// Makes a cell of the instance whose calls are `call`, and returns its two sides.
pub(crate) fn share<T>(call: &Arc<Call>, value: T) -> (HandleSide<T>, RuntimeSide<T>) {
    let shared = Arc::new(Shared {
        call: call.clone(),
        value: UnsafeCell::new(value),
    });
    (HandleSide(shared.clone()), RuntimeSide(shared))
}

impl<T> HandleSide<T> {
    /// The value, to be read. `None` where this thread does not run the instance's operator code.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&T> {
        if !self.0.call.is_running() {
            return None;
        }
        // SAFETY: it is the handle's turn, on this thread, and who borrows this side mutably is not in the value.
        Some(unsafe { &*self.0.value.get() })
    }

    /// The value and the index of the key at hand, which may be beyond the call's keys. `None` where this thread does not
    /// run the instance's operator code.
    #[inline(always)]
    pub(crate) fn at_key(&mut self) -> Option<(usize, &mut T)> {
        let key = self.0.call.key();
        Some((key, self.get_mut()?))
    }

    /// The value, to be changed. `None` where this thread does not run the instance's operator code.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        if !self.0.call.is_running() {
            return None;
        }
        // SAFETY: it is the handle's turn, on this thread, and this side is borrowed mutably.
        Some(unsafe { &mut *self.0.value.get() })
    }
}

impl<T> RuntimeSide<T> {
    /// Runs `work` on the value. What it runs of an operator's types finds handles that refuse.
    ///
    /// # Panics
    ///
    /// When operator code of the instance runs, or `work` of another cell of it does: a mistake of this crate.
    pub(crate) fn with<R>(&mut self, work: impl FnOnce(&mut T) -> R) -> R {
        let _held = self.0.call.hold();
        // SAFETY: it is the runtime's turn until the guard is dropped, and this side is borrowed mutably.
        work(unsafe { &mut *self.0.value.get() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn the_sides_take_turns() {
        let call = Arc::new(Call::default());
        let (mut handle, mut runtime) = share(&call, 1);
        assert!(handle.get().is_none() && handle.get_mut().is_none());
        runtime.with(|value| {
            *value += 1;
            assert!(handle.get().is_none(), "it is the runtime's turn");
        });
        {
            let _running = call.run();
            *handle.get_mut().unwrap() += 1;
            assert_eq!(handle.get(), Some(&3));
            assert!(catch_unwind(AssertUnwindSafe(|| runtime.with(|value| *value = 9))).is_err());
            std::thread::scope(|scope| {
                let elsewhere = scope.spawn(|| handle.get_mut().is_none());
                assert!(elsewhere.join().unwrap(), "another thread runs the operator");
            });
        }
        assert_eq!(runtime.with(|value| *value), 3);
    }

    #[test]
    fn a_turn_ends_by_a_panic_too() {
        let call = Arc::new(Call::default());
        let (mut handle, mut runtime) = share(&call, 1);
        assert!(catch_unwind(AssertUnwindSafe(|| runtime.with(|_| panic!("in the runtime")))).is_err());
        let running = catch_unwind(AssertUnwindSafe(|| {
            let _running = call.run();
            assert!(handle.get_mut().is_some());
            panic!("in the operator");
        }));
        assert!(running.is_err() && handle.get().is_none());
        assert_eq!(runtime.with(|value| *value), 1);
    }
}
