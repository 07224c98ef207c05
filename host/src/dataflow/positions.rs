//! The positions of a source in snapshots: all of them, or only those that have changed since an earlier snapshot.
//!
//! A subtask with few splits gives all positions each time, and they are listed in `_metadata`.
//! One with many gives increments, as keyed state does (`docs/design/0007-what-has-changed.md` has the generations),
//! so that a checkpoint of idle splits costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use regraft_model::id::CheckpointId;

use super::control::Positions;
use crate::connector::source::SourceReader;
use crate::state::mark::{Marks, Stamp};

/// The splits of one subtask that have changed of late, and the rounds that may become bases.
#[derive(Debug)]
pub struct PositionLog {
    /// Number of splits up to which all positions are listed.
    listed_most: usize,
    marks: Marks,
    /// Splits that have changed, come or gone since the oldest possible base, with the stamp of their last change.
    changed: BTreeMap<Arc<str>, Stamp>,
}

impl PositionLog {
    /// Returns the log of a subtask that has not taken a snapshot yet and lists the positions of up to `listed_most` splits.
    #[must_use]
    pub fn new(listed_most: usize) -> Self {
        Self {
            listed_most,
            marks: Marks::default(),
            changed: BTreeMap::new(),
        }
    }

    /// Returns the positions at the barrier of a round. `base`: a completed round that they may be an increment to.
    pub fn snapshot(
        &mut self,
        reader: &mut dyn SourceReader,
        round: CheckpointId,
        base: Option<CheckpointId>,
    ) -> Positions {
        let now = self.marks.now();
        let changed = reader.changed().into_iter().map(|split| (split, now));
        self.changed.extend(changed);
        if reader.split_count() <= self.listed_most {
            self.marks.forget();
            self.changed.clear();
            return Positions::Listed(reader.snapshot());
        }
        let (base, from) = self.marks.begin(round, base, 0, 0);
        let (mut splits, mut removed) = (vec![], vec![]);
        match base {
            None => splits = reader.snapshot(),
            Some(_) => {
                for (split, _) in self.changed.iter().filter(|(_, stamp)| **stamp >= from) {
                    match reader.position(split) {
                        Some(state) => splits.push(state),
                        None => removed.push(split.clone()),
                    }
                }
            }
        }
        let settled = self.marks.settled();
        self.changed.retain(|_, stamp| *stamp >= settled);
        Positions::Filed { base, splits, removed }
    }

    /// Records that the round is durable, so that it may be a base.
    pub fn completed(&mut self, round: CheckpointId) {
        self.marks.completed(round);
    }

    /// Records that the round was given up.
    pub fn aborted(&mut self, round: CheckpointId) {
        self.marks.aborted(round);
    }
}

#[cfg(test)]
mod tests;
