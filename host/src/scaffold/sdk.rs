//! The SDK and the WIT, which are on no registry: they travel in this program and are unpacked where guest crates find them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use super::ScaffoldError;

mod embedded {
    //! Written by `build.rs`: paths, and what stands in the files.
    include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));
}

/// `<version>-<the first 12 hex digits of the content's SHA-256>`.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut hash = Sha256::new();
        for (path, bytes) in embedded::SDK_FILES {
            // Lengths keep "ab" + "c" apart from "a" + "bc".
            for part in [path.as_bytes(), bytes] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        let digest: String = hash
            .finalize()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{}-{digest}", env!("CARGO_PKG_VERSION"))
    })
}

/// Where the SDK of this version of the program is unpacked, under the data directory.
#[must_use]
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("sdk").join(version()).join("guest-sdk")
}

/// Unpacks the SDK where it is missing or not whole, and returns its crate's directory. Costs a look at each file where
/// it is there already, so a build may begin with it; files that are as they should be are not written again.
///
/// # Errors
/// The data directory cannot be written.
pub fn unpack(data_dir: &Path) -> Result<PathBuf, ScaffoldError> {
    let sdk = directory(data_dir);
    let root = sdk.parent().unwrap_or(data_dir);
    for (path, bytes) in embedded::SDK_FILES {
        let path = root.join(path);
        let there = std::fs::metadata(&path).is_ok_and(|there| there.is_file() && there.len() == bytes.len() as u64);
        if !there {
            write_whole(&path, bytes)?;
        }
    }
    Ok(sdk)
}

/// Other processes unpack at the same time: each file appears whole.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ScaffoldError> {
    let failed = |source| ScaffoldError::Write {
        path: path.to_owned(),
        source,
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, bytes).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_whole_and_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let sdk = unpack(dir.path()).unwrap();
        assert!(sdk.starts_with(dir.path().join("sdk")) && sdk.ends_with("guest-sdk"));
        let lib = sdk.join("src/lib.rs");
        let text = std::fs::read(&lib).unwrap();
        for file in [
            "Cargo.toml",
            "derive/Cargo.toml",
            "derive/src/lib.rs",
            "../wit/world.wit",
        ] {
            assert!(sdk.join(file).is_file(), "{file}");
        }
        let written = std::fs::metadata(&lib).unwrap().modified().unwrap();
        std::fs::remove_file(sdk.join("Cargo.toml")).unwrap();
        assert_eq!(unpack(dir.path()).unwrap(), sdk);
        assert!(sdk.join("Cargo.toml").is_file());
        assert_eq!(std::fs::metadata(&lib).unwrap().modified().unwrap(), written);
        std::fs::write(&lib, "half").unwrap();
        unpack(dir.path()).unwrap();
        assert_eq!(std::fs::read(&lib).unwrap(), text);
    }

    #[test]
    fn nothing_but_sources_is_embedded() {
        for (path, _) in embedded::SDK_FILES {
            assert!(path.starts_with("guest-sdk/") || path.starts_with("wit/"), "{path}");
            assert!(
                [".rs", ".toml", ".md", ".wit"].iter().any(|end| path.ends_with(end)),
                "{path}"
            );
            assert!(!path.contains("/target/"), "{path}");
        }
    }
}
