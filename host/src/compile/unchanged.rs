//! Finds the component of a guest crate that has not changed since its last build, without asking cargo.
//!
//! Cargo takes 100 to 200 ms to find that it has nothing to do, and a job starts in a fraction of that.
//! So a build leaves a note in the data directory: every file that its result depends on, as it was.
//! A note counts only if all of these are the same by identity, length and times, and also if the files that would change
//! the build by appearing are still missing. In doubt there is no note, and cargo decides:
//!
//! - A build script of a path package may read anything.
//! - A file that changed while the build ran may be newer than its result.
//! - A variable of the environment that the code reads is not among those that are compared.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::component::{Component, MADE_BY};
use crate::environment::files::{FileInfo, FileSystem as _, LocalFiles, read_regular, write_whole};

/// Bytes of a note at most. One of 60 files has about 10 kB.
const NOTE_BYTES_MAX: u64 = 4 << 20;
/// Notes that are kept. The oldest ones beyond are removed: a crate that is built again gets a new one.
const NOTES_MAX: usize = 256;

/// Beginnings of the names of environment variables that a build depends on: those of cargo, rustc and rustup, and those by
/// which build scripts find a C compiler.
const VARIABLES: [&str; 16] = [
    "CARGO",
    "RUST",
    "PATH",
    "HOME",
    "CC",
    "CXX",
    "CFLAGS",
    "CXXFLAGS",
    "AR",
    "RANLIB",
    "LD_",
    "PKG_CONFIG",
    "TARGET_",
    "HOST_",
    "WASI",
    "SOURCE_DATE_EPOCH",
];
/// Beginnings of names that cargo sets for the program it runs, and that do not matter to a build in it.
const OF_THE_RUN: [&str; 7] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_TERM_",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "RUST_RECURSION_COUNT",
];

/// Files in the directory of a crate, and in those above, by which cargo or rustup build in another way. Most are missing.
const ABOVE: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    ".cargo/config.toml",
    ".cargo/config",
    "rust-toolchain.toml",
    "rust-toolchain",
];

/// Inputs of a build, as cargo told them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    /// The core module. Cargo lists the sources beside it, in `NAME.d`.
    pub(super) module: PathBuf,
    /// Directories of the path packages that it was compiled from.
    pub(super) packages: Vec<PathBuf>,
    /// True if one of these has a build script.
    pub(super) has_build_script: bool,
    /// The directory of the target's libraries, in the directory of the Rust toolchain.
    pub(super) libraries: PathBuf,
}

/// The notes of builds in one data directory and environment.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    dir: &'a Path,
    environment: String,
}

/// A note: everything that the component of a crate was made of.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    made_by: String,
    dir: PathBuf,
    environment: String,
    component: PathBuf,
    files: Files,
}

/// Files that a build depends on, with the facts about each; `None` for one that is missing.
type Files = Vec<(PathBuf, Option<Facts>)>;

/// Facts about a file that tell whether it is the same and unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    device: u64,
    inode: u64,
    len: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl From<FileInfo> for Facts {
    fn from(info: FileInfo) -> Self {
        Self {
            device: info.id.device,
            inode: info.id.inode,
            len: info.len,
            modified_ns: info.modified_ns,
            changed_ns: info.changed_ns,
        }
    }
}

impl<'a> Notes<'a> {
    /// Returns the notes in a directory, which need not exist, for builds with the given tools and variables.
    pub(super) fn new(dir: &'a Path, tools: &[&Path], variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let matters = |name: &str| {
            let begins = |with: &&str| name.starts_with(*with);
            VARIABLES.iter().any(begins) && !OF_THE_RUN.iter().any(begins)
        };
        let variables: BTreeSet<_> = variables
            .filter(|(name, _)| name.to_str().is_some_and(matters))
            .collect();
        let environment = format!("{:032x}", xxh3_128(format!("{tools:?} {variables:?}").as_bytes()));
        Self { dir, environment }
    }

    /// Returns the component of a crate if nothing has changed that it was made of. `dir` is a canonical path.
    pub(super) fn component(&self, dir: &Path) -> Option<Component> {
        let note = read_regular(&self.file(dir), NOTE_BYTES_MAX).ok()?;
        let note: Note = serde_json::from_slice(&note).ok()?;
        let is_ours = note.made_by == MADE_BY && note.dir == dir && note.environment == self.environment;
        if !is_ours
            || note
                .files
                .iter()
                .any(|(path, facts)| self::facts(path).ok() != Some(*facts))
        {
            return None;
        }
        let (_, facts) = note.files.iter().find(|(path, _)| *path == note.component)?;
        Some(Component {
            bytes: (*facts)?.len,
            path: note.component,
            made: false,
        })
    }

    /// Notes what the component of a crate was made of, in a build that began at `began`. Without a note, the next build
    /// asks cargo.
    pub(super) fn note(&self, dir: &Path, inputs: &Inputs, component: &Component, began: SystemTime) {
        match note(dir, inputs, &component.path, began) {
            Ok(Ok(files)) => {
                let note = Note {
                    made_by: MADE_BY.to_owned(),
                    dir: dir.to_owned(),
                    environment: self.environment.clone(),
                    component: component.path.clone(),
                    files,
                };
                if let Err(error) = self.write(dir, &note) {
                    tracing::debug!("what {} was built from is not noted: {error}", dir.display());
                }
            }
            Ok(Err(doubt)) => tracing::debug!("cargo is asked about {} each time: {doubt}", dir.display()),
            Err(error) => tracing::debug!("what {} was built from is not known: {error}", dir.display()),
        }
    }

    fn write(&self, dir: &Path, note: &Note) -> io::Result<()> {
        fs::create_dir_all(self.dir)?;
        write_whole(&self.file(dir), &serde_json::to_vec(note)?)?;
        let mut notes = vec![];
        for entry in fs::read_dir(self.dir)? {
            let entry = entry?;
            notes.push((entry.metadata()?.modified()?, entry.path()));
        }
        notes.sort();
        for (_, path) in notes.iter().rev().skip(NOTES_MAX) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Returns the file of a crate's note. Each environment has its own, so that two that take turns do not build each time.
    fn file(&self, dir: &Path) -> PathBuf {
        let key = format!("{}\0{}", dir.display(), self.environment);
        self.dir.join(format!("{:032x}.json", xxh3_128(key.as_bytes())))
    }
}

/// Returns the files that a build depends on, as they are, or the reason why they do not say whether it would be another one.
fn note(dir: &Path, inputs: &Inputs, component: &Path, began: SystemTime) -> io::Result<Result<Files, String>> {
    if inputs.has_build_script {
        return Ok(Err("a package beside it has a build script".to_owned()));
    }
    let sources = sources(&inputs.module)?;
    if sources.is_empty() {
        return Ok(Err(format!("no sources are listed beside {}", inputs.module.display())));
    }
    for path in sources
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
    {
        if reads_environment(&fs::read_to_string(path)?) {
            return Ok(Err(format!("{} reads the environment", path.display())));
        }
    }
    let manifests = manifests(dir, &inputs.packages);
    for path in &manifests {
        if fs::read_to_string(path).is_ok_and(|text| names_workspace(&text)) {
            return Ok(Err(format!("{} names a workspace elsewhere", path.display())));
        }
    }
    let mut files = vec![];
    let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let began = i64::try_from(began.as_nanos()).unwrap_or(i64::MAX);
    for path in sources.into_iter().chain(manifests) {
        let facts = facts(&path)?;
        // Cargo itself writes the lock file.
        let is_lock = path.file_name().is_some_and(|name| name == "Cargo.lock");
        if !is_lock && facts.is_some_and(|facts| facts.modified_ns.max(facts.changed_ns) >= began) {
            return Ok(Err(format!("{} changed during the build", path.display())));
        }
        files.push((path, facts));
    }
    for path in toolchain(&inputs.libraries).into_iter().chain([component.to_owned()]) {
        let facts = facts(&path)?;
        files.push((path, facts));
    }
    Ok(Ok(files))
}

/// Returns the facts about a file or directory; `None` if there is none.
fn facts(path: &Path) -> io::Result<Option<Facts>> {
    match LocalFiles.info(path) {
        Ok(info) => Ok(Some(info.into())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the list of sources that cargo writes beside a module: `MODULE: SOURCE SOURCE …`, with `\ ` for a space.
fn sources(module: &Path) -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string(module.with_extension("d"))?;
    let Some((_, list)) = text.lines().next().and_then(|line| line.split_once(": ")) else {
        return Ok(vec![]);
    };
    let list = list.replace("\\ ", "\0");
    let names = list.split(' ').filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(name.replace('\0', " "))).collect())
}

/// Returns true if Rust code reads variables of the environment at compile time, other than those that cargo sets by the
/// manifest.
fn reads_environment(code: &str) -> bool {
    code.split("env!").skip(1).any(|rest| {
        let argument = rest.trim_start().strip_prefix('(').map(str::trim_start);
        !argument
            .is_some_and(|argument| argument.starts_with("\"CARGO_PKG_") || argument.starts_with("\"CARGO_MANIFEST_"))
    })
}

/// Returns true if a manifest says where its workspace is, which then is in no directory above.
fn names_workspace(manifest: &str) -> bool {
    let manifest: Option<toml::Table> = manifest.parse().ok();
    manifest.is_none_or(|manifest| {
        let package = manifest.get("package").and_then(|package| package.get("workspace"));
        package.is_some_and(toml::Value::is_str)
    })
}

/// Returns the manifests, lock files and settings that a build of `dir` reads, also those that are missing.
fn manifests(dir: &Path, packages: &[PathBuf]) -> BTreeSet<PathBuf> {
    let own = dir
        .ancestors()
        .flat_map(|above| ABOVE.iter().map(move |name| above.join(name)));
    let of_packages = packages.iter().flat_map(|package| {
        let above = package.ancestors().map(|above| above.join("Cargo.toml"));
        above.chain([package.join("build.rs")])
    });
    let home = |variable: &str, name: &str| {
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(name));
        std::env::var_os(variable).map(PathBuf::from).or_else(home)
    };
    let cargo = home("CARGO_HOME", ".cargo").into_iter();
    let cargo = cargo.flat_map(|home| [home.join("config.toml"), home.join("config")]);
    let rustup = home("RUSTUP_HOME", ".rustup").map(|home| home.join("settings.toml"));
    own.chain(of_packages).chain(cargo).chain(rustup).collect()
}

/// Returns the parts of a toolchain by which another one is told, from `TOOLCHAIN/lib/rustlib/TARGET/lib`.
fn toolchain(libraries: &Path) -> Vec<PathBuf> {
    let bin = libraries.ancestors().nth(4).map(|toolchain| toolchain.join("bin"));
    let tools = bin.iter().flat_map(|bin| [bin.join("rustc"), bin.join("cargo")]);
    tools.chain([libraries.to_owned()]).collect()
}

#[cfg(test)]
mod tests;
