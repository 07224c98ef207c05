//! Results on stdout: text for people, or exactly one JSON object.

use std::io::Write;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// `--json`.
    pub json: bool,
}

impl Output {
    /// Prints the result of a command.
    pub fn result(self, json: &serde_json::Value, text: impl FnOnce() -> String) {
        if self.json {
            print(&json.to_string());
        } else {
            print(&text());
        }
    }

    /// Prints one line of several, for people only.
    pub fn line(self, text: &str) {
        if !self.json {
            print(text);
        }
    }
}

/// Prints a line on stdout. A reader that has gone (`| head`) is no failure.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
