//! The envelope of `_metadata`: `{"format_version":3,"checksum":"<16 hex>","payload":{…}}` and a line feed.
//!
//! The checksum is over the exact bytes of the payload, so the envelope's own text is fixed to the byte. From version 3 on,
//! its seed is the format version, so that a damaged number is not taken for another version.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::size::Sizes;
use super::{Metadata, MetadataError};

/// Format version that this host writes. It reads this and all earlier versions.
pub const FORMAT_VERSION: u32 = 3;

/// Size of `_metadata` in bytes, at most.
pub const METADATA_BYTES_MAX: u64 = 64 << 20;
/// Number of values in it outside of the entries of states, and of objects and arrays among them, at most: a value may take
/// some hundred bytes of memory, however short its text is.
const VALUES_MAX: u64 = 2 << 20;
const CONTAINERS_MAX: u64 = 256 << 10;
/// Number of values in the entries of states, at most: as many as fit in its bytes.
const VALUES_OF_STATES_MAX: u64 = 6 << 20;

const VERSION: &[u8] = b"{\"format_version\":";
const CHECKSUM: &[u8] = b",\"checksum\":\"";
const PAYLOAD: &[u8] = b"\",\"payload\":";
const END: &[u8] = b"}\n";

impl Metadata {
    /// Encodes `_metadata`; `path` is its name in errors.
    ///
    /// # Errors
    /// Returns [`MetadataError::Invalid`] with all problems if it is not valid, and [`MetadataError::TooLarge`] if it could
    /// not be read again.
    pub fn to_text(&self, path: &str) -> Result<String, MetadataError> {
        self.check(path)?;
        let payload = serde_json::to_string(self).map_err(|e| MetadataError::Malformed {
            path: path.to_owned(),
            reason: e.to_string(),
        })?;
        let text = seal(&payload);
        check_size(text.len(), payload.as_bytes(), path)?;
        Ok(text)
    }

    /// Decodes and checks the text of `_metadata`; `path` is its name in errors.
    ///
    /// # Errors
    /// - [`MetadataError::Truncated`] if the text ends too early.
    /// - [`MetadataError::Malformed`] if it is not a `_metadata` file.
    /// - [`MetadataError::NewerVersion`] if its format version is greater than [`FORMAT_VERSION`].
    /// - [`MetadataError::Damaged`] if its checksum is wrong.
    /// - [`MetadataError::TooLarge`] if it has more values than are read.
    /// - [`MetadataError::Invalid`] if its content is not valid.
    pub fn from_text(text: &[u8], path: &str) -> Result<Self, MetadataError> {
        let malformed = |reason: &str| MetadataError::Malformed {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let truncated = || MetadataError::Truncated {
            path: path.to_owned(),
            bytes: text.len(),
        };
        let rest = after(text, VERSION).map_err(|short| if short { truncated() } else { malformed(NOT_BEGUN) })?;
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (version, rest) = rest.split_at(digits);
        let version: u64 = match std::str::from_utf8(version).ok().and_then(|digits| digits.parse().ok()) {
            Some(version) => version,
            None if rest.is_empty() => return Err(truncated()),
            None => return Err(malformed("its format version is not a number")),
        };
        if !rest.is_empty() && version > u64::from(FORMAT_VERSION) {
            let path = path.to_owned();
            return Err(MetadataError::NewerVersion {
                path,
                found: version,
                supported: FORMAT_VERSION,
            });
        }
        let envelope = |short| {
            if short {
                truncated()
            } else {
                malformed("its envelope was changed")
            }
        };
        let rest = after(rest, CHECKSUM).map_err(envelope)?;
        if version == 0 {
            return Err(malformed("its format version is 0"));
        }
        let (expected, rest) = rest.split_at_checked(16).ok_or_else(truncated)?;
        let rest = after(rest, PAYLOAD).map_err(envelope)?;
        let payload = rest.strip_suffix(END).ok_or_else(truncated)?;
        let found = checksum(payload, version);
        if expected != found.as_bytes() {
            let (path, expected) = (path.to_owned(), String::from_utf8_lossy(expected).into_owned());
            return Err(MetadataError::Damaged { path, expected, found });
        }
        check_size(text.len(), payload, path)?;
        let metadata: Self = serde_json::from_slice(payload).map_err(|e| malformed(&e.to_string()))?;
        metadata.check(path)?;
        Ok(metadata)
    }

    fn check(&self, path: &str) -> Result<(), MetadataError> {
        let problems = self.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(MetadataError::Invalid {
                path: path.to_owned(),
                problems,
            })
        }
    }
}

/// Checks that the payload of a file of `bytes` bytes can be parsed in little memory.
fn check_size(bytes: usize, payload: &[u8], path: &str) -> Result<(), MetadataError> {
    let Sizes {
        containers,
        values,
        of_states,
    } = Sizes::of(payload);
    for (found, most, what) in [
        (bytes as u64, METADATA_BYTES_MAX, "bytes"),
        (values, VALUES_MAX, "values"),
        (containers, CONTAINERS_MAX, "objects and arrays"),
        (of_states, VALUES_OF_STATES_MAX, "values in the entries of states"),
    ] {
        if found > most {
            let path = path.to_owned();
            return Err(MetadataError::TooLarge {
                path,
                found,
                most,
                what,
            });
        }
    }
    Ok(())
}

/// Returns the text of a `_metadata` with this payload, of the current format version and with a correct checksum.
#[must_use]
pub fn seal(payload: &str) -> String {
    let checksum = checksum(payload.as_bytes(), u64::from(FORMAT_VERSION));
    format!("{{\"format_version\":{FORMAT_VERSION},\"checksum\":\"{checksum}\",\"payload\":{payload}}}\n")
}

/// Returns the XXH3-64 hash of a payload as 16 hex digits.
fn checksum(payload: &[u8], version: u64) -> String {
    let seed = if version < 3 { 0 } else { version };
    format!("{:016x}", xxh3_64_with_seed(payload, seed))
}

const NOT_BEGUN: &str = "expected {\"format_version\":… at its beginning";

/// Strips a fixed prefix. The error is true if the text ends within it.
fn after<'a>(text: &'a [u8], fixed: &[u8]) -> Result<&'a [u8], bool> {
    text.strip_prefix(fixed).ok_or_else(|| fixed.starts_with(text))
}
