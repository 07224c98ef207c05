//! The imports of a guest: one file per WIT interface, and the data of a store that they work on.

pub(crate) mod host;
pub(crate) mod state;

use std::sync::Arc;
use std::time::Duration;

use crate::events::{GuestEvents, LogBudget};
use crate::limits::{Deadline, HostMemory, MemoryLimit};

/// The data of one store.
pub(crate) struct GuestData {
    pub(crate) memory: MemoryLimit,
    pub(crate) host_memory: HostMemory,
    pub(crate) deadline: Deadline,
    pub(crate) host: host::HostImports,
    pub(crate) state: state::StateImports,
}

impl GuestData {
    pub(crate) fn new(
        (memory_max, host_memory_max): (u64, u64),
        time_max: Duration,
        config: Arc<str>,
        arguments: Arc<[String]>,
        sink: (Arc<dyn GuestEvents>, Arc<LogBudget>),
        states: Arc<[state::DeclaredState]>,
    ) -> Self {
        Self {
            memory: MemoryLimit::new(memory_max),
            host_memory: HostMemory::new(host_memory_max),
            deadline: Deadline::new(time_max),
            host: host::HostImports::new(config, arguments, sink),
            state: state::StateImports::new(states),
        }
    }

    /// A call begins: nothing is left of the one before. Returns the ticks to the first look at the deadline.
    pub(crate) fn begin(&mut self) -> u64 {
        self.memory.refused = None;
        self.host_memory.exceeded = false;
        self.host.panic = None;
        self.state.failure = None;
        self.deadline.start()
    }
}

impl crate::bindings::regraft::operator::types::Host for GuestData {}
