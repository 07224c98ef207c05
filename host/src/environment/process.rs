//! The identity of a process, so that another one can tell later that it is gone.
//!
//! A process id alone is used again, and means another process on another machine or in another container.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Random id of the machine's boot.
    boot: String,
    /// The namespace that `pid` is valid in.
    namespace: String,
    /// The process id.
    pid: u32,
    /// Start of the process, in clock ticks since the boot.
    started: u64,
}

impl ProcessIdentity {
    /// Returns the identity of this process; `None` where the system does not tell it.
    #[must_use]
    pub fn own() -> Option<Self> {
        let pid = std::process::id();
        let (boot, namespace) = here()?;
        Some(Self {
            boot,
            namespace,
            pid,
            started: started(pid)?,
        })
    }

    /// Returns true only if the process is certainly gone: it ran on this boot of this machine, among the processes that
    /// this one can see.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let is_here = here().is_some_and(|here| here == (self.boot.clone(), self.namespace.clone()));
        // That this process sees itself shows that it would see the other one.
        is_here
            && started(std::process::id()).is_some()
            && !is_hidden(self.pid)
            && started(self.pid) != Some(self.started)
    }
}

/// Returns true only if there is certainly no process of this id among those that this one can see, or it has ended.
#[must_use]
pub fn has_ended(pid: u32) -> bool {
    started(std::process::id()).is_some() && !is_hidden(pid) && started(pid).is_none()
}

/// Returns true if there is a process of this id that `/proc` does not show (`hidepid`): it is another user's.
fn is_hidden(pid: u32) -> bool {
    let exists = || {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
    };
    !Path::new(&format!("/proc/{pid}")).exists() && exists()
}

fn here() -> Option<(String, String)> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some((boot.trim().to_owned(), namespace.to_string_lossy().into_owned()))
}

/// Returns the start of a process, field 22 of `/proc/<pid>/stat`; `None` if there is no such process, or it has ended and
/// only its parent has not asked for its status yet.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may have blanks and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    fields.next().filter(|state| !matches!(*state, "Z" | "X"))?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_only_if_it_certainly_is() {
        let own = ProcessIdentity::own().expect("Linux");
        assert!(!own.is_gone());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let running = ProcessIdentity {
            pid: child.id(),
            started: started(child.id()).expect("it runs"),
            ..own.clone()
        };
        assert!(!running.is_gone());
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert!(running.is_gone());
        let reused = ProcessIdentity {
            started: own.started + 1,
            ..own.clone()
        };
        assert!(reused.is_gone(), "its pid is another process's");
        let elsewhere = ProcessIdentity {
            boot: "another".to_owned(),
            ..running.clone()
        };
        assert!(!elsewhere.is_gone(), "another machine's");
        let inside = ProcessIdentity {
            namespace: "pid:[1]".to_owned(),
            ..running
        };
        assert!(!inside.is_gone(), "another container's");
    }
}
