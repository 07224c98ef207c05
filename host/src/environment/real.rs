//! The real environment: tokio's tasks, the system's clock and its files.
//!
//! Tasks and blocking work run in the caller's tracing span, so that their log lines carry the job they belong to.

use std::sync::Arc;
use std::time::Duration;

use regraft_model::time::{Clock, SystemClock};
use tracing::{Instrument as _, Span};

use super::files::{FileSystem, LocalFiles};
use super::memory::StateBudget;
use super::process::ProcessIdentity;
use super::{Environment, Task};

/// The environment that this machine provides.
pub struct RealEnvironment {
    clock: Arc<SystemClock>,
    state: Arc<StateBudget>,
}

impl Default for RealEnvironment {
    fn default() -> Self {
        let clock = Arc::new(SystemClock::default());
        let state = Arc::new(StateBudget::of_this_machine());
        Self { clock, state }
    }
}

impl Environment for RealEnvironment {
    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn random(&self) -> u128 {
        random()
    }

    fn spawn(&self, task: Task) {
        tokio::spawn(task.instrument(Span::current()));
    }

    fn sleep(&self, duration: Duration) -> Task {
        Box::pin(tokio::time::sleep(duration))
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        let span = Span::current();
        let done = tokio::task::spawn_blocking(move || span.in_scope(work));
        Box::pin(async move {
            if let Err(error) = done.await {
                tracing::error!("work of the host ended early: {error}");
            }
        })
    }

    fn computing(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        let span = Span::current();
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("background".to_owned());
        let started = thread.spawn(move || {
            give_way();
            span.in_scope(work);
            drop(done);
        });
        if let Err(error) = started {
            tracing::error!("cannot start a thread: {error}");
        }
        Box::pin(async move {
            // The sender is dropped when the work has ended, even if it panicked.
            let _ = is_done.await;
        })
    }

    fn files(&self) -> Arc<dyn FileSystem> {
        Arc::new(LocalFiles)
    }

    fn state_budget(&self) -> Arc<StateBudget> {
        self.state.clone()
    }

    fn process(&self) -> Option<ProcessIdentity> {
        ProcessIdentity::own()
    }

    fn is_gone(&self, process: &ProcessIdentity) -> bool {
        process.is_gone()
    }
}

/// Nice value of threads for background work.
///
/// With 5 they get about a third of the share of a job's thread on a busy processor.
/// Such a share does not starve them, so checkpoints complete even if all processors are busy.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Lowers the priority of the calling thread, for good.
fn give_way() {
    #[cfg(target_os = "linux")]
    // On Linux, no process means the calling thread. Where this is refused, the thread keeps its priority.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Returns 128 random bits of the operating system, for callers that have no environment.
///
/// # Panics
/// When the operating system has no random numbers to give, which it reports only where its configuration forbids them.
#[must_use]
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the operating system gives no random numbers: {error}");
    }
    u128::from_ne_bytes(bytes)
}
