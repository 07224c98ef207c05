//! Appending to columns, cheaply on wasm.
//!
//! A bulk copy of a few bytes is a call into the runtime there, so short copies are done in words: two overlapping
//! loads and stores cover every length up to twice the width of a word.

/// Appends `bytes` to `to`.
#[inline(always)]
pub(crate) fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    let len = bytes.len();
    to.reserve(len);
    let old = to.len();
    // SAFETY: `reserve` has made room for `len` bytes beyond `old`, and `bytes` cannot overlap a vector that is
    // borrowed mutably. `copy` initialises all `len` of them before the length says so.
    unsafe {
        copy(bytes.as_ptr(), to.as_mut_ptr().add(old), len);
        to.set_len(old + len);
    }
}

/// Copies `len` bytes in words where they are few.
///
/// # Safety
///
/// As `std::ptr::copy_nonoverlapping`.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    /// Copies the first and the last `size_of::<W>()` bytes, which may overlap.
    #[inline(always)]
    unsafe fn ends<W: Copy>(from: *const u8, to: *mut u8, len: usize) {
        let last = len - size_of::<W>();
        // SAFETY: the caller has `len >= size_of::<W>()` bytes at both places.
        unsafe {
            let a = from.cast::<W>().read_unaligned();
            let b = from.add(last).cast::<W>().read_unaligned();
            to.cast::<W>().write_unaligned(a);
            to.add(last).cast::<W>().write_unaligned(b);
        }
    }
    // SAFETY: each arm touches `len` bytes only, by its condition.
    unsafe {
        match len {
            0 => {}
            1 => *to = *from,
            2..4 => ends::<u16>(from, to, len),
            4..8 => ends::<u32>(from, to, len),
            8..=16 => ends::<u64>(from, to, len),
            17..=64 => {
                let mut at = 0;
                while at + 16 < len {
                    let pair = from.add(at).cast::<[u64; 2]>().read_unaligned();
                    to.add(at).cast::<[u64; 2]>().write_unaligned(pair);
                    at += 16;
                }
                let pair = from.add(len - 16).cast::<[u64; 2]>().read_unaligned();
                to.add(len - 16).cast::<[u64; 2]>().write_unaligned(pair);
            }
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// A byte string that is being written: a key or a value of a record that is being emitted.
///
/// Given by [`Ctx::emit_with`](crate::Ctx::emit_with); what is appended goes straight into the output column.
pub struct Writer<'a> {
    pub(crate) to: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Appends `bytes`.
    #[inline(always)]
    pub fn write(&mut self, bytes: &[u8]) {
        append(self.to, bytes);
    }

    /// Appends one byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        self.to.push(byte);
    }

    /// Appends the first `len` bytes of `block`: one store, whatever `len` is, so the fastest way to append a short
    /// string that was computed 16 bytes at a time.
    ///
    /// # Panics
    ///
    /// When `len` is more than 16.
    #[inline(always)]
    pub fn write_block(&mut self, block: [u8; 16], len: usize) {
        assert!(len <= 16, "a block has 16 bytes");
        self.to.reserve(16);
        let old = self.to.len();
        // SAFETY: `reserve` has made room for 16 bytes beyond `old`, and the first `len` of them become the vector's.
        unsafe {
            self.to.as_mut_ptr().add(old).cast::<[u8; 16]>().write_unaligned(block);
            self.to.set_len(old + len);
        }
    }
}

/// Returns true if all bytes are ASCII. Written so that it becomes vector code.
pub(crate) fn is_ascii(bytes: &[u8]) -> bool {
    let mut blocks = bytes.chunks_exact(64);
    let whole = blocks
        .by_ref()
        .all(|block| block.iter().fold(0, |all, byte| all | byte) < 0x80);
    whole && blocks.remainder().is_ascii()
}

/// Item `index` of a column.
///
/// # Panics
///
/// When the column's ends are wrong, which the host has promised they are not.
#[inline(always)]
pub(crate) fn item<'a>(data: &'a [u8], ends: &[u32], index: usize) -> &'a [u8] {
    let end = ends[index] as usize;
    let start = if index == 0 { 0 } else { ends[index - 1] as usize };
    &data[start..end]
}

/// The index of the first item that is not UTF-8.
///
/// The column is looked at as a whole: only where it is not all ASCII are the items' bounds looked at, too.
pub(crate) fn first_not_utf8(data: &[u8], ends: &[u32]) -> Option<usize> {
    if is_ascii(data) {
        return None;
    }
    if let Ok(text) = std::str::from_utf8(data)
        && ends.iter().all(|end| text.is_char_boundary(*end as usize))
    {
        return None;
    }
    (0..ends.len()).find(|index| std::str::from_utf8(item(data, ends, *index)).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_every_length() {
        let source: Vec<u8> = (0..200u8).collect();
        for len in 0..source.len() {
            let mut to = vec![7];
            append(&mut to, &source[..len]);
            assert_eq!(to[0], 7);
            assert_eq!(&to[1..], &source[..len]);
        }
    }

    #[test]
    fn a_block_keeps_its_first_bytes() {
        let mut to = Vec::new();
        let mut writer = Writer { to: &mut to };
        writer.write_block(*b"0123456789abcdef", 3);
        writer.write_block(*b"0123456789abcdef", 16);
        writer.write_block(*b"0123456789abcdef", 0);
        assert_eq!(to, b"0120123456789abcdef");
    }

    #[test]
    fn finds_text_cut_within_a_character() {
        let data = "aé".as_bytes();
        assert_eq!(first_not_utf8(data, &[1, 3]), None);
        assert_eq!(first_not_utf8(data, &[2, 3]), Some(0));
        assert_eq!(first_not_utf8(&[b'a', 0xff], &[1, 2]), Some(1));
    }
}
