//! Chains of incremental files: which neighbours are merged, and when. Pure.
//!
//! The files of a state and subtask are a chain, oldest first: a full file, or nothing, and then increments, each with what
//! changed since the one before. Each checkpoint adds one. Merging keeps two things in bounds: how many files a restore reads,
//! and how many bytes. Files are sorted by size into levels, each [`FAN`] times the one before; when [`FAN`] neighbours are in
//! one level they become one file of a greater level. So every row is rewritten at most about once a level, which is the
//! logarithm of state by increment: the tiering of log-structured merge trees, for neighbours only, since their order counts.

use std::ops::Range;

/// So many neighbours of a level become one; also the ratio of levels.
pub const FAN: usize = 4;

/// Files up to this are all of the least level, in bytes: what is smaller costs a store as much.
pub const SMALL: u64 = 64 << 10;

/// A chain that is longer than this, since merging has failed or cannot keep up, is begun anew with a full file.
pub const LONGEST: usize = 48;

/// A file of a chain, as far as merging is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its size.
    pub bytes: u64,
    /// Whether it holds changes only.
    pub increment: bool,
}

/// Which neighbours to merge into one file; none: the chain is as short as it need be.
///
/// A merge that begins with the first file of the chain makes a full one: there is nothing that it could be an increment to.
#[must_use]
pub fn plan_merge(chain: &[Link]) -> Option<Range<usize>> {
    // Changes that are as many bytes as what they change: then a restore reads at most twice what there is.
    let base = chain
        .first()
        .filter(|link| !link.increment)
        .map_or(0, |link| link.bytes);
    let changes: u64 = chain.iter().filter(|link| link.increment).map(|link| link.bytes).sum();
    if chain.len() > 1 && changes > base.max(SMALL) {
        return Some(0..chain.len());
    }
    // From the newest on. A small file before a greater one counts as great: levels never grow towards the newest.
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

/// At which level a file of that size is, from 0.
fn level(bytes: u64) -> u32 {
    let mut level = 0;
    let mut most = SMALL;
    while bytes > most {
        level += 1;
        most = most.saturating_mul(FAN as u64);
    }
    level
}

/// How many files a chain has at most, when its merges keep up and it holds so many bytes.
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

    /// Adds a file and merges until nothing is to be merged; answers the bytes that were written in doing so.
    fn add(chain: &mut Vec<Link>, bytes: u64, keys: u64) -> u64 {
        chain.push(Link { bytes, increment: true });
        let mut written = 0;
        while let Some(window) = plan_merge(chain) {
            let sum: u64 = chain[window.clone()].iter().map(|link| link.bytes).sum();
            // Later rows replace earlier ones: never more than all keys.
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
            // Each byte at most a few times a level, and the full file for as many changed bytes.
            let levels = u64::from(level(full + added)) + 1;
            prop_assert!(rewritten <= 4 * levels * added + full, "{rewritten} bytes for {added} in {levels} levels");
        }
    }
}
