//! Values of records: types that an operator reads them as, and types that an output port writes.

use crate::bytes::{append, first_not_utf8};
use crate::error::{Error, Result};
use crate::schema::{self, Record, State, Struct, Type};
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// The type of a port's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Raw UTF-8.
    Text,
    /// Raw bytes.
    Bytes,
    /// A record with named columns.
    Record(Struct),
}

/// A type that an operator may read the values of its inputs as, the same for all inputs: `&str` (raw text), `&[u8]` (raw
/// bytes), a record, that is a struct with `#[derive(Record, Deserialize)]`, or [`Any`]. For several inputs of different
/// types it is an enum of these with `#[derive(Inputs)]`.
///
/// ```
/// # use regraft_sdk::{Inputs, Any};
/// #[derive(Inputs)]
/// enum In<'a> {
///     Orders(&'a str), // the first of the job file's `inputs`, named `orders`
///     #[input(name = "table")]
///     Users(Any<'a>),
/// }
/// ```
///
/// ```compile_fail
/// # use regraft_sdk::{Inputs, Any};
/// #[derive(Inputs)]
/// enum In<'a> {
///     Orders(&'a str, Any<'a>), // refused: an input has one value
/// }
/// ```
///
/// [`Text`], [`Bytes`] and [`Typed`] are the same as `&str`, `&[u8]` and a record, by other names.
///
/// Sealed in effect: the library and its derive macro implement it.
#[diagnostic::on_unimplemented(
    message = "values cannot be read as `{Self}`",
    note = "an operator reads `&str`, `&[u8]`, `Any<'_>`, a struct with `#[derive(Record, Deserialize)]`, or an enum of these \
            with `#[derive(Inputs)]`"
)]
pub trait FromValue<'a>: Sized {
    /// The number of inputs that are told apart. `None`: all inputs are alike.
    #[doc(hidden)]
    const INPUTS: Option<u32> = None;

    /// Name and type of each input that is declared. No name: [`Declare::input`](crate::Declare::input) gives it.
    #[doc(hidden)]
    fn inputs() -> Vec<DeclaredInput>;

    /// Looks at a whole column of values at once. The error names the first bad row.
    #[doc(hidden)]
    fn check(input: u32, data: &[u8], ends: &[u32]) -> Result<(), (usize, String)>;

    /// Reads one value.
    ///
    /// # Safety
    ///
    /// `bytes` must be an item of a column that `check` has passed for this input.
    #[doc(hidden)]
    unsafe fn read(input: u32, bytes: &'a [u8]) -> Result<Self>;
}

/// The declaration of an input.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct DeclaredInput {
    /// `None`: to be given a name.
    pub name: Option<&'static str>,
    /// Type of its values.
    pub value: ValueType,
}

impl DeclaredInput {
    /// An input without a name.
    fn of(value: ValueType) -> Vec<Self> {
        vec![DeclaredInput { name: None, value }]
    }

    /// An input of an enum, for the derived code. A type that takes anything takes bytes.
    #[must_use]
    pub fn variant<'a, V: FromValue<'a>>(name: &'static str) -> Self {
        assert!(
            V::INPUTS.is_none(),
            "input `{name}` is itself several inputs: all must be variants of one enum"
        );
        let value = V::inputs().pop().map_or(ValueType::Bytes, |declared| declared.value);
        DeclaredInput {
            name: Some(name),
            value,
        }
    }
}

/// A type that an output port may carry: `str` (raw text), `[u8]` (raw bytes), or a record with named columns, that is any
/// struct with `#[derive(Record, Serialize)]`.
///
/// Sealed in effect: the library implements it.
#[diagnostic::on_unimplemented(
    message = "an output cannot carry `{Self}`",
    note = "an output carries `str`, `[u8]`, or a struct with `#[derive(Record, Serialize)]`"
)]
pub trait PortValue {
    #[doc(hidden)]
    fn value_type() -> ValueType;

    #[doc(hidden)]
    fn write(&self, to: &mut Vec<u8>) -> Result<()>;
}

/// `&str` by another name: a value of raw UTF-8 text, such as a line. Derefs to `&str`.
///
/// A value that is not UTF-8 is a declared failure of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub &'a str);

/// `&[u8]` by another name: a value of raw bytes. Derefs to `&[u8]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes<'a>(pub &'a [u8]);

/// A value of any kind, as the bytes it has. For operators that do not look at values, or look at whatever comes: the
/// input then declares nothing, and goes with any output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Any<'a>(pub &'a [u8]);

/// A record by another name. The type may borrow from the batch: `struct Click<'a> { page: &'a str }`.
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

impl<'a> FromValue<'a> for &'a str {
    fn inputs() -> Vec<DeclaredInput> {
        DeclaredInput::of(ValueType::Text)
    }
    fn check(_: u32, data: &[u8], ends: &[u32]) -> Result<(), (usize, String)> {
        match first_not_utf8(data, ends) {
            None => Ok(()),
            Some(row) => Err((row, "the value is not UTF-8".into())),
        }
    }
    #[inline(always)]
    unsafe fn read(_: u32, bytes: &'a [u8]) -> Result<Self> {
        // SAFETY: `check` has found every item of the column to be UTF-8.
        Ok(unsafe { std::str::from_utf8_unchecked(bytes) })
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    fn inputs() -> Vec<DeclaredInput> {
        DeclaredInput::of(ValueType::Bytes)
    }
    fn check(_: u32, _: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    #[inline(always)]
    unsafe fn read(_: u32, bytes: &'a [u8]) -> Result<Self> {
        Ok(bytes)
    }
}

impl<'a> FromValue<'a> for Any<'a> {
    fn inputs() -> Vec<DeclaredInput> {
        Vec::new()
    }
    fn check(_: u32, _: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    #[inline(always)]
    unsafe fn read(_: u32, bytes: &'a [u8]) -> Result<Self> {
        Ok(Any(bytes))
    }
}

impl<'a, T: Record + Deserialize<'a>> FromValue<'a> for T {
    fn inputs() -> Vec<DeclaredInput> {
        DeclaredInput::of(record_type::<T>())
    }
    fn check(_: u32, _: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    #[inline(always)]
    unsafe fn read(_: u32, bytes: &'a [u8]) -> Result<Self> {
        match schema::decode(bytes) {
            Ok(record) => Ok(record),
            Err(error) => Err(not_a_record(error)),
        }
    }
}

/// Reads a wrapper as what it wraps.
macro_rules! wrappers {
    ($(($($bounds:tt)*) $wrapper:ident, $ty:ty, $inner:ty;)+) => {$(
        impl<'a, $($bounds)*> FromValue<'a> for $ty {
            fn inputs() -> Vec<DeclaredInput> {
                <$inner>::inputs()
            }
            fn check(input: u32, data: &[u8], ends: &[u32]) -> Result<(), (usize, String)> {
                <$inner as FromValue<'_>>::check(input, data, ends)
            }
            #[inline(always)]
            unsafe fn read(input: u32, bytes: &'a [u8]) -> Result<Self> {
                // SAFETY: the caller's promise; `check` is that of the wrapped type.
                unsafe { <$inner>::read(input, bytes) }.map($wrapper)
            }
        }
    )+};
}

wrappers! {
    () Text, Text<'a>, &'a str;
    () Bytes, Bytes<'a>, &'a [u8];
    (T: Record + Deserialize<'a>) Typed, Typed<T>, T;
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
        schema::encode(self, to)
    }
}

fn record_type<T: State>() -> ValueType {
    match T::schema() {
        Type::Struct(inner) => ValueType::Record(inner),
        // Only a hand-written `Record` comes here.
        other => panic!("a record must be a struct with named fields, not {}", other.to_json()),
    }
}
