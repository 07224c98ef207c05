//! Log lines and measurements that a guest gives its host outside of an outcome.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the usual names")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Takes what guests tell. It is called in the middle of guest calls: it must not block.
pub trait GuestEvents: Send + Sync {
    /// One line, already cut to 16 KiB. At most 1,000 of them come in a second for each [`LogBudget`].
    fn log(&self, level: LogLevel, message: &str);

    /// Adds to a counter. Names are at most 128 bytes long, and there are at most 1,000 of them.
    fn counter_add(&self, name: &str, delta: u64);

    /// Sets a gauge. Names as for counters.
    fn gauge_set(&self, name: &str, value: f64);
}

/// The most log lines in a second that share a [`LogBudget`].
pub(crate) const LINES_PER_SECOND_MAX: u32 = 1_000;

/// The log lines of the present second. The subtasks of an operator share one, and so do the instances that follow each other
/// in a subtask.
#[derive(Debug, Default)]
pub struct LogBudget(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    second: Option<Instant>,
    kept: u32,
    dropped: u64,
}

impl LogBudget {
    /// Returns true if a line is kept, and the number of lines dropped in the second before.
    pub(crate) fn take(&self, now: Instant) -> (bool, u64) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        if lines
            .second
            .is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1))
        {
            dropped = std::mem::take(&mut lines.dropped);
            lines.second = Some(now);
            lines.kept = 0;
        }
        if lines.kept == LINES_PER_SECOND_MAX {
            lines.dropped += 1;
            return (false, dropped);
        }
        lines.kept += 1;
        (true, dropped)
    }
}

/// Drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl GuestEvents for NoEvents {
    fn log(&self, _: LogLevel, _: &str) {}
    fn counter_add(&self, _: &str, _: u64) {}
    fn gauge_set(&self, _: &str, _: f64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_lines_a_second() {
        let start = Instant::now();
        let budget = LogBudget::default();
        assert!((0..1_000).all(|_| budget.take(start) == (true, 0)));
        assert_eq!(budget.take(start + Duration::from_millis(999)), (false, 0));
        assert_eq!(budget.take(start + Duration::from_secs(1)), (true, 1));
        assert_eq!(budget.take(start + Duration::from_secs(1)), (true, 0));
    }
}
