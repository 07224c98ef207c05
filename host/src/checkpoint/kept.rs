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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use super::chain::{Link, plan_merge};
use super::describe;
use super::facts::{JobFacts, StoreAs, StoreFailure, Stored};
use super::merge::{Merge, Merged};
use super::retain::{Claim, Ledger, Names};
use super::round::Acknowledged;
use super::store::{collect, distinct, finish, shared_module};
use super::write::{Shared, Target, can_be_base};
use crate::dataflow::operator::OperatorModule;
use crate::environment::Environment;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Metadata, MetadataError, SavedStateKind, StateEntry, StateFile};
use crate::savepoint::publish::write_file;
use crate::savepoint::rows::Layout;
use crate::storage::paths::StateFileName;
use crate::storage::retry::retried;
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

/// What is known of the disk.
struct Book {
    ledger: Ledger,
    /// What each completed checkpoint says, as long as it is retained.
    completed: BTreeMap<CheckpointId, Arc<Metadata>>,
    /// The newest one that the state of the running job has in its past.
    newest: Option<CheckpointId>,
    /// Those that are stored and not confirmed yet.
    stored: BTreeMap<CheckpointId, Arc<Metadata>>,
    /// Rounds from their trigger until they are stored or given up, with what they are based on.
    rounds: BTreeMap<CheckpointId, Option<Arc<Metadata>>>,
    /// Rounds that are being stored and are not wanted any more.
    expired: BTreeSet<CheckpointId>,
    /// Rounds whose `_metadata` is there, or may be, and that are not confirmed. Whoever comes after a crash may go on from
    /// one, so it is not deleted before a newer checkpoint is there to go on from.
    unsure: BTreeSet<CheckpointId>,
    /// Merged neighbours that are not in a checkpoint yet, by number.
    merged: BTreeMap<u64, Arc<Merged>>,
    next_merge: u64,
    /// Components that are there.
    modules: BTreeSet<String>,
}

/// What [`CheckpointStore::recover`] found.
#[derive(Debug, Default)]
pub struct Found {
    /// Complete checkpoints that are kept, in order.
    pub kept: Vec<CheckpointId>,
    /// Checkpoints that cannot be read. They are left alone.
    pub damaged: Vec<CheckpointId>,
}

impl Book {
    /// A checkpoint is to go.
    fn forget(&mut self, id: CheckpointId) {
        self.completed.remove(&id);
        self.stored.remove(&id);
        self.ledger.discard(id);
        self.newest = self.newest.filter(|newest| *newest != id);
    }

    /// A checkpoint has been deleted. Answers whether it had claims.
    fn gone(&mut self, id: CheckpointId) -> bool {
        self.unsure.remove(&id);
        self.ledger.gone(id);
        self.ledger.release(Claim::Round(id))
    }

    fn newest(&self) -> Option<&Arc<Metadata>> {
        self.newest.and_then(|newest| self.completed.get(&newest))
    }

    /// Drops merged files that are in the newest checkpoint by now, and those whose neighbours no chain has any more.
    fn forget_merged(&mut self) {
        let newest = self.newest().cloned();
        let is_of_use = |merged: &Merged| newest.as_ref().is_some_and(|newest| merged.has_place_in(newest));
        let useless = self.merged.values().filter(|merged| !is_of_use(merged));
        for number in useless.map(|merged| merged.number).collect::<Vec<_>>() {
            self.merged.remove(&number);
            self.ledger.release(Claim::Merge(number));
        }
    }
}

impl CheckpointStore {
    /// The checkpoints in the directory of a job (`<checkpoint dir>/<JobID>`), of which none are known yet. `retain` complete
    /// ones are kept. Nothing is deleted but while the job is `still_ours`.
    #[must_use]
    pub fn new(environment: Arc<dyn Environment>, job: Storage, retain: u32, still_ours: StillOurs) -> Self {
        Self(Arc::new(Inner {
            environment,
            job,
            book: Mutex::new(Book {
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
            }),
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

    /// Writes components that are not there yet, and keeps them from now on. Answers the size of what was written.
    ///
    /// # Errors
    /// As the store says.
    pub async fn keep_modules<'a>(
        &self,
        modules: impl Iterator<Item = &'a dyn OperatorModule> + Send,
    ) -> Result<u64, StoreError> {
        let shared = self.shared()?;
        let mut written = 0;
        let _guard = self.0.components.lock().await;
        for module in modules {
            let sha256 = module.digest().to_string();
            let path = paths::shared_module(&sha256);
            let Some(name) = paths::in_shared(&path) else { continue };
            self.claim(Claim::Modules, name);
            if self.book().modules.contains(&sha256) {
                continue;
            }
            let component = bytes::Bytes::copy_from_slice(module.bytes());
            let size = component.len() as u64;
            if retried(&*self.0.environment, || shared.size(name)).await? != Some(size) {
                write_file(&*self.0.environment, &shared, name, component).await?;
                written += size;
            }
            self.book().modules.insert(sha256);
        }
        Ok(written)
    }

    /// The job runs these components (by digest) and no others from now on: others stay only as long as checkpoints refer to
    /// them.
    pub fn only_modules(&self, digests: impl IntoIterator<Item = String>) {
        let mut book = self.book();
        book.ledger.release(Claim::Modules);
        let names = digests.into_iter().map(|sha256| format!("{sha256}.wasm"));
        book.ledger.claim(Claim::Modules, names);
    }

    /// Retires what is older than the newest complete checkpoints, and deletes what nobody refers to. Returns at once where
    /// somebody waits to do so already.
    pub async fn remove_old(&self) {
        let Ok(next) = self.0.next_to_delete.try_lock() else {
            return;
        };
        let _guard = self.0.deleting.lock().await;
        drop(next);
        while self.delete_once(false).await {}
    }

    /// How many checkpoints are to be removed, and nobody has tried to yet. As in Flink's `CheckpointsCleaner`, whoever takes
    /// checkpoints faster than they can be removed has to wait.
    #[must_use]
    pub fn to_be_removed(&self) -> usize {
        self.book().ledger.to_be_removed()
    }

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

    /// The job has ended and its checkpoints stay: what no checkpoint refers to goes, merged files too.
    pub async fn leave(&self) {
        self.end();
        let _guard = self.0.merging.lock().await;
        // Those whose output nobody has committed any more are complete too, and can be started from.
        let stored: Vec<CheckpointId> = self.book().stored.keys().copied().collect();
        stored.into_iter().for_each(|id| self.confirm(id));
        {
            let mut book = self.book();
            for number in std::mem::take(&mut book.merged).into_keys() {
                book.ledger.release(Claim::Merge(number));
            }
        }
        self.delete_unneeded(true).await;
    }

    /// Whether deleting is ours to do. A host that was cut off, and is alive, must leave alone what another goes on from.
    async fn may_delete(&self) -> bool {
        match (self.0.still_ours)().await {
            Ok(true) => true,
            Ok(false) => {
                let job = self.0.job.url();
                tracing::error!("another host runs the job of {job} now: this one deletes none of its checkpoints");
                false
            }
            Err(error) => {
                tracing::warn!("old checkpoints are removed later: {error}");
                false
            }
        }
    }

    /// Deletes what is retired or given up. `all`: also rounds that may be complete and have no newer one behind them.
    async fn delete_unneeded(&self, all: bool) {
        let _guard = self.0.deleting.lock().await;
        // With an unsure round its claims go, so there may be more to delete.
        while self.delete_once(all).await {}
    }

    /// Answers whether claims have been released.
    async fn delete_once(&self, all: bool) -> bool {
        // What may go is decided before it is asked whose job it is: who takes it over later goes on from something newer.
        let (checkpoints, files) = {
            let mut book = self.book();
            let retired = book.ledger.retire();
            for id in &retired.checkpoints {
                book.completed.remove(id);
            }
            let newest = book.completed.keys().next_back().copied();
            let may_go = |id: &CheckpointId| all || newest > Some(*id) || !book.unsure.contains(id);
            let (go, stay): (Vec<_>, Vec<_>) = retired.checkpoints.into_iter().partition(may_go);
            stay.into_iter().for_each(|id| book.ledger.not_gone(id));
            (go, retired.files)
        };
        if checkpoints.is_empty() && files.is_empty() {
            return false;
        }
        if !self.may_delete().await {
            checkpoints.iter().for_each(|id| self.book().ledger.not_gone(*id));
            return false;
        }
        let (mut whole, mut released) = (true, false);
        for id in checkpoints {
            match self.remove_checkpoint(id).await {
                Ok(()) => released |= self.book().gone(id),
                Err(error) => {
                    tracing::warn!("checkpoint {id} could not be removed: {error}");
                    self.book().ledger.not_gone(id);
                    whole = false;
                }
            }
        }
        // A `_metadata` that is still there may refer to any of them.
        let Some(shared) = self.shared().ok().filter(|_| whole) else {
            return false;
        };
        for name in files {
            let deleted = match name.strip_suffix(".wasm") {
                Some(sha256) => self.delete_component(&shared, &name, sha256).await,
                None => self.delete_file(&shared, &name).await,
            };
            if let Err(error) = deleted {
                tracing::warn!("a file of earlier checkpoints could not be removed: {error}");
            }
        }
        released
    }

    async fn delete_file(&self, shared: &Storage, name: &str) -> Result<(), StoreError> {
        retried(&*self.0.environment, || shared.delete(name)).await?;
        self.book().ledger.file_gone(name);
        Ok(())
    }

    /// Deletes a component, unless somebody has come to need it again since.
    async fn delete_component(&self, shared: &Storage, name: &str, sha256: &str) -> Result<(), StoreError> {
        let _guard = self.0.components.lock().await;
        {
            let mut book = self.book();
            if book.ledger.is_needed(name) {
                return Ok(());
            }
            book.modules.remove(sha256);
        }
        self.delete_file(shared, name).await
    }

    /// Removes what is ours of a checkpoint's directory: `_metadata` first.
    async fn remove_checkpoint(&self, id: CheckpointId) -> Result<(), StoreError> {
        let storage = self.location(id)?;
        let environment = &*self.0.environment;
        retried(environment, || storage.delete_durably(paths::METADATA)).await?;
        retried(environment, || storage.delete_prefix(paths::OPERATORS)).await?;
        // Those of format version 1.
        retried(environment, || storage.delete_prefix(paths::MODULES)).await?;
        storage.delete_half_written().await?;
        storage.remove_if_empty().await
    }

    /// Takes over what is on disk, after a crash or for another attempt. `restored`: the checkpoint that the job goes on from.
    /// Those behind it are of no use to anybody and go, and so do incomplete ones and the shared files that no other refers
    /// to; rounds under way in this process are let be, and so are those in `damaged`. `modules`: digests of components that
    /// must stay.
    ///
    /// # Errors
    /// As the store says; nothing has been deleted then.
    pub async fn recover(
        &self,
        restored: Option<CheckpointId>,
        modules: impl IntoIterator<Item = String>,
        damaged: &[CheckpointId],
    ) -> Result<Found, StoreError> {
        self.0.ending.store(false, Ordering::Relaxed);
        let environment = &*self.0.environment;
        let (directories, _) = retried(environment, || self.0.job.list_names()).await?;
        let mut found = Found::default();
        let (mut complete, mut useless) = (vec![], vec![]);
        for id in directories.iter().filter_map(|name| paths::parse_checkpoint(name)) {
            if self.book().rounds.contains_key(&id) {
                continue;
            }
            if damaged.contains(&id) {
                found.damaged.push(id);
                continue;
            }
            match Savepoint::load(self.location(id)?).await {
                Ok(checkpoint) if Some(id) <= restored => complete.push((id, checkpoint.metadata)),
                Ok(_) | Err(MetadataError::Missing { .. }) => useless.push(id),
                Err(MetadataError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!("checkpoint {id} is left as it is: {error}");
                    found.damaged.push(id);
                }
            }
        }
        let shared = self.shared()?;
        let names = retried(environment, || shared.list("")).await?;
        let names: Names = names.into_iter().map(|object| object.name).collect();
        let newest = complete.iter().map(|(id, _)| *id).max();
        // A power loss may bring back what had been deleted of an old one.
        let whole = |metadata: &Metadata| shared_names(metadata).is_subset(&names);
        let (kept, broken): (Vec<_>, Vec<_>) = complete
            .into_iter()
            .partition(|(id, metadata)| Some(*id) == newest || whole(metadata));
        useless.extend(broken.into_iter().map(|(id, _)| id));
        {
            let mut book = self.book();
            // What a damaged checkpoint refers to is not known.
            for name in names
                .iter()
                .filter(|name| found.damaged.is_empty() && paths::is_shared_name(name))
            {
                book.ledger.may_exist(name);
            }
            book.ledger.release(Claim::Modules);
            let modules = modules.into_iter().map(|sha256| format!("{sha256}.wasm"));
            book.ledger.claim(Claim::Modules, modules);
            let unsure = std::mem::take(&mut book.unsure);
            let known = book.completed.keys().chain(book.stored.keys()).chain(&unsure);
            let known: Vec<CheckpointId> = known.copied().collect();
            for id in known.into_iter().chain(useless) {
                book.forget(id);
                book.ledger.release(Claim::Round(id));
            }
            for (id, metadata) in kept {
                book.ledger.completed(id, shared_names(&metadata));
                book.completed.insert(id, Arc::new(metadata));
            }
            for id in &found.damaged {
                book.ledger.gone(*id);
            }
            book.newest = restored.filter(|restored| book.completed.contains_key(restored));
            book.forget_merged();
        }
        if let Err(error) = self.0.job.delete_half_written().await {
            tracing::warn!("half-written files could not be removed: {error}");
        }
        self.delete_unneeded(false).await;
        found.kept = self.completed();
        Ok(found)
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
    ) -> Result<Merged, super::merge::MergeError> {
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

/// The names of the shared files that a checkpoint refers to.
fn shared_names(metadata: &Metadata) -> Names {
    let names = metadata.files().filter_map(|(path, _)| paths::in_shared(path));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
