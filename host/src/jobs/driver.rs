//! Drives one job's life: receives what happens, asks [`Life`] what to do about it, and does it.
//!
//! The driver decides nothing and waits for nothing but inputs: storing, committing, joining threads and preparing an attempt
//! run beside it and report back, so that a slow store or a stuck guest never stops it. It holds what an effect needs and the
//! protocol has no use for: the ways into subtasks, threads, directories, the channels of requesters.

mod telling;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use regraft_model::id::{AttemptId, CheckpointId};
use regraft_model::snapshot::SnapshotKind;
use regraft_model::time::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use super::attempt::prepare::{Prepared, Ready, prepare};
use super::deploy::Deployed;
use super::durable::clean_up::leave;
use super::durable::commit::{commit, note_committed};
use super::durable::error::AttemptError;
use super::durable::job::Job;
use super::durable::round::{record_version, remove_savepoint, store_checkpoint, store_savepoint};
use super::handle::{Command, JobError, SnapshotReport};
use super::life::effect::{Begin, Next, Store, StoreOutcome, Told};
use super::life::{Effect, Input, Life, Moment, Settings};
use super::observe::JobShared;
use super::request::RequestId;
use super::status::JobStatus;
use crate::checkpoint::store::JobFacts;
use crate::dataflow::control::{Control, Event, Mailbox, locked};
use crate::dataflow::element::CheckpointBarrier;
use crate::dataflow::executor::{NotStarted, Running};
use crate::environment::cancel::Cancellation;
use crate::environment::run_blocking;
use crate::graph::plan::{RegionIndex, SubtaskId};
use crate::storage::{Storage, StoreError, paths};

/// The parts a driver is made of.
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

/// Drives the life of one job in this process.
pub(super) struct Driver {
    job: Arc<Job>,
    clock: Arc<dyn Clock>,
    shared: Arc<JobShared>,
    events: mpsc::UnboundedReceiver<(AttemptId, Event)>,
    commands: mpsc::UnboundedReceiver<Command>,
    done: watch::Sender<bool>,
    beside: (mpsc::UnboundedSender<Done>, mpsc::UnboundedReceiver<Done>),
    life: Life,
    /// Effects to be done, and inputs that doing them has given at once; in order.
    effects: VecDeque<Effect>,
    inputs: VecDeque<Input>,
    regions: Vec<RegionRun>,
    /// Subtasks of the attempt that is about to start.
    ready: BTreeMap<RegionIndex, Deployed>,
    barriers: BTreeMap<CheckpointId, Barrier>,
    /// Rounds whose barriers are not sent yet, in order: the files that the first is built on are being looked at.
    beginning: VecDeque<Begin>,
    /// True while they are.
    looking: bool,
    /// Directories of savepoints under way, and of those that have failed and are still there.
    savepoints: BTreeMap<CheckpointId, Storage>,
    /// Rounds that are being stored.
    storing: BTreeMap<CheckpointId, Cancellation>,
    requests: BTreeMap<RequestId, oneshot::Sender<Result<SnapshotReport, JobError>>>,
    next_request: u64,
    ended: Option<JobStatus>,
}

/// A message of a task beside the loop.
enum Done {
    Input(Input),
    /// An attempt is prepared, or failed.
    Prepared(Box<Result<Prepared, AttemptError>>),
    /// Files of a failed savepoint are still there.
    StillThere(CheckpointId, Storage),
    /// The files that the next round is built on have been looked at.
    Looked,
}

/// The running subtasks of one region.
#[derive(Default)]
struct RegionRun {
    mailboxes: BTreeMap<SubtaskId, Arc<Mailbox>>,
    cancelled: Arc<AtomicBool>,
    running: Option<Box<dyn Running>>,
}

impl RegionRun {
    /// Lets its subtasks end between two steps.
    fn stop(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        for mailbox in self.mailboxes.values() {
            mailbox.wake.wake();
        }
    }
}

impl Drop for RegionRun {
    /// Nothing listens to its subtasks any more.
    fn drop(&mut self) {
        self.stop();
    }
}

/// The barrier of a round, without the instances that travel in it.
#[derive(Clone, Copy)]
struct Barrier {
    id: CheckpointId,
    kind: SnapshotKind,
    base: Option<CheckpointId>,
    aligned: bool,
}

impl Driver {
    /// A driver whose job begins with an attempt that is ready: its subtasks run when this returns.
    pub(super) fn new(parts: Parts, first: Ready) -> Self {
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
        let settings = Settings {
            savepoint_at_end,
            recovers: job.host.recovers,
        };
        let (ready, deployed) = first.split();
        let (life, effects) = Life::begin(settings, facts, ready, moment(&job, &*clock));
        let mut driver = Self {
            regions: job.plan.regions().iter().map(|_| RegionRun::default()).collect(),
            job,
            clock,
            shared,
            events,
            commands,
            done,
            beside: mpsc::unbounded_channel(),
            life,
            effects: effects.into(),
            inputs: VecDeque::new(),
            ready: deployed,
            barriers: BTreeMap::new(),
            beginning: VecDeque::new(),
            looking: false,
            savepoints: BTreeMap::new(),
            storing: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            ended: None,
        };
        // A job that is handed out runs: its user may ask for a savepoint at once.
        driver.settle();
        driver
    }

    /// Runs the job, from its first attempt in this process to its end.
    pub(super) async fn run(mut self) {
        let status = loop {
            if let Some(status) = self.ended {
                break status;
            }
            let at = self.moment();
            let wait = Duration::from_nanos(self.life.next_turn_ns(at).saturating_sub(at.now_ns));
            let woken = self.job.host.environment.sleep(wait);
            let input = tokio::select! {
                biased;
                Some((attempt, event)) = self.events.recv() => Input::Event(attempt, event),
                Some(command) = self.commands.recv() => self.command(command),
                Some(done) = self.beside.1.recv() => self.reported(done),
                () = woken => Input::Tick,
            };
            self.inputs.push_back(input);
            self.settle();
            // An attempt that is not wanted any more goes.
            self.ready.clear();
        };
        let Self {
            job,
            shared,
            regions,
            done,
            ..
        } = self;
        // Its parts cannot be shared between threads, and nothing needs them any more.
        drop(regions);
        if status.is_over() {
            leave(&job, &shared, status).await;
        }
        shared.set_status(status);
        let _ = done.send(true);
    }

    /// Does all effects, and takes all inputs that doing them gives.
    fn settle(&mut self) {
        loop {
            while let Some(effect) = self.effects.pop_front() {
                self.perform(effect);
            }
            let Some(input) = self.inputs.pop_front() else { return };
            let at = self.moment();
            self.effects.extend(self.life.handle(at, input));
        }
    }

    fn moment(&self) -> Moment {
        moment(&self.job, &*self.clock)
    }

    fn command(&mut self, command: Command) -> Input {
        match command {
            Command::Cancel => Input::Cancel,
            Command::Suspend => Input::Suspend,
            Command::Snapshot(request, reply) => {
                let id = RequestId(self.next_request);
                self.next_request += 1;
                self.requests.insert(id, reply);
                Input::Asked(id, request)
            }
        }
    }

    fn reported(&mut self, done: Done) -> Input {
        match done {
            Done::Input(input) => input,
            Done::StillThere(id, storage) => {
                self.savepoints.insert(id, storage);
                Input::StillThere(id)
            }
            Done::Looked => {
                self.looking = false;
                self.begin_next();
                Input::Tick
            }
            Done::Prepared(result) => Input::Prepared(match *result {
                Ok(Prepared::Ready(ready)) => {
                    let (ready, deployed) = ready.split();
                    self.ready = deployed;
                    Ok(Next::Run(Box::new(ready)))
                }
                Ok(Prepared::Over(over)) => Ok(Next::Over(Box::new(over.facts()))),
                Err(error) => Err(error.into()),
            }),
        }
    }

    /// Runs a task beside the loop, which reports its result.
    fn beside(&self, task: impl Future<Output = Input> + Send + 'static) {
        self.beside_as(async move { Done::Input(task.await) });
    }

    fn beside_as(&self, task: impl Future<Output = Done> + Send + 'static) {
        let done = self.beside.0.clone();
        self.job.host.environment.spawn(Box::pin(async move {
            // The loop waits for all that it has begun, so it listens.
            let _ = done.send(task.await);
        }));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Status(status) => self.shared.set_status(status),
            Effect::Log(level, line) => telling::log(level, &line),
            Effect::Show(shown) => self.show(shown),
            Effect::Answer(answer) => self.answer(answer),
            Effect::Start { region, attempt, drain } => self.start(region, attempt, drain),
            Effect::Broadcast(told) => self.broadcast(told),
            Effect::Stop(region) => {
                if let Some(region) = self.regions.get(region.0 as usize) {
                    region.stop();
                }
            }
            Effect::Join(region) => self.join(region),
            Effect::Begin(begin) => {
                let has_base = self.job.checkpoints.has_base(begin.kind);
                self.beginning.push_back(*begin);
                if has_base {
                    self.look();
                } else {
                    self.begin_next();
                }
            }
            Effect::Trigger(id, subtask) => {
                if let Some(begin) = self.beginning.iter_mut().find(|begin| begin.id == id) {
                    begin.targets.push(subtask);
                } else if let Some(barrier) = self.barriers.get(&id) {
                    // A subtask that has ended has nothing to swap that would still run.
                    self.send(subtask, Control::Trigger(Arc::new(barrier.with(None))));
                }
            }
            Effect::Store(store) => self.store(*store),
            Effect::Prepare(wish) => {
                let job = self.job.clone();
                self.beside_as(async move { Done::Prepared(Box::new(prepare(&job, &wish).await)) });
            }
            Effect::Careful(uid) => {
                locked(&self.job.careful).insert(uid);
            }
            Effect::Close(id) => {
                self.barriers.remove(&id);
                self.beginning.retain(|begin| begin.id != id);
                self.storing.remove(&id);
                if !self.life.may_remove(id) {
                    self.savepoints.remove(&id);
                }
            }
            Effect::CancelStoring(id) => {
                if let Some(cancellation) = self.storing.get(&id) {
                    cancellation.cancel();
                }
            }
            Effect::CancelPreparing => self.job.ending.cancel(),
            Effect::Forget(id) => {
                self.savepoints.remove(&id);
            }
            Effect::End(status) => self.ended = Some(status),
            other => self.keep_records(other),
        }
    }

    /// Effects on checkpoints and records.
    fn keep_records(&mut self, effect: Effect) {
        let job = self.job.clone();
        let checkpoints = self.job.checkpoints.clone();
        match effect {
            Effect::RecordVersion {
                id,
                version,
                modules,
                new,
            } => self.beside(async move {
                let recorded = record_version(&job, id, version, &modules, &new).await;
                Input::Recorded(id, recorded.map_err(Into::into))
            }),
            Effect::KeepModules(digests) => checkpoints.only_modules(digests),
            Effect::Commit(id, permit) => self.beside(async move {
                let committed = commit(&job, &permit).await;
                Input::Committed(id, committed.map_err(Into::into))
            }),
            Effect::NoteCommitted(id) => self.beside(async move {
                note_committed(&job, Some(id)).await;
                Input::Noted
            }),
            Effect::Confirm(id) => checkpoints.confirm(id),
            Effect::RemoveOld => self.beside(async move {
                checkpoints.remove_old().await;
                Input::OldRemoved
            }),
            Effect::MergeLong => self.beside(async move {
                checkpoints.merge_long().await;
                Input::Noted
            }),
            Effect::GiveUp(id) => self.beside(async move {
                checkpoints.give_up(id).await;
                Input::Noted
            }),
            Effect::ForgetSavepoint(id) => self.beside(async move {
                if let Err(error) = job.directory.forget_savepoint(id).await {
                    tracing::warn!("the record of a savepoint could not be removed: {error}");
                }
                Input::Noted
            }),
            Effect::RemoveSavepoint(id) => match self.savepoints.remove(&id) {
                None => self.inputs.push_back(Input::Noted),
                Some(storage) => self.beside_as(async move {
                    match remove_savepoint(&job, id, &storage).await {
                        Ok(()) => Done::Input(Input::Noted),
                        Err(_) => Done::StillThere(id, storage),
                    }
                }),
            },
            Effect::EndMerging => checkpoints.end(),
            other => debug_assert!(false, "an effect that nothing performs: {other:?}"),
        }
    }

    /// Looks beside the loop at the files that the next round is built on.
    fn look(&mut self) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let checkpoints = self.job.checkpoints.clone();
        self.beside_as(async move {
            checkpoints.look_at_base().await;
            Done::Looked
        });
    }

    /// Begins the rounds that wait for it, in order, up to one whose files have not been looked at.
    fn begin_next(&mut self) {
        if self.looking {
            return;
        }
        if let Some(begin) = self.beginning.pop_front() {
            self.begin(begin);
        }
        match self.beginning.front() {
            None => {}
            Some(begin) if self.job.checkpoints.has_base(begin.kind) => self.look(),
            Some(_) => self.begin_next(),
        }
    }

    fn begin(&mut self, begin: Begin) {
        let Begin {
            id,
            kind,
            aligned,
            swaps,
            targets,
            facts,
        } = begin;
        let base = self.job.checkpoints.begin(id, kind, &facts);
        let barrier = Barrier {
            id,
            kind,
            base,
            aligned,
        };
        self.barriers.insert(id, barrier);
        let barrier = Arc::new(barrier.with(swaps));
        for target in targets {
            self.send(target, Control::Trigger(barrier.clone()));
        }
    }

    fn store(&mut self, store: Store) {
        let Store {
            round,
            savepoint,
            facts,
        } = store;
        let id = round.id;
        let target = self.target(id, savepoint.as_ref().map(|target| &*target.dir));
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                let outcome = StoreOutcome::NotBegun(error.to_string());
                return self.inputs.push_back(Input::Stored(id, outcome));
            }
        };
        self.inputs.push_back(Input::Located(id, target.url()));
        let (job, now_ms) = (self.job.clone(), self.clock.now_ms());
        let cancellation = Cancellation::default();
        self.storing.insert(id, cancellation.clone());
        match savepoint {
            Some(savepoint) => {
                self.savepoints.insert(id, target.clone());
                self.beside(async move {
                    let layout = savepoint.layout;
                    let stored = store_savepoint(&job, round, &facts, &target, layout, now_ms, &cancellation);
                    Input::Stored(id, stored.await)
                });
            }
            None => self.beside(async move {
                let stored = store_checkpoint(&job, round, &facts, now_ms, &cancellation);
                Input::Stored(id, stored.await)
            }),
        }
    }

    /// The directory of a round: in a user's directory one of its own, else that of the checkpoint.
    fn target(&self, id: CheckpointId, savepoint_dir: Option<&str>) -> Result<Storage, StoreError> {
        match savepoint_dir {
            Some(dir) => {
                let name = paths::savepoint(self.job.job_id, self.job.host.environment.random() as u64);
                self.job.host.stores.open(dir)?.child(&name)
            }
            None => self.job.directory.checkpoint(id),
        }
    }

    fn start(&mut self, number: RegionIndex, attempt: AttemptId, drain: bool) {
        let (Some(deployment), Some(region)) = (self.ready.remove(&number), self.regions.get_mut(number.0 as usize))
        else {
            return self
                .inputs
                .push_back(Input::NotStarted(number, "nothing was prepared".to_owned()));
        };
        let events = self.job.event_sink(attempt);
        let cancelled = Arc::new(AtomicBool::new(false));
        let subtasks = deployment.subtasks;
        let started = self.job.host.executor.start(subtasks, &self.clock, &events, &cancelled);
        region.mailboxes = deployment.mailboxes;
        region.cancelled = cancelled;
        match started {
            Ok(running) => {
                region.running = Some(running);
                if drain {
                    for mailbox in region.mailboxes.values() {
                        mailbox.send(Control::Drain);
                    }
                }
            }
            Err(not_started) => {
                let NotStarted { message, running } = not_started;
                region.running = Some(running);
                region.stop();
                self.inputs.push_back(Input::NotStarted(number, message));
            }
        }
    }

    fn join(&mut self, number: RegionIndex) {
        let region = self.regions.get_mut(number.0 as usize);
        let Some(running) = region.and_then(|region| region.running.take()) else {
            return self.inputs.push_back(Input::Joined(number));
        };
        let environment = self.job.host.environment.clone();
        self.beside(async move {
            let _ = run_blocking(&*environment, move || running.join()).await;
            Input::Joined(number)
        });
    }

    fn broadcast(&self, told: Told) {
        let message = match told {
            Told::Completed { id, committed } => Control::Completed { id, committed },
            Told::Aborted(id) => Control::Aborted(id),
            Told::Drain => Control::Drain,
            Told::Terminate => Control::Terminate,
        };
        for mailbox in self.regions.iter().flat_map(|region| region.mailboxes.values()) {
            mailbox.send(message.clone());
        }
    }

    fn send(&self, subtask: SubtaskId, message: Control) {
        if let Some(mailbox) = self.mailbox(subtask) {
            mailbox.send(message);
        }
    }

    fn mailbox(&self, subtask: SubtaskId) -> Option<&Arc<Mailbox>> {
        self.regions.iter().find_map(|region| region.mailboxes.get(&subtask))
    }
}

impl Barrier {
    fn with(self, swaps: Option<crate::dataflow::element::SwapSet>) -> CheckpointBarrier {
        CheckpointBarrier {
            id: self.id,
            kind: self.kind,
            swaps,
            base: self.base,
            aligned: self.aligned,
        }
    }
}

fn moment(job: &Job, clock: &dyn Clock) -> Moment {
    Moment {
        now_ns: clock.monotonic_ns(),
        now_ms: clock.now_ms(),
        random: job.host.environment.random() as u64,
        to_be_removed: job.checkpoints.to_be_removed(),
    }
}
