//! One job's control loop, over all its attempts: events of its subtasks and commands come in, rounds are driven, failures
//! are answered, the job ends.
//!
//! The loop decides nothing about rounds, their rhythm or restarts itself (`checkpoint::round`, `jobs::schedule` and
//! `jobs::restart` do) and does no I/O inline: storing, committing, joining threads and preparing an attempt run beside it
//! and report back, so that a slow store or a stuck guest never stops it.
//!
//! - [`regions`]: subtasks set running, told, stopped and joined, region by region.
//! - [`rounds`]: a round from its trigger until every subtask has acknowledged it, and how it ends.
//! - [`slow`]: what held up a round that has expired.
//! - [`storing`], [`committing`]: a round is stored, its modules become the job's, its output is committed.
//! - [`failover`]: a failure, the wait, and the next attempt.
//! - [`ending`]: what an ended job leaves behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use regraft_model::id::{AttemptId, CheckpointId};
use regraft_model::time::Clock;
use tokio::sync::{mpsc, watch};

use super::attempt::{Prepared, Ready};
use super::commit::{CommitError, Handles};
use super::handle::{Command, JobError, SnapshotReport, SnapshotRequest};
use super::job::Job;
use super::records::RecordError;
use super::restart::Restarts;
use super::resume::AttemptError;
use super::schedule::Schedule;
use super::status::JobStatus;
use super::view::JobShared;
use crate::checkpoint::round::Rounds;
use crate::checkpoint::store::JobFacts;
use crate::dataflow::control::{Event, SubtaskId, SwapGap, locked};
use crate::savepoint::rows::Layout;
use crate::storage::Storage;
use regraft_model::snapshot::SnapshotKind;

mod regions;
mod rounds;
mod slow;
mod storing;
mod committing;
mod failover;
pub(super) mod ending;

use failover::{Failover, Guilty};
use regions::RegionRun;
use rounds::Flight;
use storing::StoreOutcome;

/// The loop looks around at least this often.
const TURN: Duration = Duration::from_secs(1);

/// Everything a control loop starts with.
pub(super) struct Parts {
    pub job: Arc<Job>,
    pub shared: Arc<JobShared>,
    pub facts: JobFacts,
    pub events: mpsc::UnboundedReceiver<(AttemptId, Event)>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub done: watch::Sender<bool>,
    /// `--savepoint-at-end`: the directory for the savepoint that is taken when all sources are exhausted.
    pub savepoint_at_end: Option<String>,
}

/// What ran beside the loop.
enum Background {
    /// All threads of a region have ended.
    Joined(usize),
    /// A round, and what became of it.
    Stored(CheckpointId, StoreOutcome),
    /// The modules of a round are the job's, or not.
    Flipped(CheckpointId, Result<(), RecordError>),
    /// The output of a round is visible, or not.
    Committed(CheckpointId, Result<bool, CommitError>),
    /// What follows a failure.
    Prepared(Result<Prepared, AttemptError>),
    /// Old checkpoints have been removed.
    Removed,
    /// Something was noted or removed that nobody waits for.
    Noted,
    /// A savepoint of which nobody knows whether it is complete is still there.
    Unclear(CheckpointId, Storage),
}

/// What the job is doing.
enum Stage {
    /// All regions run.
    Running,
    /// Some regions have failed, and will run again.
    Restarting(Failover),
    /// Nothing begins any more.
    Ending(Ending),
}

/// How the job is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Finish,
    Cancel,
    Suspend,
    Fail,
}

/// An upgrade's report, complete but for the time its operators gave no output.
struct AwaitedGaps {
    report: SnapshotReport,
    request: SnapshotRequest,
    /// Monotonic nanoseconds.
    until: u64,
    expected: usize,
}

/// The loop's state.
pub(super) struct Controller {
    job: Arc<Job>,
    clock: Arc<dyn Clock>,
    shared: Arc<JobShared>,
    facts: JobFacts,
    events: mpsc::UnboundedReceiver<(AttemptId, Event)>,
    commands: mpsc::UnboundedReceiver<Command>,
    done: watch::Sender<bool>,
    background: (mpsc::UnboundedSender<Background>, mpsc::UnboundedReceiver<Background>),
    /// Tasks beside the loop that have not reported yet.
    in_background: usize,
    stage: Stage,
    regions: Vec<RegionRun>,
    rounds: Rounds,
    schedule: Schedule,
    restarts: Restarts,
    /// Rounds from their trigger until they are committed.
    flights: BTreeMap<CheckpointId, Flight>,
    waiting: VecDeque<SnapshotRequest>,
    /// A drain that has begun: what to take when all has ended.
    after_end: Option<SnapshotRequest>,
    savepoint_at_end: Option<String>,
    /// Rounds to be committed, in order, and whether one is being committed.
    commits: VecDeque<(CheckpointId, Handles)>,
    committing: bool,
    /// What an upgrade has to commit, while its modules become the job's.
    flipping_handles: Option<Handles>,
    /// The newest round whose output is committed, as far as it is known here.
    committed: Option<CheckpointId>,
    /// Complete checkpoints of the job, oldest first.
    kept: VecDeque<CheckpointId>,
    /// Savepoints that name output which is not committed yet, and are therefore written down.
    savepoints: BTreeSet<CheckpointId>,
    /// Rounds that were given up while they were being stored, until the store answers; and where, if it is a savepoint.
    overdue: BTreeMap<CheckpointId, Option<Storage>>,
    /// Savepoints that are said to have failed, and could not be removed.
    unclear: Vec<(CheckpointId, Storage)>,
    exhausted: BTreeSet<SubtaskId>,
    /// When the last round of the job, which has failed, is taken again; monotonic nanoseconds.
    last_again_ns: Option<u64>,
    /// The last failure that names a record: the same one again is not answered by a restart.
    guilty: Option<Guilty>,
    gaps: Vec<SwapGap>,
    awaiting_gaps: Option<AwaitedGaps>,
}

impl Controller {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            job,
            shared,
            facts,
            events,
            commands,
            done,
            savepoint_at_end,
        } = parts;
        let clock = job.host.environment.clock();
        let now = clock.monotonic_ns();
        Self {
            regions: job.regions.iter().map(|_| RegionRun::default()).collect(),
            schedule: Schedule::new(job.graph.checkpoint.clone(), now),
            restarts: Restarts::new(job.graph.restart),
            rounds: Rounds::new(CheckpointId(1)),
            job,
            clock,
            shared,
            facts,
            events,
            commands,
            done,
            background: mpsc::unbounded_channel(),
            in_background: 0,
            stage: Stage::Running,
            flights: BTreeMap::new(),
            waiting: VecDeque::new(),
            after_end: None,
            savepoint_at_end,
            commits: VecDeque::new(),
            committing: false,
            flipping_handles: None,
            committed: None,
            kept: VecDeque::new(),
            savepoints: BTreeSet::new(),
            overdue: BTreeMap::new(),
            unclear: vec![],
            exhausted: BTreeSet::new(),
            last_again_ns: None,
            guilty: None,
            gaps: vec![],
            awaiting_gaps: None,
        }
    }

    /// Runs the job, from its first attempt in this process to its end.
    pub(super) async fn run(mut self, first: Ready) {
        self.launch(first);
        while !self.is_over() {
            let wait = Duration::from_nanos(self.next_turn_ns().saturating_sub(self.now_ns()));
            let woken = self.job.host.environment.sleep(wait);
            tokio::select! {
                biased;
                Some((attempt, event)) = self.events.recv() => self.event(attempt, event),
                Some(command) = self.commands.recv() => self.command(command),
                Some(done) = self.background.1.recv() => self.background_done(done),
                () = woken => {}
            }
            self.tick();
        }
        self.end().await;
    }

    /// Whether nothing runs any more, not even beside the loop.
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ending(_)) && self.in_background == 0 && self.regions.iter().all(RegionRun::is_idle)
    }

    fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    fn set_status(&self, status: JobStatus) {
        self.shared.set_status(status);
    }

    const fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    /// Runs something beside the loop, which tells how it went.
    fn beside(&mut self, task: impl Future<Output = Background> + Send + 'static) {
        self.in_background += 1;
        let done = self.background.0.clone();
        self.job.host.environment.spawn(Box::pin(async move {
            // Only a loop that is gone does not listen, and it waits for all that it has begun.
            let _ = done.send(task.await);
        }));
    }

    fn background_done(&mut self, done: Background) {
        self.in_background -= 1;
        match done {
            Background::Joined(region) => self.joined(region),
            Background::Stored(id, outcome) => self.stored(id, outcome),
            Background::Flipped(id, result) => self.flipped(id, result),
            Background::Committed(id, result) => self.committed(id, result),
            Background::Prepared(prepared) => self.prepared(prepared),
            Background::Removed => self.removed(),
            Background::Noted => {}
            Background::Unclear(id, storage) => self.unclear.push((id, storage)),
        }
    }

    /// When there may be something to do, monotonic nanoseconds.
    fn next_turn_ns(&self) -> u64 {
        let now = self.now_ns();
        let mut at = now + TURN.as_nanos() as u64;
        if let Some(due) = self.checkpoint_due() {
            at = at.min(due);
        }
        if let Some(deadline) = self.rounds.next_deadline_ns() {
            at = at.min(deadline);
        }
        if let Some(deadline) = self.stored_until_ns() {
            at = at.min(deadline);
        }
        if let Some(awaiting) = &self.awaiting_gaps {
            at = at.min(awaiting.until);
        }
        if let Stage::Restarting(failover) = &self.stage
            && failover.is_waiting()
            && failover.until_ns > now
        {
            // When that is over, it is subtasks or the store that are waited for, and they tell.
            at = at.min(failover.until_ns);
        }
        at
    }

    fn event(&mut self, attempt: AttemptId, event: Event) {
        if !self.is_of_its_region(attempt, &event) {
            return;
        }
        match event {
            Event::Exhausted(subtask) => {
                self.exhausted.insert(subtask);
                self.all_exhausted();
            }
            Event::Ended(subtask) => {
                for id in self.rounds.ended(subtask) {
                    self.trigger_directly(id, subtask);
                }
                self.all_ended();
            }
            Event::Snapshot(snapshot) => {
                if let Some(round) = self.rounds.snapshot(*snapshot) {
                    self.acknowledged(round);
                }
            }
            Event::SwapGap(gap) => self.gaps.push(gap),
            Event::Failed(failure) => self.subtask_failed(*failure),
            Event::Finished(subtask) => self.gone(subtask),
        }
    }

    /// All sources wait at the end of their input, and a savepoint is to be taken there.
    fn all_exhausted(&mut self) {
        if self.exhausted.len() == self.sources()
            && let Some(dir) = &self.savepoint_at_end
            && self.is_running()
            && self.last_again_ns.is_none()
            && !self.is_stopping()
        {
            let request = SnapshotRequest {
                savepoint_dir: Some(dir.clone()),
                layout: Layout::Canonical,
                ..plain(SnapshotKind::Stop)
            };
            self.waiting.push_front(request);
        }
    }

    /// Whether a round that ends the job is under way, or asked for.
    fn is_stopping(&self) -> bool {
        let under_way = self.flights.values().map(|flight| &flight.request);
        under_way
            .chain(&self.waiting)
            .chain(&self.after_end)
            .any(|request| request.kind == SnapshotKind::Stop)
    }

    /// All input is read: the last round follows.
    fn all_ended(&mut self) {
        let last = |request: &SnapshotRequest| request.kind == SnapshotKind::EndOfInput;
        let now = self.is_running() && self.last_again_ns.is_none();
        if self.rounds.all_ended() && now && !self.waiting.iter().any(last) {
            let drain = self.waiting.iter().position(|request| request.drain);
            let drain = drain.and_then(|at| self.waiting.remove(at));
            let request = self.after_end.take().or(drain).map(|request| SnapshotRequest {
                drain: false,
                ..request
            });
            let request = request.unwrap_or_else(|| plain(SnapshotKind::EndOfInput));
            self.waiting.push_front(request);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Cancel => {
                if !matches!(self.stage, Stage::Ending(_)) {
                    self.set_status(JobStatus::Cancelling);
                    let message = format!("job {} was cancelled", self.job.job_id);
                    self.stop_all(Ending::Cancel, &message);
                }
            }
            Command::Suspend => {
                if !matches!(self.stage, Stage::Ending(_)) {
                    let message = format!("job {} was suspended, since its host ends", self.job.job_id);
                    self.stop_all(Ending::Suspend, &message);
                }
            }
            Command::Snapshot(request) => self.asked(request),
        }
    }

    /// Somebody asks for a snapshot.
    fn asked(&mut self, mut request: SnapshotRequest) {
        let status = locked(&self.shared.state).status;
        let draining = self.after_end.is_some() || self.waiting.iter().any(|request| request.drain);
        let last = draining || self.rounds.all_ended();
        let refused = match &self.stage {
            Stage::Restarting(_) => Some(format!("{status}, not RUNNING: try again when it runs")),
            Stage::Ending(_) => Some(format!("{status} and ending: nothing more can be saved")),
            // What `finish` gives, it gives once: a savepoint in the middle of it would give it again.
            Stage::Running if draining || (last && request.kind != SnapshotKind::Savepoint) => {
                Some(format!("{status} and ending: nothing more can be saved"))
            }
            Stage::Running => None,
        };
        if let Some(why) = refused {
            let message = format!("job {} is {why}", self.job.job_id);
            reply(&mut request, Err(JobError::failed(message)));
        } else {
            self.waiting.push_back(request);
        }
    }

    /// Whatever time has brought.
    fn tick(&mut self) {
        let now = self.now_ns();
        for given_up in self.rounds.expire(now) {
            let missing: Vec<String> = given_up.missing.iter().map(|id| self.subtask_name(*id)).collect();
            let why = format!("expired before completing; not acked: {}", missing.join(" "));
            self.note_what_is_slow(&given_up);
            self.round_failed(given_up.id, &why);
        }
        self.expire_stored(now);
        if let Some(awaiting) = &self.awaiting_gaps
            && (now >= awaiting.until || self.gaps.len() >= awaiting.expected || !self.is_running())
        {
            self.report_upgrade();
        }
        self.join_ended();
        self.go_on_restarting();
        self.take_last_again(now);
        self.begin_what_is_due();
    }
}

/// A snapshot that nobody waits for.
fn plain(kind: SnapshotKind) -> SnapshotRequest {
    SnapshotRequest {
        kind,
        savepoint_dir: None,
        layout: Layout::Native,
        drain: false,
        swap: None,
        reply: None,
    }
}

fn reply(request: &mut SnapshotRequest, result: Result<SnapshotReport, JobError>) {
    if let Some(reply) = request.reply.take() {
        // Who asked may have gone.
        let _ = reply.send(result);
    }
}
