//! Decides when a periodic checkpoint is due, and how many may fail. Pure: the control loop reports events and asks.

use crate::graph::job_graph::CheckpointSettings;

/// The schedule of a job's periodic checkpoints. All times are monotonic nanoseconds.
#[derive(Debug)]
pub struct Schedule {
    settings: CheckpointSettings,
    /// Start of the last periodic checkpoint, or of the job.
    last_start: u64,
    /// Time at which the last round of any kind was completed or given up.
    last_end: Option<u64>,
    /// Number of consecutive periodic checkpoints that failed.
    failures: u32,
}

impl Schedule {
    /// Returns the schedule of a job that starts at `now`.
    #[must_use]
    pub const fn new(settings: CheckpointSettings, now: u64) -> Self {
        Self {
            settings,
            last_start: now,
            last_end: None,
            failures: 0,
        }
    }

    /// Restarts the schedule for a job that goes on from a checkpoint: the next one is a whole interval away.
    pub const fn restarted(&mut self, now: u64) {
        (self.last_start, self.last_end, self.failures) = (now, None, 0);
    }

    /// Records that a periodic checkpoint begins.
    pub const fn started(&mut self, now: u64) {
        self.last_start = now;
    }

    /// Records that a round of any kind was completed or given up.
    pub const fn ended(&mut self, now: u64) {
        self.last_end = Some(now);
    }

    /// Returns the time at which the next periodic checkpoint is due, with `under_way` of them in progress.
    ///
    /// Returns `None` if one of those has to end first, or there are no periodic checkpoints.
    #[must_use]
    pub fn due(&self, under_way: usize) -> Option<u64> {
        let interval = self.settings.interval?.as_nanos() as u64;
        let pause = self.settings.min_pause.as_nanos() as u64;
        // As in Flink, a pause after the end of each checkpoint means that no two overlap.
        if under_way >= self.settings.max_concurrent as usize || (under_way > 0 && pause > 0) {
            return None;
        }
        let rested = self.last_end.map_or(0, |end| end.saturating_add(pause));
        Some(self.last_start.saturating_add(interval).max(rested))
    }

    /// Records that a periodic checkpoint was completed.
    pub const fn completed(&mut self) {
        self.failures = 0;
    }

    /// Records that a periodic checkpoint failed. Returns true if more have failed in a row than the job tolerates.
    pub const fn failed(&mut self) -> bool {
        self.failures += 1;
        self.failures > self.settings.tolerable_failures
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::graph::job_graph::{CheckpointMode, OnCancel};

    const fn schedule(interval_ns: u64, min_pause_ns: u64, max_concurrent: u32) -> Schedule {
        let settings = CheckpointSettings {
            interval: Some(Duration::from_nanos(interval_ns)),
            mode: CheckpointMode::ExactlyOnce,
            min_pause: Duration::from_nanos(min_pause_ns),
            timeout: Duration::from_secs(1),
            tolerable_failures: 2,
            max_concurrent,
            retain: 1,
            on_cancel: OnCancel::Delete,
            dir: None,
        };
        Schedule::new(settings, 1000)
    }

    #[test]
    fn from_start_to_start() {
        let mut schedule = schedule(100, 0, 1);
        assert_eq!(schedule.due(0), Some(1100));
        schedule.started(1100);
        assert_eq!(schedule.due(1), None, "one at a time");
        schedule.ended(1130);
        assert_eq!(schedule.due(0), Some(1200));
        schedule.started(1200);
        schedule.ended(1350);
        assert_eq!(schedule.due(0), Some(1350), "at once: it is late");
        schedule.restarted(2000);
        assert_eq!(schedule.due(0), Some(2100));
    }

    #[test]
    fn a_pause_from_end_to_start() {
        let mut schedule = schedule(100, 50, 3);
        schedule.started(1100);
        assert_eq!(schedule.due(1), None);
        schedule.ended(1190);
        assert_eq!(schedule.due(0), Some(1240));
        schedule.ended(1120);
        assert_eq!(schedule.due(0), Some(1200));
    }

    #[test]
    fn several_at_once() {
        let mut schedule = schedule(100, 0, 2);
        schedule.started(1100);
        assert_eq!(schedule.due(1), Some(1200));
        assert_eq!(schedule.due(2), None);
    }

    #[test]
    fn failures_in_a_row() {
        let mut schedule = schedule(100, 0, 1);
        assert!(!schedule.failed() && !schedule.failed());
        schedule.completed();
        assert!(!schedule.failed() && !schedule.failed());
        assert!(schedule.failed(), "the third in a row");
    }
}
