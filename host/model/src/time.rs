//! Event time, watermarks and the clock that the dataflow is given.
//!
//! Nothing in the host reads the system's clock except through [`Clock`]: a simulation drives whole jobs by its own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An event time of a record, in milliseconds since the Unix epoch; [`NO_TIMESTAMP`] where it has none.
pub type EventTime = i64;

/// The timestamp of a record without one, and the watermark before the first.
pub const NO_TIMESTAMP: EventTime = i64::MIN;

/// The watermark after the last record of a bounded input.
pub const MAX_WATERMARK: EventTime = i64::MAX;

/// Which time a timer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeDomain {
    /// The watermark.
    Event,
    /// The clock.
    Processing,
}

impl TimeDomain {
    /// By the word of a declaration, `event` or `processing`.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "event" => Some(Self::Event),
            "processing" => Some(Self::Processing),
            _ => None,
        }
    }
}

/// Where the dataflow reads the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
    /// Nanoseconds since some fixed point; never goes back.
    fn monotonic_ns(&self) -> u64;
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
