//! `connector = "…"` of sources, sinks and dead letters: finds the connector among those that are registered, and lets it
//! read its own settings. Which connectors there are is handed in from above.

use std::sync::Arc;

use super::job_graph::{DeadLetter, Source};
pub use super::reader::Connectors;
use super::reader::Reader;
pub(crate) use super::reader::{Connector, SinkUse};
use super::tree::Value;
use crate::connector::sink::SinkConnector;

/// The settings of an operator's dead letters, for messages.
pub(crate) const DEAD_LETTER_EXAMPLE: &str = "{ connector = \"file\", path = \"rejects\" }";

/// Reads the settings of a source.
pub(crate) fn source(reader: &mut Reader<'_>) -> Option<Source> {
    let Some(read) = chosen(reader, |connector| connector.source) else {
        reader.allow_any_key();
        return None;
    };
    let rate = reader.integer("rate", 1, u64::MAX, 1000);
    let connector = read(reader)?;
    Some(Source { connector, rate })
}

/// Reads the settings of a sink.
pub(crate) fn sink(reader: &mut Reader<'_>) -> Option<Arc<dyn SinkConnector>> {
    let Some(read) = chosen(reader, |connector| connector.sink) else {
        reader.allow_any_key();
        return None;
    };
    read(reader, SinkUse::Records)
}

/// Reads `dead-letter` of an operator.
pub(crate) fn dead_letter(reader: &mut Reader<'_>) -> Option<DeadLetter> {
    let (table, place) = reader.table("dead-letter", DEAD_LETTER_EXAMPLE)?;
    let mut reader = reader.nested(table, place, "dead-letter");
    let letters = dead_letter_settings(&mut reader);
    reader.finish();
    letters
}

fn dead_letter_settings(reader: &mut Reader<'_>) -> Option<DeadLetter> {
    let Some(read) = chosen(reader, |connector| connector.sink) else {
        reader.allow_any_key();
        return None;
    };
    let budget = reader.integer("budget", 1, u64::MAX, 1000);
    let connector = read(reader, SinkUse::DeadLetters)?;
    Some(DeadLetter { connector, budget })
}

/// Reads `connector`; returns how its settings are read.
fn chosen<T>(reader: &mut Reader<'_>, role: impl Fn(&Connector) -> Option<T>) -> Option<T> {
    let all = reader.job.connectors.0;
    let names: Vec<&str> = all.iter().filter(|c| role(c).is_some()).map(|c| c.name).collect();
    let example = format!("connector = \"{}\"", names.first().copied().unwrap_or_default());
    let Some(at) = reader.raw("connector") else {
        reader.missing("connector", &example);
        return None;
    };
    let connector = match &at.value {
        Value::Text(text) => all.iter().find(|connector| connector.name == text),
        _ => None,
    };
    let read = connector.and_then(role);
    if read.is_some() {
        reader.record("connector", at.value.to_toml(), Some(&at.place));
    } else {
        reader.expected_word(at, "connector", &names);
    }
    read
}
