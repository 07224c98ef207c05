//! The structure of a JSON text, found without parsing or allocating. The text need not be valid.

/// Returns the bytes of a text that make its structure, with their positions: brackets, commas and colons outside of
/// strings, and the quotes that begin and end strings.
pub fn structure(text: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let (mut is_string, mut is_escaped) = (false, false);
    text.iter().copied().enumerate().filter(move |(_, byte)| match byte {
        _ if is_escaped => {
            is_escaped = false;
            false
        }
        b'\\' if is_string => {
            is_escaped = true;
            false
        }
        b'"' => {
            is_string = !is_string;
            true
        }
        _ => !is_string && matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_no_structure() {
        let found: Vec<u8> = structure(br#"{"a,[{\":\\":[1,"2\""]} "#)
            .map(|(_, byte)| byte)
            .collect();
        assert_eq!(found, br#"{"":[,""]}"#);
        assert_eq!(structure(b"[7]").collect::<Vec<_>>(), [(0, b'['), (2, b']')]);
    }
}
