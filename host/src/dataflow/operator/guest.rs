//! A component as an operator: the guest runtime's instance behind the dataflow's contract.

use regraft_guest_runtime::call::{BatchView, Header, KeyedView, OpenContext, Outcome};
use regraft_guest_runtime::instance::GuestInstance;
use regraft_guest_runtime::trap::GuestError;

use super::Operator;

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
