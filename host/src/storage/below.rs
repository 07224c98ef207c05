//! Files below a directory whose content may come from anyone: opened without leaving the directory, and without waiting
//! for a pipe or a device.
//!
//! The directory itself may be reached over links, since its path is the user's. Links within it are followed as long as
//! they lead to something in it; where the system cannot tell, none is followed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat, unlinkat};
use rustix::io::Errno;

use super::error::Refusal;

/// Flags for reading: a pipe without a writer is opened at once, and no terminal becomes that of the host.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// Flags for a directory on the way.
const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A file cannot be used.
#[derive(Debug)]
pub(super) enum BelowError {
    /// The system's error.
    Io(io::Error),
    /// It is not what was asked for.
    Refused(Refusal),
}

impl From<Errno> for BelowError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<io::Error> for BelowError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens a regular file below a directory, and returns it with its size. `name` is relative, without `.` and `..`.
///
/// # Errors
/// Returns [`Refusal::LeadsOut`] or [`Refusal::NotRegular`], or the system's error.
pub(super) fn open(dir: &Path, name: &str) -> Result<(File, u64), BelowError> {
    let dir = openat(CWD, dir, DIR, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(&dir, name, READ, Mode::empty(), resolve) {
        // An old kernel, a filter of system calls that does not know the call, or a rename at the same time.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_by_parts(&dir, name),
        opened => opened,
    };
    let file = opened.map_err(|error| match error {
        Errno::XDEV | Errno::LOOP => BelowError::Refused(Refusal::LeadsOut),
        Errno::NXIO => BelowError::Refused(Refusal::NotRegular("a socket or a device")),
        error => error.into(),
    })?;
    let facts = fstat(&file)?;
    match FileType::from_raw_mode(facts.st_mode) {
        FileType::RegularFile => Ok((file.into(), u64::try_from(facts.st_size).unwrap_or(0))),
        other => Err(BelowError::Refused(Refusal::NotRegular(word(other)))),
    }
}

/// Opens a file as [`open`] does, and follows no link at all.
fn open_by_parts(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let (parent, last) = parent_of(dir, name)?;
    openat(
        parent.as_ref().unwrap_or(dir),
        last,
        READ | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}

/// Opens the directory that a name is in, following no link; `None` for the first directory itself. Returns also the last
/// part of the name.
fn parent_of<'a>(dir: &OwnedFd, name: &'a str) -> Result<(Option<OwnedFd>, &'a str), Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut parts = name.split('/');
    let last = parts.next_back().unwrap_or_default();
    for part in parts {
        let here = at.as_ref().unwrap_or(dir);
        let next = openat(here, part, DIR | OFlags::NOFOLLOW, Mode::empty());
        at = Some(match next {
            Err(Errno::NOTDIR) if is_link(here, part) => return Err(Errno::LOOP),
            next => next?,
        });
    }
    Ok((at, last))
}

fn is_link(dir: &OwnedFd, name: &str) -> bool {
    let facts = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    facts.is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode) == FileType::Symlink)
}

/// Returns true if there is a regular file of this name below a directory, reached without any link; false if there is
/// nothing.
///
/// # Errors
/// Returns [`Refusal::Link`] or [`Refusal::NotRegular`], or the system's error.
pub(super) fn is_plain_file(dir: &Path, name: &str) -> Result<bool, BelowError> {
    let found = openat(CWD, dir, DIR, Mode::empty()).and_then(|dir| {
        let (parent, last) = parent_of(&dir, name)?;
        statat(parent.as_ref().unwrap_or(&dir), last, AtFlags::SYMLINK_NOFOLLOW)
    });
    match found {
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::LOOP) => Err(BelowError::Refused(Refusal::Link)),
        Err(error) => Err(error.into()),
        Ok(facts) => match FileType::from_raw_mode(facts.st_mode) {
            FileType::RegularFile => Ok(true),
            FileType::Symlink => Err(BelowError::Refused(Refusal::Link)),
            other => Err(BelowError::Refused(Refusal::NotRegular(word(other)))),
        },
    }
}

/// Removes a file below a directory, following no link. A missing one is no error.
///
/// # Errors
/// Returns [`Refusal::Link`], or the system's error.
pub(super) fn remove(dir: &Path, name: &str) -> Result<(), BelowError> {
    let removed = openat(CWD, dir, DIR, Mode::empty()).and_then(|dir| {
        let (parent, last) = parent_of(&dir, name)?;
        unlinkat(parent.as_ref().unwrap_or(&dir), last, AtFlags::empty())
    });
    match removed {
        Err(Errno::LOOP) => Err(BelowError::Refused(Refusal::Link)),
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns the names of everything but directories below a directory, following no link; at most `most` of them, in order.
/// A missing directory has none.
///
/// # Errors
/// Returns the system's error.
pub(super) fn names(dir: &Path, most: usize) -> io::Result<Vec<String>> {
    let (mut found, mut dirs) = (vec![], vec![String::new()]);
    while let Some(prefix) = dirs.pop() {
        let entries = match std::fs::read_dir(dir.join(&prefix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type()?.is_dir() {
                true => dirs.push(name + "/"),
                false => found.push(name),
            }
            if found.len() >= most {
                dirs.clear();
                break;
            }
        }
    }
    found.sort();
    Ok(found)
}

const fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a symbolic link",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Opens a name in both ways, of which the second one follows no link.
    fn opened(dir: &Path, name: &str) -> [String; 2] {
        let by_parts = openat(CWD, dir, DIR, Mode::empty()).and_then(|dir| open_by_parts(&dir, name));
        let said = match open(dir, name) {
            Ok((_, size)) => format!("{size} bytes"),
            Err(BelowError::Refused(refusal)) => refusal.to_string(),
            Err(BelowError::Io(error)) => error.kind().to_string(),
        };
        [
            said,
            by_parts.map_or_else(|error| error.kind().to_string(), |_| "opened".to_owned()),
        ]
    }

    #[test]
    fn no_way_leads_out() {
        let dir = tempfile::tempdir().expect("temp dir");
        let inside = dir.path().join("inside");
        std::fs::create_dir_all(inside.join("operators")).expect("directory");
        std::fs::write(inside.join("operators/a"), "abc").expect("written");
        std::fs::write(dir.path().join("secret"), "secret").expect("written");
        symlink("a", inside.join("operators/near")).expect("a link");
        symlink("../../secret", inside.join("operators/out")).expect("a link");
        symlink("/etc", inside.join("etc")).expect("a link");
        symlink("..", inside.join("up")).expect("a link");
        symlink(&inside, dir.path().join("link")).expect("a link");
        let out = Refusal::LeadsOut.to_string();
        assert_eq!(opened(&inside, "operators/a"), ["3 bytes", "opened"]);
        assert_eq!(opened(&dir.path().join("link"), "operators/a"), ["3 bytes", "opened"]);
        assert_eq!(opened(&inside, "operators/near")[0], "3 bytes");
        for name in ["operators/out", "etc/passwd", "up/secret"] {
            let [said, by_parts] = opened(&inside, name);
            assert_eq!(said, out, "{name}");
            assert_ne!(by_parts, "opened", "{name}");
            assert!(is_plain_file(&inside, name).is_err(), "{name}");
        }
        assert_eq!(
            opened(&inside, "operators")[0],
            "is a directory, expected a regular file"
        );
        assert_eq!(opened(&inside, "none/a")[0], "entity not found");
        assert_eq!(
            names(&inside, 9).expect("listed"),
            ["etc", "operators/a", "operators/near", "operators/out", "up"]
        );
        assert_eq!(names(&inside.join("none"), 9).expect("listed"), Vec::<String>::new());
        assert!(remove(&inside, "up/secret").is_err() && dir.path().join("secret").exists());
        remove(&inside, "operators/a").expect("removed");
        remove(&inside, "operators/a").expect("what is gone is no error");
    }
}
