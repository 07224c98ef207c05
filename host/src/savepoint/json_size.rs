//! Memory that a JSON text takes when it is parsed, estimated from the text alone. A short text may take a hundred times
//! its length: an object has room for several members.

use regraft_model::json_scan::structure;

/// Bytes of an object and of an array, beside their members.
const OBJECT: u64 = 640;
const ARRAY: u64 = 64;
/// Bytes of a value, and of the name of a member beside its value.
const VALUE: u64 = 32;
const NAME: u64 = 70;

/// Returns the bytes of memory that a text takes when it is parsed, approximately. It need not be valid JSON.
pub(super) fn parsed_bytes(text: &[u8]) -> u64 {
    let of_structure = structure(text).map(|(_, byte)| match byte {
        b'{' => OBJECT,
        b'[' => ARRAY,
        b',' => VALUE,
        b':' => NAME,
        _ => 0,
    });
    VALUE + text.len() as u64 + of_structure.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structure_is_counted_outside_of_strings() {
        let text = br#"{"a,[{\":":[1,2],"b":{}}"#;
        assert_eq!(
            parsed_bytes(text),
            VALUE + text.len() as u64 + 2 * OBJECT + ARRAY + 2 * VALUE + 2 * NAME
        );
        assert_eq!(parsed_bytes(b"7"), VALUE + 1);
    }
}
