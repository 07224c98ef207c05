//! Removal of checkpoints that no job needs: those that ended jobs have left in the host's own checkpoint directory.
//!
//! A directory is removed only if all of this holds: it is `checkpoints/<JobID>` of the data directory and no link; this data
//! directory's records say that the job has ended, and so does the record in the directory itself; no setting named the
//! checkpoint directory, which others may share; no process runs the job; and no job that runs, waits or was killed started
//! from one of its checkpoints. Everything else is left alone, and the plan says why. Links are removed and never followed.
//!
//! [`plan`] decides, and is pure; [`facts`] reads, and [`remove`] removes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use regraft_model::id::JobId;
use rustix::fs::FlockOperation;

use super::catalog::{Catalogued, Progress};
use super::error::HostError;
use super::offline::{OfflineJob, jobs};
use crate::data_dir::private_file;
use crate::environment::Environment as _;
use crate::environment::real::RealEnvironment;
use crate::graph::job_graph::Node;
use crate::jobs::durable::records::JobDirectory;
use crate::jobs::status::JobStatus;
use crate::storage::Storage;

/// File of a job's directory that says that the job has ended.
const ENDED: &str = "ended.json";

/// Jobs that processes run.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// Their ids.
    pub jobs: BTreeSet<JobId>,
    /// Snapshots that they would go back to and that are not their own, as URLs.
    pub needed: Vec<String>,
}

/// A directory in the checkpoint directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Its path.
    pub path: PathBuf,
    /// Its URL, by which jobs name it.
    pub url: String,
    /// Job that it is named after.
    pub job_id: JobId,
    /// True if it is a link to another place.
    pub is_link: bool,
    /// True if it has the record that its job has ended.
    pub has_ended: bool,
    /// The job, where this data directory has a record of it.
    pub recorded: Option<Recorded>,
    /// Number of files.
    pub files: u64,
    /// Size of all files.
    pub bytes: u64,
    /// True if a sink has output of the job pending: then the record of its end stays, by which that output is removed later.
    pub has_pending: bool,
}

/// Record of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its name.
    pub name: String,
    /// Its last status; `None` if it has not ended.
    pub ended: Option<JobStatus>,
    /// True if its checkpoints are in the host's own directory, and no setting says so.
    pub is_own: bool,
}

/// A directory that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its path.
    pub path: PathBuf,
    /// Reason for people.
    pub reason: String,
}

/// The directories to remove, and those to leave alone with the reasons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Directories to remove.
    pub remove: Vec<Directory>,
    /// The others.
    pub left: Vec<Left>,
}

/// Decides about each directory. `needed` are snapshots that jobs may go back to, as URLs.
#[must_use]
pub fn plan(directories: Vec<Directory>, running: &Running) -> Plan {
    let mut plan = Plan::default();
    for directory in directories {
        match reason_to_keep(&directory, running) {
            Some(reason) => plan.left.push(Left {
                path: directory.path,
                reason,
            }),
            None => plan.remove.push(directory),
        }
    }
    plan
}

fn reason_to_keep(directory: &Directory, running: &Running) -> Option<String> {
    let Some(recorded) = &directory.recorded else {
        return Some("this data directory has no record of its job".to_owned());
    };
    let below = format!("{}/", directory.url);
    let name = &recorded.name;
    if directory.is_link {
        Some("it is a link".to_owned())
    } else if running.jobs.contains(&directory.job_id) {
        Some(format!("job \"{name}\" has not ended"))
    } else if recorded.ended.is_none() || !directory.has_ended {
        Some(format!("job \"{name}\" is not recorded as ended"))
    } else if !recorded.is_own {
        Some(format!(
            "job \"{name}\" had a checkpoint.dir of its own, which others may share"
        ))
    } else if running.needed.iter().any(|url| url.starts_with(&below)) {
        Some(format!(
            "another job started from a checkpoint of job \"{name}\" and may go back to it"
        ))
    } else {
        None
    }
}

/// File of the lock that keeps `gc` and starts of jobs apart, in the data directory.
const LOCK: &str = "gc.lock";

/// Keeps `gc` from removing what a job is about to start from, as long as the result lives. Waits for a `gc` that runs.
///
/// # Errors
/// Those of the file system.
pub fn hold(data_dir: &Path) -> io::Result<File> {
    lock(data_dir, FlockOperation::LockShared)
}

/// Keeps jobs from starting as long as the result lives. Waits for those that are being started.
///
/// # Errors
/// [`HostError::Io`].
pub fn exclude_starts(data_dir: &Path) -> Result<File, HostError> {
    lock(data_dir, FlockOperation::LockExclusive).map_err(|error| of_path(&data_dir.join(LOCK), error))
}

fn lock(data_dir: &Path, how: FlockOperation) -> io::Result<File> {
    fs::create_dir_all(data_dir)?;
    let mut options = File::options();
    let file = private_file(options.create(true).truncate(false).write(true), &data_dir.join(LOCK))?;
    rustix::fs::flock(&file, how)?;
    Ok(file)
}

/// Reads all that a plan needs.
///
/// # Errors
/// [`HostError`] where something cannot be read: then it is not known what is needed.
pub async fn facts(data_dir: &Path, mut running: Running) -> Result<(Vec<Directory>, Running), HostError> {
    let recorded = jobs(data_dir, &BTreeSet::new(), false).await?;
    let by_id: BTreeMap<JobId, &OfflineJob> = recorded.iter().map(|job| (job.job_id(), job)).collect();
    for job in recorded.iter().filter(|job| job.found.ended_at().is_none()) {
        let restore = job.found.record.submission.restore.as_ref();
        running.needed.extend(restore.map(|from| url_of(&from.location)));
    }
    running.needed = running.needed.iter().map(|url| url_of(url)).collect();
    let root = data_dir.join("checkpoints");
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((vec![], running)),
        Err(error) => return Err(of_path(&root, error)),
    };
    let mut directories = vec![];
    for entry in entries {
        let path = entry.map_err(|error| of_path(&root, error))?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.parse::<JobId>().ok());
        let Some(job_id) = id else { continue };
        let looked = look(&root, path, job_id, by_id.get(&job_id).copied(), data_dir).await;
        let (directory, origin) = match looked {
            // A job that has just finished has removed it.
            Err(HostError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            looked => looked?,
        };
        if !directory.has_ended {
            running.needed.extend(origin.map(|origin| url_of(&origin)));
        }
        directories.push(directory);
    }
    directories.sort_by_key(|directory| directory.job_id);
    // What holds nothing but the record of an end is no matter.
    directories.retain(|directory| !directory.has_ended || directory.files > 1 || !directory.has_pending);
    Ok((directories, running))
}

/// Looks at one directory. Returns with it the snapshot that its job started from.
async fn look(
    root: &Path,
    path: PathBuf,
    job_id: JobId,
    job: Option<&OfflineJob>,
    data_dir: &Path,
) -> Result<(Directory, Option<String>), HostError> {
    let metadata = path.symlink_metadata().map_err(|error| of_path(&path, error))?;
    let is_link = !metadata.is_dir();
    let (mut has_ended, mut origin, mut size) = (false, None, (0, 0));
    if !is_link {
        let storage = Storage::open(&root.to_string_lossy())?;
        let directory = JobDirectory::new(&storage, job_id)?;
        // One that cannot be read is none: then the directory stays.
        has_ended = matches!(directory.end().await, Ok(Some(_)));
        let recorded = directory.job().await?;
        origin = recorded.and_then(|job| job.origin).map(|origin| origin.path);
        size = size_of(&path).map_err(|error| of_path(&path, error))?;
    }
    let recorded = job.map(|job| Recorded {
        name: job.found.record.name.clone(),
        ended: ended(&job.found),
        is_own: job.own_checkpoints(data_dir).as_ref() == Some(&path),
    });
    let (files, bytes) = size;
    let found = Directory {
        url: url_of(&path.to_string_lossy()),
        job_id,
        is_link,
        has_ended,
        recorded,
        files,
        bytes,
        has_pending: job.is_none_or(|job| has_pending(&job.found, job_id)),
        path,
    };
    Ok((found, origin))
}

fn ended(job: &Catalogued) -> Option<JobStatus> {
    match &job.progress {
        Progress::Ended(Some(ended)) => Some(ended.job.status),
        Progress::Ended(None) => Some(JobStatus::Finished),
        Progress::Submitted | Progress::Accepted => None,
    }
}

/// Returns true if a sink of the job has output of it pending, or that is not known.
fn has_pending(job: &Catalogued, job_id: JobId) -> bool {
    let Ok(graph) = job.record.submission.graph() else {
        return true;
    };
    let files = RealEnvironment::default().files();
    let pending = |node: &Node| {
        node.output()
            .is_some_and(|output| output.pending_jobs(&*files).contains(&job_id))
    };
    graph.nodes.iter().any(pending)
}

/// Returns the URL of a location by its real path, since a directory may have several.
fn url_of(location: &str) -> String {
    let Ok(storage) = Storage::open(location) else {
        return location.to_owned();
    };
    let real = storage.local_dir().and_then(|dir| fs::canonicalize(dir).ok());
    let real = real.and_then(|dir| Storage::open(&dir.to_string_lossy()).ok());
    real.unwrap_or(storage).url()
}

fn of_path(path: &Path, source: io::Error) -> HostError {
    let path = path.to_owned();
    HostError::Io { path, source }
}

/// Returns the number of files below a directory and their size. A link counts as a file.
fn size_of(directory: &Path) -> io::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            // That of the link itself, where it is one.
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else {
                files += 1;
                bytes += metadata.len();
            }
        }
    }
    Ok((files, bytes))
}

/// Removes a directory of a plan. The record of its end goes last: as long as anything is there, the next try knows that it
/// may go. It stays where a sink has output pending.
///
/// # Errors
/// Those of the file system; the rest stays.
pub fn remove(directory: &Directory) -> Result<(), HostError> {
    let path = &directory.path;
    let removed = || -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name() == ENDED {
                continue;
            }
            // Neither follows a link: that of a directory is a file here.
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        if !directory.has_pending {
            fs::remove_file(path.join(ENDED))?;
            fs::remove_dir(path)?;
            // That of a process which was killed.
            let _ = fs::remove_file(path.with_extension("lock"));
        }
        Ok(())
    };
    removed().map_err(|error| of_path(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(bits: u128) -> Directory {
        let job_id = JobId::from_bits(bits);
        Directory {
            path: format!("/data/checkpoints/{job_id}").into(),
            url: format!("file:///data/checkpoints/{job_id}"),
            job_id,
            is_link: false,
            has_ended: true,
            recorded: Some(Recorded {
                name: "words".to_owned(),
                ended: Some(JobStatus::Failed),
                is_own: true,
            }),
            files: 3,
            bytes: 30,
            has_pending: false,
        }
    }

    fn kept(directory: Directory, running: &Running) -> String {
        let plan = plan(vec![directory], running);
        assert!(plan.remove.is_empty());
        plan.left.into_iter().map(|left| left.reason).collect()
    }

    #[test]
    fn a_directory_has_one_url_whatever_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir_all(real.join("chk-7")).expect("made");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let url = |path: &Path| url_of(&path.join("chk-7").to_string_lossy());
        assert_eq!(url(&link), url(&real));
        assert!(
            url_of(&format!("file://{}/chk-7", link.display()))
                .starts_with(&format!("{}/", url_of(&real.to_string_lossy())))
        );
        assert_eq!(url_of("gone"), url_of("gone"));
    }

    #[test]
    fn only_what_no_job_needs_is_removed() {
        let none = Running::default();
        assert_eq!(plan(vec![directory(1)], &none).remove, [directory(1)]);
        let recorded = |change: fn(&mut Recorded)| {
            let mut directory = directory(1);
            directory.recorded.as_mut().map(change);
            directory
        };
        for (found, reason) in [
            (
                Directory {
                    recorded: None,
                    ..directory(1)
                },
                "this data directory has no record of its job",
            ),
            (
                Directory {
                    is_link: true,
                    ..directory(1)
                },
                "it is a link",
            ),
            (
                Directory {
                    has_ended: false,
                    ..directory(1)
                },
                "job \"words\" is not recorded as ended",
            ),
            (
                recorded(|recorded| recorded.ended = None),
                "job \"words\" is not recorded as ended",
            ),
            (
                recorded(|recorded| recorded.is_own = false),
                "job \"words\" had a checkpoint.dir of its own, which others may share",
            ),
        ] {
            assert_eq!(kept(found, &none), reason);
        }
        let runs = Running {
            jobs: BTreeSet::from([JobId::from_bits(1)]),
            ..none
        };
        assert_eq!(kept(directory(1), &runs), "job \"words\" has not ended");
        let needed = Running {
            needed: vec![format!("{}/chk-3", directory(1).url)],
            ..Running::default()
        };
        assert_eq!(
            kept(directory(1), &needed),
            "another job started from a checkpoint of job \"words\" and may go back to it"
        );
        assert_eq!(
            plan(vec![directory(2)], &needed).remove,
            [directory(2)],
            "of another one"
        );
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (own, other) = (dir.path().join("job"), dir.path().join("other"));
        for made in [own.join("chk-1"), other.clone()] {
            fs::create_dir_all(made).expect("made");
        }
        fs::write(other.join("precious"), "x").expect("written");
        fs::write(own.join("chk-1/_metadata"), "{}").expect("written");
        fs::write(own.join(ENDED), "{}").expect("written");
        std::os::unix::fs::symlink(&other, own.join("shared")).expect("linked");
        std::os::unix::fs::symlink(other.join("precious"), own.join("chk-1/file")).expect("linked");
        assert_eq!(size_of(&own).expect("sizes").0, 4, "two files and two links");
        let found = Directory {
            path: own.clone(),
            has_pending: true,
            ..directory(1)
        };
        remove(&found).expect("removed");
        let left: Vec<_> = fs::read_dir(&own)
            .expect("there")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(left, [ENDED], "its output is still pending");
        remove(&Directory {
            has_pending: false,
            ..found
        })
        .expect("removed");
        assert!(!own.exists() && other.join("precious").exists());
    }
}
