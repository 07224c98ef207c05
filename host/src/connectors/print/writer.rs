//! Writes lines to [`stdout`]: `value`, or with parallelism above 1 `N> value` with N from 1. What is printed cannot be taken
//! back, so a replay prints it again: at least once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::CheckpointId;

use crate::connector::sink::{SinkError, SinkSnapshot, SinkWriter};
use crate::connectors::format::{Formatter, TextFormat};
use crate::stdout::{self, Unwritten};

/// Prints the records of one subtask.
#[derive(Debug)]
pub struct PrintWriter {
    prefix: String,
    formatter: Formatter,
    /// True once the job is to end, whether or not its output is taken.
    cancelled: Arc<AtomicBool>,
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
            cancelled: Arc::default(),
        })
    }
}

fn format_of(input: &PortValue) -> TextFormat {
    match input {
        PortValue::Record(_) => TextFormat::Tsv,
        PortValue::Text | PortValue::Bytes => TextFormat::Lines,
    }
}

/// Neither error is one that a restart mends: a job must not print the same again and again to a full disk.
fn cannot_write(Unwritten { stream: path, error }: Unwritten) -> SinkError {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        SinkError::ReaderGone { path, error }
    } else {
        SinkError::Print { path, error }
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
        let is_given_up = || self.cancelled.load(Ordering::Relaxed);
        stdout::write_unless(text, &is_given_up).map_err(cannot_write)
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, _: CheckpointId) {}

    fn abort(&mut self) {}

    fn set_cancelled(&mut self, cancelled: Arc<AtomicBool>) {
        self.cancelled = cancelled;
    }

    fn set_input(&mut self, input: &PortValue) -> Result<(), SinkError> {
        self.formatter = Formatter::new(format_of(input), input)?;
        Ok(())
    }
}
