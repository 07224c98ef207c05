//! Results on stdout: text, or exactly one JSON object.

use std::io::Write;

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// True for JSON (`--json`), false for text.
    pub json: bool,
}

impl Output {
    /// Prints the result of a command, as one line of JSON or as text.
    pub fn result(self, json: &serde_json::Value, text: impl FnOnce() -> String) {
        if self.json {
            print(&json.to_string());
        } else {
            print(&text());
        }
    }

    /// Prints one of several lines; nothing with `--json`.
    pub fn line(self, text: &str) {
        if !self.json {
            print(text);
        }
    }
}

/// Prints a line on stdout. A closed pipe (`| head`) is not an error.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
