//! Bound of the parts of a value, so that a few bytes do not become a tree of any size.
//!
//! Each value, item and field is a part. Most parts have bytes of their own; a unit, an empty tuple or a struct of units has
//! none, and a list of such items is as long as its length says. So a value may only have as many parts as its bytes can
//! be expected to hold.

use super::{Decoder, Integers, Type, ValueError};
use crate::schema::{Field, Variant};

/// Parts that any value may have.
pub const PARTS_MIN: usize = 256;
/// Parts that a value may have more for each of its bytes.
pub const PARTS_PER_BYTE: usize = 4;
/// The most parts of any value: in memory they are half a gigabyte.
pub const PARTS_MAX: usize = 16 << 20;
/// Bytes of a field's or variant's name that count as one more part: a name is rendered for each item.
const NAME_BYTES: usize = 32;
/// Values of at most this length have less than [`PARTS_MAX`] parts by their length alone.
const SHORT_MAX: usize = (PARTS_MAX - PARTS_MIN) / PARTS_PER_BYTE;

/// Returns the most parts of a value of so many bytes.
#[must_use]
pub fn most(len: usize) -> usize {
    let by_len = len.saturating_mul(PARTS_PER_BYTE).saturating_add(PARTS_MIN);
    by_len.min(PARTS_MAX)
}

/// Returns the parts that a field or variant of this name counts as, beside its value.
pub(super) const fn of_name(name: &str) -> usize {
    name.len() / NAME_BYTES
}

/// The bound of the values of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsBound {
    ty: Type,
    /// False if values of the type that are not very long are within the bound by their type alone.
    is_open: bool,
}

impl PartsBound {
    /// Returns the bound of values of this type.
    #[must_use]
    pub fn new(ty: Type) -> Self {
        let is_open = excess(&ty).is_none_or(|excess| excess > PARTS_MIN as i64);
        Self { ty, is_open }
    }

    /// Checks one value, without decoding it where its type and length are enough.
    ///
    /// # Errors
    /// [`ValueError::Parts`]. A value that is not of the type is not this check's concern.
    pub fn check(&self, value: &[u8]) -> Result<(), ValueError> {
        if !self.is_open && value.len() <= SHORT_MAX {
            return Ok(());
        }
        match Decoder::new(value, Integers::Variable).pass(&self.ty, 0) {
            Err(error @ ValueError::Parts { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Checks the values of a column, which has so many bytes.
    ///
    /// # Errors
    /// The position of the first value that has too many parts, and [`ValueError::Parts`].
    pub fn check_all<'a>(
        &self,
        bytes: usize,
        mut values: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), (usize, ValueError)> {
        if !self.is_open && bytes <= SHORT_MAX {
            return Ok(());
        }
        let mut at = 0;
        values.try_for_each(|value| {
            at += 1;
            self.check(value).map_err(|error| (at - 1, error))
        })
    }
}

/// Returns the most parts of a value of this type beyond [`PARTS_PER_BYTE`] for each of its bytes; `None` if there is no
/// bound.
fn excess(ty: &Type) -> Option<i64> {
    let of_bytes = |bytes: i64| 1 - PARTS_PER_BYTE as i64 * bytes;
    Some(match ty {
        Type::Unit => 1,
        Type::F32 => of_bytes(4),
        Type::F64 => of_bytes(8),
        Type::Option(inner) => of_bytes(1) + excess(inner)?.max(0),
        Type::List(item) if excess(item)? <= 0 => of_bytes(1),
        Type::Map(key, value) if excess(key)?.saturating_add(excess(value)?) <= 0 => of_bytes(1),
        Type::List(_) | Type::Map(..) => return None,
        Type::Tuple(items) => of_items(items)?,
        Type::Struct(of) => of_fields(&of.fields)?,
        Type::Enum(of) => {
            let mut most = 0;
            for variant in &of.variants {
                most = most.max(of_variant(variant)?);
            }
            of_bytes(1).saturating_add(most)
        }
        _ => of_bytes(1),
    })
}

fn of_items(items: &[Type]) -> Option<i64> {
    items
        .iter()
        .try_fold(1i64, |sum, item| Some(sum.saturating_add(excess(item)?)))
}

fn of_fields(fields: &[Field]) -> Option<i64> {
    fields.iter().try_fold(1i64, |sum, field| {
        let named = sum.saturating_add(of_name(&field.name) as i64);
        Some(named.saturating_add(excess(&field.ty)?))
    })
}

fn of_variant(variant: &Variant) -> Option<i64> {
    let held = if let Some(inner) = &variant.newtype {
        excess(inner)?
    } else if let Some(items) = &variant.tuple {
        of_items(items)?
    } else if let Some(fields) = &variant.fields {
        of_fields(fields)?
    } else {
        1
    };
    Some(held.saturating_add(of_name(&variant.name) as i64))
}

impl Decoder<'_> {
    /// Passes over a value, and counts its parts.
    fn pass(&mut self, ty: &Type, depth: u32) -> Result<(), ValueError> {
        self.enter(depth)?;
        let depth = depth + 1;
        match ty {
            Type::Option(inner) => {
                if self.tag()? {
                    self.pass(inner, depth)?;
                }
            }
            Type::List(item) => {
                for _ in 0..self.bounded_length("list", item)? {
                    self.pass(item, depth)?;
                }
            }
            Type::Map(key, value) => {
                for _ in 0..self.bounded_length("map", key)? {
                    self.pass(key, depth)?;
                    self.pass(value, depth)?;
                }
            }
            Type::Tuple(items) => items.iter().try_for_each(|item| self.pass(item, depth))?,
            Type::Struct(of) => self.pass_fields(&of.fields, depth)?,
            Type::Enum(of) => {
                let (_, variant) = self.variant(of)?;
                if let Some(inner) = &variant.newtype {
                    self.pass(inner, depth)?;
                } else if let Some(items) = &variant.tuple {
                    self.take_parts(1)?;
                    items.iter().try_for_each(|item| self.pass(item, depth))?;
                } else if let Some(fields) = &variant.fields {
                    self.take_parts(1)?;
                    self.pass_fields(fields, depth)?;
                } else {
                    self.take_parts(1)?;
                }
            }
            scalar => {
                self.scalar(scalar)?;
            }
        }
        Ok(())
    }

    fn pass_fields(&mut self, fields: &[Field], depth: u32) -> Result<(), ValueError> {
        fields.iter().try_for_each(|field| {
            self.take_parts(of_name(&field.name))?;
            self.pass(&field.ty, depth)
        })
    }
}
