//! The numbers of values in `_metadata`, which bound the memory that parsing it takes.
//!
//! The entries of states have types of their own and take little more memory than their text, so there may be as many as
//! fit. All else may be JSON of a connector, where an object of eight bytes takes 640.

use regraft_model::json_scan::structure;

/// Levels of brackets around the key `states` of an operator: the payload, the list of operators, and the operator.
const OPERATOR_LEVEL: usize = 3;

/// Numbers of values in a payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Values outside of the entries of states, approximately.
    pub(super) values: u64,
    /// Objects and arrays among them.
    pub(super) containers: u64,
    /// Values in the entries of states, approximately.
    pub(super) of_states: u64,
}

impl Sizes {
    /// Counts the values of a payload, which need not be valid JSON.
    pub(super) fn of(payload: &[u8]) -> Self {
        let (mut sizes, mut level) = (Self::default(), 0usize);
        // Positions behind the last two quotes, and true in the entries of states.
        let (mut quotes, mut is_states) = ((0, 0), false);
        let mut before = b',';
        for (at, byte) in structure(payload) {
            match byte {
                b'"' => quotes = (quotes.1, at + 1),
                b'{' | b'[' => {
                    let key = payload.get(quotes.0..quotes.1.saturating_sub(1));
                    is_states |= level == OPERATOR_LEVEL && before == b':' && key == Some(b"states");
                    level += 1;
                    if is_states {
                        sizes.of_states += 1;
                    } else {
                        sizes.values += 1;
                        sizes.containers += 1;
                    }
                }
                b'}' | b']' => {
                    level = level.saturating_sub(1);
                    is_states &= level > OPERATOR_LEVEL;
                }
                b',' if is_states => sizes.of_states += 1,
                b',' => sizes.values += 1,
                _ => {}
            }
            before = byte;
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_states_are_counted_apart() {
        let of = |text: &str| {
            let Sizes {
                values,
                containers,
                of_states,
            } = Sizes::of(text.as_bytes());
            (values, containers, of_states)
        };
        assert_eq!(
            of(r#"{"operators":[{"uid":"a","states":[{"files":[{},{}]},{}],"sink":{}}]}"#),
            (6, 4, 8)
        );
        // A key of this name elsewhere, and a value of it.
        assert_eq!(of(r#"{"states":[{}],"a":[{"b":{"states":[{}]}}]}"#), (9, 8, 0));
        assert_eq!(of(r#"{"operators":[{"uid":"states","sink":[{}]}]}"#), (6, 5, 0));
        assert_eq!(of("]]}{"), (1, 1, 0));
    }
}
