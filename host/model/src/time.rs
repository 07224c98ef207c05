//! Event time, watermarks and the clock of the dataflow.
//!
//! The host reads the system's clock only through [`Clock`], so that a simulation can drive whole jobs by a clock of
//! its own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Event time of a record in milliseconds since the Unix epoch; [`NO_TIMESTAMP`] if it has none.
pub type EventTime = i64;

/// Event time of a record that has none, and the watermark before the first one.
pub const NO_TIMESTAMP: EventTime = i64::MIN;

/// Watermark after the last record of a bounded input.
pub const MAX_WATERMARK: EventTime = i64::MAX;

/// The time domain of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeDomain {
    /// Event time: the timer fires when the watermark reaches it.
    Event,
    /// Processing time: the timer fires by the clock.
    Processing,
}

impl TimeDomain {
    /// Parses the word of a declaration, `event` or `processing`.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "event" => Some(Self::Event),
            "processing" => Some(Self::Processing),
            _ => None,
        }
    }
}

/// The clock of the dataflow.
pub trait Clock: Send + Sync {
    /// Returns the wall-clock time in milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
    /// Returns the nanoseconds since an arbitrary fixed point; never decreases.
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
