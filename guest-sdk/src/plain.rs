//! A shorter way for values that are nothing but numbers and truth values: the same bytes as `codec`'s, without serde.
//!
//! Reading gives up where bytes are not what they should be, and the codec then says what is wrong with them.

/// Rest of a value that is being read.
pub struct Parts<'a>(&'a [u8]);

/// A value that is being written, of which every part has its room already.
pub struct Room<'a> {
    to: &'a mut Vec<u8>,
}

/// The most bytes that a part has.
const PART_MAX: usize = 9;

/// A part that can be read and written so.
pub trait Plain: Copy {
    /// Reads it, if it is one.
    fn read(from: &mut Parts<'_>) -> Option<Self>;

    /// Writes it. There must be room.
    fn write(self, to: &mut Room<'_>);
}

/// Reads a value by its parts, if it takes up all of `bytes`.
#[inline(always)]
pub fn read<T>(bytes: &[u8], parts: impl FnOnce(&mut Parts<'_>) -> Option<T>) -> Option<T> {
    let mut left = Parts(bytes);
    let value = parts(&mut left)?;
    left.0.is_empty().then_some(value)
}

/// Writes a value of at most `count` parts.
#[inline(always)]
pub fn write(to: &mut Vec<u8>, count: usize, parts: impl FnOnce(&mut Room<'_>)) {
    // One more, so that the last part too can be written as a whole word.
    to.reserve((count + 1) * PART_MAX);
    parts(&mut Room { to });
}

/// Reads bytes behind their number, if that is all.
pub fn read_bytes(bytes: &[u8]) -> Option<&[u8]> {
    let mut left = Parts(bytes);
    let len = left.variable()?;
    (len == left.0.len() as u64).then_some(left.0)
}

/// Writes bytes behind their number.
pub fn write_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    write(to, 1, |room| room.variable(bytes.len() as u64));
    to.extend_from_slice(bytes);
}

impl Parts<'_> {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*part)
    }

    /// An unsigned integer of variable length: one byte up to 250, else a byte that says how many there are.
    #[inline(always)]
    fn variable(&mut self) -> Option<u64> {
        match self.take::<1>()?[0] {
            251 => self.take().map(u16::from_le_bytes).map(u64::from),
            252 => self.take().map(u32::from_le_bytes).map(u64::from),
            253 => self.take().map(u64::from_le_bytes),
            254.. => None,
            small => Some(u64::from(small)),
        }
    }
}

impl Room<'_> {
    /// Appends the first `len` bytes of a word behind `first`.
    #[inline(always)]
    fn push(&mut self, first: u8, word: u64, len: usize) {
        let at = self.to.len();
        assert!(self.to.capacity() - at >= PART_MAX, "the parts of a value have room");
        // SAFETY: there is room for `PART_MAX` bytes behind `at`, and the first `1 + len` of them become the vector's.
        unsafe {
            let place = self.to.as_mut_ptr().add(at);
            *place = first;
            place.add(1).cast::<u64>().write_unaligned(word.to_le());
            self.to.set_len(at + 1 + len);
        }
    }

    #[inline(always)]
    fn variable(&mut self, value: u64) {
        match value {
            0..=250 => self.push(value as u8, 0, 0),
            251..=0xffff => self.push(251, value, 2),
            0x1_0000..=0xffff_ffff => self.push(252, value, 4),
            _ => self.push(253, value, 8),
        }
    }
}

macro_rules! unsigned {
    ($($ty:ident)+) => {$(
        impl Plain for $ty {
            #[inline(always)]
            fn read(from: &mut Parts<'_>) -> Option<Self> {
                from.variable()?.try_into().ok()
            }
            #[inline(always)]
            fn write(self, to: &mut Room<'_>) {
                to.variable(u64::from(self));
            }
        }
    )+};
}

/// Signed integers have their sign in the lowest bit.
macro_rules! signed {
    ($($ty:ident $of:ident)+) => {$(
        impl Plain for $ty {
            #[inline(always)]
            fn read(from: &mut Parts<'_>) -> Option<Self> {
                let bits: $of = from.variable()?.try_into().ok()?;
                Some((bits >> 1) as $ty ^ -((bits & 1) as $ty))
            }
            #[inline(always)]
            fn write(self, to: &mut Room<'_>) {
                to.variable(u64::from(((self << 1) ^ (self >> ($ty::BITS - 1))) as $of));
            }
        }
    )+};
}

unsigned!(u16 u32 u64);
signed!(i16 u16 i32 u32 i64 u64);

impl Plain for u8 {
    #[inline(always)]
    fn read(from: &mut Parts<'_>) -> Option<Self> {
        from.take::<1>().map(|[byte]| byte)
    }
    #[inline(always)]
    fn write(self, to: &mut Room<'_>) {
        to.push(self, 0, 0);
    }
}

impl Plain for i8 {
    #[inline(always)]
    fn read(from: &mut Parts<'_>) -> Option<Self> {
        u8::read(from).map(|byte| byte as i8)
    }
    #[inline(always)]
    fn write(self, to: &mut Room<'_>) {
        to.push(self as u8, 0, 0);
    }
}

impl Plain for bool {
    #[inline(always)]
    fn read(from: &mut Parts<'_>) -> Option<Self> {
        match u8::read(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    #[inline(always)]
    fn write(self, to: &mut Room<'_>) {
        to.push(u8::from(self), 0, 0);
    }
}

impl Plain for f64 {
    #[inline(always)]
    fn read(from: &mut Parts<'_>) -> Option<Self> {
        from.take().map(f64::from_le_bytes)
    }
    #[inline(always)]
    fn write(self, to: &mut Room<'_>) {
        let bits = self.to_bits();
        to.push(bits as u8, bits >> 8, 7);
    }
}

impl Plain for f32 {
    #[inline(always)]
    fn read(from: &mut Parts<'_>) -> Option<Self> {
        from.take().map(f32::from_le_bytes)
    }
    #[inline(always)]
    fn write(self, to: &mut Room<'_>) {
        let bits = self.to_bits();
        to.push(bits as u8, u64::from(bits >> 8), 3);
    }
}
