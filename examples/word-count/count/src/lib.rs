//! Counts words: the key is the word, and the value does not matter.

use regraft_sdk::{Any, Ctx, Declare, OpenContext, Operator, Port, Record, Result, ValueState, operator};
use serde::{Deserialize, Serialize};

/// A word with its count.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Counted<'a> {
    /// The word.
    pub word: &'a str,
    /// Number of times that it has come so far.
    pub count: u64,
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
            cx.emit(self.counts, &Counted { word, count });
        }
        Ok(())
    }

    fn finish(&mut self, word: &str, cx: &mut Ctx) -> Result<()> {
        if self.emit == Emit::Final
            && let Some(count) = self.count.get()
        {
            cx.emit(self.counts, &Counted { word, count });
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

    fn counted(emitted: &[Emitted]) -> Vec<Counted<'_>> {
        emitted.iter().map(|record| record.record().unwrap()).collect()
    }

    #[test]
    fn every_record_updates_by_default() {
        let mut harness = Harness::<Count>::new();
        let emitted = harness.process(words("to be to")).unwrap();
        assert_eq!(
            counted(&emitted),
            [
                Counted { word: "to", count: 1 },
                Counted { word: "be", count: 1 },
                Counted { word: "to", count: 2 }
            ]
        );
        assert_eq!(emitted[2].key_text().unwrap(), "to");
        assert!(harness.finish().unwrap().is_empty());
    }

    #[test]
    fn final_counts_come_once_at_the_end() {
        let mut harness = Harness::<Count>::new().config(json!({ "emit": "final" }));
        assert!(harness.process(words("to be to")).unwrap().is_empty());
        assert!(harness.process(words("be to")).unwrap().is_empty());
        let emitted = harness.finish().unwrap();
        assert_eq!(
            counted(&emitted),
            [Counted { word: "be", count: 2 }, Counted { word: "to", count: 3 }]
        );
    }

    #[test]
    fn counts_survive_a_snapshot() {
        let mut harness = Harness::<Count>::new();
        harness.process(words("to be to")).unwrap();
        let mut restored = Harness::<Count>::restore(&harness.snapshot()).unwrap();
        restored.process(words("to")).unwrap();
        let counts = restored.state::<String, u64>("count").unwrap();
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [("be".into(), 1), ("to".into(), 3)]
        );
    }

    #[test]
    fn a_config_it_does_not_know_is_refused() {
        let refused = |config| Harness::<Count>::new().config(config).check_open().unwrap_err().message;
        assert!(refused(json!({ "emit": "never" })).contains("unknown variant `never`, expected `update` or `final`"));
        assert!(refused(json!({ "emits": "final" })).contains("unknown field `emits`"));
    }

    #[test]
    fn a_word_that_is_not_text_fails_its_row() {
        let failure = Harness::<Count>::new()
            .process([
                Input::keyed("a", ""),
                Input::keyed(b"\xff", ""),
                Input::keyed(b"\xff", ""),
            ])
            .unwrap_err();
        assert_eq!(
            (failure.row, failure.message.as_str()),
            (Some(1), "the key is not UTF-8")
        );
    }

    #[test]
    fn declares_word_and_count() {
        assert_eq!(
            Harness::<Count>::new().describe(),
            concat!(
                r#"{"wit":"0.2.0","sdk":"regraft-sdk 0.1.0","encoding":"bincode2","calls":["ending"],"#,
                r#""key":{"name":"word","type":"string"},"#,
                r#""states":[{"name":"count","kind":"value","schema":"u64","travels":true}],"#,
                r#""outputs":[{"name":"counts","key":{"name":"word","type":"string"},"#,
                r#""value":{"record":{"name":"Counted","fields":[{"name":"word","type":"string"},"#,
                r#"{"name":"count","type":"u64"}]}}}]}"#
            )
        );
    }
}
