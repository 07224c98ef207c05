//! The records of W2 and W3, and the arithmetic of W3, as plain functions.
//!
//! `peers/timely` compiles this file too, so it uses the standard library alone. `peers/flink` repeats it in Java.

/// Bytes of a value.
pub(crate) const VALUE: usize = 32;
/// Seed of the records.
pub(crate) const SEED: u64 = 42;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns a record as the host's generator makes it: key and value. `offset` counts the records of its split.
#[inline(always)]
pub(crate) fn record(split: u64, offset: u64, keys: u64) -> (u64, [u8; VALUE]) {
    let base = mix(SEED ^ mix(split ^ mix(offset)));
    let key = ((u128::from(mix(base ^ GOLDEN)) * u128::from(keys)) >> 64) as u64;
    let mut state = base ^ GOLDEN.wrapping_mul(2);
    let mut value = [0; VALUE];
    for word in value.as_chunks_mut::<8>().0 {
        state = state.wrapping_add(GOLDEN);
        *word = mix(state).to_le_bytes();
    }
    (key, value)
}

/// Returns the number of records of one split.
pub(crate) const fn split_rows(rows: u64, splits: u64, split: u64) -> u64 {
    rows / splits + if split < rows % splits { 1 } else { 0 }
}

/// Returns the first eight bytes of a value as a number.
#[inline(always)]
pub(crate) fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.first_chunk().copied().unwrap_or_default())
}

/// W3, map: replaces the number of a value by three times the number plus the key.
#[inline(always)]
pub(crate) fn map(key: u64, value: &mut [u8; VALUE]) {
    let number = number(value).wrapping_mul(3).wrapping_add(key);
    value[..8].copy_from_slice(&number.to_le_bytes());
}

/// W3, filter: returns true for the half of the values that is kept.
#[inline(always)]
pub(crate) fn keeps(value: &[u8]) -> bool {
    number(value) >> 63 == 0
}

/// The finaliser of SplitMix64.
#[inline(always)]
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
