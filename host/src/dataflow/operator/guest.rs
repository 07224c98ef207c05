//! A component as an operator: implements the dataflow's contract for the guest runtime's instances and modules.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use regraft_guest_runtime::call::{BatchView, Header, KeyedView, OpenContext, OperatorState, Outcome, TimerView};
use regraft_guest_runtime::describe::ModuleDigest;
use regraft_guest_runtime::instance::{GuestInstance, InstanceSettings};
use regraft_guest_runtime::module::GuestModule;
use regraft_guest_runtime::state_access::StateAccess;
use regraft_guest_runtime::trap::GuestError;
use regraft_model::describe::Description;
use regraft_model::id::CheckpointId;

use super::{Operator, OperatorModule};

impl Operator for GuestInstance {
    fn open(&mut self, header: Header, context: &OpenContext) -> Result<(), GuestError> {
        Self::open(self, header, context)
    }

    fn process(&mut self, header: Header, batch: BatchView<'_>, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        Self::process(self, header, batch, keyed)
    }

    fn finish_keys(&mut self, header: Header, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        Self::finish_keys(self, header, keyed)
    }

    fn finish(&mut self, header: Header) -> Result<Outcome, GuestError> {
        Self::finish(self, header)
    }

    fn on_timers(
        &mut self,
        header: Header,
        timers: TimerView<'_>,
        keyed: KeyedView<'_>,
    ) -> Result<Outcome, GuestError> {
        Self::on_timers(self, header, timers, keyed)
    }

    fn on_watermark(&mut self, header: Header) -> Result<Outcome, GuestError> {
        Self::on_watermark(self, header)
    }

    fn snapshot(&mut self, header: Header, checkpoint_id: CheckpointId) -> Result<Vec<OperatorState>, GuestError> {
        Self::snapshot(self, header, checkpoint_id.0)
    }

    fn restore(&mut self, header: Header, states: &[OperatorState]) -> Result<(), GuestError> {
        Self::restore(self, header, states)
    }

    fn set_state(&mut self, access: Option<Arc<dyn StateAccess>>) {
        Self::set_state(self, access);
    }

    fn interrupt_by(&mut self, flag: Arc<AtomicBool>) {
        Self::interrupt_by(self, flag);
    }

    fn search(&mut self, search: bool) {
        Self::search(self, search);
    }

    fn reset(&mut self) -> Result<(), GuestError> {
        Self::reset(self)
    }
}

impl OperatorModule for GuestModule {
    fn digest(&self) -> ModuleDigest {
        Self::digest(self)
    }

    fn description(&self) -> &Description {
        Self::description(self)
    }

    fn bytes(&self) -> &[u8] {
        Self::bytes(self)
    }

    fn instantiate(&self, settings: &InstanceSettings) -> Result<Box<dyn Operator>, GuestError> {
        Ok(Box::new(Self::instantiate(self, settings)?))
    }
}
