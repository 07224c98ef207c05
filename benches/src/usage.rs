//! CPU time of the process and of threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Returns the CPU time of all threads so far, user and system.
pub(crate) fn cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the time, and nothing else.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The CPU time of the busiest of some threads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busiest(Arc<Mutex<Duration>>);

impl Busiest {
    /// Returns the time of the busiest thread that has reported so far.
    pub(crate) fn get(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a value for a thread to keep until it ends.
    pub(crate) fn teller(&self) -> Teller {
        Teller(self.clone())
    }
}

/// Reports the CPU time of the thread that drops it.
#[derive(Debug)]
pub(crate) struct Teller(Busiest);

impl Drop for Teller {
    fn drop(&mut self) {
        let own = read(libc::CLOCK_THREAD_CPUTIME_ID);
        let mut busiest = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *busiest = own.max(*busiest);
    }
}
