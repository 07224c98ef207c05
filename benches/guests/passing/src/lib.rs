//! Counts records by key, and passes each on as it is.

use regraft_sdk::{Ctx, Declare, Operator, Port, Result, ValueState, operator};

/// The operator.
pub struct Passing {
    count: ValueState<u64>,
    values: Port<[u8]>,
}

#[operator]
impl Operator for Passing {
    fn declare(d: &mut Declare) -> Self {
        d.key("key");
        Passing {
            count: d.value("count"),
            values: d.output("values"),
        }
    }

    fn process(&mut self, _key: u64, _value: &[u8], cx: &mut Ctx) -> Result<()> {
        self.count.update(|count| *count += 1);
        cx.forward(self.values);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Passing;
    use regraft_sdk::testing::{Harness, Input};

    #[test]
    fn counts_and_passes_on() {
        let mut harness = Harness::<Passing>::new();
        let record = |key: u64| Input::keyed(key.to_le_bytes(), "value");
        let emitted = harness.process([record(1), record(2), record(1)]).unwrap();
        assert_eq!((emitted.len(), &emitted[2].value[..]), (3, &b"value"[..]));
        assert_eq!(harness.state::<u64, u64>("count").unwrap()[&1], 2);
    }
}
