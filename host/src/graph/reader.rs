//! Typed reading of one table of a job.
//!
//! A key that is read is known, and every other key is reported with a suggestion.
//! Each effective value is recorded with its origin.
//! Reading continues after a problem, so that all are found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::job_graph::{EffectiveSetting, SettingOrigin};
use super::problem::{Findings, Place};
use super::suggest::{instead_of, nearest, one_of};
use super::tree::{Located, Table, Value, text_to_toml};
use super::units;
use crate::connector::sink::SinkConnector;
use crate::connector::source::SourceConnector;

/// Reads the settings of a source. Returns `None` after a problem, which the reader has noted.
pub(crate) type ReadSource = fn(&mut Reader<'_>) -> Option<Arc<dyn SourceConnector>>;

/// Reads the settings of a sink. Returns `None` after a problem, which the reader has noted.
pub(crate) type ReadSink = fn(&mut Reader<'_>, SinkUse) -> Option<Arc<dyn SinkConnector>>;

/// Purpose of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkUse {
    /// `[[sink]]`: records of the job.
    Records,
    /// `dead-letter = {…}`: lines of JSON with columns of their own, some of which may be missing.
    DeadLetters,
}

/// A connector: its name, and how its settings are read.
#[derive(Debug)]
pub struct Connector {
    /// As in `connector = "…"`.
    pub(crate) name: &'static str,
    /// `None` where it is no source.
    pub(crate) source: Option<ReadSource>,
    /// `None` where it is no sink.
    pub(crate) sink: Option<ReadSink>,
}

/// The connectors that a job file may name, in the order in which messages list them.
#[derive(Debug, Clone, Copy)]
pub struct Connectors(pub(crate) &'static [Connector]);

/// The results that all readers of a job write to.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) findings: Findings,
    pub(crate) settings: BTreeMap<String, EffectiveSetting>,
    pub(crate) bases: Bases,
    pub(crate) connectors: Connectors,
}

/// Directories to which relative paths are resolved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bases {
    /// For paths in the job file.
    pub(crate) job: PathBuf,
    /// For paths in the host's configuration.
    pub(crate) config: PathBuf,
    /// For arguments and environment variables.
    pub(crate) current: PathBuf,
}

impl Bases {
    pub(crate) fn of(&self, place: &Place) -> &Path {
        match place {
            Place::JobFile { .. } => &self.job,
            Place::Config { .. } => &self.config,
            Place::Environment(_) | Place::CommandLine(_) => &self.current,
        }
    }
}

/// Reads one table.
pub(crate) struct Reader<'a> {
    pub(crate) job: &'a mut Job,
    table: &'a Table,
    /// Place of the table itself.
    pub(crate) place: &'a Place,
    /// Name of the table in messages: `[checkpoint]`, `operator "count"`.
    pub(crate) title: String,
    /// Prefix under which settings are recorded; `None` if they are not recorded.
    prefix: Option<String>,
    pub(crate) uid: Option<&'a str>,
    known: Vec<&'static str>,
    any_key: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        job: &'a mut Job,
        table: &'a Table,
        place: &'a Place,
        title: impl Into<String>,
        prefix: Option<String>,
        uid: Option<&'a str>,
    ) -> Self {
        Self {
            job,
            table,
            place,
            title: title.into(),
            prefix,
            uid,
            known: Vec::new(),
            any_key: false,
        }
    }

    /// Returns a reader of a table within this one. `suffix` is appended to the title and the prefix.
    pub(crate) fn nested<'b>(&'b mut self, table: &'b Table, place: &'b Place, suffix: &str) -> Reader<'b> {
        let title = format!("{}: {suffix}", self.title);
        let prefix = self.prefix.as_ref().map(|prefix| format!("{prefix}{suffix}."));
        Reader::new(self.job, table, place, title, prefix, self.uid)
    }

    /// Returns the value at a key, which is known from now on.
    pub(crate) fn raw(&mut self, key: &'static str) -> Option<&'a Located> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    pub(crate) fn problem_at(&mut self, place: &Place, message: &str) {
        let message = if self.title.is_empty() {
            message.to_owned()
        } else {
            format!("{}: {message}", self.title)
        };
        self.job.findings.problem(place, self.uid, message);
    }

    /// Reports a warning, with the table's title.
    pub(crate) fn warning_at(&mut self, place: &Place, message: &str) {
        let message = format!("{}: {message}", self.title);
        self.job.findings.warning(place, self.uid, message);
    }

    /// Reports `key: expected …, found …; write …`.
    pub(crate) fn expected(&mut self, at: &Located, key: &str, expected: &str, example: &str) {
        let message = format!(
            "{key}: expected {expected}, found {}; write {example}",
            found(&at.value)
        );
        self.problem_at(&at.place, &message);
    }

    /// Reports a word that is none of `words`, with the nearest of them. Where none is near, it proposes none: the first one
    /// may be the opposite of what is meant.
    pub(crate) fn expected_word(&mut self, at: &Located, key: &str, words: &[&str]) {
        let remedy = match &at.value {
            Value::Text(text) if words.len() > 1 => nearest(text, words),
            _ => words.first().copied(),
        };
        let remedy = remedy.map(|word| format!("; write {key} = \"{word}\""));
        let message = format!(
            "{key}: expected {}, found {}{}",
            one_of(words),
            found(&at.value),
            remedy.unwrap_or_default()
        );
        self.problem_at(&at.place, &message);
    }

    /// Reports that a required key is missing.
    pub(crate) fn missing(&mut self, key: &str, example: &str) {
        let place = self.place;
        self.problem_at(place, &format!("has no {key}; add {example}"));
    }

    /// Records the effective value of a key, as TOML.
    pub(crate) fn record(&mut self, key: &str, value: String, place: Option<&Place>) {
        if let Some(prefix) = &self.prefix {
            let origin = place.map_or(SettingOrigin::Default, Place::origin);
            self.job
                .settings
                .insert(format!("{prefix}{key}"), EffectiveSetting { value, origin });
        }
    }

    /// Records the default of a size.
    pub(crate) fn record_default(&mut self, key: &str, bytes: u64) {
        self.record(key, text_to_toml(&units::show_bytes(bytes)), None);
    }

    fn record_raw(&mut self, key: &str, at: &Located) {
        self.record(key, at.value.to_toml(), Some(&at.place));
    }

    /// Reads a string that is not empty.
    pub(crate) fn text(&mut self, key: &'static str, example: &str) -> Option<(&'a str, &'a Place)> {
        let at = self.raw(key)?;
        let Value::Text(text) = &at.value else {
            self.expected(at, key, "a string", &format!("{key} = \"{example}\""));
            return None;
        };
        if text.is_empty() {
            self.expected(at, key, "a string that is not empty", &format!("{key} = \"{example}\""));
            return None;
        }
        self.record_raw(key, at);
        Some((text, &at.place))
    }

    /// Reads an integer from `min` to `max`.
    pub(crate) fn integer(&mut self, key: &'static str, min: u64, max: u64, example: u64) -> Option<u64> {
        let at = self.raw(key)?;
        if let Value::Int(value) = at.value
            && let Ok(value) = u64::try_from(value)
            && (min..=max).contains(&value)
        {
            self.record_raw(key, at);
            return Some(value);
        }
        let bounds = if max == u64::MAX {
            format!("an integer of at least {min}")
        } else {
            format!("an integer from {min} to {max}")
        };
        self.expected(at, key, &bounds, &format!("{key} = {example}"));
        None
    }

    /// Reads an integer of at least `min`, or returns the default.
    pub(crate) fn count(&mut self, key: &'static str, min: u32, default: u32) -> u32 {
        if self.raw(key).is_none() {
            self.record(key, default.to_string(), None);
        }
        self.integer32(key, min, u32::MAX, default).unwrap_or(default)
    }

    /// Reads a number from `min` to `max`, or returns the default.
    pub(crate) fn number(&mut self, key: &'static str, min: f64, max: f64, default: f64) -> f64 {
        let Some(at) = self.raw(key) else {
            self.record(key, Value::Float(default).to_toml(), None);
            return default;
        };
        let value = match at.value {
            Value::Float(value) => Some(value),
            Value::Int(value) => i32::try_from(value).ok().map(f64::from),
            _ => None,
        };
        if let Some(value) = value.filter(|value| value.is_finite() && (min..=max).contains(value)) {
            self.record_raw(key, at);
            return value;
        }
        let bounds = if max == f64::MAX {
            format!("a number of at least {min}")
        } else {
            format!("a number from {min} to {max}")
        };
        self.expected(at, key, &bounds, &format!("{key} = {default}"));
        default
    }

    /// Reads an optional duration, which must be greater than zero.
    pub(crate) fn optional_duration(&mut self, key: &'static str, example: Duration) -> Option<Duration> {
        self.raw(key)?;
        Some(self.duration(key, example, true))
    }

    /// Reads an optional table.
    pub(crate) fn table(&mut self, key: &'static str, example: &str) -> Option<(&'a Table, &'a Place)> {
        let at = self.raw(key)?;
        if let Value::Table(table) = &at.value {
            return Some((table, &at.place));
        }
        self.expected(at, key, "a table", &format!("{key} = {example}"));
        None
    }

    /// Reads a `u32` from `min` to `max`.
    pub(crate) fn integer32(&mut self, key: &'static str, min: u32, max: u32, example: u32) -> Option<u32> {
        self.integer(key, min.into(), max.into(), example.into())
            .and_then(|value| u32::try_from(value).ok())
    }

    /// Reads `parallelism`, which is at most the job's max parallelism.
    pub(crate) fn parallelism(&mut self, max: u32) -> Option<u32> {
        let key = "parallelism";
        let at = self.raw(key)?;
        if let Value::Int(value) = at.value {
            if let Ok(value) = u32::try_from(value)
                && (1..=max).contains(&value)
            {
                self.record_raw(key, at);
                return Some(value);
            }
            let nearest = if value < 1 { 1 } else { max };
            let expected = format!("an integer from 1 to {max} (max-parallelism)");
            self.expected(at, key, &expected, &format!("parallelism = {nearest}"));
        } else {
            self.expected(at, key, "an integer", "parallelism = 1");
        }
        None
    }

    /// Reads one of several words, of which the first is the default.
    pub(crate) fn choice(&mut self, key: &'static str, words: &[&'static str]) -> &'static str {
        let default = words.first().copied().unwrap_or_default();
        let Some(at) = self.raw(key) else {
            self.record(key, text_to_toml(default), None);
            return default;
        };
        if let Value::Text(text) = &at.value
            && let Some(word) = words.iter().find(|word| *word == text)
        {
            self.record_raw(key, at);
            return word;
        }
        self.expected_word(at, key, words);
        default
    }

    /// Reads a duration, which must be at least 1 ms if `positive`, or returns the default.
    pub(crate) fn duration(&mut self, key: &'static str, default: Duration, positive: bool) -> Duration {
        let Some(at) = self.raw(key) else {
            self.record(key, text_to_toml(&units::show_duration(default)), None);
            return default;
        };
        if let Value::Text(text) = &at.value
            && let Some(value) = units::duration(text)
            && !(positive && value.is_zero())
        {
            self.record_raw(key, at);
            return value;
        }
        let expected = if key == "interval" {
            "a duration above zero, or \"off\""
        } else if positive {
            "a duration above zero"
        } else {
            "a duration"
        };
        self.expected(
            at,
            key,
            expected,
            &format!("{key} = \"{}\"", units::show_duration(default)),
        );
        default
    }

    /// Reads a setting of a later version, of which only the default is accepted.
    ///
    /// `valid` returns true for the other values of that version; any further value is reported as a plain mistake.
    pub(crate) fn only_default(
        &mut self,
        key: &'static str,
        default: &str,
        expected: &str,
        valid: impl Fn(&Value) -> bool,
    ) {
        let Some(at) = self.raw(key) else {
            self.record(key, default.to_owned(), None);
            return;
        };
        if at.value.to_toml() == default {
            self.record_raw(key, at);
        } else if valid(&at.value) {
            self.problem_at(&at.place, &not_yet(&format!("{key} = {}", found(&at.value)), default));
        } else {
            self.expected(at, key, expected, &format!("{key} = {default}"));
        }
    }

    /// Reads a directory: a path, made absolute, or a `file://` URL, which becomes a path.
    pub(crate) fn directory(&mut self, key: &'static str, example: &str) -> Option<String> {
        let (text, place) = self.text(key, example)?;
        self.local_path(key, text, place)
            .map(|path| path.to_string_lossy().into_owned())
    }

    /// Converts a path or a `file://` URL to an absolute path, and reports other schemes by name.
    pub(crate) fn local_path(&mut self, key: &str, text: &str, place: &Place) -> Option<PathBuf> {
        match local_path(text, self.job.bases.of(place)) {
            Ok(path) => Some(path),
            Err(PathError::Later) => {
                let message = format!("{key} = \"{text}\" is not implemented yet; remove it or set it to a local path");
                self.problem_at(place, &message);
                None
            }
            Err(PathError::Unknown(scheme)) => {
                let message = format!(
                    "{key}: expected a path or a file:// URL, found \"{text}\", whose scheme {scheme} is not known; write {key} = \"DIR\""
                );
                self.problem_at(place, &message);
                None
            }
        }
    }

    /// Accepts unknown keys, for a table whose keys are not known.
    pub(crate) const fn allow_any_key(&mut self) {
        self.any_key = true;
    }

    /// Reports every key that was not read.
    pub(crate) fn finish(mut self) {
        if self.any_key {
            return;
        }
        let known = std::mem::take(&mut self.known);
        for (key, at) in self.table {
            if known.contains(&key.as_str()) {
                continue;
            }
            let message = format!("unknown key \"{key}\"; {}", instead_of(key, &known));
            self.problem_at(&at.place, &message);
        }
    }
}

/// Returns `… is not implemented yet; remove it or set it to its default (…)`.
fn not_yet(what: &str, default: &str) -> String {
    format!("{what} is not implemented yet; remove it or set it to its default ({default})")
}

/// Formats a value for a message: on one line, cut after 60 characters.
pub(crate) fn found(value: &Value) -> String {
    let text = match value {
        // A string is shown as it was written, even where TOML would need an escape.
        Value::Text(text) => format!("{text:?}"),
        value => value.to_toml(),
    };
    if text.chars().count() > 60 {
        format!("{}…", text.chars().take(60).collect::<String>())
    } else {
        text
    }
}

/// A text is not a local path.
pub(crate) enum PathError {
    /// A store that a later version will support.
    Later,
    /// An unknown scheme.
    Unknown(String),
}

/// Converts a path or a `file://` URL to a path, which is absolute if `base` is.
pub(crate) fn local_path(text: &str, base: &Path) -> Result<PathBuf, PathError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(base.join(text));
    };
    match scheme {
        "file" => Ok(PathBuf::from(percent_decode(rest))),
        "s3" | "s3a" | "gs" | "az" | "abfs" | "abfss" | "adl" | "http" | "https" | "hdfs" | "memory" => {
            Err(PathError::Later)
        }
        _ => Err(PathError::Unknown(format!("{scheme}://"))),
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, hex) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}
