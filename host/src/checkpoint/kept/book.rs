//! What is known of a job's checkpoints on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regraft_model::id::CheckpointId;

use super::super::merge::Merged;
use super::super::retain::{Claim, Ledger};
use crate::savepoint::metadata::Metadata;

/// What is known of the disk.
pub(super) struct Book {
    pub(super) ledger: Ledger,
    /// What each completed checkpoint says, as long as it is retained.
    pub(super) completed: BTreeMap<CheckpointId, Arc<Metadata>>,
    /// The newest one that the state of the running job has in its past.
    pub(super) newest: Option<CheckpointId>,
    /// Those that are stored and not confirmed yet.
    pub(super) stored: BTreeMap<CheckpointId, Arc<Metadata>>,
    /// Rounds from their trigger until they are stored or given up, with what they are based on.
    pub(super) rounds: BTreeMap<CheckpointId, Option<Arc<Metadata>>>,
    /// Rounds that are being stored and are not wanted any more.
    pub(super) expired: BTreeSet<CheckpointId>,
    /// Rounds whose `_metadata` is there, or may be, and that are not confirmed. Whoever comes after a crash may go on from
    /// one, so it is not deleted before a newer checkpoint is there to go on from.
    pub(super) unsure: BTreeSet<CheckpointId>,
    /// Merged neighbours that are not in a checkpoint yet, by number.
    pub(super) merged: BTreeMap<u64, Arc<Merged>>,
    pub(super) next_merge: u64,
    /// Components that are there.
    pub(super) modules: BTreeSet<String>,
}

impl Book {
    /// Nothing is there. `retain` complete checkpoints are kept.
    pub(super) fn new(retain: u32) -> Self {
        Self {
            ledger: Ledger::new(retain),
            completed: BTreeMap::new(),
            newest: None,
            stored: BTreeMap::new(),
            rounds: BTreeMap::new(),
            expired: BTreeSet::new(),
            unsure: BTreeSet::new(),
            merged: BTreeMap::new(),
            next_merge: 1,
            modules: BTreeSet::new(),
        }
    }

    /// A checkpoint is to go.
    pub(super) fn forget(&mut self, id: CheckpointId) {
        self.completed.remove(&id);
        self.stored.remove(&id);
        self.ledger.discard(id);
        self.newest = self.newest.filter(|newest| *newest != id);
    }

    /// A checkpoint has been deleted. Answers whether it had claims.
    pub(super) fn gone(&mut self, id: CheckpointId) -> bool {
        self.unsure.remove(&id);
        self.ledger.gone(id);
        self.ledger.release(Claim::Round(id))
    }

    pub(super) fn newest(&self) -> Option<&Arc<Metadata>> {
        self.newest.and_then(|newest| self.completed.get(&newest))
    }

    /// Drops merged files that are in the newest checkpoint by now, and those whose neighbours no chain has any more.
    pub(super) fn forget_merged(&mut self) {
        let newest = self.newest().cloned();
        let is_of_use = |merged: &Merged| newest.as_ref().is_some_and(|newest| merged.has_place_in(newest));
        let useless = self.merged.values().filter(|merged| !is_of_use(merged));
        for number in useless.map(|merged| merged.number).collect::<Vec<_>>() {
            self.merged.remove(&number);
            self.ledger.release(Claim::Merge(number));
        }
    }
}
