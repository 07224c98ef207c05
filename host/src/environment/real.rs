//! This machine: tokio's tasks, the system's clock, its files. To be used within a tokio runtime.
//!
//! Tasks and work are in the tracing span of whoever handed them over, so that what they log is known to be of that job.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regraft_model::time::{Clock, SystemClock};
use tracing::{Instrument as _, Span};

use super::files::{FileSystem, LocalFiles};
use super::{Environment, Task};

/// This machine.
pub struct RealEnvironment {
    clock: Arc<SystemClock>,
}

impl Default for RealEnvironment {
    fn default() -> Self {
        let clock = Arc::new(SystemClock::default());
        Self { clock }
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
            // It is dropped when the work is over, also when it panicked.
            let _ = is_done.await;
        })
    }

    fn files(&self) -> Arc<dyn FileSystem> {
        Arc::new(LocalFiles)
    }
}

/// How much less right to the processor background work has than the threads of jobs: with 5, one third as much where it
/// has to share. It is still not starved where all processors are busy, so that checkpoints come to their end.
#[cfg(target_os = "linux")]
const NICENESS: libc::c_int = 5;

/// The calling thread lets others go first from now on.
fn give_way() {
    #[cfg(target_os = "linux")]
    // SAFETY: it takes numbers only; on Linux, process 0 is the calling thread. Where it is refused, nothing has changed.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
    }
}

/// Random bits, where no environment is at hand.
#[must_use]
pub fn random() -> u128 {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    let mixed = [half() << 64 | half(), half() << 64 | half()].map(|bits| bits.wrapping_add(time));
    let low = xxhash_rust::xxh3::xxh3_64(&mixed[0].to_le_bytes());
    u128::from(xxhash_rust::xxh3::xxh3_64(&mixed[1].to_le_bytes())) << 64 | u128::from(low)
}
