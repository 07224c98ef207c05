//! The input of W2: the records of the host's generator, and the same records from a plain function.

use regraft::connector::source::{Polled, SourceError, SourceReader, SplitState};
use regraft::connectors::generator::reader::GeneratorReader;
use regraft::connectors::generator::settings::{GeneratorField, GeneratorSource, GeneratorValues};
use regraft_model::batch::Batch;
use regraft_model::schema::Type;

use crate::{Failure, workload};

/// Returns the settings that the source would have in a job file.
pub(crate) fn settings(rows: u64, keys: u64) -> GeneratorSource {
    GeneratorSource {
        seed: workload::SEED,
        splits: 1,
        rows: Some(rows),
        fields: vec![
            GeneratorField {
                name: "key".into(),
                ty: Type::U64,
                values: GeneratorValues::Range {
                    first: 0,
                    last: keys - 1,
                },
            },
            GeneratorField {
                name: "value".into(),
                ty: Type::Bytes,
                values: GeneratorValues::Random {
                    len: workload::VALUE as u32,
                },
            },
        ],
        key: Some(0),
    }
}

/// Returns the host's reader of these records.
pub(crate) fn reader(rows: u64, keys: u64) -> Result<GeneratorReader, Failure> {
    Ok(GeneratorReader::new(
        settings(rows, keys),
        vec![("00000".into(), None)],
    )?)
}

/// Generates all batches.
pub(crate) fn batches(rows: u64, keys: u64, of: usize) -> Result<Vec<Batch>, Failure> {
    let mut reader = reader(rows, keys)?;
    let mut batches = vec![];
    while let Polled::Batch(batch) = reader.poll(of, 0)? {
        batches.push(batch);
    }
    Ok(batches)
}

/// A source that emits copies of existing batches.
pub(crate) struct Replay {
    /// All batches.
    pub(crate) batches: std::sync::Arc<Vec<Batch>>,
    /// Index of the next batch.
    pub(crate) next: usize,
}

impl SourceReader for Replay {
    fn poll(&mut self, _: usize, _: u64) -> Result<Polled, SourceError> {
        let batch = self.batches.get(self.next).cloned();
        self.next += 1;
        Ok(batch.map_or(Polled::Exhausted, Polled::Batch))
    }

    fn snapshot(&self) -> Vec<SplitState> {
        vec![]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_the_hosts() {
        let batches = batches(3000, 77, 1024).expect("batches");
        let mut offset = 0;
        for batch in &batches {
            for i in 0..batch.len() {
                let (key, value) = workload::record(0, offset, 77);
                assert_eq!(
                    (batch.key(i), batch.values.get(i)),
                    (&key.to_le_bytes()[..], &value[..])
                );
                offset += 1;
            }
        }
        assert_eq!(offset, 3000);
    }
}
