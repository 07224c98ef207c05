//! Stdout of the process, which print sinks and the command line share.
//!
//! The command line may claim it for one JSON object, and may keep a progress line at the bottom of the terminal. Both
//! hold for the process, and so does what is kept here.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// True once stdout is claimed.
static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Runs a function that writes to the terminal while no progress line stands at its bottom.
pub type Within = fn(&mut dyn FnMut());

/// Wraps the writing of output, where there is a progress line that it must not be appended to.
static WITHIN: OnceLock<Within> = OnceLock::new();

/// Output that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {stream}: {error}")]
pub struct Unwritten {
    /// stdout or stderr.
    pub stream: &'static str,
    /// The system's error.
    #[source]
    pub error: io::Error,
}

/// Claims stdout for one JSON object: from now on the output of jobs goes to stderr.
pub fn claim() {
    CLAIMED.store(true, Ordering::Relaxed);
}

/// Returns true if the output of jobs goes to a terminal.
#[must_use]
pub fn is_terminal() -> bool {
    if CLAIMED.load(Ordering::Relaxed) {
        io::stderr().is_terminal()
    } else {
        io::stdout().is_terminal()
    }
}

/// Writes the output of jobs within `around` from now on. Only the first call in a process counts.
pub fn write_within(around: Within) {
    let _ = WITHIN.set(around);
}

/// Writes output of a job, whole lines, and flushes it: to stdout, or to stderr while stdout is claimed.
///
/// # Errors
/// [`Unwritten`] where the stream cannot be written.
pub fn write(lines: &[u8]) -> Result<(), Unwritten> {
    let claimed = CLAIMED.load(Ordering::Relaxed);
    let mut written = Ok(());
    let mut write = || {
        written = if claimed {
            io::stderr().lock().write_all(lines)
        } else {
            let mut stdout = io::stdout().lock();
            stdout.write_all(lines).and_then(|()| stdout.flush())
        };
    };
    match WITHIN.get() {
        Some(around) => around(&mut write),
        None => write(),
    }
    let stream = if claimed { "stderr" } else { "stdout" };
    written.map_err(|error| Unwritten { stream, error })
}
