//! Thrift's compact encoding, of which Parquet's metadata is made. Reads without allocating, and refuses structures that are
//! nested deeply.

/// Depth of nested structs, lists and sets, of which Parquet's own metadata needs at most six.
const DEPTH_MAX: u32 = 16;

/// Types of values, as fields of structs and items of lists have them.
pub(super) const TRUE: u8 = 1;
pub(super) const FALSE: u8 = 2;
pub(super) const BYTE: u8 = 3;
pub(super) const I32: u8 = 5;
pub(super) const BINARY: u8 = 8;
pub(super) const LIST: u8 = 9;
const SET: u8 = 10;
pub(super) const STRUCT: u8 = 12;

/// Bytes in Thrift's compact encoding. Each method returns `None` where the bytes are not what is read.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

/// The fields of a struct that is being read.
#[derive(Debug, Default)]
pub(super) struct Fields {
    id: i16,
}

impl Fields {
    /// Reads the head of the next field. Returns its id and type, and `None` within at the end of the struct.
    #[allow(clippy::option_option, reason = "the outer one is that of all methods of the input")]
    pub(super) fn next(&mut self, input: &mut Input<'_>) -> Option<Option<(i16, u8)>> {
        let head = input.byte()?;
        let (kind, step) = (head & 0x0f, i16::from(head >> 4));
        if kind == 0 {
            return Some(None);
        }
        self.id = match step {
            0 => i16::try_from(input.integer()?).ok()?,
            step => self.id.checked_add(step)?,
        };
        // Ids of Parquet's fields are positive.
        (self.id > 0).then_some(Some((self.id, kind)))
    }
}

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_bytes(&mut self, count: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        (end <= self.bytes.len()).then(|| self.at = end)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Reads an integer in zigzag encoding.
    pub(super) fn integer(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// Reads the head of a list. Returns the type of its items, and their number.
    pub(super) fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Some((head & 0x0f, count))
    }

    /// Skips the value of a field.
    pub(super) fn skip(&mut self, kind: u8) -> Option<()> {
        self.skip_within(kind, DEPTH_MAX)
    }

    /// Skips a value with at most `depth` levels. Booleans of fields have no bytes.
    fn skip_within(&mut self, kind: u8, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            TRUE | FALSE => {}
            BYTE => self.skip_bytes(1)?,
            4..=6 => {
                self.varint()?;
            }
            7 => self.skip_bytes(8)?,
            BINARY => {
                let len = self.varint()?;
                self.skip_bytes(len)?;
            }
            LIST | SET => {
                let (kind, count) = self.list()?;
                for _ in 0..count {
                    match kind {
                        TRUE | FALSE => self.skip_bytes(1)?,
                        kind => self.skip_within(kind, depth)?,
                    }
                }
            }
            STRUCT => {
                let mut fields = Fields::default();
                while let Some((_, kind)) = fields.next(self)? {
                    self.skip_within(kind, depth)?;
                }
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shallow_structs_with_positive_ids_are_skipped() {
        let skipped = |bytes: &[u8]| Input::new(bytes).skip(STRUCT);
        let nested = |levels: usize| [vec![0x1c; levels], vec![0; levels + 1]].concat();
        assert_eq!(skipped(&nested(DEPTH_MAX as usize - 1)), Some(()));
        assert_eq!(skipped(&nested(DEPTH_MAX as usize)), None);
        assert_eq!(skipped(&[0x1c; 100_000]), None);
        assert_eq!(skipped(&[0x19; 100_000]), None);
        assert_eq!(skipped(&[0x19, 0xf9].repeat(50_000)), None);
        // Ids 0 and -1, written out.
        assert_eq!(skipped(&[0x05, 0x00, 0x02, 0x00]), None);
        assert_eq!(skipped(&[0x05, 0x01, 0x02, 0x00]), None);
        assert_eq!(skipped(&[0x05, 0x02, 0x02, 0x00]), Some(()));
        assert_eq!(skipped(&[0x15]), None);
    }
}
