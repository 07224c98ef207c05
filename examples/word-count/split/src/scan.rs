//! Finds the words of a line, 64 bytes at a time.
//!
//! The letters of a block become the bits of a mask, and a word is a run of ones, found by counting zeros. Most words
//! are then written by one load and one store of 16 bytes. The masks are vector code with wasm's `simd128` and on
//! x86-64, and a loop elsewhere; the tests hold both against a splitter that takes byte by byte.

use regraft_sdk::Writer;

const LANES: usize = 16;
const BLOCK: usize = 64;

/// A word of a line, as it stands there.
pub(crate) struct Word<'a> {
    line: &'a [u8],
    start: usize,
    end: usize,
}

impl Word<'_> {
    /// Writes the word, lowercased.
    #[inline(always)]
    pub(crate) fn write_to(&self, to: &mut Writer<'_>) {
        let mut at = self.start;
        loop {
            let lanes = lowered(lanes_at(self.line, at));
            let len = self.end - at;
            to.write_block(lanes, len.min(LANES));
            if len <= LANES {
                return;
            }
            at += LANES;
        }
    }
}

/// Calls `each` for every word of the line, in order.
#[inline(always)]
pub(crate) fn words<'a>(line: &'a [u8], mut each: impl FnMut(Word<'a>)) {
    let mut open = None;
    let mut at = 0;
    while at < line.len() {
        let letters = letters_at(line, at);
        let before = letters << 1 | u64::from(open.is_some());
        let mut starts = letters & !before;
        let mut ends = !letters & before;
        while ends != 0 {
            let start = open.take().unwrap_or_else(|| {
                let start = at + starts.trailing_zeros() as usize;
                starts &= starts - 1;
                start
            });
            each(Word {
                line,
                start,
                end: at + ends.trailing_zeros() as usize,
            });
            ends &= ends - 1;
        }
        if starts != 0 {
            open = Some(at + starts.trailing_zeros() as usize);
        }
        at += BLOCK;
    }
    if let Some(start) = open {
        each(Word {
            line,
            start,
            end: line.len(),
        });
    }
}

/// The mask of the letters among the 64 bytes from `at`: bit `i` for byte `at + i`. Beyond the line there are none.
#[inline(always)]
fn letters_at(line: &[u8], at: usize) -> u64 {
    if let Some(block) = line[at..].first_chunk::<BLOCK>() {
        let (lanes, _) = block.as_chunks::<LANES>();
        lanes
            .iter()
            .rev()
            .fold(0, |mask, lanes| mask << LANES | letters(*lanes))
    } else {
        let steps = (line.len() - at).div_ceil(LANES);
        (0..steps).rev().fold(0, |mask, step| {
            mask << LANES | letters(lanes_at(line, at + step * LANES))
        })
    }
}

/// The 16 bytes from `at`; zeros beyond the line.
#[inline(always)]
fn lanes_at(line: &[u8], at: usize) -> [u8; LANES] {
    if let Some(lanes) = line[at..].first_chunk::<LANES>() {
        *lanes
    } else if let Some(lanes) = line.last_chunk::<LANES>() {
        shifted(*lanes, at + LANES - line.len())
    } else {
        let mut lanes = [0; LANES];
        for (to, from) in lanes.iter_mut().zip(&line[at..]) {
            *to = *from;
        }
        lanes
    }
}

/// Returns letters in lower case. Other bytes become something else.
#[inline(always)]
fn lowered(lanes: [u8; LANES]) -> [u8; LANES] {
    lanes.map(|byte| byte | 0x20)
}

/// Without the first `by` bytes, and zeros at the end. `by` is below 16.
#[cfg(all(target_family = "wasm", target_feature = "simd128"))]
#[inline(always)]
fn shifted(lanes: [u8; LANES], by: usize) -> [u8; LANES] {
    use core::arch::wasm32::{i8x16, i8x16_add, i8x16_splat, i8x16_swizzle};
    let indices = i8x16_add(
        i8x16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        i8x16_splat(by as i8),
    );
    simd::bytes(i8x16_swizzle(simd::vector(lanes), indices))
}

/// Without the first `by` bytes, and zeros at the end. `by` is below 16.
#[cfg(not(all(target_family = "wasm", target_feature = "simd128")))]
#[inline(always)]
fn shifted(lanes: [u8; LANES], by: usize) -> [u8; LANES] {
    (u128::from_le_bytes(lanes) >> (by * 8)).to_le_bytes()
}

#[cfg(all(target_family = "wasm", target_feature = "simd128"))]
mod simd {
    //! Between 16 bytes and a vector, which are the same bits.
    use core::arch::wasm32::v128;

    #[inline(always)]
    pub(super) fn vector(lanes: [u8; 16]) -> v128 {
        // SAFETY: both are 16 bytes, and every bit pattern is valid in both.
        unsafe { core::mem::transmute(lanes) }
    }

    #[inline(always)]
    pub(super) fn bytes(vector: v128) -> [u8; 16] {
        // SAFETY: as above.
        unsafe { core::mem::transmute(vector) }
    }
}

/// The mask of the letters.
#[cfg(all(target_family = "wasm", target_feature = "simd128"))]
#[inline(always)]
fn letters(lanes: [u8; LANES]) -> u64 {
    use core::arch::wasm32::{i8x16_bitmask, u8x16_lt, u8x16_splat, u8x16_sub};
    let from_a = u8x16_sub(simd::vector(lowered(lanes)), u8x16_splat(b'a'));
    u64::from(i8x16_bitmask(u8x16_lt(from_a, u8x16_splat(26))))
}

/// The mask of the letters.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn letters(lanes: [u8; LANES]) -> u64 {
    use core::arch::x86_64::{__m128i, _mm_cmplt_epi8, _mm_movemask_epi8, _mm_set1_epi8, _mm_sub_epi8};
    // SAFETY: SSE2 is part of x86-64; both types are 16 bytes, and every bit pattern is valid in both.
    unsafe {
        let lower: __m128i = core::mem::transmute(lowered(lanes));
        // SSE2 compares signed bytes only, so the range 'a'..='z' is moved to the lowest ones.
        let moved = _mm_sub_epi8(lower, _mm_set1_epi8((b'a' + 128) as i8));
        _mm_movemask_epi8(_mm_cmplt_epi8(moved, _mm_set1_epi8(i8::MIN + 26))) as u64
    }
}

/// The mask of the letters.
#[cfg(not(any(target_arch = "x86_64", all(target_family = "wasm", target_feature = "simd128"))))]
#[inline(always)]
fn letters(lanes: [u8; LANES]) -> u64 {
    letters_by_byte(lanes)
}

/// The mask of the letters, byte by byte.
#[cfg(any(
    test,
    not(any(target_arch = "x86_64", all(target_family = "wasm", target_feature = "simd128")))
))]
fn letters_by_byte(lanes: [u8; LANES]) -> u64 {
    lanes
        .iter()
        .rev()
        .fold(0, |mask, byte| mask << 1 | u64::from(byte.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random bytes, repeatable: SplitMix64.
    struct Bytes(u64);

    impl Bytes {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = self.0;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }
    }

    fn expected(line: &[u8]) -> Vec<(usize, usize)> {
        let mut words = Vec::new();
        let mut start = None;
        for (at, byte) in line.iter().chain(b" ").enumerate() {
            match (byte.is_ascii_alphabetic(), start) {
                (true, None) => start = Some(at),
                (false, Some(from)) => {
                    words.push((from, at));
                    start = None;
                }
                _ => {}
            }
        }
        words
    }

    #[test]
    fn masks_agree_on_every_byte() {
        for byte in 0..=255u8 {
            for place in 0..LANES {
                let mut lanes = [b' '; LANES];
                lanes[place] = byte;
                assert_eq!(letters(lanes), letters_by_byte(lanes), "{byte} at {place}");
            }
        }
    }

    #[test]
    fn words_of_random_lines_are_those_found_byte_by_byte() {
        let mut random = Bytes(1);
        for round in 0..20_000 {
            let len = (random.next() % 200) as usize;
            // From all bytes to nearly only letters, so that words of all lengths come up.
            let share = random.next() % 64;
            let line: Vec<u8> = (0..len)
                .map(|_| match random.next() {
                    x if x % 64 < share => b"azAZbyMn"[(x >> 32) as usize % 8],
                    x if x % 2 == 0 => b"@[`{ \0\xc1\xe1"[(x >> 32) as usize % 8],
                    x => (x >> 40) as u8,
                })
                .collect();
            let mut found = Vec::new();
            words(&line, |word| found.push((word.start, word.end)));
            assert_eq!(found, expected(&line), "round {round}");
        }
    }
}
