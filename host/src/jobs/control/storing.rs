//! What happens to the files of a round, beside the loop: stored, then its modules become the job's. Each step begins only
//! when the one before it is durable.

use std::collections::BTreeMap;

use regraft_model::id::{CheckpointId, JobVersion, OperatorUid};

use super::failover::JobFailure;
use super::rounds::{Flight, Leg};
use super::{Background, Controller, Ending, Stage, reply};
use crate::checkpoint::round::Acknowledged;
use crate::checkpoint::store::{JobFacts, StoreAs, Stored, store};
use crate::dataflow::control::locked;
use crate::dataflow::operator::dead_letters;
use crate::dataflow::sink::blackhole;
use crate::jobs::attempt::{descriptions, digests};
use crate::jobs::commit::Handles;
use crate::jobs::handle::JobError;
use crate::jobs::job::Job;
use crate::jobs::records::{RecordError, SavepointRecord, VersionRecord};
use crate::savepoint::metadata::{Owner, Trigger};
use crate::storage::{Storage, StoreError, paths};
use regraft_model::snapshot::SnapshotKind;

/// What became of a round's files.
pub(super) enum StoreOutcome {
    /// The round is durable.
    Durable(Box<Stored>),
    /// It is not, and nothing of it is left: why, and the operator whose state can never be saved as it is.
    Failed(String, Option<OperatorUid>),
    /// It may be: the store did not say, and does not let it be removed.
    Unclear(String),
}

impl Controller {
    /// Writes the round's files.
    pub(super) fn store(&mut self, round: Acknowledged) {
        let id = round.id;
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let target = match &flight.request.savepoint_dir {
            Some(dir) => {
                let name = paths::savepoint(self.job.job_id, self.job.host.environment.random() as u64);
                self.job.host.stores.open(dir).and_then(|dir| dir.child(&name))
            }
            None => self.job.directory.checkpoint(id),
        };
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                self.drop_files(id);
                return self.round_failed(id, &error.to_string());
            }
        };
        flight.target = Some(target.clone());
        let user = flight.request.savepoint_dir.is_some();
        let how = StoreAs {
            layout: flight.request.layout,
            trigger: trigger(round.kind),
            owner: if user { Owner::User } else { Owner::Host },
            completed_ms: self.clock.now_ms(),
        };
        // The version that goes on behind an upgrade's barrier is not yet that of the state before it.
        let facts = self.facts.clone();
        let job = self.job.clone();
        if user {
            self.savepoints.insert(id);
        }
        self.beside(async move {
            let outcome = if user {
                store_savepoint(&job, round, &facts, &target, how).await
            } else {
                store_checkpoint(&job, round, &facts, how).await
            };
            Background::Stored(id, outcome)
        });
    }

    /// The store has answered.
    pub(super) fn stored(&mut self, id: CheckpointId, outcome: StoreOutcome) {
        if let Some(savepoint) = self.overdue.remove(&id) {
            return self.stored_too_late(id, savepoint, &outcome);
        }
        match outcome {
            StoreOutcome::Failed(why, at_fault) => {
                self.savepoints.remove(&id);
                self.round_failed_for(id, &why, at_fault.as_ref());
            }
            StoreOutcome::Unclear(why) => self.unclear(id, why),
            StoreOutcome::Durable(stored) => self.durable(id, *stored),
        }
    }

    /// The store has answered for a round that was given up meanwhile. Of a checkpoint nothing is left; a savepoint goes now.
    fn stored_too_late(&mut self, id: CheckpointId, savepoint: Option<Storage>, outcome: &StoreOutcome) {
        match (savepoint, outcome) {
            (Some(storage), StoreOutcome::Durable(_) | StoreOutcome::Unclear(_)) => {
                self.unclear.push((id, storage));
                self.remove_unclear();
            }
            _ => {
                self.savepoints.remove(&id);
            }
        }
    }

    fn durable(&mut self, id: CheckpointId, stored: Stored) {
        let now = self.now_ns();
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        if let (Some(report), Some(target)) = (&mut flight.report, &flight.target) {
            report.path = target.url();
            report.bytes = stored.bytes;
            report.duration_ms = (now - flight.started_ns) / 1_000_000;
        }
        flight.full_bytes = stored.full_bytes;
        for part in &mut flight.subtasks {
            let records = stored.subtasks.get(&part.uid);
            if let Some(record) = records.and_then(|records| records.get(part.subtask as usize)) {
                (part.bytes, part.state_bytes) = (record.written_bytes, record.state_bytes);
            }
        }
        let (kind, swaps) = (flight.request.kind, flight.request.swap.is_some());
        if kind.commits() && self.committed >= Some(id) {
            return self.too_old(id);
        }
        match self.stage {
            Stage::Running => {}
            Stage::Restarting(_) => return self.durable_meanwhile(id),
            Stage::Ending(_) => return self.durable_too_late(id),
        }
        let committing = |flight: &Flight| matches!(flight.leg, Leg::Flipping | Leg::Committing | Leg::Queued);
        let overtaken = self.flights.range(id..).any(|(_, later)| committing(later));
        if overtaken {
            return self.too_old(id);
        }
        locked(&self.shared.state).sink_totals = totals(&stored.sink_states);
        if kind.commits() {
            self.subsume_before(id);
        }
        if swaps {
            self.flip(id, stored.handles);
        } else if kind.commits() {
            self.queue_commit(id, stored.handles);
        } else {
            self.completed(id);
        }
    }

    /// A round became durable while the job restarts. What it has to commit is committed by the next attempt, which finds it.
    pub(super) fn durable_meanwhile(&mut self, id: CheckpointId) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        flight.leg = Leg::Held;
        match flight.request.kind {
            // Whether the job ends with it, or goes on with other modules, is what the next attempt finds out.
            SnapshotKind::Stop | SnapshotKind::Upgrade => {}
            SnapshotKind::Savepoint | SnapshotKind::Checkpoint | SnapshotKind::EndOfInput => {
                if let Some(mut flight) = self.flights.remove(&id) {
                    self.tell_completed(id, &flight);
                    if let Some(report) = flight.report.take() {
                        reply(&mut flight.request, Ok(report));
                    }
                }
            }
        }
    }

    /// A round became durable when the job had been ended: nothing is committed any more, but a savepoint is a savepoint.
    fn durable_too_late(&mut self, id: CheckpointId) {
        let Some(mut flight) = self.flights.remove(&id) else {
            return;
        };
        self.tell_completed(id, &flight);
        let Some(report) = flight.report.take() else { return };
        if flight.request.kind == SnapshotKind::Savepoint {
            return reply(&mut flight.request, Ok(report));
        }
        let output = if matches!(self.stage, Stage::Ending(Ending::Suspend)) {
            "committed when the job is brought back"
        } else {
            "not committed"
        };
        let message = format!(
            "job {} was ended while it was being saved; what is saved is complete at {}, and its output is {output}",
            self.job.job_id, report.path
        );
        reply(&mut flight.request, Err(JobError::failed(message)));
    }

    /// A later round has committed what this one names.
    fn too_old(&mut self, id: CheckpointId) {
        if let Some(flight) = self.flights.remove(&id) {
            self.remember(id, &flight, Some("a later checkpoint was complete before it"));
            self.drop_files(id);
        }
    }

    /// Nobody knows whether the round is durable. Only of one that ends the job does it matter now: the next attempt looks.
    fn unclear(&mut self, id: CheckpointId, why: String) {
        let stops = self
            .flights
            .get(&id)
            .is_some_and(|flight| flight.request.kind == SnapshotKind::Stop);
        if !stops || matches!(self.stage, Stage::Ending(_)) {
            if let Some(storage) = self.flights.get(&id).and_then(|flight| flight.target.clone()) {
                self.unclear.push((id, storage));
            }
            return self.round_failed(id, &why);
        }
        let message = format!("savepoint {id} of job {} FAILED ({why})", self.job.job_id);
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.leg = Leg::Held;
            flight.why = Some(message.clone());
        }
        if self.is_running() {
            self.fail(JobFailure::new(message, 0..self.job.regions.len()));
        }
    }

    /// Tries again to remove what savepoints have left that failed.
    pub(super) fn remove_unclear(&mut self) {
        for (id, storage) in std::mem::take(&mut self.unclear) {
            self.savepoints.remove(&id);
            let directory = self.job.directory.clone();
            self.beside(async move {
                let removed = async {
                    directory.doubt_savepoint(id).await?;
                    remove(&storage).await?;
                    Ok::<_, RecordError>(directory.forget_savepoint(id).await?)
                };
                match removed.await {
                    Ok(()) => Background::Noted,
                    Err(_) => Background::Unclear(id, storage),
                }
            });
        }
    }

    /// Makes the modules of an upgrade the job's: a record that is created, never overwritten.
    fn flip(&mut self, id: CheckpointId, handles: Handles) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let Some(swap) = &flight.request.swap else { return };
        flight.leg = Leg::Flipping;
        let mut modules = self.facts.modules.clone();
        modules.extend(swap.modules.iter().map(|(uid, module)| (uid.clone(), module.clone())));
        let record = VersionRecord {
            version: JobVersion(self.facts.version.0 + 1),
            checkpoint_id: Some(id),
            modules: digests(&modules),
            nonce: format!("{:032x}", self.job.host.environment.random()),
        };
        let new = swap.modules.clone();
        self.flipping_handles = Some(handles);
        let job = self.job.clone();
        self.beside(async move {
            let flipped = async {
                job.checkpoints.keep_modules(new.values().map(|new| &**new)).await?;
                job.directory.create_version(&record).await
            };
            Background::Flipped(id, flipped.await)
        });
    }

    /// The record of the new version is there, or not.
    pub(super) fn flipped(&mut self, id: CheckpointId, result: Result<(), RecordError>) {
        let handles = self.flipping_handles.take().unwrap_or_default();
        let running = self.is_running();
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let message = match result {
            Ok(()) if running => {
                self.new_version(id);
                return self.queue_commit(id, handles);
            }
            Ok(()) => return flight.leg = Leg::Held,
            Err(error) => error,
        };
        flight.leg = Leg::Held;
        flight.why = Some(format!("checkpoint {id} of job {} FAILED ({message})", self.job.job_id));
        if !running {
            return;
        }
        // The record may be there all the same: the next attempt looks, and runs what it says.
        if message.may_pass() {
            self.rewind("an upgrade failed");
        } else {
            self.fail(JobFailure::fatal(message.to_string()));
        }
    }

    /// From here on the job is what the upgrade made of it.
    fn new_version(&mut self, id: CheckpointId) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        if let Some(swap) = &flight.request.swap {
            let new = swap.modules.iter().map(|(uid, module)| (uid.clone(), module.clone()));
            self.facts.modules.extend(new);
        }
        let modules = self.facts.modules.values();
        self.job
            .checkpoints
            .only_modules(modules.map(|module| module.digest().to_string()));
        self.facts.version = JobVersion(self.facts.version.0 + 1);
        if let Some(report) = &mut flight.report {
            report.version = self.facts.version;
        }
        let mut state = locked(&self.shared.state);
        state.version = self.facts.version;
        state.modules.clone_from(&self.facts.modules);
        state.descriptions = descriptions(&self.facts.modules);
    }
}

/// What it has written of a round that fails is gone again.
async fn store_checkpoint(job: &Job, round: Acknowledged, facts: &JobFacts, how: StoreAs) -> StoreOutcome {
    match job.checkpoints.store(round, facts, how).await {
        Ok(stored) => StoreOutcome::Durable(Box::new(stored)),
        Err(error) => StoreOutcome::Failed(error.to_string(), error.at_fault().cloned()),
    }
}

/// Removes what has been written of a snapshot that is said to have failed; should it be complete after all, it is not any
/// more from the first step on.
async fn remove(target: &Storage) -> Result<(), StoreError> {
    target.delete_durably(paths::METADATA).await?;
    target.delete_prefix("").await
}

/// A savepoint is written down before it is written, so that whoever goes on with the job keeps the output that it names,
/// and knows of one that ends the job.
async fn store_savepoint(
    job: &Job,
    round: Acknowledged,
    facts: &JobFacts,
    target: &Storage,
    how: StoreAs,
) -> StoreOutcome {
    let mut handles = Handles::new();
    for (uid, snapshot) in round.snapshots.iter().flat_map(|part| &part.sinks) {
        handles
            .entry(uid.clone())
            .or_default()
            .extend(snapshot.handles.iter().cloned());
    }
    let mut record = SavepointRecord {
        checkpoint_id: round.id,
        attempt: facts.attempt,
        kind: round.kind,
        path: target.url(),
        handles,
        complete: false,
    };
    let (why, at_fault) = match job.directory.write_savepoint(&record).await {
        Err(error) => {
            let why = format!("it cannot be written down in the checkpoint directory: {error}");
            (why, None)
        }
        Ok(()) => match store(&*job.host.environment, round, facts, target, how).await {
            Err(error) => (error.to_string(), error.at_fault().cloned()),
            Ok(stored) => {
                record.complete = true;
                if let Err(error) = job.directory.write_savepoint(&record).await {
                    tracing::warn!("a savepoint could not be marked as complete: {error}");
                }
                return StoreOutcome::Durable(Box::new(stored));
            }
        },
    };
    // Complete or not: who asked is told that there is none.
    let removed = async {
        remove(target).await?;
        job.directory.forget_savepoint(record.checkpoint_id).await
    };
    match removed.await {
        Ok(()) => StoreOutcome::Failed(why, at_fault),
        Err(error) => {
            tracing::warn!("files of a failed savepoint could not be removed: {error}");
            StoreOutcome::Unclear(why)
        }
    }
}

/// Totals of each blackhole sink from the states of its subtasks.
pub(super) fn totals(states: &BTreeMap<OperatorUid, Vec<serde_json::Value>>) -> BTreeMap<OperatorUid, (u64, u64)> {
    let with_state = states.iter().filter(|(_, all)| {
        all.iter()
            .any(|state| !state.is_null() && !dead_letters::is_state(state))
    });
    with_state
        .map(|(uid, all)| (uid.clone(), blackhole::totals(all)))
        .collect()
}

const fn trigger(kind: SnapshotKind) -> Trigger {
    match kind {
        SnapshotKind::Checkpoint => Trigger::Periodic,
        SnapshotKind::Savepoint => Trigger::Manual,
        SnapshotKind::Stop => Trigger::Stop,
        SnapshotKind::EndOfInput => Trigger::EndOfInput,
        SnapshotKind::Upgrade => Trigger::Upgrade,
    }
}
