//! The interface `host`: configuration, log lines, measurements, and word of a panic.
//!
//! Everything that a guest says here is cut and counted, so that a guest cannot fill the host's memory or its log.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::bindings::regraft::operator::host;
use crate::events::{GuestEvents, LINES_PER_SECOND_MAX, LogBudget, LogLevel};
use crate::imports::GuestData;

/// Maximum length of a log line, in bytes. A longer one is cut.
pub(crate) const LINE_MAX: usize = 16 << 10;
/// Maximum length of the name of a counter or gauge, in bytes. A longer one is cut.
const NAME_MAX: usize = 128;
/// The most names of counters and gauges.
const NAMES_MAX: usize = 1_000;

/// Word of a panic.
#[derive(Debug, Clone)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) row: Option<u32>,
}

/// Data of the interface.
pub(crate) struct HostImports {
    config: Arc<str>,
    arguments: Arc<[String]>,
    sink: Arc<dyn GuestEvents>,
    lines: Arc<LogBudget>,
    names: HashSet<Box<str>>,
    /// The panic of the present call.
    pub(crate) panic: Option<Panic>,
}

impl HostImports {
    pub(crate) fn new(
        config: Arc<str>,
        arguments: Arc<[String]>,
        (sink, lines): (Arc<dyn GuestEvents>, Arc<LogBudget>),
    ) -> Self {
        Self {
            config,
            arguments,
            sink,
            lines,
            names: HashSet::new(),
            panic: None,
        }
    }

    /// The name as it is kept, where it is one of the first thousand.
    fn name<'a>(&mut self, name: &'a str) -> Option<&'a str> {
        let name = cut(name, NAME_MAX);
        if !self.names.contains(name) {
            if self.names.len() == NAMES_MAX {
                return None;
            }
            self.names.insert(name.into());
        }
        Some(name)
    }
}

impl host::Host for GuestData {
    fn config(&mut self) -> String {
        self.host.config.as_ref().to_owned()
    }

    fn arguments(&mut self) -> Vec<String> {
        self.host.arguments.to_vec()
    }

    fn log(&mut self, level: host::LogLevel, message: String) {
        let level = match level {
            host::LogLevel::Trace => LogLevel::Trace,
            host::LogLevel::Debug => LogLevel::Debug,
            host::LogLevel::Info => LogLevel::Info,
            host::LogLevel::Warn => LogLevel::Warn,
            host::LogLevel::Error => LogLevel::Error,
        };
        let (kept, dropped) = self.host.lines.take(Instant::now());
        if dropped > 0 {
            let text = format!("{dropped} log lines were dropped: expected at most {LINES_PER_SECOND_MAX} in a second");
            self.host.sink.log(LogLevel::Warn, &text);
        }
        if kept {
            self.host.sink.log(level, cut(&message, LINE_MAX));
        }
    }

    fn counter_add(&mut self, name: String, delta: u64) {
        if let Some(name) = self.host.name(&name) {
            self.host.sink.counter_add(name, delta);
        }
    }

    fn gauge_set(&mut self, name: String, value: f64) {
        if let Some(name) = self.host.name(&name) {
            self.host.sink.gauge_set(name, value);
        }
    }

    fn panicked(&mut self, message: String, file: String, line: u32, column: u32, row: Option<u32>) {
        let (message, file) = (cut(&message, LINE_MAX).to_owned(), cut(&file, LINE_MAX).to_owned());
        // The first one: a second panic is one of the first one's unwinding.
        self.host.panic.get_or_insert(Panic {
            message,
            file,
            line,
            column,
            row,
        });
    }
}

/// Cuts a text between characters.
pub(crate) fn cut(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("añb", 2), "a");
        assert_eq!(cut("añb", 9), "añb");
    }
}
