//! The end of a job: finished, cancelled, suspended or failed; and the last effect.

use regraft_model::id::CheckpointId;

use super::effect::{Effect, Told};
use super::mistakes::Mistake;
use super::reason::{End, Reason};
use super::round::{Phase, Round};
use super::{Ending, Life, Stage};
use crate::jobs::handle::JobError;
use crate::jobs::status::JobStatus;

impl Life {
    /// A user cancels the job. It ends at once, so rounds that are being stored are given up, too: also those that a job which
    /// fails had left to complete.
    pub(super) fn cancel(&mut self) {
        if !self.is_ending() {
            self.set_status(JobStatus::Cancelling);
            self.stop_all(Ending::Cancel, End::Cancelled(self.job_id()));
        }
        if matches!(self.stage, Stage::Ending(Ending::Cancel | Ending::Fail)) {
            let storing = self
                .rounds
                .iter()
                .filter(|(_, round)| matches!(round.phase, Phase::Storing(_)));
            self.effects.extend(storing.map(|(id, _)| Effect::CancelStoring(*id)));
        }
    }

    /// The host ends, and another process brings the job back.
    pub(super) fn suspend(&mut self) {
        if !self.is_ending() {
            self.stop_all(Ending::Suspend, End::Suspended(self.job_id()));
            let recorded = |(_, round): &(&CheckpointId, &Round)| matches!(round.phase, Phase::Recorded(_));
            let recorded: Vec<CheckpointId> = self.rounds.iter().filter(recorded).map(|(id, _)| *id).collect();
            for id in recorded {
                self.complete_at_suspension(id);
            }
        }
    }

    /// Ends everything: no round begins any more, and those that are not yet being stored are given up.
    pub(super) fn stop_all(&mut self, ending: Ending, why: End) {
        self.effects.extend([Effect::EndMerging, Effect::CancelPreparing]);
        let all: Vec<_> = self.plan().region_indices().collect();
        self.stop(all);
        self.end_as(ending, &why);
        self.abort_all(&Reason::End(why));
    }

    /// All is done, saved and committed. A job that was cancelled, or has failed, while its last output was being committed
    /// stays so.
    pub(super) fn finish(&mut self) {
        if self.is_ending() {
            return;
        }
        self.effects.push(Effect::EndMerging);
        self.effects.push(Effect::Broadcast(Told::Terminate));
        self.end_as(Ending::Finish, &End::Over(self.job_id()));
    }

    /// Begins to end, and answers those whose request has not begun.
    fn end_as(&mut self, ending: Ending, why: &End) {
        self.report_upgrade();
        let mut drain = None;
        let running = self.leave_running(|draining| {
            drain = draining;
            Stage::Ending(ending)
        });
        for asked in running.waiting.into_iter().chain(drain) {
            self.answer(&asked, Err(JobError::failed(why.to_string())));
        }
    }

    /// Gives the last effect when nothing runs any more, not even beside the loop.
    pub(super) fn end_if_over(&mut self) {
        let Stage::Ending(ending) = self.stage else { return };
        let busy = self.beside > 0 && !self.planted.is(Mistake::EndWhileBusy);
        if busy || !self.are_idle(self.plan().region_indices()) {
            return;
        }
        self.stage = Stage::Over;
        let message = End::Over(self.job_id()).to_string();
        for (id, round) in std::mem::take(&mut self.rounds) {
            self.effects.push(Effect::Close(id));
            self.answer(&round.asked, Err(JobError::failed(message.clone())));
        }
        self.effects.push(Effect::End(match ending {
            Ending::Finish => JobStatus::Finished,
            Ending::Cancel => JobStatus::Canceled,
            Ending::Suspend => JobStatus::Suspended,
            Ending::Fail => JobStatus::Failed,
        }));
    }
}
