//! A program that runs to its end, and what it used.

use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// Last bytes of stderr that an error quotes.
const QUOTED_MAX: usize = 2000;

/// Resources that a process has used, including those of its children that it waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Used {
    /// Time from before its start until it has ended.
    pub(crate) wall: Duration,
    /// CPU time of all its threads, user and system.
    pub(crate) cpu: Duration,
    /// Greatest resident memory, in bytes. That of this program when it started the process is a lower bound.
    pub(crate) memory_max: u64,
}

/// Runs a command to its end. Returns its stdout.
///
/// # Errors
/// The end of its stderr, if it does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<(String, Used), Failure> {
    let start = Instant::now();
    let piped = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| {
        let program = command.get_program().to_string_lossy();
        format!("cannot start {program}: {error}")
    })?;
    let mut errors = child.stderr.take().ok_or("stderr is a pipe")?;
    let reader = std::thread::spawn(move || {
        let mut text = vec![];
        let _ = errors.read_to_end(&mut text);
        text
    });
    let mut out = String::new();
    child
        .stdout
        .take()
        .ok_or("stdout is a pipe")?
        .read_to_string(&mut out)?;
    let (status, used) = wait(&child, start)?;
    let errors = reader.join().map_err(|_| "stderr could not be read")?;
    if status.success() {
        return Ok((out, used));
    }
    let errors = String::from_utf8_lossy(&errors[errors.len().saturating_sub(QUOTED_MAX)..]).into_owned();
    Err(format!("{command:?} ended with {status}:\n{out}{errors}").into())
}

/// Waits until a child that was started at this time has ended.
pub(crate) fn wait(child: &Child, start: Instant) -> io::Result<(ExitStatus, Used)> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    loop {
        // SAFETY: both pointers are valid for writes, and nothing else waits for this child.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        let error = io::Error::last_os_error();
        if waited == pid {
            break;
        } else if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: all bit patterns are valid, and it was zeroed.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    let used = Used {
        wall: start.elapsed(),
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        // Linux counts in KiB.
        memory_max: usage.ru_maxrss as u64 * 1024,
    };
    Ok((ExitStatus::from_raw(status), used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_a_program_used() {
        let (out, used) =
            run(Command::new("sh").args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; echo $i"]))
                .expect("a program that runs");
        assert_eq!(out, "20000\n");
        assert!(
            used.cpu > Duration::ZERO && used.wall > Duration::ZERO && used.memory_max > 100_000,
            "{used:?}"
        );
        let error = run(Command::new("sh").args(["-c", "echo no >&2; exit 3"]))
            .expect_err("it fails")
            .to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("no\n"), "{error}");
    }
}
