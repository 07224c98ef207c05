//! A round: when it begins, what it is told, how it ends. Beginning and ending are here; what happens to its files is in
//! `storing`.

use std::sync::Arc;
use std::time::Duration;

use regraft_model::id::{CheckpointId, OperatorUid};

use super::failover::JobFailure;
use super::{AwaitedGaps, Background, Controller, Ending, Stage, plain, reply};
use crate::checkpoint::round::Acknowledged;
use crate::dataflow::control::{Control, SubtaskId, locked};
use crate::dataflow::element::CheckpointBarrier;
use crate::graph::job_graph::CheckpointMode;
use crate::jobs::handle::{Gap, JobError, SnapshotReport, SnapshotRequest};
use crate::jobs::view::{RoundSummary, RoundView, SubtaskRound};
use crate::storage::Storage;
use regraft_model::snapshot::SnapshotKind;

/// How long an upgrade's report waits for the first output behind the swap.
const GAP_WAIT: Duration = Duration::from_secs(2);

/// How long after the last round of a job has failed it is taken again.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leg {
    /// Some subtask has not acknowledged.
    Acking,
    /// Its files are being written.
    Storing,
    /// Its modules are becoming the job's.
    Flipping,
    /// It is durable, and waits for an earlier one to be committed.
    Queued,
    /// Its output is becoming visible.
    Committing,
    /// Nothing happens to it until the job goes on.
    Held,
}

/// A round from its trigger to its commit.
pub(super) struct Flight {
    pub(super) request: SnapshotRequest,
    pub(super) leg: Leg,
    /// Monotonic nanoseconds.
    pub(super) started_ns: u64,
    /// Milliseconds since the Unix epoch.
    triggered_ms: i64,
    /// When it is given up, monotonic nanoseconds.
    deadline_ns: u64,
    /// The checkpoint that what is handed over is the changes since.
    base: Option<CheckpointId>,
    /// Where it is stored.
    pub(super) target: Option<Storage>,
    /// Complete once it is stored.
    pub(super) report: Option<SnapshotReport>,
    /// Size of all files that it refers to, once it is stored.
    pub(super) full_bytes: u64,
    pub(super) subtasks: Vec<SubtaskRound>,
    /// What whoever asked is told when the job goes on, where it is not what they asked for.
    pub(super) why: Option<String>,
    /// What held it up, of one that has expired.
    pub(super) slow: Option<String>,
}

impl Flight {
    /// Whether no other round may be under way beside it.
    pub(super) fn is_alone(&self) -> bool {
        self.request.kind != SnapshotKind::Checkpoint
    }

    /// When it is to be given up although it is being stored. One that ends the job is not: whether it is durable must be known.
    fn stored_until_ns(&self) -> Option<u64> {
        (self.leg == Leg::Storing && self.request.kind != SnapshotKind::Stop).then_some(self.deadline_ns)
    }

    /// The word for it in messages to whoever asked.
    const fn word(&self) -> &'static str {
        if self.request.savepoint_dir.is_some() {
            "savepoint"
        } else {
            "checkpoint"
        }
    }
}

impl Controller {
    /// When the next periodic checkpoint is due, monotonic nanoseconds.
    pub(super) fn checkpoint_due(&self) -> Option<u64> {
        // What has ended wholly has its own last round.
        let quiet =
            self.is_running() && self.waiting.is_empty() && self.after_end.is_none() && !self.rounds.all_ended();
        if !quiet || self.flights.values().any(Flight::is_alone) || self.is_behind_with_removing() {
            return None;
        }
        self.schedule.due(self.flights.len())
    }

    /// Whether old checkpoints are removed more slowly than new ones come: then those wait, as in Flink
    /// (`CheckpointRequestDecider`).
    fn is_behind_with_removing(&self) -> bool {
        self.job.checkpoints.to_be_removed() > self.job.graph.checkpoint.max_concurrent as usize
    }

    /// Begins the round whose turn it is, if there is one.
    pub(super) fn begin_what_is_due(&mut self) {
        // Nothing is saved while a job is drained: whoever went on from there would be given again what `finish` has given.
        if !self.is_running() || self.after_end.is_some() {
            return;
        }
        let alone = self.flights.is_empty();
        match self.waiting.front().map(|request| request.kind) {
            // What it falls back to, should it fail.
            Some(SnapshotKind::Upgrade) if alone && self.kept.is_empty() => self.begin(plain(SnapshotKind::Checkpoint)),
            Some(_) if alone => {
                if let Some(request) = self.waiting.pop_front() {
                    self.begin_asked(request);
                }
            }
            Some(_) => {}
            None => {
                if self.checkpoint_due().is_some_and(|due| due <= self.now_ns()) {
                    self.begin(plain(SnapshotKind::Checkpoint));
                }
            }
        }
    }

    /// Begins what was asked for; for a drain that is the end of all sources, and its round follows when all has ended.
    fn begin_asked(&mut self, mut request: SnapshotRequest) {
        if std::mem::take(&mut request.drain) {
            self.after_end = Some(request);
            self.broadcast(&Control::Drain);
        } else {
            self.begin(request);
        }
    }

    fn begin(&mut self, mut request: SnapshotRequest) {
        let (now, now_ms) = (self.now_ns(), self.clock.now_ms());
        if matches!(request.kind, SnapshotKind::Stop | SnapshotKind::EndOfInput) {
            self.last_again_ns = None;
        }
        let deadline = now.saturating_add(self.job.graph.checkpoint.timeout.as_nanos() as u64);
        let begun = self.rounds.begin(request.kind, now_ms, deadline);
        if request.kind == SnapshotKind::Checkpoint {
            self.schedule.started(now);
        }
        tracing::info!(
            "Triggering checkpoint {} (type={}) @ {now_ms} for job {}.",
            begun.id,
            request.kind.log_word(),
            self.job.job_id
        );
        let base = self.job.checkpoints.begin(begun.id, request.kind, &self.facts);
        let swaps = request.swap.as_mut().map(|swap| std::mem::take(&mut swap.set));
        let barrier = Arc::new(CheckpointBarrier {
            id: begun.id,
            kind: request.kind,
            swaps,
            base,
            aligned: self.is_aligned(request.kind),
        });
        if request.swap.is_some() {
            // An upgrade that still waits for its gaps is reported with those it has.
            self.report_upgrade();
            self.gaps.clear();
        }
        let flight = Flight {
            request,
            leg: Leg::Acking,
            started_ns: now,
            triggered_ms: now_ms,
            deadline_ns: deadline,
            base,
            target: None,
            report: None,
            full_bytes: 0,
            subtasks: vec![],
            why: None,
            slow: None,
        };
        self.flights.insert(begun.id, flight);
        for target in begun.targets {
            self.send(target, Control::Trigger(barrier.clone()));
        }
    }

    /// When a round is to be given up that is being stored, monotonic nanoseconds.
    pub(super) fn stored_until_ns(&self) -> Option<u64> {
        let running = self.is_running().then_some(&self.flights).into_iter().flatten();
        running.filter_map(|(_, flight)| flight.stored_until_ns()).min()
    }

    /// Gives up rounds that take too long to be stored.
    pub(super) fn expire_stored(&mut self, now: u64) {
        let late = |flight: &Flight| flight.stored_until_ns().is_some_and(|until| now >= until);
        while self.is_running()
            && let Some((id, flight)) = self.flights.iter().find(|(_, flight)| late(flight))
        {
            let id = *id;
            let path = flight.target.as_ref().map(Storage::url).unwrap_or_default();
            let savepoint = flight.request.savepoint_dir.is_some();
            self.overdue.insert(id, flight.target.clone().filter(|_| savepoint));
            if !savepoint {
                self.job.checkpoints.expire(id);
            }
            self.round_failed(
                id,
                &format!("expired before completing; all acked, and still being written to {path}"),
            );
        }
    }

    fn is_aligned(&self, kind: SnapshotKind) -> bool {
        kind != SnapshotKind::Checkpoint || self.job.graph.checkpoint.mode == CheckpointMode::ExactlyOnce
    }

    pub(super) fn trigger_directly(&self, id: CheckpointId, subtask: SubtaskId) {
        if let Some(flight) = self.flights.get(&id) {
            let (kind, base) = (flight.request.kind, flight.base);
            // A subtask that has ended has nothing to swap that would still run.
            let barrier = Arc::new(CheckpointBarrier {
                id,
                kind,
                swaps: None,
                base,
                aligned: self.is_aligned(kind),
            });
            self.send(subtask, Control::Trigger(barrier));
        }
    }

    /// Every subtask has acknowledged.
    pub(super) fn acknowledged(&mut self, round: Acknowledged) {
        let ms = |ns: Option<u64>| ns.unwrap_or(0) as f64 / 1e6;
        let version = self.facts.version;
        let job_id = self.job.job_id;
        let mut subtasks = vec![];
        for part in &round.snapshots {
            let uids = self.job.chains.get(part.subtask.chain as usize).into_iter().flatten();
            subtasks.extend(uids.map(|uid| SubtaskRound {
                uid: uid.clone(),
                subtask: part.subtask.index,
                align_ms: ms(Some(part.align_ns)),
                sync_ms: ms(Some(part.sync_ns)),
                async_ms: ms(Some(part.async_ns)),
                bytes: 0,
                state_bytes: 0,
            }));
        }
        let Some(flight) = self.flights.get_mut(&round.id) else {
            return;
        };
        flight.subtasks = subtasks;
        flight.leg = Leg::Storing;
        flight.report = Some(SnapshotReport {
            job_id,
            path: String::new(),
            checkpoint_id: round.id,
            format: flight.request.layout.to_string(),
            bytes: 0,
            duration_ms: 0,
            align_ms: ms(round.snapshots.iter().map(|s| s.align_ns).max()),
            sync_ms: ms(round.snapshots.iter().map(|s| s.sync_ns).max()),
            swap_ms: ms(round.snapshots.iter().map(|s| s.swap_ns).max()),
            gaps: vec![],
            version,
        });
        self.store(round);
    }

    /// The round is given up, and nothing of it is left: whoever asked is told.
    pub(super) fn round_failed(&mut self, id: CheckpointId, why: &str) {
        self.round_failed_for(id, why, None);
    }

    /// The same, where it may be that the state of an operator can never be saved as it is.
    pub(super) fn round_failed_for(&mut self, id: CheckpointId, why: &str, at_fault: Option<&OperatorUid>) {
        let Some(mut flight) = self.flights.remove(&id) else {
            return;
        };
        let now = self.now_ns();
        self.schedule.ended(now);
        let slow = flight.slow.take().map(|slow| format!(" {slow}")).unwrap_or_default();
        tracing::warn!("Checkpoint {id} of job {} FAILED ({why}).{slow}", self.job.job_id);
        self.remember(id, &flight, Some(why));
        if flight.request.savepoint_dir.is_none() && flight.leg == Leg::Acking {
            self.drop_files(id);
        }
        let message = format!("{} {id} of job {} FAILED ({why})", flight.word(), self.job.job_id);
        if flight.request.swap.is_some() && self.is_running() {
            // Some subtasks run new modules by now.
            flight.why = Some(message);
            flight.leg = Leg::Held;
            self.flights.insert(id, flight);
            self.rewind("an upgrade failed");
            return;
        }
        self.broadcast(&Control::Aborted(id));
        let kind = flight.request.kind;
        let nobody_asked = flight.request.reply.is_none();
        let told = if slow.is_empty() {
            message.clone()
        } else {
            format!("{message}.{slow}")
        };
        reply(&mut flight.request, Err(JobError::failed(told)));
        if !self.is_running() {
            return;
        }
        if kind == SnapshotKind::Checkpoint
            && let Some(mut upgrade) = self.take_upgrade_in_waiting()
        {
            let message = format!("the upgrade has not begun, since there is no checkpoint to fall back to: {message}");
            reply(&mut upgrade, Err(JobError::failed(message)));
            return;
        }
        if nobody_asked {
            self.checkpoint_failed(kind, message, at_fault);
        } else if kind == SnapshotKind::Stop && self.rounds.all_ended() && self.waiting.is_empty() {
            // A drained job has not read all of its input: it goes on where it was before the drain.
            self.rewind("it was drained, and its savepoint failed");
        }
    }

    /// An upgrade that waits for the first checkpoint of the job.
    fn take_upgrade_in_waiting(&mut self) -> Option<SnapshotRequest> {
        let first = self.waiting.front()?;
        let waits = first.kind == SnapshotKind::Upgrade && self.kept.is_empty();
        if waits { self.waiting.pop_front() } else { None }
    }

    /// A round that the job itself takes has failed.
    fn checkpoint_failed(&mut self, kind: SnapshotKind, message: String, at_fault: Option<&OperatorUid>) {
        if let (SnapshotKind::Stop | SnapshotKind::EndOfInput, Some(uid)) = (kind, at_fault) {
            // The job has come to its end, where the same input gives the same state.
            self.fail(JobFailure::fatal(message).on(uid));
            return;
        }
        if self.schedule.failed() {
            let tolerated = self.job.graph.checkpoint.tolerable_failures;
            let message = format!("{message}; tolerable-failures = {tolerated}");
            self.fail(JobFailure::new(message, 0..self.job.regions.len()));
            return;
        }
        if matches!(kind, SnapshotKind::Stop | SnapshotKind::EndOfInput) {
            self.last_again_ns = Some(self.now_ns() + LAST_PAUSE.as_nanos() as u64);
        }
    }

    /// The last round of a job is taken until it succeeds, with a pause: what failed at once fails at once again.
    pub(super) fn take_last_again(&mut self, now: u64) {
        match self.last_again_ns {
            // A stop that somebody asked for may have been under way when all input was read, and may have failed.
            None => self.all_exhausted(),
            Some(again) if now >= again => {
                self.last_again_ns = None;
                self.all_exhausted();
                self.all_ended();
            }
            Some(_) => {}
        }
    }

    /// A later round of the same kind is durable: an earlier one that is not has no use any more.
    pub(super) fn subsume_before(&mut self, id: CheckpointId) {
        let earlier = self.flights.range(..id).filter(|(_, flight)| flight.leg == Leg::Acking);
        let earlier: Vec<CheckpointId> = earlier.map(|(id, _)| *id).collect();
        for earlier in earlier {
            self.rounds.abort(earlier);
            self.broadcast(&Control::Aborted(earlier));
            if let Some(flight) = self.flights.remove(&earlier) {
                self.remember(earlier, &flight, Some(&format!("subsumed by checkpoint {id}")));
                self.drop_files(earlier);
            }
        }
    }

    /// The round is durable and, where it commits, committed.
    pub(super) fn completed(&mut self, id: CheckpointId) {
        let Some(mut flight) = self.flights.remove(&id) else {
            return;
        };
        let kind = flight.request.kind;
        self.broadcast(&Control::Completed {
            id,
            committed: kind.commits(),
        });
        self.tell_completed(id, &flight);
        if kind.commits() {
            self.forget_savepoints_before(id);
            self.remove_unclear();
        }
        if flight.request.savepoint_dir.is_none() {
            self.keep(id);
        }
        let Some(report) = flight.report.take() else { return };
        match &flight.request.swap {
            Some(swap) => {
                let width = |uid: &OperatorUid| self.job.graph.node(uid.as_str()).map_or(0, |node| node.parallelism);
                let expected = swap.modules.keys().map(|uid| width(uid) as usize).sum();
                self.awaiting_gaps = Some(AwaitedGaps {
                    report,
                    request: flight.request,
                    until: self.now_ns() + GAP_WAIT.as_nanos() as u64,
                    expected,
                });
            }
            None => reply(&mut flight.request, Ok(report)),
        }
        if matches!(kind, SnapshotKind::Stop | SnapshotKind::EndOfInput) {
            self.finish();
        }
    }

    /// The round is durable: it is logged, and shown.
    pub(super) fn tell_completed(&mut self, id: CheckpointId, flight: &Flight) {
        let Some(report) = &flight.report else { return };
        let now = self.now_ns();
        self.schedule.ended(now);
        if flight.request.kind != SnapshotKind::Savepoint {
            self.schedule.completed();
        }
        tracing::info!(
            "Completed checkpoint {id} for job {} ({} bytes in {} ms).",
            self.job.job_id,
            report.bytes,
            report.duration_ms
        );
        {
            let mut state = locked(&self.shared.state);
            state.rounds += 1;
            state.last_round = Some(RoundSummary {
                checkpoint_id: id,
                kind: flight.request.kind,
                completed_at: self.clock.now_ms(),
                bytes: report.bytes,
                full_bytes: flight.full_bytes,
                duration_ms: report.duration_ms,
                sync_ms: report.sync_ms,
                align_ms: report.align_ms,
                path: report.path.clone(),
            });
            if flight.request.kind == SnapshotKind::Stop {
                state.final_savepoint = Some(report.path.clone());
            }
        }
        self.remember(id, flight, None);
    }

    /// Shows how a round went.
    pub(super) fn remember(&self, id: CheckpointId, flight: &Flight, failure: Option<&str>) {
        let status = if failure.is_some() { "FAILED" } else { "COMPLETED" };
        let round = RoundView {
            checkpoint_id: id,
            kind: flight.request.kind,
            status: status.to_owned(),
            triggered_at: flight.triggered_ms,
            duration_ms: (self.now_ns() - flight.started_ns) / 1_000_000,
            bytes: flight.report.as_ref().map_or(0, |report| report.bytes),
            full_bytes: flight.full_bytes,
            path: flight.target.as_ref().map(Storage::url),
            failure: failure.map(str::to_owned),
            subtasks: flight.subtasks.clone(),
        };
        locked(&self.shared.state).remember(round);
    }

    /// All is done, saved and committed. A job that was cancelled, or has failed, while its last output was being committed
    /// stays so.
    pub(super) fn finish(&mut self) {
        if matches!(self.stage, Stage::Ending(_)) {
            return;
        }
        self.stage = Stage::Ending(Ending::Finish);
        self.job.checkpoints.end();
        self.broadcast(&Control::Terminate);
        let message = format!("job {} has ended: nothing more can be saved", self.job.job_id);
        let mut waiting: Vec<_> = self.waiting.drain(..).chain(self.after_end.take()).collect();
        for request in &mut waiting {
            reply(request, Err(JobError::failed(message.clone())));
        }
    }

    /// Reports an upgrade with the gaps that are known.
    pub(super) fn report_upgrade(&mut self) {
        if let Some(mut awaiting) = self.awaiting_gaps.take() {
            let id = awaiting.report.checkpoint_id;
            let of_it = self.gaps.iter().filter(|gap| gap.id == id);
            awaiting.report.gaps = of_it.map(Gap::from).collect();
            reply(&mut awaiting.request, Ok(awaiting.report));
        }
    }

    /// Forgets savepoints whose output a later round has committed.
    fn forget_savepoints_before(&mut self, id: CheckpointId) {
        let later = self.savepoints.split_off(&id);
        for savepoint in std::mem::replace(&mut self.savepoints, later) {
            let directory = self.job.directory.clone();
            self.beside(async move {
                if let Err(error) = directory.forget_savepoint(savepoint).await {
                    tracing::warn!("the record of a savepoint could not be removed: {error}");
                }
                Background::Noted
            });
        }
    }

    /// A checkpoint is complete: the oldest go.
    pub(super) fn keep(&mut self, id: CheckpointId) {
        self.kept.push_back(id);
        while self.kept.len() > self.job.graph.checkpoint.retain as usize {
            self.kept.pop_front();
        }
        self.job.checkpoints.confirm(id);
        let checkpoints = self.job.checkpoints.clone();
        self.beside(async move {
            checkpoints.remove_old().await;
            Background::Removed
        });
    }

    /// Old checkpoints have gone, which the next one may have waited for.
    pub(super) fn removed(&mut self) {
        let checkpoints = self.job.checkpoints.clone();
        self.beside(async move {
            checkpoints.merge_long().await;
            Background::Noted
        });
    }

    /// What a round has written that is of no use goes, and what it is based on may go.
    pub(super) fn drop_files(&mut self, id: CheckpointId) {
        let checkpoints = self.job.checkpoints.clone();
        self.beside(async move {
            checkpoints.give_up(id).await;
            Background::Noted
        });
    }
}
