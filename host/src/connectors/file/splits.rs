//! The splits of a file source: the files that a glob matches, found through the file system that is handed in.
//!
//! The rules are those of the crate `glob`, which goes to the real file system itself: `**` stands for any directories, a
//! component without `*`, `?` and `[` for itself, links are followed. Names that are not UTF-8 are left out.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use glob::Pattern;

use super::settings::FileSource;
use crate::connector::source::SourceError;
use crate::environment::files::{FileInfo, FileKind, FileSystem};

/// A reason why the files that a source names cannot be its input.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Nothing matches.
    #[error("no file matches {path}; expected at least one; check the path, or use mode = \"watch\" to wait for files")]
    NothingMatches {
        /// The glob.
        path: String,
    },
    /// A directory where files are expected.
    #[error("{path} is a directory; to read the files in it, write {path}/*")]
    Directory {
        /// The directory.
        path: String,
    },
    /// A glob that cannot be parsed.
    #[error("{path} is not a glob: {message}")]
    Glob {
        /// The glob.
        path: String,
        /// The parser's message.
        message: String,
    },
    /// A file that had been read from is gone.
    #[error(
        "{path} has vanished: it was read to byte {offset}; put it back, or drop the source's state with --drop-state"
    )]
    Vanished {
        /// The file.
        path: String,
        /// Position up to which it was read, in bytes.
        offset: u64,
    },
    /// A file is shorter than what was read of it.
    #[error(
        "{path} has shrunk: it was read to byte {offset}, and has {len} bytes; put the old content back, or drop the source's state with --drop-state"
    )]
    Shrunk {
        /// The file.
        path: String,
        /// Position up to which it was read, in bytes.
        offset: u64,
        /// Its length now, in bytes.
        len: u64,
    },
}

impl From<InputError> for SourceError {
    fn from(error: InputError) -> Self {
        let (InputError::NothingMatches { path }
        | InputError::Directory { path }
        | InputError::Glob { path, .. }
        | InputError::Vanished { path, .. }
        | InputError::Shrunk { path, .. }) = &error;
        Self::Input {
            path: path.clone(),
            error: Box::new(error),
        }
    }
}

/// Returns the names of all files that match, sorted; there may be none. A `*` does not match a hidden file.
///
/// # Errors
/// [`InputError::Glob`], [`InputError::Directory`], or [`SourceError::Io`] of what cannot be looked at.
pub(super) fn list(settings: &FileSource, files: &dyn FileSystem) -> Result<Vec<String>, SourceError> {
    let path = &settings.path;
    let steps = steps(path)?;
    let parts = path.split('/').filter(|part| part.starts_with('.'));
    let dotted: Vec<Pattern> = parts.filter_map(|part| Pattern::new(part).ok()).collect();
    let walk = Walk { files };
    let mut found = BTreeSet::new();
    let root = if path.starts_with('/') { "/" } else { "" };
    // A pattern that ends with a slash matches directories only.
    if !path.ends_with('/') {
        walk.go(Path::new(root), &steps, &mut found)?;
    }
    let mut names = vec![];
    for path in found.into_iter().filter(|path| is_meant(path, &dotted)) {
        if walk.info(&path)?.is_some_and(|info| info.kind == FileKind::File) {
            names.push(path.to_string_lossy().into_owned());
        }
    }
    names.sort();
    if names.is_empty() && walk.is_dir(Path::new(path))? {
        let path = path.trim_end_matches('/').to_owned();
        return Err(InputError::Directory { path }.into());
    }
    Ok(names)
}

/// True if a match is meant. As in a shell, a `*` does not match the dot that hides a name: a file that is still being
/// written has one until it is renamed, and would vanish then.
fn is_meant(path: &Path, dotted: &[Pattern]) -> bool {
    path.iter().all(|name| {
        let name = name.to_string_lossy();
        !name.starts_with('.') || dotted.iter().any(|pattern| pattern.matches(&name))
    })
}

/// One component of a glob.
#[derive(Debug)]
enum Step {
    /// A name that stands for itself.
    Name(String),
    /// Names in one directory.
    Pattern(Pattern),
    /// `**`: any number of directories.
    Below,
}

impl Step {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Pattern(pattern) => pattern.matches(name),
            Self::Below => false,
        }
    }
}

fn steps(path: &str) -> Result<Vec<Step>, InputError> {
    let refused = |error: glob::PatternError| InputError::Glob {
        path: path.to_owned(),
        message: error.to_string(),
    };
    Pattern::new(path).map_err(refused)?;
    let step = |component: &str| {
        if component == "**" {
            return Ok(Step::Below);
        }
        let pattern = Pattern::new(component).map_err(refused)?;
        Ok(match component.contains(['*', '?', '[']) {
            true => Step::Pattern(pattern),
            false => Step::Name(component.to_owned()),
        })
    };
    let mut steps: Vec<Step> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(step)
        .collect::<Result<_, _>>()?;
    steps.dedup_by(|one, other| matches!((one, other), (Step::Below, Step::Below)));
    Ok(steps)
}

/// Goes through the directories that a glob names.
struct Walk<'a> {
    files: &'a dyn FileSystem,
}

impl Walk<'_> {
    /// Finds what the rest of a glob matches below `at`, which is empty for the current directory.
    fn go(&self, at: &Path, steps: &[Step], found: &mut BTreeSet<PathBuf>) -> Result<(), SourceError> {
        match steps {
            [] => {
                found.insert(at.to_owned());
            }
            [Step::Name(name), rest @ ..] => self.go(&at.join(name), rest, found)?,
            [step @ Step::Pattern(_), rest @ ..] => {
                for name in self.names(at)?.iter().filter(|name| step.matches(name)) {
                    self.go(&at.join(name), rest, found)?;
                }
            }
            // At the end it matches directories only.
            [Step::Below] => {}
            [Step::Below, next, rest @ ..] => {
                for name in self.names(at)? {
                    let path = at.join(&name);
                    if next.matches(&name) {
                        self.go(&path, rest, found)?;
                    }
                    if self.is_dir(&path)? {
                        self.go(&path, steps, found)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the names in a directory; none where it is not there or is none.
    fn names(&self, dir: &Path) -> Result<Vec<String>, SourceError> {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        match self.files.list(dir) {
            Err(error) if is_absent(&error) => Ok(vec![]),
            names => names.map_err(|error| io(dir, error)),
        }
    }

    fn is_dir(&self, path: &Path) -> Result<bool, SourceError> {
        Ok(self.info(path)?.is_some_and(|info| info.kind == FileKind::Dir))
    }

    /// Looks at what is at a path; `None` where nothing is.
    fn info(&self, path: &Path) -> Result<Option<FileInfo>, SourceError> {
        match self.files.info(path) {
            Ok(info) => Ok(Some(info)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(io(path, error)),
        }
    }
}

/// True if there is nothing of that name: also a link that leads nowhere, or in a circle.
fn is_absent(error: &Error) -> bool {
    let is_loop = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_loop || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn io(path: &Path, error: Error) -> SourceError {
    SourceError::Io {
        path: path.display().to_string(),
        error,
    }
}
