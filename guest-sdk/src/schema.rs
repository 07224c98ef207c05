//! Schemas: descriptions of types for readers without the type, which are the host, `plan` and savepoint rows.
//!
//! A schema is compared by the digest of its canonical JSON (`docs/formats/describe.md`), so what is written here is a
//! format: object keys in that document's order, nothing where the default holds, no white space.

use crate::codec;
use crate::error::Error;
use crate::plain::{self, Plain as _};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

/// Maximum depth of nested types. A deeper type is taken to contain itself, which a schema cannot describe.
const DEPTH_MAX: usize = 64;

/// The schema of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A type without parts, by its name in the format: `u64`, `string`.
    Basic(&'static str),
    /// May be absent.
    Option(Box<Type>),
    /// Any number of items.
    List(Box<Type>),
    /// Key and value.
    Map(Box<Type>, Box<Type>),
    /// A fixed number of parts without names.
    Tuple(Vec<Type>),
    /// Named fields.
    Struct(Struct),
    /// One of several variants.
    Enum(Enum),
}

/// A struct with named fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    /// Its name, by serde.
    pub name: &'static str,
    /// In the order they are encoded.
    pub fields: Vec<Field>,
}

/// A field of a struct or of a variant; also a key with its column name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, by serde.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Names that older data may have it by.
    pub aliases: Vec<&'static str>,
    /// True if it may be absent in older data.
    pub default: bool,
}

/// An enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enum {
    /// Its name, by serde.
    pub name: &'static str,
    /// In the order of their numbers.
    pub variants: Vec<Variant>,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name, by serde.
    pub name: &'static str,
    /// Its content.
    pub content: Content,
    /// Names that older data may have it by.
    pub aliases: Vec<&'static str>,
}

/// Content of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Unit,
    /// One value.
    Newtype(Type),
    /// Several values.
    Tuple(Vec<Type>),
    /// Named fields.
    Fields(Vec<Field>),
}

/// A type whose schema is known, so that values of it can be state.
///
/// `#[derive(State)]` beside serde's derives is the way to implement it. It follows `serde(rename)`, `rename_all`,
/// `alias`, `default`, `skip` and `transparent`, and `#[state(alias = "old_name")]` adds a name by which older values
/// have a field. What a compact encoding cannot hold is refused at compile time: `flatten`, untagged and
/// internally or adjacently tagged enums, `skip_serializing_if`, and conversions that hide the type (`with`, `into`,
/// `from`), unless `#[state(as = "TYPE")]` says what is really encoded.
///
/// An implementation by hand must give exactly what the type's `Serialize` and `Deserialize` do.
///
/// ```compile_fail
/// # use regraft_sdk::State; use serde::{Serialize, Deserialize};
/// # #[derive(State, Serialize, Deserialize)] struct Inner { a: u8 }
/// #[derive(State, Serialize, Deserialize)]
/// struct Outer {
///     #[serde(flatten)] // refused
///     inner: Inner,
/// }
/// ```
///
/// ```compile_fail
/// # use regraft_sdk::State; use serde::{Serialize, Deserialize};
/// #[derive(State, Serialize, Deserialize)]
/// #[serde(tag = "kind")] // refused
/// enum Event {
///     Click { x: u32 },
/// }
/// ```
///
/// ```compile_fail
/// # use regraft_sdk::State; use serde::{Serialize, Deserialize};
/// #[derive(State, Serialize, Deserialize)]
/// struct Sparse {
///     #[serde(skip_serializing_if = "Option::is_none")] // refused
///     note: Option<String>,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no schema, so it cannot be (part of) state or a record",
    note = "derive it: `#[derive(State, Serialize, Deserialize)]`"
)]
pub trait State {
    /// True if a field of this type may be absent in older data without an attribute, as `Option` in serde.
    const OPTIONAL: bool = false;

    /// The schema. The same at every call.
    fn schema() -> Type;

    /// The schema of any number of these in a row.
    #[doc(hidden)]
    fn list_schema() -> Type
    where
        Self: Sized,
    {
        Type::List(Box::new(Self::schema()))
    }

    /// Reads any number of these in a shorter way than serde's, as [`read_plain`](Self::read_plain) does one.
    #[doc(hidden)]
    #[inline(always)]
    fn read_plain_list(_bytes: &[u8]) -> Option<Vec<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// Writes any number of these in a shorter way than serde's, as [`write_plain`](Self::write_plain) does one.
    #[doc(hidden)]
    #[inline(always)]
    fn write_plain_list(_items: &[Self], _to: &mut Vec<u8>) -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Reads a value in a shorter way than serde's, where there is one: `None` where there is none, or where the bytes
    /// are not what they should be.
    #[doc(hidden)]
    #[inline(always)]
    fn read_plain(_bytes: &[u8]) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Writes a value in a shorter way than serde's, where there is one. False where there is none.
    #[doc(hidden)]
    #[inline(always)]
    fn write_plain(&self, _to: &mut Vec<u8>) -> bool {
        false
    }
}

/// Reads a value, which must take up all of `bytes`.
#[inline(always)]
pub(crate) fn decode<'a, T: State + Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    match T::read_plain(bytes) {
        Some(value) => Ok(value),
        None => codec::decode(bytes),
    }
}

/// Appends a value.
#[inline(always)]
pub(crate) fn encode<T: State + Serialize + ?Sized>(value: &T, to: &mut Vec<u8>) -> Result<(), Error> {
    if value.write_plain(to) {
        return Ok(());
    }
    codec::encode(value, to)
}

/// A struct with named fields, which are the columns of a typed record. Implemented by `#[derive(State)]`, which goes
/// by the name `#[derive(Record)]` too.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no record: it has no named columns",
    note = "a record is a struct with named fields and `#[derive(Record, Serialize, Deserialize)]`; raw values are `str` and `[u8]`"
)]
pub trait Record: State {}

impl Type {
    /// The canonical JSON of this type.
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        self.write_json(&mut json);
        json
    }

    pub(crate) fn write_json(&self, to: &mut String) {
        match self {
            Type::Basic(name) => write_string(name, to),
            Type::Option(inner) => object(to, "option", |to| inner.write_json(to)),
            Type::List(inner) => object(to, "list", |to| inner.write_json(to)),
            Type::Map(key, value) => object(to, "map", |to| {
                to.push('[');
                key.write_json(to);
                to.push(',');
                value.write_json(to);
                to.push(']');
            }),
            Type::Tuple(parts) => object(to, "tuple", |to| write_list(parts, to, Type::write_json)),
            Type::Struct(inner) => object(to, "struct", |to| inner.write_json(to)),
            Type::Enum(inner) => object(to, "enum", |to| inner.write_json(to)),
        }
    }
}

impl Struct {
    pub(crate) fn write_json(&self, to: &mut String) {
        to.push_str("{\"name\":");
        write_string(self.name, to);
        to.push_str(",\"fields\":");
        write_list(&self.fields, to, Field::write_json);
        to.push('}');
    }
}

impl Field {
    /// A field by one name, which must be there.
    pub(crate) fn plain(name: String, ty: Type) -> Self {
        Field {
            name,
            ty,
            aliases: Vec::new(),
            default: false,
        }
    }

    pub(crate) fn write_json(&self, to: &mut String) {
        to.push_str("{\"name\":");
        write_string(&self.name, to);
        to.push_str(",\"type\":");
        self.ty.write_json(to);
        write_aliases(&self.aliases, to);
        if self.default {
            to.push_str(",\"default\":true");
        }
        to.push('}');
    }
}

impl Enum {
    fn write_json(&self, to: &mut String) {
        to.push_str("{\"name\":");
        write_string(self.name, to);
        to.push_str(",\"variants\":");
        write_list(&self.variants, to, Variant::write_json);
        to.push('}');
    }
}

impl Variant {
    fn write_json(&self, to: &mut String) {
        to.push_str("{\"name\":");
        write_string(self.name, to);
        match &self.content {
            Content::Unit => {}
            Content::Newtype(ty) => {
                to.push_str(",\"type\":");
                ty.write_json(to);
            }
            Content::Tuple(parts) => {
                to.push_str(",\"tuple\":");
                write_list(parts, to, Type::write_json);
            }
            Content::Fields(fields) => {
                to.push_str(",\"fields\":");
                write_list(fields, to, Field::write_json);
            }
        }
        write_aliases(&self.aliases, to);
        to.push('}');
    }
}

fn object(to: &mut String, key: &str, value: impl FnOnce(&mut String)) {
    to.push('{');
    write_string(key, to);
    to.push(':');
    value(to);
    to.push('}');
}

pub(crate) fn write_list<T>(items: &[T], to: &mut String, write: impl Fn(&T, &mut String)) {
    to.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            to.push(',');
        }
        write(item, to);
    }
    to.push(']');
}

fn write_aliases(aliases: &[&'static str], to: &mut String) {
    if !aliases.is_empty() {
        to.push_str(",\"aliases\":");
        write_list(aliases, to, |alias, to| write_string(alias, to));
    }
}

/// Writes a JSON string, escaping no more than JSON demands.
pub(crate) fn write_string(text: &str, to: &mut String) {
    to.push('"');
    for c in text.chars() {
        match c {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            '\u{8}' => to.push_str("\\b"),
            '\u{c}' => to.push_str("\\f"),
            c if c < ' ' => {
                // Writing to a string cannot fail.
                let _ = write!(to, "\\u{:04x}", c as u32);
            }
            c => to.push(c),
        }
    }
    to.push('"');
}

thread_local! {
    static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Guards the schema of a named type against types that contain themselves. Called by the derived code.
///
/// # Panics
///
/// When types nest deeper than 64.
#[doc(hidden)]
pub fn nested(name: &'static str, schema: impl FnOnce() -> Type) -> Type {
    let depth = DEPTH.get();
    assert!(
        depth < DEPTH_MAX,
        "type `{name}` contains itself, or nests deeper than {DEPTH_MAX}: it has no schema"
    );
    DEPTH.set(depth + 1);
    let ty = schema();
    DEPTH.set(depth);
    ty
}

/// A field, for the derived code.
#[doc(hidden)]
pub fn field<T: State + ?Sized>(name: &'static str, aliases: &[&'static str], default: bool) -> Field {
    Field {
        name: name.into(),
        ty: T::schema(),
        aliases: aliases.to_vec(),
        default: default || T::OPTIONAL,
    }
}

macro_rules! basic {
    ($($name:literal: $($ty:ty),+;)+) => {$($(
        impl State for $ty {
            fn schema() -> Type {
                Type::Basic($name)
            }
        }
    )+)+};
}

macro_rules! plain {
    ($($ty:ident)+) => {$(
        impl State for $ty {
            fn schema() -> Type {
                Type::Basic(stringify!($ty))
            }
            #[inline(always)]
            fn read_plain(bytes: &[u8]) -> Option<Self> {
                plain::read(bytes, Self::read)
            }
            #[inline(always)]
            fn write_plain(&self, to: &mut Vec<u8>) -> bool {
                plain::write(to, 1, |room| self.write(room));
                true
            }
        }
    )+};
}

plain!(bool u16 u32 u64 i8 i16 i32 i64 f32 f64);

/// Any number of them are `bytes`: they are encoded alike.
impl State for u8 {
    fn schema() -> Type {
        Type::Basic("u8")
    }
    fn list_schema() -> Type {
        Type::Basic("bytes")
    }
    #[inline(always)]
    fn read_plain_list(bytes: &[u8]) -> Option<Vec<Self>> {
        plain::read_bytes(bytes).map(<[u8]>::to_vec)
    }
    #[inline(always)]
    fn write_plain_list(items: &[Self], to: &mut Vec<u8>) -> bool {
        plain::write_bytes(items, to);
        true
    }
    #[inline(always)]
    fn read_plain(bytes: &[u8]) -> Option<Self> {
        plain::read(bytes, Self::read)
    }
    #[inline(always)]
    fn write_plain(&self, to: &mut Vec<u8>) -> bool {
        plain::write(to, 1, |room| self.write(room));
        true
    }
}

basic! {
    "unit": ();
    "u8": std::num::NonZeroU8;
    "u16": std::num::NonZeroU16;
    "u32": std::num::NonZeroU32;
    "u64": usize, std::num::NonZeroU64;
    "i64": isize;
    "char": char;
    "string": str, String;
    "bytes": [u8];
}

macro_rules! same_as_inner {
    ($($ty:ty),+) => {$(
        impl<T: State + ?Sized> State for $ty {
            const OPTIONAL: bool = T::OPTIONAL;
            fn schema() -> Type {
                T::schema()
            }
        }
    )+};
}

same_as_inner!(&T, Box<T>, Rc<T>, Arc<T>);

impl<T: State + ToOwned + ?Sized> State for Cow<'_, T> {
    const OPTIONAL: bool = T::OPTIONAL;
    fn schema() -> Type {
        T::schema()
    }
}

impl<T: State> State for Option<T> {
    const OPTIONAL: bool = true;
    fn schema() -> Type {
        Type::Option(Box::new(T::schema()))
    }
}

macro_rules! lists {
    ($($ty:ty),+) => {$(
        impl<T: State> State for $ty {
            fn schema() -> Type {
                T::list_schema()
            }
        }
    )+};
}

lists!(VecDeque<T>, BTreeSet<T>);

impl<T: State> State for Vec<T> {
    fn schema() -> Type {
        T::list_schema()
    }
    #[inline(always)]
    fn read_plain(bytes: &[u8]) -> Option<Self> {
        T::read_plain_list(bytes)
    }
    #[inline(always)]
    fn write_plain(&self, to: &mut Vec<u8>) -> bool {
        T::write_plain_list(self, to)
    }
}

impl<T: State, S> State for HashSet<T, S> {
    fn schema() -> Type {
        T::list_schema()
    }
}

impl<K: State, V: State> State for BTreeMap<K, V> {
    fn schema() -> Type {
        Type::Map(Box::new(K::schema()), Box::new(V::schema()))
    }
}

impl<K: State, V: State, S> State for HashMap<K, V, S> {
    fn schema() -> Type {
        Type::Map(Box::new(K::schema()), Box::new(V::schema()))
    }
}

impl<T: State, const N: usize> State for [T; N] {
    fn schema() -> Type {
        Type::Tuple(vec![T::schema(); N])
    }
}

macro_rules! tuples {
    ($(($($part:ident)+))+) => {$(
        impl<$($part: State),+> State for ($($part,)+) {
            fn schema() -> Type {
                Type::Tuple(vec![$($part::schema()),+])
            }
        }
    )+};
}

tuples! {
    (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H)
}
