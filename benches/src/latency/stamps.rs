//! The two ends of a measured job: a source that stamps each record with the time at which it was due, and a sink that
//! compares the stamp with the clock.
//!
//! A record is due by the rate alone, whenever it was read: where the job holds the source up, its records are late, and the
//! wait is part of their latency.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use regraft::connector::sink::{SinkConnector, SinkContext, SinkError, SinkInput, SinkSnapshot, SinkWriter};
use regraft::connector::source::{
    Assigned, Polled, RecordShape, SourceConnector, SourceContext, SourceError, SourceReader, SplitState,
};
use regraft::environment::files::FileSystem;
use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::CheckpointId;
use regraft_model::schema::{Field, Type};

use super::histogram::Histogram;
use crate::workload::{VALUE, mix, number};

/// The source looks for due records this often, in nanoseconds.
pub(super) const LOOKS_EVERY_NS: u64 = 1_000_000;

/// Returns the nanoseconds since the first call.
pub(super) fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // Never 0, which is the stamp of a record that is not measured.
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1
}

/// A source of records of uniform keys. It first emits each key once, as fast as it can and with the stamp 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct StampSource {
    /// Number of keys.
    pub(super) keys: u64,
    /// Number of splits.
    pub(super) splits: u64,
    /// Records per second of all splits; `None` for as many as the job takes.
    pub(super) rate: Option<f64>,
}

impl SourceConnector for StampSource {
    fn name(&self) -> &'static str {
        "stamps"
    }

    fn identity(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn records(&self) -> RecordShape {
        let key = Field {
            name: "key".into(),
            ty: Type::U64,
            aliases: vec![],
            default: false,
        };
        RecordShape {
            key: Some(key),
            value: PortValue::Bytes,
        }
    }

    fn time_fields(&self) -> Result<Vec<(usize, &str)>, &'static str> {
        Ok(vec![])
    }

    fn splits(&self, _: &dyn FileSystem, _: bool) -> Result<Vec<String>, SourceError> {
        Ok((0..self.splits).map(|split| split.to_string()).collect())
    }

    fn reader(&self, _: &SourceContext, splits: Vec<Assigned>) -> Result<Box<dyn SourceReader>, SourceError> {
        let own = splits.iter().filter_map(|(name, _)| name.parse().ok());
        Ok(Box::new(Stamper {
            source: *self,
            splits: own.collect(),
            filled: 0,
            sent: 0,
            start: 0,
        }))
    }
}

/// Reads the splits of one subtask, as if they were one.
struct Stamper {
    source: StampSource,
    splits: Vec<u64>,
    /// Number of keys that were emitted first.
    filled: u64,
    /// Number of stamped records.
    sent: u64,
    /// Time at which the first stamped record was due.
    start: u64,
}

impl Stamper {
    /// Returns the nanoseconds between two records; 0 for no rate.
    fn interval(&self) -> f64 {
        let share = self.splits.len() as f64 / self.source.splits as f64;
        self.source.rate.map_or(0.0, |rate| 1e9 / (rate * share))
    }

    /// Returns the key of the next record of the fill; `None` when all have been emitted.
    fn fill(&mut self) -> Option<u64> {
        let (of, at) = (self.splits.len() as u64, self.filled);
        let key = self.splits.get((at % of) as usize)? + at / of * self.source.splits;
        self.filled += 1;
        (key < self.source.keys).then_some(key)
    }
}

fn put(batch: &mut Batch, key: u64, stamp: u64) {
    let mut value = [7; VALUE];
    value[..8].copy_from_slice(&stamp.to_le_bytes());
    batch.keys.column.push(&key.to_le_bytes());
    batch.values.push(&value);
}

impl SourceReader for Stamper {
    fn poll(&mut self, records_max: usize, now_ns: u64) -> Result<Polled, SourceError> {
        let mut batch = Batch::default();
        let Some(&split) = self.splits.first() else {
            return Ok(Polled::Exhausted);
        };
        while self.start == 0 && batch.len() < records_max {
            match self.fill() {
                Some(key) => put(&mut batch, key, 0),
                None => self.start = now(),
            }
        }
        if !batch.is_empty() {
            return Ok(Polled::Batch(batch));
        }
        let (now, interval) = (now(), self.interval());
        let due = |sent: u64| self.start + (sent as f64 * interval) as u64;
        while batch.len() < records_max && due(self.sent) <= now {
            let key = (u128::from(mix(self.sent ^ (split << 48))) * u128::from(self.source.keys)) >> 64;
            let stamp = if interval == 0.0 { now } else { due(self.sent) };
            put(&mut batch, key as u64, stamp);
            self.sent += 1;
        }
        if batch.is_empty() {
            let wait = due(self.sent).saturating_sub(now).max(LOOKS_EVERY_NS);
            return Ok(Polled::Idle(now_ns + wait));
        }
        Ok(Polled::Batch(batch))
    }

    fn snapshot(&self) -> Vec<SplitState> {
        let state = |split: &u64| SplitState {
            split: split.to_string(),
            position: serde_json::Value::from(self.sent),
        };
        self.splits.iter().map(state).collect()
    }
}

/// Latencies that the sink has seen, and the part of them that is measured.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// Records due from here on are measured.
    from: AtomicU64,
    /// Records due from here on are not measured.
    until: AtomicU64,
    /// The same bounds for records that are due during an upgrade.
    upgrade_from: AtomicU64,
    upgrade_until: AtomicU64,
    seen: Mutex<Seen>,
}

/// Records that have arrived.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Number of records with a stamp.
    pub(super) records: u64,
    /// The latest stamp.
    pub(super) latest: u64,
    /// Latencies of the measured records.
    pub(super) all: Histogram,
    /// Latencies of those of them that were due during an upgrade.
    pub(super) upgrades: Histogram,
}

impl Recorder {
    /// Returns what has arrived.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures records that are due within these times.
    pub(super) fn measure(&self, from: u64, until: u64) {
        self.until.store(until, Ordering::Relaxed);
        self.from.store(from, Ordering::Relaxed);
    }

    /// Tells that an upgrade begins or, for the time at which it has ended, `u64::MAX` until then.
    pub(super) fn upgrade(&self, from: u64, until: u64) {
        self.upgrade_from.store(from, Ordering::Relaxed);
        self.upgrade_until.store(until, Ordering::Relaxed);
    }

    fn write(&self, batch: &Batch) {
        let load = |bound: &AtomicU64| bound.load(Ordering::Relaxed);
        let measured = load(&self.from)..load(&self.until);
        let upgrade = load(&self.upgrade_from)..load(&self.upgrade_until);
        let mut seen = self.seen();
        let now = now();
        for value in batch.values.iter() {
            let stamp = number(value);
            if stamp == 0 {
                continue;
            }
            seen.records += 1;
            seen.latest = seen.latest.max(stamp);
            if measured.contains(&stamp) {
                let latency = now.saturating_sub(stamp);
                seen.all.add(latency);
                if upgrade.contains(&stamp) {
                    seen.upgrades.add(latency);
                }
            }
        }
    }
}

/// A sink that compares each stamp with the clock, once for each batch.
#[derive(Debug, Clone)]
pub(super) struct StampSink(pub(super) Arc<Recorder>);

impl SinkConnector for StampSink {
    fn name(&self) -> &'static str {
        "stamps"
    }

    fn writer(
        &self,
        _: SinkContext,
        _: SinkInput<'_>,
        _: &serde_json::Value,
    ) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(self.clone()))
    }
}

impl SinkWriter for StampSink {
    fn begin(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.0.write(batch);
        Ok(())
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, _: CheckpointId) {}

    fn abort(&mut self) {}

    fn set_input(&mut self, _: &PortValue) -> Result<(), SinkError> {
        Ok(())
    }
}
