//! Records per second: how many a subtask may read now.

/// A budget that fills with time. It never saves up more than a tenth of a second.
#[derive(Debug)]
pub struct Rate {
    /// Nanoseconds per record.
    interval_ns: f64,
    /// When the next record is due.
    next_ns: f64,
}

/// Greatest lag of reading that is caught up with, in nanoseconds; a greater one is forgotten.
const LAG_NS_MAX: f64 = 1e8;
/// Reading in steps of at least this long keeps batches large, in nanoseconds.
const STEP_NS: f64 = 5e6;

impl Rate {
    /// `per_second` of one subtask.
    #[must_use]
    pub fn new(per_second: f64, now_ns: u64) -> Self {
        Self {
            interval_ns: 1e9 / per_second.max(1e-6),
            next_ns: now_ns as f64,
        }
    }

    /// Returns the number of records that are due, at least one.
    ///
    /// # Errors
    /// The monotonic time in nanoseconds when the next are due.
    pub fn due(&mut self, now_ns: u64) -> Result<usize, u64> {
        let now = now_ns as f64;
        self.next_ns = self.next_ns.max(now - LAG_NS_MAX - self.interval_ns);
        if self.next_ns > now {
            return Err((self.next_ns + STEP_NS.min(self.interval_ns * 1000.0)) as u64);
        }
        Ok(((now - self.next_ns) / self.interval_ns) as usize + 1)
    }

    /// That many were read.
    pub fn spend(&mut self, records: usize) {
        self.next_ns += records as f64 * self.interval_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_and_forgets_long_pauses() {
        let mut rate = Rate::new(1000.0, 0);
        let (mut now, mut read) = (0, 0);
        while now < 10_000_000_000 {
            match rate.due(now) {
                Ok(n) => {
                    rate.spend(n);
                    read += n;
                }
                Err(at) => now = at,
            }
        }
        assert!((9_990..=10_010).contains(&read), "{read}");
        let after_pause = rate.due(now + 60_000_000_000).expect("due");
        assert!(after_pause <= 102, "{after_pause}");
    }
}
