//! Compiled components on disk, so that deploying an unchanged module compiles nothing.
//!
//! An entry is `<sha256 of the component>-<hash of engine and settings>.cwasm`: the SHA-256 of the compiled code, then the
//! code. Entries appear whole (temporary file, then rename). One that is damaged counts as absent and is replaced.
//! The directory holds code that is run without further checks: anyone who can write to it can run code as this user.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::describe::ModuleDigest;

/// The length of the digest before the code.
const DIGEST_LEN: usize = 32;

/// A directory of compiled components.
pub(crate) struct CompileCache {
    dir: PathBuf,
    /// Tells apart what this engine can run from what it cannot.
    engine_hash: String,
}

impl CompileCache {
    pub(crate) fn new(dir: &Path, engine: &Engine) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut hasher = StableHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine_hash = hasher.0.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            dir: dir.to_owned(),
            engine_hash,
        })
    }

    /// A compiled component, where there is a good one.
    pub(crate) fn get(&self, engine: &Engine, digest: ModuleDigest) -> Option<Component> {
        let path = self.path(digest);
        let bytes = fs::read(&path).ok()?;
        let (expected, code) = bytes.split_at_checked(DIGEST_LEN)?;
        if Sha256::digest(code).as_slice() != expected {
            tracing::warn!(path = %path.display(), "a compiled module is damaged and will be compiled again");
            return None;
        }
        // SAFETY: `deserialize` runs what it is given as native code, so the bytes must be what `Component::serialize`
        // returned. They are: only `put` writes files of this name, the digest before them shows that they are whole
        // and unchanged, and the name contains the engine's compatibility hash, which wasmtime checks again. Who can
        // forge all of that can write to a directory of this user (see above), and needs no such detour.
        #[allow(unsafe_code, reason = "see the proof above")]
        let component = unsafe { Component::deserialize(engine, code) };
        component
            .inspect_err(|error| tracing::warn!(path = %path.display(), "not a compiled module: {error}"))
            .ok()
    }

    /// Keeps a compiled component. A cache that cannot be written only costs time.
    pub(crate) fn put(&self, digest: ModuleDigest, component: &Component) {
        let path = self.path(digest);
        if let Err(error) = self.write(&path, component) {
            tracing::warn!(path = %path.display(), "cannot keep a compiled module: {error}");
        }
    }

    fn write(&self, path: &Path, component: &Component) -> io::Result<()> {
        let code = component
            .serialize()
            .map_err(|error| io::Error::other(error.to_string()))?;
        let mut bytes = Sha256::digest(&code).to_vec();
        bytes.extend_from_slice(&code);
        let own = format!("{:?}", std::thread::current().id());
        let temporary = path.with_extension(format!("{}-{}.tmp", std::process::id(), own.replace(['(', ')'], "")));
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, path)
    }

    fn path(&self, digest: ModuleDigest) -> PathBuf {
        self.dir.join(format!("{digest}-{}.cwasm", self.engine_hash))
    }
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
