//! Values of records: what an operator reads them as, and what an output port writes.

use crate::bytes::{append, first_not_utf8};
use crate::codec;
use crate::error::{Error, Result};
use crate::schema::{Record, State, Struct, Type};
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// What a port's values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Raw UTF-8.
    Text,
    /// Raw bytes.
    Bytes,
    /// A record with named columns.
    Record(Struct),
}

/// What an operator may read the values of its input as: [`Text`], [`Bytes`], [`Typed`] or [`Any`].
///
/// Sealed in effect: the library implements it.
pub trait FromValue<'a>: Sized {
    /// `None`: anything will do, and nothing is declared.
    #[doc(hidden)]
    fn value_type() -> Option<ValueType>;

    /// Looks at a whole column of values at once. The error names the first bad row.
    #[doc(hidden)]
    fn check(data: &[u8], ends: &[u32]) -> Result<(), (usize, String)>;

    /// Reads one value.
    ///
    /// # Safety
    ///
    /// `bytes` must be an item of a column that `check` has passed.
    #[doc(hidden)]
    unsafe fn read(bytes: &'a [u8]) -> Result<Self>;
}

/// What an output port may carry: `str` (raw text), `[u8]` (raw bytes), or a record with named columns, that is any
/// struct with `#[derive(Record, Serialize)]`.
///
/// Sealed in effect: the library implements it.
pub trait PortValue {
    #[doc(hidden)]
    fn value_type() -> ValueType;

    #[doc(hidden)]
    fn write(&self, to: &mut Vec<u8>) -> Result<()>;
}

/// A value of raw UTF-8 text, such as a line. Derefs to `&str`.
///
/// A value that is not UTF-8 is a declared failure of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub &'a str);

/// A value of raw bytes. Derefs to `&[u8]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes<'a>(pub &'a [u8]);

/// A value of any kind, as the bytes it has. For operators that do not look at values, or look at whatever comes: the
/// input then declares nothing, and goes with any output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Any<'a>(pub &'a [u8]);

/// A typed record, decoded for each row. The type may borrow from the batch: `struct Click<'a> { page: &'a str }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Typed<T>(pub T);

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        self.0
    }
}

impl Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl Deref for Any<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl<T> Deref for Typed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'a> FromValue<'a> for Text<'a> {
    fn value_type() -> Option<ValueType> {
        Some(ValueType::Text)
    }
    fn check(data: &[u8], ends: &[u32]) -> Result<(), (usize, String)> {
        match first_not_utf8(data, ends) {
            None => Ok(()),
            Some(row) => Err((row, "the value is not UTF-8".into())),
        }
    }
    #[inline(always)]
    unsafe fn read(bytes: &'a [u8]) -> Result<Self> {
        // SAFETY: `check` has found every item of the column to be UTF-8.
        Ok(Text(unsafe { std::str::from_utf8_unchecked(bytes) }))
    }
}

impl<'a> FromValue<'a> for Bytes<'a> {
    fn value_type() -> Option<ValueType> {
        Some(ValueType::Bytes)
    }
    fn check(_: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    #[inline(always)]
    unsafe fn read(bytes: &'a [u8]) -> Result<Self> {
        Ok(Bytes(bytes))
    }
}

impl<'a> FromValue<'a> for Any<'a> {
    fn value_type() -> Option<ValueType> {
        None
    }
    fn check(_: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    #[inline(always)]
    unsafe fn read(bytes: &'a [u8]) -> Result<Self> {
        Ok(Any(bytes))
    }
}

impl<'a, T: Record + Deserialize<'a>> FromValue<'a> for Typed<T> {
    fn value_type() -> Option<ValueType> {
        Some(record_type::<T>())
    }
    fn check(_: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    #[inline(always)]
    unsafe fn read(bytes: &'a [u8]) -> Result<Self> {
        match codec::decode(bytes) {
            Ok(record) => Ok(Typed(record)),
            Err(error) => Err(not_a_record(error)),
        }
    }
}

#[cold]
fn not_a_record(error: Error) -> Error {
    format!("the value is not a record of the declared type: {error}").into()
}

impl PortValue for str {
    fn value_type() -> ValueType {
        ValueType::Text
    }
    #[inline(always)]
    fn write(&self, to: &mut Vec<u8>) -> Result<()> {
        append(to, self.as_bytes());
        Ok(())
    }
}

impl PortValue for [u8] {
    fn value_type() -> ValueType {
        ValueType::Bytes
    }
    #[inline(always)]
    fn write(&self, to: &mut Vec<u8>) -> Result<()> {
        append(to, self);
        Ok(())
    }
}

impl<T: Record + Serialize> PortValue for T {
    fn value_type() -> ValueType {
        record_type::<T>()
    }
    #[inline(always)]
    fn write(&self, to: &mut Vec<u8>) -> Result<()> {
        codec::encode(self, to)
    }
}

fn record_type<T: State>() -> ValueType {
    match T::schema() {
        Type::Struct(inner) => ValueType::Record(inner),
        // Only a hand-written `Record` comes here.
        other => panic!("a record must be a struct with named fields, not {}", other.to_json()),
    }
}
