//! Reports of rounds: log lines, the rounds that are shown, answers to requesters.

use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use super::effect::{Answer, Effect, Level, Shown};
use super::mistakes::Mistake;
use super::reason::Reason;
use super::round::Round;
use super::{Life, Stage};
use crate::jobs::handle::{Gap, JobError, SnapshotReport};
use crate::jobs::observe::{PastRound, RoundSummary};
use crate::jobs::request::Asked;

/// Returns the level of the lines that tell of a round's beginning and of its end.
pub(super) fn level_of(kind: SnapshotKind) -> Level {
    if kind == SnapshotKind::Checkpoint {
        Level::Periodic
    } else {
        Level::Info
    }
}

impl Life {
    /// The round is durable: it is logged, and shown.
    pub(super) fn tell_completed(&mut self, id: CheckpointId, round: &Round) {
        let Some(report) = self.report(id, round) else { return };
        let full_bytes = round.saved().map_or(0, |saved| saved.full_bytes);
        let kind = round.asked.request.kind();
        self.schedule.ended(self.at.now_ns);
        if kind != SnapshotKind::Savepoint {
            self.schedule.completed();
        }
        let (job_id, bytes, ms) = (self.job_id(), report.bytes, report.duration_ms);
        let line = format!("Completed checkpoint {id} for job {job_id} ({bytes} bytes in {ms} ms).");
        self.log(level_of(kind), line);
        if kind == SnapshotKind::Stop {
            self.show(Shown::FinalSavepoint(Some(report.path.clone())));
        }
        let summary = RoundSummary {
            checkpoint_id: id,
            kind,
            completed_at: self.at.now_ms.max(round.triggered_ms),
            bytes,
            full_bytes,
            duration_ms: ms,
            sync_ms: report.sync_ms,
            align_ms: report.align_ms,
            path: report.path,
        };
        self.show(Shown::Completed(summary));
        self.remember(id, round, None);
    }

    /// Shows how a round went.
    pub(super) fn remember(&mut self, id: CheckpointId, round: &Round, failure: Option<&Reason>) {
        let saved = round.saved();
        let past = PastRound {
            checkpoint_id: id,
            kind: round.asked.request.kind(),
            triggered_at: round.triggered_ms,
            duration_ms: self.at.now_ns.saturating_sub(round.started_ns) / 1_000_000,
            bytes: saved.map_or(0, |saved| saved.bytes),
            full_bytes: saved.map_or(0, |saved| saved.full_bytes),
            path: saved.and_then(|saved| saved.url.clone()),
            failure: failure.map(ToString::to_string),
            subtasks: saved.map_or_else(Vec::new, |saved| saved.subtasks.clone()),
        };
        self.show(Shown::Round(past));
    }

    /// The report to the requester of an acknowledged round; without gaps.
    pub(super) fn report(&self, id: CheckpointId, round: &Round) -> Option<SnapshotReport> {
        let saved = round.saved()?;
        Some(SnapshotReport {
            job_id: self.job_id(),
            path: saved.url.clone().unwrap_or_default(),
            checkpoint_id: id,
            format: round.asked.request.layout().to_string(),
            bytes: saved.bytes,
            duration_ms: saved.duration_ms,
            align_ms: saved.align_ms,
            sync_ms: saved.sync_ms,
            swap_ms: saved.swap_ms,
            gaps: vec![],
            version: self.facts.version,
        })
    }

    /// Answers a request, unless the job itself asked.
    pub(super) fn answer(&mut self, asked: &Asked, result: Result<SnapshotReport, JobError>) {
        let Some(request) = asked.id else { return };
        if self.planted.is(Mistake::AnswerTwice) {
            let again = Answer {
                request,
                result: result.clone(),
                waited_for: None,
            };
            self.effects.push(Effect::Answer(again));
        }
        self.effects.push(Effect::Answer(Answer {
            request,
            result,
            waited_for: None,
        }));
    }

    /// Reports an upgrade when all its gaps are known, or their time is over.
    pub(super) fn report_gaps(&mut self) {
        if let Stage::Running(running) = &self.stage
            && let Some(awaiting) = &running.awaiting
            && (self.at.now_ns >= awaiting.until_ns || running.gaps.len() >= awaiting.expected)
        {
            self.report_upgrade();
        }
    }

    /// Reports an upgrade with the gaps that are known.
    pub(super) fn report_upgrade(&mut self) {
        if let Stage::Running(running) = &mut self.stage
            && let Some(mut awaiting) = running.awaiting.take()
        {
            let id = awaiting.report.checkpoint_id;
            let of_it = running.gaps.iter().filter(|gap| gap.id == id);
            awaiting.report.gaps = of_it.map(Gap::from).collect();
            self.answer(&awaiting.asked, Ok(awaiting.report));
        }
    }
}
