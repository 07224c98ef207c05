//! Numbers the records it is given, by a number that it keeps in itself, and misbehaves in the way its config says.
//!
//! Records come from a generator and have one number, `n`. What goes out says for each which one it was, from 1: where a
//! record is lost, doubled or half undone, a number is missing or there twice.

use regraft_sdk::{Ctx, Declare, OpenContext, Operator, Port, Record, Result, operator};
use serde::{Deserialize, Serialize};

/// A record of the generator.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Numbered {
    /// A number of its own.
    pub n: u64,
}

/// A record with its place in the order of all.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Told {
    /// The record's number.
    pub n: u64,
    /// Number of records so far, with this one.
    pub seen: u64,
}

/// The operator's config.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Panics at this record, when it has counted it.
    panic_at: Option<u64>,
    /// So many bytes are never given back, for each record: how soon that is too much depends on the instance's age.
    #[serde(default)]
    leak_bytes: usize,
}

/// The operator.
pub struct Private {
    seen: u64,
    told: Port<Told>,
    config: Config,
    leaked: Vec<Vec<u8>>,
}

#[operator]
impl Operator for Private {
    fn declare(d: &mut Declare) -> Self {
        Self {
            seen: 0,
            told: d.output("told"),
            config: Config::default(),
            leaked: vec![],
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        self.config = cx.config_or_default()?;
        Ok(())
    }

    fn process(&mut self, Numbered { n }: Numbered, cx: &mut Ctx) -> Result<()> {
        self.seen += 1;
        assert!(self.config.panic_at != Some(n), "record {n} is one too many");
        if self.config.leak_bytes > 0 {
            self.leaked
                .push(std::hint::black_box(vec![n as u8 | 1; self.config.leak_bytes]));
        }
        cx.emit(self.told, &Told { n, seen: self.seen });
        Ok(())
    }

    fn snapshot_private(&mut self) -> Result<Vec<u8>> {
        Ok(self.seen.to_le_bytes().to_vec())
    }

    fn restore_private(&mut self, parts: Vec<Vec<u8>>) -> Result<()> {
        self.seen = 0;
        for part in &parts {
            let bytes = part.first_chunk().ok_or("private state of fewer than 8 bytes")?;
            self.seen += u64::from_le_bytes(*bytes);
        }
        Ok(())
    }
}
