//! A job's life as a pure protocol: an input and the time go in, effects come out.
//!
//! Nothing here reads a clock, touches a file or waits: [`Life::handle`] is a function of the state, the [`Moment`] and the
//! [`Input`], and the driver ([`super::driver`]) does the [`Effect`]s. So a history of a job is a list of inputs, and
//! the properties that make it exactly-once are checked over random ones in milliseconds (`tests`):
//!
//! - no output is committed before the round that names it is durable, and none out of order;
//! - no version is recorded before the snapshot that it follows;
//! - every request is answered exactly once;
//! - an attempt is prepared only when nothing of the last one runs or is still being written;
//! - every state is left: a job that is told to end ends.
//!
//! - `restart`, `schedule`: when to restart, and when a checkpoint is due.
//! - [`failure`]: a failure, kept with its cause.
//! - `reason`: the reasons for which rounds fail.
//! - [`effect`]: inputs and effects.
//! - `round`: one round as data.
//! - `mistakes`: faults that tests plant.
//! - `telling`: log lines, the rounds that are shown, and answers.
//! - `upgraded`: the last upgrade, and the way back to the modules before it.
//! - `rounds`: from request to acknowledged; the end of rounds.
//! - `storing`: a stored round becomes a version, and visible output.
//! - `failing`: a failure, the wait, and the next attempt.
//! - `ending`: the end of a job.

mod restart;
mod schedule;
pub mod failure;
mod reason;
pub mod effect;
mod round;
mod mistakes;
mod telling;
mod upgraded;
mod rounds;
mod storing;
mod failing;
mod ending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use regraft_model::id::{AttemptId, CheckpointId, JobId, OperatorUid};
use regraft_model::snapshot::SnapshotKind;

pub use self::effect::{Effect, Input, Moment};
use self::effect::{Level, Ready, Shown, Told};
use self::failing::Restarting;
use self::mistakes::Planted;
use self::restart::Restarts;
use self::round::Round;
use self::schedule::Schedule;
use self::upgraded::Upgraded;
use super::handle::JobError;
use super::request::{Asked, SavepointTarget, SnapshotRequest};
use super::status::JobStatus;
use crate::checkpoint::store::JobFacts;
use crate::dataflow::control::{Event, SwapGap};
use crate::dataflow::failure::Record;
use crate::graph::job_graph::JobGraph;
use crate::graph::plan::{Plan, RegionIndex, SubtaskId};
use crate::savepoint::rows::Layout;

#[cfg(test)]
mod tests;

/// Time after which a driver calls [`Life::handle`] at the latest.
const TURN: Duration = Duration::from_secs(1);

/// Settings that a job keeps for its whole life in this process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory for the savepoint that is taken when all sources are exhausted (`--savepoint-at-end`).
    pub savepoint_at_end: Option<String>,
    /// True if another process brings the job back when this host ends: then the log is what its user has.
    pub recovers: bool,
}

/// The state of the protocol.
pub struct Life {
    settings: Settings,
    /// The job as it is now: graph, plan, attempt, version, modules.
    facts: JobFacts,
    status: JobStatus,
    stage: Stage,
    regions: Vec<RegionState>,
    /// Subtasks whose inputs have ended.
    ended: BTreeSet<SubtaskId>,
    /// Subtasks whose source waits at the end of its input.
    exhausted: BTreeSet<SubtaskId>,
    /// The number of the next round.
    next_id: CheckpointId,
    /// Rounds that are not over.
    rounds: BTreeMap<CheckpointId, Round>,
    schedule: Schedule,
    restarts: Restarts,
    known: Known,
    /// The last failure that names a record: the same one again is not answered by a restart.
    guilty: Option<(OperatorUid, Record)>,
    /// The last upgrade in this process.
    upgraded: Option<Upgraded>,
    /// Effects beside the loop that are not answered yet.
    beside: u32,
    effects: Vec<Effect>,
    at: Moment,
    planted: Planted,
}

/// Knowledge of snapshots on disk.
#[derive(Debug, Default)]
struct Known {
    /// The newest round whose output is known to be committed.
    committed: Option<CheckpointId>,
    /// Complete checkpoints, oldest first.
    kept: VecDeque<CheckpointId>,
    /// Recorded savepoints that name output which is not committed yet.
    savepoints: BTreeSet<CheckpointId>,
    /// Rounds that expired while they were being stored, until the store answers; true for savepoints.
    overdue: BTreeMap<CheckpointId, bool>,
    /// Savepoints that are said to have failed, and could not be removed.
    unclear: BTreeSet<CheckpointId>,
}

/// Stage of the job, with the state that belongs to it.
enum Stage {
    /// All regions run.
    Running(Box<Running>),
    /// Some regions have failed, and will run again.
    Restarting(Restarting),
    /// Nothing begins any more.
    Ending(Ending),
    /// Nothing runs any more, and the last effect is given.
    Over,
}

/// A running job.
#[derive(Default)]
struct Running {
    /// Requests whose round has not begun, in order.
    waiting: VecDeque<Asked>,
    /// A drain under way: the request whose round follows when all has ended.
    draining: Option<Asked>,
    /// When the last round of the job, which has failed, is taken again; monotonic nanoseconds.
    last_again_ns: Option<u64>,
    /// Gaps that subtasks have reported since the last swap.
    gaps: Vec<SwapGap>,
    /// An upgrade whose report waits for its gaps.
    awaiting: Option<AwaitedGaps>,
}

/// A completed upgrade whose report lacks the time without output.
struct AwaitedGaps {
    asked: Asked,
    report: super::handle::SnapshotReport,
    /// When it is reported with the gaps there are, monotonic nanoseconds.
    until_ns: u64,
    /// Number of subtasks that will report one.
    expected: usize,
}

/// Way in which a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Finish,
    Cancel,
    Suspend,
    Fail,
}

/// The subtasks of a region.
#[derive(Debug)]
enum RegionState {
    /// None runs.
    Idle,
    /// They run; those in `gone` have ended.
    Running {
        attempt: AttemptId,
        gone: BTreeSet<SubtaskId>,
    },
    /// All have ended, and their threads are being joined.
    Joining(AttemptId),
}

impl RegionState {
    const fn attempt(&self) -> Option<AttemptId> {
        match self {
            Self::Idle => None,
            Self::Running { attempt, .. } | Self::Joining(attempt) => Some(*attempt),
        }
    }
}

impl Life {
    /// Begins the life of a job in this process with an attempt that is ready to run.
    #[must_use]
    pub fn begin(settings: Settings, facts: JobFacts, ready: Ready, at: Moment) -> (Self, Vec<Effect>) {
        let checkpoint = facts.graph.checkpoint.clone();
        let mut life = Self {
            schedule: Schedule::new(checkpoint, at.now_ns),
            restarts: Restarts::new(facts.graph.restart),
            regions: facts.plan.regions().iter().map(|_| RegionState::Idle).collect(),
            status: JobStatus::Created,
            stage: Stage::Running(Box::default()),
            settings,
            facts,
            ended: BTreeSet::new(),
            exhausted: BTreeSet::new(),
            next_id: CheckpointId(1),
            rounds: BTreeMap::new(),
            known: Known::default(),
            guilty: None,
            upgraded: None,
            beside: 0,
            effects: vec![],
            at,
            planted: Planted::default(),
        };
        life.launch(ready);
        life.pass_time();
        let effects = std::mem::take(&mut life.effects);
        (life, effects)
    }

    /// Takes an input, and returns the effects that follow from it, in order.
    pub fn handle(&mut self, at: Moment, input: Input) -> Vec<Effect> {
        self.at = at;
        match input {
            Input::Tick => {}
            Input::Event(attempt, event) => self.event(attempt, event),
            Input::Asked(id, request) => self.asked(Asked { id: Some(id), request }),
            Input::Cancel => self.cancel(),
            Input::Suspend => self.suspend(),
            Input::NotStarted(region, error) => self.not_started(region, &error),
            Input::Located(id, url) => {
                if let Some(saved) = self.rounds.get_mut(&id).and_then(Round::saved_mut) {
                    saved.url = Some(url);
                }
            }
            Input::Joined(region) => {
                self.answered();
                self.set_region(region, RegionState::Idle);
            }
            Input::Stored(id, outcome) => {
                self.answered();
                self.stored(id, outcome);
            }
            Input::Recorded(id, result) => {
                self.answered();
                self.recorded(id, result);
            }
            Input::Committed(id, result) => {
                self.answered();
                self.committed(id, result);
            }
            Input::Prepared(result) => {
                self.answered();
                self.prepared(result);
            }
            Input::OldRemoved => {
                self.answered();
                // The next merge may have waited for that.
                self.beside(Effect::MergeLong);
            }
            Input::StillThere(id) => {
                self.answered();
                self.known.unclear.insert(id);
            }
            Input::Noted => self.answered(),
        }
        self.pass_time();
        std::mem::take(&mut self.effects)
    }

    /// Returns when there may be something to do without another input, monotonic nanoseconds.
    #[must_use]
    pub fn next_turn_ns(&self, at: Moment) -> u64 {
        let turn = at.now_ns.saturating_add(TURN.as_nanos() as u64);
        let mut due = vec![turn];
        match &self.stage {
            Stage::Running(running) => {
                due.extend(self.checkpoint_due(running, at.to_be_removed));
                due.extend(self.rounds.values().filter_map(Round::expires_ns));
                due.extend(running.awaiting.as_ref().map(|awaiting| awaiting.until_ns));
            }
            // When the wait is over, it is subtasks or the store that are waited for, and they report.
            Stage::Restarting(restarting) => due.extend(restarting.until_ns().filter(|until| *until > at.now_ns)),
            Stage::Ending(_) | Stage::Over => {}
        }
        due.into_iter().min().unwrap_or(turn)
    }

    /// Does what time has brought.
    fn pass_time(&mut self) {
        self.expire();
        self.report_gaps();
        self.join_ended();
        self.go_on_restarting();
        self.take_last_again();
        self.begin_what_is_due();
        self.end_if_over();
    }

    fn event(&mut self, attempt: AttemptId, event: Event) {
        let plan = self.facts.plan.clone();
        let region = match &event {
            Event::Exhausted(subtask) | Event::Ended(subtask) | Event::Finished(subtask) => plan.region_of(*subtask),
            Event::Snapshot(snapshot) => plan.region_of(snapshot.subtask),
            Event::SwapGap(gap) => plan.region_of_uid(&gap.uid),
            Event::Failed(failure) => plan.region_of_uid(&failure.uid),
        };
        // An earlier attempt's subtasks may still report.
        let current = region.and_then(|region| self.regions.get(region.0 as usize));
        if current.is_none_or(|current| current.attempt() != Some(attempt)) {
            return;
        }
        match event {
            Event::Exhausted(subtask) => {
                self.exhausted.insert(subtask);
                self.all_exhausted();
            }
            Event::Ended(subtask) => self.inputs_ended(subtask),
            Event::Snapshot(snapshot) => self.acknowledge(*snapshot),
            Event::SwapGap(gap) => {
                if let Stage::Running(running) = &mut self.stage {
                    running.gaps.push(gap);
                }
            }
            Event::Failed(failure) => self.subtask_failed(*failure),
            Event::Finished(subtask) => self.gone(subtask),
        }
    }

    /// Sets the subtasks of an attempt running.
    fn launch(&mut self, ready: Ready) {
        let Ready {
            attempt,
            version,
            modules,
            restored,
            from,
            lineage,
            last_id,
            checkpoints,
            savepoints,
            regions,
        } = ready;
        self.facts.attempt = attempt;
        self.facts.version = version;
        self.facts.modules.clone_from(&modules);
        self.facts.lineage = lineage;
        self.show(Shown::Version {
            attempt,
            version,
            modules,
        });
        self.next_id = self.next_id.max(last_id.next());
        self.known.kept = checkpoints;
        self.known.savepoints = savepoints;
        self.known.committed = restored;
        self.schedule.restarted(self.at.now_ns);
        if let Some(id) = restored {
            // Regions that ran on may not know that what they had prepared is committed.
            self.effects
                .push(Effect::Broadcast(Told::Completed { id, committed: true }));
        }
        let (draining, later) = match std::mem::replace(&mut self.stage, Stage::Running(Box::default())) {
            Stage::Restarting(restarting) => {
                let (name, job_id) = (&self.facts.graph.name, self.facts.job_id);
                let line = format!("Job {name} ({job_id}) goes on from {from}, attempt {attempt}.");
                self.log(Level::Info, line);
                restarting.over()
            }
            _ => (None, vec![]),
        };
        let drain = draining.is_some();
        self.stage = Stage::Running(Box::new(Running {
            draining,
            ..Running::default()
        }));
        for region in regions {
            for subtask in self.facts.plan.subtasks_of(region) {
                self.exhausted.remove(&subtask);
                self.ended.remove(&subtask);
            }
            let gone = BTreeSet::new();
            self.set_region(region, RegionState::Running { attempt, gone });
            self.effects.push(Effect::Start { region, attempt, drain });
        }
        self.set_status(JobStatus::Running);
        self.answer_held(&from);
        for failure in later {
            self.fail(failure);
        }
    }

    fn not_started(&mut self, region: RegionIndex, error: &str) {
        // Those of its subtasks that were started end, and the next attempt waits for that. Their events are ignored: no
        // attempt has this number.
        self.effects.push(Effect::Stop(region));
        self.set_region(region, RegionState::Joining(AttemptId(0)));
        self.beside(Effect::Join(region));
        let error = JobError::failed(format!("the job's subtasks cannot be started: {error}"));
        self.fail(failure::JobFailure::passing(error, [region]));
    }

    /// A subtask has ended.
    fn gone(&mut self, subtask: SubtaskId) {
        let region = self.facts.plan.region_of(subtask);
        if let Some(RegionState::Running { gone, .. }) = region.and_then(|region| self.region_mut(region)) {
            gone.insert(subtask);
        }
    }

    /// Joins the threads of regions whose subtasks have all ended, which does not take long.
    fn join_ended(&mut self) {
        let plan = self.facts.plan.clone();
        for region in plan.region_indices() {
            let Some(RegionState::Running { attempt, gone }) = self.region_mut(region) else {
                continue;
            };
            let attempt = *attempt;
            if gone.len() == plan.subtasks_of(region).count() {
                self.set_region(region, RegionState::Joining(attempt));
                if !self.planted.is(mistakes::Mistake::NeverJoin) {
                    self.beside(Effect::Join(region));
                }
            }
        }
    }

    fn region_mut(&mut self, region: RegionIndex) -> Option<&mut RegionState> {
        self.regions.get_mut(region.0 as usize)
    }

    fn set_region(&mut self, region: RegionIndex, state: RegionState) {
        if let Some(region) = self.region_mut(region) {
            *region = state;
        }
    }

    /// True if nothing of these regions runs.
    fn are_idle(&self, mut regions: impl Iterator<Item = RegionIndex>) -> bool {
        regions.all(|region| {
            let state = self.regions.get(region.0 as usize);
            state.is_none_or(|state| matches!(state, RegionState::Idle))
        })
    }

    /// True if files of a savepoint that has failed may still have to be removed.
    pub(super) fn may_remove(&self, id: CheckpointId) -> bool {
        self.known.overdue.contains_key(&id) || self.known.unclear.contains(&id)
    }

    const fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running(_))
    }

    const fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending(_) | Stage::Over)
    }

    /// True if the inputs of all subtasks have ended.
    fn all_ended(&self) -> bool {
        self.ended.len() == self.facts.plan.subtasks().count()
    }

    const fn job_id(&self) -> JobId {
        self.facts.job_id
    }

    /// Names the job in a log line.
    fn named(&self) -> String {
        format!("{} ({})", self.graph().name, self.job_id())
    }

    fn plan(&self) -> &Arc<Plan> {
        &self.facts.plan
    }

    fn graph(&self) -> &JobGraph {
        &self.facts.graph
    }

    /// The greatest number that a round has had.
    const fn last_id(&self) -> CheckpointId {
        CheckpointId(self.next_id.0.saturating_sub(1))
    }

    /// Goes over to a status where it may follow the present one.
    fn set_status(&mut self, status: JobStatus) {
        if self.status.may_become(status) {
            self.status = status;
            self.effects.push(Effect::Status(status));
        }
    }

    fn log(&mut self, level: Level, line: String) {
        self.effects.push(Effect::Log(level, line));
    }

    fn show(&mut self, shown: Shown) {
        self.effects.push(Effect::Show(shown));
    }

    /// Gives an effect that runs beside the loop.
    fn beside(&mut self, effect: Effect) {
        self.beside += 1;
        self.effects.push(effect);
    }

    /// An effect beside the loop has been answered.
    const fn answered(&mut self) {
        self.beside = self.beside.saturating_sub(1);
    }

    /// The savepoint that `--savepoint-at-end` asks for.
    fn savepoint_at_end(&self) -> Option<SnapshotRequest> {
        let dir = self.settings.savepoint_at_end.clone()?;
        let target = SavepointTarget {
            dir,
            layout: Layout::Canonical,
        };
        Some(SnapshotRequest::Stop { target, drain: false })
    }
}

/// True for the kinds of round that end a job.
const fn ends_the_job(kind: SnapshotKind) -> bool {
    matches!(kind, SnapshotKind::Stop | SnapshotKind::EndOfInput)
}

/// A wait as it is logged: to the millisecond.
const fn shown(wait: Duration) -> Duration {
    Duration::from_millis(wait.as_millis() as u64)
}
