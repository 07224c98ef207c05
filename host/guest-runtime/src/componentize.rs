//! Makes a component of a core module that was built for wasm32-unknown-unknown: with no WASI import, and with its
//! description in front. What `regraft build` does after the guest's compiler.

use wit_component::ComponentEncoder;

use crate::engine::GuestEngine;
use crate::module_error::ModuleError;

/// The component of a core module, checked by running its `describe`.
///
/// # Errors
/// [`ModuleError::Componentize`] where the module was not built with bindings of the world; else as
/// [`GuestEngine::load`].
pub fn componentize(engine: &GuestEngine, core_module: &[u8]) -> Result<Vec<u8>, ModuleError> {
    engine.embed(&encode(core_module)?)
}

/// The component alone.
///
/// # Errors
/// [`ModuleError::Componentize`].
pub fn encode(core_module: &[u8]) -> Result<Vec<u8>, ModuleError> {
    let made = ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .and_then(|mut encoder| encoder.encode());
    made.map_err(|error| ModuleError::Componentize {
        message: format!("{error:#}"),
    })
}
