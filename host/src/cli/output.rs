//! Results on stdout: text, or exactly one JSON object.
//!
//! Every verb writes through this file. The first write that fails is kept, and fails the verb at its end ([`check`]), so
//! that a full disk never passes for an empty result. A closed pipe (`| head`) is no error.

use std::io::{Error, ErrorKind, Write};
use std::sync::OnceLock;

use regraft_model::error_kind::ErrorKind as Kind;

use super::failure::Failure;
use crate::escape::lines;

/// The first error of stdout, which is the process's, and so is this.
static FAILED: OnceLock<String> = OnceLock::new();

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
            print(&lines(&text()));
        }
    }

    /// Prints one of several lines; nothing with `--json`.
    pub fn line(self, text: &str) {
        if !self.json {
            print(&lines(text));
        }
    }
}

/// Prints a line.
pub fn print(text: &str) {
    write(&format!("{text}\n"));
}

/// Writes text as it is. Returns false if it could not be written: a verb that goes on and on has to end then.
pub fn write(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    drop(stdout);
    keep(written)
}

fn keep(written: Result<(), Error>) -> bool {
    if let Err(error) = &written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Only the first one counts.
        let _ = FAILED.set(error.to_string());
    }
    written.is_ok()
}

/// Fails if anything could not be written.
///
/// # Errors
/// [`Failure`] with the system's reason.
pub fn check() -> Result<(), Failure> {
    match FAILED.get() {
        Some(error) => Err(Failure {
            path: Some("stdout".to_owned()),
            ..Failure::new(
                Kind::Failed,
                format!("the result could not be written to stdout: {error}; what the command did is done"),
            )
        }),
        None => Ok(()),
    }
}
