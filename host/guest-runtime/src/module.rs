//! A loaded component, ready to be instantiated any number of times.

use std::sync::Arc;

use regraft_model::describe::Description;

use crate::call::Declared;
use crate::describe::ModuleDigest;
use crate::instance::{GuestInstance, InstanceSettings, Parts};
use crate::trap::GuestError;

/// A component that was compiled and checked. Cloning it is cheap, and it keeps its engine alive.
#[derive(Clone)]
pub struct GuestModule(pub(crate) Arc<Loaded>);

pub(crate) struct Loaded {
    pub(crate) digest: ModuleDigest,
    pub(crate) description: Description,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) parts: Parts,
    /// Keeps the engine's ticker running.
    pub(crate) keep: Arc<dyn Send + Sync>,
}

impl GuestModule {
    /// The SHA-256 of the file: the module's identity.
    #[must_use]
    pub fn digest(&self) -> ModuleDigest {
        self.0.digest
    }

    /// Its description.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.0.description
    }

    /// The numbers of its declarations.
    #[must_use]
    pub fn declared(&self) -> &Declared {
        &self.0.parts.declared
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0.bytes
    }

    /// Makes an instance, in some 0.02 ms. It needs `open` before any other call.
    ///
    /// # Errors
    /// [`GuestError::Trapped`] where the guest's own initialisation traps or does not fit into the limits.
    pub fn instantiate(&self, settings: &InstanceSettings) -> Result<GuestInstance, GuestError> {
        GuestInstance::new(self.0.parts.clone(), settings.clone(), Arc::clone(&self.0.keep))
    }
}

impl std::fmt::Debug for GuestModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GuestModule").field(&self.0.digest).finish()
    }
}
