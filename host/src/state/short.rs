//! Short byte strings, compared and copied in words.
//!
//! Most keys and values have a few bytes, for which a call into the C library costs more than the work itself.

use regraft_model::batch::BytesColumn;

/// Appends an item to a column.
#[inline]
pub fn push(column: &mut BytesColumn, item: &[u8]) {
    append(&mut column.data, item);
    column.ends.push(column.data.len() as u32);
}

/// Appends bytes to a vector.
#[inline]
pub fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        8..=16 => append_ends::<8>(to, bytes),
        4..8 => append_ends::<4>(to, bytes),
        2..4 => append_ends::<2>(to, bytes),
        1 => to.push(bytes[0]),
        _ => to.extend_from_slice(bytes),
    }
}

/// Appends between `N` and 2 × `N` bytes by copying the first and the last `N`, which may overlap.
#[inline(always)]
fn append_ends<const N: usize>(to: &mut Vec<u8>, bytes: &[u8]) {
    let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
        return;
    };
    let (end, len) = (to.len(), bytes.len());
    to.reserve(len);
    // SAFETY: `reserve` has made room for `len` bytes beyond the end, and `len` is at least `N`.
    // Since `len` is at most 2 × `N`, the two chunks cover all of the bytes that `set_len` adds.
    unsafe {
        let start = to.as_mut_ptr().add(end);
        start.cast::<[u8; N]>().write_unaligned(*first);
        start.add(len - N).cast::<[u8; N]>().write_unaligned(*last);
        to.set_len(end + len);
    }
}

/// Copies `from` to the beginning of `to`, which must be at least as long.
#[inline]
pub fn copy(to: &mut [u8], from: &[u8]) {
    let to = &mut to[..from.len()];
    let at = from.len();
    if at > 32 {
        to.copy_from_slice(from);
    } else if let (Some(first), Some(last)) = (from.first_chunk::<16>(), from.last_chunk::<16>()) {
        to[..16].copy_from_slice(first);
        to[at - 16..].copy_from_slice(last);
    } else if let (Some(first), Some(last)) = (from.first_chunk::<8>(), from.last_chunk::<8>()) {
        to[..8].copy_from_slice(first);
        to[at - 8..].copy_from_slice(last);
    } else {
        to.copy_from_slice(from);
    }
}

/// Returns true if both byte strings are equal.
#[inline]
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    if len != b.len() {
        return false;
    }
    let word = |bytes: &[u8], at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let half = |bytes: &[u8], at: usize| bytes[at..].first_chunk().map_or(0, |half| u32::from_le_bytes(*half));
    match len {
        8..=16 => word(a, 0) == word(b, 0) && word(a, len - 8) == word(b, len - 8),
        4..8 => half(a, 0) == half(b, 0) && half(a, len - 4) == half(b, len - 4),
        0..4 => a.iter().zip(b).all(|(a, b)| a == b),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_appended_whole() {
        let source: Vec<u8> = (1..=60).collect();
        for len in 0..source.len() {
            let mut to = vec![9];
            append(&mut to, &source[..len]);
            assert_eq!((to[0], &to[1..]), (9, &source[..len]));
            let mut to = vec![0; len + 1];
            copy(&mut to, &source[..len]);
            assert_eq!((&to[..len], to[len]), (&source[..len], 0));
        }
    }

    #[test]
    fn every_difference_is_seen() {
        for len in 0..40 {
            let a = vec![7; len];
            assert!(equal(&a, &a.clone()) && !equal(&a, &vec![7; len + 1]));
            for at in 0..len {
                let mut b = a.clone();
                b[at] = 8;
                assert!(!equal(&a, &b), "{len} bytes, byte {at}");
            }
        }
    }
}
