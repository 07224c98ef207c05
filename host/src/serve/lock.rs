//! One host per data directory: a file lock, which the system releases when its process ends in any way.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::data_dir::private_file;
use crate::environment::process::has_ended;

/// Time that a holder which has ended may take to let go: the system frees the memory of a killed process first.
const GOING: Duration = Duration::from_secs(10);
/// Time that any other holder may take: it may have been killed a moment ago.
const MAYBE_GOING: Duration = Duration::from_secs(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Holder of a lock, as `host.lock` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Id of its process.
    pub pid: u32,
    /// URL that it listens on; `None` while it starts.
    pub url: Option<String>,
}

/// Failure to lock a data directory.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another host holds the lock.
    #[error(
        "the data directory {} is in use by another `regraft serve`{}: two hosts would run the same jobs twice. Use that one, stop it, or set REGRAFT_DATA to another directory.",
        dir.display(),
        shown(.holder)
    )]
    Held {
        /// Data directory.
        dir: PathBuf,
        /// Its holder, where the file names one.
        holder: Option<Holder>,
    },
    /// The file system failed.
    #[error("cannot lock the data directory: {}: {error}. Check its owner and mode, or set REGRAFT_DATA to another directory.", path.display())]
    Io {
        /// Path of the lock file.
        path: PathBuf,
        /// Error of the file system.
        error: std::io::Error,
    },
}

fn shown(holder: &Option<Holder>) -> String {
    match holder {
        Some(Holder { pid, url: Some(url) }) => format!(" (pid {pid}, {url})"),
        Some(Holder { pid, url: None }) => format!(" (pid {pid})"),
        None => String::new(),
    }
}

/// Exclusive use of a data directory.
#[derive(Debug)]
pub struct HostLock {
    file: File,
    path: PathBuf,
}

impl HostLock {
    /// Locks a data directory as [`HostLock::take`] does, and waits a moment for a holder that is just ending: a supervisor
    /// starts the next host as soon as it has killed the last one. Returns true with it if it had to wait.
    ///
    /// # Errors
    /// Those of [`HostLock::take`].
    pub async fn take_soon(data_dir: &Path) -> Result<(Self, bool), LockError> {
        let began = Instant::now();
        let mut waited = false;
        loop {
            let held = match Self::take(data_dir) {
                Ok(lock) => return Ok((lock, waited)),
                Err(held @ LockError::Held { .. }) => held,
                Err(other) => return Err(other),
            };
            let ended = match &held {
                LockError::Held { holder, .. } => holder.as_ref().is_some_and(|holder| has_ended(holder.pid)),
                LockError::Io { .. } => false,
            };
            if began.elapsed() >= if ended { GOING } else { MAYBE_GOING } {
                return Err(held);
            }
            waited = true;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Locks a data directory, which is created if it does not exist.
    ///
    /// # Errors
    /// [`LockError::Held`] where another host has it, else [`LockError::Io`].
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let path = data_dir.join("host.lock");
        let io = |error| LockError::Io {
            path: path.clone(),
            error,
        };
        std::fs::create_dir_all(data_dir).map_err(io)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = private_file(&mut options, &path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The holder may be writing the file at this moment: an unreadable one names no holder.
                let holder = file.read_to_string(&mut text).ok();
                return Err(LockError::Held {
                    dir: data_dir.to_owned(),
                    holder: holder.and_then(|_| serde_json::from_str(&text).ok()),
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let mut lock = Self { file, path };
        lock.say(None);
        Ok(lock)
    }

    /// Writes where this process listens, for the message of a second host. On a full disk that message says less.
    pub fn say(&mut self, url: Option<&str>) {
        let holder = Holder {
            pid: std::process::id(),
            url: url.map(str::to_owned),
        };
        let text = serde_json::to_string(&holder).unwrap_or_default();
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(text.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(
                "{}: the pid and the address of this host could not be written: {error}",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().expect("temp dir");
        let data = dir.path().join("data");
        let mut first = HostLock::take(&data).expect("it is free");
        let second = || HostLock::take(&data).expect_err("the first has it").to_string();
        let (dir, pid) = (data.display(), std::process::id());
        let rest =
            "two hosts would run the same jobs twice. Use that one, stop it, or set REGRAFT_DATA to another directory.";
        assert_eq!(
            second(),
            format!("the data directory {dir} is in use by another `regraft serve` (pid {pid}): {rest}")
        );
        first.say(Some("http://127.0.0.1:7878"));
        assert_eq!(
            second(),
            format!(
                "the data directory {dir} is in use by another `regraft serve` (pid {pid}, http://127.0.0.1:7878): {rest}"
            )
        );
        std::fs::write(data.join("host.lock"), "").expect("emptied");
        assert_eq!(
            second(),
            format!("the data directory {dir} is in use by another `regraft serve`: {rest}")
        );
        drop(first);
        drop(HostLock::take(&data).expect("it is free"));
        let held = HostLock::take(Path::new("/dev/null/data"))
            .expect_err("no directory")
            .to_string();
        assert!(
            held.starts_with("cannot lock the data directory: /dev/null/data/host.lock: Not a directory")
                && held.ends_with("Check its owner and mode, or set REGRAFT_DATA to another directory."),
            "{held}"
        );
    }

    #[tokio::test]
    async fn a_holder_that_has_ended_may_take_a_while_to_let_go() {
        let dir = tempfile::tempdir().expect("temp dir");
        let lock = HostLock::take(dir.path()).expect("it is free");
        // Process ids stay far below this.
        std::fs::write(dir.path().join("host.lock"), r#"{"pid":2000000000,"url":null}"#).expect("written");
        let letting_go = async {
            tokio::time::sleep(MAYBE_GOING + Duration::from_millis(300)).await;
            drop(lock);
        };
        let (taken, ()) = tokio::join!(HostLock::take_soon(dir.path()), letting_go);
        let (lock, waited) = taken.expect("it is free in the end");
        assert!(waited);
        // One that runs is told of within a moment.
        let began = Instant::now();
        let held = HostLock::take_soon(dir.path()).await.expect_err("held").to_string();
        assert!(held.contains(&format!("(pid {})", std::process::id())), "{held}");
        assert!(began.elapsed() < GOING);
        drop(lock);
        let (_, waited) = HostLock::take_soon(dir.path()).await.expect("it is free");
        assert!(!waited);
    }
}
