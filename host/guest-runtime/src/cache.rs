//! Compiled components on disk, so that deploying an unchanged module compiles nothing.
//!
//! An entry is `<sha256 of the component>-<hash of engine and settings>.cwasm`: a tag of 32 bytes, then the compiled code.
//! Entries appear whole (temporary file, then rename).
//!
//! Compiled code is run without further checks, so an entry is used only if its tag is the HMAC-SHA-256, under the key of
//! this directory, of the component's digest, the engine with its settings, and the code. An entry that was damaged, renamed
//! or written without the key counts as absent, and is replaced. The key is made with the directory, and only this user can
//! read it; one that others could have read or written is replaced, and with it every entry.

use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hmac::{Hmac, Mac};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::describe::ModuleDigest;

/// Length of the tag before the code, and of the key, bytes.
const TAG_LEN: usize = 32;
/// File of the key, in the cache's directory.
const KEY_FILE: &str = "key";
/// Largest entry that is read, bytes.
const ENTRY_MAX: u64 = 1 << 31;
/// Version of the layout of an entry, which is part of its name.
const LAYOUT: &[u8] = b"regraft compiled module 2";

/// A directory of compiled components.
pub(crate) struct CompileCache {
    dir: PathBuf,
    /// The key, once it was needed.
    key: OnceLock<[u8; TAG_LEN]>,
    /// SHA-256 of the layout, the engine and its settings: tells apart what this engine can run from what it cannot.
    engine_hash: [u8; 32],
}

impl CompileCache {
    /// Opens a directory, which is created if it does not exist.
    pub(crate) fn new(dir: &Path, engine: &Engine) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut hasher = StableHasher(Sha256::new());
        hasher.write(LAYOUT);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            dir: dir.to_owned(),
            key: OnceLock::new(),
            engine_hash: hasher.0.finalize().into(),
        })
    }

    /// Returns a compiled component, where there is a good one.
    pub(crate) fn get(&self, engine: &Engine, digest: ModuleDigest) -> Option<Component> {
        let path = self.path(digest);
        let bytes = match read(&path, ENTRY_MAX) {
            Ok((_, bytes)) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), "cannot read a compiled module, which is compiled again: {error}");
                return None;
            }
        };
        let authentic = bytes.split_at_checked(TAG_LEN).filter(|(tag, code)| {
            let mac = self.mac(digest, code);
            mac.is_ok_and(|mac| mac.verify_slice(tag).is_ok())
        });
        let Some((_, code)) = authentic else {
            tracing::warn!(
                path = %path.display(),
                "a compiled module is not what this host has written: it is damaged, or another program wrote it; it is compiled again"
            );
            return None;
        };
        // SAFETY: `deserialize` runs what it is given as native code, so the bytes must be what `Component::serialize`
        // returned for an engine like this one. They are: only `put` knows the key that the tag was made with, which this
        // user alone can read, and the tag covers the component's digest, the engine with its settings, and the code. The
        // bytes that were verified are those that are used: the file is not read again.
        #[allow(unsafe_code, reason = "see the proof above")]
        let component = unsafe { Component::deserialize(engine, code) };
        component
            .inspect_err(|error| tracing::warn!(path = %path.display(), "not a compiled module: {error}"))
            .ok()
    }

    /// Keeps a compiled component. A cache that cannot be written only costs time.
    pub(crate) fn put(&self, digest: ModuleDigest, component: &Component) {
        let path = self.path(digest);
        if let Err(error) = self.write(&path, digest, component) {
            tracing::warn!(path = %path.display(), "cannot keep a compiled module: {error}");
        }
    }

    fn write(&self, path: &Path, digest: ModuleDigest, component: &Component) -> io::Result<()> {
        let code = component
            .serialize()
            .map_err(|error| io::Error::other(error.to_string()))?;
        let tag = self.mac(digest, &code)?.finalize().into_bytes();
        write(path, &[&tag, &code], Place::Taken)
    }

    fn mac(&self, digest: ModuleDigest, code: &[u8]) -> io::Result<Hmac<Sha256>> {
        let key = match self.key.get() {
            Some(key) => key,
            None => {
                let made = key(&self.dir.join(KEY_FILE))?;
                self.key.get_or_init(|| made)
            }
        };
        let mut mac = Hmac::new_from_slice(key).map_err(io::Error::other)?;
        mac.update(&self.engine_hash);
        mac.update(digest.as_bytes());
        mac.update(code);
        Ok(mac)
    }

    fn path(&self, digest: ModuleDigest) -> PathBuf {
        let engine: String = self.engine_hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{digest}-{engine}.cwasm"))
    }
}

/// Returns the key in a file, which is made where there is none, and made anew where others could have read or written it.
fn key(path: &Path) -> io::Result<[u8; TAG_LEN]> {
    let why = match read(path, TAG_LEN as u64) {
        Ok((true, bytes)) => match bytes.try_into() {
            Ok(key) => return Ok(key),
            Err(_) => "it is not a key".to_owned(),
        },
        Ok((false, _)) => "other users could have read or written it".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return new_key(path, Place::Free),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        "{}: {why}; there is a new key now, and modules are compiled again",
        path.display()
    );
    new_key(path, Place::Taken)
}

fn new_key(path: &Path, place: Place) -> io::Result<[u8; TAG_LEN]> {
    let mut key = [0; TAG_LEN];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    match write(path, &[&key], place) {
        // Of two processes that begin at a time, both use the key of the first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read(path, TAG_LEN as u64)? {
            (true, bytes) => bytes
                .try_into()
                .map_err(|_| io::Error::other("the key of another process is damaged")),
            (false, _) => Err(io::Error::other("another user has just made the key")),
        },
        written => written.map(|()| key),
    }
}

/// Reads a regular file that is not a link. Returns true with it if only this user can read or write it.
fn read(path: &Path, max: u64) -> io::Result<(bool, Vec<u8>)> {
    // A FIFO is opened without waiting for a writer.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let is = file.metadata()?;
    if !is.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if is.len() > max {
        return Err(io::Error::other(format!(
            "it has {} bytes, and at most {max} are read",
            is.len()
        )));
    }
    let private = is.uid() == rustix::process::geteuid().as_raw() && is.mode() & 0o077 == 0;
    let mut bytes = Vec::with_capacity(usize::try_from(is.len()).unwrap_or_default());
    file.take(max).read_to_end(&mut bytes)?;
    Ok((private, bytes))
}

/// Effect of a write on a file of the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There must be none.
    Free,
    /// It is replaced.
    Taken,
}

/// Writes a file that appears whole, and that only this user can read.
fn write(path: &Path, parts: &[&[u8]], place: Place) -> io::Result<()> {
    let own = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
    let temporary = path.with_extension(format!("{}-{own}.tmp", std::process::id()));
    // Left by an earlier process with this pid; it may have any owner and mode.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = write_all(&mut file, parts).and_then(|()| match place {
        Place::Free => fs::hard_link(&temporary, path),
        Place::Taken => fs::rename(&temporary, path),
    });
    if written.is_err() || place == Place::Free {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_all(file: &mut File, parts: &[&[u8]]) -> io::Result<()> {
    // A umask can only have taken bits of this user away.
    file.set_permissions(Permissions::from_mode(0o600))?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

/// A hash that is the same in every build of this program, unlike the standard library's.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Not used: the whole digest is taken instead.
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(engine: &Engine, name: &str) -> (ModuleDigest, Component) {
        // A component that exports an empty one: that it has another name is all that matters.
        let text = [
            b"\0asm\x0d\0\x01\0".as_slice(),
            b"\0",
            &[1 + name.len() as u8, name.len() as u8],
            name.as_bytes(),
        ];
        let bytes = text.concat();
        (
            ModuleDigest::of(&bytes),
            Component::new(engine, &bytes).expect("a component"),
        )
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("there").mode() & 0o777
    }

    #[test]
    fn only_what_this_host_has_written_is_used() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir = dir.path().join("modules");
        let engine = Engine::default();
        let (cache, (digest, module)) = (CompileCache::new(&dir, &engine).expect("made"), component(&engine, "a"));
        assert!(cache.get(&engine, digest).is_none());
        cache.put(digest, &module);
        let path = cache.path(digest);
        let good = fs::read(&path).expect("there");
        let found = |cache: &CompileCache| cache.get(&engine, digest).is_some();
        assert!(found(&cache) && found(&CompileCache::new(&dir, &engine).expect("opened")));
        assert_eq!(
            (mode(&dir), mode(&path), mode(&dir.join(KEY_FILE))),
            (0o700, 0o600, 0o600)
        );

        // A flipped bit, an end that is missing, and a tag that needs no key.
        let code = &good[TAG_LEN..];
        let (mut flipped, unkeyed) = (good.clone(), [Sha256::digest(code).as_slice(), code].concat());
        *flipped.last_mut().expect("bytes") ^= 1;
        for bad in [&flipped, &good[..good.len() - 1], &good[..8], &unkeyed] {
            fs::write(&path, bad).expect("written");
            assert!(!found(&cache));
        }
        // Code of another component.
        let (other, other_module) = component(&engine, "b");
        cache.put(other, &other_module);
        fs::copy(cache.path(other), &path).expect("copied");
        assert!(!found(&cache));
        // A good one, behind a link.
        fs::remove_file(&path).expect("removed");
        fs::write(dir.join("elsewhere"), &good).expect("written");
        std::os::unix::fs::symlink("elsewhere", &path).expect("linked");
        assert!(!found(&cache));
        cache.put(digest, &module);
        assert!(found(&cache));
    }

    #[test]
    fn a_key_that_others_could_have_read_is_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join(KEY_FILE);
        let first = key(&path).expect("made");
        assert_eq!(key(&path).expect("read"), first);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
        let second = key(&path).expect("made");
        assert!(second != first && mode(&path) == 0o600);
        for bad in [&b"short"[..], &[0; 33]] {
            fs::write(&path, bad).expect("written");
            assert!(key(&path).expect("made") != *bad);
        }
    }
}
