//! Writes lines to stdout: `value`, or with parallelism above 1 `N> value` with N from 1. What is printed cannot be taken
//! back, so a replay prints it again: at least once.

use std::io::{IsTerminal as _, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::CheckpointId;

use crate::connector::sink::{SinkError, SinkSnapshot, SinkWriter};
use crate::connectors::format::{Formatter, TextFormat};

/// True once stdout is for something else. Stdout is the process's, and so is this.
static TO_STDERR: AtomicBool = AtomicBool::new(false);

/// Does something while nothing else stands at the bottom of the terminal.
pub type Within = fn(&mut dyn FnMut());

/// Wraps the writing of lines, where there is a progress line that they must not be appended to.
static WITHIN: OnceLock<Within> = OnceLock::new();

/// Makes all print sinks write their lines within `around` from now on.
pub fn write_within(around: Within) {
    let _ = WITHIN.set(around);
}

/// Returns true if lines are printed on a terminal.
#[must_use]
pub fn is_on_terminal() -> bool {
    if TO_STDERR.load(Ordering::Relaxed) {
        std::io::stderr().is_terminal()
    } else {
        std::io::stdout().is_terminal()
    }
}

/// Makes all print sinks write to stderr from now on: stdout is left to one JSON object.
pub fn leave_stdout() {
    TO_STDERR.store(true, Ordering::Relaxed);
}

/// Prints the records of one subtask.
#[derive(Debug)]
pub struct PrintWriter {
    prefix: String,
    formatter: Formatter,
}

impl PrintWriter {
    /// Makes a writer of records of this shape: raw text as it is, columns separated by tabs.
    ///
    /// # Errors
    /// None today; the signature is that of all sinks.
    pub fn new(subtask: u32, parallelism: u32, input: &PortValue) -> Result<Self, SinkError> {
        let prefix = if parallelism > 1 {
            format!("{}> ", subtask + 1)
        } else {
            String::new()
        };
        Ok(Self {
            prefix,
            formatter: Formatter::new(format_of(input), input)?,
        })
    }
}

fn format_of(input: &PortValue) -> TextFormat {
    match input {
        PortValue::Record(_) => TextFormat::Tsv,
        PortValue::Text | PortValue::Bytes => TextFormat::Lines,
    }
}

/// A full disk may be emptied; a pipe without a reader stays broken, and the job must not restart for ever.
fn cannot_write(path: &'static str, error: std::io::Error) -> SinkError {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return SinkError::ReaderGone { path, error };
    }
    SinkError::Io {
        doing: "write to",
        path: path.to_owned(),
        error,
    }
}

impl SinkWriter for PrintWriter {
    fn begin(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let mut text = vec![];
        for value in batch.values.iter() {
            text.extend_from_slice(self.prefix.as_bytes());
            self.formatter.append(value, &mut text)?;
        }
        let to_stderr = TO_STDERR.load(Ordering::Relaxed);
        let mut written = Ok(());
        let mut write = || {
            written = if to_stderr {
                std::io::stderr().lock().write_all(&text)
            } else {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&text).and_then(|()| stdout.flush())
            };
        };
        match WITHIN.get() {
            Some(around) => around(&mut write),
            None => write(),
        }
        written.map_err(|error| cannot_write(if to_stderr { "stderr" } else { "stdout" }, error))
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, _: CheckpointId) {}

    fn abort(&mut self) {}

    fn set_input(&mut self, input: &PortValue) -> Result<(), SinkError> {
        self.formatter = Formatter::new(format_of(input), input)?;
        Ok(())
    }
}
