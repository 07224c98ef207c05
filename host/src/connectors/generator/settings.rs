//! The settings of a generator, field by field.

use std::sync::Arc;

use regraft_model::schema::Type;

use crate::connector::source::SourceConnector;
use crate::graph::reader::Reader;
use crate::graph::suggest::{instead_of, one_of};
use crate::graph::tree::{Located, Table, Value};

/// Splits where the job file is silent: independent of parallelism, so that a job can be rescaled up to it.
const SPLITS_DEFAULT: u32 = 8;
/// More splits than this would only slow a snapshot down.
const SPLITS_MAX: u32 = 32_768;
/// The longest random text.
const LEN_MAX: u32 = 1 << 20;
/// The most fields of a record.
const FIELDS_MAX: usize = 1_000;
/// The longest record, as of a file.
const RECORD_LEN_MAX: u64 = 64 << 20;
/// The longest text of a number.
const NUMBER_LEN: u64 = 20;
/// Keys that say what a field holds; it has exactly one of them.
const VALUES: [&str; 4] = ["range", "zipf", "sequence", "len"];
const FIELDS_EXAMPLE: &str = "fields = [{ name = \"id\", type = \"u64\", range = [0, 999] }]";

/// `connector = "generator"` of a source: a record is a function of (seed, split, offset).
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorSource {
    /// Identity.
    pub seed: u64,
    /// Independent of parallelism. Identity.
    pub splits: u32,
    /// In all; none: endless. Identity.
    pub rows: Option<u64>,
    /// In order; they make up the value. Identity.
    pub fields: Vec<GeneratorField>,
    /// Position of the field that is the key; it is not part of the value. Identity.
    pub key: Option<usize>,
}

impl GeneratorSource {
    /// Returns the fields that make up the value.
    pub fn value_fields(&self) -> impl Iterator<Item = &GeneratorField> {
        self.fields
            .iter()
            .enumerate()
            .filter(|(i, _)| self.key != Some(*i))
            .map(|(_, field)| field)
    }

    /// True if the value is one text or bytes field as it is, rather than a record of named columns.
    #[must_use]
    pub fn value_is_raw(&self) -> bool {
        let mut fields = self.value_fields();
        matches!((fields.next(), fields.next()), (Some(field), None) if field.ty != Type::U64)
    }
}

/// One field of generated records.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorField {
    /// Its name.
    pub name: String,
    /// `u64`, `string` or `bytes`.
    pub ty: Type,
    /// Its values.
    pub values: GeneratorValues,
}

/// Distribution of a field's values. A text field shows the drawn number in base 26, or pads it to `len`.
#[derive(Debug, Clone, PartialEq)]
pub enum GeneratorValues {
    /// `range = [first, last]`: uniform, inclusive.
    Range {
        /// The least.
        first: u64,
        /// The greatest.
        last: u64,
    },
    /// `zipf = { n = N, exponent = S }`: ranks 0 to N-1, rank r with weight 1/(r+1)^S.
    Zipf {
        /// Number of ranks.
        n: u64,
        /// The exponent.
        exponent: f64,
    },
    /// `sequence = FIRST`: FIRST, FIRST+1, … over all splits (split s of n: FIRST + offset × n + s).
    Sequence {
        /// The first.
        first: u64,
    },
    /// `len = N` of a `bytes` or `string` field: N random bytes (letters).
    Random {
        /// Length in bytes.
        len: u32,
    },
}

/// Reads the settings of a source.
pub(super) fn source(reader: &mut Reader<'_>) -> Option<Arc<dyn SourceConnector>> {
    let seed = optional(reader, "seed", 0, "0");
    let splits = reader
        .integer32("splits", 1, SPLITS_MAX, SPLITS_DEFAULT)
        .unwrap_or_else(|| {
            reader.record("splits", SPLITS_DEFAULT.to_string(), None);
            SPLITS_DEFAULT
        });
    let rows = reader.integer("rows", 0, u64::MAX, 1_000_000);
    let fields = fields(reader);
    let key = key(reader, fields.as_deref());
    Some(Arc::new(GeneratorSource {
        seed,
        splits,
        rows,
        fields: fields?,
        key: key?,
    }))
}

fn optional(reader: &mut Reader<'_>, key: &'static str, default: u64, shown: &str) -> u64 {
    if let Some(value) = reader.integer(key, 0, u64::MAX, default) {
        return value;
    }
    reader.record(key, shown.to_owned(), None);
    default
}

/// Reads all fields; returns `None` where any of them is wrong.
fn fields(reader: &mut Reader<'_>) -> Option<Vec<GeneratorField>> {
    let Some(at) = reader.raw("fields") else {
        reader.missing("fields", FIELDS_EXAMPLE);
        return None;
    };
    let items = match &at.value {
        Value::List(items) if (1..=FIELDS_MAX).contains(&items.len()) => items,
        Value::List(items) if !items.is_empty() => {
            let message = format!(
                "fields: expected at most {FIELDS_MAX}, found {}; leave some out",
                items.len()
            );
            reader.problem_at(&at.place, &message);
            return None;
        }
        _ => {
            reader.expected(at, "fields", "an array with at least one field", FIELDS_EXAMPLE);
            return None;
        }
    };
    reader.record("fields", at.value.to_toml(), Some(&at.place));
    let fields: Vec<Option<GeneratorField>> = items.iter().map(|item| field(reader, item)).collect();
    let fields: Vec<GeneratorField> = fields.into_iter().collect::<Option<_>>()?;
    let len = |field: &GeneratorField| match field.values {
        GeneratorValues::Random { len } => u64::from(len),
        _ => NUMBER_LEN,
    };
    let record: u64 = fields.iter().map(len).sum();
    if record > RECORD_LEN_MAX {
        let message = format!(
            "fields: expected records of at most {RECORD_LEN_MAX} bytes, found fields of {record} bytes together; make some shorter"
        );
        reader.problem_at(&at.place, &message);
        return None;
    }
    for (idx, field) in fields.iter().enumerate() {
        if fields.iter().take(idx).any(|earlier| earlier.name == field.name) {
            let place = items.get(idx).map_or(&at.place, |item| &item.place);
            reader.problem_at(place, &format!("fields: two are called \"{}\"; rename one", field.name));
            return None;
        }
    }
    Some(fields)
}

fn field(reader: &mut Reader<'_>, at: &Located) -> Option<GeneratorField> {
    let Value::Table(table) = &at.value else {
        reader.expected(at, "fields", "a table", FIELDS_EXAMPLE);
        return None;
    };
    // The array is recorded as a whole, so a field's own settings are not.
    let title = format!("{}: fields", reader.title);
    let mut reader = Reader::new(reader.job, table, &at.place, title, None, reader.uid);
    if !table.contains_key("name") {
        reader.missing("name", "name = \"id\"");
    }
    let name = reader.text("name", "id").map(|(name, _)| name.to_owned());
    if let Some(name) = &name {
        reader.title = format!("{} \"{name}\"", reader.title);
    }
    if !table.contains_key("type") {
        reader.missing("type", "type = \"u64\"");
    }
    let ty = match reader.choice("type", &["u64", "string", "bytes"]) {
        "string" => Type::String,
        "bytes" => Type::Bytes,
        _ => Type::U64,
    };
    let values = values(&mut reader, table, &ty);
    reader.finish();
    if !table.contains_key("type") {
        return None;
    }
    Some(GeneratorField {
        name: name?,
        ty,
        values: values?,
    })
}

fn values(reader: &mut Reader<'_>, table: &Table, ty: &Type) -> Option<GeneratorValues> {
    let given: Vec<&str> = VALUES.iter().copied().filter(|key| table.contains_key(*key)).collect();
    let place = reader.place;
    match given.as_slice() {
        [] => {
            let allowed = if *ty == Type::U64 { &VALUES[..3] } else { &VALUES[..] };
            let example = "range = [0, 999]";
            reader.problem_at(
                place,
                &format!(
                    "says nothing of its values; expected {}; add {example}",
                    one_of(allowed)
                ),
            );
            for key in VALUES {
                reader.raw(key);
            }
            return None;
        }
        [_] => {}
        _ => reader.problem_at(place, &format!("has {}; keep one of them", given.join(" and "))),
    }
    let all = [range(reader), zipf(reader), sequence(reader), random(reader, ty)];
    let mut read = all.into_iter().flatten();
    let first = read.next();
    if given.len() == 1 { first } else { None }
}

fn range(reader: &mut Reader<'_>) -> Option<GeneratorValues> {
    let at = reader.raw("range")?;
    if let Value::List(bounds) = &at.value
        && let [
            Located {
                value: Value::Int(first),
                ..
            },
            Located {
                value: Value::Int(last),
                ..
            },
        ] = bounds.as_slice()
        && let (Ok(first), Ok(last)) = (u64::try_from(*first), u64::try_from(*last))
        && first <= last
    {
        return Some(GeneratorValues::Range { first, last });
    }
    reader.expected(
        at,
        "range",
        "[first, last], with 0 <= first <= last",
        "range = [0, 999]",
    );
    None
}

fn zipf(reader: &mut Reader<'_>) -> Option<GeneratorValues> {
    let at = reader.raw("zipf")?;
    let example = "zipf = { n = 1000, exponent = 1.1 }";
    let Value::Table(table) = &at.value else {
        reader.expected(at, "zipf", "a table", example);
        return None;
    };
    let mut inner = reader.nested(table, &at.place, "zipf");
    let n = inner.integer("n", 1, u64::MAX, 1000);
    if !table.contains_key("n") {
        inner.missing("n", "n = 1000");
    }
    let exponent = match inner.raw("exponent") {
        None => {
            inner.missing("exponent", "exponent = 1.1");
            None
        }
        Some(at) => match at.value {
            Value::Float(value) if value.is_finite() && value >= 0.0 => Some(value),
            Value::Int(value @ 0..=1000) => i32::try_from(value).ok().map(f64::from),
            _ => {
                inner.expected(at, "exponent", "a number of at least 0", "exponent = 1.1");
                None
            }
        },
    };
    inner.finish();
    Some(GeneratorValues::Zipf {
        n: n?,
        exponent: exponent?,
    })
}

fn sequence(reader: &mut Reader<'_>) -> Option<GeneratorValues> {
    reader
        .integer("sequence", 0, u64::MAX, 0)
        .map(|first| GeneratorValues::Sequence { first })
}

fn random(reader: &mut Reader<'_>, ty: &Type) -> Option<GeneratorValues> {
    let at = reader.raw("len")?;
    if *ty == Type::U64 {
        reader.problem_at(&at.place, "len is for strings and bytes; write range = [0, 999]");
        return None;
    }
    reader
        .integer32("len", 0, LEN_MAX, 16)
        .map(|len| GeneratorValues::Random { len })
}

/// Returns the position of the key's field; an outer `None` where it is wrong.
#[allow(clippy::option_option, reason = "absent is a good answer, wrong is none")]
fn key(reader: &mut Reader<'_>, fields: Option<&[GeneratorField]>) -> Option<Option<usize>> {
    if reader.raw("key").is_none() {
        return Some(None);
    }
    let (name, place) = reader.text("key", "id")?;
    let fields = fields?;
    let position = fields.iter().position(|field| field.name == name);
    if position.is_none() {
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let message = format!(
            "key: expected the name of a field, found \"{name}\"; {}",
            instead_of(name, &names)
        );
        reader.problem_at(place, &message);
    }
    position.map(Some)
}
