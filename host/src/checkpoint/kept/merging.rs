//! Merges neighbours in long chains of increments, concurrently with the job.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use super::super::chain::{Link, plan_merge};
use super::super::merge::{Merge, MergeError, Merged};
use super::super::retain::Claim;
use super::CheckpointStore;
use super::book::Book;
use crate::environment::cancel::Cancellation;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Metadata, SavedStateKind, StateEntry, StateFile};
use crate::storage::paths::{self, StateFileName};

impl CheckpointStore {
    /// Merges neighbours in long chains until there is nothing left to merge, or [`CheckpointStore::end`] is called.
    ///
    /// Returns at once if another task is merging.
    pub async fn merge_long(&self) {
        let Ok(_guard) = self.0.merging.try_lock() else {
            return;
        };
        let cancellation = self.merges();
        while !cancellation.is_cancelled()
            && let Some(merge) = self.next_merge()
        {
            if !self.merge(merge, &cancellation).await {
                break;
            }
        }
    }

    /// Stops merging until the next [`CheckpointStore::recover`].
    ///
    /// Does not wait: [`CheckpointStore::merge_long`] returns when the merge in progress has noticed.
    pub fn end(&self) {
        self.merges().cancel();
    }

    /// Returns the cancellation of merges until the next [`CheckpointStore::recover`].
    fn merges(&self) -> Cancellation {
        self.0.merges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Allows merging again.
    pub(super) fn merge_again(&self) {
        *self.0.merges.lock().unwrap_or_else(PoisonError::into_inner) = Cancellation::default();
    }

    /// Returns the next merge among the chains of the newest checkpoint.
    fn next_merge(&self) -> Option<Merge> {
        let book = self.book();
        let newest = book.newest()?;
        for entry in &newest.operators {
            for state in entry.states.iter().filter(|state| state.has_increments()) {
                for subtask in state.files.iter().map(|file| file.subtask).collect::<BTreeSet<_>>() {
                    let chain = state.files.iter().filter(|file| file.subtask == subtask);
                    let mut chain: Vec<StateFile> = chain.cloned().collect();
                    // Neighbours that the next checkpoint will have merged.
                    for merged in book
                        .merged
                        .values()
                        .filter(|merged| merged.is_of(&entry.uid, subtask, state))
                    {
                        merged.replace_in(&mut chain);
                    }
                    let links = chain.iter().map(|file| Link {
                        bytes: file.bytes,
                        increment: file.increment,
                    });
                    let window = plan_merge(&links.collect::<Vec<_>>());
                    if let Some(window) = window.filter(|window| !self.is_merging_result(&book, &chain[window.clone()]))
                    {
                        return Some(Merge {
                            uid: entry.uid.clone(),
                            subtask,
                            state: StateEntry {
                                files: vec![],
                                ..state.clone()
                            },
                            full: window.start == 0,
                            files: chain.get(window)?.to_vec(),
                        });
                    }
                }
            }
        }
        None
    }

    /// Returns true if one of the files was merged and is in no checkpoint yet. It is merged further only after that.
    fn is_merging_result(&self, book: &Book, files: &[StateFile]) -> bool {
        let results = || book.merged.values().filter_map(|merged| merged.file.as_ref());
        files
            .iter()
            .any(|file| results().any(|result| result.path == file.path))
    }

    /// Merges neighbours. Returns true on success.
    async fn merge(&self, merge: Merge, cancellation: &Cancellation) -> bool {
        let name = match merge.state.kind {
            SavedStateKind::Timers => StateFileName::Timers,
            SavedStateKind::Positions => StateFileName::Positions,
            _ => StateFileName::State(&merge.state.name),
        };
        let own = paths::state_file(&merge.uid, merge.subtask, self.0.environment.random(), name);
        let path = paths::to_shared(&own);
        let newest = self.book().newest().cloned();
        let (Some(newest), Some(name)) = (newest, paths::in_shared(&path)) else {
            return false;
        };
        let number = {
            let mut book = self.book();
            let number = book.next_merge;
            book.next_merge += 1;
            let inputs = merge.files.iter().filter_map(|file| paths::in_shared(&file.path));
            let claimed: Vec<String> = inputs.chain([name]).map(str::to_owned).collect();
            book.ledger.claim(Claim::Merge(number), claimed);
            book.ledger.may_exist(name);
            number
        };
        let what = format!(
            "{} files of {}/{} of subtask {}",
            merge.files.len(),
            merge.uid,
            merge.state.name,
            merge.subtask
        );
        let merged = self
            .run_merge(merge, &newest, number, path.clone(), name, cancellation)
            .await;
        let mut book = self.book();
        match merged {
            Ok(merged) => {
                // The inputs are no longer needed for it.
                book.ledger.release(Claim::Merge(number));
                book.ledger.claim(Claim::Merge(number), [name.to_owned()]);
                book.merged.insert(number, Arc::new(merged));
                true
            }
            Err(error) => {
                if error.is_end_of_job() {
                    tracing::debug!("{what} are not merged: {error}");
                } else {
                    tracing::warn!("{what} could not be merged: {error}");
                }
                book.ledger.release(Claim::Merge(number));
                false
            }
        }
    }

    async fn run_merge(
        &self,
        merge: Merge,
        newest: &Arc<Metadata>,
        number: u64,
        path: String,
        name: &str,
        cancellation: &Cancellation,
    ) -> Result<Merged, MergeError> {
        let shared = self.shared()?;
        let savepoint = Arc::new(Savepoint {
            storage: self.location(newest.checkpoint_id)?,
            metadata: (**newest).clone(),
        });
        let environment = &*self.0.environment;
        merge
            .run(environment, &savepoint, number, path, (&shared, name), cancellation)
            .await
    }
}
