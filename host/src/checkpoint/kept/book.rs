//! The known facts about a job's checkpoints on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regraft_model::id::CheckpointId;

use super::super::merge::Merged;
use super::super::retain::{Claim, Ledger};
use crate::savepoint::metadata::Metadata;

/// Checkpoints, rounds and merges by their stage, with the ledger of shared files.
pub(super) struct Book {
    pub(super) ledger: Ledger,
    /// `_metadata` of the completed checkpoints that are retained.
    pub(super) completed: BTreeMap<CheckpointId, Arc<Metadata>>,
    /// The newest checkpoint from which the state of the running job descends.
    pub(super) newest: Option<CheckpointId>,
    /// Checkpoints that are stored but not confirmed.
    pub(super) stored: BTreeMap<CheckpointId, Arc<Metadata>>,
    /// Rounds that are triggered but neither stored nor given up, with their bases.
    pub(super) rounds: BTreeMap<CheckpointId, Option<Arc<Metadata>>>,
    /// Unconfirmed rounds whose `_metadata` exists or may exist.
    ///
    /// After a crash a job may go on from one of them, so it is not deleted before there is a newer checkpoint to go on
    /// from.
    pub(super) unsure: BTreeSet<CheckpointId>,
    /// Merged files that no checkpoint refers to yet, by number.
    pub(super) merged: BTreeMap<u64, Arc<Merged>>,
    pub(super) next_merge: u64,
    /// Digests of the components in `shared/`.
    pub(super) modules: BTreeSet<String>,
}

impl Book {
    /// Returns the book of an empty directory, in which `retain` complete checkpoints will be kept.
    pub(super) fn new(retain: u32) -> Self {
        Self {
            ledger: Ledger::new(retain),
            completed: BTreeMap::new(),
            newest: None,
            stored: BTreeMap::new(),
            rounds: BTreeMap::new(),
            unsure: BTreeSet::new(),
            merged: BTreeMap::new(),
            next_merge: 1,
            modules: BTreeSet::new(),
        }
    }

    /// Marks a checkpoint for deletion.
    pub(super) fn forget(&mut self, id: CheckpointId) {
        self.completed.remove(&id);
        self.stored.remove(&id);
        self.ledger.discard(id);
        self.newest = self.newest.filter(|newest| *newest != id);
    }

    /// Records that a checkpoint was deleted. Returns true if it had claims.
    pub(super) fn gone(&mut self, id: CheckpointId) -> bool {
        self.unsure.remove(&id);
        self.ledger.gone(id);
        self.ledger.release(Claim::Round(id))
    }

    pub(super) fn newest(&self) -> Option<&Arc<Metadata>> {
        self.newest.and_then(|newest| self.completed.get(&newest))
    }

    /// Drops merged files that the newest checkpoint refers to, and those whose inputs are no longer in its chains.
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
