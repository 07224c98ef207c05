//! Discovery of the hosts of this machine: `$REGRAFT_DATA/run/<JobID>.json` of an attached run, `run/host.json` of a host
//! that serves. Each file is written when its host listens, and removed at its end. One whose process is gone is ignored.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use regraft_model::id::JobId;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::data_dir::private_file;
use crate::environment::process::ProcessIdentity;

/// File name of a serving host's announcement, without its extension.
const HOST: &str = "host";
/// Most bytes of a file whose place is kept; an announcement has some hundred.
const BLANKED_MAX: usize = 64 << 10;
/// Directory of the hosts' tokens, in the data directory.
const TOKENS: &str = "tokens";

/// Announcement of a host.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Token that its requests must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Identity of its process, since another one may get its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessIdentity>,
}

impl std::fmt::Debug for Announcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the token.
        let Self {
            job_id, name, pid, url, ..
        } = self;
        let mut shown = f.debug_struct("Announcement");
        shown
            .field("job_id", job_id)
            .field("name", name)
            .field("pid", pid)
            .field("url", url);
        shown.finish_non_exhaustive()
    }
}

/// A published announcement, which is removed when this value is dropped, with the file of its token.
#[derive(Debug)]
pub struct Announced {
    files: Vec<PathBuf>,
    /// True for a host that serves. The place of its files on the disk is kept for the next one, which must be found even if
    /// the disk is full.
    serves: bool,
}

impl Drop for Announced {
    fn drop(&mut self) {
        for path in &self.files {
            // A file that cannot be removed is stale, and the next reader removes it.
            let _ = match draft(path) {
                Some(draft) if self.serves => blank(path).and_then(|()| fs::rename(path, draft)),
                _ => fs::remove_file(path),
            };
        }
    }
}

impl Announcement {
    /// Writes the announcement atomically, and the token alone, for scripts, to `tokens/<name>`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn publish(&self, data_dir: &Path) -> std::io::Result<Announced> {
        let name = self.job_id.map_or_else(|| HOST.to_owned(), |job| job.to_string());
        let mut announced = Announced {
            files: vec![],
            serves: self.job_id.is_none(),
        };
        if let Some(token) = &self.token {
            let path = data_dir.join(TOKENS).join(&name);
            write(&path, token.as_bytes())?;
            announced.files.push(path);
        }
        let path = data_dir.join("run").join(format!("{name}.json"));
        write(&path, &serde_json::to_vec(self)?)?;
        announced.files.push(path);
        Ok(announced)
    }
}

/// Writes a file, which only this user can read. It appears whole, unless the disk is full: then it is written over that of an
/// earlier host.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let (Some(dir), Some(draft)) = (path.parent(), draft(path)) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(dir)?;
    let open = || private_file(File::options().write(true).create(true).truncate(true), &draft);
    let written = open().and_then(|mut file| file.write_all(bytes));
    match written {
        Ok(()) => fs::rename(&draft, path),
        Err(error) => {
            let _ = fs::remove_file(&draft);
            let old = private_file(File::options().write(true), path);
            let over = old.and_then(|mut file| file.write_all(bytes).and_then(|()| file.set_len(bytes.len() as u64)));
            over.map_err(|_| error)
        }
    }
}

/// Writes blanks over a file, so that it keeps its place on the disk and no secret.
fn blank(path: &Path) -> std::io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(BLANKED_MAX);
    let written = file
        .write_all(&vec![b' '; length])
        .and_then(|()| file.set_len(length as u64));
    // Without it, the next host may find no place, and this secret may last.
    written.or_else(|_| file.set_len(0))
}

/// Returns the path at which a file is written before it has its name.
fn draft(path: &Path) -> Option<PathBuf> {
    Some(path.with_file_name(format!(".{}.tmp", path.file_name()?.display())))
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
        let is_gone = announcement.process.as_ref().is_some_and(ProcessIdentity::is_gone);
        if is_running(announcement.pid) && !is_gone {
            found.push(announcement);
        } else if let Some(job) = announcement.job_id {
            // The file of a serving host stays: the next one may be writing its own under the same name at this moment.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(data_dir.join(TOKENS).join(job.to_string()));
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_process_that_has_got_the_id_of_another_is_not_the_host() {
        let dir = tempfile::tempdir().expect("temp dir");
        let own = serde_json::to_value(ProcessIdentity::own()).expect("JSON");
        let mut gone = own.clone();
        gone["started"] = 1.into();
        for (process, is_live) in [(own, true), (gone, false)] {
            let announcement = Announcement {
                job_id: None,
                name: None,
                pid: std::process::id(),
                url: "http://127.0.0.1:1".to_owned(),
                token: Some("secret".to_owned()),
                process: serde_json::from_value(process).expect("an identity"),
            };
            let published = announcement.publish(dir.path()).expect("written");
            assert_eq!(live(dir.path()).len(), usize::from(is_live));
            assert!(!format!("{announcement:?}").contains("secret"));
            drop(published);
        }
    }

    #[test]
    fn a_stale_announcement_is_ignored_and_cleaned() {
        let dir = tempfile::tempdir().expect("temp dir");
        let announcement = |bits, pid| Announcement {
            job_id: Some(JobId::from_bits(bits)),
            name: Some("a".to_owned()),
            pid,
            url: "http://127.0.0.1:1".to_owned(),
            token: Some("secret".to_owned()),
            process: None,
        };
        let here = announcement(1, std::process::id());
        let kept = here.publish(dir.path()).expect("written");
        // Process ids stay far below this.
        std::mem::forget(announcement(2, 2_000_000_000).publish(dir.path()).expect("written"));
        assert_eq!(live(dir.path()), [here]);
        for left in ["run", TOKENS] {
            assert_eq!(fs::read_dir(dir.path().join(left)).expect("dir").count(), 1, "{left}");
        }
        let token = dir.path().join(TOKENS).join(JobId::from_bits(1).to_string());
        assert_eq!(fs::read_to_string(&token).expect("text"), "secret");
        assert_eq!(token.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        drop(kept);
        assert!(live(dir.path()).is_empty());
    }

    #[test]
    fn a_host_that_has_ended_leaves_its_place_on_the_disk_and_no_token() {
        let dir = tempfile::tempdir().expect("temp dir");
        let serving = Announcement {
            job_id: None,
            name: None,
            pid: std::process::id(),
            url: "http://127.0.0.1:7878".to_owned(),
            token: Some("secret".to_owned()),
            process: None,
        };
        drop(serving.publish(dir.path()).expect("written"));
        assert!(live(dir.path()).is_empty());
        for (left, length) in [("run/.host.json.tmp", 40), ("tokens/.host.tmp", "secret".len())] {
            let text = fs::read_to_string(dir.path().join(left)).expect("kept");
            assert!(text.len() >= length && text.trim().is_empty(), "{left}: {text:?}");
        }
    }

    #[test]
    fn a_serving_host_comes_first_and_its_stale_announcement_is_left_to_the_next_one() {
        let dir = tempfile::tempdir().expect("temp dir");
        let serving = |pid| Announcement {
            job_id: None,
            name: None,
            pid,
            url: "http://127.0.0.1:7878".to_owned(),
            token: None,
            process: None,
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
