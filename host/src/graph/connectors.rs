//! The settings of the built-in connectors.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::generator;
use super::job_graph::{DeadLetter, FileSink, FileSource, LineKey, SinkConnector, Source, SourceConnector, TextFormat};
use super::problem::Place;
use super::reader::{PathError, Reader, local_path};
use super::suggest::one_of;
use super::tree::Value;

/// The source connectors, by name.
const SOURCES: [&str; 2] = ["file", "generator"];
/// The sink connectors, by name.
const SINKS: [&str; 3] = ["file", "print", "blackhole"];
/// The settings of an operator's dead letters, for messages.
pub(crate) const DEAD_LETTER_EXAMPLE: &str = "{ connector = \"file\", path = \"rejects\" }";
/// How often a watching file source looks for more.
const POLL_DEFAULT: Duration = Duration::from_secs(1);

/// A source's settings.
pub(crate) fn source(reader: &mut Reader<'_>) -> Option<Source> {
    let Some(connector) = connector(reader, &SOURCES) else {
        reader.allow_any_key();
        return None;
    };
    let rate = reader.integer("rate", 1, u64::MAX, 1000);
    let connector = match connector {
        "file" => file_source(reader).map(SourceConnector::File),
        _ => generator::read(reader).map(SourceConnector::Generator),
    };
    Some(Source {
        connector: connector?,
        rate,
    })
}

/// A sink's settings.
pub(crate) fn sink(reader: &mut Reader<'_>) -> Option<SinkConnector> {
    let Some(connector) = connector(reader, &SINKS) else {
        reader.allow_any_key();
        return None;
    };
    match connector {
        "file" => file_sink(reader).map(SinkConnector::File),
        "print" => Some(SinkConnector::Print),
        _ => Some(SinkConnector::Blackhole),
    }
}

/// `dead-letter` of an operator.
pub(crate) fn dead_letter(reader: &mut Reader<'_>) -> Option<DeadLetter> {
    let (table, place) = reader.table("dead-letter", DEAD_LETTER_EXAMPLE)?;
    let mut reader = reader.nested(table, place, "dead-letter");
    let letters = dead_letter_settings(&mut reader);
    reader.finish();
    letters
}

fn dead_letter_settings(reader: &mut Reader<'_>) -> Option<DeadLetter> {
    let Some(connector) = connector(reader, &SINKS) else {
        reader.allow_any_key();
        return None;
    };
    let budget = reader.integer("budget", 1, u64::MAX, 1000);
    let connector = match connector {
        "file" => {
            let path = sink_path(reader, "rejects");
            // A dead letter has columns of its own, some of which may be missing.
            reader.choice("format", &["json"]);
            let format = TextFormat::Json;
            SinkConnector::File(FileSink { path: path?, format })
        }
        "print" => SinkConnector::Print,
        _ => SinkConnector::Blackhole,
    };
    Some(DeadLetter { connector, budget })
}

fn connector(reader: &mut Reader<'_>, names: &[&'static str]) -> Option<&'static str> {
    let Some(at) = reader.raw("connector") else {
        let example = names.first().copied().unwrap_or_default();
        reader.missing("connector", &format!("connector = \"{example}\""));
        return None;
    };
    let word = match &at.value {
        Value::Text(text) => names.iter().find(|name| *name == text).copied(),
        _ => None,
    };
    match word {
        Some(word) => {
            reader.record("connector", at.value.to_toml(), Some(&at.place));
            Some(word)
        }
        None => {
            let example = names.first().copied().unwrap_or_default();
            reader.expected(at, "connector", &one_of(names), &format!("connector = \"{example}\""));
            None
        }
    }
}

fn file_source(reader: &mut Reader<'_>) -> Option<FileSource> {
    let path = required_text(reader, "path", "input/*.txt").and_then(|(text, place)| glob_path(reader, text, place));
    let watch = reader.choice("mode", &["bounded", "watch"]) == "watch";
    let poll = reader.duration("poll", POLL_DEFAULT, true);
    let key = match reader.raw("key") {
        None => LineKey::None,
        Some(at) => {
            if !matches!(&at.value, Value::Text(text) if text == "line") {
                reader.expected(at, "key", "\"line\"", "key = \"line\", or leave it out");
            }
            reader.record("key", at.value.to_toml(), Some(&at.place));
            LineKey::Line
        }
    };
    let text = |value: &Value| matches!(value, Value::Text(_));
    reader.only_default("format", "\"lines\"", "a string", text);
    reader.only_default("compression", "\"none\"", "a string", text);
    Some(FileSource {
        path: path?,
        watch,
        poll,
        key,
    })
}

/// A required string.
fn required_text<'a>(reader: &mut Reader<'a>, key: &'static str, example: &str) -> Option<(&'a str, &'a Place)> {
    if reader.raw(key).is_none() {
        reader.missing(key, &format!("{key} = \"{example}\""));
    }
    reader.text(key, example)
}

/// A glob made absolute: the directory it is relative to stands for itself, whatever characters it has.
fn glob_path(reader: &mut Reader<'_>, text: &str, place: &Place) -> Option<String> {
    if let Err(error) = glob::Pattern::new(text) {
        let message = format!(
            "path: expected a glob, found \"{text}\": {}; write [*] for a plain *",
            error.msg
        );
        reader.problem_at(place, &message);
        return None;
    }
    let base = reader.job.bases.of(place);
    match local_path(text, Path::new("")) {
        Ok(path) if path.is_absolute() => Some(path.to_string_lossy().into_owned()),
        Ok(path) if base.as_os_str().is_empty() => Some(path.to_string_lossy().into_owned()),
        Ok(path) => {
            let path = path.strip_prefix(".").unwrap_or(&path);
            let base = glob::Pattern::escape(&base.to_string_lossy());
            Some(format!("{}/{}", base.trim_end_matches('/'), path.to_string_lossy()))
        }
        Err(PathError::Later | PathError::Unknown(_)) => {
            reader.local_path("path", text, place);
            None
        }
    }
}

fn sink_path(reader: &mut Reader<'_>, example: &str) -> Option<PathBuf> {
    let (text, place) = required_text(reader, "path", example)?;
    reader.local_path("path", text, place)
}

fn file_sink(reader: &mut Reader<'_>) -> Option<FileSink> {
    let path = sink_path(reader, "out");
    let format = match reader.choice("format", &["lines", "tsv", "csv", "json"]) {
        "tsv" => TextFormat::Tsv,
        "csv" => TextFormat::Csv,
        "json" => TextFormat::Json,
        _ => TextFormat::Lines,
    };
    Some(FileSink { path: path?, format })
}
