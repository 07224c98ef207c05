//! Splits lines into words, which become the keys of what it emits.

use regraft_sdk::{Ctx, Port, operator};

/// The operator. It has an output port named "words", whose records have a key named "word" and an empty value.
#[operator]
pub fn split(line: &str, #[key = "word"] words: Port<str, str>, cx: &mut Ctx) {
    for word in line.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
        cx.emit(words, "").key(word.to_ascii_lowercase().as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::split;
    use regraft_sdk::testing::{Harness, Input};

    #[test]
    fn a_word_is_a_run_of_ascii_letters_lowercased() {
        let emitted = Harness::<split>::new().process([Input::value("To be, or not to-be")]).unwrap();
        let words: Vec<&str> = emitted.iter().map(|record| record.key_text().unwrap()).collect();
        assert_eq!(words, ["to", "be", "or", "not", "to", "be"]);
    }
}
