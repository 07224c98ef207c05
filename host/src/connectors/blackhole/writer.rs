//! Counts records and sums the XXH3-64 of their values, wrapping. Count and checksum are the writer's state, so they are
//! exact over restores, and the same for any order and parallelism.

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::CheckpointId;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::connector::sink::{SinkError, SinkSnapshot, SinkWriter};

/// Counts the records of one subtask.
#[derive(Debug, Default)]
pub struct BlackholeWriter {
    records: u64,
    checksum: u64,
}

impl BlackholeWriter {
    /// Makes a writer that goes on from saved totals; null for none.
    #[must_use]
    pub fn new(saved: &serde_json::Value) -> Self {
        let (records, checksum) = totals([saved]);
        Self { records, checksum }
    }
}

/// Adds up the states of subtasks: records and checksum.
#[must_use]
pub fn totals<'a>(states: impl IntoIterator<Item = &'a serde_json::Value>) -> (u64, u64) {
    states.into_iter().fold((0u64, 0u64), |(records, checksum), state| {
        let hex = state["checksum"]
            .as_str()
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        let count = state["records"].as_u64().unwrap_or(0);
        (records.wrapping_add(count), checksum.wrapping_add(hex.unwrap_or(0)))
    })
}

/// Totals as they are saved.
#[must_use]
pub fn state(records: u64, checksum: u64) -> serde_json::Value {
    json!({ "records": records, "checksum": format!("{checksum:016x}") })
}

impl SinkWriter for BlackholeWriter {
    fn begin(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.records = self.records.wrapping_add(batch.len() as u64);
        self.checksum = batch
            .values
            .iter()
            .fold(self.checksum, |sum, value| sum.wrapping_add(xxh3_64(value)));
        Ok(())
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot {
            handles: vec![],
            state: state(self.records, self.checksum),
        })
    }

    fn committed(&mut self, _: CheckpointId) {}

    fn abort(&mut self) {}

    fn set_input(&mut self, _: &PortValue) -> Result<(), SinkError> {
        Ok(())
    }

    fn summary(&self) -> Option<serde_json::Value> {
        Some(state(self.records, self.checksum))
    }
}
