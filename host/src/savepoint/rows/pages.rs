//! The heads of the pages of a column chunk, which are read before any page is unpacked: `parquet` makes room for whatever
//! they claim.
//!
//! A head is a struct in Thrift's compact encoding (`PageHeader` in the Parquet format).

use super::thrift::{Fields, Input, STRUCT};

/// Bytes that a value of a dictionary takes in memory, at most.
const DICTIONARY_CELL: u64 = 32;
/// Type of a page with a dictionary.
const DICTIONARY: i64 = 2;

/// Encodings that a reader takes: PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED, RLE_DICTIONARY. Decoders of others make room
/// for numbers that they find in the page.
const ENCODINGS: [i64; 5] = [0, 2, 3, 4, 8];

/// Returns the memory that the pages of a column chunk take when they are unpacked, in bytes.
///
/// # Errors
/// Returns the mismatch, as a clause, if a page is not within the chunk, or its head claims what cannot be.
pub(super) fn unpacked_bytes(chunk: &[u8]) -> Result<u64, String> {
    let (mut at, mut unpacked) = (0, 0u64);
    while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
        let mut input = Input::new(rest);
        let head = Head::read(&mut input).ok_or_else(|| format!("no head of a page at byte {at} of a column"))?;
        let [bytes, packed] = [head.unpacked, head.packed].map(|bytes| u64::try_from(bytes).ok());
        let (Some(bytes), Some(packed)) = (bytes, packed) else {
            return Err(format!("the page at byte {at} of a column claims a negative size"));
        };
        let left = (rest.len() - input.at) as u64;
        if packed > left {
            return Err(format!(
                "the page at byte {at} of a column claims {packed} bytes, and {left} are left"
            ));
        }
        unpacked = unpacked.saturating_add(bytes).saturating_add(head.check(bytes)?);
        at += input.at + usize::try_from(packed).unwrap_or(rest.len());
    }
    Ok(unpacked)
}

/// The head of a page.
#[derive(Debug, Default)]
struct Head {
    kind: i64,
    unpacked: i64,
    packed: i64,
    /// Number of values and encoding, of a data page, a dictionary, and a data page of the second version.
    of_kind: [(i64, i64); 3],
}

impl Head {
    fn read(input: &mut Input<'_>) -> Option<Self> {
        let mut head = Self {
            unpacked: -1,
            packed: -1,
            ..Self::default()
        };
        let mut fields = Fields::default();
        while let Some((id, kind)) = fields.next(input)? {
            match (id, kind) {
                (1, 4..=6) => head.kind = input.integer()?,
                (2, 4..=6) => head.unpacked = input.integer()?,
                (3, 4..=6) => head.packed = input.integer()?,
                (5, STRUCT) => head.of_kind[0] = Self::of_kind(input, 2)?,
                (7, STRUCT) => head.of_kind[1] = Self::of_kind(input, 2)?,
                (8, STRUCT) => head.of_kind[2] = Self::of_kind(input, 4)?,
                (_, kind) => input.skip(kind)?,
            }
        }
        Some(head)
    }

    /// Reads the struct of a type of page: its number of values, and the encoding, which is in field `encoding`.
    fn of_kind(input: &mut Input<'_>, encoding: i16) -> Option<(i64, i64)> {
        let (mut fields, mut found) = (Fields::default(), (0, 0));
        while let Some((id, kind)) = fields.next(input)? {
            match (id, kind) {
                (1, 4..=6) => found.0 = input.integer()?,
                (id, 4..=6) if id == encoding => found.1 = input.integer()?,
                (_, kind) => input.skip(kind)?,
            }
        }
        Some(found)
    }

    /// Checks a head whose page unpacks to `bytes` bytes. Returns the memory that its values take beside them.
    fn check(&self, bytes: u64) -> Result<u64, String> {
        let of_kind = match self.kind {
            0 => Some(self.of_kind[0]),
            DICTIONARY => Some(self.of_kind[1]),
            3 => Some(self.of_kind[2]),
            _ => None,
        };
        let Some((values, _)) = of_kind.filter(|(_, encoding)| ENCODINGS.contains(encoding)) else {
            let (kind, encoding) = (self.kind, of_kind.map_or(-1, |(_, encoding)| encoding));
            return Err(format!(
                "a page of type {kind} with encoding {encoding}, expected data or a dictionary, encoded plainly or by a dictionary"
            ));
        };
        if self.kind != DICTIONARY {
            return Ok(0);
        }
        // The narrowest values of a dictionary have four bytes.
        let fits = u64::try_from(values).ok().filter(|values| *values <= bytes / 4);
        let fits = fits.ok_or_else(|| format!("a dictionary claims {values} values in {bytes} bytes"))?;
        Ok(fits * DICTIONARY_CELL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a page: its type, sizes, and the struct of its type with a number of values and an encoding.
    fn head(kind: u8, unpacked: u32, packed: u32, values: u32, encoding: u8) -> Vec<u8> {
        let varint = |mut number: u64| {
            let mut bytes = vec![];
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
            bytes
        };
        let zigzag = |number: u32| varint(u64::from(number) << 1);
        let own: u8 = if kind == 2 { 0x4c } else { 0x2c };
        let mut bytes = vec![0x15];
        bytes.extend(zigzag(u32::from(kind)));
        bytes.push(0x15);
        bytes.extend(zigzag(unpacked));
        bytes.push(0x15);
        bytes.extend(zigzag(packed));
        bytes.push(own);
        bytes.push(0x15);
        bytes.extend(zigzag(values));
        bytes.push(0x15);
        bytes.extend(zigzag(u32::from(encoding)));
        bytes.extend([0, 0]);
        bytes
    }

    #[test]
    fn claims_are_added_and_checked() {
        let page = |head: Vec<u8>, packed: usize| [head, vec![7; packed]].concat();
        let two = [page(head(0, 1000, 3, 5, 0), 3), page(head(0, 1 << 30, 2, 5, 0), 2)].concat();
        assert_eq!(unpacked_bytes(&two), Ok(1000 + (1 << 30)));
        assert_eq!(unpacked_bytes(&page(head(2, 40, 3, 10, 0), 3)), Ok(40 + 320));
        assert_eq!(unpacked_bytes(&[]), Ok(0));
        for (wrong, said) in [
            (
                page(head(2, 40, 3, 11, 0), 3),
                "a dictionary claims 11 values in 40 bytes",
            ),
            (page(head(0, 10, 4, 5, 0), 3), "claims 4 bytes, and 3 are left"),
            (page(head(0, 10, 3, 5, 7), 3), "with encoding 7, expected data"),
            (page(head(1, 10, 3, 5, 0), 3), "a page of type 1"),
            (vec![0x15], "no head of a page at byte 0"),
            (vec![0x19, 0xf5, 0xff, 0xff, 0xff, 0x0f], "no head of a page at byte 0"),
            // Structs in structs, whose fields have the id 0.
            ([0x0c, 0].repeat(200_000), "no head of a page at byte 0"),
            ([0x5c; 200_000].into(), "no head of a page at byte 0"),
        ] {
            let found = unpacked_bytes(&wrong).expect_err("refused");
            assert!(found.contains(said), "{found}");
        }
    }
}
