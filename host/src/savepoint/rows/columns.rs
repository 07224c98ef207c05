//! The columns of a state file: names and Parquet types, derived from the schemas. Names are normative
//! (`docs/formats/savepoint.md`).

use std::collections::HashSet;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type as ParquetType, TypePtr};
use regraft_model::schema::Type;

use super::{Entries, Layout, StateFileSpec};

/// Key group of a row.
pub(super) const KEY_GROUP: &str = "_key_group";
/// Native: encoded key.
pub(super) const KEY: &str = "_key";
/// Native: encoded entry key.
pub(super) const ENTRY_KEY: &str = "_entry_key";
/// Time of expiry in milliseconds since the Unix epoch; null for never.
pub(super) const EXPIRES: &str = "_expires";
/// Native: encoded value.
pub(super) const VALUE: &str = "_value";
/// Native: number of the value's schema.
pub(super) const SCHEMA: &str = "_schema";
/// Canonical: the encoded value, if the other columns alone would not restore it.
pub(super) const EXACT: &str = "_exact";

/// The representation of a part of a key or value in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A typed cell.
    Scalar,
    /// A typed cell or null.
    Optional,
    /// JSON text.
    Json,
}

/// One typed column.
#[derive(Debug, Clone)]
pub(super) struct ColumnPlan {
    /// Name in the file.
    pub(super) name: String,
    /// Type of the part; for an optional one, the type within the option.
    pub(super) ty: Type,
    /// Its representation.
    pub(super) form: Form,
}

/// The columns of a canonical file in order: the key group, then those of the key, the entry and the value, then the
/// file's own.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    /// Columns of the key.
    pub(super) key: Vec<ColumnPlan>,
    /// True if the key is a single raw text or byte string.
    pub(super) key_is_raw: bool,
    /// Columns of the entry: a map's key, a list's index, or name and time of a timer.
    pub(super) entry: Vec<ColumnPlan>,
    /// True if the map's key is a single raw text or byte string.
    pub(super) entry_is_raw: bool,
    /// Columns of the value.
    pub(super) value: Vec<ColumnPlan>,
    /// True if there is a column with times of expiry.
    pub(super) expires: bool,
    /// True if there is a column with exact bytes.
    pub(super) exact: bool,
}

impl Columns {
    /// Plans the columns of a canonical file.
    pub(super) fn canonical(spec: &StateFileSpec<'_>) -> Self {
        let mut taken = HashSet::from([KEY_GROUP.to_owned(), EXACT.to_owned()]);
        let key = parts(&spec.key.ty, &spec.key.name, "key", &mut taken);
        let (entry, entry_is_raw) = match spec.entries {
            Entries::None | Entries::Items => (vec![], false),
            Entries::List => (parts(&Type::U64, "index", "list", &mut taken), false),
            Entries::Map(key) => (parts(key, "map_key", "map", &mut taken), is_raw(key)),
            Entries::Timers => {
                let name = ColumnPlan::new(&Type::String, "timer", "timer", &mut taken);
                (
                    vec![name, ColumnPlan::new(&Type::I64, "time", "timer", &mut taken)],
                    false,
                )
            }
        };
        let value = match spec.entries {
            Entries::Timers => vec![],
            _ => parts(spec.value, spec.state, "value", &mut taken),
        };
        let exact = value.iter().any(|column| column.form == Form::Json);
        Self {
            key,
            key_is_raw: is_raw(&spec.key.ty),
            entry,
            entry_is_raw,
            value,
            expires: spec.expires,
            exact,
        }
    }

    /// Returns the Parquet schema of the columns.
    pub(super) fn parquet_schema(&self) -> Result<TypePtr, ParquetError> {
        let mut fields = vec![primitive(KEY_GROUP, Physical::INT32, Repetition::REQUIRED, None)?];
        for column in self.key.iter().chain(&self.entry).chain(&self.value) {
            fields.push(column.parquet_type()?);
        }
        if self.expires {
            fields.push(expires_type()?);
        }
        if self.exact {
            fields.push(primitive(EXACT, Physical::BYTE_ARRAY, Repetition::OPTIONAL, None)?);
        }
        group(fields)
    }
}

/// Returns true if keys of this type are encoded as their own bytes.
const fn is_raw(ty: &Type) -> bool {
    matches!(ty, Type::String | Type::Bytes)
}

fn expires_type() -> Result<TypePtr, ParquetError> {
    let time = LogicalType::timestamp(true, TimeUnit::MILLIS);
    primitive(EXPIRES, Physical::INT64, Repetition::OPTIONAL, Some(time))
}

/// Returns the Parquet schema of a native file.
fn native_schema(spec: &StateFileSpec<'_>) -> Result<TypePtr, ParquetError> {
    let bytes = |name| primitive(name, Physical::BYTE_ARRAY, Repetition::REQUIRED, None);
    let mut fields = vec![
        primitive(KEY_GROUP, Physical::INT32, Repetition::REQUIRED, None)?,
        bytes(KEY)?,
    ];
    if spec.entries.have_keys() {
        fields.push(bytes(ENTRY_KEY)?);
    }
    fields.push(bytes(VALUE)?);
    fields.push(primitive(SCHEMA, Physical::INT32, Repetition::REQUIRED, None)?);
    if spec.expires {
        fields.push(expires_type()?);
    }
    group(fields)
}

/// Returns the Parquet schema of a file.
pub(super) fn schema_of(spec: &StateFileSpec<'_>) -> Result<TypePtr, ParquetError> {
    match spec.layout {
        Layout::Canonical => Columns::canonical(spec).parquet_schema(),
        Layout::Native => native_schema(spec),
    }
}

/// Returns the number of columns of a file, at most.
#[must_use]
pub fn column_count(spec: &StateFileSpec<'_>) -> usize {
    match spec.layout {
        Layout::Canonical => {
            let columns = Columns::canonical(spec);
            // The key group, the time of expiry and the exact value stand beside them.
            columns.key.len() + columns.entry.len() + columns.value.len() + 3
        }
        Layout::Native => 6,
    }
}

impl ColumnPlan {
    fn parquet_type(&self) -> Result<TypePtr, ParquetError> {
        let repetition = if self.form == Form::Optional {
            Repetition::OPTIONAL
        } else {
            Repetition::REQUIRED
        };
        let (physical, logical) = match self.form {
            Form::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
            Form::Scalar | Form::Optional => physical(&self.ty),
        };
        primitive(&self.name, physical, repetition, logical)
    }
}

/// Plans the columns of a type: one per field for a struct, otherwise one with the given name.
fn parts(ty: &Type, name: &str, role: &str, taken: &mut HashSet<String>) -> Vec<ColumnPlan> {
    match ty {
        Type::Struct(s) => s
            .fields
            .iter()
            .map(|f| ColumnPlan::new(&f.ty, &f.name, role, taken))
            .collect(),
        _ => vec![ColumnPlan::new(ty, name, role, taken)],
    }
}

impl ColumnPlan {
    fn new(ty: &Type, name: &str, role: &str, taken: &mut HashSet<String>) -> Self {
        let (ty, form) = match ty {
            Type::Option(inner) if has_column(inner) => ((**inner).clone(), Form::Optional),
            ty if has_column(ty) => (ty.clone(), Form::Scalar),
            ty => (ty.clone(), Form::Json),
        };
        Self {
            name: free_name(name, role, taken),
            ty,
            form,
        }
    }
}

/// Returns true if a type has a Parquet type of its own. A unit has no content to show.
fn has_column(ty: &Type) -> bool {
    ty.is_scalar() && *ty != Type::Unit
}

/// Makes a unique column name.
///
/// A name that is empty, begins with `_` or is taken (ignoring case, as SQL does) is prefixed with the role, and then
/// suffixed with a number until it is unique.
fn free_name(name: &str, role: &str, taken: &mut HashSet<String>) -> String {
    let is_taken = |name: &str, taken: &HashSet<String>| taken.contains(&name.to_lowercase());
    let mut free = name.to_owned();
    if name.is_empty() || name.starts_with('_') || is_taken(name, taken) {
        free = format!("{role}_{name}");
        let stem = free.clone();
        let mut number = 2;
        while is_taken(&free, taken) {
            free = format!("{stem}_{number}");
            number += 1;
        }
    }
    taken.insert(free.to_lowercase());
    free
}

fn physical(ty: &Type) -> (Physical, Option<LogicalType>) {
    let int32 = |bits, signed| (Physical::INT32, Some(LogicalType::integer(bits, signed)));
    let int64 = |signed| (Physical::INT64, Some(LogicalType::integer(64, signed)));
    match ty {
        Type::Bool => (Physical::BOOLEAN, None),
        Type::U8 => int32(8, false),
        Type::U16 => int32(16, false),
        Type::U32 => int32(32, false),
        Type::U64 => int64(false),
        Type::I8 => int32(8, true),
        Type::I16 => int32(16, true),
        Type::I32 => int32(32, true),
        Type::I64 => int64(true),
        Type::F32 => (Physical::FLOAT, None),
        Type::F64 => (Physical::DOUBLE, None),
        Type::Char | Type::String => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        _ => (Physical::BYTE_ARRAY, None),
    }
}

fn primitive(
    name: &str,
    physical: Physical,
    repetition: Repetition,
    logical: Option<LogicalType>,
) -> Result<TypePtr, ParquetError> {
    let builder = ParquetType::primitive_type_builder(name, physical);
    Ok(Arc::new(
        builder.with_repetition(repetition).with_logical_type(logical).build()?,
    ))
}

fn group(fields: Vec<TypePtr>) -> Result<TypePtr, ParquetError> {
    Ok(Arc::new(
        ParquetType::group_type_builder("state").with_fields(fields).build()?,
    ))
}
