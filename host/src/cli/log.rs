//! Log lines on stderr, beside a progress line where there is one.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The progress line that stands at the bottom of the terminal, if any.
static BAR: OnceLock<Mutex<Option<ProgressBar>>> = OnceLock::new();

/// Log lines are written above this progress line from now on.
pub fn stand_above(bar: Option<ProgressBar>) {
    let mut current = BAR
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    *current = bar;
}

/// Writes a line to stderr, above the progress line.
pub fn line(text: &str) {
    above(|| {
        let mut stderr = io::stderr().lock();
        // Without a stderr there is nobody to tell.
        let _ = writeln!(stderr, "{text}");
    });
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

/// Starts logging: `REGRAFT_LOG` chooses what (`debug`, `regraft=trace`), `default` applies without it.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_env("REGRAFT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(Stderr);
    // A second start in the same process (tests) changes nothing.
    let _ = subscriber.with_ansi(false).try_init();
}
