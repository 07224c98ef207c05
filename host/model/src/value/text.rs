//! Values as JSON text, written without a tree of JSON in between: a tree takes a hundred times the bytes of its text.

use std::io;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{Type, Value, float};
use crate::schema::{Field, Variant};

/// A value that is written as [`to_json`](super::to_json) renders it.
#[derive(Debug, Clone, Copy)]
pub struct Json<'a>(pub &'a Type, pub &'a Value);

/// Bytes that are written as hex text.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for bytes in self.0.chunks(64) {
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            let text: String = digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect();
            f.write_str(&text)?;
        }
        Ok(())
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(ty, value) = *self;
        match (ty, value) {
            (_, Value::Unit | Value::Option(None)) => to.serialize_unit(),
            (_, Value::Bool(b)) => to.serialize_bool(*b),
            (_, Value::Unsigned(n)) => to.serialize_u64(*n),
            (_, Value::Signed(n)) => to.serialize_i64(*n),
            (_, Value::F32(x)) => float(f64::from(*x), &x.to_string()).serialize(to),
            (_, Value::F64(x)) => float(*x, &x.to_string()).serialize(to),
            (_, Value::Char(c)) => to.serialize_char(*c),
            (_, Value::Text(text)) => to.serialize_str(text),
            (_, Value::Bytes(bytes)) => Hex(bytes).serialize(to),
            (Type::Option(inner), Value::Option(Some(held))) if matches!(**inner, Type::Option(_) | Type::Unit) => {
                to.collect_seq([Json(inner, held)])
            }
            (Type::Option(inner), Value::Option(Some(held))) => Json(inner, held).serialize(to),
            (Type::List(item), Value::Sequence(values)) => to.collect_seq(values.iter().map(|held| Json(item, held))),
            (Type::Tuple(types), Value::Sequence(values)) => items(types, values, to),
            (Type::Struct(of), Value::Sequence(values)) => fields(&of.fields, values, to),
            (Type::Map(key_type, ty), Value::Map(entries)) if **key_type == Type::String => {
                let named = entries.iter().filter_map(|(key, held)| match key {
                    Value::Text(key) => Some((key.as_str(), Json(ty, held))),
                    _ => None,
                });
                members(named, to)
            }
            (Type::Map(key_type, ty), Value::Map(entries)) => {
                to.collect_seq(entries.iter().map(|(key, held)| (Json(key_type, key), Json(ty, held))))
            }
            (Type::Enum(of), Value::Enum(index, held)) => match of.variants.get(*index as usize) {
                Some(variant) if is_unit(variant) => to.serialize_str(&variant.name),
                Some(variant) => to.collect_map([(&variant.name, Held(variant, held))]),
                None => to.serialize_u32(*index),
            },
            (_, other) => to.collect_str(&format_args!("{other:?}")),
        }
    }
}

/// Content of a variant.
struct Held<'a>(&'a Variant, &'a Value);

impl Serialize for Held<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(variant, value) = *self;
        match (&variant.newtype, &variant.tuple, &variant.fields, value) {
            (Some(inner), ..) => Json(inner, value).serialize(to),
            (_, Some(types), _, Value::Sequence(values)) => items(types, values, to),
            (_, None, Some(of), Value::Sequence(values)) => fields(of, values, to),
            (.., other) => Json(&Type::Unit, other).serialize(to),
        }
    }
}

fn is_unit(variant: &Variant) -> bool {
    match &variant.newtype {
        Some(inner) => *inner == Type::Unit,
        None => variant.tuple.is_none() && variant.fields.is_none(),
    }
}

fn items<S: Serializer>(types: &[Type], values: &[Value], to: S) -> Result<S::Ok, S::Error> {
    let mut seq = to.serialize_seq(Some(types.len().min(values.len())))?;
    for (ty, value) in types.iter().zip(values) {
        seq.serialize_element(&Json(ty, value))?;
    }
    seq.end()
}

fn fields<S: Serializer>(fields: &[Field], values: &[Value], to: S) -> Result<S::Ok, S::Error> {
    let named = fields.iter().zip(values);
    members(
        named.map(|(field, value)| (field.name.as_str(), Json(&field.ty, value))),
        to,
    )
}

/// Writes an object. Its members are in the order of their names, and of two with one name the later counts, as in a tree.
fn members<'a, S: Serializer>(named: impl Iterator<Item = (&'a str, Json<'a>)>, to: S) -> Result<S::Ok, S::Error> {
    let mut members: Vec<(&str, Json<'_>)> = named.collect();
    members.sort_by_key(|(name, _)| *name);
    let mut map = to.serialize_map(None)?;
    for (i, (name, value)) in members.iter().enumerate() {
        if members.get(i + 1).is_none_or(|(next, _)| next != name) {
            map.serialize_entry(name, value)?;
        }
    }
    map.end()
}

/// Returns the JSON text of something, cut after so many bytes, with its whole length; the rest is counted and not kept.
#[must_use]
pub fn cut(what: &impl Serialize, max: usize) -> String {
    let mut to = Cut {
        kept: vec![],
        max,
        len: 0,
    };
    // Writing cannot fail.
    let _ = serde_json::to_writer(&mut to, what);
    let Cut { kept, len, .. } = to;
    let whole = match std::str::from_utf8(&kept) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&kept[..error.valid_up_to()]).unwrap_or_default(),
    };
    if whole.len() == len {
        whole.to_owned()
    } else {
        format!("{whole}… ({len} bytes)")
    }
}

/// Keeps the beginning of what is written.
struct Cut {
    kept: Vec<u8>,
    max: usize,
    len: usize,
}

impl io::Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.max.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.len += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
