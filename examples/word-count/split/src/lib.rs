//! Splits lines into words, which become the keys of what it emits.
//!
//! A word is a run of ASCII letters, lowercased; every other byte separates. The records that go out have the word as
//! their key and an empty value: a counter needs no more, and a value would be written, sent and read for nothing.

mod scan;

use regraft_sdk::{Any, Ctx, Port, operator};

/// Emits the words of a line. Lines may be any bytes, so text that is not UTF-8 is no reason to fail.
#[operator]
pub fn split(line: Any<'_>, #[key = "word"] words: Port<str, str>, cx: &mut Ctx) {
    let mut words = cx.emitter(words);
    scan::words(&line, |word| words.emit_with(|key, _| word.write_to(key)));
}

#[cfg(test)]
mod tests {
    use super::split;
    use regraft_sdk::testing::{Harness, Input};

    fn words(line: impl AsRef<[u8]>) -> Vec<String> {
        let emitted = Harness::<split>::new().process([Input::value(line).at(7)]).unwrap();
        assert!(
            emitted
                .iter()
                .all(|record| record.port == "words" && record.value.is_empty() && record.timestamp == 7)
        );
        emitted
            .iter()
            .map(|record| record.key_text().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_word_is_a_run_of_ascii_letters_lowercased() {
        assert_eq!(
            words("To be, or not to-be: that is"),
            ["to", "be", "or", "not", "to", "be", "that", "is"]
        );
        assert_eq!(words("x1y2"), ["x", "y"]);
        assert_eq!(words("naïve"), ["na", "ve"]);
        assert_eq!(words(b"a\xffb"), ["a", "b"]);
        assert!(words("").is_empty());
        assert!(words(" 12 ,,").is_empty());
    }

    #[test]
    fn long_words_stay_whole() {
        for len in 1..200 {
            assert_eq!(words(format!(" {} b", "A".repeat(len))), ["a".repeat(len), "b".into()]);
            assert_eq!(words("Zq".repeat(len)), ["zq".repeat(len)]);
        }
    }

    #[test]
    fn declares_its_output() {
        assert_eq!(
            Harness::<split>::new().describe(),
            concat!(
                r#"{"wit":"0.2.0","sdk":"regraft-sdk 0.1.0","encoding":"bincode2","calls":[],"outputs":[{"name":"words","#,
                r#""key":{"name":"word","type":"string"},"value":"text"}]}"#
            )
        );
    }
}
