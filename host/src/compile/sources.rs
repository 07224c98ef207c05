//! The sources that an artifact in a shared build directory was made of.
//!
//! Cargo tells packages of different workspaces apart by their names, versions and paths within the workspace, and takes an
//! artifact for fresh by the times of files. Jobs that share a build directory and have crates of the same name therefore
//! get each other's code. So a digest of the sources is kept for each path package that was compiled there, and what cargo
//! reports as fresh is compiled again if its sources are others.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use xxhash_rust::xxh3::Xxh3;

use super::tools::TARGET;

/// Directory of the digests, in the build directory.
const DIGESTS: &str = "regraft-sources";
/// Parts of a package's directory that it is compiled from.
const PARTS: [&str; 4] = ["Cargo.toml", "build.rs", "src", "wit"];

/// A path package of which cargo has an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// The directory of its `Cargo.toml`.
    pub(super) dir: PathBuf,
    /// True if cargo found it unchanged, false if it compiled it.
    pub(super) fresh: bool,
}

impl Package {
    /// Returns the package of an artifact message; `None` for one from a registry.
    pub(super) fn of_message(message: &serde_json::Value) -> Option<Self> {
        // path+file:///dir#name@0.1.0, or path+file:///dir/name#0.1.0
        let (place, version) = message["package_id"].as_str()?.strip_prefix("path+")?.split_once('#')?;
        let name = match version.split_once('@') {
            Some((name, _)) => name,
            None => place.rsplit('/').next()?,
        };
        Some(Self {
            name: name.to_owned(),
            dir: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
            fresh: message["fresh"].as_bool()?,
        })
    }
}

/// A build directory that no other build uses meanwhile.
#[derive(Debug)]
pub(super) struct SharedDir {
    dir: PathBuf,
    _lock: File,
}

impl SharedDir {
    /// Locks a directory, which is made if it is missing. `waits` is called if another build has it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn lock(dir: &Path, waits: impl FnOnce()) -> io::Result<Self> {
        fs::create_dir_all(dir.join(DIGESTS))?;
        let lock = File::create(dir.join(DIGESTS).join(".lock"))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            waits();
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        }
        let dir = dir.to_owned();
        Ok(Self { dir, _lock: lock })
    }

    /// Makes cargo compile the fresh packages that were made of other sources. Returns true if there are any.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn forget_foreign(&self, packages: &[Package]) -> io::Result<bool> {
        let mut found = false;
        for package in packages.iter().filter(|package| package.fresh) {
            let known = fs::read_to_string(self.digest_file(package)).ok();
            if known.as_deref() != Some(&*digest(&package.dir)?) {
                self.forget(package)?;
                found = true;
            }
        }
        Ok(found)
    }

    /// Records the sources of packages that have been compiled.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn record(&self, packages: &[Package]) -> io::Result<()> {
        for package in packages.iter().filter(|package| !package.fresh) {
            fs::write(self.digest_file(package), digest(&package.dir)?)?;
        }
        Ok(())
    }

    fn digest_file(&self, package: &Package) -> PathBuf {
        self.dir.join(DIGESTS).join(&package.name)
    }

    /// Removes what cargo knows of a package.
    fn forget(&self, package: &Package) -> io::Result<()> {
        for profile in [self.dir.join("release"), self.dir.join(TARGET).join("release")] {
            let Ok(entries) = fs::read_dir(profile.join(".fingerprint")) else {
                continue;
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                // NAME-HASH
                let name = name.to_str().and_then(|name| name.rsplit_once('-'));
                if name.is_some_and(|(name, _)| name == package.name) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the digest of the files that a package is compiled from, and of their names.
fn digest(dir: &Path) -> io::Result<String> {
    let mut hash = Xxh3::new();
    let mut waiting: Vec<PathBuf> = PARTS.iter().rev().map(|part| dir.join(part)).collect();
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            let entries = fs::read_dir(&path)?.map(|entry| Ok(entry?.path()));
            let mut entries = entries.collect::<io::Result<Vec<PathBuf>>>()?;
            entries.sort_by(|a, b| b.cmp(a));
            waiting.extend(entries);
        } else if metadata.is_file() {
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            let bytes = fs::read(&path)?;
            hash.update(format!("{name}\0{}\0", bytes.len()).as_bytes());
            hash.update(&bytes);
        }
    }
    Ok(format!("{:032x}", hash.digest128()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packages_of_paths_are_told_from_others() {
        let message = |id: &str| json!({ "package_id": id, "manifest_path": "/job/count/Cargo.toml", "fresh": true });
        let name = |id: &str| Package::of_message(&message(id)).map(|package| package.name);
        assert_eq!(name("path+file:///job/count#0.1.0").as_deref(), Some("count"));
        assert_eq!(name("path+file:///job/dir#count@0.1.0").as_deref(), Some("count"));
        assert_eq!(name("registry+https://index#serde@1.0.0"), None);
    }

    #[test]
    fn what_was_made_of_other_sources_is_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let package = |job: &str, fresh| Package {
            name: "count".to_owned(),
            dir: dir.path().join(job),
            fresh,
        };
        for (job, source) in [("one", "1"), ("two", "2"), ("same", "1")] {
            fs::create_dir_all(dir.path().join(job).join("src")).expect("made");
            fs::write(dir.path().join(job).join("src/lib.rs"), source).expect("written");
        }
        let build = dir.path().join("build");
        let fingerprints = build.join(TARGET).join("release/.fingerprint");
        fs::create_dir_all(fingerprints.join("count-0123456789abcdef")).expect("made");
        fs::create_dir_all(fingerprints.join("count-v2-0123456789abcdef")).expect("made");
        let shared = SharedDir::lock(&build, || panic!("it is free")).expect("locked");
        shared.record(&[package("one", false)]).expect("recorded");
        assert!(
            !shared
                .forget_foreign(&[package("one", true), package("same", true)])
                .expect("read")
        );
        assert!(shared.forget_foreign(&[package("two", true)]).expect("read"));
        let left = fs::read_dir(&fingerprints)
            .expect("listed")
            .map(|entry| entry.expect("one").file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["count-v2-0123456789abcdef"]);
        shared.record(&[package("two", false)]).expect("recorded");
        fs::write(dir.path().join("two/src/lib.rs"), "3").expect("written");
        assert!(shared.forget_foreign(&[package("two", true)]).expect("read"));
    }
}
