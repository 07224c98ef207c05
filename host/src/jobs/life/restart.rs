//! Decides if a failed job is restarted, and after what wait. Pure; the strategies are Flink's.
//!
//! As in Flink's `ExponentialDelayRestartBackoffTimeStrategy`, failures during the wait for a restart belong to that
//! restart.
//! The caller ensures this by asking once per restart.

use std::time::Duration;

use crate::graph::job_graph::RestartStrategy;

/// The reaction to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Restart the job after this wait.
    Restart(Duration),
    /// Fail the job.
    GiveUp,
}

/// The restarts of a job so far, with the strategy that decides on the next one.
#[derive(Debug)]
pub struct Restarts {
    strategy: RestartStrategy,
    /// Number of restarts since the beginning or since the wait was reset.
    count: u32,
    /// Wait before the last restart, without jitter; `None` if there was no restart since the wait was reset.
    backoff: Option<Duration>,
    /// Time at which the last restart was due, in monotonic nanoseconds.
    restarted_ns: u64,
}

impl Restarts {
    /// Returns the restarts of a job that has not failed yet.
    #[must_use]
    pub const fn new(strategy: RestartStrategy) -> Self {
        Self {
            strategy,
            count: 0,
            backoff: None,
            restarted_ns: 0,
        }
    }

    /// Returns the number of restarts since the wait was last reset.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Decides on a failure of the job. `now_ns` is monotonic, and `random` are random bits for the jitter.
    pub fn failed(&mut self, now_ns: u64, random: u64) -> Decision {
        match self.strategy {
            RestartStrategy::None => Decision::GiveUp,
            RestartStrategy::FixedDelay { attempts, delay } => {
                if self.count >= attempts {
                    return Decision::GiveUp;
                }
                self.restart(now_ns, delay)
            }
            RestartStrategy::ExponentialDelay {
                initial_backoff,
                max_backoff,
                backoff_multiplier,
                reset_backoff_threshold,
                jitter_factor,
                attempts,
            } => {
                let calm = Duration::from_nanos(now_ns.saturating_sub(self.restarted_ns));
                if calm >= reset_backoff_threshold {
                    (self.count, self.backoff) = (0, None);
                }
                if attempts.is_some_and(|attempts| self.count >= attempts) {
                    return Decision::GiveUp;
                }
                let backoff = match self.backoff {
                    None => initial_backoff,
                    Some(last) => grown(last, backoff_multiplier, max_backoff).max(initial_backoff),
                };
                self.backoff = Some(backoff);
                // From -1 to 1, inclusive.
                let share = random as f64 / u64::MAX as f64 * 2.0 - 1.0;
                let jitter = backoff.mul_f64(jitter_factor.clamp(0.0, 1.0)).as_secs_f64() * share;
                let wait = Duration::try_from_secs_f64(backoff.as_secs_f64() + jitter).unwrap_or(initial_backoff);
                self.restart(now_ns, wait.clamp(initial_backoff.min(max_backoff), max_backoff))
            }
        }
    }

    fn restart(&mut self, now_ns: u64, wait: Duration) -> Decision {
        self.count += 1;
        self.restarted_ns = now_ns.saturating_add(wait.as_nanos() as u64);
        Decision::Restart(wait)
    }
}

fn grown(last: Duration, multiplier: f64, most: Duration) -> Duration {
    Duration::try_from_secs_f64(last.as_secs_f64() * multiplier).map_or(most, |grown| grown.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn exponential(jitter_factor: f64, attempts: Option<u32>) -> RestartStrategy {
        RestartStrategy::ExponentialDelay {
            initial_backoff: SECOND,
            max_backoff: 10 * SECOND,
            backoff_multiplier: 2.0,
            reset_backoff_threshold: 60 * SECOND,
            jitter_factor,
            attempts,
        }
    }

    /// Returns the waits in milliseconds after failures at these seconds; -1 if the job is given up.
    fn waits(strategy: RestartStrategy, at_seconds: &[u64]) -> Vec<i64> {
        let mut restarts = Restarts::new(strategy);
        let decide = |at: &u64| match restarts.failed(at * 1_000_000_000, u64::MAX / 2) {
            Decision::Restart(wait) => wait.as_millis() as i64,
            Decision::GiveUp => -1,
        };
        at_seconds.iter().map(decide).collect()
    }

    #[test]
    fn none_gives_up_at_once() {
        assert_eq!(waits(RestartStrategy::None, &[5]), [-1]);
    }

    #[test]
    fn a_fixed_delay_counts_over_the_whole_life() {
        let strategy = RestartStrategy::FixedDelay {
            attempts: 2,
            delay: 3 * SECOND,
        };
        assert_eq!(waits(strategy, &[5, 100_000, 200_000]), [3000, 3000, -1]);
    }

    #[test]
    fn an_exponential_delay_grows_to_its_limit_and_is_reset_when_the_job_has_run_for_a_while() {
        let failures = [5, 10, 20, 30, 40, 50, 119, 179, 300];
        assert_eq!(
            waits(exponential(0.0, None), &failures),
            [1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000, 1000],
            "a restart was due at 60 and at 129 and at 189: only the last one ran for a minute"
        );
        assert_eq!(
            waits(exponential(0.0, Some(2)), &[5, 10, 20, 300, 310, 320]),
            [1000, 2000, -1, 1000, 2000, -1]
        );
    }

    proptest! {
        #[test]
        fn jitter_stays_in_its_bounds(failures in prop::collection::vec((0_u64..100, any::<u64>()), 1..40), jitter in 0.0..=1.0) {
            let mut restarts = Restarts::new(exponential(jitter, None));
            let mut now = 0;
            for (after, random) in failures {
                now += after * 1_000_000_000;
                let before = restarts.backoff;
                let Decision::Restart(wait) = restarts.failed(now, random) else { panic!("gives up") };
                let backoff = restarts.backoff.unwrap_or_default().as_secs_f64();
                prop_assert!((SECOND..=10 * SECOND).contains(&wait), "{wait:?}");
                prop_assert!(wait.as_secs_f64() <= backoff * (1.0 + jitter) + 1e-6);
                prop_assert!(wait.as_secs_f64() >= backoff * (1.0 - jitter) - 1e-6);
                prop_assert!(restarts.count == 1 || before.is_some_and(|before| before.as_secs_f64() <= backoff));
            }
        }
    }
}
