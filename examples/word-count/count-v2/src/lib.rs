//! The second version of `word-count-count`: the same state, and a third column, the length of the word.
//!
//! A running count can be upgraded to it, and the counts go on.

use regraft_sdk::{Any, Ctx, Declare, OpenContext, Operator, Port, Record, Result, ValueState, operator};
use serde::{Deserialize, Serialize};

/// A word with its count.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Counted<'a> {
    /// The word.
    pub word: &'a str,
    /// Number of times that it has come so far.
    pub count: u64,
    /// Number of its letters.
    pub length: u64,
}

fn counted(word: &str, count: u64) -> Counted<'_> {
    Counted {
        word,
        count,
        length: word.len() as u64,
    }
}

/// The operator's config.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    emit: Emit,
}

/// Time at which a count is emitted: at every record (the default), or once for each word at the end of all inputs.
#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Emit {
    #[default]
    Update,
    Final,
}

/// The operator.
pub struct Count {
    count: ValueState<u64>,
    counts: Port<Counted<'static>>,
    emit: Emit,
}

#[operator]
impl Operator for Count {
    fn declare(d: &mut Declare) -> Self {
        d.key("word");
        Count {
            count: d.value("count"),
            counts: d.output("counts"),
            emit: Emit::default(),
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        self.emit = cx.config_or_default::<Config>()?.emit;
        Ok(())
    }

    fn process(&mut self, word: &str, _: Any<'_>, cx: &mut Ctx) -> Result<()> {
        let count = self.count.update(|count| {
            *count += 1;
            *count
        });
        if self.emit == Emit::Update {
            cx.emit(self.counts, &counted(word, count));
        }
        Ok(())
    }

    fn finish(&mut self, word: &str, cx: &mut Ctx) -> Result<()> {
        if self.emit == Emit::Final
            && let Some(count) = self.count.get()
        {
            cx.emit(self.counts, &counted(word, count));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Counted};
    use regraft_sdk::testing::{Emitted, Harness, Input, json};

    fn words(text: &str) -> Vec<Input> {
        text.split(' ').map(|word| Input::keyed(word, "")).collect()
    }

    fn decoded(emitted: &[Emitted]) -> Vec<Counted<'_>> {
        emitted.iter().map(|record| record.record().unwrap()).collect()
    }

    #[test]
    fn goes_on_from_the_first_version() {
        let mut first = Harness::<word_count_count::Count>::new();
        first.process(words("to be to")).unwrap();
        let mut second = Harness::<Count>::restore(&first.snapshot()).unwrap();
        let emitted = second.process(words("to being")).unwrap();
        assert_eq!(
            decoded(&emitted),
            [
                Counted {
                    word: "to",
                    count: 3,
                    length: 2
                },
                Counted {
                    word: "being",
                    count: 1,
                    length: 5
                }
            ]
        );
    }

    #[test]
    fn final_counts_have_the_length_too() {
        let mut harness = Harness::<Count>::new().config(json!({ "emit": "final" }));
        assert!(harness.process(words("to be to")).unwrap().is_empty());
        let emitted = harness.finish().unwrap();
        assert_eq!(
            decoded(&emitted),
            [
                Counted {
                    word: "be",
                    count: 1,
                    length: 2
                },
                Counted {
                    word: "to",
                    count: 2,
                    length: 2
                }
            ]
        );
    }
}
