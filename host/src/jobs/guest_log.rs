//! Forwards the log lines of guests to the job's log, with uid and subtask, and keeps their counters and gauges.

use std::sync::Arc;

use regraft_guest_runtime::events::{GuestEvents, LogLevel};
use regraft_model::id::OperatorUid;

use crate::dataflow::control::{NodeCounters, locked};

/// The log and the figures of one subtask's guest. Every line is prefixed with uid and subtask.
#[derive(Debug)]
pub struct GuestLog {
    place: String,
    counters: Arc<NodeCounters>,
}

impl GuestLog {
    /// Returns the log of a subtask's instance.
    #[must_use]
    pub fn new(uid: &OperatorUid, subtask: u32, counters: Arc<NodeCounters>) -> Self {
        Self {
            place: format!("{uid}#{subtask}"),
            counters,
        }
    }
}

impl GuestEvents for GuestLog {
    fn log(&self, level: LogLevel, message: &str) {
        let place = &self.place;
        match level {
            LogLevel::Trace => tracing::trace!("{place}: {message}"),
            LogLevel::Debug => tracing::debug!("{place}: {message}"),
            LogLevel::Info => tracing::info!("{place}: {message}"),
            LogLevel::Warn => tracing::warn!("{place}: {message}"),
            LogLevel::Error => tracing::error!("{place}: {message}"),
        }
    }

    fn counter_add(&self, name: &str, delta: u64) {
        tracing::debug!("{}: counter {name} += {delta}", self.place);
        locked(&self.counters.guest).add(name, delta);
    }

    fn gauge_set(&self, name: &str, value: f64) {
        tracing::debug!("{}: gauge {name} = {value}", self.place);
        locked(&self.counters.guest).set(name, value);
    }
}
