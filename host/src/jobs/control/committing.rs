//! The output of a durable round becomes visible, one round after the other.

use regraft_model::id::CheckpointId;

use super::failover::JobFailure;
use super::rounds::Leg;
use super::{Background, Controller, Stage, reply};
use crate::jobs::attempt::note_committed;
use crate::jobs::commit::{CommitError, Handles, commit_all};
use crate::jobs::handle::JobError;
use regraft_model::snapshot::SnapshotKind;

impl Controller {
    /// A durable round has output to commit.
    pub(super) fn queue_commit(&mut self, id: CheckpointId, handles: Handles) {
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.leg = Leg::Queued;
        }
        self.commits.push_back((id, handles));
        self.commit_next();
    }

    /// Commits the oldest round that waits for it, unless one is being committed.
    fn commit_next(&mut self) {
        if self.committing {
            return;
        }
        let Some((id, handles)) = self.commits.pop_front() else {
            return;
        };
        self.committing = true;
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.leg = Leg::Committing;
        }
        let job = self.job.clone();
        let something = handles.values().any(|handles| !handles.is_empty());
        self.beside(async move {
            let mut result = commit_all(&*job.host.environment, &job.committers, &handles).await;
            if let Err(error) = &mut result
                && !error.may_pass
                && matches!(job.is_still_ours().await, Ok(false))
            {
                error.message = "another host has taken the job over and dropped or committed this output: it runs this job now, and two must not".to_owned();
            }
            Background::Committed(id, result.map(|()| something))
        });
    }

    /// The output of a round is visible, or cannot be made so for now.
    /// `Ok(true)`: there was some.
    pub(super) fn committed(&mut self, id: CheckpointId, result: Result<bool, CommitError>) {
        self.committing = false;
        match result {
            Ok(something) => {
                self.committed = self.committed.max(Some(id));
                if something {
                    let job = self.job.clone();
                    self.beside(async move {
                        note_committed(&job, Some(id)).await;
                        Background::Noted
                    });
                }
                self.completed(id);
            }
            Err(error) => self.commit_failed(id, &error),
        }
        if self.is_running() {
            self.commit_next();
        }
    }

    fn commit_failed(&mut self, id: CheckpointId, error: &CommitError) {
        let Some(mut flight) = self.flights.remove(&id) else {
            return;
        };
        let path = flight
            .report
            .as_ref()
            .map(|report| report.path.clone())
            .unwrap_or_default();
        let word = if flight.request.savepoint_dir.is_some() {
            "savepoint"
        } else {
            "checkpoint"
        };
        let message = format!("{word} {id} is complete at {path}, but its output could not be committed: {error}");
        self.tell_completed(id, &flight);
        if flight.request.savepoint_dir.is_none() {
            self.keep(id);
        }
        if self.is_running() {
            let region = self.region_of_uid(&error.uid);
            let failure = if error.may_pass && flight.request.kind != SnapshotKind::Stop {
                JobFailure::new(message.clone(), region)
            } else {
                JobFailure::fatal(message.clone())
            };
            self.fail(failure.on(&error.uid));
        }
        if flight.request.swap.is_some() && matches!(self.stage, Stage::Restarting(_)) {
            // The modules are the job's by now: the next attempt commits the output, and runs them.
            flight.why = Some(message);
            flight.leg = Leg::Held;
            self.flights.insert(id, flight);
            return;
        }
        let failed = JobError {
            path: Some(path),
            ..JobError::failed(message).on(&error.uid)
        };
        reply(&mut flight.request, Err(failed));
    }
}
