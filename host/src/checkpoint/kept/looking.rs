//! Looks at the files of the newest checkpoint before the next one is built on them: something other than this host may have
//! removed them.

use std::collections::BTreeMap;

use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use super::super::retain::Claim;
use super::{CheckpointStore, takes_a_base};
use crate::savepoint::metadata::Metadata;
use crate::storage::{StoreError, paths};

impl CheckpointStore {
    /// Returns true if a round of this kind is built on files that can be looked at.
    #[must_use]
    pub fn has_base(&self, kind: SnapshotKind) -> bool {
        takes_a_base(kind) && self.book().newest.is_some()
    }

    /// Looks whether the newest checkpoint is still there. If it is not, the next round is full, and a warning says why.
    ///
    /// A store that does not answer changes nothing: writing the round fails, too, if that goes on.
    pub async fn look_at_base(&self) {
        let Some(newest) = self.book().newest().cloned() else {
            return;
        };
        let gone = match self.gone_of(&newest).await {
            Ok(gone) => gone,
            Err(error) => {
                tracing::debug!(
                    "the files of checkpoint {} could not be listed: {error}",
                    newest.checkpoint_id
                );
                return;
            }
        };
        let Some(first) = gone.first() else { return };
        let id = newest.checkpoint_id;
        tracing::warn!(
            "{} file(s) of checkpoint {id} are gone or have another size, {first} among them; this host has not removed them. Until the next checkpoint, which is full and needs none of them, the job cannot go back to checkpoint {id}. Let nothing else remove files in {} while the job runs.",
            gone.len(),
            self.0.job.url()
        );
        self.distrust(id);
    }

    /// Returns the URLs of the files of a checkpoint that are not there any more, or have another size.
    async fn gone_of(&self, metadata: &Metadata) -> Result<Vec<String>, StoreError> {
        let own = self.location(metadata.checkpoint_id)?;
        let mut gone = vec![];
        if !own.exists(paths::METADATA).await? {
            gone.push(own.url_of(paths::METADATA));
        }
        let shared = self.shared()?;
        let there = shared.list("").await?;
        let there: BTreeMap<&str, u64> = there.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
        for (path, bytes) in metadata.files() {
            if let Some(name) = paths::in_shared(path)
                && there.get(name) != Some(&bytes)
            {
                gone.push(shared.url_of(name));
            }
        }
        Ok(gone)
    }

    /// Builds nothing on a checkpoint, nor on merged files, nor on the presence of components.
    fn distrust(&self, id: CheckpointId) {
        let mut book = self.book();
        book.newest = book.newest.filter(|newest| *newest != id);
        for number in std::mem::take(&mut book.merged).into_keys() {
            book.ledger.release(Claim::Merge(number));
        }
        book.modules.clear();
    }
}
