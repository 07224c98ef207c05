//! Merging neighbours in chains of increments that have become long, beside the job.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::chain::{Link, plan_merge};
use super::super::merge::{Merge, MergeError, Merged};
use super::super::retain::Claim;
use super::CheckpointStore;
use super::book::Book;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Metadata, SavedStateKind, StateEntry, StateFile};
use crate::storage::paths::{self, StateFileName};

impl CheckpointStore {
    /// Merges neighbours in chains that have become long. Returns when there is nothing more to do, or
    /// [`CheckpointStore::end`] is called.
    pub async fn merge_long(&self) {
        let Ok(_guard) = self.0.merging.try_lock() else {
            return;
        };
        while !self.is_ending()
            && let Some(merge) = self.next_merge()
        {
            if !self.merge(merge).await {
                break;
            }
        }
    }

    /// Merging stops, until the next [`CheckpointStore::recover`]; to be waited for is whoever [merges](Self::merge_long).
    pub fn end(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
    }

    fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::Relaxed)
    }

    /// The next neighbours to be merged, of the newest checkpoint.
    fn next_merge(&self) -> Option<Merge> {
        let book = self.book();
        let newest = book.newest()?;
        for entry in &newest.operators {
            for state in entry.states.iter().filter(|state| state.has_increments()) {
                for subtask in state.files.iter().map(|file| file.subtask).collect::<BTreeSet<_>>() {
                    let chain = state.files.iter().filter(|file| file.subtask == subtask);
                    let mut chain: Vec<StateFile> = chain.cloned().collect();
                    // Those that the next checkpoint will have merged.
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

    /// Whether some of the files are merged ones that no checkpoint has yet: those wait for it.
    fn is_merging_result(&self, book: &Book, files: &[StateFile]) -> bool {
        let results = || book.merged.values().filter_map(|merged| merged.file.as_ref());
        files
            .iter()
            .any(|file| results().any(|result| result.path == file.path))
    }

    /// Merges neighbours; true where that went well.
    async fn merge(&self, merge: Merge) -> bool {
        let name = match merge.state.kind {
            SavedStateKind::Timers => StateFileName::Timers,
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
        let merged = self.run_merge(merge, &newest, number, path.clone(), name).await;
        let mut book = self.book();
        match merged {
            Ok(merged) => {
                // The neighbours are not needed for it any more.
                book.ledger.release(Claim::Merge(number));
                book.ledger.claim(Claim::Merge(number), [name.to_owned()]);
                book.merged.insert(number, Arc::new(merged));
                true
            }
            Err(error) => {
                tracing::warn!("{what} could not be merged: {error}");
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
    ) -> Result<Merged, MergeError> {
        let shared = self.shared()?;
        let savepoint = Arc::new(Savepoint {
            storage: self.location(newest.checkpoint_id)?,
            metadata: (**newest).clone(),
        });
        let environment = &*self.0.environment;
        merge
            .run(environment, &savepoint, number, path, (&shared, name), || {
                self.is_ending()
            })
            .await
    }
}
