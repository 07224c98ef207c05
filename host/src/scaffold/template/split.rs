//! Splits lines into words, which become the keys of what it emits.

use regraft_sdk::{Ctx, Declare, Operator, Port, Result, Text, operator};

/// The operator. It keeps no state.
pub struct Split {
    words: Port<str, str>,
}

impl Operator for Split {
    type Key<'a> = ();
    type In<'a> = Text<'a>;

    fn declare(d: &mut Declare) -> Self {
        // An output port named "words", whose records have a key named "word".
        Split { words: d.output_keyed("words", "word") }
    }

    fn process(&mut self, _: (), line: Text, cx: &mut Ctx) -> Result<()> {
        for word in line.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
            cx.emit_keyed(self.words, word.to_ascii_lowercase().as_str(), "")?;
        }
        Ok(())
    }
}

operator!(Split);

#[cfg(test)]
mod tests {
    use super::Split;
    use regraft_sdk::testing::{Harness, Input};

    #[test]
    fn a_word_is_a_run_of_ascii_letters_lowercased() {
        let emitted = Harness::<Split>::new().process([Input::value("To be, or not to-be")]).unwrap();
        let words: Vec<&str> = emitted.iter().map(|record| record.key_text().unwrap()).collect();
        assert_eq!(words, ["to", "be", "or", "not", "to", "be"]);
    }
}
