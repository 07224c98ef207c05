//! Chains of incremental files: decides which neighbours are merged, and when. Pure.
//!
//! The files of one state and subtask are a chain, oldest first: at most one full file, then increments, each with the
//! changes since its predecessor.
//! Each checkpoint adds one.
//! Merging bounds the number of files and the bytes that a restore reads.
//! Files are sorted by size into levels, each [`FAN`] times the one below, and when [`FAN`] neighbours are in one level
//! they become one file of a higher level.
//! Every row is therefore rewritten about once per level at most, and the number of levels is the logarithm of state
//! size by increment size.
//! This is the tiering of log-structured merge trees, restricted to neighbours because their order matters.

use std::ops::Range;

/// Number of neighbours in a level that are merged into one file, and the size ratio of adjacent levels.
pub const FAN: usize = 4;

/// Size, in bytes, up to which all files are in the lowest level: a smaller file costs the store no less.
pub const SMALL: u64 = 64 << 10;

/// Maximum length of a chain. A longer one, whose merges fail or cannot keep up, starts again with a full file.
pub const LONGEST: usize = 48;

/// The properties of a file in a chain that matter to merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Size in bytes.
    pub bytes: u64,
    /// True if it holds changes only.
    pub increment: bool,
}

/// Returns the neighbours to merge into one file, or `None` if the chain is short enough.
///
/// A merge that includes the first file of the chain makes a full file, since there is nothing left that it could be an
/// increment to.
#[must_use]
pub fn plan_merge(chain: &[Link]) -> Option<Range<usize>> {
    // Merge all once the changes exceed the full file, so that a restore reads at most about twice the size of the
    // state.
    let base = chain
        .first()
        .filter(|link| !link.increment)
        .map_or(0, |link| link.bytes);
    let changes: u64 = chain.iter().filter(|link| link.increment).map(|link| link.bytes).sum();
    if chain.len() > 1 && changes > base.max(SMALL) {
        return Some(0..chain.len());
    }
    // Walk from the newest file to the oldest. A small file before a larger one counts as large, so that levels never
    // grow towards the newest.
    let (mut end, mut at) = (chain.len(), 0);
    for (i, link) in chain.iter().enumerate().rev() {
        let own = level(link.bytes);
        if own > at {
            if end - (i + 1) >= FAN {
                return Some(i + 1..end);
            }
            (end, at) = (i + 1, own);
        }
    }
    (end >= FAN).then_some(0..end)
}

/// Returns the level of a file of this size, from 0.
fn level(bytes: u64) -> u32 {
    let mut level = 0;
    let mut most = SMALL;
    while bytes > most {
        level += 1;
        most = most.saturating_mul(FAN as u64);
    }
    level
}

/// Returns the maximum length of a chain of `bytes` bytes whose merges keep up.
#[must_use]
pub fn longest(bytes: u64) -> usize {
    (FAN - 1) * (level(bytes) as usize + 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn links(sizes: &[u64]) -> Vec<Link> {
        let link = |(i, bytes): (usize, &u64)| Link {
            bytes: *bytes,
            increment: i > 0,
        };
        sizes.iter().enumerate().map(link).collect()
    }

    /// Adds a file and merges until there is nothing to merge. Returns the number of bytes written by merging.
    fn add(chain: &mut Vec<Link>, bytes: u64, keys: u64) -> u64 {
        chain.push(Link { bytes, increment: true });
        let mut written = 0;
        while let Some(window) = plan_merge(chain) {
            let sum: u64 = chain[window.clone()].iter().map(|link| link.bytes).sum();
            // Later rows replace earlier ones, so a file never has more than all keys.
            let merged = Link {
                bytes: sum.min(keys),
                increment: window.start > 0,
            };
            written += merged.bytes;
            chain.splice(window, [merged]);
        }
        written
    }

    #[test]
    fn neighbours_of_a_level_are_merged() {
        let small = SMALL;
        assert_eq!(plan_merge(&[]), None);
        assert_eq!(plan_merge(&links(&[100 * small])), None);
        assert_eq!(plan_merge(&links(&[100 * small, 9, 9, 9])), None);
        assert_eq!(plan_merge(&links(&[100 * small, 9, 9, 9, 9])), Some(1..5));
        assert_eq!(plan_merge(&links(&[100 * small, 2 * small, 9, 9, 9])), None);
        let second = [100 * small, 2 * small, 2 * small, 3 * small, 3 * small, 9];
        assert_eq!(
            plan_merge(&links(&second)),
            Some(1..5),
            "the newest is of a lesser level"
        );
        assert_eq!(plan_merge(&links(&[9, 9, 9, 9])), Some(0..4), "all of it is small");
        assert_eq!(
            plan_merge(&links(&[100 * small, 9, 9, 9, 3 * small])),
            Some(1..5),
            "small ones before a great one"
        );
    }

    #[test]
    fn changes_as_large_as_the_rest_are_merged_into_it() {
        let small = SMALL;
        assert_eq!(plan_merge(&links(&[10 * small, 9 * small])), None);
        assert_eq!(plan_merge(&links(&[10 * small, 9 * small, 2 * small])), Some(0..3));
    }

    #[test]
    fn a_hundred_checkpoints_of_one_percent() {
        let (full, change) = (20 << 20, 200 << 10);
        let mut chain = links(&[full]);
        let (mut longest_seen, mut most_read, mut rewritten) = (0, 0, 0);
        for _ in 0..1000 {
            rewritten += add(&mut chain, change, full);
            longest_seen = chain.len().max(longest_seen);
            most_read = chain.iter().map(|link| link.bytes).sum::<u64>().max(most_read);
        }
        assert!(longest_seen <= 10, "{longest_seen} files");
        assert!(most_read <= 2 * full + change, "{most_read} bytes");
        assert!(rewritten <= 5 * 1000 * change, "{rewritten} bytes");
    }

    proptest! {
        #[test]
        fn chains_stay_short_and_merging_stays_cheap(
            full in 0u64..(1 << 30),
            changes in prop::collection::vec((0u64..20).prop_flat_map(|bits| 1u64..(2 << bits)), 1..300),
        ) {
            let mut chain = if full == 0 { vec![] } else { links(&[full]) };
            let (mut rewritten, mut added) = (0, 0);
            for bytes in changes {
                rewritten += add(&mut chain, bytes, u64::MAX);
                added += bytes.max(SMALL / FAN as u64);
                let all: u64 = chain.iter().map(|link| link.bytes).sum();
                prop_assert!(chain.len() <= longest(all), "{} files of {all} bytes", chain.len());
                let changes: u64 = chain.iter().filter(|link| link.increment).map(|link| link.bytes).sum();
                prop_assert!(changes <= (all - changes).max(SMALL));
            }
            // Each byte is written at most a few times per level, and the full file once per as many changed bytes.
            let levels = u64::from(level(full + added)) + 1;
            prop_assert!(rewritten <= 4 * levels * added + full, "{rewritten} bytes for {added} in {levels} levels");
        }
    }
}
