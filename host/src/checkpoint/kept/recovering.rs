//! Takes over the checkpoints on disk, and leaves them when the job has ended.

use std::sync::Arc;

use regraft_model::id::CheckpointId;

use super::super::retain::{Claim, Names};
use super::{CheckpointStore, shared_names};
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{Metadata, MetadataError};
use crate::storage::retry::retried;
use crate::storage::{StoreError, paths};

/// The checkpoints that [`CheckpointStore::recover`] found.
#[derive(Debug, Default)]
pub struct Found {
    /// Complete checkpoints that are kept, in order.
    pub kept: Vec<CheckpointId>,
    /// Checkpoints that cannot be read. They are not touched.
    pub damaged: Vec<CheckpointId>,
}

impl CheckpointStore {
    /// Takes over the checkpoints on disk, after a crash or for another attempt.
    ///
    /// `restored` is the checkpoint that the job goes on from, and `modules` are digests of components that must stay.
    /// Deletes checkpoints newer than `restored` (all if it is `None`), incomplete ones, and the shared files without
    /// any other reference.
    /// Leaves rounds in progress in this process and the checkpoints in `damaged` alone.
    ///
    /// # Errors
    /// Returns the store's error; nothing has been deleted then.
    pub async fn recover(
        &self,
        restored: Option<CheckpointId>,
        modules: impl IntoIterator<Item = String>,
        damaged: &[CheckpointId],
    ) -> Result<Found, StoreError> {
        self.merge_again();
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
        // A power loss may bring back parts of an old checkpoint that had been deleted.
        let whole = |metadata: &Metadata| shared_names(metadata).is_subset(&names);
        let (kept, broken): (Vec<_>, Vec<_>) = complete
            .into_iter()
            .partition(|(id, metadata)| Some(*id) == newest || whole(metadata));
        useless.extend(broken.into_iter().map(|(id, _)| id));
        {
            let mut book = self.book();
            // The references of a damaged checkpoint are unknown, so no file may be deleted.
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

    /// Leaves the checkpoints of a job that has ended, and deletes all files without a reference, including merged
    /// ones.
    pub async fn leave(&self) {
        self.end();
        let _guard = self.0.merging.lock().await;
        // Checkpoints whose output was never committed are complete too, and a job can start from them.
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
}
