//! Stdout of the process, which print sinks and the command line share.
//!
//! The command line may claim it for one JSON object, and may keep a progress line at the bottom of the terminal. Both
//! hold for the process, and so does what is kept here.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

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

/// A write by the thread of [`write_unless`], and the receiver of its result.
type Ordered = (Vec<u8>, SyncSender<Result<(), Unwritten>>);

/// Orders writes from a thread of their own, which may wait as long as the stream takes nothing.
static WRITER: OnceLock<Mutex<Sender<Ordered>>> = OnceLock::new();

/// Time between two looks whether a write is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Writes output of a job, whole lines, and flushes it: to stdout, or to stderr while stdout is claimed. Waits as long as the
/// stream takes nothing, unless `is_given_up` says that the job is to end: then the lines may be lost.
///
/// # Errors
/// [`Unwritten`] where the stream cannot be written.
pub fn write_unless(lines: Vec<u8>, is_given_up: &dyn Fn() -> bool) -> Result<(), Unwritten> {
    let writer = WRITER.get_or_init(|| {
        let (order, orders) = channel::<Ordered>();
        let writing = move || {
            for (lines, done) in orders {
                // The job may have ended meanwhile.
                let _ = done.send(write(&lines));
            }
        };
        // Without a thread the orders are dropped, which is an error of each write.
        let _ = std::thread::Builder::new().name("stdout".to_owned()).spawn(writing);
        Mutex::new(order)
    });
    let (done, is_done) = sync_channel(1);
    let ordered = writer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((lines, done));
    let no_thread = || Unwritten {
        stream: "stdout",
        error: io::Error::other("no thread writes it"),
    };
    ordered.map_err(|_| no_thread())?;
    loop {
        match is_done.recv_timeout(LOOK) {
            Ok(written) => return written,
            Err(RecvTimeoutError::Disconnected) => return Err(no_thread()),
            Err(RecvTimeoutError::Timeout) if is_given_up() => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn write(lines: &[u8]) -> Result<(), Unwritten> {
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
