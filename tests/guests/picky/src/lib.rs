//! Counts records by key as the examples do, and misbehaves on one record in so many, in the way its config says.
//!
//! Records come from a generator: the key is a `u64`, the value has one number, `n`, which no two records share. The
//! record at fault is one whose `n` divided by `every` leaves `every - 1`.

use regraft_sdk::{Ctx, Declare, OpenContext, Operator, Port, Record, Result, ValueState, operator};
use serde::{Deserialize, Serialize};

/// A record of the generator.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Numbered {
    /// A number of its own.
    pub n: u64,
}

/// A key's count, emitted once at the end of all inputs.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Counted {
    /// The key.
    pub key: u64,
    /// Number of its records that were counted.
    pub count: u64,
}

/// Treatment of the record at fault.
#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum How {
    /// Count it as any other.
    #[default]
    Not,
    /// Panic.
    Panic,
    /// Return an error.
    Fail,
    /// Compute without end.
    Loop,
    /// Ask for memory without end.
    Grow,
    /// Count it as any other, after some tenths of a millisecond of computing.
    Busy,
}

/// The operator's config.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    how: How,
    #[serde(default)]
    every: u64,
}

/// The operator.
pub struct Picky {
    count: ValueState<u64>,
    counts: Port<Counted>,
    how: How,
    every: u64,
}

#[operator]
impl Operator for Picky {
    fn declare(d: &mut Declare) -> Self {
        d.key("key");
        Self {
            count: d.value("count"),
            counts: d.output("counts"),
            how: How::Not,
            every: 0,
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        let config: Config = cx.config_or_default()?;
        (self.how, self.every) = (config.how, config.every);
        Ok(())
    }

    fn process(&mut self, _key: u64, Numbered { n }: Numbered, _cx: &mut Ctx) -> Result<()> {
        if self.how != How::Not && self.every != 0 && n % self.every == self.every - 1 {
            misbehave(self.how, n)?;
        }
        self.count.update(|count| *count += 1);
        Ok(())
    }

    fn finish(&mut self, key: u64, cx: &mut Ctx) -> Result<()> {
        if let Some(count) = self.count.get() {
            cx.emit(self.counts, &Counted { key, count });
        }
        Ok(())
    }
}

#[cold]
fn misbehave(how: How, n: u64) -> Result<()> {
    match how {
        How::Not => Ok(()),
        How::Panic => panic!("record {n} is one too many"),
        How::Fail => Err(format!("record {n} is not to be counted").into()),
        How::Loop => loop {
            std::hint::black_box(n);
        },
        How::Grow => {
            let mut all = vec![];
            loop {
                all.push(std::hint::black_box(vec![n as u8 | 1; 1 << 20]));
            }
        }
        How::Busy => {
            burn_processor_time(n);
            Ok(())
        }
    }
}

/// Has a name of its own in profiles.
#[inline(never)]
fn burn_processor_time(n: u64) -> u64 {
    let mut sum = n;
    for turn in 0..200_000 {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(turn));
    }
    sum
}
