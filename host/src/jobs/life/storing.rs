//! A stored round: its modules become the job's, its output becomes visible. Each step begins only when the one before it is
//! durable, and outputs become visible one round after the other.

use regraft_model::id::{CheckpointId, JobVersion, OperatorUid};
use regraft_model::snapshot::SnapshotKind;

use super::effect::{CommitFailure, Effect, RecordFailure, Shown, StoreOutcome};
use super::failure::JobFailure;
use super::mistakes::Mistake;
use super::reason::{End, FailedRound, NotCommitted, Reason, Rewind, Trouble};
use super::round::{Phase, Round};
use super::rounds::Failed;
use super::upgraded::Upgraded;
use super::{Ending, Life, Stage};
use crate::checkpoint::store::Stored;
use crate::jobs::handle::JobError;
use crate::jobs::request::SnapshotRequest;
use crate::savepoint::permit::CommitPermit;

impl Life {
    /// The store has answered.
    pub(super) fn stored(&mut self, id: CheckpointId, outcome: StoreOutcome) {
        if let Some(savepoint) = self.known.overdue.remove(&id) {
            return self.stored_too_late(id, savepoint, &outcome);
        }
        match outcome {
            StoreOutcome::Failed { why, at_fault } => {
                if self.planted.is(Mistake::CommitBeforeDurable)
                    && let Some(permit) = CommitPermit::planted()
                {
                    return self.queue_commit(id, permit);
                }
                self.known.savepoints.remove(&id);
                let reason = match self.stage {
                    // The store says no more than that it was cancelled.
                    Stage::Ending(Ending::Cancel) => Reason::End(End::Cancelled(self.job_id())),
                    _ => Reason::Store(why),
                };
                self.round_failed(
                    id,
                    Failed {
                        at_fault,
                        ..reason.into()
                    },
                );
            }
            StoreOutcome::Occupied(why) => self.round_failed(
                id,
                Failed {
                    counts: false,
                    ..Reason::Store(why).into()
                },
            ),
            StoreOutcome::NotBegun(why) => {
                self.known.savepoints.remove(&id);
                self.beside(Effect::GiveUp(id));
                self.round_failed(id, Reason::Store(why).into());
            }
            StoreOutcome::Unclear(why) => self.unclear(id, Reason::Store(why)),
            StoreOutcome::Durable(stored) => self.durable(id, *stored),
        }
    }

    /// The store has answered for a round that had expired. What there is of it is removed now.
    fn stored_too_late(&mut self, id: CheckpointId, savepoint: bool, outcome: &StoreOutcome) {
        if savepoint && matches!(outcome, StoreOutcome::Durable(_) | StoreOutcome::Unclear(_)) {
            self.known.unclear.insert(id);
            self.remove_unclear();
        } else {
            self.known.savepoints.remove(&id);
            self.effects.push(Effect::Forget(id));
            if matches!(outcome, StoreOutcome::Durable(_) | StoreOutcome::NotBegun(_)) {
                self.beside(Effect::GiveUp(id));
            }
        }
    }

    /// The round is durable.
    fn durable(&mut self, id: CheckpointId, stored: Stored) {
        let now = self.at.now_ns;
        let Some(round) = self.rounds.get_mut(&id) else { return };
        let duration_ms = now.saturating_sub(round.started_ns) / 1_000_000;
        if let Some(saved) = round.saved_mut() {
            saved.durable(&stored, duration_ms);
        }
        let kind = round.asked.request.kind();
        if kind.commits() && self.known.committed >= Some(id) {
            return self.too_old(id);
        }
        match self.stage {
            Stage::Running(_) => {}
            Stage::Restarting(_) => return self.durable_meanwhile(id),
            Stage::Ending(_) | Stage::Over => return self.durable_too_late(id),
        }
        let overtaken = self.rounds.range(id..).any(|(_, later)| later.is_committing());
        if overtaken && !self.planted.is(Mistake::CommitOutOfOrder) {
            return self.too_old(id);
        }
        self.show(Shown::Sinks(stored.sink_states));
        if !kind.commits() {
            return self.completed(id);
        }
        self.subsume_before(id);
        match self.rounds.get(&id).map(|round| &round.asked.request) {
            Some(SnapshotRequest::Upgrade(_)) => self.record_version(id, stored.permit),
            _ => self.queue_commit(id, stored.permit),
        }
    }

    /// A round became durable while the job restarts: what it has to commit is committed by the next attempt, which finds it.
    pub(super) fn durable_meanwhile(&mut self, id: CheckpointId) {
        let Some(round) = self.rounds.get_mut(&id) else { return };
        match round.asked.request {
            // Whether the job ends with it, or goes on with other modules, is what the next attempt finds out.
            SnapshotRequest::Stop { .. } | SnapshotRequest::Upgrade(_) => round.hold(),
            SnapshotRequest::Savepoint(_) | SnapshotRequest::Checkpoint | SnapshotRequest::EndOfInput => {
                if let Some(round) = self.rounds.remove(&id) {
                    self.effects.push(Effect::Close(id));
                    self.tell_completed(id, &round);
                    if let Some(report) = self.report(id, &round) {
                        self.answer(&round.asked, Ok(report));
                    }
                }
            }
        }
    }

    /// A round became durable when the job had been ended: nothing is committed any more, but a savepoint is a savepoint.
    fn durable_too_late(&mut self, id: CheckpointId) {
        let Some(round) = self.rounds.remove(&id) else { return };
        self.effects.push(Effect::Close(id));
        self.tell_completed(id, &round);
        let Some(report) = self.report(id, &round) else { return };
        if round.asked.request.kind() == SnapshotKind::Savepoint {
            return self.answer(&round.asked, Ok(report));
        }
        let output = if matches!(self.stage, Stage::Ending(Ending::Suspend)) {
            "committed when the job is brought back"
        } else {
            "not committed"
        };
        let message = format!(
            "job {} was ended while it was being saved; what is saved is complete at {}, and its output is {output}",
            self.job_id(),
            report.path
        );
        self.answer(&round.asked, Err(JobError::failed(message)));
    }

    /// A later round has committed what this one names.
    fn too_old(&mut self, id: CheckpointId) {
        if let Some(round) = self.rounds.remove(&id) {
            self.remember(id, &round, Some(&Reason::Overtaken));
            self.effects.push(Effect::Close(id));
            self.beside(Effect::GiveUp(id));
            if round.asked.id.is_some() {
                let message = format!("a later checkpoint than {id} was complete before it");
                self.answer(&round.asked, Err(JobError::failed(message)));
            }
        }
    }

    /// The round may be durable. Only of one that ends the job does it matter now: the next attempt looks.
    fn unclear(&mut self, id: CheckpointId, reason: Reason) {
        let job_id = self.job_id();
        let ending = self.is_ending();
        let Some(round) = self.rounds.get_mut(&id) else { return };
        if ending || round.asked.request.kind() != SnapshotKind::Stop {
            if round.asked.request.savepoint().is_some() {
                self.known.unclear.insert(id);
            }
            return self.round_failed(id, reason.into());
        }
        let failed = FailedRound {
            word: round.asked.request.word(),
            id,
            job_id,
            reason,
        };
        let message = failed.to_string();
        round.hold();
        round.trouble = Some(Trouble::Round(failed));
        if self.is_running() {
            let all = self.plan().region_indices();
            self.fail(JobFailure::passing(JobError::failed(message), all));
        }
    }

    /// Tries again to remove what failed savepoints have left.
    pub(super) fn remove_unclear(&mut self) {
        for id in std::mem::take(&mut self.known.unclear) {
            self.known.savepoints.remove(&id);
            self.beside(Effect::RemoveSavepoint(id));
        }
    }

    /// Makes the modules of a durable upgrade the job's.
    pub(super) fn record_version(&mut self, id: CheckpointId, permit: CommitPermit) {
        let version = JobVersion(self.facts.version.0 + 1);
        let mut modules = self.facts.modules.clone();
        let Some(round) = self.rounds.get_mut(&id) else { return };
        let Some(new) = round.asked.request.swaps().cloned() else {
            return;
        };
        advance(round, |saved| Phase::Recording(saved, permit));
        modules.extend(new.clone());
        self.beside(Effect::RecordVersion {
            id,
            version,
            modules,
            new,
        });
    }

    /// The record of the new version is there, or not.
    pub(super) fn recorded(&mut self, id: CheckpointId, result: Result<(), RecordFailure>) {
        let job_id = self.job_id();
        let (running, restarting) = (self.is_running(), matches!(self.stage, Stage::Restarting(_)));
        if result.is_ok() && matches!(self.stage, Stage::Ending(Ending::Suspend)) {
            self.new_version(id);
            return self.complete_at_suspension(id);
        }
        let Some(round) = self.rounds.get_mut(&id) else { return };
        let failure = match result {
            Ok(()) if running => {
                let Phase::Recording(saved, permit) = std::mem::replace(&mut round.phase, Phase::Held(None)) else {
                    return;
                };
                round.phase = Phase::Held(Some(saved));
                self.new_version(id);
                return self.queue_commit(id, permit);
            }
            Ok(()) if restarting => {
                round.hold_recorded();
                return self.new_version(id);
            }
            Ok(()) => return round.hold(),
            Err(failure) => failure,
        };
        round.hold();
        round.trouble = Some(Trouble::Round(FailedRound {
            word: round.asked.request.word(),
            id,
            job_id,
            reason: Reason::Record(failure.message.clone()),
        }));
        if !running {
            return;
        }
        // The record may be there all the same: the next attempt looks, and runs what it says.
        if failure.may_pass {
            self.rewind(Rewind::Upgrade);
        } else {
            self.fail(JobFailure::fatal(JobError::failed(failure.message)));
        }
    }

    /// The job is suspended, and its new version is recorded: it is what the next process brings back, so the upgrade has come
    /// about, and its output is committed then.
    pub(super) fn complete_at_suspension(&mut self, id: CheckpointId) {
        let Some(round) = self.rounds.remove(&id) else { return };
        self.effects.push(Effect::Close(id));
        // A round whose commit failed has been announced then.
        if !matches!(round.trouble, Some(Trouble::Commit(_))) {
            self.tell_completed(id, &round);
        }
        if let Some(report) = self.report(id, &round) {
            self.answer(&round.asked, Ok(report));
        }
    }

    /// From here on the job is what the upgrade made of it.
    fn new_version(&mut self, id: CheckpointId) {
        let Some(round) = self.rounds.get(&id) else { return };
        let before = self.facts.modules.clone();
        if let Some(new) = round.asked.request.swaps() {
            self.facts.modules.extend(new.clone());
        }
        self.facts.version = JobVersion(self.facts.version.0 + 1);
        let modules = self.facts.modules.clone();
        if let Some(round) = self.rounds.get(&id)
            && let Some(new) = round.asked.request.swaps()
        {
            let before = |uid: &OperatorUid| Some((uid.clone(), before.get(uid)?.digest().to_string()));
            self.upgraded = Some(Upgraded {
                id,
                version: self.facts.version,
                url: round.url(),
                before: new.keys().filter_map(before).collect(),
            });
        }
        // Those of the version before are the way back.
        let upgraded = self.upgraded.iter();
        let before = upgraded.flat_map(|upgraded| upgraded.before.values().cloned());
        let kept = modules.values().map(|module| module.digest().to_string());
        self.effects.push(Effect::KeepModules(kept.chain(before).collect()));
        self.show(Shown::Version {
            attempt: self.facts.attempt,
            version: self.facts.version,
            modules,
        });
    }

    /// A durable round has output to commit.
    fn queue_commit(&mut self, id: CheckpointId, permit: CommitPermit) {
        if let Some(round) = self.rounds.get_mut(&id) {
            advance(round, |saved| Phase::Queued(saved, permit));
        }
        self.commit_next();
    }

    /// Commits the oldest round that waits for it, unless one is being committed.
    fn commit_next(&mut self) {
        let committing = |round: &Round| matches!(round.phase, Phase::Committing(_));
        if self.rounds.values().any(committing) {
            return;
        }
        let queued = |(_, round): &(&CheckpointId, &mut Round)| matches!(round.phase, Phase::Queued(..));
        let Some((id, round)) = self.rounds.iter_mut().find(queued) else {
            return;
        };
        let id = *id;
        if let Phase::Queued(saved, permit) = std::mem::replace(&mut round.phase, Phase::Held(None)) {
            round.phase = Phase::Committing(saved);
            self.beside(Effect::Commit(id, permit));
        }
    }

    /// The output of a round is visible, or cannot be made so for now.
    pub(super) fn committed(&mut self, id: CheckpointId, result: Result<bool, CommitFailure>) {
        match result {
            Ok(something) => {
                self.known.committed = self.known.committed.max(Some(id));
                if something {
                    self.beside(Effect::NoteCommitted(id));
                }
                self.completed(id);
            }
            Err(failure) => self.commit_failed(id, failure),
        }
        if self.is_running() {
            self.commit_next();
        }
    }

    fn commit_failed(&mut self, id: CheckpointId, failure: CommitFailure) {
        let Some(mut round) = self.rounds.remove(&id) else {
            return;
        };
        let CommitFailure { uid, message, may_pass } = failure;
        let (path, word) = (round.url(), round.asked.request.word());
        let failed = NotCommitted {
            word,
            id,
            path: path.clone(),
            uid: uid.clone(),
            message,
        };
        let error = JobError::failed(failed.to_string());
        let error = match &uid {
            Some(uid) => error.on(uid),
            None => error,
        };
        self.tell_completed(id, &round);
        if round.asked.request.savepoint().is_none() {
            self.keep(id);
        }
        if self.is_running() {
            let stop = round.asked.request.kind() == SnapshotKind::Stop;
            let failure = match &uid {
                Some(uid) if may_pass && !stop => JobFailure::passing(error.clone(), self.plan().region_of_uid(uid)),
                _ => JobFailure::fatal(error.clone()),
            };
            self.fail(failure);
        }
        if round.asked.request.swaps().is_some() && matches!(self.stage, Stage::Restarting(_)) {
            // The modules are the job's by now: the next attempt commits the output, and runs them.
            round.hold_recorded();
            round.trouble = Some(Trouble::Commit(failed));
            self.rounds.insert(id, round);
            return;
        }
        self.effects.push(Effect::Close(id));
        let path = Some(path);
        self.answer(&round.asked, Err(JobError { path, ..error }));
    }

    /// Forgets savepoints whose output a later round has committed.
    pub(super) fn forget_savepoints_before(&mut self, id: CheckpointId) {
        let later = self.known.savepoints.split_off(&id);
        for savepoint in std::mem::replace(&mut self.known.savepoints, later) {
            self.beside(Effect::ForgetSavepoint(savepoint));
        }
    }

    /// A checkpoint is complete: the oldest go.
    pub(super) fn keep(&mut self, id: CheckpointId) {
        self.known.kept.push_back(id);
        while self.known.kept.len() > self.graph().checkpoint.retain as usize {
            self.known.kept.pop_front();
        }
        self.effects.push(Effect::Confirm(id));
        self.beside(Effect::RemoveOld);
    }
}

/// Goes over to the next phase, with what is saved of the round.
fn advance(round: &mut Round, next: impl FnOnce(super::round::Saved) -> Phase) {
    round.phase = next(round.take_saved().unwrap_or_default());
}
