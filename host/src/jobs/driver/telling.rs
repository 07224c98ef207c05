//! Effects that tell of the job: log lines, shared state, answers to requesters.

use std::collections::BTreeMap;

use regraft_model::id::CheckpointId;

use super::Driver;
use crate::dataflow::control::{WaitsFor, locked};
use crate::graph::plan::SubtaskId;
use crate::jobs::admission::descriptions;
use crate::jobs::life::effect::{Answer, Level, Shown};
use crate::jobs::observe::PERIODIC;
use crate::jobs::sinks::totals;

impl Driver {
    pub(super) fn answer(&mut self, answer: Answer) {
        let Answer {
            request,
            result,
            waited_for,
        } = answer;
        let slow = waited_for.map(|(id, missing)| self.held_up(id, &missing));
        let result = result.map_err(|mut error| {
            if let Some(slow) = slow.filter(|slow| !slow.is_empty()) {
                error.message = format!("{}. {slow}", error.message);
            }
            error
        });
        if let Some(reply) = self.requests.remove(&request) {
            // The requester may have gone.
            let _ = reply.send(result);
        }
    }

    /// Describes the delay of each subtask that has not acknowledged a round.
    fn held_up(&self, id: CheckpointId, missing: &[SubtaskId]) -> String {
        let mut slow: BTreeMap<WaitsFor, Vec<String>> = BTreeMap::new();
        for subtask in missing {
            if let Some(mailbox) = self.mailbox(*subtask) {
                let names = slow.entry(mailbox.progress.waits_for(id)).or_default();
                names.push(self.job.plan.name(*subtask));
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
        told.collect::<Vec<_>>().join(" ")
    }

    pub(super) fn show(&self, shown: Shown) {
        if let Shown::Expired { id, line, missing } = &shown {
            let slow = self.held_up(*id, missing);
            let space = if slow.is_empty() { "" } else { " " };
            return log(Level::Warn, &format!("{line}{space}{slow}"));
        }
        let mut state = locked(&self.shared.state);
        match shown {
            Shown::Version {
                attempt,
                version,
                modules,
            } => {
                (state.attempt, state.version) = (attempt, version);
                state.descriptions = descriptions(&modules);
                state.modules = modules;
            }
            Shown::Completed(summary) => {
                state.rounds += 1;
                state.last_round = Some(summary);
            }
            Shown::Round(view) => state.remember(view),
            Shown::FinalSavepoint(path) => state.final_savepoint = path,
            Shown::Sinks(states) => {
                let states = states.iter().map(|(uid, all)| (uid, &all[..]));
                state.sink_totals = totals(&self.shared.graph, states);
            }
            Shown::Restart(failure) => {
                state.restarts += 1;
                state.last_failure = Some(failure);
            }
            Shown::Failed(failure) => {
                state.failed_uid = failure.uid().map(str::to_owned);
                state.failure_kind = Some(failure.kind());
                state.failure = Some(failure.to_string());
            }
            Shown::Expired { .. } => {}
        }
    }
}

/// Writes a line to the log.
pub(super) fn log(level: Level, line: &str) {
    match level {
        Level::Periodic => tracing::info!(target: PERIODIC, "{line}"),
        Level::Info => tracing::info!("{line}"),
        Level::Warn => tracing::warn!("{line}"),
        Level::Error => tracing::error!("{line}"),
    }
}
