//! The schema in the footer of a state file, which is checked before `parquet` reads it: that builds the tree of columns by
//! recursion, as deep as the file says.
//!
//! `parquet` does not compare the types of fields with those that it expects. So the footer is taken only as far as every
//! field has its type, up to the end of the schema, and both read the same. A second schema is skipped by `parquet`.

use super::thrift::{BINARY, BYTE, FALSE, Fields, I32, Input, LIST, STRUCT, TRUE};

/// Depth of groups of columns. A state file has columns only; another tool may have added nested ones.
const DEPTH_MAX: usize = 32;

/// The schema of a footer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SchemaError {
    /// It is not as the Parquet format says.
    #[error("the schema in its footer is not that of a Parquet file")]
    Malformed,
    /// Groups of columns are nested too deep.
    #[error("its columns are nested deeper than {DEPTH_MAX} levels")]
    Deep,
}

/// Checks the schema of a footer, which begins with the first byte of `FileMetaData`.
///
/// # Errors
/// Returns [`SchemaError`].
pub(super) fn check_schema(footer: &[u8]) -> Result<(), SchemaError> {
    let mut input = Input::new(footer);
    let mut fields = Fields::default();
    let count = elements(&mut input, &mut fields).ok_or(SchemaError::Malformed)?;
    // Children that are still to come, of each group that is open.
    let mut open: Vec<i64> = vec![];
    for _ in 0..count {
        let children = element(&mut input).ok_or(SchemaError::Malformed)?;
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if children > 0 {
            open.push(children);
        }
        if open.len() > DEPTH_MAX {
            return Err(SchemaError::Deep);
        }
        while open.last().is_some_and(|left| *left <= 0) {
            open.pop();
        }
    }
    Ok(())
}

/// Reads the fields of `FileMetaData` before the elements of its schema. Returns the number of elements.
fn elements(input: &mut Input<'_>, fields: &mut Fields) -> Option<u64> {
    loop {
        match fields.next(input)?? {
            // The version.
            (1, I32) => input.skip(I32)?,
            (2, LIST) => break,
            _ => return None,
        }
    }
    let (kind, count) = input.list()?;
    (kind == STRUCT).then_some(count)
}

/// Reads a `SchemaElement`. Returns its number of children; 0 for a column.
fn element(input: &mut Input<'_>) -> Option<i64> {
    let (mut fields, mut children) = (Fields::default(), 0);
    while let Some(field) = fields.next(input)? {
        match field {
            (5, I32) => children = input.integer()?,
            (4, kind @ BINARY) | (1..=3 | 6..=9, kind @ I32) => input.skip(kind)?,
            (10, STRUCT) => logical_type(input)?,
            _ => return None,
        }
    }
    Some(children)
}

/// Skips a `LogicalType`: a struct with one field, which is a struct.
fn logical_type(input: &mut Input<'_>) -> Option<()> {
    let mut fields = Fields::default();
    while let Some((id, kind)) = fields.next(input)? {
        let (STRUCT, 1..=15) = (kind, id) else { return None };
        let mut parts = Fields::default();
        while let Some(part) = parts.next(input)? {
            match (id, part) {
                // A decimal: scale and precision.
                (5, (1 | 2, kind @ I32)) => input.skip(kind)?,
                // A time or a timestamp: true if it is in UTC, and its unit.
                (7 | 8, (1, TRUE | FALSE)) | (10, (2, TRUE | FALSE)) => {}
                (7 | 8, (2, STRUCT)) => unit(input)?,
                // An integer: bits and sign.
                (10, (1, kind @ BYTE)) => input.skip(kind)?,
                _ => return None,
            }
        }
    }
    Some(())
}

/// Skips a `TimeUnit`: a struct with one field, which is an empty struct.
fn unit(input: &mut Input<'_>) -> Option<()> {
    let mut fields = Fields::default();
    while let Some(field) = fields.next(input)? {
        let (1..=3, STRUCT) = field else { return None };
        if Fields::default().next(input)?.is_some() {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer whose schema has elements with these numbers of children.
    fn footer(children: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x02, 0x19, 0xfc];
        bytes.extend([
            children.len() as u8 | 0x80,
            (children.len() >> 7) as u8 | 0x80,
            (children.len() >> 14) as u8,
        ]);
        for children in children {
            // A name of one byte, then the number of children.
            bytes.extend([0x48, 1, b'a', 0x15, children << 1, 0]);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn a_schema_is_flat_or_nearly_so() {
        assert_eq!(check_schema(&footer(&[3, 0, 0, 0])), Ok(()));
        assert_eq!(check_schema(&footer(&[2, 1, 1, 0, 2, 0, 0])), Ok(()));
        let nested = |levels: usize| check_schema(&footer(&[vec![1; levels], vec![0]].concat()));
        assert_eq!(nested(DEPTH_MAX), Ok(()));
        assert_eq!(nested(DEPTH_MAX + 1), Err(SchemaError::Deep));
        assert_eq!(nested(200_000), Err(SchemaError::Deep));
        // The second child of each group is the next group.
        assert_eq!(check_schema(&footer(&[2, 0].repeat(40))), Err(SchemaError::Deep));
    }

    #[test]
    fn no_field_hides_a_schema() {
        for wrong in [
            // The version as bytes, the schema as bytes, no schema, a list of numbers, and an empty footer.
            &[0x18, 2, 1, 1, 0x19, 0x0c, 0][..],
            &[0x15, 2, 0x18, 0x0c, 0],
            &[0x15, 2, 0],
            &[0x15, 2, 0x19, 0x15, 2, 0],
            &[],
            // Elements with a name that is a number, and a number of children that is text.
            &[0x15, 2, 0x19, 0x1c, 0x45, 2, 0, 0],
            &[0x15, 2, 0x19, 0x1c, 0x58, 1, 1, 0, 0],
            // Logical types with a part of another type, and with a part that none has.
            &[0x15, 2, 0x19, 0x1c, 0xac, 0x5c, 0x18, 1, 1, 0, 0, 0, 0],
            &[0x15, 2, 0x19, 0x1c, 0xac, 0x1c, 0x15, 2, 0, 0, 0, 0],
        ] {
            assert_eq!(check_schema(wrong), Err(SchemaError::Malformed), "{wrong:02x?}");
        }
        for right in [
            &[0x15, 2, 0x19, 0x1c, 0xac, 0x5c, 0x15, 2, 0x15, 4, 0, 0, 0, 0][..],
            &[0x15, 2, 0x19, 0x1c, 0xac, 0x8c, 0x11, 0x1c, 0x1c, 0, 0, 0, 0, 0, 0],
            &[0x15, 2, 0x19, 0x1c, 0xac, 0xac, 0x13, 8, 0x12, 0, 0, 0, 0],
        ] {
            assert_eq!(check_schema(right), Ok(()), "{right:02x?}");
        }
    }
}
