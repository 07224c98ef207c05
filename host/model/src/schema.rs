//! Types of state values, keys and ports, as a component declares them (`docs/formats/describe.md`).
//!
//! A value is only ever decoded by the schema it was written by. Two schemas are the same when their digests are:
//! a list of `u8` and `bytes` have the same bytes, and are one schema.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The type of a value. A logical type, as `{"logical":["date","i32"]}`, is read as the type that it is encoded as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "Written")]
#[allow(missing_docs, reason = "the scalar variants are Rust's own types of that name")]
pub enum Type {
    Unit,
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    Char,
    String,
    Bytes,
    /// May be absent.
    Option(Box<Type>),
    /// Any number of items.
    List(Box<Type>),
    /// Keys and values.
    Map(Box<Type>, Box<Type>),
    /// A fixed number of items without names.
    Tuple(Vec<Type>),
    /// Named fields in order.
    Struct(StructType),
    /// One of several variants.
    Enum(EnumType),
}

/// A type as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    Unit,
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    Char,
    String,
    Bytes,
    Option(Box<Type>),
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Tuple(Vec<Type>),
    Struct(StructType),
    Enum(EnumType),
    /// Its name, and the type that it is encoded as.
    Logical(
        #[expect(dead_code, reason = "this host does nothing with a name but check that it is a text")] String,
        Box<Type>,
    ),
}

impl From<Written> for Type {
    fn from(written: Written) -> Self {
        match written {
            Written::Unit => Self::Unit,
            Written::Bool => Self::Bool,
            Written::U8 => Self::U8,
            Written::U16 => Self::U16,
            Written::U32 => Self::U32,
            Written::U64 => Self::U64,
            Written::I8 => Self::I8,
            Written::I16 => Self::I16,
            Written::I32 => Self::I32,
            Written::I64 => Self::I64,
            Written::F32 => Self::F32,
            Written::F64 => Self::F64,
            Written::Char => Self::Char,
            Written::String => Self::String,
            Written::Bytes => Self::Bytes,
            Written::Option(inner) => Self::Option(inner),
            Written::List(item) => Self::List(item),
            Written::Map(key, value) => Self::Map(key, value),
            Written::Tuple(items) => Self::Tuple(items),
            Written::Struct(inner) => Self::Struct(inner),
            Written::Enum(inner) => Self::Enum(inner),
            Written::Logical(_, physical) => *physical,
        }
    }
}

/// A struct: its name (for people) and its fields in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StructType {
    /// For people.
    pub name: String,
    /// In the order they are encoded.
    pub fields: Vec<Field>,
}

/// A named, typed field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The name of the field, and of its column.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: Type,
    /// Earlier names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// True if older data may lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
}

/// An enum: its name (for people) and its variants in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnumType {
    /// For people.
    pub name: String,
    /// The position is what is encoded.
    pub variants: Vec<Variant>,
}

/// One variant: at most one of `newtype`, `tuple` and `fields` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The variant's name.
    pub name: String,
    /// The one value it holds.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub newtype: Option<Type>,
    /// The values it holds, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple: Option<Vec<Type>>,
    /// The named values it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<Field>>,
    /// Earlier names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// XXH3-64 of a schema's canonical JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaDigest(pub u64);

impl fmt::Display for SchemaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Type {
    /// The canonical JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns what two equal schemas share: the digest of the canonical JSON in which every list of `u8` is `bytes`.
    #[must_use]
    pub fn digest(&self) -> SchemaDigest {
        let mut same = self.clone();
        same.lists_to_bytes();
        same.digest_as_written()
    }

    /// Returns the digest of the canonical JSON as it is. Savepoints of the first releases have it for lists of `u8`.
    #[must_use]
    pub fn digest_as_written(&self) -> SchemaDigest {
        SchemaDigest(xxh3_64(self.to_json().as_bytes()))
    }

    /// Replaces every list of `u8` by `bytes`.
    fn lists_to_bytes(&mut self) {
        match self {
            Self::List(item) if **item == Self::U8 => *self = Self::Bytes,
            Self::Option(inner) | Self::List(inner) => inner.lists_to_bytes(),
            Self::Map(key, value) => {
                key.lists_to_bytes();
                value.lists_to_bytes();
            }
            Self::Tuple(items) => items.iter_mut().for_each(Self::lists_to_bytes),
            Self::Struct(inner) => fields_to_bytes(&mut inner.fields),
            Self::Enum(inner) => inner.variants.iter_mut().for_each(|variant| {
                variant.newtype.iter_mut().for_each(Self::lists_to_bytes);
                variant.tuple.iter_mut().flatten().for_each(Self::lists_to_bytes);
                variant.fields.iter_mut().for_each(|fields| fields_to_bytes(fields));
            }),
            _ => {}
        }
    }

    /// Returns true if a value is one plain column: a scalar, or an optional one.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        !matches!(
            self,
            Self::Option(_) | Self::List(_) | Self::Map(..) | Self::Tuple(_) | Self::Struct(_) | Self::Enum(_)
        )
    }
}

/// Short, as people write types: `u64`, `Session {clicks: u64, last: i64?}`.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(inner) => write!(f, "{inner}?"),
            Self::List(item) => write!(f, "[{item}]"),
            Self::Map(key, value) => write!(f, "{{{key}: {value}}}"),
            Self::Tuple(items) => {
                f.write_str("(")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::Struct(s) => write!(f, "{} {{{}}}", s.name, FieldList(&s.fields)),
            Self::Enum(e) => {
                write!(f, "{} <", e.name)?;
                for (i, variant) in e.variants.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { " | " }, variant.name)?;
                    if let Some(inner) = &variant.newtype {
                        write!(f, "({inner})")?;
                    } else if let Some(items) = &variant.tuple {
                        write!(f, "{}", Self::Tuple(items.clone()))?;
                    } else if let Some(fields) = &variant.fields {
                        write!(f, " {{{}}}", FieldList(fields))?;
                    }
                }
                f.write_str(">")
            }
            scalar => f.write_str(scalar.to_json().trim_matches('"')),
        }
    }
}

fn fields_to_bytes(fields: &mut [Field]) {
    fields.iter_mut().for_each(|field| field.ty.lists_to_bytes());
}

struct FieldList<'a>(&'a [Field]);

impl fmt::Display for FieldList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, field) in self.0.iter().enumerate() {
            write!(f, "{}{}: {}", if i == 0 { "" } else { ", " }, field.name, field.ty)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_as_documented() {
        let text = r#"{"struct":{"name":"Session","fields":[{"name":"clicks","type":"u64"},{"name":"pages","type":{"map":["string","u32"]},"aliases":["urls"],"default":true},{"name":"kind","type":{"enum":{"name":"Kind","variants":[{"name":"A"},{"name":"B","type":"i64"},{"name":"C","tuple":["u8","f64"]},{"name":"D","fields":[{"name":"x","type":{"option":"bool"}}]}]}}}]}}"#;
        let ty: Type = serde_json::from_str(text).expect("documented JSON");
        assert_eq!(ty.to_json(), text);
        assert_eq!(
            ty.to_string(),
            "Session {clicks: u64, pages: {string: u32}, kind: Kind <A | B(i64) | C(u8, f64) | D {x: bool?}>}"
        );
        assert_ne!(ty.digest(), Type::U64.digest());
    }

    #[test]
    fn a_logical_type_is_read_as_what_it_is_encoded_as() {
        let text = r#"{"option":{"logical":["decimal(18,2)","bytes"]}}"#;
        let ty: Type = serde_json::from_str(text).expect("documented JSON");
        assert_eq!(ty, Type::Option(Box::new(Type::Bytes)));
    }

    #[test]
    fn a_list_of_bytes_is_bytes() {
        let list = || Type::List(Box::new(Type::U8));
        let record = |ty: Type| {
            let field = |name: &str, ty| Field {
                name: name.to_owned(),
                ty,
                aliases: vec![],
                default: false,
            };
            let variant = Variant {
                name: "V".to_owned(),
                newtype: None,
                tuple: Some(vec![ty.clone()]),
                fields: Some(vec![field("c", ty.clone())]),
                aliases: vec![],
            };
            Type::Struct(StructType {
                name: "R".to_owned(),
                fields: vec![
                    field(
                        "a",
                        Type::Map(Box::new(Type::U64), Box::new(Type::Option(Box::new(ty)))),
                    ),
                    field(
                        "b",
                        Type::Enum(EnumType {
                            name: "E".to_owned(),
                            variants: vec![variant],
                        }),
                    ),
                ],
            })
        };
        assert_eq!(list().digest(), Type::Bytes.digest());
        assert_eq!(record(list()).digest(), record(Type::Bytes).digest());
        assert_ne!(list().digest_as_written(), list().digest());
        assert_eq!(Type::Bytes.digest_as_written(), Type::Bytes.digest());
        assert_ne!(record(Type::List(Box::new(Type::I8))).digest(), record(list()).digest());
    }
}
