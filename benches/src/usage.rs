//! CPU time of the process and of threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads so far, user and system.
pub(crate) fn cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
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
        let own = read(ClockId::ThreadCPUTime);
        let mut busiest = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *busiest = own.max(*busiest);
    }
}
