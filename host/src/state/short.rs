//! Short byte strings, compared and copied in words.
//!
//! Most keys and values have a few bytes, for which a call into the C library costs more than the work itself.

use std::ops::Range;

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

/// Number of bytes of a [`head`].
pub const HEAD: usize = 16;

/// For each length up to [`HEAD`], a mask of that many bytes.
const MASKS: [u128; HEAD + 1] = {
    let mut masks = [u128::MAX; HEAD + 1];
    let mut len = 0;
    while len < HEAD {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

/// Returns the first [`HEAD`] bytes of the item at `range` in `data`, little-endian, with zeros for what it is shorter.
///
/// It reads over the end of an item where more data follows, so that it takes the same instructions for every length: the
/// lengths of keys are hard to predict.
#[inline(always)]
#[must_use]
pub fn head(data: &[u8], range: &Range<usize>) -> u128 {
    let mask = MASKS[range.len().min(HEAD)];
    let tail = &data[range.start..];
    if let Some(window) = tail.first_chunk() {
        return u128::from_le_bytes(*window) & mask;
    }
    let mut window = [0; HEAD];
    window[..tail.len()].copy_from_slice(tail);
    u128::from_le_bytes(window) & mask
}

/// Number of bytes that [`gather`] copies at once.
const WINDOW: usize = 32;

/// Appends the items at `rows` of a column to another column.
///
/// # Panics
/// Panics if a row is not less than the length of `from`.
pub fn gather(to: &mut BytesColumn, from: &BytesColumn, rows: &[u32]) {
    let bytes: usize = rows.iter().map(|row| from.range(*row as usize).len()).sum();
    // Room for the last window, which may be longer than its item.
    to.data.reserve(bytes + WINDOW);
    to.ends.reserve(rows.len());
    let mut end = to.data.len();
    for &row in rows {
        let range = from.range(row as usize);
        let (len, item) = (range.len(), &from.data[range.start..]);
        // SAFETY: `end` has grown by the lengths of the items before this one, whose sum with those that follow is `bytes`.
        // So there is room for `len` bytes and a window at `end`.
        unsafe {
            let start = to.data.as_mut_ptr().add(end);
            match item.first_chunk::<WINDOW>() {
                Some(window) if len <= WINDOW => start.cast::<[u8; WINDOW]>().write_unaligned(*window),
                _ => start.copy_from_nonoverlapping(item[..len].as_ptr(), len),
            }
        }
        end += len;
        to.ends.push(end as u32);
    }
    // SAFETY: all bytes up to `end` have been written, and `end` is within the capacity.
    unsafe { to.data.set_len(end) };
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
    fn every_difference_in_a_head_is_seen() {
        // Behind other items, and at the end of the data.
        for slack in [0, 3, 40] {
            for len in 0..20 {
                let data = vec![7; len + slack];
                let own = head(&data, &(0..len));
                assert_eq!(own, head(&vec![7; len], &(0..len)), "what follows does not count");
                for at in 0..len.min(HEAD) {
                    let mut other = data.clone();
                    other[at] = 8;
                    assert_ne!(own, head(&other, &(0..len)), "{len} bytes, byte {at}");
                }
            }
        }
    }

    #[test]
    fn every_item_is_gathered_whole() {
        let items: Vec<Vec<u8>> = (0..70u8).map(|len| (0..len).map(|i| i ^ len).collect()).collect();
        let mut from = BytesColumn::default();
        for item in &items {
            from.push(item);
        }
        let rows: Vec<u32> = (0..70).rev().chain([3, 3, 69, 0]).collect();
        let mut to = BytesColumn::default();
        to.push(b"before");
        gather(&mut to, &from, &rows);
        gather(&mut to, &from, &[]);
        assert_eq!(to.get(0), b"before");
        let gathered: Vec<&[u8]> = to.iter().skip(1).collect();
        let expected: Vec<&[u8]> = rows.iter().map(|row| items[*row as usize].as_slice()).collect();
        assert_eq!(gathered, expected);
    }
}
