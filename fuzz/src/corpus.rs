//! The committed inputs: `fuzz/corpus/TARGET/`, one file each. A name says what the input is for; what was found has the
//! name `found-` and a checksum.

use std::path::{Path, PathBuf};

use regraft::savepoint::metadata::checksum;

/// Where the inputs of a target are.
#[must_use]
pub fn dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// All inputs of a directory with their names, in order of those; none where there is no directory.
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

/// Writes an input under a name made of a word and its checksum. Gives the path.
///
/// # Errors
/// It cannot be written.
pub fn write(dir: &Path, word: &str, input: &[u8]) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{word}-{}", checksum(input)));
    std::fs::write(&path, input)?;
    Ok(path)
}
