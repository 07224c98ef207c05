//! The splits of a file source: the files that a glob matches, found through the file system that is handed in.
//!
//! The rules are those of the crate `glob`, which goes to the real file system itself: `**` stands for any directories, a
//! component without `*`, `?` and `[` for itself, links are followed. Names that are not UTF-8 are left out with a warning,
//! and a link to a directory that it is in leads nowhere.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glob::{MatchOptions, Pattern};

use super::input_error::InputError;
use super::settings::FileSource;
use crate::connector::source::SourceError;
use crate::environment::files::{FileId, FileInfo, FileKind, FileSystem};

/// A file that a glob matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The first of its paths.
    pub(super) path: Arc<str>,
    /// Facts about it.
    pub(super) info: FileInfo,
}

/// Returns all files that match, in order of path, each once, no matter how many names it has.
///
/// # Errors
/// As [`paths`] and [`look_at`].
pub(super) fn find(settings: &FileSource, files: &dyn FileSystem) -> Result<Vec<Found>, SourceError> {
    let mut known = HashSet::new();
    let mut found = vec![];
    let (paths, mut unnamed) = walk(settings, files, &AtomicBool::new(false))?;
    for path in paths {
        match look_at(&path, files)? {
            Some(info) if known.insert(info.id) => {
                let path = path.into();
                found.push(Found { path, info });
            }
            None if path.contains(char::REPLACEMENT_CHARACTER) => {
                unnamed.insert(path);
            }
            _ => {}
        }
    }
    for path in unnamed {
        tracing::warn!("{path} is left out: its name is not UTF-8; rename it to have it read");
    }
    Ok(found)
}

/// Returns the facts about a file; `None` if there is none at the path any more.
///
/// # Errors
/// Returns [`SourceError::Io`] if it cannot be looked at.
pub(super) fn look_at(path: &str, files: &dyn FileSystem) -> Result<Option<FileInfo>, SourceError> {
    let info = Walk::new(files).info(Path::new(path))?;
    Ok(info.filter(|info| info.kind == FileKind::File))
}

/// Returns true if a glob matches a path, by its text alone.
pub(super) fn matches(glob: &str, path: &Path) -> bool {
    let options = MatchOptions {
        require_literal_separator: true,
        ..MatchOptions::new()
    };
    Pattern::new(glob).is_ok_and(|pattern| pattern.matches_path_with(path, options))
}

/// Returns true if a glob can match a path: as [`matches`], and without parts that lead elsewhere or hide the file. So a path
/// that others have written stays within the glob.
pub(super) fn can_match(glob: &str, path: &str) -> bool {
    let parts = glob.split('/').filter(|part| part.starts_with('.'));
    let dotted: Vec<Pattern> = parts.filter_map(|part| Pattern::new(part).ok()).collect();
    let is_plain = !path.split('/').any(|part| matches!(part, "." | "..")) && !path.contains("//");
    is_plain && is_meant(Path::new(path), &dotted) && matches(glob, Path::new(path))
}

/// Returns a hint at characters of a path that look like more than they are; empty for none.
pub(super) fn hint(path: &str) -> String {
    let braces = path
        .find('{')
        .is_some_and(|at| path[at..].contains(',') && path[at..].contains('}'));
    let mut hints = vec![];
    if braces {
        hints.push("{a,b} has no meaning in a glob: write a source for each, or a pattern such as *");
    }
    if path.split('/').any(|part| part.starts_with('~')) {
        hints.push("~ is not expanded: write the home directory");
    }
    match hints.is_empty() {
        true => String::new(),
        false => format!(" ({})", hints.join("; ")),
    }
}

/// Returns the paths that match, sorted; there may be none. A `*` does not match a hidden name. Some may not be files.
///
/// # Errors
/// Returns [`InputError::Glob`], [`InputError::Directory`], or [`SourceError::Io`] for what cannot be looked at, or where the flag
/// has been set meanwhile.
pub(super) fn paths(
    settings: &FileSource,
    files: &dyn FileSystem,
    interrupt: &AtomicBool,
) -> Result<Vec<String>, SourceError> {
    Ok(walk(settings, files, interrupt)?.0)
}

/// Returns the paths as [`paths`] does, and the directories that cannot be entered, since their names are not UTF-8.
pub(super) fn walk(
    settings: &FileSource,
    files: &dyn FileSystem,
    interrupt: &AtomicBool,
) -> Result<(Vec<String>, BTreeSet<String>), SourceError> {
    let path = &settings.path;
    let steps = steps(path)?;
    let parts = path.split('/').filter(|part| part.starts_with('.'));
    let dotted: Vec<Pattern> = parts.filter_map(|part| Pattern::new(part).ok()).collect();
    let walk = Walk {
        interrupt: Some(interrupt),
        ..Walk::new(files)
    };
    let mut found = BTreeSet::new();
    let root = if path.starts_with('/') { "/" } else { "" };
    // A pattern that ends with a slash matches directories only.
    if !path.ends_with('/') {
        walk.go(Path::new(root), &steps, &mut vec![], &mut found)?;
    }
    let meant = found.iter().map(Path::new).filter(|path| is_meant(path, &dotted));
    let paths: Vec<String> = meant.map(|path| path.to_string_lossy().into_owned()).collect();
    if paths.len() <= 1 && walk.is_dir(Path::new(path))? {
        let path = path.trim_end_matches('/').to_owned();
        return Err(InputError::Directory { path }.into());
    }
    Ok((paths, walk.unnamed.into_inner()))
}

/// True if a match is meant. As in a shell, a `*` does not match the dot that hides a name: a file that is still being
/// written has one until it is renamed, and would vanish then.
fn is_meant(path: &Path, dotted: &[Pattern]) -> bool {
    path.iter().all(|name| {
        let name = name.to_string_lossy();
        !name.starts_with('.') || dotted.iter().any(|pattern| pattern.matches(&name))
    })
}

/// Number of ways that may lead to a directory below a `**`, over links.
const WAYS_MAX: u32 = 100;
/// Number of components that a glob may have.
const STEPS_MAX: usize = 256;

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
    if steps.len() > STEPS_MAX {
        return Err(InputError::Glob {
            path: format!("{}…", path.chars().take(80).collect::<String>()),
            message: format!("it has {} parts, expected at most {STEPS_MAX}", steps.len()),
        });
    }
    steps.dedup_by(|one, other| matches!((one, other), (Step::Below, Step::Below)));
    Ok(steps)
}

/// Goes through the directories that a glob names.
struct Walk<'a> {
    files: &'a dyn FileSystem,
    /// Ends the walk when it is set.
    interrupt: Option<&'a AtomicBool>,
    /// Number of times that each directory below a `**` has been entered.
    entered: RefCell<HashMap<FileId, u32>>,
    /// Directories whose names are not UTF-8.
    unnamed: RefCell<BTreeSet<String>>,
}

impl<'a> Walk<'a> {
    fn new(files: &'a dyn FileSystem) -> Self {
        Self {
            files,
            interrupt: None,
            entered: RefCell::default(),
            unnamed: RefCell::default(),
        }
    }

    /// Finds what the rest of a glob matches below `at`, which is empty for the current directory. `above`: the directories
    /// that `**` has been followed through on the way.
    fn go(
        &self,
        at: &Path,
        steps: &[Step],
        above: &mut Vec<FileId>,
        found: &mut BTreeSet<OsString>,
    ) -> Result<(), SourceError> {
        match steps {
            [] => {
                found.insert(at.as_os_str().to_owned());
            }
            [Step::Name(name), rest @ ..] => self.go(&at.join(name), rest, above, found)?,
            [step @ Step::Pattern(_), rest @ ..] => {
                for name in self.names(at)?.iter().filter(|name| step.matches(name)) {
                    self.go(&at.join(name), rest, above, found)?;
                }
            }
            // At the end it matches directories only.
            [Step::Below] => {}
            [Step::Below, next, rest @ ..] => {
                let Some(dir) = self.info(named(at))?.map(|info| info.id) else {
                    return Ok(());
                };
                if above.contains(&dir) {
                    return Ok(());
                }
                let mut entered = self.entered.borrow_mut();
                let ways = entered.entry(dir).or_default();
                *ways += 1;
                if *ways > WAYS_MAX {
                    return Err(InputError::Maze {
                        path: at.display().to_string(),
                        most: WAYS_MAX,
                    }
                    .into());
                }
                drop(entered);
                above.push(dir);
                for name in self.names(at)? {
                    let path = at.join(&name);
                    if next.matches(&name) {
                        self.go(&path, rest, above, found)?;
                    }
                    if self.is_dir(&path)? {
                        self.go(&path, steps, above, found)?;
                    } else if !next.matches(&name) {
                        self.note_unnamed(&path)?;
                    }
                }
                above.pop();
            }
        }
        Ok(())
    }

    /// Returns the names in a directory; none where it is not there or is none.
    fn names(&self, dir: &Path) -> Result<Vec<String>, SourceError> {
        let dir = named(dir);
        if self.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(io(dir, ErrorKind::Interrupted.into()));
        }
        match self.files.list(dir) {
            Err(error) if is_absent(&error) => {
                self.note_unnamed(dir)?;
                Ok(vec![])
            }
            names => names.map_err(|error| io(dir, error)),
        }
    }

    /// Remembers a path that was listed, if nothing is there since its name is not UTF-8.
    fn note_unnamed(&self, dir: &Path) -> Result<(), SourceError> {
        let text = dir.to_string_lossy();
        if text.contains(char::REPLACEMENT_CHARACTER) && self.info(dir)?.is_none() {
            self.unnamed.borrow_mut().insert(text.into_owned());
        }
        Ok(())
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

/// Returns the path of a directory, where an empty one stands for the current directory.
fn named(dir: &Path) -> &Path {
    match dir.as_os_str().is_empty() {
        true => Path::new("."),
        false => dir,
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
