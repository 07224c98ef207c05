//! A round from its request until every subtask has acknowledged it, and how rounds end.

use std::time::Duration;

use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::snapshot::SnapshotKind;

use super::effect::{Answer, Begin, Effect, Level, Shown, Store, Told};
use super::failure::JobFailure;
use super::mistakes::Mistake;
use super::reason::{FailedRound, Reason, Rewind, Trouble};
use super::round::{Acking, Phase, Round, Saved, acknowledged};
use super::telling::level_of;
use super::{AwaitedGaps, Life, Running, Stage, ends_the_job};
use crate::dataflow::control::SubtaskSnapshot;
use crate::graph::job_graph::CheckpointMode;
use crate::graph::plan::SubtaskId;
use crate::jobs::handle::JobError;
use crate::jobs::request::{Asked, SnapshotRequest};
use crate::savepoint::permit::CommitPermit;

/// Time that an upgrade's report waits for the first output behind the swap.
const GAP_WAIT: Duration = Duration::from_secs(2);

/// Pause after which the last round of a job is taken again when it has failed.
const LAST_PAUSE: Duration = Duration::from_secs(1);

impl Life {
    /// A user asks for a snapshot: it waits for its turn, or is refused.
    pub(super) fn asked(&mut self, asked: Asked) {
        let all_ended = self.all_ended();
        let status = self.status;
        let refused = match &mut self.stage {
            Stage::Restarting(_) => format!("{status}, not RUNNING: try again when it runs"),
            Stage::Ending(_) | Stage::Over => format!("{status} and ending: nothing more can be saved"),
            Stage::Running(running) => {
                let draining = running.is_draining();
                let intermediate = asked.request.kind() == SnapshotKind::Savepoint;
                // `finish` emits once: a savepoint in the middle of it would emit again when it is restored.
                if draining || (all_ended && !intermediate) {
                    format!("{status} and ending: nothing more can be saved")
                } else {
                    return running.waiting.push_back(asked);
                }
            }
        };
        let message = format!("job {} is {refused}", self.job_id());
        self.answer(&asked, Err(JobError::failed(message)));
    }

    /// All sources wait at the end of their input: takes the savepoint that was asked for there.
    pub(super) fn all_exhausted(&mut self) {
        let exhausted = self.exhausted.len() == self.plan().sources();
        let stopping = self.rounds.values().any(|round| is_stop(&round.asked));
        let request = self.savepoint_at_end().filter(|_| exhausted && !stopping);
        if let (Stage::Running(running), Some(request)) = (&mut self.stage, request)
            && running.last_again_ns.is_none()
            && !running.waiting.iter().chain(&running.draining).any(is_stop)
        {
            running.waiting.push_front(Asked::by_the_job(request));
        }
    }

    /// The inputs of a subtask have ended: it gets no barrier any more, so it is triggered directly.
    pub(super) fn inputs_ended(&mut self, subtask: SubtaskId) {
        self.ended.insert(subtask);
        for (id, round) in &self.rounds {
            if let Phase::Acking(acking) = &round.phase
                && acking.missing.contains(&subtask)
            {
                self.effects.push(Effect::Trigger(*id, subtask));
            }
        }
        self.begin_last();
    }

    /// All input is read: the last round follows.
    fn begin_last(&mut self) {
        if !self.all_ended() {
            return;
        }
        let Stage::Running(running) = &mut self.stage else {
            return;
        };
        let last = |asked: &Asked| matches!(asked.request, SnapshotRequest::EndOfInput);
        if running.last_again_ns.is_some() || running.waiting.iter().any(last) {
            return;
        }
        let drain = |asked: &Asked| matches!(asked.request, SnapshotRequest::Stop { drain: true, .. });
        let waiting = running.waiting.iter().position(drain);
        let asked = running
            .draining
            .take()
            .or_else(|| waiting.and_then(|at| running.waiting.remove(at)));
        let asked = asked.map(drained);
        let asked = asked.unwrap_or_else(|| Asked::by_the_job(SnapshotRequest::EndOfInput));
        running.waiting.push_front(asked);
    }

    /// When the next periodic checkpoint is due, monotonic nanoseconds. A job that has ended wholly has its own last round.
    pub(super) fn checkpoint_due(&self, running: &Running, to_be_removed: usize) -> Option<u64> {
        let quiet = running.waiting.is_empty() && running.draining.is_none() && !self.all_ended();
        let alone = self.rounds.values().any(|round| round.asked.request.is_alone());
        // Checkpoints that come faster than old ones are removed wait, as in Flink's `CheckpointRequestDecider`.
        let behind = to_be_removed > self.graph().checkpoint.max_concurrent as usize;
        if !quiet || (alone && !self.planted.is(Mistake::CheckpointBesideUpgrade)) || behind {
            return None;
        }
        self.schedule.due(self.rounds.len())
    }

    /// Begins the round whose turn it is, if there is one.
    pub(super) fn begin_what_is_due(&mut self) {
        let Stage::Running(running) = &mut self.stage else {
            return;
        };
        // Nothing is saved during a drain: a job that went on from there would emit again what `finish` has emitted.
        if running.draining.is_some() {
            return;
        }
        let alone = self.rounds.is_empty();
        match running.waiting.front().map(|asked| asked.request.kind()) {
            // An upgrade that fails falls back to a checkpoint, so there must be one.
            Some(SnapshotKind::Upgrade) if alone && self.known.kept.is_empty() => {
                self.start_round(Asked::by_the_job(SnapshotRequest::Checkpoint));
            }
            Some(_) if alone => {
                let Some(asked) = running.waiting.pop_front() else {
                    return;
                };
                if matches!(asked.request, SnapshotRequest::Stop { drain: true, .. }) {
                    running.draining = Some(asked);
                    self.effects.push(Effect::Broadcast(Told::Drain));
                } else {
                    self.start_round(asked);
                }
            }
            Some(_) => {}
            None => {
                let due = match &self.stage {
                    Stage::Running(running) => self.checkpoint_due(running, self.at.to_be_removed),
                    _ => None,
                };
                if due.is_some_and(|due| due <= self.at.now_ns) {
                    self.start_round(Asked::by_the_job(SnapshotRequest::Checkpoint));
                }
            }
        }
    }

    fn start_round(&mut self, mut asked: Asked) {
        let now = self.at.now_ns;
        let id = self.next_id;
        self.next_id = id.next();
        let kind = asked.request.kind();
        let swaps = match &mut asked.request {
            SnapshotRequest::Upgrade(swap) => Some(std::mem::take(&mut swap.set)),
            _ => None,
        };
        if swaps.is_some() {
            // An upgrade that still waits for its gaps is reported with those it has.
            self.report_upgrade();
        }
        if let Stage::Running(running) = &mut self.stage {
            if ends_the_job(kind) {
                running.last_again_ns = None;
            }
            if swaps.is_some() {
                running.gaps.clear();
            }
        }
        if kind == SnapshotKind::Checkpoint {
            self.schedule.started(now);
        }
        let (log_word, job_id, now_ms) = (kind.log_word(), self.job_id(), self.at.now_ms);
        let line = format!("Triggering checkpoint {id} (type={log_word}) @ {now_ms} for job {job_id}.");
        self.log(level_of(kind), line);
        let plan = self.plan().clone();
        let acking = Acking {
            missing: plan.subtasks().collect(),
            snapshots: vec![],
        };
        let timeout = self.graph().checkpoint.timeout.as_nanos() as u64;
        let round = Round {
            asked,
            started_ns: now,
            triggered_ms: now_ms,
            deadline_ns: now.saturating_add(timeout),
            phase: Phase::Acking(acking),
            trouble: None,
        };
        self.rounds.insert(id, round);
        let exactly_once = self.graph().checkpoint.mode == CheckpointMode::ExactlyOnce;
        let begin = Begin {
            id,
            kind,
            aligned: kind != SnapshotKind::Checkpoint || exactly_once,
            swaps,
            targets: plan
                .subtasks()
                .filter(|subtask| plan.reads(*subtask) || self.ended.contains(subtask))
                .collect(),
            facts: self.facts.clone(),
        };
        self.effects.push(Effect::Begin(Box::new(begin)));
    }

    /// A subtask's part of a round has come; with the last one the round is stored.
    pub(super) fn acknowledge(&mut self, snapshot: SubtaskSnapshot) {
        let id = snapshot.id;
        let Some(round) = self.rounds.get_mut(&id) else { return };
        let Phase::Acking(acking) = &mut round.phase else {
            return;
        };
        if !acking.take(snapshot) && !self.planted.is(Mistake::StoreBeforeAcknowledged) {
            return;
        }
        let snapshots = std::mem::take(&mut acking.snapshots);
        round.phase = Phase::Storing(Saved::acknowledged(&snapshots, &self.facts.plan));
        let savepoint = round.asked.request.savepoint().cloned();
        if savepoint.is_some() {
            self.known.savepoints.insert(id);
        }
        let store = Store {
            round: acknowledged(id, round, snapshots),
            savepoint,
            // The version behind an upgrade's barrier is not yet that of the state before it.
            facts: self.facts.clone(),
        };
        self.beside(Effect::Store(Box::new(store)));
        if self.planted.is(Mistake::VersionBeforeSnapshot)
            && let Some(permit) = CommitPermit::planted()
        {
            self.record_version(id, permit);
        }
    }

    /// Gives up rounds that take too long.
    pub(super) fn expire(&mut self) {
        let now = self.at.now_ns;
        let late = |round: &Round| round.expires_ns().is_some_and(|at| now >= at);
        while self.is_running()
            && let Some((id, round)) = self.rounds.iter().find(|(_, round)| late(round))
        {
            let id = *id;
            if let Phase::Acking(acking) = &round.phase {
                let missing: Vec<SubtaskId> = acking.missing.iter().copied().collect();
                let names: Vec<String> = missing.iter().map(|subtask| self.plan().name(*subtask)).collect();
                let reason = Reason::NotAcknowledged(names);
                self.round_failed(
                    id,
                    Failed {
                        missing,
                        ..reason.into()
                    },
                );
                continue;
            }
            let savepoint = round.asked.request.savepoint().is_some();
            let reason = Reason::NotDurable(round.url());
            self.known.overdue.insert(id, savepoint);
            self.effects.push(Effect::CancelStoring(id));
            self.round_failed(id, reason.into());
        }
    }

    /// A round is given up, and nothing of it is left: its requester is told.
    pub(super) fn round_failed(&mut self, id: CheckpointId, failed: Failed) {
        let Some(mut round) = self.rounds.remove(&id) else {
            return;
        };
        let Failed {
            reason,
            at_fault,
            missing,
            counts,
        } = failed;
        let job_id = self.job_id();
        self.schedule.ended(self.at.now_ns);
        let line = format!("Checkpoint {id} of job {job_id} FAILED ({reason}).");
        if missing.is_empty() {
            self.log(Level::Warn, line);
        } else {
            let missing = missing.clone();
            self.show(Shown::Expired { id, line, missing });
        }
        self.remember(id, &round, Some(&reason));
        let request = &round.asked.request;
        let kind = request.kind();
        if request.savepoint().is_none() && round.is_acking() {
            self.beside(Effect::GiveUp(id));
        }
        let failed = FailedRound {
            word: request.word(),
            id,
            job_id,
            reason,
        };
        if request.swaps().is_some() && self.is_running() {
            // Some subtasks run new modules by now.
            round.hold();
            round.trouble = Some(Trouble::Round(failed));
            self.rounds.insert(id, round);
            return self.rewind(Rewind::Upgrade);
        }
        self.effects.push(Effect::Broadcast(Told::Aborted(id)));
        self.effects.push(Effect::Close(id));
        let message = failed.to_string();
        let error = Err(JobError::failed(message.clone()));
        if let Some(request) = round.asked.id {
            let waited_for = (!missing.is_empty()).then_some((id, missing));
            self.effects.push(Effect::Answer(Answer {
                request,
                result: error,
                waited_for,
            }));
        }
        let by_the_job = round.asked.id.is_none();
        self.after_failed_round(kind, message, at_fault.as_ref(), by_the_job, counts);
    }

    /// Decides what follows a round that was given up.
    fn after_failed_round(
        &mut self,
        kind: SnapshotKind,
        message: String,
        at_fault: Option<&OperatorUid>,
        by_the_job: bool,
        counts: bool,
    ) {
        let all_ended = self.all_ended();
        let none_kept = self.known.kept.is_empty();
        let Stage::Running(running) = &mut self.stage else {
            return;
        };
        let first_upgrades = running
            .waiting
            .front()
            .is_some_and(|first| first.request.kind() == SnapshotKind::Upgrade);
        if kind == SnapshotKind::Checkpoint
            && first_upgrades
            && none_kept
            && let Some(upgrade) = running.waiting.pop_front()
        {
            let message = format!("the upgrade has not begun, since there is no checkpoint to fall back to: {message}");
            return self.answer(&upgrade, Err(JobError::failed(message)));
        }
        if !by_the_job {
            let last = |asked: &Asked| ends_the_job(asked.request.kind());
            if kind == SnapshotKind::Stop && all_ended && !running.waiting.iter().any(last) {
                // A drained job has not read all of its input: it goes on where it was before the drain.
                self.rewind(Rewind::Drain);
            }
            return;
        }
        if let Some(uid) = at_fault.filter(|_| ends_the_job(kind)) {
            // At its end the same input gives the same state, which can never be saved.
            return self.fail(JobFailure::fatal(JobError::failed(message).on(uid)));
        }
        if counts && self.schedule.failed() {
            let tolerated = self.graph().checkpoint.tolerable_failures;
            let error = JobError::failed(format!("{message}; tolerable-failures = {tolerated}"));
            let all = self.plan().region_indices();
            return self.fail(JobFailure::passing(error, all));
        }
        if ends_the_job(kind)
            && let Stage::Running(running) = &mut self.stage
        {
            running.last_again_ns = Some(self.at.now_ns.saturating_add(LAST_PAUSE.as_nanos() as u64));
        }
    }

    /// Takes the last round of a job until it succeeds, with a pause: what failed at once fails at once again.
    pub(super) fn take_last_again(&mut self) {
        let Stage::Running(running) = &mut self.stage else {
            return;
        };
        match running.last_again_ns {
            // A stop that was asked for may have been under way when all input was read, and may have failed.
            None => self.all_exhausted(),
            Some(again) if self.at.now_ns >= again => {
                running.last_again_ns = None;
                self.all_exhausted();
                self.begin_last();
            }
            Some(_) => {}
        }
    }

    /// A later round is durable: earlier ones that are not acknowledged have no use any more.
    pub(super) fn subsume_before(&mut self, id: CheckpointId) {
        let earlier = self.rounds.range(..id).filter(|(_, round)| round.is_acking());
        let earlier: Vec<CheckpointId> = earlier.map(|(id, _)| *id).collect();
        for earlier in earlier {
            self.effects.push(Effect::Broadcast(Told::Aborted(earlier)));
            if let Some(round) = self.rounds.remove(&earlier) {
                self.remember(earlier, &round, Some(&Reason::Subsumed(id)));
                self.effects.push(Effect::Close(earlier));
                self.beside(Effect::GiveUp(earlier));
            }
        }
    }

    /// The round is durable and, where it commits, committed.
    pub(super) fn completed(&mut self, id: CheckpointId) {
        let Some(round) = self.rounds.remove(&id) else { return };
        let kind = round.asked.request.kind();
        let committed = kind.commits();
        self.effects.push(Effect::Broadcast(Told::Completed { id, committed }));
        self.tell_completed(id, &round);
        if committed {
            self.forget_savepoints_before(id);
            self.remove_unclear();
        }
        if round.asked.request.savepoint().is_none() {
            self.keep(id);
        }
        let report = self.report(id, &round);
        self.effects.push(Effect::Close(id));
        if let Some(modules) = round.asked.request.swaps() {
            let plan = self.facts.plan.clone();
            let expected = modules.keys().map(|uid| plan.parallelism_of(uid) as usize).sum();
            let until_ns = self.at.now_ns.saturating_add(GAP_WAIT.as_nanos() as u64);
            if let (Stage::Running(running), Some(report)) = (&mut self.stage, report) {
                running.awaiting = Some(AwaitedGaps {
                    asked: round.asked,
                    report,
                    until_ns,
                    expected,
                });
            } else if let Some(report) = self.report(id, &round) {
                self.answer(&round.asked, Ok(report));
            }
        } else if let Some(report) = report {
            self.answer(&round.asked, Ok(report));
        }
        if ends_the_job(kind) {
            self.finish();
        }
    }
}

/// A round that is given up.
pub(super) struct Failed {
    pub(super) reason: Reason,
    /// The operator whose state can never be saved as it is.
    pub(super) at_fault: Option<OperatorUid>,
    /// Subtasks that had not acknowledged a round that expired.
    pub(super) missing: Vec<SubtaskId>,
    /// True if it is one of the failures that `checkpoint.tolerable-failures` limits.
    pub(super) counts: bool,
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            at_fault: None,
            missing: vec![],
            counts: true,
        }
    }
}

impl Running {
    /// True if the job is being drained, or will be.
    fn is_draining(&self) -> bool {
        let drain = |asked: &Asked| matches!(asked.request, SnapshotRequest::Stop { drain: true, .. });
        self.draining.is_some() || self.waiting.iter().any(drain)
    }
}

const fn is_stop(asked: &Asked) -> bool {
    matches!(asked.request, SnapshotRequest::Stop { .. })
}

/// The round of a drain once all has ended.
fn drained(asked: Asked) -> Asked {
    let request = match asked.request {
        SnapshotRequest::Stop { target, .. } => SnapshotRequest::Stop { target, drain: false },
        other => other,
    };
    Asked { request, ..asked }
}
