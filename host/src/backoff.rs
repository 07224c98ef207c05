//! Growing waits between tries: the one rule for everything that is tried again, but for jobs, whose restarts the user
//! configures (`jobs/life/restart.rs`).
//!
//! Pure: it neither sleeps nor reads a clock. The caller takes a wait, sleeps as its environment does, and tries again.

use std::time::Duration;

/// Waits between tries, as an iterator. Each is a multiple of the one before, up to a limit.
///
/// It is usually a constant, of which every operation takes a copy of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    next: Duration,
    factor: u32,
    max: Duration,
    /// Waits still to come; `None` for no end.
    left: Option<u32>,
}

impl Backoff {
    /// Waits that start at `first`, are multiplied by `factor` each time, never exceed `max`, and do not end.
    #[must_use]
    pub const fn new(first: Duration, factor: u32, max: Duration) -> Self {
        Self {
            next: first,
            factor,
            max,
            left: None,
        }
    }

    /// Ends after the waits between so many tries, which is one less than the tries.
    #[must_use]
    pub const fn tries(self, tries: u32) -> Self {
        Self {
            left: Some(tries.saturating_sub(1)),
            ..self
        }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let wait = self.next.min(self.max);
        self.next = wait.saturating_mul(self.factor).min(self.max);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_to_their_limit_and_stay_there() {
        let waits: Vec<u64> = Backoff::new(SECOND, 2, 5 * SECOND)
            .take(5)
            .map(|wait| wait.as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn there_is_a_wait_between_two_tries_and_none_after_the_last() {
        let waits = |tries| Backoff::new(SECOND, 4, 100 * SECOND).tries(tries).collect::<Vec<_>>();
        assert_eq!(waits(3), [SECOND, 4 * SECOND]);
        assert_eq!(waits(1), []);
        assert_eq!(waits(0), []);
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_never_shrink(first: Duration, factor in 1u32.., max: Duration, tries in 0u32..50) {
            let waits: Vec<Duration> = Backoff::new(first, factor, max).tries(tries).collect();
            prop_assert_eq!(waits.len(), tries.saturating_sub(1) as usize);
            prop_assert!(waits.iter().all(|wait| *wait <= max));
            prop_assert!(waits.is_sorted());
            prop_assert!(waits.first().is_none_or(|wait| *wait == first.min(max)));
        }
    }
}
