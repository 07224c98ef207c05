//! Decides which checkpoints and shared files of a job are kept, and which may be deleted.
//!
//! Pure: the caller reports what was done and asks what to do.
//! A shared file is kept as long as a retained checkpoint refers to it, or it is claimed: by a round that is based on
//! it, or by a merge that reads or has written it.
//! A file without a reference or claim is deleted, but only if it was reported before.

use std::collections::{BTreeMap, BTreeSet};

use regraft_model::id::CheckpointId;

/// Names of shared files.
pub type Names = BTreeSet<String>;

/// The owner of a claim on files that no retained checkpoint refers to, or might soon not refer to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A round from its trigger until it is complete or given up.
    Round(CheckpointId),
    /// The merge with this number, until its result is in a complete checkpoint or dropped.
    Merge(u64),
    /// The components that the job runs.
    Modules,
}

/// The completed checkpoints of a job, and the files they share.
#[derive(Debug)]
pub struct Ledger {
    retain: usize,
    completed: BTreeMap<CheckpointId, Names>,
    /// Checkpoints that are to be deleted, or of which only a part has been.
    retired: BTreeSet<CheckpointId>,
    /// Those of them whose deletion has failed.
    not_gone: BTreeSet<CheckpointId>,
    claims: BTreeMap<Claim, Names>,
    /// Every shared file that may exist.
    files: Names,
}

/// The checkpoints and files to delete: first `_metadata` of the checkpoints, then the rest of them, then the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// Whole checkpoints.
    pub checkpoints: Vec<CheckpointId>,
    /// Shared files.
    pub files: Vec<String>,
}

impl Ledger {
    /// Returns an empty ledger that retains `retain` completed checkpoints, but at least one.
    #[must_use]
    pub fn new(retain: u32) -> Self {
        Self {
            retain: (retain as usize).max(1),
            completed: BTreeMap::new(),
            retired: BTreeSet::new(),
            not_gone: BTreeSet::new(),
            claims: BTreeMap::new(),
            files: Names::new(),
        }
    }

    /// Records that a shared file was found or is about to be written.
    pub fn may_exist(&mut self, file: &str) {
        self.files.insert(file.to_owned());
    }

    /// Adds files to those of a claim.
    pub fn claim(&mut self, claim: Claim, files: impl IntoIterator<Item = String>) {
        self.claims.entry(claim).or_default().extend(files);
    }

    /// Releases a claim. Returns true if it existed.
    pub fn release(&mut self, claim: Claim) -> bool {
        self.claims.remove(&claim).is_some()
    }

    /// Records that a checkpoint is complete and refers to these files.
    pub fn completed(&mut self, id: CheckpointId, files: Names) {
        self.files.extend(files.iter().cloned());
        // It may have been retired, failed to be deleted, and become the one that the job goes on from.
        self.gone(id);
        self.completed.insert(id, files);
    }

    /// Retires a checkpoint that is invalid or incomplete.
    pub fn discard(&mut self, id: CheckpointId) {
        self.completed.remove(&id);
        self.retired.insert(id);
    }

    /// Returns the completed checkpoints that are kept, in order.
    pub fn retained(&self) -> impl DoubleEndedIterator<Item = CheckpointId> {
        self.completed.keys().copied()
    }

    /// Retires all but the newest checkpoints, and returns what to delete.
    ///
    /// Anything that was not reported as [`gone`](Self::gone) is returned again.
    pub fn retire(&mut self) -> Retired {
        while self.completed.len() > self.retain
            && let Some((oldest, _)) = self.completed.pop_first()
        {
            self.retired.insert(oldest);
        }
        let needed: BTreeSet<&String> = self.needed().collect();
        let unneeded = self.files.iter().filter(|file| !needed.contains(file));
        Retired {
            checkpoints: self.retired.iter().copied().collect(),
            files: unneeded.cloned().collect(),
        }
    }

    fn needed(&self) -> impl Iterator<Item = &String> {
        self.completed.values().chain(self.claims.values()).flatten()
    }

    /// Returns true if a retained checkpoint or a claim needs the file.
    #[must_use]
    pub fn is_needed(&self, file: &str) -> bool {
        self.needed().any(|needed| needed == file)
    }

    /// Records that a checkpoint was deleted entirely.
    pub fn gone(&mut self, id: CheckpointId) {
        self.retired.remove(&id);
        self.not_gone.remove(&id);
    }

    /// Records that a checkpoint could not be deleted, or not yet.
    pub fn not_gone(&mut self, id: CheckpointId) {
        if self.retired.contains(&id) {
            self.not_gone.insert(id);
        }
    }

    /// Returns the number of checkpoints that are to be deleted and whose deletion has not failed.
    #[must_use]
    pub fn to_be_removed(&self) -> usize {
        self.completed.len().saturating_sub(self.retain) + self.retired.len() - self.not_gone.len()
    }

    /// Records that a shared file was deleted.
    pub fn file_gone(&mut self, file: &str) {
        self.files.remove(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(files: &[u8]) -> Names {
        files.iter().map(|file| format!("f{file}")).collect()
    }

    fn ids(retired: &Retired) -> Vec<u64> {
        retired.checkpoints.iter().map(|id| id.0).collect()
    }

    #[test]
    fn a_file_goes_with_the_last_checkpoint_that_refers_to_it() {
        let mut ledger = Ledger::new(2);
        ledger.completed(CheckpointId(1), names(&[1]));
        ledger.completed(CheckpointId(2), names(&[1, 2]));
        assert_eq!(ledger.retire(), Retired::default());
        ledger.completed(CheckpointId(3), names(&[2, 3]));
        let retired = ledger.retire();
        assert_eq!((ids(&retired), retired.files), (vec![1], vec![]), "2 refers to file 1");
        ledger.gone(CheckpointId(1));
        ledger.completed(CheckpointId(4), names(&[3]));
        let retired = ledger.retire();
        assert_eq!((ids(&retired), &*retired.files), (vec![2], &["f1".to_owned()][..]));
        // A failed delete is requested again.
        assert_eq!(ledger.to_be_removed(), 1);
        ledger.not_gone(CheckpointId(2));
        assert_eq!((ledger.retire(), ledger.to_be_removed()), (retired, 0));
        ledger.gone(CheckpointId(2));
        ledger.file_gone("f1");
        assert_eq!(ledger.retire(), Retired::default());
        assert_eq!(
            ledger.retained().collect::<Vec<_>>(),
            [CheckpointId(3), CheckpointId(4)]
        );
    }

    #[test]
    fn one_that_was_given_up_and_is_gone_on_from_stays() {
        let mut ledger = Ledger::new(2);
        ledger.completed(CheckpointId(1), names(&[1]));
        ledger.discard(CheckpointId(2));
        assert_eq!(ids(&ledger.retire()), [2]);
        // It could not be deleted, and the next attempt has found it.
        ledger.completed(CheckpointId(2), names(&[2]));
        assert_eq!(ledger.retire(), Retired::default());
    }

    #[test]
    fn what_is_claimed_stays() {
        let mut ledger = Ledger::new(1);
        ledger.completed(CheckpointId(1), names(&[1, 2]));
        ledger.claim(Claim::Round(CheckpointId(3)), names(&[1, 2]));
        ledger.claim(Claim::Merge(7), names(&[2]));
        ledger.may_exist("f9");
        ledger.completed(CheckpointId(2), names(&[5]));
        assert_eq!(ledger.retire().files, ["f9"], "no claim on it is left");
        ledger.release(Claim::Round(CheckpointId(3)));
        assert_eq!(ledger.retire().files, ["f1", "f9"]);
        ledger.release(Claim::Merge(7));
        assert_eq!(ledger.retire().files, ["f1", "f2", "f9"]);
    }

    #[test]
    fn a_late_checkpoint_does_not_take_the_place_of_a_newer_one() {
        let mut ledger = Ledger::new(1);
        ledger.completed(CheckpointId(5), names(&[5]));
        ledger.completed(CheckpointId(4), names(&[4]));
        let retired = ledger.retire();
        assert_eq!((ids(&retired), &*retired.files), (vec![4], &["f4".to_owned()][..]));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Complete(Vec<u8>),
        Claim(u8, Vec<u8>),
        Release(u8),
        /// Deletes this many of the things to delete, then stops as in a crash or when the store fails.
        Delete(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let files = || prop::collection::vec(0u8..12, 0..5);
        let step = prop_oneof![
            files().prop_map(Step::Complete),
            (0u8..3, files()).prop_map(|(claim, files)| Step::Claim(claim, files)),
            (0u8..3).prop_map(Step::Release),
            (0usize..8).prop_map(Step::Delete),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// Files needed by a retained checkpoint or a claim are never deleted; if all deletes succeed, no other files
        /// are left.
        #[test]
        fn needed_files_stay_and_the_others_go(retain in 1u32..4, steps in steps()) {
            let mut ledger = Ledger::new(retain);
            let mut checkpoints: BTreeMap<u64, Names> = BTreeMap::new();
            let mut claims: BTreeMap<u8, Names> = BTreeMap::new();
            let mut disk = Names::new();
            let mut next = 1;
            for step in steps.into_iter().chain([Step::Delete(usize::MAX)]) {
                match step {
                    Step::Complete(files) => {
                        // Names of deleted files are never used again.
                        let files = names(&files);
                        disk.extend(files.iter().cloned());
                        ledger.completed(CheckpointId(next), files.clone());
                        checkpoints.insert(next, files);
                        next += 1;
                    }
                    Step::Claim(claim, files) => {
                        let files: Names = names(&files).intersection(&disk).cloned().collect();
                        ledger.claim(Claim::Merge(claim.into()), files.clone());
                        claims.entry(claim).or_default().extend(files);
                    }
                    Step::Release(claim) => {
                        ledger.release(Claim::Merge(claim.into()));
                        claims.remove(&claim);
                    }
                    Step::Delete(most) => {
                        let retired = ledger.retire();
                        let kept: Vec<u64> = checkpoints.keys().rev().take(retain as usize).copied().collect();
                        for id in retired.checkpoints.iter().take(most) {
                            prop_assert!(!kept.contains(&id.0));
                            checkpoints.remove(&id.0);
                            ledger.gone(*id);
                        }
                        for file in retired.files.iter().take(most.saturating_sub(retired.checkpoints.len())) {
                            disk.remove(file);
                            ledger.file_gone(file);
                        }
                        let needed: Names = checkpoints
                            .iter()
                            .filter(|(id, _)| kept.contains(id))
                            .flat_map(|(_, files)| files)
                            .chain(claims.values().flatten())
                            .cloned()
                            .collect();
                        prop_assert!(needed.is_subset(&disk), "{needed:?} of {disk:?}");
                        if most == usize::MAX {
                            prop_assert_eq!(&needed, &disk);
                            prop_assert!(checkpoints.len() <= retain as usize);
                        }
                    }
                }
            }
        }
    }
}
