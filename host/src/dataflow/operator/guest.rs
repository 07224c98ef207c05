//! A component as an operator: the guest runtime's instance behind the dataflow's contract.

use regraft_guest_runtime::call::{BatchView, Header, KeyedView, OpenContext, Outcome};
use regraft_guest_runtime::describe::ModuleDigest;
use regraft_guest_runtime::instance::{GuestInstance, InstanceSettings};
use regraft_guest_runtime::module::GuestModule;
use regraft_guest_runtime::trap::GuestError;
use regraft_model::describe::Description;

use super::{Operator, OperatorModule};

impl Operator for GuestInstance {
    fn open(&mut self, context: &OpenContext) -> Result<(), GuestError> {
        Self::open(self, context)
    }

    fn process(&mut self, header: Header, batch: BatchView<'_>, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        Self::process(self, header, batch, keyed)
    }

    fn finish(&mut self, header: Header, keyed: KeyedView<'_>, last: bool) -> Result<Outcome, GuestError> {
        Self::finish(self, header, keyed, last)
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
