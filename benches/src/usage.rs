//! CPU time of the process: user and system, all threads.

use std::time::Duration;

/// CPU time so far.
pub(crate) fn cpu() -> Duration {
    // SAFETY: `rusage` is numbers only, so all zeros is one; and the call writes nothing else.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
