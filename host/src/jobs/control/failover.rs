//! A failure, and what follows: subtasks end and are joined, a wait, the next attempt. Or the end of the job.

use std::collections::BTreeSet;
use std::time::Duration;

use regraft_model::id::{CheckpointId, JobVersion, OperatorUid};

use super::rounds::Leg;
use super::{Background, Controller, Ending, Stage, reply};
use crate::dataflow::control::locked;
use crate::dataflow::failure::{Cause, Record, SubtaskFailure};
use crate::dataflow::operator::dead_letters;
use crate::dataflow::sink::blackhole;
use crate::jobs::attempt::{Prepared, Wish, prepare};
use crate::jobs::handle::JobError;
use crate::jobs::restart::Decision;
use crate::jobs::resume::{AttemptError, Over};
use crate::jobs::status::JobStatus;
use regraft_model::snapshot::SnapshotKind;

/// Why a job cannot go on as it is.
#[derive(Debug, Clone)]
pub(super) struct JobFailure {
    message: String,
    uid: Option<OperatorUid>,
    /// What must go back to the last checkpoint.
    regions: BTreeSet<usize>,
    restartable: bool,
}

impl JobFailure {
    /// One that a restart of some regions may get over.
    pub(super) fn new(message: String, regions: impl IntoIterator<Item = usize>) -> Self {
        Self {
            message,
            uid: None,
            regions: regions.into_iter().collect(),
            restartable: true,
        }
    }

    /// One that no restart gets over.
    pub(super) fn fatal(message: String) -> Self {
        Self {
            restartable: false,
            ..Self::new(message, [])
        }
    }

    /// About an operator.
    pub(super) fn on(mut self, uid: &OperatorUid) -> Self {
        self.uid = Some(uid.clone());
        self
    }

    /// All of it is shown where the run ends, or in the log of a served job.
    fn first_line(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}

/// A restart under way.
#[derive(Debug)]
pub(super) struct Failover {
    /// What restarts.
    regions: BTreeSet<usize>,
    /// Not before then, monotonic nanoseconds.
    pub(super) until_ns: u64,
    /// The next attempt is being prepared.
    preparing: bool,
    /// Failures since then, of regions that run.
    later: Vec<JobFailure>,
}

impl Failover {
    /// Whether the next attempt has not begun.
    pub(super) const fn is_waiting(&self) -> bool {
        !self.preparing
    }
}

/// A record that a guest has failed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Guilty {
    uid: OperatorUid,
    record: Record,
}

impl Controller {
    /// A subtask has failed, and ended.
    pub(super) fn subtask_failed(&mut self, failure: SubtaskFailure) {
        if let Some(subtask) = self.subtask_of(&failure.uid, failure.subtask) {
            self.gone(subtask);
        }
        let mut message = failure.to_string();
        let mut restartable = failure.restartable();
        if failure.unisolated {
            locked(&self.job.careful).insert(failure.uid.clone());
        }
        // A guest with private state cannot be asked again about a single record. The same record twice is the answer.
        if let (Cause::Guest(_), Some(record)) = (&failure.cause, &failure.record) {
            let guilty = Guilty {
                uid: failure.uid.clone(),
                record: record.clone(),
            };
            if restartable && self.guilty.as_ref() == Some(&guilty) {
                message
                    .push_str("\n  the same record failed before the job was restarted, so it is not restarted again");
                restartable = false;
            }
            self.guilty = Some(guilty);
        }
        let failure = JobFailure {
            message,
            regions: self.region_of_uid(&failure.uid).into_iter().collect(),
            uid: Some(failure.uid),
            restartable,
        };
        self.fail(failure);
    }

    /// The job cannot go on as it is.
    pub(super) fn fail(&mut self, failure: JobFailure) {
        match &mut self.stage {
            Stage::Ending(_) => {
                tracing::warn!(
                    "Job {} failed while it was ending: {}",
                    self.job.job_id,
                    failure.first_line()
                );
                return;
            }
            // It belongs to the restart that is under way, and does not count as another.
            Stage::Restarting(failover) if failure.restartable => {
                for region in failure.regions.iter().filter_map(|region| self.regions.get(*region)) {
                    region.stop();
                }
                if failover.preparing {
                    failover.later.push(failure);
                } else {
                    failover.regions.extend(failure.regions);
                }
                return;
            }
            Stage::Restarting(_) => return self.give_up(failure),
            Stage::Running => {}
        }
        let upgrade = self
            .flights
            .iter_mut()
            .find(|(_, flight)| flight.request.swap.is_some() && flight.leg != Leg::Committing);
        if let Some((id, flight)) = upgrade {
            // Whatever it was: the upgrade has not come about, and the job goes on as it was before it.
            let id = *id;
            flight.why = Some(failure.message);
            if self.rounds.abort(id).is_some() {
                flight.leg = Leg::Held;
            }
            return self.rewind("an upgrade failed");
        }
        if !failure.restartable {
            return self.give_up(failure);
        }
        let random = self.job.host.environment.random() as u64;
        match self.restarts.failed(self.now_ns(), random) {
            Decision::Restart(wait) => self.restart(failure, wait),
            Decision::GiveUp => {
                let after = match self.restarts.count() {
                    0 => String::new(),
                    count => format!("\n  restarted {count} times; [restart] allows no more"),
                };
                let message = format!("{}{after}", failure.message);
                self.give_up(JobFailure { message, ..failure });
            }
        }
    }

    /// Some regions go back to the last checkpoint, after a wait.
    fn restart(&mut self, failure: JobFailure, wait: Duration) {
        tracing::warn!(
            "Job {} failed: {}; it restarts in {:?}.",
            self.job.job_id,
            failure.first_line(),
            shown(wait)
        );
        {
            let mut state = locked(&self.shared.state);
            state.restarts += 1;
            state.last_failure = Some(failure.message.clone());
        }
        let why = format!("the job failed, and restarts: {}", failure.message);
        let regions = if failure.regions.is_empty() {
            (0..self.job.regions.len()).collect()
        } else {
            failure.regions
        };
        self.fall_back(regions, wait, &why);
    }

    /// An upgrade has failed behind its barrier: the whole job goes back to the last checkpoint, with the modules it had.
    pub(super) fn rewind(&mut self, what: &str) {
        tracing::warn!(
            "Job {}: {what}; the job goes back to its last checkpoint.",
            self.job.job_id
        );
        let all = (0..self.job.regions.len()).collect();
        let why = format!("{what}, and the job goes back to its last checkpoint");
        self.fall_back(all, Duration::ZERO, &why);
    }

    fn fall_back(&mut self, regions: BTreeSet<usize>, wait: Duration, why: &str) {
        self.job.checkpoints.end();
        self.set_status(JobStatus::Restarting);
        for region in regions.iter().filter_map(|region| self.regions.get(*region)) {
            region.stop();
        }
        self.stage = Stage::Restarting(Failover {
            regions,
            until_ns: self.now_ns().saturating_add(wait.as_nanos() as u64),
            preparing: false,
            later: vec![],
        });
        let given_up: Vec<CheckpointId> = self.flights.keys().copied().collect();
        for id in given_up {
            if self.rounds.abort(id).is_some() {
                self.round_failed(id, why);
            }
        }
        // What is durable is found by the next attempt.
        for (id, _) in std::mem::take(&mut self.commits) {
            self.durable_meanwhile(id);
        }
        for mut request in self.waiting.drain(..) {
            reply(&mut request, Err(JobError::failed(why)));
        }
    }

    /// Begins the next attempt when its time has come, and nothing of the last one runs.
    pub(super) fn go_on_restarting(&mut self) {
        let now = self.now_ns();
        let Stage::Restarting(failover) = &mut self.stage else {
            return;
        };
        let stopped = failover
            .regions
            .iter()
            .filter_map(|region| self.regions.get(*region))
            .all(super::RegionRun::is_idle);
        if failover.preparing || self.in_background > 0 || !stopped || now < failover.until_ns {
            return;
        }
        failover.preparing = true;
        let of_upgrades = self.flights.values().filter_map(|flight| flight.request.swap.as_ref());
        let known = of_upgrades
            .flat_map(|swap| swap.modules.values())
            .chain(self.facts.modules.values());
        let wish = Wish {
            regions: failover.regions.iter().copied().collect(),
            known: known.cloned().collect(),
            after: self.facts.attempt,
            last_id: self.rounds.last_id(),
            committed: self.committed,
        };
        let job = self.job.clone();
        self.beside(async move { Background::Prepared(prepare(&job, &wish).await) });
    }

    /// The next attempt is ready, or there is nothing left to do, or it failed.
    pub(super) fn prepared(&mut self, result: Result<Prepared, AttemptError>) {
        if !matches!(self.stage, Stage::Restarting(_)) {
            return;
        }
        match result {
            Ok(Prepared::Ready(ready)) => self.launch(*ready),
            Ok(Prepared::Over(over)) => self.over(*over),
            Err(AttemptError { error, restartable }) => {
                let mut failure = JobFailure::fatal(format!("the job cannot be restarted: {error}"));
                failure.uid = error.uid.as_deref().and_then(|uid| OperatorUid::new(uid).ok());
                let random = self.job.host.environment.random() as u64;
                if !restartable {
                    return self.give_up(failure);
                }
                match self.restarts.failed(self.now_ns(), random) {
                    Decision::GiveUp => self.give_up(failure),
                    Decision::Restart(wait) => self.try_again(&failure, wait),
                }
            }
        }
    }

    fn try_again(&mut self, failure: &JobFailure, wait: Duration) {
        tracing::warn!(
            "Job {}: {}; tried again in {:?}.",
            self.job.job_id,
            failure.first_line(),
            shown(wait)
        );
        let until = self.now_ns().saturating_add(wait.as_nanos() as u64);
        {
            let mut state = locked(&self.shared.state);
            state.restarts += 1;
            state.last_failure = Some(failure.message.clone());
        }
        if let Stage::Restarting(failover) = &mut self.stage {
            (failover.preparing, failover.until_ns) = (false, until);
            for later in std::mem::take(&mut failover.later) {
                failover.regions.extend(later.regions);
            }
        }
    }

    /// The job runs again: those who were kept waiting are told.
    pub(super) fn restarted(&mut self, before: Stage, version: JobVersion, from: &str) {
        for (_, mut flight) in std::mem::take(&mut self.flights) {
            let runs = flight.request.swap.as_ref().is_some_and(|swap| {
                let mut new = swap.modules.iter();
                new.all(|(uid, module)| self.facts.modules.get(uid).map(|now| now.digest()) == Some(module.digest()))
            });
            let why = flight.why.take().unwrap_or_else(|| "the job was restarted".to_owned());
            match flight.report.take() {
                Some(mut report) if runs => {
                    report.version = version;
                    reply(&mut flight.request, Ok(report));
                }
                _ if flight.request.swap.is_some() => {
                    let message =
                        format!("the upgrade failed, and the job went back to {from}, with the modules it had: {why}");
                    reply(&mut flight.request, Err(JobError::failed(message)));
                }
                _ => reply(&mut flight.request, Err(JobError::failed(why))),
            }
        }
        if let Stage::Restarting(failover) = before {
            for failure in failover.later {
                self.fail(failure);
            }
        }
    }

    /// There was nothing left to run: all is saved, and committed now.
    fn over(&mut self, over: Over) {
        self.committed = Some(over.checkpoint_id);
        tracing::info!(
            "Job {} had come to its end at checkpoint {}, whose output is committed now.",
            self.job.job_id,
            over.checkpoint_id
        );
        {
            let mut state = locked(&self.shared.state);
            state.final_savepoint.clone_from(&over.savepoint);
            state.sink_totals = sink_totals(&over);
        }
        for (id, mut flight) in std::mem::take(&mut self.flights) {
            let is_it = id == over.checkpoint_id && flight.request.kind == SnapshotKind::Stop;
            if is_it {
                if let (Some(report), Some(path)) = (&mut flight.report, &over.savepoint) {
                    report.path.clone_from(path);
                }
                self.tell_completed(id, &flight);
            }
            match flight.report.take() {
                Some(report) if is_it => reply(&mut flight.request, Ok(report)),
                _ => reply(&mut flight.request, Err(JobError::failed("the job has ended"))),
            }
        }
        self.finish();
    }

    /// The end of the job: no restart helps, or none is allowed.
    fn give_up(&mut self, failure: JobFailure) {
        // Of a served job the log is what its user has; of an attached one, all is told where the run ends.
        let said = if self.job.host.recovers {
            &failure.message
        } else {
            failure.first_line()
        };
        tracing::error!("Job {} failed: {said}", self.job.job_id);
        let why = format!("the job failed: {}", failure.message);
        {
            let mut state = locked(&self.shared.state);
            state.failure = Some(failure.message);
            state.failed_uid = failure.uid.map(|uid| uid.to_string());
        }
        self.set_status(JobStatus::Failing);
        self.stop_all(Ending::Fail, &why);
    }
}

/// The totals of blackhole sinks that a job ended with.
pub(crate) fn sink_totals(over: &Over) -> std::collections::BTreeMap<OperatorUid, (u64, u64)> {
    let entries = over.metadata.iter().flat_map(|metadata| &metadata.operators);
    let of = |entry: &crate::savepoint::metadata::OperatorEntry| {
        let state = &entry.sink.as_ref()?.state;
        (!state.is_null() && !dead_letters::is_state(state)).then(|| (entry.uid.clone(), blackhole::totals([state])))
    };
    entries.filter_map(of).collect()
}

/// A wait as it is told: to the millisecond.
const fn shown(wait: Duration) -> Duration {
    Duration::from_millis(wait.as_millis() as u64)
}
