//! The checkpoints of one job on disk: written one after the other, each based on the previous one, and removed again.
//!
//! ```text
//! <JobID>/chk-<n>/      one checkpoint: `_metadata`, written last and deleted first, and operator state
//! <JobID>/shared/       files that several of them refer to: keyed state and components
//! ```
//!
//! `retain` and `chain` decide what is kept and what is merged; this module carries it out.
//! A file is first claimed, then written, then referred to by a `_metadata`.
//! To delete a checkpoint, first its `_metadata` is deleted, then the rest of it, then the files without any reference.
//! So a file that a crash leaves behind either belongs to a complete checkpoint, or is removed by the next
//! [`CheckpointStore::recover`].
//! Nothing else in the directory is touched (`docs/design/0011-incremental-checkpoints.md`).
//!
//! This file has the life of a round.
//! Its submodules keep the books (`book`), write components to `shared/` (`components`), look at the base of the next
//! round (`looking`), delete (`removing`), merge long chains (`merging`) and take over a directory (`recovering`).

mod book;
mod components;
mod looking;
mod removing;
mod merging;
mod recovering;

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
use super::store::{collect, distinct, finish, shared_module, wanted};
use super::write::{Shared, Target, can_be_base};
use crate::environment::Environment;
use crate::environment::cancel::Cancellation;
use crate::savepoint::metadata::{Metadata, MetadataError};
use crate::savepoint::rows::Layout;
use crate::storage::{Storage, StoreError, paths};

/// A function that returns true if the store still shows the job as run by this host.
pub type StillOurs = Arc<dyn Fn() -> BoxFuture<'static, Result<bool, StoreError>> + Send + Sync>;

/// The checkpoints of one job. Cheap to clone; all clones share their state.
#[derive(Clone)]
pub struct CheckpointStore(Arc<Inner>);

struct Inner {
    environment: Arc<dyn Environment>,
    /// Directory of the job.
    job: Storage,
    book: Mutex<Book>,
    /// Asked before anything is deleted.
    still_ours: StillOurs,
    /// Held while merging.
    merging: tokio::sync::Mutex<()>,
    /// Held while deleting.
    deleting: tokio::sync::Mutex<()>,
    /// Held by the task that waits for `deleting`, and that will then delete on behalf of all that come meanwhile.
    next_to_delete: tokio::sync::Mutex<()>,
    /// Held while writing or deleting components, whose names, unlike others, may be used again.
    components: tokio::sync::Mutex<()>,
    /// Stops the merge in progress; another one for each attempt.
    merges: Mutex<Cancellation>,
}

impl CheckpointStore {
    /// Returns the store of the checkpoints in the directory of a job (`<checkpoint dir>/<JobID>`), none of which are
    /// known yet.
    ///
    /// Keeps `retain` complete checkpoints, and deletes only while the job is `still_ours`.
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
            merges: Mutex::default(),
        }))
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        // Poisoning is ignored: every critical section leaves the book consistent.
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> Result<Storage, StoreError> {
        self.0.job.child(paths::SHARED_DIR)
    }

    /// Returns the location of a checkpoint, which need not exist.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`], which the name of a checkpoint does not cause.
    pub fn location(&self, id: CheckpointId) -> Result<Storage, StoreError> {
        self.0.job.child(&paths::checkpoint_name(id))
    }

    /// Returns the complete checkpoints that are kept, in order.
    #[must_use]
    pub fn completed(&self) -> Vec<CheckpointId> {
        self.book().ledger.retained().collect()
    }

    /// Begins a round and returns its base, or `None` if it has to be full.
    ///
    /// The base is a complete checkpoint, whose shared files stay until the round is [stored](Self::store) and
    /// [confirmed](Self::confirm), or [given up](Self::give_up).
    pub fn begin(&self, id: CheckpointId, kind: SnapshotKind, facts: &JobFacts) -> Option<CheckpointId> {
        if !takes_a_base(kind) {
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

    /// Writes all files of an acknowledged round, `_metadata` last.
    ///
    /// A round that is cancelled stops at its next step, and what it wrote is removed.
    /// A request in progress is waited for first, so that no file of the round appears later.
    ///
    /// # Errors
    /// Returns [`StoreFailure`]; the round has then been [given up](Self::give_up).
    pub async fn store(
        &self,
        round: Acknowledged,
        facts: &JobFacts,
        how: StoreAs,
        cancellation: &Cancellation,
    ) -> Result<Stored, StoreFailure> {
        let id = round.id;
        let stored = self.write(round, facts, how, cancellation).await;
        let stored = stored.and_then(|(stored, metadata)| {
            wanted(cancellation)?;
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
        cancellation: &Cancellation,
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
        let writes = |name: &str| self.claim(Claim::Round(id), name);
        let target = Target {
            environment,
            cancellation,
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
        wanted(cancellation)?;
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

    /// Counts a stored checkpoint as complete, so that the next round may be based on it.
    ///
    /// To be called when its output is committed and the subtasks have been notified.
    /// The caller then calls [`CheckpointStore::remove_old`] and [`CheckpointStore::merge_long`].
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

    /// Gives up a round that will not be completed or is no longer of use.
    ///
    /// Its files are deleted at once if it certainly has no `_metadata`, otherwise when a newer checkpoint is complete.
    pub async fn give_up(&self, id: CheckpointId) {
        {
            let mut book = self.book();
            book.rounds.remove(&id);
            book.forget(id);
        }
        self.delete_unneeded(false).await;
    }
}

/// Returns true for the kinds of round that may be increments.
const fn takes_a_base(kind: SnapshotKind) -> bool {
    !matches!(kind, SnapshotKind::Savepoint | SnapshotKind::Stop)
}

/// Returns the names of the shared files that a checkpoint refers to.
fn shared_names(metadata: &Metadata) -> Names {
    let names = metadata.files().filter_map(|(path, _)| paths::in_shared(path));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
