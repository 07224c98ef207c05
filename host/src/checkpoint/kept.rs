//! The checkpoints of one job on disk: written one after the other, each on top of the last, and removed again.
//!
//! ```text
//! <JobID>/chk-<n>/      one checkpoint: `_metadata`, written last and deleted first, and operator state
//! <JobID>/shared/       what several of them refer to: keyed state and components
//! ```
//!
//! What stays and what is merged is decided in `retain` and `chain`; here it is done. The order is always the same: a file is
//! claimed, then written, then referred to by a `_metadata`; a checkpoint's `_metadata` is deleted, then the rest of it, then
//! the files that nobody refers to any more. So whatever a crash leaves is either referred to by a complete checkpoint, or
//! removed by the next [`CheckpointStore::recover`]. Nothing else in the directory is touched
//! (`docs/design/0011-incremental-checkpoints.md`).
//!
//! Here is the way of a round. Beside it: `components` in `shared/`, `removing` what nobody needs, `merging` long chains,
//! `recovering` what is on disk.

mod book;
mod components;
mod removing;
mod merging;
mod recovering;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use self::book::Book;
pub use self::recovering::Found;
use super::describe;
use super::facts::{JobFacts, StoreAs, StoreFailure, Stored};
use super::retain::{Claim, Names};
use super::round::Acknowledged;
use super::store::{collect, distinct, finish, shared_module};
use super::write::{Shared, Target, can_be_base};
use crate::environment::Environment;
use crate::savepoint::metadata::{Metadata, MetadataError};
use crate::savepoint::rows::Layout;
use crate::storage::{Storage, StoreError, paths};

/// Answers whether the job is still run by whoever asks, as far as the store knows.
pub type StillOurs = Arc<dyn Fn() -> BoxFuture<'static, Result<bool, StoreError>> + Send + Sync>;

/// The checkpoints of one job. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct CheckpointStore(Arc<Inner>);

struct Inner {
    environment: Arc<dyn Environment>,
    /// The directory of the job.
    job: Storage,
    book: Mutex<Book>,
    /// Asked before anything is deleted.
    still_ours: StillOurs,
    /// Held by whoever merges.
    merging: tokio::sync::Mutex<()>,
    /// Held by whoever deletes.
    deleting: tokio::sync::Mutex<()>,
    /// Held by the one who waits for that, and will do it for everybody who comes meanwhile.
    next_to_delete: tokio::sync::Mutex<()>,
    /// Held by whoever writes or deletes components: their names are not new each time.
    components: tokio::sync::Mutex<()>,
    ending: AtomicBool,
}

impl CheckpointStore {
    /// The checkpoints in the directory of a job (`<checkpoint dir>/<JobID>`), of which none are known yet. `retain` complete
    /// ones are kept. Nothing is deleted but while the job is `still_ours`.
    #[must_use]
    pub fn new(environment: Arc<dyn Environment>, job: Storage, retain: u32, still_ours: StillOurs) -> Self {
        Self(Arc::new(Inner {
            environment,
            job,
            book: Mutex::new(Book::new(retain)),
            still_ours,
            merging: tokio::sync::Mutex::new(()),
            deleting: tokio::sync::Mutex::new(()),
            next_to_delete: tokio::sync::Mutex::new(()),
            components: tokio::sync::Mutex::new(()),
            ending: AtomicBool::new(false),
        }))
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        // Every critical section leaves it whole.
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> Result<Storage, StoreError> {
        self.0.job.child(paths::SHARED_DIR)
    }

    /// Where a checkpoint is, or would be.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`].
    pub fn location(&self, id: CheckpointId) -> Result<Storage, StoreError> {
        self.0.job.child(&paths::checkpoint_name(id))
    }

    /// The complete checkpoints that are kept, in order.
    #[must_use]
    pub fn completed(&self) -> Vec<CheckpointId> {
        self.book().ledger.retained().collect()
    }

    /// A round begins. Answers the completed checkpoint that it may be based on, which stays until the round is
    /// [stored](Self::store) or [given up](Self::give_up). None: all state is to be handed out.
    pub fn begin(&self, id: CheckpointId, kind: SnapshotKind, facts: &JobFacts) -> Option<CheckpointId> {
        if matches!(kind, SnapshotKind::Savepoint | SnapshotKind::Stop) {
            return None;
        }
        let operators: Vec<_> = facts
            .graph
            .nodes
            .iter()
            .map(|node| describe::entry(node, facts))
            .collect();
        let mut book = self.book();
        let newest = book.newest().cloned();
        let base = newest.filter(|base| can_be_base(base, &operators, facts.graph.max_parallelism));
        if let Some(base) = &base {
            book.ledger.claim(Claim::Round(id), shared_names(base));
        }
        let answer = base.as_ref().map(|base| base.checkpoint_id);
        book.rounds.insert(id, base);
        answer
    }

    /// Writes all files of an acknowledged round, `_metadata` last. What it wrote of a round that fails is removed.
    ///
    /// # Errors
    /// [`StoreFailure`]; the round has been given up.
    pub async fn store(&self, round: Acknowledged, facts: &JobFacts, how: StoreAs) -> Result<Stored, StoreFailure> {
        let id = round.id;
        let stored = self.write(round, facts, how).await;
        let stored = stored.and_then(|(stored, metadata)| {
            self.wanted(id)?;
            self.stored(id, metadata);
            Ok(stored)
        });
        match stored {
            Ok(stored) => Ok(stored),
            Err(error) => {
                self.give_up(id).await;
                Err(error)
            }
        }
    }

    async fn write(
        &self,
        round: Acknowledged,
        facts: &JobFacts,
        how: StoreAs,
    ) -> Result<(Stored, Metadata), StoreFailure> {
        let id = round.id;
        let environment = &*self.0.environment;
        let (own, shared) = (self.location(id)?, self.shared()?);
        let (base, merged) = {
            let mut book = self.book();
            let merged: Vec<_> = book.merged.values().cloned().collect();
            let names = merged.iter().filter_map(|merged| merged.name()).map(str::to_owned);
            book.ledger.claim(Claim::Round(id), names);
            (book.rounds.get(&id).cloned().flatten(), merged)
        };
        let writes = |name: &str| {
            self.wanted(id)?;
            self.claim(Claim::Round(id), name);
            Ok(())
        };
        let target = Target {
            environment,
            own: &own,
            layout: Layout::Native,
            shared: Some(Shared {
                storage: &shared,
                base: base.as_deref(),
                merged: &merged,
                writes: &writes,
            }),
        };
        let mut collected = collect(&target, round, facts, how).await?;
        collected.stored.bytes += self.keep_modules(distinct(facts)).await?;
        collected.metadata.modules = distinct(facts).map(shared_module).collect();
        self.wanted(id)?;
        self.book().unsure.insert(id);
        let finished = finish(environment, &own, collected).await;
        let said_no = match &finished {
            Err(StoreFailure::Metadata(MetadataError::Store(error))) => !error.may_pass(),
            Err(_) => true,
            Ok(_) => false,
        };
        if said_no {
            self.book().unsure.remove(&id);
        }
        finished
    }

    /// A round that is being stored is not wanted any more. Whoever stores it is told at its next step, and removes what there
    /// is of it: a request that is under way is waited for, so that nothing of it turns up later.
    pub fn expire(&self, id: CheckpointId) {
        self.book().expired.insert(id);
    }

    fn wanted(&self, id: CheckpointId) -> Result<(), StoreFailure> {
        if self.book().expired.contains(&id) {
            return Err(StoreFailure::Expired);
        }
        Ok(())
    }

    fn claim(&self, claim: Claim, name: &str) {
        let mut book = self.book();
        book.ledger.may_exist(name);
        book.ledger.claim(claim, [name.to_owned()]);
    }

    fn stored(&self, id: CheckpointId, metadata: Metadata) {
        let mut book = self.book();
        book.rounds.remove(&id);
        book.ledger.claim(Claim::Round(id), shared_names(&metadata));
        book.stored.insert(id, Arc::new(metadata));
    }

    /// The output of a stored checkpoint is committed, and the subtasks have been told: it counts, and the next round may be
    /// based on it. To be followed by [`CheckpointStore::remove_old`] and then [`CheckpointStore::merge_long`].
    pub fn confirm(&self, id: CheckpointId) {
        let mut book = self.book();
        let Some(metadata) = book.stored.remove(&id) else {
            return;
        };
        book.ledger.completed(id, shared_names(&metadata));
        book.ledger.release(Claim::Round(id));
        book.completed.insert(id, metadata);
        book.unsure.remove(&id);
        book.newest = book.newest.max(Some(id));
        book.forget_merged();
    }

    /// A round will not be completed, or has been in vain: what there is of it goes, at once where it has no `_metadata`, else
    /// when a newer checkpoint is complete.
    pub async fn give_up(&self, id: CheckpointId) {
        {
            let mut book = self.book();
            book.rounds.remove(&id);
            book.expired.remove(&id);
            book.forget(id);
        }
        self.delete_unneeded(false).await;
    }
}

/// The names of the shared files that a checkpoint refers to.
fn shared_names(metadata: &Metadata) -> Names {
    let names = metadata.files().filter_map(|(path, _)| paths::in_shared(path));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
