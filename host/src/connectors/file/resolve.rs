//! Finds the files of saved positions among those that are there now.
//!
//! A file is looked for by its identity, then by its path, then by its content; each candidate must have the fingerprint.
//! So a file that was renamed, copied or moved with its directory goes on, and another file at an old path does not.
//! Positions may come from anyone, so a path in one is only compared: nothing is opened or looked at that the source's own
//! glob does not match. See `docs/design/0016-file-identity.md`.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::input_error::{InputError, ReadError, io_error};
use super::open_file::OpenFile;
use super::position::{Known, Position, fingerprint};
use super::settings::{FileSource, OnTruncate};
use super::splits::{Found, can_match, find, look_at};
use crate::connector::source::{Assigned, SourceError, SplitState};
use crate::environment::files::{FileId, FileInfo, FileSystem};

/// Number of files that are opened, at most, to find those of saved positions by their content.
const COMPARED_MOST: usize = 1_000_000;

/// A split: the path of its file, and the position in it.
pub(super) type Split = (Arc<str>, Position);

/// Returns the splits that there are now, in order of their paths: those of the saved positions, and new ones.
///
/// # Errors
/// Returns the reason why a file that was read from cannot be read on, or the system's error.
pub(super) fn assign(
    settings: &FileSource,
    files: &dyn FileSystem,
    saved: &[SplitState],
) -> Result<Vec<Assigned>, SourceError> {
    let parse = |saved: &SplitState| -> Result<Split, SourceError> {
        let position = Position::parse(&saved.split, &saved.position)?;
        let path = saved.position["path"].as_str().unwrap_or(&saved.split);
        Ok((path.into(), position))
    };
    let saved: Vec<Split> = saved.iter().map(parse).collect::<Result<_, _>>()?;
    let resolve = || -> Result<Vec<Split>, ReadError> { Candidates::new(settings, files)?.resolve(&saved) };
    let mut splits = resolve();
    // A file that is renamed during a listing may be missing in it.
    let is_missing = |error: &InputError| {
        matches!(
            error,
            InputError::Vanished { .. } | InputError::Outside { .. } | InputError::Replaced { .. }
        )
    };
    if matches!(&splits, Err(ReadError::Input(error)) if is_missing(error)) {
        splits = resolve();
    }
    let mut splits = splits?;
    splits.sort_by(|a, b| a.0.cmp(&b.0));
    let assigned = |(path, position): Split| (path.to_string(), Some(position.to_json()));
    Ok(splits.into_iter().map(assigned).collect())
}

/// Gives a split a name of its own, where another subtask has one of the same name: a file that was renamed and the new one at
/// its old path have the same path until both subtasks have looked again.
pub(super) fn tell_apart(split: &mut String, position: &mut Value) {
    if let Ok(Position { file: Some(file), .. }) = Position::parse(split, position) {
        let id = file.info.id;
        if position.get("path").is_none() {
            position["path"] = json!(split);
        }
        *split = apart(position["path"].as_str().unwrap_or(split), id);
    }
}

/// Returns a name for a file whose path another one has.
pub(super) fn apart(path: &str, id: FileId) -> String {
    format!("{path} ({:x}.{:x})", id.device, id.inode)
}

/// Returns the position at the start of a file that was listed.
pub(super) fn start_of(info: FileInfo) -> Position {
    Position {
        file: Some(Known {
            info: unread(info),
            fingerprint: fingerprint(&[], &[]),
        }),
        ..Position::START
    }
}

/// Finds the file at a path for a position that has no identity yet, which takes that of the file; `None` if nothing was
/// read of it and it is not there.
///
/// # Errors
/// Returns the reason why the file cannot be read on, or the system's error.
pub(super) fn identify(path: &Arc<str>, at: Position, files: &dyn FileSystem) -> Result<Option<Position>, ReadError> {
    match look_at(path, files)? {
        Some(info) => check(path, info, at, files).map(Some),
        None if at.offset == 0 => Ok(None),
        None => {
            let (path, offset) = (path.to_string(), at.offset);
            Err(InputError::Vanished { path, offset }.into())
        }
    }
}

/// Checks that what was read of a file is still there, and returns the position in it with its identity.
fn check(path: &Arc<str>, info: FileInfo, at: Position, files: &dyn FileSystem) -> Result<Position, ReadError> {
    if at.offset == 0 {
        return Ok(start_of(info));
    }
    let opened = files.open(Path::new(&**path)).map_err(|error| io_error(path, error))?;
    let checked = OpenFile::new(path.clone(), opened, at)?.position();
    let file = checked.file.map(|known| Known {
        info: unread(known.info),
        ..known
    });
    Ok(Position { file, ..at })
}

/// Returns the facts about a file as if it had changed since, so that it is looked at before it is left alone. Its length
/// stays: what is not read of it must not get lost.
fn unread(info: FileInfo) -> FileInfo {
    FileInfo {
        modified_ns: 0,
        changed_ns: 0,
        ..info
    }
}

/// The files that there are now, and which of them a saved position has claimed.
struct Candidates<'a> {
    settings: &'a FileSource,
    files: &'a dyn FileSystem,
    listed: Vec<Found>,
    by_id: HashMap<FileId, usize>,
    by_path: HashMap<Arc<str>, usize>,
    claimed: HashSet<usize>,
    /// Number of files that may still be compared by their content.
    compared_left: usize,
}

impl<'a> Candidates<'a> {
    fn new(settings: &'a FileSource, files: &'a dyn FileSystem) -> Result<Self, SourceError> {
        let listed = find(settings, files)?;
        let numbered = || listed.iter().enumerate();
        Ok(Self {
            settings,
            files,
            by_id: numbered().map(|(at, found)| (found.info.id, at)).collect(),
            by_path: numbered().map(|(at, found)| (found.path.clone(), at)).collect(),
            claimed: HashSet::new(),
            compared_left: COMPARED_MOST,
            listed,
        })
    }

    fn resolve(mut self, saved: &[Split]) -> Result<Vec<Split>, ReadError> {
        let mut splits = vec![];
        let mut missing: Vec<&Split> = saved.iter().collect();
        // A file is claimed by its identity before another split takes it for its path, and so on.
        for find in [Self::by_id, Self::by_path, Self::by_content] {
            for split in std::mem::take(&mut missing) {
                match find(&mut self, split)? {
                    Some(found) => splits.push(found),
                    None => missing.push(split),
                }
            }
        }
        for split in missing {
            if let Some(gone) = self.gone(split)? {
                if self.settings.on_truncate == OnTruncate::Fail {
                    return Err(gone.into());
                }
                tracing::warn!("{gone}: on-truncate = \"restart\" goes on without it");
            }
            // It may have been renamed during the listing: the reader knows it again, or finds that it is gone.
            let at = self.at_path(&split.0)?.map(|at| self.listed[at].path.clone());
            let path = at.unwrap_or_else(|| split.0.clone());
            if self.settings.watch && split.1.offset > 0 && split.1.file.is_some() && self.is_own(&path) {
                splits.push((path, split.1));
            }
        }
        let new = self
            .listed
            .iter()
            .enumerate()
            .filter(|(at, _)| !self.claimed.contains(at));
        splits.extend(new.map(|(_, found)| (found.path.clone(), start_of(found.info))));
        Ok(splits)
    }

    /// Finds a file by its identity.
    fn by_id(&mut self, split: &Split) -> Result<Option<Split>, ReadError> {
        let (path, position) = split;
        let at = position.file.and_then(|file| self.by_id.get(&file.info.id).copied());
        let is_here = at.is_some() && at == self.at_path(path)?;
        // Elsewhere, its inode has been used again if it has other content.
        at.map_or(Ok(None), |at| self.claim(at, *position, is_here))
    }

    /// Finds a file by its path.
    fn by_path(&mut self, split: &Split) -> Result<Option<Split>, ReadError> {
        let (path, position) = split;
        let at = self.at_path(path)?;
        at.map_or(Ok(None), |at| self.claim(at, *position, position.file.is_none()))
    }

    /// Claims a file for a split, unless it is claimed or has other content. `is_it`: the split has no other file.
    fn claim(&mut self, at: usize, position: Position, is_it: bool) -> Result<Option<Split>, ReadError> {
        if self.claimed.contains(&at) {
            return Ok(None);
        }
        let Found { path, info } = self.listed[at].clone();
        let position = match check_known(&path, info, position, self.files) {
            Err(ReadError::Input(_)) if !is_it => return Ok(None),
            Err(ReadError::Input(error)) if self.settings.on_truncate == OnTruncate::Restart => {
                tracing::warn!("{error}: on-truncate = \"restart\" reads it again");
                start_of(info)
            }
            checked => checked?,
        };
        self.claimed.insert(at);
        Ok(Some((path, position)))
    }

    /// Finds a file that has the content that was read.
    fn by_content(&mut self, split: &Split) -> Result<Option<Split>, ReadError> {
        let (_, position) = split;
        if position.offset == 0 || position.file.is_none() {
            return Ok(None);
        }
        for at in 0..self.listed.len() {
            if self.compared_left == 0 {
                return Ok(None);
            }
            if self.claimed.contains(&at) || self.listed[at].info.len < position.offset {
                continue;
            }
            self.compared_left -= 1;
            if let Some(found) = self.claim(at, *position, false)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns the reason why a file that was not found is needed; `None` if nothing of it can be missed.
    fn gone(&self, (path, position): &Split) -> Result<Option<InputError>, SourceError> {
        let Position { offset, file, .. } = *position;
        if offset == 0 {
            return Ok(None);
        }
        let name = path.to_string();
        if self.at_path(path)?.is_none() {
            if !self.is_own(path) {
                let glob = self.settings.path.clone();
                return Ok(Some(InputError::Outside { path: name, glob }));
            }
            return Ok(Some(InputError::Vanished { path: name, offset }));
        }
        let len = file.map_or(offset, |file| file.info.len);
        let path = name;
        Ok((len > offset).then_some(InputError::Replaced { path, offset, len }))
    }

    /// Returns true if the glob of the source can match a path.
    fn is_own(&self, path: &str) -> bool {
        can_match(&self.settings.path, path)
    }

    /// Returns the number of the file at a path; where the glob is relative to the job file, also of the file at the same
    /// path relative to where the job file is now.
    fn at_path(&self, path: &Arc<str>) -> Result<Option<usize>, SourceError> {
        if let Some(at) = self.by_path.get(path) {
            return Ok(Some(*at));
        }
        // It may be another name of a file that is listed under its first one.
        if self.is_own(path)
            && let Some(info) = look_at(path, self.files)?
            && let Some(at) = self.by_id.get(&info.id)
        {
            return Ok(Some(*at));
        }
        let Some((_, base)) = &self.settings.relative else {
            return Ok(None);
        };
        let tails = path.match_indices('/').map(|(at, _)| &path[at + 1..]);
        let moved = tails.map(|tail| base.join(tail).to_string_lossy().into_owned());
        let at = moved.filter_map(|path| self.by_path.get(path.as_str())).next();
        Ok(at.copied())
    }
}

/// Checks a candidate; one that has not changed since it was read needs no opening.
fn check_known(path: &Arc<str>, info: FileInfo, at: Position, files: &dyn FileSystem) -> Result<Position, ReadError> {
    match at.file {
        Some(known) if known.info == info => Ok(at),
        _ => check(path, info, at, files),
    }
}
