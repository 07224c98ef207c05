//! Memory that a JSON text takes when it is parsed, estimated from the text alone. A short text may take a hundred times
//! its length: an object has room for several members.

/// Bytes of an object and of an array, beside their members.
const OBJECT: u64 = 640;
const ARRAY: u64 = 64;
/// Bytes of a value, and of the name of a member beside its value.
const VALUE: u64 = 32;
const NAME: u64 = 70;

/// The structure of a JSON text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct JsonSize {
    /// Number of objects and arrays.
    pub(super) containers: u64,
    /// Number of values, approximately.
    pub(super) values: u64,
    /// Bytes of memory that the text takes when it is parsed, approximately.
    pub(super) bytes: u64,
}

impl JsonSize {
    /// Counts the structure of a text, which need not be valid JSON.
    pub(super) fn of(text: &[u8]) -> Self {
        let (mut size, mut is_string, mut is_escaped) = (Self::default(), false, false);
        size.bytes = VALUE + text.len() as u64;
        for byte in text {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_string => is_escaped = true,
                b'"' => is_string = !is_string,
                _ if is_string => {}
                b'{' | b'[' => {
                    size.containers += 1;
                    size.values += 1;
                    size.bytes += if *byte == b'{' { OBJECT } else { ARRAY };
                }
                b',' => {
                    size.values += 1;
                    size.bytes += VALUE;
                }
                b':' => size.bytes += NAME,
                _ => {}
            }
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structure_is_counted_outside_of_strings() {
        let size = JsonSize::of(br#"{"a,[{\"":[1,2],"b":{}}"#);
        assert_eq!((size.containers, size.values), (3, 5));
        assert_eq!(size.bytes, VALUE + 23 + 2 * OBJECT + ARRAY + 2 * VALUE + 2 * NAME);
        assert_eq!(JsonSize::of(b"7").bytes, VALUE + 1);
    }
}
