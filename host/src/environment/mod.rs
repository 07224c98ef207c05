//! Everything that the host takes from the machine it runs on: time, randomness, tasks, and the files that sinks write.
//!
//! What drives jobs asks here and nowhere else, so that a simulation can run whole jobs on one thread, by its own clock,
//! with files that fail, and crash them between any two steps.
//!
//! - [`real`]: this machine.
//! - [`files`]: the file system, as far as sinks need one.

pub mod files;
pub mod real;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use regraft_model::time::Clock;

use files::FileSystem;

/// Something to be run to its end.
pub type Task = BoxFuture<'static, ()>;

/// The machine, as far as jobs need one.
pub trait Environment: Send + Sync {
    /// The time.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Random bits, for the names of files and jobs.
    fn random(&self) -> u128;

    /// Runs a task beside the caller.
    fn spawn(&self, task: Task);

    /// Is ready after that time.
    fn sleep(&self, duration: Duration) -> Task;

    /// Runs work that blocks where it holds nobody up. Is ready when the work is over, also when it panicked.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task;

    /// As [`Environment::blocking`], for work that computes for long and has time: those who process records come first.
    fn computing(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        self.blocking(work)
    }

    /// The files of sinks.
    fn files(&self) -> Arc<dyn FileSystem>;
}

/// Work that was handed to [`Environment::blocking`] panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host panicked; this is a bug in Regraft, please report it")]
pub struct Panicked;

/// Runs work that blocks, and gives what it returns.
///
/// # Errors
/// [`Panicked`].
pub async fn run_blocking<T: Send + 'static>(
    environment: &dyn Environment,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    let (work, result) = with_result(work);
    environment.blocking(work).await;
    result()
}

/// Runs work that computes for long and has time, and gives what it returns.
///
/// # Errors
/// [`Panicked`].
pub async fn run_computing<T: Send + 'static>(
    environment: &dyn Environment,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    let (work, result) = with_result(work);
    environment.computing(work).await;
    result()
}

/// The work, and what takes its result when it is over.
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
