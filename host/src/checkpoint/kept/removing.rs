//! Deletes checkpoints and files that are no longer needed: one at a time, and only while the job is still ours.

use regraft_model::id::CheckpointId;

use super::CheckpointStore;
use crate::storage::retry::retried;
use crate::storage::{Storage, StoreError, paths};

impl CheckpointStore {
    /// Retires all but the newest complete checkpoints, and deletes files without a reference.
    ///
    /// Returns at once if another task is already waiting to do so.
    pub async fn remove_old(&self) {
        let Ok(next) = self.0.next_to_delete.try_lock() else {
            return;
        };
        let _guard = self.0.deleting.lock().await;
        drop(next);
        while self.delete_once(false).await {}
    }

    /// Returns the number of checkpoints that are to be deleted and whose deletion has not been tried yet.
    ///
    /// As with Flink's `CheckpointsCleaner`, a job that takes checkpoints faster than they can be deleted has to wait.
    #[must_use]
    pub fn to_be_removed(&self) -> usize {
        self.book().ledger.to_be_removed()
    }

    /// Returns true if this host may delete.
    ///
    /// A host that was cut off but is still alive must not delete files that another host goes on from.
    async fn may_delete(&self) -> bool {
        match (self.0.still_ours)().await {
            Ok(true) => true,
            Ok(false) => {
                let job = self.0.job.url();
                tracing::error!(
                    "another host runs the job of {job} now, or the records of the job are gone: this host deletes none of its checkpoints"
                );
                false
            }
            Err(error) => {
                tracing::warn!("old checkpoints are removed later: {error}");
                false
            }
        }
    }

    /// Deletes retired and given-up checkpoints, and files without a reference.
    ///
    /// If `all` is true, that includes rounds that may be complete and have no newer checkpoint after them.
    pub(super) async fn delete_unneeded(&self, all: bool) {
        let _guard = self.0.deleting.lock().await;
        // An unsure round releases its claims when it is deleted, after which there may be more to delete.
        while self.delete_once(all).await {}
    }

    /// Deletes what is due. Returns true if claims were released.
    async fn delete_once(&self, all: bool) -> bool {
        // Choose what to delete before asking who owns the job: a host that takes it over later goes on from something
        // newer.
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
        // Listed before asking, too: a host that takes the job over may write a checkpoint of the same number, if it finds
        // nothing of this one, and this host may sleep between asking and deleting.
        let mut listed = vec![];
        for id in checkpoints {
            listed.push((id, self.files_of(id).await));
        }
        if !self.may_delete().await {
            listed.iter().for_each(|(id, _)| self.book().ledger.not_gone(*id));
            return false;
        }
        let (mut whole, mut released) = (true, false);
        for (id, files) in listed {
            let removed = match files {
                Ok(files) => self.remove_checkpoint(id, &files).await,
                Err(error) => Err(error),
            };
            match removed {
                Ok(()) => released |= self.book().gone(id),
                Err(error) => {
                    tracing::warn!("checkpoint {id} could not be removed: {error}");
                    self.book().ledger.not_gone(id);
                    whole = false;
                }
            }
        }
        // A `_metadata` that could not be deleted may refer to any of the files.
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

    /// Returns the files of a checkpoint, other than those that something else has put into its directory.
    async fn files_of(&self, id: CheckpointId) -> Result<Vec<String>, StoreError> {
        let storage = self.location(id)?;
        let found = retried(&*self.0.environment, || storage.list("")).await?;
        // Checkpoints of format version 1 have components of their own.
        let is_ours = |name: &String| {
            let dir = name.split_once('/').map(|(dir, _)| dir);
            *name == paths::METADATA || matches!(dir, Some(paths::OPERATORS | paths::MODULES))
        };
        Ok(found.into_iter().map(|file| file.name).filter(is_ours).collect())
    }

    /// Deletes these files of a checkpoint, `_metadata` first, and its directory if nothing else is in there.
    async fn remove_checkpoint(&self, id: CheckpointId, files: &[String]) -> Result<(), StoreError> {
        let storage = self.location(id)?;
        let environment = &*self.0.environment;
        if files.iter().any(|name| name == paths::METADATA) {
            retried(environment, || storage.delete_durably(paths::METADATA)).await?;
        }
        for name in files.iter().filter(|name| *name != paths::METADATA) {
            retried(environment, || storage.delete(name)).await?;
        }
        storage.delete_half_written().await?;
        for dir in [paths::OPERATORS, paths::MODULES] {
            storage.child(dir)?.remove_if_empty().await?;
        }
        storage.remove_if_empty().await
    }
}
