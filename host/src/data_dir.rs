//! The data directory of the host: checkpoints, compiled modules, compiled dependencies of guests, records of running jobs.
//!
//! A user who can write there decides which code runs here, and one who can read it has the token of each host. So it is the
//! directory of one user: [`secure`] sees to that before anything in it is trusted.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// The environment does not determine a data directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no data directory: REGRAFT_DATA, XDG_DATA_HOME and HOME are all unset; set REGRAFT_DATA=DIRECTORY")]
pub struct DataDirError;

/// Returns `$REGRAFT_DATA`, else `${XDG_DATA_HOME:-~/.local/share}/regraft`, as an absolute path.
///
/// The directory need not exist.
/// Empty variables, and a relative `XDG_DATA_HOME`, count as unset.
///
/// # Errors
/// Returns [`DataDirError`] if none of `REGRAFT_DATA`, `XDG_DATA_HOME` and `HOME` is set.
pub fn data_dir() -> Result<PathBuf, DataDirError> {
    let current = std::env::current_dir().unwrap_or_default();
    resolve(|name| std::env::var_os(name), &current)
}

fn resolve(variable: impl Fn(&str) -> Option<OsString>, current: &Path) -> Result<PathBuf, DataDirError> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = path("REGRAFT_DATA") {
        return Ok(current.join(dir));
    }
    // The XDG Base Directory specification requires relative paths to be ignored.
    let share = path("XDG_DATA_HOME").filter(|dir| dir.is_absolute());
    let share = share.or_else(|| path("HOME").map(|home| home.join(".local/share")));
    share.map(|share| share.join("regraft")).ok_or(DataDirError)
}

/// Bits of a mode by which others than the owner may write.
const WRITABLE: u32 = 0o022;
/// Bits of a mode by which others than the owner may do anything.
const OTHERS: u32 = 0o077;
/// Depth to which a directory that others could write is searched for what they have put there.
const SEARCH_DEPTH: usize = 4;

/// A data directory that cannot be trusted, or not be made.
#[derive(Debug, thiserror::Error)]
pub enum UnsafeDir {
    /// It belongs to another user.
    #[error(
        "the data directory {} belongs to user {owner}, and this process runs as user {user}: its owner could have any code run here; run `chown -R {user} {}`, run regraft as user {owner}, or set REGRAFT_DATA to another directory",
        dir.display(), dir.display()
    )]
    Foreign {
        /// The data directory.
        dir: PathBuf,
        /// Id of its owner.
        owner: u32,
        /// Id of this process's user.
        user: u32,
    },
    /// Others can write to it, and that cannot be changed.
    #[error(
        "other users can write to the data directory {} (mode {mode:03o}), and could have any code run here; that cannot be changed ({source}): mount its file system so that modes can be set, or set REGRAFT_DATA to a directory on another one",
        dir.display()
    )]
    Writable {
        /// The data directory.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
        /// Error of the attempt to change it.
        source: io::Error,
    },
    /// Others could write to it, and have.
    #[error(
        "other users could write to the data directory {} (mode {mode:03o}), and {} belongs to user {owner}: remove it, or run `chown {user} {}` if it is to be trusted",
        dir.display(), entry.display(), entry.display()
    )]
    Planted {
        /// The data directory.
        dir: PathBuf,
        /// Mode of the data directory.
        mode: u32,
        /// The first entry of another user.
        entry: PathBuf,
        /// Id of its owner.
        owner: u32,
        /// Id of this process's user.
        user: u32,
    },
    /// It cannot be read or made.
    #[error("cannot use the data directory {}: {source}; set REGRAFT_DATA to a directory that can be written", dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
}

/// Makes sure that a data directory belongs to this user alone, and creates it if `create` is true. Returns a note for the
/// user if others had access to it, which they no longer have.
///
/// A directory that only others can *read*, on a file system where that cannot be changed, is used, with a note.
///
/// # Errors
/// [`UnsafeDir`] where the directory is another user's, where others can write to it, or where they have written to it.
pub fn secure(dir: &Path, create: bool) -> Result<Option<String>, UnsafeDir> {
    let io = |source| UnsafeDir::Io {
        dir: dir.to_owned(),
        source,
    };
    let is = match fs::metadata(dir) {
        Ok(is) if is.is_dir() => is,
        Ok(_) => return Err(io(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if create {
                make(dir).map(|()| None).map_err(io)
            } else {
                Ok(None)
            };
        }
        Err(error) => return Err(io(error)),
    };
    let user = rustix::process::geteuid().as_raw();
    if is.uid() != user {
        return Err(UnsafeDir::Foreign {
            dir: dir.to_owned(),
            owner: is.uid(),
            user,
        });
    }
    let mode = is.mode() & 0o777;
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    if mode & WRITABLE != 0
        && let Some((entry, is)) = foreign(dir, user, SEARCH_DEPTH)
    {
        return Err(UnsafeDir::Planted {
            dir: dir.to_owned(),
            mode,
            entry,
            owner: is.uid(),
            user,
        });
    }
    let shown = dir.display();
    match fs::set_permissions(dir, Permissions::from_mode(mode & !OTHERS)) {
        Ok(()) => Ok(Some(format!(
            "other users had access to the data directory {shown} (mode {mode:03o}); it is private now (mode {:03o})",
            mode & !OTHERS
        ))),
        Err(source) if mode & WRITABLE != 0 => Err(UnsafeDir::Writable {
            dir: dir.to_owned(),
            mode,
            source,
        }),
        Err(error) => Ok(Some(format!(
            "other users can read the data directory {shown} (mode {mode:03o}), and that cannot be changed: {error}"
        ))),
    }
}

/// Creates the directory for this user alone, whatever the umask.
fn make(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        // Another process of this user was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700))
}

/// Returns the first entry of another user, other than root.
fn foreign(dir: &Path, user: u32, depth: usize) -> Option<(PathBuf, Metadata)> {
    let entries = fs::read_dir(dir).ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        // Not that of a link's target.
        let is = entry.metadata().ok()?;
        let (is_dir, owner) = (is.is_dir(), is.uid());
        if owner != user && owner != 0 {
            return Some((entry.path(), is));
        }
        (is_dir && depth > 1).then(|| foreign(&entry.path(), user, depth - 1))?
    })
}

/// Creates or opens a file that only this user can read, whatever the umask.
///
/// On a file system that sets no modes, the file is used, with a warning, as [`secure`] uses the directory: if others can read
/// it, but not write to it.
///
/// # Errors
/// Those of the file system, and [`io::ErrorKind::PermissionDenied`] where others can write to the file and that cannot be
/// changed.
pub fn private_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.mode(0o600).open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode == 0o600 {
        return Ok(file);
    }
    match file.set_permissions(Permissions::from_mode(0o600)) {
        Ok(()) => Ok(file),
        Err(error) if !is_unsupported(&error) => Err(error),
        Err(error) if mode & WRITABLE != 0 => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("other users can write to it (mode {mode:03o}), and that cannot be changed: {error}"),
        )),
        Err(error) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::warn!(
                    "{}: its mode {mode:03o} cannot be changed ({error}); nor, it seems, can that of other files there",
                    path.display()
                );
            });
            Ok(file)
        }
    }
}

/// Returns true for the error of a file system that sets no modes.
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied || error.kind() == io::ErrorKind::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(variables: &[(&str, &str)]) -> Result<PathBuf, DataDirError> {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        resolve(find, Path::new("/cwd"))
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let all = [
            ("REGRAFT_DATA", "/data"),
            ("XDG_DATA_HOME", "/xdg"),
            ("HOME", "/home/a"),
        ];
        assert_eq!(resolved(&all), Ok("/data".into()));
        assert_eq!(resolved(&all[1..]), Ok("/xdg/regraft".into()));
        assert_eq!(resolved(&all[2..]), Ok("/home/a/.local/share/regraft".into()));
        assert_eq!(resolved(&[("REGRAFT_DATA", "data")]), Ok("/cwd/data".into()));
        assert_eq!(
            resolved(&[("REGRAFT_DATA", ""), ("XDG_DATA_HOME", "x"), ("HOME", "/h")]),
            Ok("/h/.local/share/regraft".into())
        );
        assert_eq!(
            resolved(&[]).unwrap_err().to_string(),
            "no data directory: REGRAFT_DATA, XDG_DATA_HOME and HOME are all unset; set REGRAFT_DATA=DIRECTORY"
        );
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("there").mode() & 0o777
    }

    #[test]
    fn it_is_made_for_one_user() {
        let dir = tempfile::tempdir().expect("temp dir");
        let data = dir.path().join("a/data");
        assert!(secure(&data, false).expect("no error").is_none() && !data.exists());
        assert!(secure(&data, true).expect("made").is_none());
        assert_eq!(mode(&data), 0o700);
        let file = data.join("file");
        fs::write(&file, "").expect("written");
        fs::set_permissions(&file, Permissions::from_mode(0o666)).expect("set");
        private_file(OpenOptions::new().append(true), &file).expect("opened");
        assert_eq!(mode(&file), 0o600);
        let refused = secure(&file, true).expect_err("a file").to_string();
        assert!(
            refused.starts_with(&format!("cannot use the data directory {}: ", file.display())),
            "{refused}"
        );
    }

    #[test]
    fn a_directory_that_others_can_write_to_has_a_way_out() {
        let refused = UnsafeDir::Writable {
            dir: "/data".into(),
            mode: 0o777,
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(
            refused.to_string(),
            "other users can write to the data directory /data (mode 777), and could have any code run here; that cannot be changed (permission denied): mount its file system so that modes can be set, or set REGRAFT_DATA to a directory on another one"
        );
    }

    #[test]
    fn access_of_others_is_taken_away() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir = dir.path();
        for (before, after) in [(0o755, 0o700), (0o777, 0o700), (0o750, 0o700), (0o570, 0o500)] {
            fs::set_permissions(dir, Permissions::from_mode(before)).expect("set");
            let note = secure(dir, true).expect("tightened").expect("a note");
            assert_eq!(
                note,
                format!(
                    "other users had access to the data directory {} (mode {before:o}); it is private now (mode {after:o})",
                    dir.display()
                )
            );
            assert_eq!(mode(dir), after);
            assert_eq!(secure(dir, true).expect("private"), None);
        }
    }

    /// Files of `/proc` have modes that cannot be changed, as all files of some file systems.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_whose_mode_cannot_be_set_is_used_unless_others_can_write_to_it() {
        let open = |path: &str| private_file(OpenOptions::new().read(true), Path::new(path));
        assert_ne!(mode(Path::new("/proc/self/comm")) & 0o044, 0);
        open("/proc/self/comm").expect("only readable by others");
        let refused = open("/proc/self/attr/current")
            .expect_err("writable by others")
            .to_string();
        assert!(
            refused.starts_with("other users can write to it (mode 666), and that cannot be changed: "),
            "{refused}"
        );
    }

    /// Only root can give files away.
    #[test]
    fn what_another_user_has_made_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("left out: only root can give files to another user");
            return;
        }
        let dir = tempfile::tempdir().expect("temp dir");
        let (data, jobs) = (dir.path().join("data"), dir.path().join("data/jobs"));
        fs::create_dir_all(&jobs).expect("made");
        fs::write(jobs.join("planted"), "").expect("written");
        std::os::unix::fs::chown(jobs.join("planted"), Some(1234), None).expect("given away");
        fs::set_permissions(&data, Permissions::from_mode(0o777)).expect("set");
        let refused = secure(&data, true).expect_err("planted").to_string();
        let planted = format!("{}/jobs/planted", data.display());
        assert!(
            refused.contains(&format!("(mode 777), and {planted} belongs to user 1234: remove it")),
            "{refused}"
        );
        std::os::unix::fs::chown(&data, Some(1234), None).expect("given away");
        let refused = secure(&data, true).expect_err("another's").to_string();
        assert!(
            refused.contains("belongs to user 1234, and this process runs as user 0"),
            "{refused}"
        );
    }
}
