//! A failure, and what follows: the wait, and the next attempt of some regions. Or the end of the job.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use super::effect::{Effect, Level, Next, Over, PrepareFailure, Shown, Wish};
use super::failure::JobFailure;
use super::mistakes::Mistake;
use super::reason::{End, FallBack, Reason, Rewind, Trouble};
use super::restart::Decision;
use super::round::{Phase, Round};
use super::{Ending, Life, Running, Stage, shown};
use crate::dataflow::failure::SubtaskFailure;
use crate::graph::plan::RegionIndex;
use crate::jobs::handle::JobError;
use crate::jobs::request::Asked;
use crate::jobs::status::JobStatus;

/// Wait before another try to go back to the last checkpoint, where the restart policy gives none.
const REWIND_PAUSE: Duration = Duration::from_secs(5);

/// A restart under way.
#[derive(Debug)]
pub(super) struct Restarting {
    /// The regions that restart.
    regions: BTreeSet<RegionIndex>,
    step: Step,
    /// The job itself has not failed, so its restart policy does not end it.
    rewinding: bool,
    /// A drain that goes on when the job runs again.
    pub(super) draining: Option<Asked>,
}

#[derive(Debug)]
enum Step {
    /// Subtasks end, and the wait passes: the next attempt is not prepared before then, monotonic nanoseconds.
    Waiting(u64),
    /// The next attempt is being prepared. Regions that run may fail meanwhile.
    Preparing(Vec<JobFailure>),
}

impl Restarting {
    /// When the wait is over, monotonic nanoseconds; `None` once the next attempt is being prepared.
    pub(super) const fn until_ns(&self) -> Option<u64> {
        match self.step {
            Step::Waiting(until) => Some(until),
            Step::Preparing(_) => None,
        }
    }

    /// The drain that goes on, and the failures since the attempt was prepared.
    pub(super) fn over(self) -> (Option<Asked>, Vec<JobFailure>) {
        match self.step {
            Step::Waiting(_) => (self.draining, vec![]),
            Step::Preparing(later) => (self.draining, later),
        }
    }
}

impl Life {
    /// A subtask has failed, and ended.
    pub(super) fn subtask_failed(&mut self, failure: SubtaskFailure) {
        if let Some(subtask) = self.plan().subtask_of(&failure.uid, failure.subtask) {
            self.gone(subtask);
        }
        if failure.unisolated {
            self.effects.push(Effect::Careful(failure.uid.clone()));
        }
        let region = self.plan().region_of_uid(&failure.uid);
        let mut failure = JobFailure::of_subtask(failure, region);
        // A guest with private state cannot be asked again about a single record. The same record twice is the answer.
        if let Some((uid, record)) = failure.guilty().map(|(uid, record)| (uid.clone(), record.clone())) {
            let guilty = Some((uid, record));
            if failure.restartable && self.guilty == guilty {
                failure = failure.again();
            }
            self.guilty = guilty;
        }
        self.fail(failure);
    }

    /// The job cannot go on as it is.
    pub(super) fn fail(&mut self, failure: JobFailure) {
        match &mut self.stage {
            Stage::Ending(_) | Stage::Over => {
                let line = format!(
                    "Job {} failed while it was ending: {}",
                    self.named(),
                    failure.first_line()
                );
                return self.log(Level::Warn, line);
            }
            // It belongs to the restart that is under way, and does not count as another.
            Stage::Restarting(restarting) if failure.restartable => {
                let regions = failure.regions.clone();
                match &mut restarting.step {
                    Step::Preparing(later) => later.push(failure),
                    Step::Waiting(_) => restarting.regions.extend(failure.regions),
                }
                return self.stop(regions);
            }
            Stage::Restarting(_) => return self.give_up(failure),
            Stage::Running(_) => {}
        }
        let upgrade = |round: &&mut Round| {
            let committing = matches!(round.phase, Phase::Committing(_));
            round.asked.request.kind() == SnapshotKind::Upgrade && !committing
        };
        if let Some(round) = self.rounds.values_mut().find(upgrade) {
            // The upgrade has not come about, and the job goes on as it was before it.
            round.trouble = Some(Trouble::Failure(Arc::new(failure)));
            if round.is_acking() {
                round.hold();
            }
            return self.rewind(Rewind::Upgrade);
        }
        if failure.is_endless()
            && let Stage::Running(running) = &mut self.stage
            && let Some(drain) = running.draining.take()
        {
            // The job has not failed but the drain, without which it runs on.
            let message = format!(
                "job {} is not drained, and goes on from its last checkpoint: {failure}",
                self.job_id()
            );
            self.answer(&drain, Err(JobError::failed(message)));
            return self.rewind(Rewind::Endless);
        }
        if !failure.restartable {
            return self.give_up(failure);
        }
        match self.restarts.failed(self.at.now_ns, self.at.random) {
            Decision::Restart(wait) => self.restart(Arc::new(failure), wait),
            Decision::GiveUp => {
                let count = self.restarts.count();
                self.give_up(failure.exhausted(count));
            }
        }
    }

    /// Some regions go back to the last checkpoint, after a wait.
    fn restart(&mut self, failure: Arc<JobFailure>, wait: Duration) {
        let (first, waits) = (failure.first_line(), shown(wait));
        let line = format!("Job {} failed: {first}; it restarts in {waits:?}.", self.named());
        self.log(Level::Warn, line);
        self.show(Shown::Restart(failure.to_string()));
        // A drain cannot be undone for some regions only: those that have ended go back, too.
        let drained = self.all_ended()
            && self
                .rounds
                .values()
                .any(|round| round.asked.request.kind() == SnapshotKind::Stop);
        let regions = if failure.regions.is_empty() || drained {
            self.plan().region_indices().collect()
        } else {
            failure.regions.clone()
        };
        self.fall_back(regions, wait, FallBack::Failure(failure));
    }

    /// The whole job goes back to the last checkpoint at once, with the modules it had.
    pub(super) fn rewind(&mut self, rewind: Rewind) {
        let line = format!(
            "Job {}: {rewind}; the job goes back to its last checkpoint.",
            self.named()
        );
        self.log(Level::Warn, line);
        let all = self.plan().region_indices().collect();
        self.fall_back(all, Duration::ZERO, FallBack::Rewind(rewind));
    }

    fn fall_back(&mut self, regions: BTreeSet<RegionIndex>, wait: Duration, why: FallBack) {
        self.report_upgrade();
        self.effects.push(Effect::EndMerging);
        self.set_status(JobStatus::Restarting);
        self.stop(regions.iter().copied());
        let until = self.at.now_ns.saturating_add(wait.as_nanos() as u64);
        let rewinding = matches!(why, FallBack::Rewind(_));
        let Running { waiting, draining, .. } = self.leave_running(|draining| {
            Stage::Restarting(Restarting {
                regions,
                step: Step::Waiting(until),
                rewinding,
                draining,
            })
        });
        debug_assert!(draining.is_none());
        let message = why.to_string();
        if !self.planted.is(Mistake::KeepRoundOverFailover) {
            self.abort_all(&Reason::FallBack(why));
        }
        // The next attempt finds what is durable.
        let queued = self
            .rounds
            .iter()
            .filter(|(_, round)| matches!(round.phase, Phase::Queued(..)));
        let queued: Vec<CheckpointId> = queued.map(|(id, _)| *id).collect();
        for id in queued {
            self.durable_meanwhile(id);
        }
        if self.planted.is(Mistake::DropWaiting) {
            return;
        }
        for asked in waiting {
            self.answer(&asked, Err(JobError::failed(message.clone())));
        }
    }

    /// Leaves `Running` for the stage that is made of a drain under way; returns what else there was.
    pub(super) fn leave_running(&mut self, next: impl FnOnce(Option<Asked>) -> Stage) -> Running {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Running(mut running) => {
                self.stage = next(running.draining.take());
                *running
            }
            Stage::Restarting(restarting) => {
                self.stage = next(restarting.over().0);
                Running::default()
            }
            other => {
                self.stage = other;
                Running::default()
            }
        }
    }

    /// Gives up every round that some subtask has not acknowledged.
    pub(super) fn abort_all(&mut self, why: &Reason) {
        let acking = self.rounds.iter().filter(|(_, round)| round.is_acking());
        let acking: Vec<CheckpointId> = acking.map(|(id, _)| *id).collect();
        for id in acking {
            self.round_failed(id, why.clone().into());
        }
    }

    /// Lets the subtasks of regions end between two steps.
    pub(super) fn stop(&mut self, regions: impl IntoIterator<Item = RegionIndex>) {
        self.effects.extend(regions.into_iter().map(Effect::Stop));
    }

    /// Prepares the next attempt when its time has come, and nothing of the last one runs or is being written.
    pub(super) fn go_on_restarting(&mut self) {
        let Stage::Restarting(restarting) = &self.stage else {
            return;
        };
        let Step::Waiting(until) = restarting.step else { return };
        let regions = restarting.regions.clone();
        let busy = self.beside > 0 && !self.planted.is(Mistake::PrepareWhileStoring);
        if busy || !self.are_idle(regions.iter().copied()) || self.at.now_ns < until {
            return;
        }
        let of_upgrades = self.rounds.values().filter_map(|round| round.asked.request.swaps());
        let known = of_upgrades
            .chain([&self.facts.modules])
            .flat_map(|modules| modules.values());
        let wish = Wish {
            regions: regions.into_iter().collect(),
            known: known.cloned().collect(),
            after: self.facts.attempt,
            last_id: self.last_id(),
            committed: self.known.committed,
        };
        self.beside(Effect::Prepare(wish));
        if let Stage::Restarting(restarting) = &mut self.stage {
            restarting.step = Step::Preparing(vec![]);
        }
    }

    /// The next attempt is ready, or there is nothing left to do, or it failed.
    pub(super) fn prepared(&mut self, result: Result<Next, PrepareFailure>) {
        let Stage::Restarting(Restarting { rewinding, .. }) = self.stage else {
            return;
        };
        let PrepareFailure { error, may_pass } = match result {
            Ok(Next::Run(ready)) => return self.launch(*ready),
            Ok(Next::Over(over)) => return self.over(*over),
            Err(failure) => failure,
        };
        let cannot = if may_pass { "could not" } else { "cannot" };
        let message = format!("the job {cannot} be restarted: {}", error.message);
        let failure = JobFailure::fatal(JobError { message, ..error });
        if !may_pass {
            return self.give_up(failure);
        }
        match self.restarts.failed(self.at.now_ns, self.at.random) {
            Decision::GiveUp if rewinding => self.try_again(&failure, REWIND_PAUSE),
            Decision::GiveUp => {
                let count = self.restarts.count();
                self.give_up(failure.exhausted(count));
            }
            Decision::Restart(wait) => self.try_again(&failure, wait),
        }
    }

    fn try_again(&mut self, failure: &JobFailure, wait: Duration) {
        let (first, waits) = (failure.first_line(), shown(wait));
        let line = format!("Job {}: {first}; tried again in {waits:?}.", self.named());
        self.log(Level::Warn, line);
        self.show(Shown::Restart(failure.to_string()));
        let until = self.at.now_ns.saturating_add(wait.as_nanos() as u64);
        if let Stage::Restarting(restarting) = &mut self.stage
            && let Step::Preparing(later) = std::mem::replace(&mut restarting.step, Step::Waiting(until))
        {
            for later in later {
                restarting.regions.extend(later.regions);
            }
        }
    }

    /// The job runs again: requesters of rounds that were held are told.
    pub(super) fn answer_held(&mut self, from: &str) {
        if self.planted.is(Mistake::KeepRoundOverFailover) {
            return;
        }
        for (id, mut round) in std::mem::take(&mut self.rounds) {
            self.effects.push(Effect::Close(id));
            let runs = round.asked.request.swaps().map(|modules| {
                let mut new = modules.iter();
                new.all(|(uid, module)| self.facts.modules.get(uid).map(|now| now.digest()) == Some(module.digest()))
            });
            let trouble = round.trouble.take();
            let why = trouble.map_or_else(|| "the job was restarted".to_owned(), |trouble| trouble.to_string());
            let result = match (runs, self.report(id, &round)) {
                (Some(true), Some(report)) => Ok(report),
                (Some(_), _) => Err(JobError::failed(format!(
                    "the upgrade failed, and the job went back to {from}, with the modules it had: {why}"
                ))),
                (None, _) => Err(JobError::failed(why)),
            };
            self.answer(&round.asked, result);
        }
    }

    /// There was nothing left to run: all is saved, and committed now.
    fn over(&mut self, over: Over) {
        let Over {
            checkpoint_id,
            savepoint,
            sink_states,
        } = over;
        self.known.committed = Some(checkpoint_id);
        let line = format!(
            "Job {} had come to its end at checkpoint {checkpoint_id}, whose output is committed now.",
            self.named()
        );
        self.log(Level::Info, line);
        self.show(Shown::FinalSavepoint(savepoint.clone()));
        self.show(Shown::Sinks(sink_states));
        for (id, mut round) in std::mem::take(&mut self.rounds) {
            self.effects.push(Effect::Close(id));
            let is_it = id == checkpoint_id && round.asked.request.kind() == SnapshotKind::Stop;
            if is_it {
                if let (Some(saved), Some(path)) = (round.saved_mut(), &savepoint) {
                    saved.url = Some(path.clone());
                }
                self.tell_completed(id, &round);
            }
            let result = match self.report(id, &round) {
                Some(report) if is_it => Ok(report),
                _ => Err(JobError::failed("the job has ended")),
            };
            self.answer(&round.asked, result);
        }
        self.finish();
    }

    /// The job fails: no restart helps, or none is allowed.
    fn give_up(&mut self, failure: JobFailure) {
        let way_back = self.way_back(&failure);
        let failure = failure.with_way_back(way_back);
        // The log of a served job is what its user has; of an attached one, all is told where the run ends.
        let said = if self.settings.recovers {
            failure.to_string()
        } else {
            failure.first_line()
        };
        let line = format!("Job {} failed: {said}", self.named());
        self.log(Level::Error, line);
        let failure = Arc::new(failure);
        self.show(Shown::Failed(failure.clone()));
        self.set_status(JobStatus::Failing);
        self.stop_all(Ending::Fail, End::Failed(failure));
    }
}
