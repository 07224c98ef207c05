//! The memory that this process may use: that of the machine, or of its control group if that has less.

use std::fs;
use std::path::Path;

/// Returns the memory that this process may use, in bytes; `None` where the system does not tell it.
#[must_use]
pub fn usable_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_of(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|text| limit_of(Path::new("/sys/fs/cgroup"), &text));
    machine.into_iter().chain(group).min()
}

/// Returns the total of `/proc/meminfo` in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns the least limit of a control group and those that it is in, in bytes; `None` without a limit. `cgroup` is the
/// text of `/proc/self/cgroup`, and `root` the directory of the groups.
fn limit_of(root: &Path, cgroup: &str) -> Option<u64> {
    let limits = cgroup.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (dir, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return vec![],
        };
        let own = dir.join(path.trim_start_matches('/'));
        let groups = own.ancestors().take_while(|group| group.starts_with(&dir));
        let limit = |group: &Path| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        groups.filter_map(limit).collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(total_of("MemFree: 1 kB\nMemTotal:       24 kB\n"), Some(24 << 10));
        assert_eq!(total_of("MemTotal: many\n"), None);
        let root = tempfile::tempdir().expect("temp dir");
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).expect("directory");
        fs::write(group.join("memory.max"), "max\n").expect("written");
        assert_eq!(limit_of(root.path(), "0::/a/b\n"), None);
        fs::write(root.path().join("a/memory.max"), "5000\n").expect("written");
        fs::write(root.path().join("memory.max"), "7000\n").expect("written");
        assert_eq!(limit_of(root.path(), "1:cpu:/a\n0::/a/b\n"), Some(5000));
        assert_eq!(limit_of(root.path(), "0::/\n"), Some(7000));
        assert!(usable_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
