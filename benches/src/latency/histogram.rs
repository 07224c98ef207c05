//! A histogram of times with three significant digits and better, in constant memory.

/// Buckets of each power of two.
const STEPS: u64 = 256;

/// Counts of times in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// Returns the bucket of a time: itself below 2 × `STEPS`, then `STEPS` for each power of two.
fn bucket(time: u64) -> usize {
    let shift = (time.max(STEPS).ilog2() - STEPS.ilog2()) as u64;
    (shift * STEPS + (time >> shift)) as usize
}

/// Returns the greatest time of a bucket.
fn top(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((bucket - shift * STEPS + 1) << shift) - 1
}

impl Histogram {
    /// Counts a time.
    pub(super) fn add(&mut self, time: u64) {
        let bucket = bucket(time);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max = self.max.max(time);
    }

    /// Returns the number of times.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Returns the greatest time.
    pub(super) const fn max(&self) -> u64 {
        self.max
    }

    /// Returns a time that this part of all times does not exceed, within 0.4 %; 0 if there are none.
    pub(super) fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.total as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return top(bucket).min(self.max);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_its_bucket() {
        for time in (0..5000).chain([1 << 20, (1 << 20) - 1, 123_456_789, u64::MAX >> 2]) {
            let top = top(bucket(time));
            assert!(top >= time && top - time <= time / 256, "{time}: {top}");
            assert_eq!(bucket(top), bucket(time));
            assert_eq!(bucket(top + 1), bucket(time) + 1, "{time}");
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|time| histogram.add(time * 1000));
        assert_eq!((histogram.total(), histogram.max()), (1000, 1_000_000));
        for (part, expected) in [
            (0.5, 500_000.0),
            (0.99, 990_000.0),
            (0.999, 999_000.0),
            (1.0, 1_000_000.0),
        ] {
            let found = histogram.quantile(part) as f64;
            assert!((found / expected - 1.0).abs() < 0.004, "{part}: {found}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
