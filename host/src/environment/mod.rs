//! The environment of jobs: time, randomness, tasks, and the files that connectors read and write.
//!
//! Code that drives jobs uses the machine only through [`Environment`].
//! A simulation can therefore run whole jobs on one thread, by its own clock, with files that fail, and crash them
//! between any two steps.
//!
//! - [`cancel`]: a request to stop work that is under way.
//! - [`real`]: this machine.
//! - [`files`]: the file system, as far as connectors need one.
//! - [`memory`]: the memory that this process may use, and the part of it that state may take.
//! - [`process`]: the identity of a process.

pub mod cancel;
pub mod files;
pub mod memory;
pub mod process;
pub mod real;
#[cfg(test)]
pub(crate) mod immediate;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use regraft_model::time::Clock;

use files::FileSystem;
use memory::StateBudget;
use process::ProcessIdentity;

/// A future to be run to completion.
pub type Task = BoxFuture<'static, ()>;

/// The machine, as far as jobs need one.
pub trait Environment: Send + Sync {
    /// Returns the clock.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Returns 128 random bits, for the names of files and jobs.
    fn random(&self) -> u128;

    /// Runs a task concurrently with the caller.
    fn spawn(&self, task: Task);

    /// Returns a future that is ready after `duration`.
    fn sleep(&self, duration: Duration) -> Task;

    /// Starts work that blocks, without holding up other tasks.
    ///
    /// The returned future is ready when the work has ended, even if it panicked.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task;

    /// Like [`Environment::blocking`], for long computations without a deadline, to which the threads of jobs are
    /// preferred.
    fn computing(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        self.blocking(work)
    }

    /// Returns the files that connectors read and write.
    fn files(&self) -> Arc<dyn FileSystem>;

    /// Returns the number of splits of a subtask up to which their positions are listed in `_metadata`.
    fn listed_splits_most(&self) -> usize {
        64
    }

    /// Returns the budget that the keyed state of all jobs shares. By default it has no limit.
    fn state_budget(&self) -> Arc<StateBudget> {
        Arc::default()
    }

    /// Returns the identity of this process; `None` where it has none by which others could tell that it is gone.
    fn process(&self) -> Option<ProcessIdentity> {
        None
    }

    /// Returns true if a process is certainly gone.
    fn is_gone(&self, process: &ProcessIdentity) -> bool {
        let _ = process;
        false
    }
}

/// The work passed to [`run_blocking`] or [`run_computing`] panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host panicked; this is a bug in Regraft, please report it")]
pub struct Panicked;

/// Runs work that blocks and returns its result; see [`Environment::blocking`].
///
/// # Errors
/// Returns [`Panicked`] if the work panicked.
pub async fn run_blocking<T: Send + 'static>(
    environment: &dyn Environment,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    let (work, result) = with_result(work);
    environment.blocking(work).await;
    result()
}

/// Runs a long computation without a deadline and returns its result; see [`Environment::computing`].
///
/// # Errors
/// Returns [`Panicked`] if the work panicked.
pub async fn run_computing<T: Send + 'static>(
    environment: &dyn Environment,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    let (work, result) = with_result(work);
    environment.computing(work).await;
    result()
}

/// Splits `work` into a closure without a result and a function that returns the result once that closure has ended.
fn with_result<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> (Box<dyn FnOnce() + Send>, impl FnOnce() -> Result<T, Panicked>) {
    let slot = Arc::new(Mutex::new(None));
    let result = slot.clone();
    let work = move || {
        let value = work();
        *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    };
    let result = move || {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take().ok_or(Panicked)
    };
    (Box::new(work), result)
}
