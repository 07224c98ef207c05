//! The file system as connectors use it.
//!
//! The interface is small on purpose: a simulation implements it with files that get lost, torn or full.
//! As on POSIX, written data is durable after `sync_all` of the file, and a name is durable after `sync_dir` of its
//! directory.
//! A rename is atomic.

use std::fmt::Debug;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// A file opened for writing.
pub trait WriteFile: Send + Debug {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Returns the system's error; part of `bytes` may have been written.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes all written data durable.
    ///
    /// # Errors
    /// Returns the system's error.
    fn sync_all(&mut self) -> io::Result<()>;
}

/// A file opened for reading. It stays the same file when its name is given to another one.
pub trait ReadFile: Send + Debug {
    /// Reads bytes from a position on, at most as many as the buffer has room for, and returns their number; 0 at the end
    /// of the file.
    ///
    /// # Errors
    /// Returns the system's error; nothing has been read then.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Returns the facts about the file as it is now.
    ///
    /// # Errors
    /// Returns the system's error.
    fn info(&self) -> io::Result<FileInfo>;
}

/// Facts about a file or directory. Two that are equal mean that nothing has changed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Its kind.
    pub kind: FileKind,
    /// Its length in bytes.
    pub len: u64,
    /// Its identity.
    pub id: FileId,
    /// Time of the last change of its content, in nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Time of the last change of its content, name or attributes, in nanoseconds since the Unix epoch.
    pub changed_ns: i64,
}

/// Identity of a file on one machine: it survives a rename, and two names of one file share it.
///
/// An inode may be used again once its file is gone; where the file system knows the time of creation, that tells the two
/// files apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// Time of creation in nanoseconds since the Unix epoch; 0 where it is unknown.
    pub born_ns: i64,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A pipe or a device, for instance.
    Other,
}

/// Files and directories.
///
/// # Errors
/// Each method returns the system's error.
pub trait FileSystem: Send + Sync + Debug {
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Looks at what is at a path, behind all links.
    fn info(&self, path: &Path) -> io::Result<FileInfo>;

    /// Returns true if there is a symbolic link at a path; false if there is nothing.
    fn is_link(&self, path: &Path) -> io::Result<bool>;

    /// Makes an empty file, or empties the one that is there. Does not follow a link at the path itself.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file to be written at its end, and makes it where it is missing. Does not follow a link at the path itself.
    fn append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Creates a directory and its missing parents. The names of those it created are durable on return.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing an existing one of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file. Fails with `AlreadyExists` if there is anything of the new name, which stays as it is.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all of its contents.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Returns true if a file or directory of that name exists.
    fn exists(&self, path: &Path) -> bool;

    /// Returns the names in a directory, in no particular order. One that is not UTF-8 has the replacement character in place
    /// of the other bytes, and leads nowhere.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// The files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFiles;

impl WriteFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        Self::sync_all(self)
    }
}

impl ReadFile for File {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, position)
    }

    fn info(&self) -> io::Result<FileInfo> {
        self.metadata().map(|metadata| facts(&metadata))
    }
}

fn facts(metadata: &Metadata) -> FileInfo {
    let kind = match (metadata.is_file(), metadata.is_dir()) {
        (true, _) => FileKind::File,
        (_, true) => FileKind::Dir,
        _ => FileKind::Other,
    };
    let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    let born = metadata.created().ok();
    let born = born.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    FileInfo {
        kind,
        len: metadata.len(),
        id: FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
            born_ns: born.map_or(0, |born| i64::try_from(born.as_nanos()).unwrap_or(i64::MAX)),
        },
        modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
    }
}

impl FileSystem for LocalFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        // A pipe that has been put at the path would be waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        Ok(Box::new(file))
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        fs::metadata(path).map(|metadata| facts(&metadata))
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(metadata.is_symlink()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true);
        Ok(Box::new(file.custom_flags(not_a_link()).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut options = File::options();
        let file = options.append(true).create(true);
        Ok(Box::new(file.custom_flags(not_a_link()).open(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let is_new = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let made: Vec<&Path> = path.ancestors().take_while(is_new).collect();
        fs::create_dir_all(path)?;
        for dir in made {
            if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
                self.sync_dir(above)?;
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_new(from, to),
            renamed => Ok(renamed?),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        fs::read_dir(path)?.map(name).collect()
    }
}

/// Flags with which a link is not followed, and a pipe not waited for.
fn not_a_link() -> i32 {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    flags.bits().cast_signed()
}

/// Renames a file to a new name by a hard link, where the file system has no such rename (NFS, for instance).
///
/// Between the two steps the file has both names. After a crash there, the same request completes the rename.
fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_same_file(from, to)? => {}
        linked => linked?,
    }
    fs::remove_file(from)
}

/// Returns true if both names are of one file.
fn is_same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Reads a regular file of at most `most` bytes to its end. A pipe or a device is refused, and not waited for.
///
/// # Errors
/// The system's; [`io::ErrorKind::InvalidInput`] for anything else than such a file.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let refused = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY)
        .bits()
        .cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(refused("it is a pipe or a device, expected a regular file".to_owned()));
    }
    let mut bytes = vec![];
    if metadata.len() <= most {
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    // It may have grown since.
    let len = metadata.len().max(bytes.len() as u64);
    if len > most {
        return Err(refused(format!("it has {len} bytes, expected at most {most}")));
    }
    Ok(bytes)
}

/// Reads a text file of at most `most` bytes, as [`read_regular`].
///
/// # Errors
/// As [`read_regular`]; [`io::ErrorKind::InvalidData`] where it is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let text = String::from_utf8(read_regular(path, most)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Writes a file in one step: another process sees the old content or the new, never a part of it. Not durable.
///
/// # Errors
/// The system's.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_to_a_new_name_replaces_nothing() {
        let renames: [fn(&Path, &Path) -> io::Result<()>; 2] = [|a, b| LocalFiles.rename_new(a, b), link_new];
        for rename in renames {
            let dir = tempfile::tempdir().expect("temp dir");
            let (from, to) = (dir.path().join("from"), dir.path().join("to"));
            let missing = rename(&from, &to).expect_err("nothing to rename");
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            fs::write(&from, "new").expect("written");
            fs::write(&to, "old").expect("written");
            let taken = rename(&from, &to).expect_err("the name is taken");
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&to).expect("still there"), b"old");
            fs::remove_file(&to).expect("removed");
            rename(&from, &to).expect("renamed");
            assert_eq!(
                (fs::read(&to).expect("renamed"), from.exists()),
                (b"new".to_vec(), false)
            );
        }
    }

    #[test]
    fn only_a_regular_file_of_some_size_is_read() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("file");
        fs::write(&file, "text").expect("written");
        assert_eq!(read_text(&file, 4).expect("read"), "text");
        let refused = |path: &Path| read_regular(path, 3).expect_err("refused").to_string();
        assert_eq!(refused(&file), "it has 4 bytes, expected at most 3");
        File::create(&file).expect("a file").set_len(3 << 40).expect("a hole");
        assert_eq!(refused(&file), "it has 3298534883328 bytes, expected at most 3");
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe");
        assert_eq!(refused(&pipe), "it is a pipe or a device, expected a regular file");
        assert_eq!(refused(Path::new("/dev/zero")), refused(&pipe));
        assert_eq!(
            read_regular(dir.path(), 3).expect_err("refused").kind(),
            io::ErrorKind::IsADirectory
        );
    }

    #[test]
    fn a_link_is_completed_after_a_crash() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "new").expect("written");
        fs::hard_link(&from, &to).expect("the first step");
        link_new(&from, &to).expect("the second step");
        assert_eq!(
            (fs::read(&to).expect("renamed"), from.exists()),
            (b"new".to_vec(), false)
        );
    }
}
