//! One seed from beginning to end: processes that run a job, one after the other, until its input has ended.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use regraft::dataflow::control::locked;
use regraft::dataflow::operator::Modules;
use regraft::environment::Environment as _;
use regraft::graph::job_graph::{JobGraph, NodeKind};
use regraft::jobs::admission::Descriptions;
use regraft::jobs::handle::{JobError, JobHandle, SnapshotReport, SnapshotRequest};
use regraft::jobs::start::{HostContext, NewJob, RestoreFrom, start};
use regraft::jobs::status::JobStatus;
use regraft::savepoint::restore::RestoreOptions;
use regraft::savepoint::rows::Layout;
use regraft::upgrade::run::upgrade;
use regraft_model::id::{CheckpointId, JobId};
use regraft_model::snapshot::SnapshotKind;

use crate::check::{Scene, visible};
use crate::disk::{Disk, Files, MachineRef};
use crate::fate::{self, Action, Fate, Place};
use crate::guests::Native;
use crate::machine::{Machine, Process, Stepped};
use crate::model::{Model, Offsets};
use crate::random::Random;
use crate::store::{Objects, SimStore};
use crate::trace::logged;
use crate::world::{Kind, OUT, World, graph};

/// Nothing goes wrong any more after so many steps: then the job has to come to its end.
const CALM_AFTER_STEPS: u64 = 60_000;
/// A job that takes longer has got stuck.
const STEPS_MAX: u64 = 400_000;
/// So often in a row a job may fail to start.
const STARTS_MAX: u32 = 40;
const CHECKPOINTS: &str = "/checkpoints";
const SAVEPOINTS: &str = "/savepoints";

/// What a seed came to.
pub struct Played {
    /// What went wrong, if anything.
    pub failure: Option<String>,
    /// Of the trace.
    pub hash: u64,
    /// The trace, where it was kept.
    pub trace: String,
    pub steps: u64,
    pub processes: u64,
    pub checkpoints: u64,
}

/// Where a process starts from.
#[derive(Debug, Clone)]
enum From {
    Nothing,
    Snapshot(String),
}

/// How a process ended.
#[derive(Debug)]
enum Life {
    /// Killed, or the job failed: it goes on from its last checkpoint.
    Broken,
    /// On purpose: the next one starts from there.
    Next(From),
    /// The job has come to its end.
    Finished,
}

type Slot<T> = Arc<Mutex<Option<T>>>;

fn take<T>(slot: &Slot<T>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What the user waits for.
enum Asked {
    Snapshot(Action, Slot<Result<SnapshotReport, JobError>>),
    Cancel,
    Upgrade(u32, Slot<bool>),
}

struct Play {
    world: World,
    model: Model,
    machine: Arc<Machine>,
    fate: Fate,
    disk: Arc<Disk>,
    objects: Arc<Objects>,
    names: Arc<Mutex<Random>>,
    random: Random,
    process: u64,
    steps: u64,
    checkpoints: u64,
    /// The job file in use.
    text: String,
    version: u32,
    /// Jobs in the order they were started.
    jobs: Vec<JobId>,
    /// The newest snapshot that commits, and of which kind it is.
    newest: Option<(String, SnapshotKind)>,
    /// Where input was ended by the user.
    drained: Option<Offsets>,
    /// Savepoints that can still be started from, with their job and checkpoint id.
    savepoints: Vec<(String, JobId, CheckpointId)>,
}

/// Plays a seed.
pub fn play(seed: u64, keep_trace: bool) -> Played {
    let machine = Machine::new(seed, keep_trace);
    let mut random = Random::of(seed, "world");
    let world = World::draw(&mut random);
    let parallelism = world.parallelism(&mut random);
    let text = world.text(&parallelism, &mut random);
    let model = Model::new(&graph(&text));
    let incidents = fate::draw(&mut Random::of(seed, "incidents"));
    machine
        .trace
        .line(0, format_args!("job\n{text}incidents {incidents:#?}"));
    let mut play = Play {
        fate: Fate::new(&machine, seed, incidents),
        world,
        model,
        disk: Disk::new(seed),
        objects: Objects::new(seed),
        names: Arc::new(Mutex::new(Random::of(seed, "names"))),
        random,
        process: 0,
        steps: 0,
        checkpoints: 0,
        text,
        version: 1,
        jobs: vec![],
        newest: None,
        drained: None,
        savepoints: vec![],
        machine,
    };
    let machine = play.machine.clone();
    let failure = if keep_trace {
        logged(&machine, || play.run()).err()
    } else {
        play.run().err()
    };
    if let Some(failure) = &failure {
        play.note(format_args!("wrong: {failure}"));
    }
    machine.kill();
    machine.bury();
    Played {
        failure,
        hash: play.machine.trace.hash(),
        trace: play.machine.trace.lines(),
        steps: play.steps,
        processes: play.process,
        checkpoints: play.checkpoints,
    }
}

impl Play {
    fn scene(&self) -> Scene<'_> {
        Scene {
            world: &self.world,
            model: &self.model,
            disk: &self.disk,
            objects: &self.objects,
        }
    }

    fn note(&self, text: std::fmt::Arguments<'_>) {
        self.machine.trace.line(self.machine.now_ns(), text);
    }

    fn modules(&self, graph: &JobGraph) -> Modules {
        let mut modules = Modules::new();
        for node in &graph.nodes {
            let kind = self
                .world
                .nodes
                .iter()
                .find(|of| of.uid == node.uid.as_str())
                .map(|of| of.kind);
            if let (NodeKind::Operator(_), Some(Kind::Operator(logic))) = (&node.kind, kind) {
                modules.insert(node.uid.clone(), Native::module(logic, self.version, &self.fate));
            }
        }
        modules
    }

    fn run(&mut self) -> Result<(), String> {
        let mut from = From::Nothing;
        loop {
            let life = self.live(&from)?;
            self.note(format_args!("the process is over: {life:?}"));
            self.machine.kill();
            self.machine.bury();
            if self.fate.take_power_loss() {
                self.disk.lose_power();
                self.objects.lose_power();
            }
            self.published()?;
            match life {
                Life::Finished => {
                    let end = self.drained.clone().unwrap_or_else(|| self.model.end());
                    return self.scene().output(&end, &|_| true);
                }
                Life::Next(next) => {
                    from = next;
                    let parallelism = self.world.parallelism(&mut self.random);
                    self.text = self.world.text(&parallelism, &mut self.random);
                }
                Life::Broken => match self.newest() {
                    Some(newest) => from = newest,
                    None => {
                        return self.scene().output(&self.model.end(), &|_| true);
                    }
                },
            }
        }
    }

    /// Where to go on after a crash: the newest snapshot that commits; none when that was of the end of input and is gone.
    fn newest(&self) -> Option<From> {
        let Some((path, kind)) = &self.newest else {
            return Some(From::Nothing);
        };
        let there = self
            .objects
            .names()
            .iter()
            .any(|name| name.strip_suffix("/_metadata") == Some(path));
        (there || *kind != SnapshotKind::EndOfInput).then(|| From::Snapshot(format!("store:///{path}")))
    }

    /// Every snapshot that has become visible since this was last called is as it should be.
    fn published(&mut self) -> Result<(), String> {
        for name in self.objects.take_published() {
            self.checkpoints += 1;
            let path = name.trim_end_matches("/_metadata").to_owned();
            self.note(format_args!("check {path}"));
            let graph = graph(&self.text);
            let descriptions = descriptions(&self.modules(&graph));
            let checked = self
                .scene()
                .snapshot(&format!("store:///{path}"), &graph, &descriptions);
            let kind = checked.map_err(|error| format!("snapshot {path}: {error}"))?;
            if kind.commits() {
                self.newest = Some((path, kind));
            }
        }
        Ok(())
    }

    /// One step of the machine. An error: it has got stuck.
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps == CALM_AFTER_STEPS {
            self.note(format_args!("calm"));
            self.fate.calm();
        }
        let verdict = self.fate.visit(Place::Step, false, "");
        if verdict == fate::Verdict::CrashAfter {
            self.machine.kill();
        }
        if self.machine.is_alive(self.process) && self.machine.step() == Stepped::Dead {
            return Err("nothing will ever happen again: somebody was not woken".to_owned());
        }
        if self.steps > STEPS_MAX {
            return Err("the job does not come to its end".to_owned());
        }
        self.published()
    }

    fn is_dead(&self) -> bool {
        !self.machine.is_alive(self.process)
    }

    fn host(&mut self) -> (Process, HostContext) {
        self.process += 1;
        self.machine.begin(self.process);
        let files = Files {
            disk: self.disk.clone(),
            fate: self.fate.clone(),
            machine: MachineRef(self.machine.clone()),
            process: self.process,
        };
        let process = Process {
            machine: self.machine.clone(),
            number: self.process,
            files: Arc::new(files),
            names: self.names.clone(),
        };
        let store = SimStore {
            objects: self.objects.clone(),
            of: Some((process.clone(), self.fate.clone())),
        };
        let host = HostContext {
            environment: Arc::new(process.clone()),
            stores: Arc::new(store),
            executor: Arc::new(process.clone()),
            checkpoint_dir: CHECKPOINTS.into(),
            recovers: false,
        };
        (process, host)
    }

    /// A process from its start to its end.
    fn live(&mut self, from: &From) -> Result<Life, String> {
        for _ in 0..STARTS_MAX {
            let faults = self.fate.faults();
            let (process, host) = self.host();
            self.note(format_args!("process {} starts from {from:?}", self.process));
            let slot = Slot::default();
            let job = self.new_job(from);
            let result = slot.clone();
            process.spawn(Box::pin(async move {
                let started = start(&host, job).await;
                *locked(&result) = Some(started);
            }));
            let started = loop {
                self.step()?;
                if self.is_dead() {
                    return Ok(Life::Broken);
                }
                if let Some(started) = take(&slot) {
                    break started;
                }
            };
            match started {
                Ok(handle) => return self.attend(&process, &handle),
                Err(error) if faults.is_some() && self.fate.faults() == faults => {
                    return Err(format!("the job does not start: {error}"));
                }
                Err(error) => self.note(format_args!("the job does not start: {error}")),
            }
            self.pause(&process, 200)?;
            self.machine.kill();
            self.machine.bury();
        }
        Err(format!("the job has not started {STARTS_MAX} times"))
    }

    /// Lets time pass.
    fn pause(&mut self, process: &Process, ms: u64) -> Result<(), String> {
        let slot = Slot::default();
        let (sleep, done) = (process.sleep(std::time::Duration::from_millis(ms)), slot.clone());
        process.spawn(Box::pin(async move {
            sleep.await;
            *locked(&done) = Some(());
        }));
        while take(&slot).is_none() && !self.is_dead() {
            self.step()?;
        }
        Ok(())
    }

    fn new_job(&self, from: &From) -> NewJob {
        let graph = graph(&self.text);
        let restore = |location: &String| RestoreFrom {
            location: location.clone(),
            options: RestoreOptions::default(),
            allow_later_output: false,
        };
        NewJob {
            modules: self.modules(&graph),
            graph,
            restore: match from {
                From::Nothing => None,
                From::Snapshot(location) => Some(restore(location)),
            },
            savepoint_at_end: None,
            job_id: None,
        }
    }

    /// A job that runs, until it does no more.
    fn attend(&mut self, process: &Process, handle: &JobHandle) -> Result<Life, String> {
        self.jobs.push(handle.job_id());
        let mut waiting: VecDeque<Action> = VecDeque::new();
        let mut asked: Option<Asked> = None;
        loop {
            self.step()?;
            if self.is_dead() {
                return Ok(Life::Broken);
            }
            waiting.extend(self.fate.take_action());
            match &asked {
                None => asked = waiting.pop_front().map(|action| self.ask(process, handle, action)),
                Some(Asked::Snapshot(action, slot)) => {
                    if let Some(result) = take(slot) {
                        if let Some(life) = self.answered(handle, *action, result)? {
                            return Ok(life);
                        }
                        asked = None;
                    }
                }
                Some(Asked::Upgrade(version, slot)) => {
                    if let Some(done) = take(slot) {
                        if done {
                            self.version = *version;
                        }
                        asked = None;
                    }
                }
                Some(Asked::Cancel) => {}
            }
            let status = handle.status();
            if status.is_terminal() {
                if matches!(asked, Some(Asked::Snapshot(..))) {
                    // The answer is on its way.
                    continue;
                }
                return self.ended(process, handle, status);
            }
        }
    }

    fn ask(&self, process: &Process, handle: &JobHandle, action: Action) -> Asked {
        self.note(format_args!("the user asks: {action:?}"));
        let job = handle.clone();
        match action {
            Action::Cancel => {
                handle.cancel();
                Asked::Cancel
            }
            Action::Upgrade => {
                let slot: Slot<bool> = Slot::default();
                let (result, version) = (slot.clone(), self.version + 1);
                let mut modules = self.modules(&handle.shared.graph);
                for (uid, module) in &mut modules {
                    let kind = self
                        .world
                        .nodes
                        .iter()
                        .find(|of| of.uid == uid.as_str())
                        .map(|of| of.kind);
                    if let Some(Kind::Operator(logic)) = kind {
                        *module = Native::module(logic, version, &self.fate);
                    }
                }
                process.spawn(Box::pin(async move {
                    let done = upgrade(&job, modules, Instant::now()).await.is_ok();
                    *locked(&result) = Some(done);
                }));
                Asked::Upgrade(version, slot)
            }
            Action::Savepoint | Action::Stop | Action::Drain => {
                let slot = Slot::default();
                let kind = if action == Action::Savepoint {
                    SnapshotKind::Savepoint
                } else {
                    SnapshotKind::Stop
                };
                let request = SnapshotRequest {
                    kind,
                    savepoint_dir: Some(SAVEPOINTS.to_owned()),
                    layout: Layout::Canonical,
                    drain: action == Action::Drain,
                    swap: None,
                    reply: None,
                };
                let result = slot.clone();
                process.spawn(Box::pin(async move {
                    let done = job.snapshot(request).await;
                    *locked(&result) = Some(done);
                }));
                Asked::Snapshot(action, slot)
            }
        }
    }

    fn answered(
        &mut self,
        handle: &JobHandle,
        action: Action,
        result: Result<SnapshotReport, JobError>,
    ) -> Result<Option<Life>, String> {
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                self.note(format_args!("{action:?}: {error}"));
                return Ok(None);
            }
        };
        self.note(format_args!("{action:?}: {}", report.path));
        let savepoint = (report.path.clone(), handle.job_id(), report.checkpoint_id);
        self.savepoints.push(savepoint);
        if action == Action::Savepoint {
            return Ok(None);
        }
        // It is said to be committed: so it is.
        let (read, finished) = self.scene().position(&report.path)?;
        self.scene().output(&read, &|uid| finished.contains(uid))?;
        while !handle.status().is_terminal() {
            self.step()?;
            if self.is_dead() {
                break;
            }
        }
        // Where operators have given what they give at the end, nothing comes after it.
        if action == Action::Drain && self.world.has_end() {
            self.drained = Some(read);
            return Ok(Some(Life::Finished));
        }
        Ok(Some(Life::Next(From::Snapshot(report.path))))
    }

    fn ended(&mut self, process: &Process, handle: &JobHandle, status: JobStatus) -> Result<Life, String> {
        self.note(format_args!("job {} is {status}", handle.job_id()));
        let _ = process;
        match status {
            JobStatus::Finished => Ok(Life::Finished),
            JobStatus::Canceled => Ok(Life::Next(self.go_back())),
            _ => {
                let failure = handle.shared.view().failure.unwrap_or_default();
                self.note(format_args!("it failed: {failure}"));
                let known = ["simulated", "expired before completing", "no space", "no storage space"];
                if failure.contains("bug in Regraft") || !known.iter().any(|known| failure.contains(known)) {
                    return Err(format!("the job failed: {failure}"));
                }
                Ok(Life::Broken)
            }
        }
    }

    /// The user goes back to a savepoint, or to the beginning, and removes what was written since.
    fn go_back(&mut self) -> From {
        let at = self.random.below(self.savepoints.len() as u64 + 1) as usize;
        let to = self.savepoints.get(at).cloned();
        self.savepoints.truncate(at + 1);
        self.newest = to
            .as_ref()
            .map(|(path, ..)| (path.trim_start_matches("store:///").to_owned(), SnapshotKind::Stop));
        let (jobs, of, from) = match to {
            None => (self.jobs.clone(), None, From::Nothing),
            Some((path, job, id)) => {
                let after = self.jobs.iter().skip_while(|other| **other != job).skip(1);
                (after.copied().collect(), Some((job, id)), From::Snapshot(path))
            }
        };
        for (sink, parts) in visible(&self.disk) {
            for name in parts.keys() {
                let mut fields = name.rsplit(['-', '.']).skip(2);
                let id: u64 = fields.next().and_then(|id| id.parse().ok()).unwrap_or(0);
                let short = fields.next().unwrap_or_default();
                let later = of.is_some_and(|(job, at)| job.short() == short && id > at.0);
                if later || jobs.iter().any(|job| job.short() == short) {
                    self.note(format_args!("the user removes {sink}/{name}"));
                    self.disk.remove(&Path::new(OUT).join(&sink).join(name));
                }
            }
        }
        from
    }
}

fn descriptions(modules: &Modules) -> Descriptions {
    let description =
        |module: &Arc<dyn regraft::dataflow::operator::OperatorModule>| module.description().clone().into();
    modules
        .iter()
        .map(|(uid, module)| (uid.clone(), description(module)))
        .collect()
}
