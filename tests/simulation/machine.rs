//! The simulated machine: one thread, a clock of its own, and a seeded choice of what runs next.
//!
//! Tasks are futures; subtasks of jobs are driven one turn at a time. A process is the set of tasks and subtasks that
//! were started under its number: killing it drops them between any two polls and turns. Time stands still while
//! anything is ready, and then jumps to the next time at which something is.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use regraft::dataflow::control::EventSink;
use regraft::dataflow::executor::{Driven, Executor, NotStarted, Running, Turn};
use regraft::dataflow::subtask::Subtask;
use regraft::environment::files::FileSystem;
use regraft::environment::{Environment, Task};
use regraft_model::time::Clock;

use crate::random::Random;
use crate::trace::Trace;

/// Start of the simulated time, milliseconds since the Unix epoch.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// Time after which the wall clock of a machine may be set to another time, nanoseconds.
const CLOCK_STEP_NS: u64 = 700_000_000;

/// The simulated clock. Its wall clock is now and then some seconds ahead or behind, as one that is set by hand or by NTP.
#[derive(Debug, Default)]
pub struct SimClock {
    monotonic_ns: AtomicU64,
    seed: u64,
}

impl SimClock {
    /// Returns true if the wall clock is never set, as in every second seed.
    pub fn is_steady(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    /// Returns the error of the wall clock at a time, in milliseconds.
    fn error_ms(&self, now_ns: u64) -> i64 {
        if self.is_steady() {
            return 0;
        }
        let mut random = Random::of(self.seed.wrapping_add(now_ns / CLOCK_STEP_NS), "clock");
        *random.pick(&[0, 0, 0, 0, 0, -5_000, 5_000])
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        let now_ns = self.monotonic_ns();
        BEGIN_MS + (now_ns / 1_000_000) as i64 + self.error_ms(now_ns)
    }

    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::Relaxed)
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Slot {
    process: u64,
    /// `None` while it is polled.
    task: Option<Task>,
    flag: Arc<Flag>,
}

struct Runner {
    process: u64,
    /// `None` while it takes a turn.
    driven: Option<Driven>,
    /// The last turn occupies the runner until this time.
    busy_until: u64,
    /// `Some` while it waits to be woken, with the latest time to wait until.
    waits: Option<Option<u64>>,
    /// Factor by which its turns take longer than those of others.
    slowness: u64,
}

impl Runner {
    fn is_ready(&mut self, now: u64) -> bool {
        let Some(driven) = &self.driven else { return false };
        if self.busy_until > now {
            return false;
        }
        match self.waits {
            None => true,
            Some(until) => {
                let ready = until.is_some_and(|at| at <= now) || driven.is_cancelled() || driven.mailbox().wake.take();
                if ready {
                    self.waits = None;
                }
                ready
            }
        }
    }

    /// Returns the time at which it is ready without being woken.
    fn ready_at(&self, now: u64) -> Option<u64> {
        if self.busy_until > now {
            return Some(self.busy_until);
        }
        self.waits.flatten()
    }
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<u64, Slot>,
    runners: BTreeMap<u64, Runner>,
    timers: BTreeMap<(u64, u64), Waker>,
    next_id: u64,
    /// The running processes; spawning under any other has no effect. There are two after one has slept.
    alive: BTreeSet<u64>,
    /// The process that sleeps: nothing of it runs.
    asleep: Option<u64>,
}

/// Starts the process that runs the job while another one sleeps.
pub type Successor = Box<dyn FnOnce() + Send>;

/// The machine. It is shared, but only one thread uses it.
pub struct Machine {
    state: Mutex<State>,
    choices: Mutex<Random>,
    /// Starts the next process, if the present one may sleep.
    successor: Mutex<Option<Successor>>,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// The trace of the simulation.
    pub trace: Trace,
}

/// The result of a step of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// Something ran, or time advanced.
    On,
    /// Nothing can happen any more.
    Dead,
}

enum Choice {
    Task(u64),
    Runner(u64),
}

impl Machine {
    pub fn new(seed: u64, keep_trace: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            choices: Mutex::new(Random::of(seed, "choices")),
            successor: Mutex::default(),
            clock: Arc::new(SimClock {
                monotonic_ns: AtomicU64::default(),
                seed,
            }),
            trace: Trace::new(keep_trace),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    /// Draws from the scheduler's random numbers.
    pub fn random<T>(&self, ask: impl FnOnce(&mut Random) -> T) -> T {
        ask(&mut self.choices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a process.
    pub fn begin(&self, process: u64) {
        self.state().alive.insert(process);
    }

    /// Returns true if the process runs.
    pub fn is_alive(&self, process: u64) -> bool {
        self.state().alive.contains(&process)
    }

    /// Makes all further actions of all processes ineffective. Must be followed by [`Machine::bury`].
    pub fn kill(&self) {
        self.state().alive.clear();
    }

    /// Sets what starts the next process when the present one sleeps; with `None` it does not sleep.
    pub fn set_successor(&self, successor: Option<Successor>) {
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = successor;
    }

    /// Lets a process sleep in the middle of what it does, as if stopped by a signal, while its successor starts and takes
    /// some steps; from then on both run. Called by the process itself, which holds no lock of the simulation.
    pub fn nap(&self, process: u64, steps: u64) {
        let successor = self.successor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(successor) = successor else { return };
        self.trace.line(self.now_ns(), format_args!("process {process} sleeps"));
        self.state().asleep = Some(process);
        successor();
        for _ in 0..steps {
            if !self.is_alive(process) || self.step() == Stepped::Dead {
                break;
            }
        }
        self.state().asleep = None;
        self.trace
            .line(self.now_ns(), format_args!("process {process} wakes up"));
    }

    /// Returns true if anything of a process is left.
    pub fn is_busy(&self, process: u64) -> bool {
        let state = self.state();
        let mut tasks = state.tasks.values().map(|slot| slot.process);
        let mut runners = state.runners.values().map(|runner| runner.process);
        tasks.any(|of| of == process) || runners.any(|of| of == process)
    }

    /// Drops all tasks and subtasks of dead processes.
    pub fn bury(&self) {
        let (mut tasks, mut runners) = (vec![], vec![]);
        {
            let mut state = self.state();
            let alive = state.alive.clone();
            let dead = |process: u64| !alive.contains(&process);
            let ids: Vec<u64> = state
                .tasks
                .iter()
                .filter(|(_, t)| dead(t.process))
                .map(|(id, _)| *id)
                .collect();
            tasks.extend(ids.iter().filter_map(|id| state.tasks.remove(id)));
            let ids: Vec<u64> = state
                .runners
                .iter()
                .filter(|(_, r)| dead(r.process))
                .map(|(id, _)| *id)
                .collect();
            runners.extend(ids.iter().filter_map(|id| state.runners.remove(id)));
        }
        // Outside of the lock, since destructors may use the machine.
        drop((tasks, runners));
    }

    /// Advances the clock without running anything.
    pub fn advance(&self, ns: u64) {
        self.clock.monotonic_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Starts a task under a process.
    pub fn spawn(&self, process: u64, task: Task) {
        // A dead process starts nothing. Its task is dropped without the lock, which its destructor may take.
        if !self.is_alive(process) {
            return;
        }
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let task = Some(task);
        state.tasks.insert(id, Slot { process, task, flag });
    }

    /// Makes one of the running subtasks, chosen by `which`, stand still for a while.
    pub fn stall(&self, which: u64, duration_ns: u64) {
        let now = self.now_ns();
        let mut state = self.state();
        let count = state.runners.len() as u64;
        if let Some((id, runner)) = state.runners.iter_mut().nth((which % count.max(1)) as usize) {
            runner.busy_until = runner.busy_until.max(now) + duration_ns;
            self.trace.line(
                now,
                format_args!("stall runner {id} for {} ms", duration_ns / 1_000_000),
            );
        }
    }

    /// Does one thing: the next turn or poll of something that is ready, or a jump in time.
    pub fn step(&self) -> Stepped {
        let now = self.now_ns();
        let choice = {
            let mut state = self.state();
            while let Some(timer) = state.timers.first_entry().filter(|timer| timer.key().0 <= now) {
                timer.remove().wake();
            }
            let asleep = state.asleep;
            // A task that is being polled is that of a process which sleeps in it.
            let is_ready = |slot: &Slot| {
                slot.flag.0.load(Ordering::Relaxed) && Some(slot.process) != asleep && slot.task.is_some()
            };
            let mut ready: Vec<Choice> = state
                .tasks
                .iter()
                .filter(|(_, slot)| is_ready(slot))
                .map(|(id, _)| Choice::Task(*id))
                .collect();
            let awake = |runner: &Runner| Some(runner.process) != asleep;
            let runners = state.runners.iter_mut().filter(|(_, runner)| awake(runner));
            ready.extend(runners.filter_map(|(id, runner)| runner.is_ready(now).then_some(Choice::Runner(*id))));
            if ready.is_empty() {
                let next = state.timers.keys().next().map(|(at, _)| *at);
                let runners = state.runners.values().filter(|runner| awake(runner));
                let next = runners.filter_map(|r| r.ready_at(now)).chain(next).min();
                return match next {
                    Some(at) => {
                        self.clock.monotonic_ns.store(at.max(now), Ordering::Relaxed);
                        Stepped::On
                    }
                    None => Stepped::Dead,
                };
            }
            let at = self.random(|random| random.below(ready.len() as u64));
            ready.swap_remove(at as usize)
        };
        match choice {
            Choice::Task(id) => self.poll(id),
            Choice::Runner(id) => self.turn(id),
        }
        Stepped::On
    }

    fn poll(&self, id: u64) {
        let (mut task, flag) = {
            let mut state = self.state();
            let Some(slot) = state.tasks.get_mut(&id) else { return };
            slot.flag.0.store(false, Ordering::Relaxed);
            let Some(task) = slot.task.take() else { return };
            (task, slot.flag.clone())
        };
        self.trace.line(self.now_ns(), format_args!("task {id}"));
        let waker = Waker::from(flag);
        let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut state = self.state();
        if done {
            let slot = state.tasks.remove(&id);
            drop(state);
            drop((task, slot));
        } else if let Some(slot) = state.tasks.get_mut(&id) {
            slot.task = Some(task);
        }
    }

    fn turn(&self, id: u64) {
        let Some(mut driven) = self
            .state()
            .runners
            .get_mut(&id)
            .and_then(|runner| runner.driven.take())
        else {
            return;
        };
        let turn = driven.turn();
        let now = self.now_ns();
        let which = driven.id();
        self.trace
            .line(now, format_args!("subtask {}#{} {turn:?}", which.chain, which.index));
        let cost = self.random(|random| random.range(1_000, 200_000));
        let mut state = self.state();
        if turn == Turn::Over {
            let runner = state.runners.remove(&id);
            drop(state);
            drop((driven, runner));
        } else if let Some(runner) = state.runners.get_mut(&id) {
            runner.driven = Some(driven);
            runner.busy_until = runner.busy_until.max(now + cost * runner.slowness);
            runner.waits = match turn {
                Turn::Wait(until) => Some(until),
                Turn::Again | Turn::Over => None,
            };
        }
    }
}

/// A future that is ready when the clock has reached a time.
struct Sleep {
    machine: Arc<Machine>,
    at: u64,
    timer: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.machine.now_ns() >= self.at && self.timer.is_some() {
            return Poll::Ready(());
        }
        // A sleep of no time still lets others run.
        let machine = self.machine.clone();
        let mut state = machine.state();
        let at = self.at;
        let key = *self.timer.get_or_insert_with(|| {
            state.next_id += 1;
            (at, state.next_id)
        });
        state.timers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            let waker = self.machine.state().timers.remove(&key);
            drop(waker);
        }
    }
}

/// The machine as seen by one process of the host.
#[derive(Clone)]
pub struct Process {
    pub machine: Arc<Machine>,
    pub number: u64,
    pub files: Arc<dyn FileSystem>,
    /// Random bits for ids and names.
    pub names: Arc<Mutex<Random>>,
    pub listed_splits_most: usize,
}

impl Environment for Process {
    fn clock(&self) -> Arc<dyn Clock> {
        self.machine.clock.clone()
    }

    fn random(&self) -> u128 {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        u128::from(names.next()) << 64 | u128::from(names.next())
    }

    fn listed_splits_most(&self) -> usize {
        self.listed_splits_most
    }

    fn spawn(&self, task: Task) {
        self.machine.spawn(self.number, task);
    }

    fn sleep(&self, duration: Duration) -> Task {
        let machine = self.machine.clone();
        let at = machine
            .now_ns()
            .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        let timer = None;
        Box::pin(Sleep { machine, at, timer })
    }

    /// Runs the work as a whole, some time later, also if its result is not waited for.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let delay = self.machine.random(|random| random.range(1_000, 500_000));
        let sleep = self.sleep(Duration::from_nanos(delay));
        self.spawn(Box::pin(async move {
            sleep.await;
            work();
            let _ = done.send(());
        }));
        Box::pin(async move {
            let _ = is_done.await;
        })
    }

    fn files(&self) -> Arc<dyn FileSystem> {
        self.files.clone()
    }
}

impl Executor for Process {
    fn start(
        &self,
        subtasks: Vec<Subtask>,
        _: &Arc<dyn Clock>,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Box<dyn Running>, NotStarted> {
        let mut ids = vec![];
        for subtask in subtasks {
            let slowness = self.machine.random(|random| *random.pick(&[1, 1, 1, 1, 3, 20]));
            let runner = Runner {
                process: self.number,
                driven: Some(Driven::new(subtask, events, cancelled)),
                busy_until: 0,
                waits: None,
                slowness,
            };
            let mut state = self.machine.state();
            if state.alive.contains(&self.number) {
                let id = state.next_id;
                state.next_id += 1;
                ids.push(id);
                state.runners.insert(id, runner);
            }
        }
        let machine = self.machine.clone();
        Ok(Box::new(RunningSubtasks { machine, ids }))
    }
}

struct RunningSubtasks {
    machine: Arc<Machine>,
    ids: Vec<u64>,
}

impl Running for RunningSubtasks {
    /// Joins the subtasks. Nothing else can run meanwhile, so those that are left must have been cancelled, and take
    /// their last turn here.
    fn join(self: Box<Self>) {
        for id in self.ids {
            let left = self.machine.state().runners.contains_key(&id);
            if left {
                self.machine.turn(id);
                let left = self.machine.state().runners.contains_key(&id);
                assert!(!left, "a subtask was waited for that had not been cancelled");
            }
        }
    }
}
