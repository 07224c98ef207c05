//! The only place that knows how values and composite keys are encoded: bincode 2 by serde.
//!
//! - Values of states and typed records: the standard configuration (little-endian, integers of variable length).
//! - Composite keys: the same with integers of fixed width, so that equal keys have equal bytes whatever their type's
//!   history. (Text, byte strings and integers as keys do not come here: they are raw.)
//!
//! bincode is unmaintained and pinned; a change of codec is a change of this file and of the format documents.

use crate::bytes::append;
use crate::error::Error;
use bincode::config::{Configuration, Fixint, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use serde::{Deserialize, Serialize};

const VALUE: Configuration<LittleEndian, Varint> = bincode::config::standard();
const KEY: Configuration<LittleEndian, Fixint> = bincode::config::standard().with_fixed_int_encoding();

/// Lets bincode write at the end of a column.
struct Sink<'a>(&'a mut Vec<u8>);

impl Writer for Sink<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        append(self.0, bytes);
        Ok(())
    }
}

/// Appends `value` to `to`, as values are encoded.
///
/// # Errors
///
/// When the type's `Serialize` refuses, or does what bincode cannot encode (a sequence of unknown length).
/// After an error the content of `to` is not a value.
#[inline]
pub fn encode<T: Serialize + ?Sized>(value: &T, to: &mut Vec<u8>) -> Result<(), Error> {
    bincode::serde::encode_into_writer(value, Sink(to), VALUE).map_err(refused)
}

/// Reads a value, which must take up all of `bytes`.
///
/// # Errors
///
/// When the bytes are no `T`, or more than one.
#[inline]
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    match bincode::serde::borrow_decode_from_slice(bytes, VALUE) {
        Ok((value, len)) if len == bytes.len() => Ok(value),
        other => Err(unreadable(other.map(|(_, len)| len), bytes.len())),
    }
}

/// Appends a composite key.
///
/// # Errors
///
/// As [`encode`].
pub(crate) fn encode_key<T: Serialize + ?Sized>(key: &T, to: &mut Vec<u8>) -> Result<(), Error> {
    bincode::serde::encode_into_writer(key, Sink(to), KEY).map_err(refused)
}

/// Reads a composite key.
///
/// # Errors
///
/// As [`decode`].
pub(crate) fn decode_key<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    match bincode::serde::borrow_decode_from_slice(bytes, KEY) {
        Ok((key, len)) if len == bytes.len() => Ok(key),
        other => Err(unreadable(other.map(|(_, len)| len), bytes.len())),
    }
}

#[cold]
fn refused(error: EncodeError) -> Error {
    match error {
        EncodeError::OtherString(message) => format!("it cannot be encoded: {message}").into(),
        EncodeError::Other(message) => format!("it cannot be encoded: {message}").into(),
        // Printing any error there may be would pull number formatting of 20 KB into every component.
        _ => "it cannot be encoded: the type has a part that a compact encoding cannot hold".into(),
    }
}

#[cold]
fn unreadable(read: Result<usize, DecodeError>, len: usize) -> Error {
    let why = match &read {
        Ok(read) => return format!("it has {len} bytes, of which only {read} belong to it").into(),
        Err(DecodeError::OtherString(message)) => message,
        Err(DecodeError::Other(message)) => *message,
        Err(DecodeError::UnexpectedEnd { .. }) => "there are too few of them",
        Err(DecodeError::Utf8 { .. }) => "text in them is not UTF-8",
        // As for `refused`.
        Err(_) => "they are no value of this type",
    };
    format!("its {len} bytes cannot be decoded: {why}").into()
}
