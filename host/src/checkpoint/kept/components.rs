//! The components in `shared/`: written once, and kept as long as the job runs them or a checkpoint refers to them.

use super::super::retain::Claim;
use super::CheckpointStore;
use crate::dataflow::operator::OperatorModule;
use crate::environment::cancel::Cancellation;
use crate::savepoint::publish::write_file;
use crate::storage::retry::retried;
use crate::storage::{Storage, StoreError, paths};

impl CheckpointStore {
    /// Writes the components that are not there yet, and claims all of them. Returns the number of bytes written.
    ///
    /// # Errors
    /// Returns the store's error.
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
                write_file(&*self.0.environment, &shared, name, component, &Cancellation::default()).await?;
                written += size;
            }
            self.book().modules.insert(sha256);
        }
        Ok(written)
    }

    /// Records the digests of the only components that the job runs or may go back to; others are kept only as long as
    /// checkpoints refer to them.
    pub fn only_modules(&self, digests: impl IntoIterator<Item = String>) {
        let mut book = self.book();
        book.ledger.release(Claim::Modules);
        let names = digests.into_iter().map(|sha256| format!("{sha256}.wasm"));
        book.ledger.claim(Claim::Modules, names);
    }

    /// Deletes a component, unless it is needed again.
    pub(super) async fn delete_component(&self, shared: &Storage, name: &str, sha256: &str) -> Result<(), StoreError> {
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
}
