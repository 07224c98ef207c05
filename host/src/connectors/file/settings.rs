//! The settings of file sources and file sinks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::connector::sink::{Existing, SinkConnector};
use crate::connector::source::SourceConnector;
use crate::connectors::format::TextFormat;
use crate::graph::connectors::SinkUse;
use crate::graph::problem::Place;
use crate::graph::reader::{PathError, Reader, local_path};
use crate::graph::tree::Value;
use crate::graph::units;

/// Time between two looks of a watching source.
const POLL_DEFAULT: Duration = Duration::from_secs(1);

/// Longest line, where the job file does not say: `"64MiB"`.
pub const MAX_RECORD_DEFAULT: usize = 64 << 20;
/// Greatest limit of a line: columns have offsets of 32 bits, and a batch has up to one such line and some more bytes.
const MAX_RECORD_MOST: u64 = 1 << 30;

/// `connector = "file"` of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// A glob. Identity.
    pub path: String,
    /// The glob as it was written and the directory it is relative to, if it is relative to the job file. A job may be moved
    /// with its input: then the glob is identity, and not its directory.
    pub relative: Option<(String, PathBuf)>,
    /// Goes on looking for more at the end of all files. Tuning.
    pub watch: bool,
    /// Time between two looks. Tuning.
    pub poll: Duration,
    /// The key of a record. Identity.
    pub key: LineKey,
    /// Fate of a file that is not what it was any more. Tuning.
    pub on_truncate: OnTruncate,
    /// Longest line, in bytes. Tuning.
    pub max_record: usize,
}

/// Fate of a file whose content is not what was read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTruncate {
    /// The job fails.
    Fail,
    /// The file is read from its start.
    Restart,
}

/// The key of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKey {
    /// Lines have no key.
    None,
    /// `key = "line"`: the line itself.
    Line,
}

/// `connector = "file"` of a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSink {
    /// The directory. Identity.
    pub path: PathBuf,
    /// Format of a record. Identity.
    pub format: TextFormat,
    /// Begins each part with the names of the columns; of `csv` and `tsv` only. Tuning.
    pub header: bool,
    /// Treatment of parts of earlier runs of the job. Tuning.
    pub existing: Existing,
}

/// Reads the settings of a source.
pub(super) fn source(reader: &mut Reader<'_>) -> Option<Arc<dyn SourceConnector>> {
    let glob = required_text(reader, "path", "input/*.txt").and_then(|(text, place)| glob_path(reader, text, place));
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
    let on_truncate = match reader.choice("on-truncate", &["fail", "restart"]) {
        "restart" => OnTruncate::Restart,
        _ => OnTruncate::Fail,
    };
    let max_record = max_record(reader);
    let text = |value: &Value| matches!(value, Value::Text(_));
    reader.only_default("format", "\"lines\"", "a string", text);
    reader.only_default("compression", "\"none\"", "a string", text);
    let (path, relative) = glob?;
    Some(Arc::new(FileSource {
        path,
        relative,
        watch,
        poll,
        key,
        on_truncate,
        max_record,
    }))
}

/// Reads the limit of a line.
fn max_record(reader: &mut Reader<'_>) -> usize {
    let Some(at) = reader.raw("max-record") else {
        reader.record("max-record", "\"64MiB\"".to_owned(), None);
        return MAX_RECORD_DEFAULT;
    };
    let bytes = match &at.value {
        Value::Text(text) => units::bytes(text).filter(|bytes| (1..=MAX_RECORD_MOST).contains(bytes)),
        _ => None,
    };
    let Some(bytes) = bytes else {
        reader.expected(at, "max-record", "a size from 1B to 1GiB", "max-record = \"64MiB\"");
        return MAX_RECORD_DEFAULT;
    };
    reader.record("max-record", at.value.to_toml(), Some(&at.place));
    bytes as usize
}

/// Reads the settings of a sink, or of dead letters, which are always JSON.
pub(super) fn sink(reader: &mut Reader<'_>, purpose: SinkUse) -> Option<Arc<dyn SinkConnector>> {
    let (example, formats): (_, &[_]) = match purpose {
        SinkUse::Records => ("out", &["lines", "tsv", "csv", "json"]),
        SinkUse::DeadLetters => ("rejects", &["json"]),
    };
    let path = required_text(reader, "path", example).and_then(|(text, place)| reader.local_path("path", text, place));
    let format = match reader.choice("format", formats) {
        "tsv" => TextFormat::Tsv,
        "csv" => TextFormat::Csv,
        "json" => TextFormat::Json,
        _ => TextFormat::Lines,
    };
    let header = purpose == SinkUse::Records && header(reader, format);
    let existing = match reader.choice("existing", &["keep", "replace", "refuse"]) {
        "replace" => Existing::Replace,
        "refuse" => Existing::Refuse,
        _ => Existing::Keep,
    };
    let path = path?;
    Some(Arc::new(FileSink {
        path,
        format,
        header,
        existing,
    }))
}

/// Reads `header`.
fn header(reader: &mut Reader<'_>, format: TextFormat) -> bool {
    let has_columns = matches!(format, TextFormat::Csv | TextFormat::Tsv);
    let Some(at) = reader.raw("header") else {
        if has_columns {
            reader.record("header", false.to_string(), None);
        }
        return false;
    };
    match at.value {
        Value::Bool(true) if !has_columns => {
            let message = "header: expected with format = \"csv\" or \"tsv\" only; use one of them, or leave it out";
            reader.problem_at(&at.place, message);
            false
        }
        Value::Bool(header) => {
            reader.record("header", header.to_string(), Some(&at.place));
            header
        }
        _ => {
            reader.expected(at, "header", "a boolean", "header = true");
            false
        }
    }
}

/// Reads a required string.
fn required_text<'a>(reader: &mut Reader<'a>, key: &'static str, example: &str) -> Option<(&'a str, &'a Place)> {
    if reader.raw(key).is_none() {
        reader.missing(key, &format!("{key} = \"{example}\""));
    }
    reader.text(key, example)
}

/// A glob, and as it was written with the directory it is relative to, if it is relative to the job file.
type Glob = (String, Option<(String, PathBuf)>);

/// Makes a glob absolute: the directory that it is relative to stands for itself, with all its characters.
fn glob_path(reader: &mut Reader<'_>, text: &str, place: &Place) -> Option<Glob> {
    if let Err(error) = glob::Pattern::new(text) {
        let message = format!(
            "path: expected a glob, found \"{text}\": {}; write [*] for a plain *",
            error.msg
        );
        reader.problem_at(place, &message);
        return None;
    }
    let base = reader.job.bases.of(place);
    let in_job = matches!(place, Place::JobFile { .. });
    match local_path(text, Path::new("")) {
        Ok(path) if path.is_absolute() => Some((path.to_string_lossy().into_owned(), None)),
        Ok(path) => {
            let path = path.strip_prefix(".").unwrap_or(&path).to_string_lossy();
            let relative = in_job.then(|| (path.clone().into_owned(), base.to_owned()));
            if base.as_os_str().is_empty() {
                return Some((path.into_owned(), relative));
            }
            let base = glob::Pattern::escape(&base.to_string_lossy());
            Some((format!("{}/{path}", base.trim_end_matches('/')), relative))
        }
        Err(PathError::Later | PathError::Unknown(_)) => {
            reader.local_path("path", text, place);
            None
        }
    }
}
