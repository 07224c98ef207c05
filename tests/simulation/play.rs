//! Plays one seed from start to end: processes of a host run a job, one after the other, until its input has ended.
//!
//! Each process does what a serving host does with its list of jobs: it brings the job back, or starts it if it had
//! never begun. The list itself never fails here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use regraft::dataflow::control::locked;
use regraft::environment::Environment as _;
use regraft::jobs::durable::records::EndRecord;
use regraft::jobs::start::HostContext;
use regraft::jobs::status::JobStatus;
use regraft_model::id::{CheckpointId, JobId};

use crate::boot::{Boot, Entry, From, boot, descriptions};
use crate::check::{Found, Scene};
use crate::disk::Disk;
use crate::fate::{self, Fate, Place};
use crate::machine::{Machine, Process, Stepped};
use crate::model::{AllHeld, Model, Position};
use crate::random::Random;
use crate::store::Objects;
use crate::trace::logged;
use crate::world::{World, graph};

/// Number of steps after which faults stop, so that the job must come to its end.
const CALM_AFTER_STEPS: u64 = 60_000;
/// A job that takes more steps is stuck.
const STEPS_MAX: u64 = 400_000;
/// Limit of steps at the same simulated time: more mean a busy loop.
const STEPS_AT_ONCE_MAX: u64 = 20_000;
/// Number of steps in which a process that has slept is to end.
const SLEEPER_STEPS_MAX: u64 = 5_000;
/// Limit of failed starts of a job in a row.
const BOOTS_MAX: u32 = 60;
pub const CHECKPOINTS: &str = "/checkpoints";
pub const SAVEPOINTS: &str = "/savepoints";

/// The result of a seed.
pub struct Played {
    /// The failed check, if any.
    pub failure: Option<String>,
    /// Hash of the trace.
    pub hash: u64,
    /// The trace, if it was kept.
    pub trace: String,
    pub steps: u64,
    /// Statistics of what happened.
    pub tally: Tally,
}

/// Numbers of occurrences, by name.
pub type Tally = BTreeMap<String, u64>;

/// The end of a process.
#[derive(Debug)]
pub enum Life {
    /// It was killed, or it suspended its job; the next process brings the job back.
    Over,
    /// The job has ended, and another one starts from there.
    Next(From),
    /// Nothing is left to do.
    Done,
}

type Slot<T> = Arc<Mutex<Option<T>>>;

pub fn take<T>(slot: &Slot<T>) -> Option<T> {
    locked(slot).take()
}

/// A snapshot, with its job and checkpoint id.
pub type Newest = (String, JobId, CheckpointId);

/// A seed in play.
pub struct Play {
    pub world: World,
    pub model: Model,
    pub machine: Arc<Machine>,
    pub fate: Fate,
    pub disk: Arc<Disk>,
    pub objects: Arc<Objects>,
    pub random: Random,
    pub names: Arc<Mutex<Random>>,
    pub process: u64,
    /// The process that has slept, and still runs beside its successor.
    pub sleeper: Option<u64>,
    steps: u64,
    /// The last simulated time, and the first step in it.
    moment: (u64, u64),
    tally: Tally,
    pub entry: Entry,
    /// Version of the modules that are submitted, as of the last upgrade.
    pub version: u32,
    /// True if an upgrade is under way or its outcome is unknown.
    pub upgrading: bool,
    /// Jobs in order of their start.
    pub jobs: Vec<JobId>,
    /// The newest snapshot that commits, with its job and checkpoint id.
    pub newest: Option<Newest>,
    /// Savepoints that can still be started from, with their job and checkpoint id.
    pub savepoints: Vec<Newest>,
}

thread_local! {
    /// The first panic of the seed that this thread plays.
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// Installs a hook that notes panics. Without it, the host would treat a panic in a subtask as a failure and may
/// restart without a trace of it.
pub fn note_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANIC.with_borrow_mut(|panic| _ = panic.get_or_insert_with(|| info.to_string()));
            before(info);
        }));
    });
    PANIC.take();
}

/// Plays a seed.
pub fn play(seed: u64, keep_trace: bool) -> Played {
    let machine = Machine::new(seed, keep_trace);
    let mut random = Random::of(seed, "world");
    let mut world = World::draw(&mut random, Random::of(seed, "input"));
    if Random::of(seed, "positions").percent(15) {
        // Both forms of positions occur, and change places within a run.
        world.listed_splits_most = 1;
    }
    let parallelism = world.parallelism(&mut random);
    let text = world.text(&parallelism, &mut random);
    let model = Model::new(&graph(&text), &world);
    let reads_files = !world.input.files.is_empty();
    let incidents = fate::draw(&mut Random::of(seed, "incidents"), reads_files);
    let disk = Disk::new(seed);
    world.input.begin(&disk);
    machine
        .trace
        .line(0, format_args!("job\n{text}incidents {incidents:#?}"));
    let mut names = Random::of(seed, "names");
    let entry = Entry {
        id: job_id(&mut names),
        from: From::Nothing,
        text,
        at_end: random.percent(10),
        accepted: false,
        ended: None,
    };
    let mut play = Play {
        fate: Fate::new(&machine, seed, incidents),
        world,
        model,
        disk,
        objects: Objects::new(seed),
        random,
        names: Arc::new(Mutex::new(names)),
        process: 0,
        sleeper: None,
        steps: 0,
        moment: (0, 0),
        tally: Tally::new(),
        entry,
        version: 1,
        upgrading: false,
        jobs: vec![],
        newest: None,
        savepoints: vec![],
        machine,
    };
    let machine = play.machine.clone();
    let failure = if keep_trace {
        logged(&machine, || play.run()).err()
    } else {
        play.run().err()
    };
    for what in play.fate.take_happened() {
        play.count(what);
    }
    if let Some(failure) = &failure {
        play.note(format_args!("wrong: {failure}"));
    }
    machine.kill();
    machine.bury();
    Played {
        failure,
        hash: machine.trace.hash(),
        trace: machine.trace.lines(),
        steps: play.steps,
        tally: play.tally,
    }
}

fn job_id(random: &mut Random) -> JobId {
    JobId::from_bits(u128::from(random.next()) << 64 | u128::from(random.next()))
}

impl Play {
    pub fn scene(&self) -> Scene<'_> {
        Scene {
            world: &self.world,
            model: &self.model,
            disk: &self.disk,
            objects: &self.objects,
            jobs: &self.jobs,
        }
    }

    pub fn note(&self, text: std::fmt::Arguments<'_>) {
        self.machine.trace.line(self.machine.now_ns(), text);
    }

    /// Counts an occurrence.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.tally.entry(what.into()).or_default() += 1;
    }

    fn run(&mut self) -> Result<(), String> {
        self.jobs.push(self.entry.id);
        loop {
            let life = self.live()?;
            self.note(format_args!("the process is over: {life:?}"));
            self.end_processes();
            if self.fate.take_power_loss() {
                self.disk.lose_power();
                self.objects.lose_power();
            }
            self.objects.abandon(self.machine.now_ns(), self.world.is_late);
            // It takes a while until a new process is started.
            let ms = *self.random.pick(&[0, 1, 50, 3_000, 600_000]);
            self.machine.advance(ms * 1_000_000);
            match life {
                Life::Over => {}
                Life::Next(from) => {
                    let parallelism = self.world.parallelism(&mut self.random);
                    self.entry = Entry {
                        id: job_id(&mut locked(&self.names)),
                        from,
                        text: self.world.text(&parallelism, &mut self.random),
                        at_end: self.random.percent(10),
                        accepted: false,
                        ended: None,
                    };
                    self.jobs.push(self.entry.id);
                }
                Life::Done => {
                    for (path, ..) in &self.savepoints {
                        self.restores(path)
                            .map_err(|error| format!("at the end, savepoint {path}: {error}"))?;
                    }
                    return Ok(());
                }
            }
        }
    }

    fn end_processes(&mut self) {
        self.machine.set_successor(None);
        self.machine.kill();
        self.machine.bury();
        self.sleeper = None;
    }

    /// Lets a process that has slept find out that it is not the job's any more, and end.
    fn let_sleeper_end(&mut self) -> Result<(), String> {
        let Some(sleeper) = self.sleeper.take() else {
            return Ok(());
        };
        for _ in 0..SLEEPER_STEPS_MAX {
            if self.is_dead() || !self.machine.is_busy(sleeper) {
                break;
            }
            self.step()?;
        }
        let ended = if self.machine.is_busy(sleeper) {
            "still runs"
        } else {
            "has ended"
        };
        self.count(format!("process that had slept {ended}"));
        Ok(())
    }

    /// Checks that a snapshot can be restored, with the contents that it should have.
    fn restores(&self, path: &str) -> Result<Found, String> {
        let graph = graph(&self.entry.text);
        let descriptions = descriptions(&self.modules(&graph, 1));
        self.scene().snapshot(path, &graph, &descriptions)
    }

    /// Checks every snapshot that has become visible since the last call.
    fn published(&mut self) -> Result<(), String> {
        for name in self.objects.take_published() {
            let path = format!("store:///{}", name.trim_end_matches("/_metadata"));
            if self.scene().is_of_no_use(&path) {
                self.note(format_args!("{path} does not count"));
                self.objects.disown(&name);
                continue;
            }
            self.note(format_args!("check {path}"));
            let found = self
                .restores(&path)
                .map_err(|error| format!("snapshot {path}: {error}"))?;
            let Found { kind, job, id, holds } = found;
            self.count(format!("snapshot {kind}"));
            holds
                .into_iter()
                .for_each(|what| self.count(format!("snapshot with {what}")));
            // A round can become durable after a later one.
            let later = self
                .newest
                .as_ref()
                .is_some_and(|(_, of, newest)| *of == job && *newest > id);
            if kind.commits() && !later {
                self.newest = Some((path, job, id));
            }
        }
        Ok(())
    }

    /// Takes a step of the machine. Returns an error where a check fails.
    pub fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps == CALM_AFTER_STEPS {
            self.note(format_args!("calm"));
            self.fate.calm();
        }
        self.world
            .input
            .step(&self.disk, self.steps, self.steps >= CALM_AFTER_STEPS);
        match self.fate.visit(Place::Step, false, "") {
            fate::Verdict::CrashAfter => self.machine.kill(),
            fate::Verdict::Nap(steps) => self.machine.nap(self.process, steps),
            _ => {}
        }
        if !self.is_dead() && self.machine.step() == Stepped::Dead {
            return Err("nothing will ever happen again: a task was not woken".to_owned());
        }
        if self.steps > STEPS_MAX {
            return Err("the job does not come to its end".to_owned());
        }
        let now = self.machine.now_ns();
        if now > self.moment.0 {
            self.moment = (now, self.steps);
        } else if self.steps > self.moment.1 + STEPS_AT_ONCE_MAX {
            return Err("a task spins".to_owned());
        }
        if self.objects.apply_late(now) {
            // The present process finds what a dead one has written.
            self.fate.count_fault();
        }
        if let Some(wrong) = self.objects.wrong() {
            return Err(wrong);
        }
        if let Some(panic) = PANIC.take() {
            return Err(panic);
        }
        self.published()
    }

    pub fn is_dead(&self) -> bool {
        !self.machine.is_alive(self.process)
    }

    /// Runs a process from its start to its end.
    fn live(&mut self) -> Result<Life, String> {
        for _ in 0..BOOTS_MAX {
            let faults = self.fate.faults();
            let (process, host) = self.host();
            self.note(format_args!(
                "process {} has job {}, accepted: {}, from {:?}",
                self.process, self.entry.id, self.entry.accepted, self.entry.from
            ));
            if let Some(end) = self.entry.ended.clone() {
                return self.ended(&process, &host, &end, faults);
            }
            // It may sleep while it starts, too.
            let follower = self.arm_successor();
            let starting = self.begin(&process, boot(host.clone(), self.entry.clone(), self.submission()));
            let boot = loop {
                self.step()?;
                if self.is_dead() {
                    return Ok(Life::Over);
                }
                if let Some(follower) = take(&follower) {
                    return self.follow(follower, faults);
                }
                if let Some(boot) = take(&starting) {
                    break boot;
                }
            };
            match boot {
                Boot::Runs(handle) => {
                    self.count(if self.entry.accepted { "brought back" } else { "started" });
                    self.entry.accepted = true;
                    self.runs_one_version(&handle)?;
                    return self.attend(&process, &host, &handle, faults);
                }
                Boot::Ended(end) => {
                    self.note(format_args!("the job had ended: {end:?}"));
                    return self.ended(&process, &host, &end, faults);
                }
                Boot::Failed(error) => {
                    self.note(format_args!("the job does not start: {error}"));
                    if faults.is_some() && self.fate.faults() == faults {
                        return Err(format!("the job does not start: {error}"));
                    }
                }
            }
            let sleep = process.sleep(std::time::Duration::from_millis(300));
            if self.wait(&process, sleep)?.is_none() {
                return Ok(Life::Over);
            }
            self.end_processes();
        }
        Err(format!("the job has not started {BOOTS_MAX} times"))
    }

    /// Begins a task in a process, and returns the place of its result.
    fn begin<T: Send + 'static>(&self, process: &Process, task: impl Future<Output = T> + Send + 'static) -> Slot<T> {
        let slot: Slot<T> = Slot::default();
        let done = slot.clone();
        process.spawn(Box::pin(async move {
            let result = task.await;
            *locked(&done) = Some(result);
        }));
        slot
    }

    /// Runs a task in a process, and returns its result, or `None` if the process died.
    pub fn wait<T: Send + 'static>(
        &mut self,
        process: &Process,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<Option<T>, String> {
        let slot = self.begin(process, task);
        loop {
            self.step()?;
            if self.is_dead() {
                return Ok(None);
            }
            if let Some(result) = take(&slot) {
                return Ok(Some(result));
            }
        }
    }

    /// Returns what follows the end of a job.
    pub fn ended(
        &mut self,
        process: &Process,
        host: &HostContext,
        end: &EndRecord,
        faults: Option<u64>,
    ) -> Result<Life, String> {
        self.machine.set_successor(None);
        self.let_sleeper_end()?;
        if self.is_dead() {
            return Ok(Life::Over);
        }
        self.note(format_args!("job {} is {}", self.entry.id, end.status));
        self.count(format!("job {}", end.status));
        self.entry.ended = Some(end.clone());
        if self.forget(process, host)?.is_none() {
            return Ok(Life::Over);
        }
        if faults.is_some() && self.fate.faults() == faults {
            let kept = end.status == JobStatus::Failed || (end.status == JobStatus::Canceled && self.world.retains);
            self.scene().leftovers(self.entry.id, kept)?;
        }
        match (end.status, &end.savepoint) {
            (JobStatus::Finished, None) => {
                // At the end of input, all operators have emitted everything.
                let uids = || self.world.nodes.iter().map(|node| node.uid.to_owned());
                let subtasks: Vec<u32> = (0..self.world.fixed().unwrap_or(0) as u32).collect();
                self.scene().output(&Position {
                    read: self.model.end(),
                    finished: uids().collect(),
                    ended: uids().map(|uid| (uid, subtasks.clone())).collect(),
                    held: AllHeld::new(),
                })?;
                Ok(Life::Done)
            }
            (JobStatus::Finished, Some(path)) => self.stopped(path),
            (JobStatus::Canceled, _) => {
                let from = self.go_back();
                self.goes_on(from)
            }
            _ => {
                let failure = end.failure.clone().unwrap_or_default();
                self.explained(&failure)?;
                self.goes_on(self.newest_of_failed())
            }
        }
    }

    /// Lets another job go on from there, unless it is the savepoint of a drain whose output could not be committed.
    fn goes_on(&self, from: From) -> Result<Life, String> {
        match &from {
            From::Snapshot(path) if path.trim_start_matches("store://").starts_with(SAVEPOINTS) => {
                match self.position(path)? {
                    (_, true) => Ok(Life::Done),
                    (_, false) => Ok(Life::Next(from)),
                }
            }
            _ => Ok(Life::Next(from)),
        }
    }

    /// Returns the position that a snapshot gives, and whether it is that of a drain: after one, operators have emitted
    /// their final results, so nothing more may come.
    fn position(&self, path: &str) -> Result<(Position, bool), String> {
        let graph = graph(&self.entry.text);
        let descriptions = descriptions(&self.modules(&graph, 1));
        let position = self.scene().position(path, &graph, &descriptions)?;
        let given = position.finished.iter().any(|uid| self.world.gives_at_end(uid));
        let drained = given && position.read != self.model.end();
        Ok((position, drained))
    }

    /// Handles the end of a job with a savepoint: the visible output is what the savepoint says, and another job goes
    /// on from it.
    pub fn stopped(&self, path: &str) -> Result<Life, String> {
        let (position, drained) = self.position(path)?;
        self.scene().output(&position)?;
        let is_all = self.world.input.watch && position.read == self.model.end();
        if drained || is_all {
            return Ok(Life::Done);
        }
        Ok(Life::Next(From::Snapshot(path.to_owned())))
    }

    /// Returns the point from which the user goes on after a job that failed for good.
    fn newest_of_failed(&self) -> From {
        let names = self.objects.names();
        let exists = |path: &str| {
            let name = format!("{}/_metadata", path.trim_start_matches("store:///"));
            names.contains(&name)
        };
        // A checkpoint that a dead process has completed, and from which the next one has gone on.
        let found = self
            .objects
            .gone_on_from(&format!("{}/{}", &CHECKPOINTS[1..], self.entry.id));
        let later = |of: &JobId, newest: &CheckpointId| *of == self.entry.id && found > Some(newest.0);
        let newest = self.newest.as_ref().filter(|(path, ..)| exists(path));
        if let Some((newest, ..)) = newest.filter(|(_, of, newest)| !later(of, newest)) {
            return From::Snapshot(newest.clone());
        }
        let prefix = format!("{}/{}/chk-", &CHECKPOINTS[1..], self.entry.id);
        let ids = names.iter().filter_map(|name| {
            let id: u64 = name.strip_prefix(&prefix)?.strip_suffix("/_metadata")?.parse().ok()?;
            Some(id)
        });
        ids.max().map_or_else(
            || self.entry.from.clone(),
            |id| From::Snapshot(format!("store:///{prefix}{id}")),
        )
    }

    /// Checks that a job failed for good only for a simulated reason.
    fn explained(&self, failure: &str) -> Result<(), String> {
        let known = ["simulated", "expired before completing", "no space", "no storage space"];
        if failure.contains("bug in Regraft") || !known.iter().any(|known| failure.contains(known)) {
            return Err(format!("the job failed: {failure}"));
        }
        Ok(())
    }
}
