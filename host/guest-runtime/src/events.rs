//! Log lines and measurements that a guest gives its host outside of an outcome.

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
    /// One line, already cut to 16 KiB; at most 1,000 of them come in a second.
    fn log(&self, level: LogLevel, message: &str);

    /// Adds to a counter. Names are at most 128 bytes long, and there are at most 1,000 of them.
    fn counter_add(&self, name: &str, delta: u64);

    /// Sets a gauge. Names as for counters.
    fn gauge_set(&self, name: &str, value: f64);
}

/// Drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl GuestEvents for NoEvents {
    fn log(&self, _: LogLevel, _: &str) {}
    fn counter_add(&self, _: &str, _: u64) {}
    fn gauge_set(&self, _: &str, _: f64) {}
}
