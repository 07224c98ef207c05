//! Records that go into an operator under test, and those that come out.

use crate::codec;
use crate::error::Result;
use crate::output::NO_TIMESTAMP;
use serde::Deserialize;

/// One record that goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The key's bytes; empty for operators that read none.
    pub key: Vec<u8>,
    /// The value's bytes.
    pub value: Vec<u8>,
    /// Event time in milliseconds; [`NO_TIMESTAMP`] for none.
    pub timestamp: i64,
}

impl Input {
    /// A record without a key.
    pub fn value(value: impl AsRef<[u8]>) -> Self {
        Self::keyed("", value)
    }

    /// A record with a raw key and value (an integer key: `7u64.to_le_bytes()`).
    pub fn keyed(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Input {
            key: key.as_ref().to_vec(),
            value: value.as_ref().to_vec(),
            timestamp: NO_TIMESTAMP,
        }
    }

    /// A typed record with a raw key.
    ///
    /// # Errors
    ///
    /// When the record's `Serialize` refuses.
    pub fn typed<T: serde::Serialize>(key: impl AsRef<[u8]>, record: &T) -> Result<Self> {
        let mut value = Vec::new();
        codec::encode(record, &mut value)?;
        Ok(Self::keyed(key, value))
    }

    /// The record at an event time, in milliseconds.
    pub fn at(self, timestamp: i64) -> Self {
        Input { timestamp, ..self }
    }
}

/// One record that came out, with everything it inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The name of the output.
    pub port: String,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The value's bytes.
    pub value: Vec<u8>,
    /// Event time in milliseconds; [`NO_TIMESTAMP`] for none.
    pub timestamp: i64,
}

impl Emitted {
    /// The key as text.
    ///
    /// # Errors
    ///
    /// When it is not UTF-8.
    pub fn key_text(&self) -> Result<&str> {
        Ok(std::str::from_utf8(&self.key)?)
    }

    /// The value as text.
    ///
    /// # Errors
    ///
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        Ok(std::str::from_utf8(&self.value)?)
    }

    /// The value as a typed record.
    ///
    /// # Errors
    ///
    /// When it is none of this type.
    pub fn record<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        codec::decode(&self.value)
    }
}
