//! The parts of a state file in memory: all of it, or its footer and some row groups.

use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// Parts of a file, by their offset.
#[derive(Debug, Clone, Default)]
pub struct FileParts {
    bytes: u64,
    /// Parts in order of their offsets.
    parts: Vec<(u64, Bytes)>,
}

impl FileParts {
    /// Makes the parts of a file of `bytes` bytes, each given with its offset.
    #[must_use]
    pub fn new(bytes: u64, mut parts: Vec<(u64, Bytes)>) -> Self {
        parts.sort_by_key(|(offset, _)| *offset);
        Self { bytes, parts }
    }

    /// Returns the rest of the part that contains byte `start`, from that byte on.
    fn from(&self, start: u64) -> Result<Bytes> {
        let after = self.parts.partition_point(|(offset, _)| *offset <= start);
        let part = after.checked_sub(1).and_then(|at| self.parts.get(at));
        let found = part.and_then(|(offset, bytes)| {
            let skip = usize::try_from(start - offset).ok()?;
            (skip <= bytes.len()).then(|| bytes.slice(skip..))
        });
        found.ok_or_else(|| ParquetError::EOF(format!("it refers to byte {start}, which is in none of its parts")))
    }
}

impl From<Bytes> for FileParts {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes.len() as u64, vec![(0, bytes)])
    }
}

impl Length for FileParts {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for FileParts {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            let message = format!(
                "it refers to {length} bytes from byte {start}, and the part has {}",
                bytes.len()
            );
            return Err(ParquetError::EOF(message));
        }
        Ok(bytes.slice(..length))
    }
}
