//! Loads and runs Regraft's guests: WebAssembly components of the world `operator` (`wit/`).
//!
//! The only user of wasmtime. It knows neither an async runtime nor the dataflow, so that another engine can embed it.
//! Modules stand in import order: each may use only those above it.
//!
//! - [`call`]: the plain types of a call, for components and native operators alike.
//! - [`check`]: checks everything that an operator answered.
//! - [`isolate`]: what to run again after a call failed.
//! - [`events`]: log lines and measurements, as the host takes them.
//! - [`state_access`]: how a call reads keyed state that does not travel with the batch.
//! - [`module_error`]: why a file is refused.
//! - [`world`]: whether a file is a component of the world, by its names.
//! - [`declared_limits`]: bounds of what a component declares.
//! - [`describe`]: what a component declares, live and in a custom section.
//! - `bindings`: generated from `wit/`; `exports`: which interfaces of it a component has.
//! - [`limits`]: what bounds memory and time.
//! - `size`: bounds of a component's size. `slots`: how much is compiled at once, and for how long.
//! - `imports`: what a guest may ask of its host; one file per WIT interface.
//! - `symbols`: files and lines of a component's code.
//! - [`trap`]: what can go wrong in a call.
//! - [`profile`]: samples of a guest's stack, counted by functions.
//! - [`instance`]: one instance: calls, reset.
//! - [`module`]: a loaded component.
//! - `cache`: compiled components on disk.
//! - [`engine`]: settings, ticker, loading.
//! - [`componentize`]: from a core module to a component.
//!
//! ```no_run
//! use regraft_guest_runtime::engine::{EngineSettings, GuestEngine};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = GuestEngine::new(&EngineSettings { cache_dir: Some(".regraft/compiled".into()) })?;
//! let loaded = engine.load(std::fs::read("count.wasm")?)?;
//! println!("{} declares {} states", loaded.module.digest().short(), loaded.module.description().states.len());
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod call;
pub mod check;
pub mod isolate;
pub mod events;
pub mod state_access;
pub mod module_error;
pub mod world;
pub mod declared_limits;
pub mod describe;
#[allow(
    missing_docs,
    dead_code,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
mod bindings;
mod exports;
pub mod limits;
mod type_levels;
mod size;
mod slots;
mod imports;
mod symbols;
pub mod trap;
pub mod profile;
pub mod instance;
pub mod module;
mod cache;
pub mod engine;
pub mod componentize;
