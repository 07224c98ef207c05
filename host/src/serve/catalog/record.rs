//! Reads a file of the catalog: only a regular one, and only if its size is bounded. Anything may stand in the directory of
//! a host, and to open a FIFO or a device would wait for ever.

use std::fs::Metadata;
use std::io;

use bytes::Bytes;

use crate::storage::{Storage, StoreError};

/// Limit of the size of a record.
const RECORD_BYTES_MAX: u64 = 32 << 20;

/// Reads a record, or returns why the file is none.
///
/// # Errors
/// Those of the store.
pub(super) async fn read(storage: &Storage, name: &str) -> Result<Result<Bytes, String>, StoreError> {
    if let Some(dir) = storage.local_dir() {
        let parts = name.match_indices('/').map(|(at, _)| &name[..at]);
        for parent in parts {
            if let Some(reason) = std::fs::symlink_metadata(dir.join(parent))
                .ok()
                .and_then(|found| not_a_dir(&found))
            {
                return Ok(Err(reason));
            }
        }
        match std::fs::symlink_metadata(dir.join(name)) {
            Ok(found) => {
                if let Some(reason) = not_a_record(&found) {
                    return Ok(Err(reason));
                }
            }
            // The store says that it is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    storage.read(name).await.map(Ok)
}

fn not_a_dir(found: &Metadata) -> Option<String> {
    found
        .is_symlink()
        .then(|| "its directory is a symbolic link, which is not followed".to_owned())
}

/// Returns why a file is not read.
fn not_a_record(found: &Metadata) -> Option<String> {
    if found.is_symlink() {
        return Some("it is a symbolic link, which is not followed".to_owned());
    }
    if !found.is_file() {
        return Some("it is not a regular file".to_owned());
    }
    let bytes = found.len();
    (bytes > RECORD_BYTES_MAX).then(|| format!("it has {bytes} bytes, and a record has at most {RECORD_BYTES_MAX}"))
}
