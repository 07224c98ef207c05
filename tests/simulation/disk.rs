//! The file system of sources and sinks, with what it forgets.
//!
//! The content of a file is durable up to its last sync; a name is durable once its directory was synced. A power loss
//! keeps or loses each name change that is not durable at random (a rename as a whole), and cuts the unsynced end of
//! each file at a random place. A failed sync loses what it was to save for good, and later syncs report no error.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regraft::environment::files::{FileId, FileInfo, FileKind, FileSystem, ReadFile, WriteFile};

use crate::fate::{Fate, Place, Verdict};
use crate::machine::Machine;
use crate::random::Random;

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: usize,
    /// True once a sync has failed: content that is not durable by then never will be.
    lost: bool,
    /// Number of changes of `bytes`.
    changes: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        let within = |path: &Path| path.parent() == Some(dir);
        match self {
            Self::Link(path, _) | Self::Unlink(path) => within(path),
            Self::Rename(from, to, _) => within(from) || within(to),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Link(path, node) => {
                names.insert(path.clone(), *node);
            }
            // A directory is removed only when it is empty in the durable names as well.
            Self::Unlink(path) if !names.keys().any(|name| name.parent() == Some(path)) => {
                names.remove(path);
            }
            Self::Unlink(_) => {}
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }

    /// Returns true if a later durable change of the same names leaves no effect of this one.
    fn is_superseded_by(&self, later: &Self) -> bool {
        let names = |change: &Self| match change {
            Self::Link(path, _) | Self::Unlink(path) => [path.clone(), path.clone()],
            Self::Rename(from, to, _) => [from.clone(), to.clone()],
        };
        let (own, theirs) = (names(self), names(later));
        own.iter().all(|name| theirs.contains(name))
    }
}

#[derive(Debug)]
struct Inner {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    changes: Vec<Change>,
    random: Random,
}

/// The disk, which outlives processes.
#[derive(Debug)]
pub struct Disk(Mutex<Inner>);

impl Disk {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            contents: vec![],
            names: BTreeMap::from([(PathBuf::from("/"), Node::Dir)]),
            durable: BTreeMap::from([(PathBuf::from("/"), Node::Dir)]),
            changes: vec![],
            random: Random::of(seed, "disk"),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Simulates a power loss: keeps what is durable, and a random part of the rest.
    pub fn lose_power(&self) {
        let mut inner = self.inner();
        let Inner {
            contents,
            names,
            durable,
            changes,
            random,
        } = &mut *inner;
        let kept = *random.pick(&[0, 50, 100]);
        for change in changes.drain(..) {
            if random.percent(kept) {
                change.apply(durable);
            }
        }
        names.clone_from(durable);
        for content in contents {
            let unsynced = content.bytes.len() - content.durable;
            if unsynced > 0 {
                let kept = if content.lost {
                    0
                } else {
                    random.below(unsynced as u64 + 1) as usize
                };
                content.bytes.truncate(content.durable + kept);
                content.changes += 1;
                content.durable = content.bytes.len();
            }
        }
    }

    /// Returns all files with their contents, by path.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.inner();
        let content = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(at) => Some((path.clone(), inner.contents[*at].bytes.clone())),
            Node::Dir => None,
        };
        inner.names.iter().filter_map(content).collect()
    }

    /// Makes a directory and those above it, as the user does: durably.
    pub fn make_dir(&self, path: &Path) {
        let mut inner = self.inner();
        let above: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
        for dir in above {
            inner.names.insert(dir.clone(), Node::Dir);
            inner.durable.insert(dir, Node::Dir);
        }
    }

    /// Makes a file longer, as the user does: durably. It is made where it is not there.
    pub fn append(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.inner();
        let at = match inner.names.get(path) {
            Some(Node::File(at)) => *at,
            _ => {
                inner.contents.push(Content::default());
                let at = inner.contents.len() - 1;
                inner.names.insert(path.to_owned(), Node::File(at));
                inner.durable.insert(path.to_owned(), Node::File(at));
                at
            }
        };
        let content = &mut inner.contents[at];
        content.bytes.extend_from_slice(bytes);
        content.changes += 1;
        content.durable = content.bytes.len();
    }

    /// Renames a file, as the user does: durably.
    pub fn rename(&self, from: &Path, to: &Path) {
        let mut inner = self.inner();
        let Inner { names, durable, .. } = &mut *inner;
        for names in [names, durable] {
            if let Some(node) = names.remove(from) {
                names.insert(to.to_owned(), node);
            }
        }
    }

    /// Removes a file, as the user does.
    pub fn remove(&self, path: &Path) {
        let mut inner = self.inner();
        inner.names.remove(path);
        inner.durable.remove(path);
        inner
            .changes
            .retain(|change| !change.touches(path.parent().unwrap_or(path)));
    }
}

/// The disk as seen by one process.
#[derive(Debug, Clone)]
pub struct Files {
    pub disk: Arc<Disk>,
    pub fate: Fate,
    pub machine: MachineRef,
    pub process: u64,
}

/// A machine whose `Debug` output is only its name.
#[derive(Clone)]
pub struct MachineRef(pub Arc<Machine>);

impl std::fmt::Debug for MachineRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

fn broken() -> Error {
    Error::other("input/output error (simulated)")
}

impl Files {
    /// Makes a request, which succeeds or fails as the fate decides.
    fn ask<T>(&self, place: Place, path: &Path, work: impl FnOnce(&mut Inner) -> Result<T>) -> Result<T> {
        let dead = || Error::other("the process is dead");
        if !self.machine.0.is_alive(self.process) {
            return Err(dead());
        }
        let writes = matches!(place, Place::MakeFile | Place::MakeDir | Place::Write);
        let mut verdict = self.fate.visit(place, writes, &path.to_string_lossy());
        if let Verdict::Nap(steps) = verdict {
            self.machine.0.nap(self.process, steps);
            verdict = if self.machine.0.is_alive(self.process) {
                Verdict::Go
            } else {
                Verdict::Crash
            };
        }
        match verdict {
            Verdict::Go | Verdict::Nap(_) => work(&mut self.disk.inner()),
            Verdict::Fail => Err(broken()),
            Verdict::FailAfter => {
                work(&mut self.disk.inner())?;
                Err(broken())
            }
            Verdict::NoSpace => Err(Error::from(ErrorKind::StorageFull)),
            Verdict::Crash => Err(dead()),
            Verdict::CrashAfter => {
                let _ = work(&mut self.disk.inner());
                self.machine.0.kill();
                Err(dead())
            }
        }
    }

    /// Opens a file for writing, as `find` finds or makes it.
    fn to_write(
        &self,
        path: &Path,
        find: impl FnOnce(&mut Inner, &Path) -> Result<usize>,
    ) -> Result<Box<dyn WriteFile>> {
        let at = self.ask(Place::MakeFile, path, |inner| {
            inner.needs_dir(path)?;
            find(inner, path)
        })?;
        Ok(Box::new(FileInUse {
            files: self.clone(),
            at,
            path: path.to_owned(),
        }))
    }
}

fn absent() -> Error {
    Error::from(ErrorKind::NotFound)
}

/// Returns the facts about a directory, whose identity is its path.
fn dir_facts(path: &Path) -> FileInfo {
    let inode = xxhash_rust::xxh3::xxh3_64(path.as_os_str().as_encoded_bytes());
    FileInfo {
        kind: FileKind::Dir,
        len: 0,
        id: FileId {
            device: 2,
            inode,
            born_ns: 0,
        },
        modified_ns: 0,
        changed_ns: 0,
    }
}

impl Inner {
    /// Returns the facts about a file; its times are the number of changes of its content.
    fn facts(&self, at: usize) -> FileInfo {
        let Content { bytes, changes, .. } = &self.contents[at];
        FileInfo {
            kind: FileKind::File,
            len: bytes.len() as u64,
            id: FileId {
                device: 1,
                inode: at as u64,
                born_ns: 0,
            },
            modified_ns: *changes,
            changed_ns: *changes,
        }
    }

    fn needs_dir(&self, path: &Path) -> Result<()> {
        match path.parent().and_then(|dir| self.names.get(dir)) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(Error::from(ErrorKind::NotADirectory)),
            None => Err(absent()),
        }
    }

    /// Links a new, empty file to a path, and returns its number.
    fn new_file(&mut self, path: &Path) -> Result<usize> {
        self.contents.push(Content::default());
        let at = self.contents.len() - 1;
        self.change(Change::Link(path.to_owned(), Node::File(at)));
        Ok(at)
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn children(&self, path: &Path) -> Vec<PathBuf> {
        self.names
            .keys()
            .filter(|name| name.parent() == Some(path))
            .cloned()
            .collect()
    }

    fn remove(&mut self, path: &Path) -> Result<()> {
        match self.names.get(path) {
            None => Err(absent()),
            Some(Node::Dir) if !self.children(path).is_empty() => Err(Error::from(ErrorKind::DirectoryNotEmpty)),
            Some(_) => {
                self.change(Change::Unlink(path.to_owned()));
                Ok(())
            }
        }
    }
}

impl FileSystem for Files {
    fn open(&self, path: &Path) -> Result<Box<dyn ReadFile>> {
        let at = self.ask(Place::OpenFile, path, |inner| match inner.names.get(path) {
            Some(Node::File(at)) => Ok(*at),
            Some(Node::Dir) => Err(Error::from(ErrorKind::IsADirectory)),
            None => Err(absent()),
        })?;
        Ok(Box::new(FileInUse {
            files: self.clone(),
            at,
            path: path.to_owned(),
        }))
    }

    fn is_link(&self, _: &Path) -> Result<bool> {
        Ok(false)
    }

    fn info(&self, path: &Path) -> Result<FileInfo> {
        self.ask(Place::Look, path, |inner| match inner.names.get(path) {
            Some(Node::File(at)) => Ok(inner.facts(*at)),
            Some(Node::Dir) => Ok(dir_facts(path)),
            None => Err(absent()),
        })
    }

    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        self.to_write(path, Inner::new_file)
    }

    fn append(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        self.to_write(path, |inner, path| match inner.names.get(path) {
            Some(Node::File(at)) => Ok(*at),
            Some(Node::Dir) => Err(Error::from(ErrorKind::IsADirectory)),
            None => inner.new_file(path),
        })
    }

    /// Creates directories durably, as the contract of the file system demands.
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        if self.disk.inner().names.get(path) == Some(&Node::Dir) {
            return Ok(());
        }
        self.ask(Place::MakeDir, path, |inner| {
            let above: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
            for dir in above.into_iter().rev() {
                match inner.names.get(&dir) {
                    Some(Node::Dir) => {}
                    Some(Node::File(_)) => return Err(Error::from(ErrorKind::NotADirectory)),
                    None => {
                        inner.names.insert(dir.clone(), Node::Dir);
                        inner.durable.insert(dir, Node::Dir);
                    }
                }
            }
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.ask(Place::SyncDir, path, |inner| {
            if inner.names.get(path) != Some(&Node::Dir) {
                return Err(absent());
            }
            // A name in a directory that is gone for good is gone for good, too.
            let gone = |change: &Change| match change {
                Change::Unlink(name) if change.touches(path) => Some(name.clone()),
                _ => None,
            };
            let gone: Vec<PathBuf> = inner.changes.iter().filter_map(gone).collect();
            let is_now = |change: &Change| change.touches(path) || gone.iter().any(|dir| change.touches(dir));
            let (now, later): (Vec<Change>, Vec<Change>) =
                std::mem::take(&mut inner.changes).into_iter().partition(is_now);
            now.iter().for_each(|change| change.apply(&mut inner.durable));
            let stays = |change: &Change| !now.iter().any(|done| change.is_superseded_by(done));
            inner.changes = later.into_iter().filter(stays).collect();
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.ask(Place::Rename, from, |inner| {
            let node = *inner.names.get(from).ok_or_else(absent)?;
            inner.needs_dir(to)?;
            inner.change(Change::Rename(from.to_owned(), to.to_owned(), node));
            Ok(())
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.ask(Place::Rename, from, |inner| {
            let node = *inner.names.get(from).ok_or_else(absent)?;
            inner.needs_dir(to)?;
            if inner.names.contains_key(to) {
                return Err(Error::from(ErrorKind::AlreadyExists));
            }
            inner.change(Change::Rename(from.to_owned(), to.to_owned(), node));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.ask(Place::Remove, path, |inner| inner.remove(path))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.ask(Place::Remove, path, |inner| inner.remove(path))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        let mut below: Vec<PathBuf> = {
            let inner = self.disk.inner();
            inner
                .names
                .keys()
                .filter(|name| name.starts_with(path))
                .cloned()
                .collect()
        };
        if below.is_empty() {
            return Err(absent());
        }
        // Deepest first, else in random order.
        self.disk.inner().random.shuffle(&mut below);
        below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        below
            .iter()
            .try_for_each(|path| self.ask(Place::Remove, path, |inner| inner.remove(path)))
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.inner().names.contains_key(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        self.ask(Place::ListDir, path, |inner| {
            if inner.names.get(path) != Some(&Node::Dir) {
                return Err(absent());
            }
            let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
            let mut names: Vec<String> = inner.children(path).into_iter().filter_map(name).collect();
            inner.random.shuffle(&mut names);
            Ok(names)
        })
    }
}

/// A file that is being written or read.
#[derive(Debug)]
struct FileInUse {
    files: Files,
    at: usize,
    path: PathBuf,
}

impl ReadFile for FileInUse {
    /// Reads fewer bytes than were asked for, now and then.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        let at = self.at;
        self.files.ask(Place::Read, &self.path, |inner| {
            let Inner { contents, random, .. } = inner;
            let rest = contents[at].bytes.get(position as usize..).unwrap_or_default();
            let mut len = rest.len().min(buffer.len());
            if len > 1 && random.percent(20) {
                len = random.range(1, len as u64) as usize;
            }
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    fn info(&self) -> Result<FileInfo> {
        let at = self.at;
        self.files.ask(Place::Look, &self.path, |inner| Ok(inner.facts(at)))
    }
}

impl WriteFile for FileInUse {
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let at = self.at;
        let written = self.files.ask(Place::Write, &self.path, |inner| {
            inner.contents[at].bytes.extend_from_slice(bytes);
            inner.contents[at].changes += 1;
            Ok(())
        });
        if written
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::StorageFull)
        {
            // Write as much as there was room for.
            let mut inner = self.files.disk.inner();
            let some = inner.random.below(bytes.len() as u64 + 1) as usize;
            inner.contents[at].bytes.extend_from_slice(&bytes[..some]);
            inner.contents[at].changes += 1;
        }
        written
    }

    fn sync_all(&mut self) -> Result<()> {
        let at = self.at;
        let synced = self.files.ask(Place::Sync, &self.path, |inner| {
            let content = &mut inner.contents[at];
            if !content.lost {
                content.durable = content.bytes.len();
            }
            Ok(())
        });
        if synced.is_err() && self.files.machine.0.is_alive(self.files.process) {
            self.files.disk.inner().contents[at].lost = true;
        }
        synced
    }
}
