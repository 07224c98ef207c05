//! The committed inputs: `fuzz/corpus/TARGET/`, one file per input. The name of a file says what it is for; new
//! findings are named `found-` and a checksum.

use std::path::{Path, PathBuf};

use regraft::savepoint::metadata::checksum;

/// Returns the directory of a target's inputs.
#[must_use]
pub fn dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Returns all inputs of a directory with their names, in order of names; empty if there is no directory.
///
/// # Errors
/// A file cannot be read.
pub fn read(dir: &Path) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut inputs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        inputs.push((name.unwrap_or_default(), std::fs::read(&path)?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Writes an input under a name made of a word and its checksum, and returns the path.
///
/// # Errors
/// The file cannot be written.
pub fn write(dir: &Path, word: &str, input: &[u8]) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{word}-{}", checksum(input)));
    std::fs::write(&path, input)?;
    Ok(path)
}
