//! Log lines on stderr, above the progress line where there is one.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::graph::Warning;
use crate::serve::logs::{JobLogLayer, JobLogs};

/// The progress line at the bottom of the terminal, if any.
static BAR: OnceLock<Mutex<Option<ProgressBar>>> = OnceLock::new();

/// Sets the progress line above which log lines are written.
pub fn stand_above(bar: Option<ProgressBar>) {
    let mut current = BAR
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    *current = bar;
}

/// Writes a job's warnings to stderr, a line each.
pub fn warnings(warnings: &[Warning]) {
    for warning in warnings {
        line(&format!("warning: {warning}"));
    }
}

/// Writes a line to stderr, above the progress line.
pub fn line(text: &str) {
    above(|| {
        let mut stderr = io::stderr().lock();
        // If stderr cannot be written, there is no other place to report it.
        let _ = writeln!(stderr, "{text}");
    });
}

/// Runs a function that writes to the terminal, above the progress line.
pub fn within(write: &mut dyn FnMut()) {
    above(write);
}

fn above<R>(write: impl FnOnce() -> R) -> R {
    let bar = BAR
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above(|| io::stderr().lock().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        *self
    }
}

/// Starts logging. `REGRAFT_LOG` is the filter (`debug`, `regraft=trace`), and `default` applies without it. Log lines
/// of a job also go to its log in `jobs`.
pub fn start(default: &str, jobs: Option<Arc<JobLogs>>) {
    let filter = EnvFilter::try_from_env("REGRAFT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let stderr = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(Stderr)
        .with_ansi(false);
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(stderr)
        .with(jobs.map(JobLogLayer));
    // A second start in the same process, as in tests, changes nothing.
    let _ = subscriber.try_init();
}
