//! The tables of a job file that are about the whole job: `[checkpoint]`, `[savepoint]`, `[state]`, `[restart]`.

use std::time::Duration;

use super::job_graph::CheckpointSettings;
use super::problem::Place;
use super::reader::{Job, Reader};
use super::suggest::one_of;
use super::tree::{Table, Value};
use super::units;

/// From one checkpoint's start to the next.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// How long a checkpoint may take.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// Reads the table at `key` of the root with `read`, or what it makes of an empty one.
fn with_table<T>(job: &mut Job, root: &Table, top: &Place, key: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
    let empty = Table::new();
    let (table, place) = match root.get(key) {
        None => (&empty, top),
        Some(at) => match &at.value {
            Value::Table(table) => (table, &at.place),
            other => {
                let message = format!("{key}: expected a table, found {}; write [{key}]", other.what());
                job.findings.problem(&at.place, None, message);
                (&empty, &at.place)
            }
        },
    };
    let mut reader = Reader::new(job, table, place, format!("[{key}]"), Some(format!("{key}.")), None);
    let value = read(&mut reader);
    reader.finish();
    value
}

/// `[checkpoint]`.
pub(crate) fn checkpoint(job: &mut Job, root: &Table, top: &Place) -> CheckpointSettings {
    with_table(job, root, top, "checkpoint", |reader| {
        let settings = CheckpointSettings {
            interval: interval(reader),
            timeout: reader.duration("timeout", TIMEOUT_DEFAULT, true),
            dir: reader.directory("dir", "checkpoints"),
        };
        only_words(reader, "mode", &["exactly-once", "at-least-once"]);
        only_words(reader, "on-cancel", &["delete", "retain"]);
        let is_duration = |value: &Value| matches!(value, Value::Text(text) if units::duration(text).is_some());
        reader.only_default("min-pause", "\"0s\"", "a duration", is_duration);
        let count = |value: &Value| matches!(value, Value::Int(0..=0xffff_ffff));
        let positive = |value: &Value| matches!(value, Value::Int(1..=0xffff_ffff));
        reader.only_default("tolerable-failures", "0", "an integer of at least 0", count);
        reader.only_default("max-concurrent", "1", "an integer of at least 1", positive);
        reader.only_default("retain", "1", "an integer of at least 1", positive);
        reader.only_default("unaligned", "false", "true or false", |value| {
            matches!(value, Value::Bool(_))
        });
        settings
    })
}

fn interval(reader: &mut Reader<'_>) -> Option<Duration> {
    if let Some(at) = reader.raw("interval")
        && matches!(&at.value, Value::Text(text) if text == "off")
    {
        reader.record("interval", at.value.to_toml(), Some(&at.place));
        return None;
    }
    Some(reader.duration("interval", INTERVAL_DEFAULT, true))
}

/// A word of which only the first is implemented.
fn only_words(reader: &mut Reader<'_>, key: &'static str, words: &[&'static str]) {
    let default = format!("\"{}\"", words.first().copied().unwrap_or_default());
    let known = |value: &Value| matches!(value, Value::Text(text) if words.contains(&text.as_str()));
    reader.only_default(key, &default, &one_of(words), known);
}

/// `[savepoint]`: where savepoints go.
pub(crate) fn savepoint(job: &mut Job, root: &Table, top: &Place) -> Option<String> {
    with_table(job, root, top, "savepoint", |reader| {
        reader.directory("dir", "savepoints")
    })
}

/// `[state]` and `[restart]`, of which only the defaults are implemented.
pub(crate) fn state_and_restart(job: &mut Job, root: &Table, top: &Place) {
    with_table(job, root, top, "state", |reader| {
        only_words(reader, "backend", &["memory", "disk"])
    });
    with_table(job, root, top, "restart", |reader| {
        only_words(reader, "strategy", &["exponential-delay", "fixed-delay", "none"]);
    });
}
