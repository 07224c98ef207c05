//! Discovery of the hosts of this machine: `$REGRAFT_DATA/run/<JobID>.json` of an attached run, `run/host.json` of a host
//! that serves. Each file is written when its host listens, and removed at its end. One whose process is gone is ignored.

use std::fs;
use std::path::{Path, PathBuf};

use regraft_model::id::JobId;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// File name of a serving host's announcement, without its extension.
const HOST: &str = "host";

/// Announcement of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Job that it runs attached; `None` for a host that serves and takes any job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Name of that job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Id of the host's process.
    pub pid: u32,
    /// URL that it listens on.
    pub url: String,
}

/// A published announcement, which is removed when this value is dropped.
#[derive(Debug)]
pub struct Announced {
    path: PathBuf,
}

impl Drop for Announced {
    fn drop(&mut self) {
        // A file that cannot be removed is stale, and the next reader removes it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Announcement {
    /// Writes the announcement atomically.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn publish(&self, data_dir: &Path) -> std::io::Result<Announced> {
        let dir = data_dir.join("run");
        fs::create_dir_all(&dir)?;
        let name = self.job_id.map_or_else(|| HOST.to_owned(), |job| job.to_string());
        let path = dir.join(format!("{name}.json"));
        let draft = dir.join(format!(".{name}.tmp"));
        fs::write(&draft, serde_json::to_vec(self)?)?;
        fs::rename(&draft, &path)?;
        Ok(Announced { path })
    }
}

/// Returns the live hosts announced on this machine: the one that serves, then attached runs in order of JobID.
#[must_use]
pub fn live(data_dir: &Path) -> Vec<Announcement> {
    let Ok(entries) = fs::read_dir(data_dir.join("run")) else {
        return vec![];
    };
    let mut found = vec![];
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Some(announcement) = read(&path) else { continue };
        if is_running(announcement.pid) {
            found.push(announcement);
        } else if announcement.job_id.is_some() {
            // The file of a serving host stays: the next one may be writing its own under the same name at this moment.
            let _ = fs::remove_file(&path);
        }
    }
    found.sort_by_key(|announcement| announcement.job_id);
    found
}

fn read(path: &Path) -> Option<Announcement> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Returns true if there is such a process.
fn is_running(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_announcement_is_ignored_and_cleaned() {
        let dir = tempfile::tempdir().expect("temp dir");
        let announcement = |bits, pid| Announcement {
            job_id: Some(JobId::from_bits(bits)),
            name: Some("a".to_owned()),
            pid,
            url: "http://127.0.0.1:1".to_owned(),
        };
        let here = announcement(1, std::process::id());
        let kept = here.publish(dir.path()).expect("written");
        // Process ids stay far below this.
        std::mem::forget(announcement(2, 2_000_000_000).publish(dir.path()).expect("written"));
        assert_eq!(live(dir.path()), [here]);
        assert_eq!(fs::read_dir(dir.path().join("run")).expect("dir").count(), 1);
        drop(kept);
        assert!(live(dir.path()).is_empty());
    }

    #[test]
    fn a_serving_host_comes_first_and_its_stale_announcement_is_left_to_the_next_one() {
        let dir = tempfile::tempdir().expect("temp dir");
        let serving = |pid| Announcement {
            job_id: None,
            name: None,
            pid,
            url: "http://127.0.0.1:7878".to_owned(),
        };
        let attached = Announcement {
            job_id: Some(JobId::from_bits(0)),
            name: Some("a".to_owned()),
            ..serving(std::process::id())
        };
        std::mem::forget(serving(2_000_000_000).publish(dir.path()).expect("written"));
        assert!(live(dir.path()).is_empty());
        let path = dir.path().join("run/host.json");
        assert!(path.exists());
        let kept = [
            attached.publish(dir.path()).expect("written"),
            serving(std::process::id()).publish(dir.path()).expect("written"),
        ];
        assert_eq!(live(dir.path()), [serving(std::process::id()), attached]);
        let text = fs::read_to_string(&path).expect("text");
        let expected = format!(r#"{{"pid":{},"url":"http://127.0.0.1:7878"}}"#, std::process::id());
        assert_eq!(text, expected);
        drop(kept);
        assert!(!path.exists());
    }
}
