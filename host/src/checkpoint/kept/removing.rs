//! Deleting what nobody needs any more: one at a time, and only while the job is still ours.

use regraft_model::id::CheckpointId;

use super::CheckpointStore;
use crate::storage::retry::retried;
use crate::storage::{Storage, StoreError, paths};

impl CheckpointStore {
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

    /// Whether deleting is ours to do. A host that was cut off, and is alive, must leave alone what another goes on from.
    async fn may_delete(&self) -> bool {
        match (self.0.still_ours)().await {
            Ok(true) => true,
            Ok(false) => {
                let job = self.0.job.url();
                tracing::error!(
                    "another host runs the job of {job} now, or somebody has removed its records: this one deletes none of its checkpoints"
                );
                false
            }
            Err(error) => {
                tracing::warn!("old checkpoints are removed later: {error}");
                false
            }
        }
    }

    /// Deletes what is retired or given up. `all`: also rounds that may be complete and have no newer one behind them.
    pub(super) async fn delete_unneeded(&self, all: bool) {
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

    pub(super) async fn delete_file(&self, shared: &Storage, name: &str) -> Result<(), StoreError> {
        retried(&*self.0.environment, || shared.delete(name)).await?;
        self.book().ledger.file_gone(name);
        Ok(())
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
}
