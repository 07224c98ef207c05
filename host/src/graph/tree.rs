//! A settings file as a tree in which every value knows its place, so that layers can be merged and an error still
//! names its line.
//!
//! Knows nothing of jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Findings, Place};

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A TOML value. Integers are wide enough for any `u64`.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Located>),
    Table(Table),
}

/// Values by key.
pub(crate) type Table = BTreeMap<String, Located>;

impl Value {
    /// Returns the type of the value with its article, for messages.
    pub(crate) const fn what(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }

    /// Formats the value as TOML on one line.
    pub(crate) fn to_toml(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => toml::Value::Float(*value).to_string(),
            Self::Text(value) => text_to_toml(value),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.value.to_toml()).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(table) => {
                let entries: Vec<String> = table
                    .iter()
                    .map(|(key, item)| format!("{} = {}", key_to_toml(key), item.value.to_toml()))
                    .collect();
                if entries.is_empty() {
                    "{}".to_owned()
                } else {
                    format!("{{ {} }}", entries.join(", "))
                }
            }
        }
    }

    /// Converts the value to JSON.
    ///
    /// # Errors
    /// Returns a message that names the number that JSON cannot hold.
    pub(crate) fn to_json(&self) -> Result<serde_json::Value, String> {
        Ok(match self {
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => return Err(format!("{value} does not fit in 64 bits")),
            },
            Self::Float(value) => serde_json::Number::from_f64(*value)
                .map(serde_json::Value::Number)
                .ok_or_else(|| format!("JSON has no {value}"))?,
            Self::Text(value) => value.clone().into(),
            Self::List(items) => items
                .iter()
                .map(|item| item.value.to_json())
                .collect::<Result<Vec<_>, _>>()?
                .into(),
            Self::Table(table) => serde_json::Value::Object(
                table
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), item.value.to_json()?)))
                    .collect::<Result<_, String>>()?,
            ),
        })
    }
}

/// Quotes a text as a TOML string.
pub(crate) fn text_to_toml(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Formats a key as TOML, quoted if necessary.
pub(crate) fn key_to_toml(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { text_to_toml(key) }
}

/// Parses a text. All syntax errors go to `findings`; the tree is empty if there are any.
pub(crate) fn parse(text: &str, findings: &mut Findings, place_of: &dyn Fn(usize) -> Place) -> Table {
    let lines = Lines::new(text);
    let place = |offset: usize| place_of(lines.line(offset));
    if let Some(offset) = too_deep(text) {
        findings.broken = true;
        findings.problem(
            &place(offset),
            None,
            format!("more than {DEPTH_MAX} dots in one line; split it into tables"),
        );
        return Table::new();
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    findings.broken |= !errors.is_empty();
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        findings.problem(&place(offset), None, format!("not TOML: {}", error.message()));
    }
    if errors.is_empty() {
        convert_table(table.get_ref(), &place)
    } else {
        Table::new()
    }
}

/// Parses one `--set` value as TOML, or takes the text itself if it is not TOML.
pub(crate) fn parse_value(text: &str, place: &Place) -> Located {
    if too_deep(text).is_none()
        && let Ok(value) = DeValue::parse(text)
        && let Some(value) = convert(value.get_ref(), place, &|_| place.clone())
    {
        return value;
    }
    Located {
        place: place.clone(),
        value: Value::Text(text.to_owned()),
    }
}

/// Splits a dotted key into its parts, as TOML does. Returns `None` if it is not a key.
pub(crate) fn parse_key(key: &str) -> Option<Vec<String>> {
    if too_deep(key).is_some() || key.contains(['\n', '\r']) {
        return None;
    }
    let text = format!("{key} = 0");
    let table = DeTable::parse(&text).ok()?;
    let mut parts = Vec::new();
    let mut table = table.get_ref();
    loop {
        let (key, value) = table.iter().next()?;
        parts.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(next) => table = next,
            // If the key had ended earlier, its value would not end with the text.
            _ => return (value.span().end == text.len()).then_some(parts),
        }
    }
}

/// Maximum number of dots in a dotted key.
///
/// The TOML parser bounds nested brackets but not dotted keys, and a tree of unbounded depth overflows the stack when
/// it is walked or dropped.
const DEPTH_MAX: usize = 200;

fn too_deep(text: &str) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let key = line.split('=').next().unwrap_or(line);
        let deep = |part: &str| part.bytes().filter(|b| *b == b'.').count() > DEPTH_MAX;
        // A long string value may have any number of dots; a dotted key never has more than a few.
        if deep(key) || (line.contains('{') && deep(line)) {
            return Some(start);
        }
        start += line.len();
    }
    None
}

fn convert_table(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Table {
    table
        .iter()
        .filter_map(|(key, value)| {
            let at = place(key.span().start);
            convert(value.get_ref(), &at, place).map(|value| (key.get_ref().to_string(), value))
        })
        .collect()
}

/// Converts a value. `at` is the place of its key; array items and nested keys have places of their own.
fn convert(value: &DeValue<'_>, at: &Place, place: &dyn Fn(usize) -> Place) -> Option<Located> {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Int(number),
            Err(_) => Value::Text(number.to_string()),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().ok()?),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(value) => Value::Text(value.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .filter_map(|item: &Spanned<DeValue<'_>>| convert(item.get_ref(), &place(item.span().start), place))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    };
    Some(Located {
        place: at.clone(),
        value,
    })
}

/// Converts byte offsets to line numbers; holds the offsets of the line ends.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(
            text.bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n')
                .map(|(idx, _)| idx)
                .collect(),
        )
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

/// Merges `over` into `under`: tables are merged, other values are replaced.
pub(crate) fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (
                Some(Located {
                    value: Value::Table(below),
                    ..
                }),
                Located {
                    value: Value::Table(above),
                    ..
                },
            ) => {
                merge(below, above);
            }
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Returns the name of a file, to be shared by all of its places.
pub(crate) fn file_name(path: &std::path::Path) -> Arc<str> {
    path.to_string_lossy().into()
}
