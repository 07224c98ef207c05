//! The environment of unit tests: it runs work at once, sleeps for no time, and has neither a clock nor files.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use regraft_model::time::Clock;

use super::files::FileSystem;
use super::{Environment, Task};

/// Runs everything at once.
#[derive(Default)]
pub(crate) struct Immediate {
    /// Every wait that was asked for, in order.
    pub(crate) waits: Mutex<Vec<Duration>>,
    /// The last random number: they count up, so that names are in order.
    random: Mutex<u128>,
}

impl Environment for Immediate {
    fn clock(&self) -> Arc<dyn Clock> {
        unimplemented!("no clock")
    }

    fn random(&self) -> u128 {
        let mut last = self.random.lock().expect("lock");
        *last += 1;
        *last << 80 | *last
    }

    fn spawn(&self, _: Task) {
        unimplemented!("no tasks")
    }

    fn sleep(&self, duration: Duration) -> Task {
        self.waits.lock().expect("lock").push(duration);
        Box::pin(std::future::ready(()))
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        work();
        Box::pin(std::future::ready(()))
    }

    fn files(&self) -> Arc<dyn FileSystem> {
        unimplemented!("no files")
    }
}
