//! The stateless operators of W3. Its config says which of the two this one is.
//!
//! A value is any bytes of which the first eight are a number, little-endian.

use regraft_sdk::{Ctx, Declare, OpenContext, Operator, Port, Result, operator};
use serde::Deserialize;

/// The operator's config.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    step: Step,
}

/// Function of the operator.
#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Step {
    /// Replaces the number by three times the number plus the key, wrapping, and keeps the rest of the value.
    #[default]
    Map,
    /// Passes on the values whose number has no top bit.
    Filter,
}

/// The operator.
pub struct Arithmetic {
    values: Port<[u8]>,
    step: Step,
}

#[operator]
impl Operator for Arithmetic {
    fn declare(d: &mut Declare) -> Self {
        Arithmetic {
            values: d.output("values"),
            step: Step::default(),
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        self.step = cx.config_or_default::<Config>()?.step;
        Ok(())
    }

    fn process(&mut self, key: u64, value: &[u8], cx: &mut Ctx) -> Result<()> {
        let Some((number, rest)) = value.split_first_chunk() else {
            return Err(format!("a value of {} bytes has no number: that takes 8", value.len()).into());
        };
        let number = u64::from_le_bytes(*number);
        match self.step {
            Step::Map => {
                let mapped = number.wrapping_mul(3).wrapping_add(key);
                if let Ok(rest) = <&[u8; 24]>::try_from(rest) {
                    let mut out = [0; 32];
                    out[..8].copy_from_slice(&mapped.to_le_bytes());
                    out[8..].copy_from_slice(rest);
                    cx.emit(self.values, &out[..]);
                } else {
                    cx.emit(self.values, &[&mapped.to_le_bytes(), rest].concat()[..]);
                }
            }
            Step::Filter if number >> 63 == 0 => cx.forward(self.values),
            Step::Filter => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Arithmetic;
    use regraft_sdk::testing::{Harness, Input, json};

    fn record(key: u64, number: u64, len: usize) -> Input {
        let mut value = vec![7; len];
        value[..8].copy_from_slice(&number.to_le_bytes());
        Input::keyed(key.to_le_bytes(), value)
    }

    #[test]
    fn maps_the_number_and_keeps_the_rest() {
        for len in [8, 32, 40] {
            let emitted = Harness::<Arithmetic>::new().process([record(5, 10, len)]).unwrap();
            let (number, rest) = emitted[0].value.split_at(8);
            assert_eq!((number, rest), (&35u64.to_le_bytes()[..], &vec![7; len - 8][..]));
        }
    }

    #[test]
    fn filters_by_the_top_bit() {
        let mut harness = Harness::<Arithmetic>::new().config(json!({ "step": "filter" }));
        let emitted = harness
            .process([record(1, u64::MAX >> 1, 32), record(1, u64::MAX, 32)])
            .unwrap();
        assert_eq!(emitted.len(), 1);
    }
}
