//! What held up a round that has expired: its barrier, the marking of state, or the handing over of it.

use std::collections::BTreeMap;

use regraft_model::id::CheckpointId;

use super::Controller;
use crate::checkpoint::round::GivenUp;
use crate::dataflow::control::{SubtaskId, WaitsFor};

impl Controller {
    /// A round has expired: says of each subtask that has not acknowledged it what it was waited for.
    pub(super) fn note_what_is_slow(&mut self, given_up: &GivenUp) {
        let mut slow: BTreeMap<WaitsFor, Vec<String>> = BTreeMap::new();
        for id in &given_up.missing {
            if let Some(waits_for) = self.waits_for(*id, given_up.id) {
                slow.entry(waits_for).or_default().push(self.subtask_name(*id));
            }
        }
        let told = slow.into_iter().map(|(waits_for, names)| {
            let names = names.join(" ");
            match waits_for {
                WaitsFor::Barrier => format!(
                    "The barrier has not reached {names}: records before it, or a call that takes long, hold it up."
                ),
                WaitsFor::Mark => format!("{names} had the barrier and was still marking its state."),
                WaitsFor::State => format!("{names} had marked its state and was still handing it over."),
            }
        });
        let told = told.collect::<Vec<_>>().join(" ");
        if let Some(flight) = self.flights.get_mut(&given_up.id).filter(|_| !told.is_empty()) {
            flight.slow = Some(told);
        }
    }

    /// What a round waits for at a subtask that has not acknowledged it.
    fn waits_for(&self, subtask: SubtaskId, round: CheckpointId) -> Option<WaitsFor> {
        let mailbox = self.regions.iter().find_map(|region| region.mailboxes.get(&subtask));
        mailbox.map(|mailbox| mailbox.progress.waits_for(round))
    }
}
