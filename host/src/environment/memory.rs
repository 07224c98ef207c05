//! The memory of this machine, and the part of it that the keyed state of all jobs may take.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Part of the memory that state and its snapshots may take, in percent.
const STATE_PERCENT: u64 = 60;
/// Number of times that a byte of state counts: a snapshot holds it once more until it is written.
const COPIES: u64 = 2;

/// Bytes of keyed state of all jobs, and their limit.
#[derive(Debug)]
pub struct StateBudget {
    /// For the state and its copies.
    limit: u64,
    /// Bytes of state, each counted once.
    used: AtomicU64,
    /// Number of operators that have state.
    holders: AtomicU64,
    /// Bytes of state that is being restored, and is not counted as state of a job yet.
    reserved: AtomicU64,
}

impl Default for StateBudget {
    /// Returns a budget without a limit.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl StateBudget {
    /// Returns a budget of so many bytes for state and the copies that snapshots make of it.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            holders: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
        }
    }

    /// Returns the budget of this machine: 60 % of its memory, or of what the control groups of this process allow it.
    #[must_use]
    pub fn of_this_machine() -> Self {
        usable_bytes().map_or_else(Self::default, |bytes| Self::new(bytes / 100 * STATE_PERCENT))
    }

    /// Returns the most bytes of state.
    #[must_use]
    pub const fn state_max(&self) -> u64 {
        self.limit / COPIES
    }

    /// Returns the bytes of state of all jobs.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the most bytes of state while an operator with more than its share grows: a tenth is kept for the others.
    #[must_use]
    pub const fn contested_max(&self) -> u64 {
        self.state_max() - self.state_max() / 10
    }

    /// Returns the share of each operator that has state. One that comes later is counted where there is only one.
    pub fn share(&self) -> u64 {
        self.state_max() / self.holders.load(Ordering::Relaxed).max(2)
    }

    /// Counts an operator that has state from now on.
    pub fn add_holder(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an operator no more, which has no state left.
    pub fn remove_holder(&self) {
        self.holders.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds bytes of state.
    pub fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Reserves bytes for state that is being restored. Returns false, and reserves none, where it does not fit beside the state
    /// of all jobs and what is reserved already. Writes of jobs do not regard what is reserved: it has room among the copies.
    pub fn reserve(&self, bytes: u64) -> bool {
        let reserve = |reserved: u64| {
            let all = reserved.checked_add(bytes)?;
            (all.saturating_add(self.used()) <= self.state_max()).then_some(all)
        };
        self.reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve)
            .is_ok()
    }

    /// Gives back bytes that were reserved.
    pub fn release(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes away bytes that were added.
    pub fn sub(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Returns the memory that this process may use, in bytes; `None` where the machine does not tell.
#[must_use]
pub fn usable_bytes() -> Option<u64> {
    let total = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_of(&text));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| {
        // Version 2 says `max` where there is no limit, version 1 a number near 2^63.
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    });
    limits.chain(total).min()
}

/// Returns the files that may hold the limit of a process whose `/proc/self/cgroup` this is: those of its own groups and of all
/// above them.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = vec![];
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            other if other.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        // In a container the path may be that of the machine, and the group itself be mounted at the root.
        files.extend(path.ancestors().map(|above| Path::new(root).join(above).join(file)));
    }
    files
}

/// Returns the total of a `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_that_of_any_group_above() {
        let shown = |groups: &str| {
            let files = limit_files(groups);
            let files = files.iter().map(|path| path.to_string_lossy().into_owned());
            files.collect::<Vec<_>>()
        };
        assert_eq!(
            shown("0::/a/b\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            shown("5:cpu,cpuacct:/x\n4:memory:/\nnonsense"),
            ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
    }

    #[test]
    fn the_total_is_read() {
        assert_eq!(total_of("MemTotal:       24000 kB\nMemFree: 1 kB\n"), Some(24_576_000));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_byte_of_state_counts_twice() {
        let budget = StateBudget::new(1000);
        budget.add(300);
        budget.sub(100);
        assert_eq!((budget.state_max(), budget.used()), (500, 200));
    }

    #[test]
    fn operators_with_state_have_equal_shares() {
        let budget = StateBudget::new(1000);
        assert_eq!((budget.share(), budget.contested_max()), (250, 450));
        (0..5).for_each(|_| budget.add_holder());
        assert_eq!(budget.share(), 100);
        budget.remove_holder();
        assert_eq!(budget.share(), 125);
    }

    #[test]
    fn restores_share_what_state_leaves() {
        let budget = StateBudget::new(1000);
        budget.add(300);
        assert!(budget.reserve(150) && !budget.reserve(51) && budget.reserve(50));
        assert!(!budget.reserve(u64::MAX));
        // What is handed over counts as state, and not as reserved.
        budget.add(150);
        budget.release(200);
        assert!(!budget.reserve(51) && budget.reserve(50));
    }
}
