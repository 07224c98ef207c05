//! Conversions between plain paths and URLs of locations.

use std::path::{Component, Path, PathBuf};

use super::StoreError;

/// Converts a plain path or a `file:` URL to an absolute path without `.` and `..`.
///
/// # Errors
/// - [`StoreError::UnsupportedScheme`] if it is a URL of another scheme.
/// - [`StoreError::InvalidLocation`] if it is empty, or a URL that is relative or wrongly percent-encoded.
pub(super) fn local_path(location: &str) -> Result<PathBuf, StoreError> {
    let invalid = |reason: &str| StoreError::InvalidLocation {
        location: location.into(),
        reason: reason.into(),
    };
    if location.is_empty() {
        return Err(invalid("it is empty"));
    }
    let path = match scheme(location) {
        None => PathBuf::from(location),
        Some(scheme) if scheme.eq_ignore_ascii_case("file") => {
            let rest = location.get(scheme.len() + 1..).unwrap_or_default();
            let rest = rest
                .strip_prefix("//localhost/")
                .map_or(rest, |_| &rest["//localhost".len()..]);
            let rest = rest.strip_prefix("//").unwrap_or(rest);
            if !rest.starts_with('/') {
                return Err(invalid("a file URL needs an absolute path"));
            }
            PathBuf::from(percent_decode(rest).ok_or_else(|| invalid("a % in a URL needs two hex digits after it"))?)
        }
        Some(scheme) => {
            return Err(StoreError::UnsupportedScheme {
                location: location.into(),
                scheme: scheme.into(),
            });
        }
    };
    let absolute = std::path::absolute(&path).map_err(|e| invalid(&e.to_string()))?;
    Ok(without_dots(&absolute))
}

/// Returns the part before `://` (or the `file` of `file:/`), if it has the form of a scheme.
fn scheme(location: &str) -> Option<&str> {
    let (scheme, rest) = location.split_once(':')?;
    let letters = scheme
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && letters;
    (named && (rest.starts_with("//") || (scheme.eq_ignore_ascii_case("file") && rest.starts_with('/'))))
        .then_some(scheme)
}

/// Removes `.` and `..` as the file system does: behind a symbolic link, `..` is the parent of the link's target.
fn without_dots(path: &Path) -> PathBuf {
    let mut built = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                built = built.canonicalize().unwrap_or(built);
                built.pop();
            }
            other => built.push(other),
        }
    }
    built
}

/// Returns the URL of an absolute path.
pub(super) fn file_url(path: &str) -> String {
    use std::fmt::Write;
    let mut url = String::from("file://");
    if !path.starts_with('/') {
        url.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (
                char::from(rest.next()?).to_digit(16)?,
                char::from(rest.next()?).to_digit(16)?,
            );
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
