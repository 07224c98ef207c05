//! Bounds of a guest: memory by a limiter, time by epochs.
//!
//! A limit that was hit is recorded, because the trap that follows does not tell of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

/// The length of a tick of the engine's epoch: how exactly time is bounded.
pub const TICK: Duration = Duration::from_millis(10);

/// The most elements that all tables of an instance may have.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;
/// The most core instances, and the most tables, of one component.
const INSTANCES_MAX: usize = 1_000;
/// The most memories of one component.
const MEMORIES_MAX: usize = 16;
/// Number of ticks after which a call is checked in any case for a request to end.
const LOOK_TICKS: u64 = 5;

/// Bounds the memory of one instance.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    /// In bytes, over all memories.
    limit: u64,
    used: u64,
    /// The size that was refused in the present call.
    pub(crate) refused: Option<u64>,
}

impl MemoryLimit {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            refused: None,
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.used - (current as u64).min(self.used) + desired as u64;
        if total > self.limit {
            self.refused = Some(total);
            return Ok(false);
        }
        self.used = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

/// Bounds the time of one call: what it computes, not what it waits for the host's answers.
#[derive(Debug)]
pub(crate) struct Deadline {
    limit: Duration,
    started: Instant,
    waited: Duration,
    /// True if it ended the present call.
    pub(crate) passed: bool,
    /// Set by others if the call's answer is no longer needed.
    interrupt: Option<Arc<AtomicBool>>,
    /// True if that ended the present call.
    pub(crate) interrupted: bool,
}

impl Deadline {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            started: Instant::now(),
            waited: Duration::ZERO,
            passed: false,
            interrupt: None,
            interrupted: false,
        }
    }

    /// A request to end a call before its time.
    pub(crate) fn interrupt_by(&mut self, interrupt: Option<Arc<AtomicBool>>) {
        self.interrupt = interrupt;
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// A call begins. Returns after how many ticks to look again.
    pub(crate) fn start(&mut self) -> u64 {
        self.started = Instant::now();
        self.waited = Duration::ZERO;
        self.passed = false;
        self.interrupted = false;
        ticks(self.limit).min(LOOK_TICKS)
    }

    /// Time that the guest waited for the host.
    pub(crate) fn wait(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// The ticks are over: after how many more to look again, or `None` where the call is to end.
    pub(crate) fn look(&mut self) -> Option<u64> {
        self.interrupted = self.interrupt.as_ref().is_some_and(|it| it.load(Ordering::Relaxed));
        if self.interrupted {
            return None;
        }
        let computed = self.started.elapsed().saturating_sub(self.waited);
        let left = self.limit.checked_sub(computed).filter(|left| !left.is_zero());
        self.passed = left.is_none();
        left.map(|left| ticks(left).min(LOOK_TICKS))
    }
}

/// Enough ticks that a time has passed after them.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos()))
        .unwrap_or(u64::MAX / 2)
        .min(u64::MAX / 2)
        + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 60, None).expect("no error"));
        assert!(!limit.memory_growing(0, 50, None).expect("no error"));
        assert_eq!((limit.refused, limit.used()), (Some(110), 60));
        assert!(limit.memory_growing(60, 100, None).expect("no error"));
        assert!(!limit.table_growing(0, TABLE_ELEMENTS_MAX + 1, None).expect("no error"));
    }

    #[test]
    fn waiting_is_not_computing() {
        let mut deadline = Deadline::new(Duration::from_secs(3600));
        assert_eq!(deadline.start(), LOOK_TICKS);
        assert!(deadline.look().is_some());
        deadline.limit = Duration::ZERO;
        assert_eq!((deadline.look(), deadline.passed), (None, true));
        assert_eq!(ticks(Duration::from_millis(25)), 4);
        assert_eq!(ticks(Duration::MAX), u64::MAX / 2 + 1);
    }

    #[test]
    fn a_call_ends_before_its_time_where_somebody_wants_it() {
        let mut deadline = Deadline::new(Duration::from_secs(3600));
        let interrupt = Arc::new(AtomicBool::new(false));
        deadline.interrupt_by(Some(interrupt.clone()));
        deadline.start();
        assert!(deadline.look().is_some());
        interrupt.store(true, Ordering::Relaxed);
        assert_eq!(
            (deadline.look(), deadline.interrupted, deadline.passed),
            (None, true, false)
        );
    }
}
