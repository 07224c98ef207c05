//! The memory that a value takes as JSON, found without decoding it. A short value may take several hundred times its length:
//! the names of fields are not in it, and an object has room for several members.

use super::{Decoder, Integers, Scalar, ValueError, parts};
use crate::schema::{Field, Type, Variant};

/// Bytes of an object and of an array, beside their members.
const OBJECT: u64 = 640;
const ARRAY: u64 = 64;
/// Bytes of a value, of a member beside its name and value, and of a byte of a text, which may have to be escaped.
const VALUE: u64 = 64;
const MEMBER: u64 = 96;
const BYTE: u64 = 6;

/// Returns the bytes of memory that a value takes as JSON, approximately.
///
/// # Errors
/// [`ValueError`] where the bytes are not of the type.
pub fn json_bytes(ty: &Type, bytes: &[u8], integers: Integers) -> Result<u64, ValueError> {
    Decoder::new(bytes, integers).json_bytes(ty)
}

impl Decoder<'_> {
    /// Skips a value of any type. Returns the bytes of memory that it takes as JSON, approximately. Allocates nothing.
    ///
    /// # Errors
    /// [`ValueError`] where the bytes are not of the type.
    pub fn json_bytes(&mut self, ty: &Type) -> Result<u64, ValueError> {
        self.weigh(ty, 0)
    }

    fn weigh(&mut self, ty: &Type, depth: u32) -> Result<u64, ValueError> {
        self.enter(depth)?;
        let depth = depth + 1;
        let bytes = match ty {
            Type::Option(inner) => match self.tag()? {
                true => self.weigh(inner, depth)?.saturating_add(ARRAY),
                false => 0,
            },
            Type::List(item) => {
                let len = self.bounded_length("list", item)? as u64;
                (0..len).try_fold(ARRAY, |sum, _| add(sum, self.weigh(item, depth)))?
            }
            Type::Map(key, value) => {
                let len = self.bounded_length("map", key)?;
                (0..len).try_fold(OBJECT, |sum, _| {
                    let sum = add(sum, self.weigh(key, depth))?;
                    add(sum.saturating_add(MEMBER + ARRAY), self.weigh(value, depth))
                })?
            }
            Type::Tuple(items) => self.weigh_items(items, depth)?,
            Type::Struct(of) => self.weigh_fields(&of.fields, depth)?,
            Type::Enum(of) => {
                let (_, variant) = self.variant(of)?;
                let held = self.weigh_variant(variant, depth)?;
                held.saturating_add(BYTE * variant.name.len() as u64)
            }
            scalar => match self.scalar(scalar)? {
                Scalar::Text(text) => BYTE * text.len() as u64,
                Scalar::Bytes(bytes) => BYTE * bytes.len() as u64,
                _ => 0,
            },
        };
        Ok(bytes.saturating_add(VALUE))
    }

    fn weigh_items(&mut self, items: &[Type], depth: u32) -> Result<u64, ValueError> {
        items
            .iter()
            .try_fold(ARRAY, |sum, item| add(sum, self.weigh(item, depth)))
    }

    fn weigh_fields(&mut self, fields: &[Field], depth: u32) -> Result<u64, ValueError> {
        fields.iter().try_fold(OBJECT, |sum, field| {
            self.take_parts(parts::of_name(&field.name))?;
            let name = MEMBER + BYTE * field.name.len() as u64;
            add(sum.saturating_add(name), self.weigh(&field.ty, depth))
        })
    }

    fn weigh_variant(&mut self, variant: &Variant, depth: u32) -> Result<u64, ValueError> {
        let held = if let Some(inner) = &variant.newtype {
            self.weigh(inner, depth)?
        } else if let Some(items) = &variant.tuple {
            self.weigh_items(items, depth)?
        } else if let Some(fields) = &variant.fields {
            self.weigh_fields(fields, depth)?
        } else {
            return Ok(0);
        };
        Ok(held.saturating_add(OBJECT + MEMBER))
    }
}

fn add(sum: u64, more: Result<u64, ValueError>) -> Result<u64, ValueError> {
    more.map(|more| sum.saturating_add(more))
}
