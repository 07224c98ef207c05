//! Bounds of a guest: memory by a limiter, time by epochs and the processor time of the thread.
//!
//! A limit that was hit is recorded, because the trap that follows does not tell of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::ResourceLimiter;

/// The length of a tick of the engine's epoch: how exactly time is bounded.
pub const TICK: Duration = Duration::from_millis(10);
/// The length of a tick while any guest is profiled: how often it is sampled.
pub const SAMPLE_TICK: Duration = Duration::from_millis(1);

/// Bytes that one element of a table takes in the host: a pointer.
const TABLE_ELEMENT_BYTES: u64 = 8;
/// The most core instances, and the most tables, of one component.
pub(crate) const INSTANCES_MAX: usize = 100;
/// The most memories of one component.
pub(crate) const MEMORIES_MAX: usize = 16;
/// Number of ticks after which a call is checked in any case for a request to end.
const LOOK_TICKS: u64 = 5;

/// Bounds the memory of one instance: its linear memories and its tables, those that it begins with and what they grow by.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    /// In bytes, over all memories and tables.
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

    /// Counts a memory or table that grows. Returns false where it may not.
    fn grow(&mut self, current: u64, desired: u64) -> bool {
        let total = (self.used - current.min(self.used)).saturating_add(desired);
        if total > self.limit {
            self.refused = Some(total);
            return false;
        }
        self.used = total;
        true
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(current as u64, desired as u64))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| (elements as u64).saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(self.grow(bytes(current), bytes(desired)))
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

/// Bounds the bytes that the host holds on behalf of one call: what the guest hands over in it, and the answers that it asks
/// for.
#[derive(Debug)]
pub(crate) struct HostMemory {
    /// In bytes.
    limit: u64,
    /// True if an answer of the present call was refused.
    pub(crate) exceeded: bool,
}

impl HostMemory {
    pub(crate) fn new(limit: u64) -> Self {
        let exceeded = false;
        Self { limit, exceeded }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The most bytes of one column of an answer: offsets in it have 32 bits.
    pub(crate) fn column_max(&self) -> usize {
        usize::try_from(self.limit.min(u32::MAX.into())).unwrap_or(usize::MAX)
    }
}

/// Part of the limit that a call may compute which only looks for a record that takes too long.
const SEARCH_SHARE: u32 = 16;
/// Time that such a call may compute in any case, as far as the limit allows it.
const SEARCH_MIN: Duration = Duration::from_millis(50);

/// Returns the processor time of this thread. It stands still while the process is suspended, and while the thread waits for
/// a processor.
pub(crate) fn computed() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Bounds the time of one call: the time that it computes, without that of the host's answers. A call begins and ends on one
/// thread.
#[derive(Debug)]
pub(crate) struct Deadline {
    limit: Duration,
    /// True if calls may only take a small part of the limit.
    search: bool,
    /// Processor time of the thread when the call began.
    started: Duration,
    /// Processor time of the host's answers.
    answers: Duration,
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
            search: false,
            started: Duration::ZERO,
            answers: Duration::ZERO,
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

    /// Lets calls compute for only a small part of the limit, or for all of it.
    pub(crate) fn search(&mut self, search: bool) {
        self.search = search;
    }

    /// Time that the present call may compute.
    fn allowed(&self) -> Duration {
        if self.search {
            (self.limit / SEARCH_SHARE).max(SEARCH_MIN).min(self.limit)
        } else {
            self.limit
        }
    }

    /// A call begins. Returns after how many ticks to look again.
    pub(crate) fn start(&mut self) -> u64 {
        self.started = computed();
        self.answers = Duration::ZERO;
        self.passed = false;
        self.interrupted = false;
        ticks(self.allowed()).min(LOOK_TICKS)
    }

    /// Returns the processor time of the present call so far, and the part of it that the host's answers took.
    pub(crate) fn spent(&self) -> (Duration, Duration) {
        (computed().saturating_sub(self.started), self.answers)
    }

    /// Adds processor time that an answer of the host took.
    pub(crate) fn answered(&mut self, took: Duration) {
        self.answers += took;
    }

    /// The ticks are over: after how many more to look again, or `None` where the call is to end.
    pub(crate) fn look(&mut self) -> Option<u64> {
        self.interrupted = self.interrupt.as_ref().is_some_and(|it| it.load(Ordering::Relaxed));
        if self.interrupted {
            return None;
        }
        let computed = computed().saturating_sub(self.started).saturating_sub(self.answers);
        let left = self.allowed().checked_sub(computed).filter(|left| !left.is_zero());
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
    }

    #[test]
    fn tables_count_as_memory() {
        let mut limit = MemoryLimit::new(1_000);
        assert!(limit.memory_growing(0, 500, None).expect("no error"));
        assert!(limit.table_growing(0, 40, None).expect("no error"));
        assert_eq!(limit.used(), 820);
        assert!(!limit.table_growing(0, 40, None).expect("no error"));
        assert!(!limit.table_growing(40, usize::MAX, None).expect("no error"));
        assert_eq!((limit.refused, limit.used()), (Some(u64::MAX), 820));
        assert!(limit.table_growing(40, 62, None).expect("no error"));
        assert_eq!(limit.used(), 996);
    }

    #[test]
    fn the_tables_that_a_module_begins_with_count() {
        use wasm_encoder::{Module, RefType, TableSection, TableType};
        let instantiate = |count: usize, limit: u64| {
            let mut tables = TableSection::new();
            for _ in 0..count {
                tables.table(TableType {
                    element_type: RefType::FUNCREF,
                    table64: false,
                    minimum: 1 << 20,
                    maximum: None,
                    shared: false,
                });
            }
            let mut module = Module::new();
            module.section(&tables);
            let engine = wasmtime::Engine::default();
            let module = wasmtime::Module::new(&engine, module.finish()).expect("a module");
            let mut store = wasmtime::Store::new(&engine, MemoryLimit::new(limit));
            store.limiter(|limit| limit);
            let made = wasmtime::Instance::new(&mut store, &module, &[]).is_ok();
            (made, store.data().refused, store.data().used())
        };
        assert_eq!(instantiate(2, 16 << 20), (true, None, 16 << 20));
        assert_eq!(instantiate(95, 16 << 20), (false, Some(24 << 20), 16 << 20));
    }

    /// Computes until the deadline has passed; returns false if it has not within a minute.
    fn passes(deadline: &mut Deadline) -> bool {
        let began = std::time::Instant::now();
        while deadline.look().is_some() {
            if began.elapsed() > Duration::from_secs(60) {
                return false;
            }
        }
        deadline.passed
    }

    #[test]
    fn only_the_time_that_a_call_computes_counts() {
        let limit = Duration::from_millis(20);
        let mut deadline = Deadline::new(limit);
        deadline.start();
        // As if the process were suspended.
        std::thread::sleep(3 * limit);
        assert!(deadline.look().is_some());
        let began = computed();
        assert!(passes(&mut deadline));
        let took = computed() - began;
        assert!(took <= 2 * limit, "{took:?}");
        deadline.start();
        deadline.answered(Duration::from_secs(3600));
        assert!(deadline.look().is_some(), "answers of the host are not counted");
    }

    #[test]
    fn a_search_takes_a_small_part_of_the_limit() {
        let allowed = |limit: Duration| {
            let mut deadline = Deadline::new(limit);
            deadline.search(true);
            deadline.allowed()
        };
        let ms = Duration::from_millis;
        assert_eq!(allowed(ms(16_000)), ms(1000));
        assert_eq!((allowed(ms(100)), allowed(ms(30))), (ms(50), ms(30)));
    }

    #[test]
    fn a_long_limit_is_looked_at_often() {
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
