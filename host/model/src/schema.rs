//! Types of state values, keys and ports, as a component declares them (`docs/formats/describe.md`).
//!
//! A value is only ever decoded by the schema it was written by. Two schemas are the same when their digests are.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// A struct: its name (for people) and its fields in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StructType {
    /// For people.
    pub name: String,
    /// In the order they are encoded.
    pub fields: Vec<Field>,
}

/// A named, typed field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The name of the field, and of its column.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: Type,
    /// Earlier names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Whether older data may lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
}

/// An enum: its name (for people) and its variants in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnumType {
    /// For people.
    pub name: String,
    /// The position is what is encoded.
    pub variants: Vec<Variant>,
}

/// One variant: at most one of `newtype`, `tuple` and `fields` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

    /// What two equal schemas share.
    #[must_use]
    pub fn digest(&self) -> SchemaDigest {
        SchemaDigest(xxh3_64(self.to_json().as_bytes()))
    }

    /// Whether a value is one plain column: a scalar, or an optional one.
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
}
