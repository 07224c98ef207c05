//! Keys: types that an operator reads them as, and types that an output port writes.
//!
//! The bytes of a key decide where its state lives, so their form is fixed: text and byte strings raw, integers in
//! fixed width and little-endian, anything else bincode with fixed-width integers.

use crate::bytes::{append, first_not_utf8};
use crate::codec;
use crate::error::{Error, Result};
use crate::schema::{State, Type};
use serde::{Deserialize, Serialize};

/// A type that an operator may read its keys as: `&str`, `&[u8]`, an integer, a tuple of such, [`Compound`] for a struct, or
/// `()` for an operator that reads no key (and so has no keyed state).
///
/// Sealed in effect: the library implements it.
#[diagnostic::on_unimplemented(
    message = "keys cannot be read as `{Self}`",
    note = "keys are `&str`, `&[u8]`, `String`, `Vec<u8>`, integers, `bool`, `char`, tuples of such, or `Compound<T>` of a type \
            with a schema; an operator without keys leaves the key away"
)]
pub trait FromKey<'a>: Sized {
    /// False for `()` only.
    #[doc(hidden)]
    const READS: bool = true;

    #[doc(hidden)]
    fn key_type() -> Type;

    /// Looks at a whole column of keys at once. The error names the first bad key's index.
    #[doc(hidden)]
    fn check(data: &[u8], ends: &[u32]) -> Result<(), (usize, String)>;

    /// Reads one key.
    ///
    /// # Safety
    ///
    /// `bytes` must be an item of a column that `check` has passed.
    #[doc(hidden)]
    unsafe fn read(bytes: &'a [u8]) -> Result<Self>;
}

/// A type that the keys of an output port may have: `str`, `[u8]`, an integer, a tuple, or [`Compound`] of a struct.
///
/// Sealed in effect: the library implements it.
#[diagnostic::on_unimplemented(
    message = "an output cannot have keys of type `{Self}`",
    note = "keys are `str`, `[u8]`, integers, `bool`, `char`, tuples of such, or `Compound<T>` of a type with a schema"
)]
pub trait ToKey {
    #[doc(hidden)]
    fn key_type() -> Type;

    #[doc(hidden)]
    fn write(&self, to: &mut Vec<u8>) -> Result<()>;
}

/// A key of several named parts: any type with a schema, encoded by bincode with integers of fixed width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Compound<T>(pub T);

impl FromKey<'_> for () {
    const READS: bool = false;
    fn key_type() -> Type {
        Type::Basic("unit")
    }
    fn check(_: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    #[inline(always)]
    unsafe fn read(_: &[u8]) -> Result<Self> {
        Ok(())
    }
}

fn check_text(data: &[u8], ends: &[u32]) -> Result<(), (usize, String)> {
    match first_not_utf8(data, ends) {
        None => Ok(()),
        Some(index) => Err((index, "the key is not UTF-8".into())),
    }
}

impl<'a> FromKey<'a> for &'a str {
    fn key_type() -> Type {
        Type::Basic("string")
    }
    fn check(data: &[u8], ends: &[u32]) -> Result<(), (usize, String)> {
        check_text(data, ends)
    }
    #[inline(always)]
    unsafe fn read(bytes: &'a [u8]) -> Result<Self> {
        // SAFETY: `check` has found every item of the column to be UTF-8.
        Ok(unsafe { std::str::from_utf8_unchecked(bytes) })
    }
}

impl FromKey<'_> for String {
    fn key_type() -> Type {
        Type::Basic("string")
    }
    fn check(data: &[u8], ends: &[u32]) -> Result<(), (usize, String)> {
        check_text(data, ends)
    }
    unsafe fn read(bytes: &[u8]) -> Result<Self> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

impl<'a> FromKey<'a> for &'a [u8] {
    fn key_type() -> Type {
        Type::Basic("bytes")
    }
    fn check(_: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    #[inline(always)]
    unsafe fn read(bytes: &'a [u8]) -> Result<Self> {
        Ok(bytes)
    }
}

impl FromKey<'_> for Vec<u8> {
    fn key_type() -> Type {
        Type::Basic("bytes")
    }
    fn check(_: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
        Ok(())
    }
    unsafe fn read(bytes: &[u8]) -> Result<Self> {
        Ok(bytes.to_vec())
    }
}

impl ToKey for str {
    fn key_type() -> Type {
        Type::Basic("string")
    }
    #[inline(always)]
    fn write(&self, to: &mut Vec<u8>) -> Result<()> {
        append(to, self.as_bytes());
        Ok(())
    }
}

impl ToKey for String {
    fn key_type() -> Type {
        Type::Basic("string")
    }
    fn write(&self, to: &mut Vec<u8>) -> Result<()> {
        self.as_str().write(to)
    }
}

impl ToKey for [u8] {
    fn key_type() -> Type {
        Type::Basic("bytes")
    }
    #[inline(always)]
    fn write(&self, to: &mut Vec<u8>) -> Result<()> {
        append(to, self);
        Ok(())
    }
}

impl ToKey for Vec<u8> {
    fn key_type() -> Type {
        Type::Basic("bytes")
    }
    fn write(&self, to: &mut Vec<u8>) -> Result<()> {
        self.as_slice().write(to)
    }
}

macro_rules! integers {
    ($($ty:ident)+) => {$(
        impl FromKey<'_> for $ty {
            fn key_type() -> Type {
                Type::Basic(stringify!($ty))
            }
            fn check(_: &[u8], ends: &[u32]) -> Result<(), (usize, String)> {
                const WIDTH: usize = size_of::<$ty>();
                match ends.iter().enumerate().find(|(index, end)| **end as usize != (index + 1) * WIDTH) {
                    None => Ok(()),
                    Some((index, end)) => {
                        let len = *end as usize - index * WIDTH;
                        Err((index, format!("the key has {len} bytes, {} keys have {WIDTH}", stringify!($ty))))
                    }
                }
            }
            #[inline(always)]
            unsafe fn read(bytes: &[u8]) -> Result<Self> {
                match bytes.try_into() {
                    Ok(bytes) => Ok(<$ty>::from_le_bytes(bytes)),
                    Err(_) => Err("a key of another width".into()),
                }
            }
        }

        impl ToKey for $ty {
            fn key_type() -> Type {
                Type::Basic(stringify!($ty))
            }
            #[inline(always)]
            fn write(&self, to: &mut Vec<u8>) -> Result<()> {
                append(to, &self.to_le_bytes());
                Ok(())
            }
        }
    )+};
}

integers!(u8 u16 u32 u64 i8 i16 i32 i64);

/// A key that is `string` or `bytes` is raw. One that is encoded behind its length is a tuple of it, with the same bytes.
fn of_parts(schema: Type) -> Type {
    match schema {
        Type::Basic("string" | "bytes") => Type::Tuple(vec![schema]),
        schema => schema,
    }
}

macro_rules! by_bincode {
    ($(($($part:ident)*) $ty:ty, $inner:ty, $read:expr, $write:expr;)+) => {$(
        impl<'a, $($part),*> FromKey<'a> for $ty where $inner: Deserialize<'a> + State {
            fn key_type() -> Type {
                of_parts(<$inner as State>::schema())
            }
            fn check(_: &[u8], _: &[u32]) -> Result<(), (usize, String)> {
                Ok(())
            }
            unsafe fn read(bytes: &'a [u8]) -> Result<Self> {
                let read: fn($inner) -> $ty = $read;
                codec::decode_key(bytes).map(read).map_err(|error| Error::from(format!("the key: {error}")))
            }
        }

        impl<$($part),*> ToKey for $ty where $inner: Serialize + State {
            fn key_type() -> Type {
                of_parts(<$inner as State>::schema())
            }
            fn write(&self, to: &mut Vec<u8>) -> Result<()> {
                let inner: fn(&$ty) -> &$inner = $write;
                codec::encode_key(inner(self), to)
            }
        }
    )+};
}

by_bincode! {
    () bool, bool, |key| key, |key| key;
    () char, char, |key| key, |key| key;
    (T) Compound<T>, T, Compound, |key| &key.0;
    (A B) (A, B), (A, B), |key| key, |key| key;
    (A B C) (A, B, C), (A, B, C), |key| key, |key| key;
    (A B C D) (A, B, C, D), (A, B, C, D), |key| key, |key| key;
}
