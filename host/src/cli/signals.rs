//! Signals that ask this process to end: SIGINT (Ctrl-C), SIGTERM, and SIGHUP, which a terminal sends when it closes.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receiver of the signals that ask this process to end.
pub struct EndingSignals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if SIGHUP is ignored, as `nohup` arranges.
    hangup: Option<Signal>,
}

impl EndingSignals {
    /// Receives these signals from now on.
    ///
    /// # Errors
    /// The system's, if it refuses a handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: match hangup_is_ignored() {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
        })
    }

    /// Waits for one of the signals. Dropping the future loses none.
    pub async fn any(&mut self) {
        self.typed().await;
    }

    /// Waits for one of the signals, and returns true if it is Ctrl-C. Dropping the future loses none.
    pub async fn typed(&mut self) -> bool {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
            _ = hangup => false,
        }
    }

    /// Waits for Ctrl-C.
    pub async fn interrupt(&mut self) {
        self.interrupt.recv().await;
    }
}

/// Returns true if this process was started with SIGHUP ignored. Known on Linux only.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, 1)
}

/// Returns true if a process ignores a signal, from its `/proc/PID/status`.
fn ignores(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::ignores;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        assert!(ignores("Name:\tx\nSigIgn:\t0000000000000001\n", 1));
        assert!(!ignores("Name:\tx\nSigIgn:\t0000000000001000\n", 1));
        assert!(ignores("SigIgn:\t0000000000001000\n", 13));
        assert!(!ignores("", 1));
    }
}
