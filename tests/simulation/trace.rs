//! The trace: every decision of a simulation and every request to its machine, line by line.
//!
//! Its hash is always computed; the lines are kept on request.

use std::fmt::{Arguments, Write as _};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

/// Lines in order, or only their hash.
#[derive(Default)]
pub struct Trace(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    hash: Xxh3,
    keep: bool,
    lines: String,
    scratch: String,
}

impl Trace {
    /// Creates a trace. `keep`: keep the lines, not only their hash.
    pub fn new(keep: bool) -> Self {
        Self(Mutex::new(Inner {
            keep,
            ..Inner::default()
        }))
    }

    /// Adds a line, at a simulated time in nanoseconds.
    pub fn line(&self, now_ns: u64, text: Arguments<'_>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner {
            hash,
            keep,
            lines,
            scratch,
        } = &mut *inner;
        scratch.clear();
        let _ = writeln!(scratch, "{:>12}.{:03} {text}", now_ns / 1_000_000, now_ns / 1000 % 1000);
        hash.update(scratch.as_bytes());
        if *keep {
            lines.push_str(scratch);
        }
    }

    /// Returns the hash of all lines.
    pub fn hash(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hash.digest()
    }

    /// Returns all lines; empty where they were not kept.
    pub fn lines(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }
}

/// A writer that adds the host's log lines to the trace of a machine, with its time.
pub struct Log(pub std::sync::Arc<crate::machine::Machine>);

impl std::io::Write for &Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0
            .trace
            .line(self.0.now_ns(), format_args!("log {}", text.trim_end()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a function with its log going to the trace.
pub fn logged<T>(machine: &std::sync::Arc<crate::machine::Machine>, work: impl FnOnce() -> T) -> T {
    let log = std::sync::Arc::new(Log(machine.clone()));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(log)
        .finish();
    tracing::subscriber::with_default(subscriber, work)
}
