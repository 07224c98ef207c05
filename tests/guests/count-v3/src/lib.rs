//! A version of the example's `count` that keeps its count as text. Tests hold that it is not let near the old state.

use regraft_sdk::{Any, Ctx, Declare, Operator, Port, Record, Result, ValueState, operator};
use serde::{Deserialize, Serialize};

/// A word with its count.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Counted<'a> {
    /// The word.
    pub word: &'a str,
    /// Number of times that it has come so far.
    pub count: u64,
}

/// The operator.
pub struct Count {
    count: ValueState<String>,
    counts: Port<Counted<'static>>,
}

#[operator]
impl Operator for Count {
    fn declare(d: &mut Declare) -> Self {
        d.key("word");
        Count {
            count: d.value("count"),
            counts: d.output("counts"),
        }
    }

    fn process(&mut self, word: &str, _: Any<'_>, cx: &mut Ctx) -> Result<()> {
        let count = self.count.update(|text| {
            let count = text.parse().unwrap_or(0u64) + 1;
            *text = count.to_string();
            count
        });
        cx.emit(self.counts, &Counted { word, count });
        Ok(())
    }
}
