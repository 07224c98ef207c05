//! Assignment of keys to subtasks: key → hash → key group → subtask.
//!
//! The arithmetic is that of Flink's `KeyGroupRangeAssignment` and `MathUtils.murmurHash`, so that another engine with
//! key groups can take over our state.
//! The test vectors were computed with Flink 2.3.0.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Upper bound of the max parallelism. Key groups are numbered in 16 bits; the bound is Flink's.
pub const MAX_PARALLELISM_MAX: u32 = 32_768;

/// Default max parallelism.
pub const MAX_PARALLELISM_DEFAULT: u32 = 128;

/// A key group, from 0 to `max_parallelism - 1`: the smallest unit of keyed state that moves when a job is rescaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyGroup(pub u16);

/// A range of key groups, inclusive at both ends, such as the one that a subtask owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// First key group.
    pub first: u16,
    /// Last key group, inclusive.
    pub last: u16,
}

/// Returns the low 32 bits of the XXH3-64 hash (seed 0) of the key's bytes.
///
/// Flink's arithmetic reads them as a signed number; the bits are the same.
#[must_use]
#[inline]
pub fn hash32(key: &[u8]) -> u32 {
    xxh3_64(key) as u32
}

/// Mixes the bits of a hash as Flink's `MathUtils.murmurHash` does; the result is never negative as an `i32`.
#[must_use]
#[inline]
pub fn murmur(code: u32) -> u32 {
    let mut h = code.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    h = h.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    h ^= 4;
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^= h >> 16;
    let signed = h as i32;
    if signed >= 0 {
        h
    } else if signed == i32::MIN {
        0
    } else {
        signed.unsigned_abs()
    }
}

/// Returns the key group of a key, given its hash.
#[must_use]
#[inline]
pub fn key_group(hash: u32, max_parallelism: u32) -> KeyGroup {
    let m = murmur(hash);
    // A division by a variable costs more than the rest of this function, and the default is a power of two.
    let group = if max_parallelism.is_power_of_two() {
        m & (max_parallelism - 1)
    } else {
        m % max_parallelism
    };
    KeyGroup(group as u16)
}

/// Returns the index of the subtask that owns a key group.
#[must_use]
#[inline]
pub fn subtask_of(group: KeyGroup, parallelism: u32, max_parallelism: u32) -> u32 {
    u32::from(group.0) * parallelism / max_parallelism
}

/// Returns the key groups that a subtask owns.
///
/// `parallelism` must be between 1 and `max_parallelism`, and `subtask` less than `parallelism`.
#[must_use]
pub fn range_of(subtask: u32, parallelism: u32, max_parallelism: u32) -> KeyGroupRange {
    let first = (u64::from(subtask) * u64::from(max_parallelism)).div_ceil(u64::from(parallelism));
    let last = ((u64::from(subtask) + 1) * u64::from(max_parallelism) - 1) / u64::from(parallelism);
    KeyGroupRange {
        first: first as u16,
        last: last as u16,
    }
}

impl KeyGroupRange {
    /// Returns the number of key groups in the range, at least 1.
    #[must_use]
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Returns true if the range includes `group`.
    #[must_use]
    #[inline]
    pub fn contains(self, group: KeyGroup) -> bool {
        group.0 >= self.first && group.0 <= self.last
    }

    /// Returns the key groups that are in both ranges, or `None` if there are none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// Iterates over the key groups in ascending order.
    pub fn iter(self) -> impl Iterator<Item = KeyGroup> {
        (self.first..=self.last).map(KeyGroup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn murmur_and_groups_are_flinks() {
        let vectors: [(i32, u32, u16, u16, u32); 11] = [
            (0, 593_689_054, 94, 478, 2),
            (1, 68_075_478, 86, 982, 2),
            (-1, 1_982_413_648, 80, 848, 1),
            (42, 1_134_849_565, 29, 541, 0),
            (97, 1_455_541_201, 81, 977, 1),
            (3105, 1_707_819_681, 33, 673, 0),
            (2_147_483_647, 1_653_689_534, 62, 190, 1),
            (-2_147_483_648, 1_718_298_732, 108, 108, 2),
            (123_456_789, 1_088_346_449, 81, 337, 1),
            (-987_654_321, 1_314_828_554, 10, 266, 0),
            (-559_038_737, 1_047_277_220, 36, 676, 0),
        ];
        for (hash, mixed, group128, group1024, subtask3) in vectors {
            assert_eq!(murmur(hash as u32), mixed, "murmur({hash})");
            assert_eq!(key_group(hash as u32, 128), KeyGroup(group128));
            assert_eq!(key_group(hash as u32, 1024), KeyGroup(group1024));
            assert_eq!(subtask_of(KeyGroup(group128), 3, 128), subtask3);
        }
    }

    #[test]
    fn keys_hash_as_the_contract_says() {
        let vectors: [(&[u8], i32, u16); 4] = [
            (b"", 953_390_274, 45),
            (b"a", 513_166_879, 88),
            (b"b", 1_155_040_319, 69),
            (&1u64.to_le_bytes(), 1_692_105_006, 69),
        ];
        for (key, hash, group) in vectors {
            assert_eq!(hash32(key) as i32, hash, "{key:?}");
            assert_eq!(key_group(hash32(key), 128), KeyGroup(group));
        }
    }

    #[test]
    fn ranges_are_flinks() {
        let ranges = |p| {
            (0..p)
                .map(|i| range_of(i, p, 128))
                .map(|r| (r.first, r.last))
                .collect::<Vec<_>>()
        };
        assert_eq!(ranges(2), [(0, 63), (64, 127)]);
        assert_eq!(ranges(3), [(0, 42), (43, 85), (86, 127)]);
        assert_eq!(ranges(5), [(0, 25), (26, 51), (52, 76), (77, 102), (103, 127)]);
        assert_eq!(
            ranges(7),
            [(0, 18), (19, 36), (37, 54), (55, 73), (74, 91), (92, 109), (110, 127)]
        );
    }

    proptest! {
        #[test]
        fn every_group_has_one_owner(max in 1u32..=2000, p in 1u32..=64) {
            let p = p.min(max);
            let mut next = 0u32;
            for subtask in 0..p {
                let range = range_of(subtask, p, max);
                prop_assert_eq!(u32::from(range.first), next);
                for group in range.iter() {
                    prop_assert_eq!(subtask_of(group, p, max), subtask);
                }
                next = u32::from(range.last) + 1;
            }
            prop_assert_eq!(next, max);
        }
    }
}
