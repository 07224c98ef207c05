//! A guest that has state of every kind: each record of a word adds to all of them, so that what is in one can be
//! computed from another.
//!
//! Record number `n` of a word, from 1: `count` is n, `last` is `<word>#<n>`, `items` gets n, `digits` counts n % 7,
//! `highest` is n, `mean` that of 1 to n, and `words` (a list that belongs to the instance) gets the word. `instances` is
//! a union of one item for each instance that was restored. Config `{"gap_ms":N}` sets the event-time timer `gap` at the record's event time
//! plus N, and `{"alarm_ms":N}` the processing-time timer `alarm` at the present time plus N; each that fires adds to
//! `fired`, and goes out by `fired`; with `{"again":true}` it sets itself again for the same time. `recent` counts n % 7 as `digits` does, and forgets after a few seconds. With
//! `{"table":N}` the first record of an instance whose broadcast state `table` is empty puts 0 to N - 1 into it. At the end
//! of input all of a word goes out by `summaries`.

use regraft_sdk::{
    Aggregate, AggregatingState, Any, BroadcastState, Clock, Ctx, Declare, ListState, MapState, NO_TIMESTAMP,
    OpenContext, Operator, OperatorList, Port, Record, ReducingState, Result, State, Timer, ValueState, operator,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The mean of some numbers.
#[derive(State, Serialize, Deserialize, Default)]
pub struct Mean {
    sum: u64,
    count: u64,
}

impl Aggregate for Mean {
    type In = u64;
    type Out = f64;

    fn add(&mut self, number: u64) {
        self.sum += number;
        self.count += 1;
    }

    fn result(&self) -> f64 {
        self.sum as f64 / self.count as f64
    }
}

/// All that is kept of a word.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Summary {
    /// The word.
    pub word: String,
    /// Number of its records.
    pub count: u64,
    /// The state `last`; empty where there is none.
    pub last: String,
    /// Number of items of the list.
    pub items: u64,
    /// The sum of the items.
    pub sum: u64,
    /// The entries of the map.
    pub digits: String,
    /// The state `highest`.
    pub highest: u64,
    /// The state `mean`.
    pub mean: f64,
    /// Number of timers that have fired.
    pub fired: u64,
}

/// A timer has fired.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Fired<'a> {
    /// The word that it was set for.
    pub word: &'a str,
    /// `gap` or `alarm`.
    pub timer: &'a str,
    /// The time that it was set for.
    pub at: i64,
    /// Number of records of the word when it fired.
    pub count: u64,
}

/// Lifetime of an entry of `recent`.
const RECENT: Duration = Duration::from_secs(4);

/// Private state of an instance, as it was restored.
#[derive(State, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Instance {
    subtask: u32,
    watermark: i64,
}

/// The operator's config.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Config {
    gap_ms: Option<i64>,
    alarm_ms: Option<i64>,
    #[serde(default)]
    again: bool,
    table: Option<u32>,
}

/// The operator.
pub struct Kinds {
    last: ValueState<String>,
    count: ValueState<u64>,
    items: ListState<u64>,
    digits: MapState<u64, u64>,
    highest: ReducingState<u64>,
    mean: AggregatingState<Mean>,
    fired: ValueState<u64>,
    recent: MapState<u64, u64>,
    words: OperatorList<String>,
    instances: OperatorList<Instance>,
    table: BroadcastState<u32, String>,
    gap: Timer,
    alarm: Timer,
    clock: Clock,
    summaries: Port<Summary>,
    firings: Port<Fired<'static>>,
    config: Config,
}

#[operator]
impl Operator for Kinds {
    fn declare(d: &mut Declare) -> Self {
        d.key("word");
        Kinds {
            last: d.value("last").far(),
            count: d.value("count"),
            items: d.list("items"),
            digits: d.map("digits"),
            highest: d.reducing("highest", |a, b| *a = (*a).max(b)),
            mean: d.aggregating("mean"),
            fired: d.value("fired"),
            recent: d.map("recent").ttl(RECENT),
            words: d.list_state("words"),
            instances: d.union_state("instances"),
            table: d.broadcast_state("table"),
            gap: d.timer("gap"),
            alarm: d.processing_timer("alarm"),
            clock: d.clock(),
            summaries: d.output("summaries"),
            firings: d.output("fired"),
            config: Config::default(),
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        self.config = cx.config_or_default()?;
        Ok(())
    }

    fn restored(&mut self, cx: &mut OpenContext) -> Result<()> {
        let (subtask, watermark) = (cx.subtask(), cx.watermark());
        self.instances.set(vec![Instance { subtask, watermark }]);
        Ok(())
    }

    fn prefetch(&mut self, _word: &str, _: Any<'_>) -> Result<()> {
        for digit in 0..7u64 {
            self.digits.prefetch(&digit);
            self.recent.prefetch(&digit);
        }
        Ok(())
    }

    fn process(&mut self, word: &str, _: Any<'_>, cx: &mut Ctx) -> Result<()> {
        let n = self.count.update(|count| {
            *count += 1;
            *count
        });
        self.last.set(format!("{word}#{n}"));
        self.items.push(&n);
        self.digits.update(&(n % 7), |count| *count += 1);
        self.highest.add(n);
        self.mean.add(n);
        self.recent.update(&(n % 7), |count| *count += 1);
        self.words.push(word.into());
        if self.table.is_empty() {
            for row in 0..self.config.table.unwrap_or(0) {
                self.table.insert(row, format!("row {row}"));
            }
        }
        if let Some(gap_ms) = self.config.gap_ms.filter(|_| cx.timestamp() != NO_TIMESTAMP) {
            cx.at(self.gap, cx.timestamp() + gap_ms);
        }
        if let Some(alarm_ms) = self.config.alarm_ms {
            cx.at(self.alarm, cx.now(self.clock) + alarm_ms);
        }
        Ok(())
    }

    fn on_timer(&mut self, word: &str, timer: Timer, at: i64, cx: &mut Ctx) -> Result<()> {
        self.fired.update(|fired| *fired += 1);
        if self.config.again {
            cx.at(timer, at);
        }
        let timer = if timer == self.gap { "gap" } else { "alarm" };
        let count = self.count.get_or_default();
        cx.emit(self.firings, &Fired { word, timer, at, count });
        Ok(())
    }

    fn finish(&mut self, word: &str, cx: &mut Ctx) -> Result<()> {
        let items = self.items.get();
        let summary = Summary {
            word: word.into(),
            count: self.count.get_or_default(),
            last: self.last.get_or_default(),
            items: items.len() as u64,
            sum: items.iter().sum(),
            digits: format!("{:?}", self.digits.entries()),
            highest: self.highest.get().unwrap_or_default(),
            mean: self.mean.get().unwrap_or_default(),
            fired: self.fired.get_or_default(),
        };
        cx.emit(self.summaries, &summary);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Fired, Kinds, Summary};
    use regraft_sdk::testing::{Harness, Input, json};

    #[test]
    fn all_kinds_say_the_same() {
        let config = json!({ "gap_ms": 5, "alarm_ms": 50 });
        let mut harness = Harness::<Kinds>::new().config(config.clone());
        for batch in 0..5 {
            harness
                .process((0..4).map(|n| Input::keyed("to", "").at(batch * 4 + n)))
                .unwrap();
            harness = Harness::restore(&harness.snapshot()).unwrap().config(config.clone());
        }
        assert_eq!(harness.timers::<String>("alarm").unwrap(), [(50, "to".into())]);
        assert_eq!(harness.operator_state::<String>("words").unwrap().len(), 20);
        let fired = harness.watermark(10).unwrap();
        assert_eq!(fired.len(), 6);
        let last = Fired {
            word: "to",
            timer: "gap",
            at: 10,
            count: 20,
        };
        assert_eq!(fired[5].record::<Fired>().unwrap(), last);
        assert_eq!(harness.advance(50).unwrap().len(), 1);
        let finished = harness.finish().unwrap();
        let summary: Summary = finished.last().unwrap().record().unwrap();
        let expected = Summary {
            word: "to".into(),
            count: 20,
            last: "to#20".into(),
            items: 20,
            sum: 210,
            digits: "[(0, 2), (1, 3), (2, 3), (3, 3), (4, 3), (5, 3), (6, 3)]".into(),
            highest: 20,
            mean: 10.5,
            fired: 21,
        };
        assert_eq!((finished.len(), summary), (15, expected));
    }
}
