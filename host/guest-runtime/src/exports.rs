//! The interfaces that a component exports: one must be there, each of the others may be.

use regraft_model::describe::{WIT_VERSION, interface};
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{AsContextMut, Result};

use crate::bindings::exports::regraft::operator::{ending, guest, migration, operator_state, timers, watermarks};
use crate::world::PACKAGE;

/// Indices of the functions of a component's interfaces.
#[derive(Clone)]
pub(crate) struct ExportIndices {
    /// The optional interfaces that it exports, also those that no job calls.
    pub(crate) names: Vec<&'static str>,
    guest: guest::GuestIndices,
    timers: Option<timers::GuestIndices>,
    watermarks: Option<watermarks::GuestIndices>,
    ending: Option<ending::GuestIndices>,
    operator_state: Option<operator_state::GuestIndices>,
    migration: Option<migration::GuestIndices>,
}

/// The functions of an instance; `None` for interfaces that its component does not export.
pub(crate) struct Exports {
    pub(crate) guest: guest::Guest,
    pub(crate) timers: Option<timers::Guest>,
    pub(crate) watermarks: Option<watermarks::Guest>,
    pub(crate) ending: Option<ending::Guest>,
    pub(crate) operator_state: Option<operator_state::Guest>,
    pub(crate) migration: Option<migration::Guest>,
}

impl ExportIndices {
    /// Looks them up.
    ///
    /// # Errors
    /// [`ModuleError`] if an exported interface lacks a function.
    pub(crate) fn new<T: 'static>(pre: &InstancePre<T>) -> Result<Self> {
        let component = pre.component();
        let exported = |name: &&str| {
            component
                .get_export_index(None, format!("{PACKAGE}{name}@{WIT_VERSION}"))
                .is_some()
        };
        let names: Vec<_> = interface::ALL.into_iter().filter(exported).collect();
        macro_rules! optional {
            ($name:expr, $indices:ty) => {
                names.contains(&$name).then(|| <$indices>::new(pre)).transpose()?
            };
        }
        Ok(Self {
            guest: guest::GuestIndices::new(pre)?,
            timers: optional!(interface::TIMERS, timers::GuestIndices),
            watermarks: optional!(interface::WATERMARKS, watermarks::GuestIndices),
            ending: optional!(interface::ENDING, ending::GuestIndices),
            operator_state: optional!(interface::OPERATOR_STATE, operator_state::GuestIndices),
            migration: optional!(interface::MIGRATION, migration::GuestIndices),
            names,
        })
    }

    /// Takes the functions of an instance.
    ///
    /// # Errors
    /// [`ModuleError`] if a function has another type.
    pub(crate) fn load(&self, mut store: impl AsContextMut, instance: &Instance) -> Result<Exports> {
        macro_rules! optional {
            ($indices:expr) => {
                match &$indices {
                    Some(indices) => Some(indices.load(&mut store, instance)?),
                    None => None,
                }
            };
        }
        Ok(Exports {
            guest: self.guest.load(&mut store, instance)?,
            timers: optional!(self.timers),
            watermarks: optional!(self.watermarks),
            ending: optional!(self.ending),
            operator_state: optional!(self.operator_state),
            migration: optional!(self.migration),
        })
    }
}
