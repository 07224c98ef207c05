//! A version of the example's `count` that keeps its count as text. Tests hold that it is not let near the old state.

use regraft_sdk::{Any, Ctx, Declare, Operator, Port, Record, Result, ValueState, operator};
use serde::{Deserialize, Serialize};

/// What goes out.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Counted<'a> {
    /// The word.
    pub word: &'a str,
    /// How often it has come so far.
    pub count: u64,
}

/// The operator.
pub struct Count {
    count: ValueState<String>,
    counts: Port<Counted<'static>>,
}

impl Operator for Count {
    type Key<'a> = &'a str;
    type In<'a> = Any<'a>;

    fn declare(d: &mut Declare) -> Self {
        d.key("word");
        Count {
            count: d.value("count"),
            counts: d.output("counts"),
        }
    }

    fn process(&mut self, word: &str, _: Any, cx: &mut Ctx) -> Result<()> {
        let count = self.count.update(|text| {
            let count = text.parse().unwrap_or(0u64) + 1;
            *text = count.to_string();
            count
        });
        cx.emit(self.counts, &Counted { word, count })
    }
}

operator!(Count);
