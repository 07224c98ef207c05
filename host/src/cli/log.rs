//! Log lines on stderr, above the progress line where there is one.
//!
//! In a process that runs jobs, a separate thread writes the lines, so that a blocked stderr delays neither jobs nor signals.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use indicatif::ProgressBar;
use tracing_subscriber::filter::DynFilterFn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::escape::{event, lines};
use crate::graph::Warning;
use crate::jobs::observe::PERIODIC;
use crate::log_queue::{LogQueue, Logged};
use crate::serve::logs::{JobLogLayer, JobLogs};

/// The progress line at the bottom of the terminal, if any.
static BAR: OnceLock<Mutex<Option<ProgressBar>>> = OnceLock::new();

/// Lines that wait to be written, where jobs run.
static QUEUE: OnceLock<LogQueue<()>> = OnceLock::new();

/// Time that the end of the process waits for lines to be written.
const END_PATIENCE: Duration = Duration::from_secs(1);

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

/// Writes a line to stderr, above the progress line. On a terminal, its first word is coloured if it tells of a problem.
pub fn line(text: &str) {
    let text = lines(text);
    emit(format!("{}\n", painted(&text, is_coloured())));
}

/// Writes whole lines, or has them written.
fn emit(text: String) {
    match QUEUE.get() {
        Some(queue) => queue.push((), text),
        None => to_stderr(&text),
    }
}

fn to_stderr(text: &str) {
    above(|| {
        // If stderr cannot be written, there is no other place to report it.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    });
}

fn write_queued((): (), logged: Logged) {
    match logged {
        Logged::Text(text) => to_stderr(&text),
        Logged::Dropped(lines) => to_stderr(&format!(
            "warning: {lines} log lines were dropped: stderr took no more\n"
        )),
        Logged::End => {}
    }
}

/// Waits a moment until all lines are written: the process ends.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(END_PATIENCE);
    }
}

/// Returns true if stderr may be coloured: it is a terminal, and the user has not asked for none (<https://no-color.org>).
fn is_coloured() -> bool {
    let asked = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let is_dumb = asked("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && asked("NO_COLOR").is_none() && !is_dumb
}

/// Colours `error:` red and `warning:` yellow at the beginning of a text.
fn painted(text: &str, is_coloured: bool) -> Cow<'_, str> {
    for (word, colour) in [("error:", 31), ("warning:", 33)] {
        if let Some(rest) = text.strip_prefix(word).filter(|_| is_coloured) {
            return Cow::Owned(format!("\u{1b}[1;{colour}m{word}\u{1b}[0m{rest}"));
        }
    }
    Cow::Borrowed(text)
}

/// Runs a function that writes to the terminal, above the progress line.
pub fn within(write: &mut dyn FnMut()) {
    above(write);
}

fn bar() -> Option<ProgressBar> {
    let bar = BAR.get_or_init(Mutex::default).lock();
    bar.unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// Returns true if there is a progress line.
fn has_bar() -> bool {
    bar().is_some()
}

fn above<R>(write: impl FnOnce() -> R) -> R {
    match bar() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One event.
        let text = String::from_utf8_lossy(bytes);
        emit(event(&text).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        *self
    }
}

/// Returns true if a line about a periodic checkpoint is left out: the progress line tells of them. Those of savepoints and
/// upgrades, and of rounds that fail, stay.
fn told_by_progress(target: &str) -> bool {
    target == PERIODIC && has_bar() && std::env::var_os("REGRAFT_LOG").is_none()
}

/// Lets a thread write all lines from now on: jobs run in this process.
pub fn queue() {
    let _ = QUEUE.get_or_init(|| LogQueue::start("log", write_queued));
}

/// Starts logging. `REGRAFT_LOG` is the filter (`debug`, `regraft=trace`), and `default` applies without it. Log lines
/// of a job also go to its log in `jobs`.
pub fn start(default: &str, jobs: Option<Arc<JobLogs>>) {
    let filter = EnvFilter::try_from_env("REGRAFT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let stderr = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(Stderr)
        .with_ansi(is_coloured())
        .with_filter(DynFilterFn::new(|event, _| !told_by_progress(event.target())));
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(stderr)
        .with(jobs.map(JobLogLayer::new));
    // A second start in the same process, as in tests, changes nothing.
    let _ = subscriber.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_word_is_coloured() {
        assert_eq!(painted("error: no", true), "\u{1b}[1;31merror:\u{1b}[0m no");
        assert_eq!(painted("warning: no", true), "\u{1b}[1;33mwarning:\u{1b}[0m no");
        assert_eq!(painted("no error: here", true), "no error: here");
        assert_eq!(painted("error: no", false), "error: no");
    }
}
