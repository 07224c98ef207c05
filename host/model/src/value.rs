//! Values by schema: decoded, encoded and shown without the guest that wrote them.
//!
//! The byte layout is bincode 2 as serde drives it (`docs/formats/describe.md`, Encodings). This is the only decoder the
//! host has, so that state and records can be exported, formatted and queried with no guest running.

use serde_json::{Map, Number, json};

use crate::schema::{EnumType, Field, StructType, Type, Variant};

pub mod parts;
pub mod text;
mod weight;

pub use weight::json_bytes;

/// Layout of integers and lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integers {
    /// bincode's standard configuration: state values and typed records.
    Variable,
    /// Fixed width, little-endian: keys.
    Fixed,
}

/// A decoded scalar that borrows from its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "named as the types they hold")]
pub enum Scalar<'a> {
    Unit,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Char(char),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// A decoded value of any type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named as the types they hold")]
pub enum Value {
    Unit,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    Option(Option<Box<Value>>),
    /// A list, a tuple, or the fields of a struct.
    Sequence(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// The variant's position, and what it holds.
    Enum(u32, Box<Value>),
}

/// Reason why bytes are not a value of a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The bytes end too early.
    #[error("the value ends after {len} bytes, inside a {expected}")]
    Short {
        /// Bytes given.
        len: usize,
        /// Type of the value that was read.
        expected: String,
    },
    /// There are bytes after the value.
    #[error("{0} bytes follow the value")]
    Long(usize),
    /// A byte that the type does not allow.
    #[error("found {found} where {expected} was expected")]
    Invalid {
        /// Type of the value that was read.
        expected: String,
        /// Value found.
        found: String,
    },
    /// More parts than a value of its length may have.
    #[error(
        "the value of {len} bytes has more than {most} parts: expected at most {} and {} for each byte, and never more than {} (an item that is encoded as no bytes is a part too: keep the number of such items instead)",
        parts::PARTS_MIN,
        parts::PARTS_PER_BYTE,
        parts::PARTS_MAX
    )]
    Parts {
        /// Bytes given.
        len: usize,
        /// The most parts for them.
        most: usize,
    },
    /// The value cannot be encoded as this type.
    #[error("cannot encode {found} as {expected}")]
    Mismatch {
        /// The type.
        expected: String,
        /// The value.
        found: String,
    },
}

/// Nesting beyond this is refused: hostile schemas must not exhaust the stack.
const DEPTH_MAX: u32 = 64;

/// Limit in bytes to which a value is shown that is not of a type.
const MISMATCH_BYTES_MAX: usize = 200;

/// Reads values off bytes.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    position: usize,
    integers: Integers,
    /// Parts that values may still have.
    parts_left: usize,
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte. The values that are read have no more parts together than one value of so many bytes may
    /// have ([`parts::most`]).
    #[must_use]
    pub fn new(bytes: &'a [u8], integers: Integers) -> Self {
        Self {
            bytes,
            position: 0,
            integers,
            parts_left: parts::most(bytes.len()),
        }
    }

    /// Checks that all bytes were read.
    ///
    /// # Errors
    /// [`ValueError::Long`].
    pub const fn finish(&self) -> Result<(), ValueError> {
        let rest = self.bytes.len() - self.position;
        if rest == 0 { Ok(()) } else { Err(ValueError::Long(rest)) }
    }

    #[inline]
    fn take(&mut self, len: usize, expected: &str) -> Result<&'a [u8], ValueError> {
        let end = self.position.checked_add(len).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(ValueError::Short {
                len: self.bytes.len(),
                expected: expected.to_owned(),
            });
        };
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    #[inline]
    fn fixed(&mut self, width: usize, expected: &str) -> Result<u64, ValueError> {
        let taken = self.take(width, expected)?;
        let mut word = [0u8; 8];
        word[..width].copy_from_slice(taken);
        Ok(u64::from_le_bytes(word))
    }

    /// An unsigned integer of the given width in bytes.
    #[inline]
    fn unsigned(&mut self, width: usize, expected: &str) -> Result<u64, ValueError> {
        if width == 1 || self.integers == Integers::Fixed {
            return self.fixed(width, expected);
        }
        let head = self.fixed(1, expected)?;
        match head {
            0..=250 => Ok(head),
            251 if width >= 2 => self.fixed(2, expected),
            252 if width >= 4 => self.fixed(4, expected),
            253 if width >= 8 => self.fixed(8, expected),
            _ => Err(ValueError::Invalid {
                expected: expected.to_owned(),
                found: format!("length byte {head}"),
            }),
        }
    }

    #[inline]
    fn signed(&mut self, width: usize, expected: &str) -> Result<i64, ValueError> {
        if width == 1 || self.integers == Integers::Fixed {
            let raw = self.fixed(width, expected)?;
            let shift = 64 - 8 * width as u32;
            return Ok(((raw << shift) as i64) >> shift);
        }
        let z = self.unsigned(width, expected)?;
        Ok(((z >> 1) as i64) ^ -((z & 1) as i64))
    }

    fn length(&mut self, expected: &str) -> Result<usize, ValueError> {
        let len = self.unsigned(8, expected)?;
        usize::try_from(len).map_err(|_| ValueError::Short {
            len: self.bytes.len(),
            expected: expected.to_owned(),
        })
    }

    /// Reads a scalar without allocating.
    ///
    /// # Errors
    /// [`ValueError`] where the bytes are not of the type, or the type is no scalar.
    #[inline]
    pub fn scalar(&mut self, ty: &Type) -> Result<Scalar<'a>, ValueError> {
        Ok(match ty {
            Type::Unit => Scalar::Unit,
            Type::Bool => match self.fixed(1, "bool")? {
                0 => Scalar::Bool(false),
                1 => Scalar::Bool(true),
                other => {
                    return Err(ValueError::Invalid {
                        expected: "bool".into(),
                        found: other.to_string(),
                    });
                }
            },
            Type::U8 => Scalar::Unsigned(self.unsigned(1, "u8")?),
            Type::U16 => Scalar::Unsigned(self.unsigned(2, "u16")?),
            Type::U32 => Scalar::Unsigned(self.unsigned(4, "u32")?),
            Type::U64 => Scalar::Unsigned(self.unsigned(8, "u64")?),
            Type::I8 => Scalar::Signed(self.signed(1, "i8")?),
            Type::I16 => Scalar::Signed(self.signed(2, "i16")?),
            Type::I32 => Scalar::Signed(self.signed(4, "i32")?),
            Type::I64 => Scalar::Signed(self.signed(8, "i64")?),
            Type::F32 => Scalar::F32(f32::from_bits(self.fixed(4, "f32")? as u32)),
            Type::F64 => Scalar::F64(f64::from_bits(self.fixed(8, "f64")?)),
            Type::Char => {
                let first = self.bytes.get(self.position).copied().unwrap_or(0);
                let width = match first {
                    0xf0.. => 4,
                    0xe0.. => 3,
                    0xc0.. => 2,
                    _ => 1,
                };
                let taken = self.take(width, "char")?;
                let text = std::str::from_utf8(taken).ok().and_then(|s| s.chars().next());
                Scalar::Char(text.ok_or_else(|| invalid("char", taken))?)
            }
            Type::String => {
                let len = self.length("string")?;
                let taken = self.take(len, "string")?;
                Scalar::Text(std::str::from_utf8(taken).map_err(|_| invalid("UTF-8 text", taken))?)
            }
            Type::Bytes => {
                let len = self.length("bytes")?;
                Scalar::Bytes(self.take(len, "bytes")?)
            }
            other => {
                return Err(ValueError::Invalid {
                    expected: "a scalar type".into(),
                    found: other.to_string(),
                });
            }
        })
    }

    /// Reads a value of any type.
    ///
    /// # Errors
    /// [`ValueError`] where the bytes are not of the type.
    pub fn value(&mut self, ty: &Type) -> Result<Value, ValueError> {
        self.nested(ty, 0)
    }

    fn nested(&mut self, ty: &Type, depth: u32) -> Result<Value, ValueError> {
        self.enter(depth)?;
        let depth = depth + 1;
        Ok(match ty {
            Type::Option(inner) => Value::Option(match self.tag()? {
                false => None,
                true => Some(Box::new(self.nested(inner, depth)?)),
            }),
            Type::List(item) => {
                let len = self.bounded_length("list", item)?;
                Value::Sequence((0..len).map(|_| self.nested(item, depth)).collect::<Result<_, _>>()?)
            }
            Type::Map(key, value) => {
                let len = self.bounded_length("map", key)?;
                let entry = |d: &mut Self| Ok((d.nested(key, depth)?, d.nested(value, depth)?));
                Value::Map((0..len).map(|_| entry(self)).collect::<Result<_, ValueError>>()?)
            }
            Type::Tuple(items) => Value::Sequence(
                items
                    .iter()
                    .map(|item| self.nested(item, depth))
                    .collect::<Result<_, _>>()?,
            ),
            Type::Struct(s) => self.fields(&s.fields, depth)?,
            Type::Enum(e) => {
                let (index, variant) = self.variant(e)?;
                let held = if let Some(inner) = &variant.newtype {
                    self.nested(inner, depth)?
                } else if let Some(items) = &variant.tuple {
                    self.take_parts(1)?;
                    let items = items.iter().map(|item| self.nested(item, depth));
                    Value::Sequence(items.collect::<Result<_, _>>()?)
                } else if let Some(fields) = &variant.fields {
                    self.take_parts(1)?;
                    self.fields(fields, depth)?
                } else {
                    self.take_parts(1)?;
                    Value::Unit
                };
                Value::Enum(index, Box::new(held))
            }
            scalar => match self.scalar(scalar)? {
                Scalar::Unit => Value::Unit,
                Scalar::Bool(b) => Value::Bool(b),
                Scalar::Unsigned(n) => Value::Unsigned(n),
                Scalar::Signed(n) => Value::Signed(n),
                Scalar::F32(x) => Value::F32(x),
                Scalar::F64(x) => Value::F64(x),
                Scalar::Char(c) => Value::Char(c),
                Scalar::Text(s) => Value::Text(s.to_owned()),
                Scalar::Bytes(b) => Value::Bytes(b.to_owned()),
            },
        })
    }

    /// Counts a part, and checks its depth.
    fn enter(&mut self, depth: u32) -> Result<(), ValueError> {
        if depth > DEPTH_MAX {
            return Err(ValueError::Invalid {
                expected: format!("at most {DEPTH_MAX} levels"),
                found: "a deeper type".into(),
            });
        }
        self.take_parts(1)
    }

    /// Counts parts.
    fn take_parts(&mut self, count: usize) -> Result<(), ValueError> {
        let left = self.parts_left.checked_sub(count);
        self.parts_left = left.ok_or_else(|| self.too_many())?;
        Ok(())
    }

    fn too_many(&self) -> ValueError {
        let len = self.bytes.len();
        let most = parts::most(len);
        ValueError::Parts { len, most }
    }

    /// Reads the tag of an option: true if there is a value.
    fn tag(&mut self) -> Result<bool, ValueError> {
        match self.fixed(1, "option")? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(ValueError::Invalid {
                expected: "option".into(),
                found: other.to_string(),
            }),
        }
    }

    /// Reads the fields of a struct.
    fn fields(&mut self, fields: &[Field], depth: u32) -> Result<Value, ValueError> {
        let read = fields.iter().map(|field| {
            self.take_parts(parts::of_name(&field.name))?;
            self.nested(&field.ty, depth)
        });
        Ok(Value::Sequence(read.collect::<Result<_, _>>()?))
    }

    /// Reads which variant of an enum a value is.
    fn variant<'t>(&mut self, of: &'t EnumType) -> Result<(u32, &'t Variant), ValueError> {
        let index = self.unsigned(4, "enum")? as u32;
        let variant = of.variants.get(index as usize).ok_or_else(|| ValueError::Invalid {
            expected: format!("one of {} variants of {}", of.variants.len(), of.name),
            found: format!("variant {index}"),
        })?;
        self.take_parts(parts::of_name(&variant.name))?;
        Ok((index, variant))
    }

    /// Reads a length that the remaining bytes and parts can hold.
    fn bounded_length(&mut self, expected: &str, item: &Type) -> Result<usize, ValueError> {
        let len = self.length(expected)?;
        let rest = self.bytes.len() - self.position;
        let may_be_empty = matches!(item, Type::Unit | Type::Tuple(_) | Type::Struct(_));
        if len > rest && !may_be_empty {
            return Err(ValueError::Short {
                len: self.bytes.len(),
                expected: format!("{expected} of {len} items"),
            });
        }
        if len > self.parts_left {
            return Err(self.too_many());
        }
        Ok(len)
    }
}

fn invalid(expected: &str, found: &[u8]) -> ValueError {
    let shown: String = found.iter().take(16).map(|b| format!("{b:02x}")).collect();
    ValueError::Invalid {
        expected: expected.to_owned(),
        found: format!("bytes {shown}"),
    }
}

/// Decodes one whole value.
///
/// # Errors
/// [`ValueError`] where the bytes are not exactly one value of the type.
pub fn decode(ty: &Type, bytes: &[u8]) -> Result<Value, ValueError> {
    let mut decoder = Decoder::new(bytes, Integers::Variable);
    let value = decoder.value(ty)?;
    decoder.finish()?;
    Ok(value)
}

/// Encodes a value, appending to `out`.
///
/// # Errors
/// [`ValueError::Mismatch`] where the value is not of the type.
pub fn encode(ty: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), ValueError> {
    encode_as(ty, value, Integers::Variable, out)
}

/// Decodes a key: text and bytes raw, anything else in fixed width.
///
/// # Errors
/// [`ValueError`] where the bytes are not exactly one key of the type.
pub fn decode_key(ty: &Type, bytes: &[u8]) -> Result<Value, ValueError> {
    match ty {
        Type::String => std::str::from_utf8(bytes)
            .map(|s| Value::Text(s.to_owned()))
            .map_err(|_| invalid("UTF-8 text", bytes)),
        Type::Bytes => Ok(Value::Bytes(bytes.to_owned())),
        other => {
            let mut decoder = Decoder::new(bytes, Integers::Fixed);
            let value = decoder.value(other)?;
            decoder.finish()?;
            Ok(value)
        }
    }
}

/// Encodes a key, appending to `out`.
///
/// # Errors
/// [`ValueError::Mismatch`] where the value is not of the type.
pub fn encode_key(ty: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match (ty, value) {
        (Type::String, Value::Text(s)) => out.extend_from_slice(s.as_bytes()),
        (Type::Bytes, Value::Bytes(b)) => out.extend_from_slice(b),
        _ => return encode_as(ty, value, Integers::Fixed, out),
    }
    Ok(())
}

fn put_unsigned(n: u64, width: usize, integers: Integers, out: &mut Vec<u8>) {
    if width == 1 || integers == Integers::Fixed {
        out.extend_from_slice(&n.to_le_bytes()[..width]);
    } else if n <= 250 {
        out.push(n as u8);
    } else if let Ok(n) = u16::try_from(n) {
        out.push(251);
        out.extend_from_slice(&n.to_le_bytes());
    } else if let Ok(n) = u32::try_from(n) {
        out.push(252);
        out.extend_from_slice(&n.to_le_bytes());
    } else {
        out.push(253);
        out.extend_from_slice(&n.to_le_bytes());
    }
}

fn put_signed(n: i64, width: usize, integers: Integers, out: &mut Vec<u8>) {
    if width == 1 || integers == Integers::Fixed {
        out.extend_from_slice(&n.to_le_bytes()[..width]);
    } else {
        put_unsigned(((n << 1) ^ (n >> 63)) as u64, width, integers, out);
    }
}

/// The width in bytes of an integer type.
const fn width(ty: &Type) -> usize {
    match ty {
        Type::U8 | Type::I8 => 1,
        Type::U16 | Type::I16 => 2,
        Type::U32 | Type::I32 => 4,
        _ => 8,
    }
}

fn fits(n: i128, ty: &Type) -> bool {
    let (low, high) = match ty {
        Type::U8 => (0, i128::from(u8::MAX)),
        Type::U16 => (0, i128::from(u16::MAX)),
        Type::U32 => (0, i128::from(u32::MAX)),
        Type::U64 => (0, i128::from(u64::MAX)),
        Type::I8 => (i128::from(i8::MIN), i128::from(i8::MAX)),
        Type::I16 => (i128::from(i16::MIN), i128::from(i16::MAX)),
        Type::I32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    n >= low && n <= high
}

fn encode_as(ty: &Type, value: &Value, integers: Integers, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let len = |n: usize, out: &mut Vec<u8>| put_unsigned(n as u64, 8, integers, out);
    match (ty, value) {
        (Type::Unit, Value::Unit) => {}
        (Type::Bool, Value::Bool(b)) => out.push(u8::from(*b)),
        (Type::U8 | Type::U16 | Type::U32 | Type::U64, Value::Unsigned(n)) if fits(i128::from(*n), ty) => {
            put_unsigned(*n, width(ty), integers, out);
        }
        (Type::I8 | Type::I16 | Type::I32 | Type::I64, Value::Signed(n)) if fits(i128::from(*n), ty) => {
            put_signed(*n, width(ty), integers, out);
        }
        (Type::F32, Value::F32(x)) => out.extend_from_slice(&x.to_le_bytes()),
        (Type::F64, Value::F64(x)) => out.extend_from_slice(&x.to_le_bytes()),
        (Type::Char, Value::Char(c)) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        (Type::String, Value::Text(s)) => {
            len(s.len(), out);
            out.extend_from_slice(s.as_bytes());
        }
        (Type::Bytes, Value::Bytes(b)) => {
            len(b.len(), out);
            out.extend_from_slice(b);
        }
        (Type::Option(_), Value::Option(None)) => out.push(0),
        (Type::Option(inner), Value::Option(Some(value))) => {
            out.push(1);
            encode_as(inner, value, integers, out)?;
        }
        (Type::List(item), Value::Sequence(values)) => {
            len(values.len(), out);
            for value in values {
                encode_as(item, value, integers, out)?;
            }
        }
        (Type::Map(key_type, value_type), Value::Map(entries)) => {
            len(entries.len(), out);
            for (key, value) in entries {
                encode_as(key_type, key, integers, out)?;
                encode_as(value_type, value, integers, out)?;
            }
        }
        (Type::Tuple(items), Value::Sequence(values)) if items.len() == values.len() => {
            for (item, value) in items.iter().zip(values) {
                encode_as(item, value, integers, out)?;
            }
        }
        (Type::Struct(s), Value::Sequence(values)) if s.fields.len() == values.len() => {
            for (field, value) in s.fields.iter().zip(values) {
                encode_as(&field.ty, value, integers, out)?;
            }
        }
        (Type::Enum(e), Value::Enum(index, held)) if (*index as usize) < e.variants.len() => {
            put_unsigned(u64::from(*index), 4, integers, out);
            let held_type = variant_type(&e.variants[*index as usize]);
            encode_as(&held_type, held, integers, out)?;
        }
        _ => {
            return Err(ValueError::Mismatch {
                expected: ty.to_string(),
                found: text::cut(&text::Json(ty, value), MISMATCH_BYTES_MAX),
            });
        }
    }
    Ok(())
}

/// Returns the content of a variant as a type.
fn variant_type(variant: &crate::schema::Variant) -> Type {
    if let Some(inner) = &variant.newtype {
        inner.clone()
    } else if let Some(items) = &variant.tuple {
        Type::Tuple(items.clone())
    } else if let Some(fields) = &variant.fields {
        Type::Struct(StructType {
            name: variant.name.clone(),
            fields: fields.clone(),
        })
    } else {
        Type::Unit
    }
}

/// A value as JSON, the way people read it: structs as objects, enums externally tagged, bytes as hex text.
/// Maps with text keys are objects, others lists of pairs. A float that JSON has no number for is its text.
#[must_use]
pub fn to_json(ty: &Type, value: &Value) -> serde_json::Value {
    match (ty, value) {
        (_, Value::Unit | Value::Option(None)) => serde_json::Value::Null,
        (_, Value::Bool(b)) => json!(b),
        (_, Value::Unsigned(n)) => json!(n),
        (_, Value::Signed(n)) => json!(n),
        (_, Value::F32(x)) => float(f64::from(*x), &x.to_string()),
        (_, Value::F64(x)) => float(*x, &x.to_string()),
        (_, Value::Char(c)) => json!(c.to_string()),
        (_, Value::Text(s)) => json!(s),
        (_, Value::Bytes(b)) => json!(hex(b)),
        // An option in an option would be ambiguous as bare null.
        (Type::Option(inner), Value::Option(Some(v))) if matches!(**inner, Type::Option(_) | Type::Unit) => {
            json!([to_json(inner, v)])
        }
        (Type::Option(inner), Value::Option(Some(v))) => to_json(inner, v),
        (Type::List(item), Value::Sequence(values)) => values.iter().map(|v| to_json(item, v)).collect(),
        (Type::Tuple(items), Value::Sequence(values)) => {
            items.iter().zip(values).map(|(item, v)| to_json(item, v)).collect()
        }
        (Type::Struct(s), Value::Sequence(values)) => object(&s.fields, values),
        (Type::Map(key_type, value_type), Value::Map(entries)) if **key_type == Type::String => {
            let mut map = Map::new();
            for (key, value) in entries {
                if let Value::Text(key) = key {
                    map.insert(key.clone(), to_json(value_type, value));
                }
            }
            serde_json::Value::Object(map)
        }
        (Type::Map(key_type, value_type), Value::Map(entries)) => entries
            .iter()
            .map(|(k, v)| json!([to_json(key_type, k), to_json(value_type, v)]))
            .collect(),
        (Type::Enum(e), Value::Enum(index, held)) => match e.variants.get(*index as usize) {
            Some(variant) if matches!(variant_type(variant), Type::Unit) => json!(variant.name),
            Some(variant) => {
                let mut map = Map::new();
                map.insert(variant.name.clone(), to_json(&variant_type(variant), held));
                serde_json::Value::Object(map)
            }
            None => json!(index),
        },
        (_, other) => json!(format!("{other:?}")),
    }
}

fn object(fields: &[Field], values: &[Value]) -> serde_json::Value {
    let mut map = Map::new();
    for (field, value) in fields.iter().zip(values) {
        map.insert(field.name.clone(), to_json(&field.ty, value));
    }
    serde_json::Value::Object(map)
}

fn float(x: f64, text: &str) -> serde_json::Value {
    // NaN's payload is not kept; ordinary tools have no word for it.
    if x.is_finite() {
        // The shortest text of an f32 is what people wrote; its exact value is not.
        text.parse()
            .ok()
            .and_then(Number::from_f64)
            .map_or_else(|| json!(text), serde_json::Value::Number)
    } else {
        json!(text)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
            let _ = write!(text, "{b:02x}");
            text
        })
}

/// The inverse of [`to_json`].
///
/// # Errors
/// [`ValueError::Mismatch`] where the JSON is not such a value.
pub fn from_json(ty: &Type, json: &serde_json::Value) -> Result<Value, ValueError> {
    let mismatch = || ValueError::Mismatch {
        expected: ty.to_string(),
        found: text::cut(json, MISMATCH_BYTES_MAX),
    };
    let pairs = |k: &Type, v: &Type| -> Result<Vec<(Value, Value)>, ValueError> {
        if let (Type::String, Some(map)) = (k, json.as_object()) {
            return map
                .iter()
                .map(|(key, value)| Ok((Value::Text(key.clone()), from_json(v, value)?)))
                .collect();
        }
        let items = json.as_array().ok_or_else(mismatch)?;
        items
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([key, value]) => Ok((from_json(k, key)?, from_json(v, value)?)),
                _ => Err(mismatch()),
            })
            .collect()
    };
    Ok(match ty {
        Type::Unit => json.is_null().then_some(Value::Unit).ok_or_else(mismatch)?,
        Type::Bool => Value::Bool(json.as_bool().ok_or_else(mismatch)?),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            let n = json
                .as_u64()
                .filter(|n| fits(i128::from(*n), ty))
                .ok_or_else(mismatch)?;
            Value::Unsigned(n)
        }
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => {
            let n = json
                .as_i64()
                .filter(|n| fits(i128::from(*n), ty))
                .ok_or_else(mismatch)?;
            Value::Signed(n)
        }
        Type::F32 => Value::F32(match json.as_str() {
            Some(text) => text.parse().map_err(|_| mismatch())?,
            None => json.to_string().parse().map_err(|_| mismatch())?,
        }),
        Type::F64 => Value::F64(match json.as_str() {
            Some(text) => text.parse().map_err(|_| mismatch())?,
            None => json.as_f64().ok_or_else(mismatch)?,
        }),
        Type::Char => {
            let mut chars = json.as_str().ok_or_else(mismatch)?.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Value::Char(c),
                _ => return Err(mismatch()),
            }
        }
        Type::String => Value::Text(json.as_str().ok_or_else(mismatch)?.to_owned()),
        Type::Bytes => Value::Bytes(unhex(json.as_str().ok_or_else(mismatch)?).ok_or_else(mismatch)?),
        Type::Option(_) if json.is_null() => Value::Option(None),
        Type::Option(inner) if matches!(**inner, Type::Option(_) | Type::Unit) => {
            let item = json.as_array().filter(|a| a.len() == 1).ok_or_else(mismatch)?;
            Value::Option(Some(Box::new(from_json(inner, &item[0])?)))
        }
        Type::Option(inner) => Value::Option(Some(Box::new(from_json(inner, json)?))),
        Type::List(item) => {
            let items = json.as_array().ok_or_else(mismatch)?;
            Value::Sequence(items.iter().map(|v| from_json(item, v)).collect::<Result<_, _>>()?)
        }
        Type::Tuple(types) => {
            let items = json
                .as_array()
                .filter(|a| a.len() == types.len())
                .ok_or_else(mismatch)?;
            Value::Sequence(
                types
                    .iter()
                    .zip(items)
                    .map(|(t, v)| from_json(t, v))
                    .collect::<Result<_, _>>()?,
            )
        }
        Type::Struct(s) => {
            let map = json.as_object().ok_or_else(mismatch)?;
            let get = |f: &Field| from_json(&f.ty, map.get(&f.name).unwrap_or(&serde_json::Value::Null));
            Value::Sequence(s.fields.iter().map(get).collect::<Result<_, _>>()?)
        }
        Type::Map(key, value) => Value::Map(pairs(key, value)?),
        Type::Enum(e) => {
            let (name, held) = match json {
                serde_json::Value::String(name) => (name, &serde_json::Value::Null),
                serde_json::Value::Object(map) if map.len() == 1 => map.iter().next().ok_or_else(mismatch)?,
                _ => return Err(mismatch()),
            };
            let index = e.variants.iter().position(|v| v.name == *name).ok_or_else(mismatch)?;
            Value::Enum(
                index as u32,
                Box::new(from_json(&variant_type(&e.variants[index]), held)?),
            )
        }
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests;
