//! One look of a watching source at the files that its glob matches.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::AtomicBool;

use super::settings::FileSource;
use super::splits::{Found, look_at, paths};
use crate::connector::source::SourceError;
use crate::environment::files::{FileId, FileSystem};

/// Number of files that are asked about in one go: this holds up a barrier for some milliseconds.
const FILES_AT_ONCE: usize = 2048;

/// A look that is under way.
#[derive(Debug)]
pub(super) struct Look {
    /// Paths that have not been asked about yet, in order.
    paths: VecDeque<String>,
    /// Files that were found, which may have several paths.
    found: HashSet<FileId>,
    /// Files that are to be read.
    pub(super) round: VecDeque<FileId>,
}

impl Look {
    /// Lists the paths, unless the flag is set before it has.
    ///
    /// # Errors
    /// As [`paths`].
    pub(super) fn new(
        settings: &FileSource,
        files: &dyn FileSystem,
        interrupt: &AtomicBool,
    ) -> Result<Self, SourceError> {
        Ok(Self {
            paths: paths(settings, files, interrupt)?.into(),
            found: HashSet::new(),
            round: VecDeque::new(),
        })
    }

    /// Returns the files at the next paths, each with the first of its paths.
    ///
    /// # Errors
    /// As [`look_at`].
    pub(super) fn next(&mut self, files: &dyn FileSystem) -> Result<Vec<Found>, SourceError> {
        let mut next = vec![];
        for _ in 0..FILES_AT_ONCE {
            let Some(path) = self.paths.pop_front() else { break };
            if let Some(info) = look_at(&path, files)?
                && self.found.insert(info.id)
            {
                let path = path.into();
                next.push(Found { path, info });
            }
        }
        Ok(next)
    }

    /// True if no file was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// True if all paths have been asked about.
    pub(super) fn is_over(&self) -> bool {
        self.paths.is_empty()
    }
}
