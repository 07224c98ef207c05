//! Reads the tables about the job as a whole: `[checkpoint]`, `[savepoint]`, `[state]`, `[restart]`.

use std::time::Duration;

use super::job_graph::{CheckpointMode, CheckpointSettings, OnCancel, RestartStrategy};
use super::problem::Place;
use super::reader::{Job, Reader};
use super::suggest::one_of;
use super::tree::{Table, Value};
use super::units;

/// Default time from one checkpoint's start to the next.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// Default time after which a checkpoint is given up.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// Calls `read` with the table at `key` of the root, or with an empty one if it is missing or not a table.
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

/// Reads `[checkpoint]`.
pub(crate) fn checkpoint(job: &mut Job, root: &Table, top: &Place) -> CheckpointSettings {
    with_table(job, root, top, "checkpoint", |reader| {
        let settings = CheckpointSettings {
            interval: interval(reader),
            mode: match reader.choice("mode", &["exactly-once", "at-least-once"]) {
                "at-least-once" => CheckpointMode::AtLeastOnce,
                _ => CheckpointMode::ExactlyOnce,
            },
            min_pause: reader.duration("min-pause", Duration::ZERO, false),
            timeout: reader.duration("timeout", TIMEOUT_DEFAULT, true),
            tolerable_failures: reader.count("tolerable-failures", 0, 0),
            max_concurrent: reader.count("max-concurrent", 1, 1),
            retain: reader.count("retain", 1, 1),
            on_cancel: match reader.choice("on-cancel", &["delete", "retain"]) {
                "retain" => OnCancel::Retain,
                _ => OnCancel::Delete,
            },
            dir: reader.directory("dir", "checkpoints"),
        };
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

/// Reads a setting with several words, of which only the first is implemented.
fn only_words(reader: &mut Reader<'_>, key: &'static str, words: &[&'static str]) {
    let default = format!("\"{}\"", words.first().copied().unwrap_or_default());
    let known = |value: &Value| matches!(value, Value::Text(text) if words.contains(&text.as_str()));
    match reader.raw(key) {
        Some(at) if !known(&at.value) => reader.expected_word(at, key, words),
        _ => reader.only_default(key, &default, &one_of(words), known),
    }
}

/// Reads `[savepoint]` and returns the directory of savepoints.
pub(crate) fn savepoint(job: &mut Job, root: &Table, top: &Place) -> Option<String> {
    with_table(job, root, top, "savepoint", |reader| {
        reader.directory("dir", "savepoints")
    })
}

/// Reads `[state]`, of which only the defaults are implemented.
pub(crate) fn state(job: &mut Job, root: &Table, top: &Place) {
    with_table(job, root, top, "state", |reader| {
        only_words(reader, "backend", &["memory", "disk"]);
    });
}

/// The restart strategies, each with its keys.
const STRATEGIES: [(&str, &[&str]); 3] = [
    (
        "exponential-delay",
        &[
            "initial-backoff",
            "max-backoff",
            "backoff-multiplier",
            "reset-backoff-threshold",
            "jitter-factor",
            "attempts-before-reset-backoff",
        ],
    ),
    ("fixed-delay", &["attempts", "delay"]),
    ("none", &[]),
];

/// Reads `[restart]`.
///
/// As in Flink, a job without periodic checkpoints has no restart strategy by default, since it would have to make all
/// of its output again.
pub(crate) fn restart(job: &mut Job, root: &Table, top: &Place, interval: Option<Duration>) -> RestartStrategy {
    with_table(job, root, top, "restart", |reader| {
        let named = reader.raw("strategy").is_some();
        let strategy = if named || interval.is_some() {
            reader.choice("strategy", &STRATEGIES.map(|(word, _)| word))
        } else {
            reader.record("strategy", "\"none\"".to_owned(), None);
            "none"
        };
        let idle = STRATEGIES.iter().filter(|(word, _)| *word != strategy);
        for (other, keys) in idle {
            for key in *keys {
                if let Some(at) = reader.raw(key) {
                    let message = format!(
                        "{key} has no effect with strategy = \"{strategy}\"; remove it, or write strategy = \"{other}\""
                    );
                    reader.warning_at(&at.place, &message);
                }
            }
        }
        match strategy {
            "exponential-delay" => exponential_delay(reader),
            "fixed-delay" => RestartStrategy::FixedDelay {
                attempts: reader.count("attempts", 0, 1),
                delay: reader.duration("delay", Duration::from_secs(1), false),
            },
            _ => RestartStrategy::None,
        }
    })
}

fn exponential_delay(reader: &mut Reader<'_>) -> RestartStrategy {
    let initial_backoff = reader.duration("initial-backoff", Duration::from_secs(1), true);
    let max_backoff = reader.duration("max-backoff", Duration::from_secs(60), true);
    if max_backoff < initial_backoff {
        let at = reader.raw("max-backoff").or_else(|| reader.raw("initial-backoff"));
        let message = format!(
            "max-backoff ({}) is less than initial-backoff ({}); make it at least that",
            units::show_duration(max_backoff),
            units::show_duration(initial_backoff)
        );
        let place = at.map_or(reader.place, |at| &at.place);
        reader.problem_at(place, &message);
    }
    RestartStrategy::ExponentialDelay {
        initial_backoff,
        max_backoff,
        backoff_multiplier: reader.number("backoff-multiplier", 1.0, f64::MAX, 1.5),
        reset_backoff_threshold: reader.duration("reset-backoff-threshold", Duration::from_secs(3600), true),
        jitter_factor: reader.number("jitter-factor", 0.0, 1.0, 0.1),
        attempts: reader.integer32("attempts-before-reset-backoff", 1, u32::MAX, 10),
    }
}
