//! The data directory of the host: checkpoints, compiled modules, compiled dependencies of guests, records of running jobs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment does not determine a data directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no data directory: REGRAFT_DATA, XDG_DATA_HOME and HOME are all unset; set REGRAFT_DATA=DIRECTORY")]
pub struct DataDirError;

/// Returns `$REGRAFT_DATA`, else `${XDG_DATA_HOME:-~/.local/share}/regraft`, as an absolute path.
///
/// The directory need not exist.
/// Empty variables, and a relative `XDG_DATA_HOME`, count as unset.
///
/// # Errors
/// Returns [`DataDirError`] if none of `REGRAFT_DATA`, `XDG_DATA_HOME` and `HOME` is set.
pub fn data_dir() -> Result<PathBuf, DataDirError> {
    let current = std::env::current_dir().unwrap_or_default();
    resolve(|name| std::env::var_os(name), &current)
}

fn resolve(variable: impl Fn(&str) -> Option<OsString>, current: &Path) -> Result<PathBuf, DataDirError> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = path("REGRAFT_DATA") {
        return Ok(current.join(dir));
    }
    // The XDG Base Directory specification requires relative paths to be ignored.
    let share = path("XDG_DATA_HOME").filter(|dir| dir.is_absolute());
    let share = share.or_else(|| path("HOME").map(|home| home.join(".local/share")));
    share.map(|share| share.join("regraft")).ok_or(DataDirError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(variables: &[(&str, &str)]) -> Result<PathBuf, DataDirError> {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        resolve(find, Path::new("/cwd"))
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let all = [
            ("REGRAFT_DATA", "/data"),
            ("XDG_DATA_HOME", "/xdg"),
            ("HOME", "/home/a"),
        ];
        assert_eq!(resolved(&all), Ok("/data".into()));
        assert_eq!(resolved(&all[1..]), Ok("/xdg/regraft".into()));
        assert_eq!(resolved(&all[2..]), Ok("/home/a/.local/share/regraft".into()));
        assert_eq!(resolved(&[("REGRAFT_DATA", "data")]), Ok("/cwd/data".into()));
        assert_eq!(
            resolved(&[("REGRAFT_DATA", ""), ("XDG_DATA_HOME", "x"), ("HOME", "/h")]),
            Ok("/h/.local/share/regraft".into())
        );
        assert_eq!(
            resolved(&[]).unwrap_err().to_string(),
            "no data directory: REGRAFT_DATA, XDG_DATA_HOME and HOME are all unset; set REGRAFT_DATA=DIRECTORY"
        );
    }
}
