//! One job's control loop: events of its subtasks and commands come in, rounds are driven, the job ends.
//!
//! The loop decides nothing about rounds itself (`checkpoint::round` does) and does no I/O inline: storing and committing
//! run beside it and report back, so that a slow store never delays the dataflow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::Clock;
use tokio::sync::{mpsc, watch};

use super::handle::{Command, Gap, JobError, JobShared, RoundSummary, SnapshotReport, SnapshotRequest};
use super::status::JobStatus;
use crate::checkpoint::round::{Acknowledged, Rounds};
use crate::checkpoint::store::{JobFacts, Stored};
use crate::dataflow::control::{Control, Event, Mailbox, SubtaskId, SwapGap, locked};
use crate::dataflow::element::CheckpointBarrier;
use crate::dataflow::executor::Running;
use crate::dataflow::failure::SubtaskFailure;
use crate::dataflow::sink::{SinkCommitter, blackhole};
use crate::environment::Environment;
use crate::savepoint::rows::Layout;
use crate::storage::{Storage, Stores};
use regraft_model::snapshot::SnapshotKind;

mod background;
mod ending;

/// How long an upgrade's report waits for the first output behind the swap.
const GAP_WAIT: Duration = Duration::from_secs(2);

/// Everything a control loop starts with.
pub(super) struct Parts {
    pub shared: Arc<JobShared>,
    pub clock: Arc<dyn Clock>,
    pub environment: Arc<dyn Environment>,
    pub stores: Arc<dyn Stores>,
    pub facts: JobFacts,
    pub rounds: Rounds,
    pub mailboxes: BTreeMap<SubtaskId, Arc<Mailbox>>,
    pub chains: Vec<Vec<OperatorUid>>,
    pub committers: BTreeMap<OperatorUid, Arc<dyn SinkCommitter>>,
    pub checkpoints: Storage,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub cancelled: Arc<AtomicBool>,
    pub running: Option<Box<dyn Running>>,
    pub done: watch::Sender<bool>,
    /// `--savepoint-at-end`: taken when all sources are exhausted.
    pub savepoint_at_end: Option<SnapshotRequest>,
}

/// What ran beside the loop.
enum Background {
    /// The round, whether it is a savepoint of the user's, and how it went.
    Stored(CheckpointId, bool, Result<Stored, String>),
    Committed(CheckpointId, Result<(), String>),
}

/// A round from its trigger to its commit.
struct Active {
    id: CheckpointId,
    request: SnapshotRequest,
    started_ns: u64,
    target: Option<Storage>,
    report: Option<SnapshotReport>,
}

/// How the job is ending.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    Finish,
    Cancel,
    Fail,
}

/// The loop's state.
pub(super) struct Controller {
    p: Parts,
    background: (mpsc::UnboundedSender<Background>, mpsc::UnboundedReceiver<Background>),
    /// Tasks beside the loop that have not reported yet.
    in_background: usize,
    active: Option<Active>,
    waiting: VecDeque<SnapshotRequest>,
    /// A drain that has begun: what to take when all has ended.
    after_end: Option<SnapshotRequest>,
    last_start_ns: u64,
    /// The newest stored checkpoint, which the next one replaces.
    last_checkpoint: Option<Storage>,
    /// Whether an uncommitted savepoint names pending output.
    savepoint_names_pending: bool,
    exhausted: BTreeSet<SubtaskId>,
    gone: BTreeSet<SubtaskId>,
    ending: Option<Ending>,
    gaps: Vec<SwapGap>,
    /// An upgrade's report, complete but for gaps; until when to wait, monotonic nanoseconds.
    awaiting_gaps: Option<(SnapshotReport, SnapshotRequest, u64, usize)>,
}

impl Controller {
    pub(super) fn new(parts: Parts) -> Self {
        let last_start_ns = parts.clock.monotonic_ns();
        Self {
            p: parts,
            background: mpsc::unbounded_channel(),
            in_background: 0,
            active: None,
            waiting: VecDeque::new(),
            after_end: None,
            last_start_ns,
            last_checkpoint: None,
            savepoint_names_pending: false,
            exhausted: BTreeSet::new(),
            gone: BTreeSet::new(),
            ending: None,
            gaps: vec![],
            awaiting_gaps: None,
        }
    }

    /// Runs until the job has ended.
    pub(super) async fn run(mut self) {
        self.set_status(JobStatus::Running);
        while self.gone.len() < self.p.mailboxes.len() {
            let wait = Duration::from_nanos(self.next_deadline_ns().saturating_sub(self.now_ns()));
            let woken = self.p.environment.sleep(wait);
            tokio::select! {
                biased;
                Some(event) = self.p.events.recv() => self.event(event),
                Some(command) = self.p.commands.recv() => self.command(command),
                Some(done) = self.background.1.recv() => self.background_done(done).await,
                () = woken => {}
            }
            self.tick();
        }
        self.end().await;
    }

    fn now_ns(&self) -> u64 {
        self.p.clock.monotonic_ns()
    }

    fn set_status(&self, status: JobStatus) {
        let mut state = locked(&self.p.shared.state);
        if state.status.may_become(status) {
            tracing::info!(
                "Job {} ({}) switched from state {} to {status}.",
                self.p.shared.graph.name,
                self.p.shared.job_id,
                state.status
            );
            state.status = status;
        }
    }

    fn running(&self) -> bool {
        self.ending.is_none()
    }

    fn broadcast(&self, message: &Control) {
        for mailbox in self.p.mailboxes.values() {
            mailbox.send(message.clone());
        }
    }

    fn next_deadline_ns(&self) -> u64 {
        let mut at = self.now_ns() + 1_000_000_000;
        let periodic = self.running() && self.active.is_none() && !self.p.rounds.all_ended();
        if let (Some(interval), true) = (self.p.facts.graph.checkpoint.interval, periodic) {
            at = at.min(self.last_start_ns + interval.as_nanos() as u64);
        }
        if let Some(round) = self.p.rounds.active() {
            at = at.min(round.deadline_ns);
        }
        if let Some((_, _, until, _)) = &self.awaiting_gaps {
            at = at.min(*until);
        }
        at
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Exhausted(subtask) => {
                self.exhausted.insert(subtask);
                if self.exhausted.len() == self.sources()
                    && let Some(request) = self.p.savepoint_at_end.take()
                {
                    self.waiting.push_front(request);
                }
            }
            Event::Ended(subtask) => {
                if let Some(id) = self.p.rounds.ended(subtask) {
                    self.trigger_directly(id, subtask);
                }
                if self.p.rounds.all_ended() && self.running() {
                    let request = self.after_end.take().unwrap_or_else(|| plain(SnapshotKind::EndOfInput));
                    self.waiting.push_front(request);
                }
            }
            Event::Snapshot(snapshot) => {
                if let Some(round) = self.p.rounds.snapshot(*snapshot) {
                    self.acknowledged(round);
                }
            }
            Event::SwapGap(gap) => self.gaps.push(gap),
            Event::Failed(failure) => self.failed(*failure),
            Event::Finished(subtask) => {
                self.gone.insert(subtask);
            }
        }
    }

    fn sources(&self) -> usize {
        self.p
            .chains
            .iter()
            .enumerate()
            .filter(|(c, _)| self.is_source_chain(*c))
            .map(|(c, _)| self.width(c))
            .sum()
    }

    fn is_source_chain(&self, chain: usize) -> bool {
        use crate::graph::job_graph::NodeKind;
        let first = self.p.chains[chain]
            .first()
            .and_then(|uid| self.p.facts.graph.node(uid.as_str()));
        first.is_some_and(|node| matches!(node.kind, NodeKind::Source(_)))
    }

    fn width(&self, chain: usize) -> usize {
        self.p.mailboxes.keys().filter(|id| id.chain as usize == chain).count()
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Cancel => {
                if self.running() {
                    self.set_status(JobStatus::Cancelling);
                    self.stop_threads(Ending::Cancel);
                }
            }
            Command::Snapshot(mut request) => {
                let ending_twice = self.after_end.is_some() || self.p.rounds.all_ended();
                if !self.running() || (ending_twice && request.kind != SnapshotKind::Savepoint) {
                    let status = locked(&self.p.shared.state).status;
                    let message = format!(
                        "job {} is {status} and ending: nothing more can be saved",
                        self.p.shared.job_id
                    );
                    reply(&mut request, Err(JobError::failed(message)));
                } else if request.drain {
                    request.drain = false;
                    self.after_end = Some(request);
                    self.broadcast(&Control::Drain);
                } else {
                    self.waiting.push_back(request);
                }
            }
        }
    }

    /// Whatever time has brought.
    fn tick(&mut self) {
        let now = self.now_ns();
        if let Some(expired) = self.p.rounds.expire(now) {
            let missing: Vec<String> = expired.missing.iter().map(|id| self.subtask_name(*id)).collect();
            let message = format!("expired before completing; not acked: {}", missing.join(" "));
            self.abort_round(expired.id, &message);
        }
        if let Some((_, _, until, expected)) = &self.awaiting_gaps
            && (now >= *until || self.gaps.len() >= *expected || !self.running())
        {
            self.report_upgrade();
        }
        if !self.running() || self.active.is_some() {
            return;
        }
        if let Some(request) = self.waiting.pop_front() {
            self.begin(request);
        } else if let Some(interval) = self.p.facts.graph.checkpoint.interval {
            // Sources that wait at their end give nothing new, and what has ended wholly has its own last round.
            if now >= self.last_start_ns + interval.as_nanos() as u64 && !self.p.rounds.all_ended() {
                self.begin(plain(SnapshotKind::Checkpoint));
            }
        }
    }

    fn subtask_name(&self, id: SubtaskId) -> String {
        let uids = self
            .p
            .chains
            .get(id.chain as usize)
            .map(|uids| uids.iter().map(OperatorUid::as_str).collect::<Vec<_>>().join("+"));
        format!("{}#{}", uids.unwrap_or_default(), id.index)
    }

    fn begin(&mut self, mut request: SnapshotRequest) {
        let now = self.now_ns();
        let deadline = now.saturating_add(self.p.facts.graph.checkpoint.timeout.as_nanos() as u64);
        let now_ms = self.p.clock.now_ms();
        let Some(begun) = self.p.rounds.begin(request.kind, now_ms, deadline) else {
            self.waiting.push_front(request);
            return;
        };
        if request.kind == SnapshotKind::Checkpoint {
            self.last_start_ns = now;
        }
        tracing::info!(
            "Triggering checkpoint {} (type={}) @ {now_ms} for job {}.",
            begun.id,
            request.kind.log_word(),
            self.p.shared.job_id
        );
        let swaps = request.swap.as_mut().map(|swap| std::mem::take(&mut swap.set));
        let barrier = Arc::new(CheckpointBarrier {
            id: begun.id,
            kind: request.kind,
            swaps,
            base: None,
            aligned: true,
        });
        if request.swap.is_some() {
            // An upgrade that still waits for its gaps is reported with those it has.
            self.report_upgrade();
            self.gaps.clear();
        }
        self.active = Some(Active {
            id: begun.id,
            request,
            started_ns: now,
            target: None,
            report: None,
        });
        for target in begun.targets {
            self.p.mailboxes[&target].send(Control::Trigger(barrier.clone()));
        }
    }

    fn trigger_directly(&self, id: CheckpointId, subtask: SubtaskId) {
        if let Some(active) = &self.active {
            // A subtask that has ended has nothing to swap that would still run.
            let barrier = Arc::new(CheckpointBarrier {
                id,
                kind: active.request.kind,
                swaps: None,
                base: None,
                aligned: true,
            });
            self.p.mailboxes[&subtask].send(Control::Trigger(barrier));
        }
    }

    /// The round is given up: swaps are undone, its files removed, whoever asked is told.
    fn abort_round(&mut self, id: CheckpointId, why: &str) {
        self.broadcast(&Control::Aborted(id));
        let Some(mut active) = self.active.take_if(|active| active.id == id) else {
            return;
        };
        let word = if active.request.savepoint_dir.is_some() {
            "savepoint"
        } else {
            "checkpoint"
        };
        tracing::warn!("Checkpoint {id} of job {} FAILED ({why}).", self.p.shared.job_id);
        if let Some(storage) = active.target.take() {
            self.remove_partial(storage);
        }
        let message = format!("{word} {id} of job {} FAILED ({why})", self.p.shared.job_id);
        let asked_for = active.request.reply.is_some();
        reply(&mut active.request, Err(JobError::failed(message.clone())));
        // `tolerable-failures` is 0: a periodic checkpoint that fails, fails the job.
        if !asked_for && self.running() {
            self.fail(message, None);
        }
    }

    fn failed(&mut self, failure: SubtaskFailure) {
        let id = self.p.mailboxes.keys().find(|id| {
            let uids = &self.p.chains[id.chain as usize];
            id.index == failure.subtask && uids.contains(&failure.uid)
        });
        if let Some(id) = id.copied() {
            self.gone.insert(id);
        }
        self.fail(failure.to_string(), Some(failure.uid.to_string()));
    }

    fn fail(&mut self, message: String, uid: Option<String>) {
        if self.ending == Some(Ending::Fail) {
            return;
        }
        // All of it is shown where the run ends; the log says when.
        let first = message.lines().next().unwrap_or_default();
        tracing::error!("Job {} failed: {first}", self.p.shared.job_id);
        {
            let mut state = locked(&self.p.shared.state);
            state.failure = Some(message);
            state.failed_uid = uid;
        }
        self.set_status(JobStatus::Failing);
        self.stop_threads(Ending::Fail);
    }

    /// Ends all threads between two steps.
    fn stop_threads(&mut self, ending: Ending) {
        self.ending = Some(ending);
        self.p.cancelled.store(true, Ordering::Relaxed);
        for mailbox in self.p.mailboxes.values() {
            mailbox.wake.wake();
        }
        let message = match locked(&self.p.shared.state).failure.clone() {
            Some(failure) => format!("the job failed: {failure}"),
            None => format!("job {} was cancelled", self.p.shared.job_id),
        };
        let active = self.active.take().map(|active| active.request);
        for mut request in active
            .into_iter()
            .chain(self.waiting.drain(..))
            .chain(self.after_end.take())
        {
            reply(&mut request, Err(JobError::failed(message.clone())));
        }
    }

    fn acknowledged(&mut self, round: Acknowledged) {
        let ms = |ns: Option<u64>| ns.unwrap_or(0) as f64 / 1e6;
        let Some(active) = self.active.as_mut().filter(|active| active.id == round.id) else {
            return;
        };
        active.report = Some(SnapshotReport {
            job_id: self.p.shared.job_id,
            path: String::new(),
            checkpoint_id: round.id,
            format: active.request.layout.to_string(),
            bytes: 0,
            duration_ms: 0,
            align_ms: ms(round.snapshots.iter().map(|s| s.align_ns).max()),
            sync_ms: ms(round.snapshots.iter().map(|s| s.sync_ns).max()),
            swap_ms: ms(round.snapshots.iter().map(|s| s.swap_ns).max()),
            gaps: vec![],
            version: self.p.facts.version,
        });
        self.store(round);
    }

    /// The round is durable and, where it commits, committed.
    fn completed(&mut self, id: CheckpointId) {
        let Some(mut active) = self.active.take_if(|active| active.id == id) else {
            return;
        };
        let Some(report) = active.report.take() else { return };
        let kind = active.request.kind;
        self.broadcast(&Control::Completed {
            id,
            committed: kind.commits(),
        });
        tracing::info!(
            "Completed checkpoint {id} for job {} ({} bytes in {} ms).",
            self.p.shared.job_id,
            report.bytes,
            report.duration_ms
        );
        {
            let mut state = locked(&self.p.shared.state);
            state.rounds += 1;
            state.last_round = Some(RoundSummary {
                checkpoint_id: id,
                kind,
                completed_at: self.p.clock.now_ms(),
                bytes: report.bytes,
                duration_ms: report.duration_ms,
                sync_ms: report.sync_ms,
                align_ms: report.align_ms,
                path: report.path.clone(),
            });
            if kind == SnapshotKind::Stop {
                state.final_savepoint = Some(report.clone());
            }
        }
        self.savepoint_names_pending = !kind.commits();
        if active.request.savepoint_dir.is_none() {
            self.replace_checkpoint(active.target.take());
        }
        let swapped = active
            .request
            .swap
            .as_ref()
            .map(|swap| swap.modules.keys().cloned().collect::<Vec<_>>());
        match swapped {
            Some(uids) => {
                let width = |uid: &OperatorUid| self.p.facts.graph.node(uid.as_str()).map_or(0, |n| n.parallelism);
                let expected = uids.iter().map(|uid| width(uid) as usize).sum();
                let until = self.now_ns() + GAP_WAIT.as_nanos() as u64;
                self.awaiting_gaps = Some((report, active.request, until, expected));
            }
            None => reply(&mut active.request, Ok(report)),
        }
        if matches!(kind, SnapshotKind::Stop | SnapshotKind::EndOfInput) {
            self.ending = Some(Ending::Finish);
            self.broadcast(&Control::Terminate);
        }
    }

    fn report_upgrade(&mut self) {
        if let Some((mut report, mut request, _, _)) = self.awaiting_gaps.take() {
            report.gaps = self
                .gaps
                .iter()
                .filter(|gap| gap.id == report.checkpoint_id)
                .map(Gap::from)
                .collect();
            reply(&mut request, Ok(report));
        }
    }
}

/// Totals of each blackhole sink from the states of its subtasks.
fn totals(states: &BTreeMap<OperatorUid, Vec<serde_json::Value>>) -> BTreeMap<OperatorUid, (u64, u64)> {
    let with_state = states
        .iter()
        .filter(|(_, all)| all.iter().any(|state| !state.is_null()));
    with_state
        .map(|(uid, all)| (uid.clone(), blackhole::totals(all)))
        .collect()
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
