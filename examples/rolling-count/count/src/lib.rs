//! Counts and sums the generator's records by key: the endless example.
//!
//! A value is any bytes of which the first eight are a number, little-endian; sums wrap around.

use regraft_sdk::{Ctx, Declare, OpenContext, Operator, Port, Record, Result, State, ValueState, operator};
use serde::{Deserialize, Serialize};

/// Total of a key.
#[derive(State, Serialize, Deserialize, Default, Clone, Copy, Debug, PartialEq)]
pub struct Total {
    /// Number of records.
    pub count: u64,
    /// Sum of their numbers, wrapping.
    pub sum: u64,
}

/// A key's total, as it is emitted.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Counted {
    /// The key.
    pub key: u64,
    /// As in [`Total`].
    pub count: u64,
    /// As in [`Total`].
    pub sum: u64,
}

/// The operator's config.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    emit: Emit,
}

/// Time at which a total is emitted: at every record (the default), once for each key at the end of all inputs, or never.
#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Emit {
    #[default]
    Update,
    Final,
    None,
}

/// The operator.
pub struct Count {
    total: ValueState<Total>,
    counts: Port<Counted>,
    emit: Emit,
}

#[operator]
impl Operator for Count {
    fn declare(d: &mut Declare) -> Self {
        d.key("key");
        Count {
            total: d.value("total"),
            counts: d.output("counts"),
            emit: Emit::default(),
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        self.emit = cx.config_or_default::<Config>()?.emit;
        Ok(())
    }

    fn process(&mut self, key: u64, value: &[u8], cx: &mut Ctx) -> Result<()> {
        let Some(number) = value.first_chunk() else {
            return Err(format!("a value of {} bytes has no number: that takes 8", value.len()).into());
        };
        let number = u64::from_le_bytes(*number);
        let Total { count, sum } = self.total.update(|total| {
            total.count += 1;
            total.sum = total.sum.wrapping_add(number);
            *total
        });
        if self.emit == Emit::Update {
            cx.emit(self.counts, &Counted { key, count, sum });
        }
        Ok(())
    }

    fn finish(&mut self, key: u64, cx: &mut Ctx) -> Result<()> {
        if self.emit == Emit::Final
            && let Some(Total { count, sum }) = self.total.get()
        {
            cx.emit(self.counts, &Counted { key, count, sum });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Counted, Total};
    use regraft_sdk::testing::{Harness, Input, json};

    fn record(key: u64, number: u64) -> Input {
        let mut value = [7; 32];
        value[..8].copy_from_slice(&number.to_le_bytes());
        Input::keyed(key.to_le_bytes(), value)
    }

    #[test]
    fn counts_and_sums_by_key() {
        let mut harness = Harness::<Count>::new();
        let emitted = harness
            .process([record(1, 10), record(2, 5), record(1, u64::MAX)])
            .unwrap();
        assert_eq!(
            emitted[2].record::<Counted>().unwrap(),
            Counted {
                key: 1,
                count: 2,
                sum: 9
            }
        );
        let totals = harness.state::<u64, Total>("total").unwrap();
        assert_eq!(totals[&1], Total { count: 2, sum: 9 });
        assert_eq!(totals[&2], Total { count: 1, sum: 5 });
    }

    #[test]
    fn config_says_when_totals_go_out() {
        let mut none = Harness::<Count>::new().config(json!({ "emit": "none" }));
        assert!(none.process([record(1, 1)]).unwrap().is_empty());
        assert!(none.finish().unwrap().is_empty());
        let mut last = Harness::<Count>::new().config(json!({ "emit": "final" }));
        assert!(last.process([record(1, 1), record(1, 2)]).unwrap().is_empty());
        let emitted = last.finish().unwrap();
        assert_eq!(
            emitted[0].record::<Counted>().unwrap(),
            Counted {
                key: 1,
                count: 2,
                sum: 3
            }
        );
        assert!(
            Harness::<Count>::new()
                .config(json!({ "emit": "x" }))
                .check_open()
                .is_err()
        );
    }

    #[test]
    fn a_short_value_or_key_fails_its_row() {
        let failure = Harness::<Count>::new()
            .process([record(1, 1), Input::keyed([0; 8], "short")])
            .unwrap_err();
        assert_eq!(failure.row, Some(1));
        let failure = Harness::<Count>::new()
            .process([record(1, 1), Input::keyed("abc", [0; 8])])
            .unwrap_err();
        assert_eq!(
            (failure.row, failure.message.as_str()),
            (Some(1), "the key has 3 bytes, u64 keys have 8")
        );
    }
}
