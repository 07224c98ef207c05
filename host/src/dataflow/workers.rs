//! Drives the subtasks of all jobs of this process on a fixed number of workers: guests compute there, and never on an
//! I/O thread.
//!
//! There are as many *seats* as workers. A seat has a queue of subtasks that are ready, and a thread holds it while it
//! steps them, one at a time. A subtask has a home seat; a seat without work takes ready subtasks of others.
//! A consumer that a step makes ready on the same seat runs next, while its input is in the cache, and no thread is woken.
//!
//! A step may take long: a guest computes, or a sink waits for its reader. When it has taken [`STUCK_NS`] and other
//! subtasks wait at its seat, a spare thread takes the seat over, and the thread that is stuck becomes a spare one when
//! its step is over. So there is at most one thread more for each such step.
//!
//! - [`ready`]: the queue of a seat, in which the regions of jobs take turns. Pure.
//! - [`task`]: a subtask among the workers.

mod ready;
mod task;

use std::cell::Cell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use regraft_model::time::Clock;

use super::control::{EventSink, Waiter, locked};
use super::executor::{Driven, Executor, NotStarted, Running, Turn};
use super::subtask::Subtask;
use ready::{Parties, Party, Ready};
use task::{Place, Stepped, Task, free};

/// Limit of subtasks that run in this process at the same time, over all of its jobs. Each of them has memory mappings, and
/// a process that runs out of these aborts.
pub const SUBTASKS_MAX: usize = 8192;

/// Time for which the subtasks of one region run before those of another get a turn.
const TURN: Duration = Duration::from_millis(1);
/// Time after which a step is stuck: the other subtasks of its seat go to a spare thread.
const STUCK_NS: u64 = 10_000_000;
/// Interval at which steps that take long are looked for, while there are any.
const WATCH: Duration = Duration::from_millis(5);
/// Time after which a spare thread without work ends.
const SPARE: Duration = Duration::from_secs(10);

/// Subtasks that run in this process.
static SUBTASKS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Pool, as its address, seat and term of the worker that this thread is.
    static SEAT: Cell<(usize, usize, u64)> = const { Cell::new((0, 0, 0)) };
    /// True if the present step has made a consumer ready that is to run next.
    static GIVES_WAY: Cell<bool> = const { Cell::new(false) };
}

/// An executor with a fixed number of workers. Its threads are started with the first subtasks, and end with it.
pub struct Workers {
    pool: Arc<Pool>,
}

/// State that the workers share.
struct Pool {
    seats: Box<[Seat]>,
    parties: Mutex<Parties>,
    /// Number of seats that have no work and wait.
    idle: AtomicUsize,
    /// Spare threads that wait for a seat.
    spares: Mutex<Vec<Spare>>,
    watch: Mutex<Watch>,
    watched: Condvar,
    /// True while steps are watched for their length.
    watching: AtomicBool,
    /// Subtasks that have not ended, by number.
    held: Mutex<HashMap<u64, Arc<Task>>>,
    /// Their number, for those that look without the lock.
    subtasks: AtomicUsize,
    /// Number that the next subtask or thread gets.
    next: AtomicU64,
    /// True once the executor has been dropped: the threads end with the last subtask.
    closing: AtomicBool,
    /// Number of threads that were started: the watcher, then one for each seat.
    started: Mutex<usize>,
    epoch: Instant,
}

/// The watcher's state.
#[derive(Default)]
struct Watch {
    /// True if some seat has work.
    busy: bool,
}

/// A spare thread.
#[derive(Clone)]
struct Spare {
    number: u64,
    /// Gives it a seat for a term.
    seat: Sender<(usize, u64)>,
}

struct Seat {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Number of ready subtasks, for those that look without the lock.
    len: AtomicUsize,
    /// Changes when another thread takes the seat over.
    term: AtomicU64,
    /// Time at which the present step began, nanoseconds since the pool's epoch; 0 between two steps.
    began: AtomicU64,
}

#[derive(Default)]
struct Queue {
    ready: Ready<Arc<Task>>,
    /// True while its thread waits for work.
    parked: bool,
}

impl Default for Workers {
    /// As many workers as this process may use cores.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers")
            .field("workers", &self.pool.seats.len())
            .finish_non_exhaustive()
    }
}

impl Workers {
    /// Returns an executor with this number of workers.
    #[must_use]
    pub fn new(workers: NonZeroUsize) -> Self {
        let seat = || Seat {
            queue: Mutex::default(),
            changed: Condvar::new(),
            len: AtomicUsize::new(0),
            term: AtomicU64::new(0),
            began: AtomicU64::new(0),
        };
        let pool = Pool {
            seats: (0..workers.get()).map(|_| seat()).collect(),
            parties: Mutex::default(),
            idle: AtomicUsize::new(0),
            spares: Mutex::default(),
            watch: Mutex::default(),
            watched: Condvar::new(),
            watching: AtomicBool::new(false),
            held: Mutex::default(),
            subtasks: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            started: Mutex::default(),
            epoch: Instant::now(),
        };
        Self { pool: Arc::new(pool) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.pool.closing.store(true, Ordering::SeqCst);
        self.pool.wake_all();
    }
}

impl Executor for Workers {
    fn start(
        &self,
        subtasks: Vec<Subtask>,
        clock: &Arc<dyn Clock>,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Box<dyn Running>, NotStarted> {
        let pool = &self.pool;
        let mut running = Vec::with_capacity(subtasks.len());
        let not_started = |message, running| {
            cancelled.store(true, Ordering::Relaxed);
            Err(NotStarted {
                message,
                running: Box::new(RunningTasks(running)),
            })
        };
        if let Err(error) = pool.start_threads() {
            let message = format!(
                "no thread for the workers of this process: {error}; raise the limit on threads (`ulimit -u`, pids.max of the cgroup) or memory of this process"
            );
            return not_started(message, running);
        }
        let alone = pool.subtasks.load(Ordering::SeqCst) == 0;
        let (party, homes) = locked(&pool.parties).enter(subtasks.len(), pool.seats.len(), alone);
        let count = subtasks.len();
        for (mut subtask, home) in subtasks.into_iter().zip(homes) {
            let name = format!("{}#{}", subtask.uid(), subtask.id().index);
            let Some(place) = Place::take() else {
                let message = format!(
                    "no place for subtask {name}, one of {count}: {SUBTASKS_MAX} run in this process already, which is the limit; lower the parallelism of its jobs, or run some of them in another host"
                );
                return not_started(message, running);
            };
            let driven = Driven::new(subtask, events, cancelled);
            let (over, is_over) = channel();
            running.push(is_over);
            let number = pool.next.fetch_add(1, Ordering::Relaxed);
            let stepped = Stepped { driven, over, place };
            let task = Arc::new(Task::new(number, party, home, pool, clock, stepped));
            let waiter: Arc<dyn Waiter> = task.clone();
            task.mailbox.wake.set_waiter(Arc::downgrade(&waiter));
            pool.subtasks.fetch_add(1, Ordering::SeqCst);
            locked(&pool.held).insert(number, task.clone());
            pool.enter(task);
        }
        Ok(Box::new(RunningTasks(running)))
    }
}

impl Place {
    /// Takes a place, if there is one.
    fn take() -> Option<Self> {
        let one_more = |count| (count < SUBTASKS_MAX).then_some(count + 1);
        let taken = SUBTASKS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        SUBTASKS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// For each subtask, a channel that is closed when it has ended.
#[derive(Debug)]
struct RunningTasks(Vec<Receiver<Infallible>>);

impl Running for RunningTasks {
    fn join(self: Box<Self>) {
        for is_over in self.0 {
            // Nothing is ever sent: this waits until the other end is dropped.
            let _ = is_over.recv();
        }
    }
}

impl Seat {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        locked(&self.queue)
    }

    /// Changes the queue, and publishes its length.
    fn change<R>(&self, change: impl FnOnce(&mut Ready<Arc<Task>>) -> R) -> R {
        let mut queue = self.queue();
        let result = change(&mut queue.ready);
        self.len.store(queue.ready.len(), Ordering::SeqCst);
        result
    }

    /// Wakes its thread if it waits for work. Returns false if it does not.
    fn unpark(&self, pool: &Pool) -> bool {
        let mut queue = self.queue();
        let was_parked = std::mem::take(&mut queue.parked);
        if was_parked {
            pool.idle.fetch_sub(1, Ordering::SeqCst);
            drop(queue);
            self.changed.notify_one();
        }
        was_parked
    }
}

impl Pool {
    fn now_ns(&self) -> u64 {
        // Never 0, which stands for no step.
        u64::try_from(self.epoch.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Starts the threads that do not run yet. After an error, those that were started stay, and the next call goes on from
    /// there.
    fn start_threads(self: &Arc<Self>) -> std::io::Result<()> {
        let mut started = locked(&self.started);
        while *started <= self.seats.len() {
            match started.checked_sub(1) {
                None => {
                    let pool = self.clone();
                    let watcher = std::thread::Builder::new().name("watcher".to_owned());
                    watcher.spawn(move || pool.watch())?;
                }
                Some(seat) => _ = self.clone().spawn(Some(seat))?,
            }
            *started += 1;
        }
        Ok(())
    }

    /// Starts a thread that holds a seat, or a spare one.
    fn spawn(self: Arc<Self>, seat: Option<usize>) -> std::io::Result<Spare> {
        let (give, given) = channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let spare = Spare { number, seat: give };
        let this = spare.clone();
        let name = seat.map_or_else(|| "spare worker".to_owned(), |seat| format!("worker {seat}"));
        std::thread::Builder::new().name(name).spawn(move || {
            let mut held = seat.map(|seat| (seat, 0));
            while let Some((seat, term)) = held.or_else(|| self.wait_for_seat(number, &given)) {
                if self.work(seat, term) {
                    return;
                }
                held = None;
                locked(&self.spares).push(this.clone());
            }
        })?;
        Ok(spare)
    }

    /// Waits for a seat as a spare thread. Returns `None` after a time without need for it.
    fn wait_for_seat(&self, number: u64, given: &Receiver<(usize, u64)>) -> Option<(usize, u64)> {
        loop {
            if let Ok(seat) = given.recv_timeout(SPARE) {
                return Some(seat);
            }
            let mut spares = locked(&self.spares);
            let is_spare = |spare: &Spare| spare.number == number;
            if let Some(at) = spares.iter().position(is_spare) {
                spares.swap_remove(at);
                return None;
            }
            // It has been taken out to be given a seat.
        }
    }

    /// Enters a ready subtask at its seat.
    fn enter(&self, task: Arc<Task>) {
        let (home, party) = (task.home, task.party);
        let (pool, at, term) = SEAT.get();
        if (pool, at) == (std::ptr::from_ref(self).addr(), home) {
            GIVES_WAY.set(true);
            self.enter_here(home, term, |ready| ready.push_next(party, task));
            return;
        }
        let seat = &self.seats[home];
        seat.change(|ready| ready.push(party, task));
        if !seat.unpark(self) {
            self.wake_one();
        }
    }

    /// Enters a ready subtask at the seat that the calling thread has held since a term began.
    fn enter_here(&self, at: usize, term: u64, enter: impl FnOnce(&mut Ready<Arc<Task>>)) {
        let seat = &self.seats[at];
        seat.change(enter);
        // Another thread holds the seat now, and may have parked. One that takes it over later will see the subtask.
        if seat.term.load(Ordering::SeqCst) != term && !seat.unpark(self) {
            self.wake_one();
        }
    }

    /// Wakes the thread of one seat without work, if there is any.
    fn wake_one(&self) {
        if self.idle.load(Ordering::SeqCst) > 0 {
            let _ = self.seats.iter().any(|seat| seat.unpark(self));
        }
    }

    fn wake_all(&self) {
        for seat in &self.seats {
            seat.unpark(self);
        }
        locked(&self.watch).busy = true;
        self.watched.notify_one();
    }

    /// Returns true if the threads are to end.
    fn is_over(&self) -> bool {
        self.closing.load(Ordering::SeqCst) && self.subtasks.load(Ordering::SeqCst) == 0
    }

    /// Steps subtasks as the thread of a seat. Returns true at the end of the pool, and false once another thread has
    /// taken the seat over.
    fn work(&self, at: usize, term: u64) -> bool {
        SEAT.set((std::ptr::from_ref(self).addr(), at, term));
        let seat = &self.seats[at];
        let mut turn: (Party, Instant) = (0, Instant::now());
        while seat.term.load(Ordering::SeqCst) == term {
            let now = Instant::now();
            let over = (now >= turn.1).then_some(turn.0);
            if let Some(task) = self.next(at, now, over) {
                if over.is_some() || task.party != turn.0 {
                    turn = (task.party, now + TURN);
                }
                self.run(&task, at, term, turn.1);
            } else if self.is_over() {
                return true;
            } else {
                self.park(at);
            }
        }
        SEAT.set((0, 0, 0));
        false
    }

    /// Takes the next subtask for a seat: one of its own, or one of another seat. `over`: the party whose turn is over.
    fn next(&self, at: usize, now: Instant, over: Option<Party>) -> Option<Arc<Task>> {
        let seat = &self.seats[at];
        let (own, left) = seat.change(|ready| {
            while let Some(task) = ready.take_due(now) {
                *locked(&task.due) = None;
                if task.becomes_ready() {
                    ready.push(task.party, task);
                }
            }
            if let Some(party) = over {
                ready.end_turn(party);
            }
            (ready.pop(), ready.len())
        });
        if own.is_some() {
            if left > 0 {
                self.wake_one();
            }
            return own;
        }
        let others = (1..self.seats.len()).map(|turn| &self.seats[(at + turn) % self.seats.len()]);
        let mut with_work = others.filter(|seat| seat.len.load(Ordering::SeqCst) > 0);
        with_work.find_map(|seat| seat.change(Ready::steal))
    }

    /// Waits for work, as the thread of a seat.
    fn park(&self, at: usize) {
        let seat = &self.seats[at];
        let mut queue = seat.queue();
        queue.parked = true;
        self.idle.fetch_add(1, Ordering::SeqCst);
        // Whoever enters a subtask after this looks for seats without work; what was entered before is seen here.
        let has_work = self.seats.iter().any(|seat| seat.len.load(Ordering::SeqCst) > 0);
        while queue.parked && !has_work && !self.is_over() {
            queue = match queue.ready.first_due() {
                None => seat.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    seat.changed
                        .wait_timeout(queue, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        if std::mem::take(&mut queue.parked) {
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
        drop(queue);
        if !self.watching.load(Ordering::SeqCst) {
            locked(&self.watch).busy = true;
            self.watched.notify_one();
        }
    }

    /// Steps a subtask until it waits, has ended, has made a consumer ready, or its turn is over.
    fn run(&self, task: &Arc<Task>, at: usize, term: u64, until: Instant) {
        let seat = &self.seats[at];
        task.runs();
        let mut guard = task.stepped();
        let Some(stepped) = guard.as_mut() else { return };
        let span = task.span.enter();
        loop {
            task.mailbox.wake.take();
            GIVES_WAY.set(false);
            let began = self.now_ns();
            seat.began.store(began, Ordering::SeqCst);
            let turn = stepped.driven.turn();
            // Where another thread has taken the seat, this is of a step of that one.
            let _ = seat
                .began
                .compare_exchange(began, 0, Ordering::SeqCst, Ordering::SeqCst);
            match turn {
                Turn::Again
                    if !GIVES_WAY.get() && Instant::now() < until && seat.term.load(Ordering::SeqCst) == term => {}
                Turn::Again => {
                    drop(guard);
                    task.stays_ready();
                    self.enter_here(at, term, |ready| ready.push(task.party, task.clone()));
                    break;
                }
                Turn::Wait(due) => {
                    drop(guard);
                    let due = due.map(|due| {
                        let left = due.saturating_sub(task.clock.monotonic_ns());
                        Instant::now() + Duration::from_nanos(left)
                    });
                    self.wait(task, due);
                    if !task.waits() {
                        self.enter_here(at, term, |ready| ready.push(task.party, task.clone()));
                    }
                    break;
                }
                Turn::Over => {
                    let ended = guard.take();
                    drop(guard);
                    drop(span);
                    self.ended(task, ended);
                    return;
                }
            }
        }
    }

    /// Sets or clears the time that a subtask waits for.
    fn wait(&self, task: &Arc<Task>, until: Option<Instant>) {
        if until.is_none() && locked(&task.due).is_none() {
            return;
        }
        let home = &self.seats[task.home];
        let mut queue = home.queue();
        let mut due = locked(&task.due);
        if *due == until {
            return;
        }
        if let Some(known) = due.take() {
            queue.ready.forget(known, task.number);
        }
        if let Some(until) = until {
            let is_first = queue.ready.first_due().is_none_or(|first| until < first);
            queue.ready.wait(until, task.number, task.clone());
            *due = Some(until);
            if is_first && queue.parked {
                // Its thread waits for a later time.
                drop((due, queue));
                home.changed.notify_one();
            }
        }
    }

    fn ended(&self, task: &Arc<Task>, stepped: Option<Stepped>) {
        self.wait(task, None);
        locked(&self.held).remove(&task.number);
        self.subtasks.fetch_sub(1, Ordering::SeqCst);
        if let Some(stepped) = stepped {
            free(stepped);
        }
        if self.is_over() {
            self.wake_all();
        }
    }

    /// Looks for steps that take long, while any seat has work, and gives their seats to spare threads.
    fn watch(self: Arc<Self>) {
        let mut watch = locked(&self.watch);
        loop {
            while !watch.busy && !self.is_over() {
                self.watching.store(false, Ordering::SeqCst);
                if self.is_busy() {
                    break;
                }
                watch = self.watched.wait(watch).unwrap_or_else(PoisonError::into_inner);
            }
            if self.is_over() {
                return;
            }
            self.watching.store(true, Ordering::SeqCst);
            watch.busy = false;
            drop(watch);
            std::thread::sleep(WATCH);
            let now = self.now_ns();
            for (at, seat) in self.seats.iter().enumerate() {
                let began = seat.began.load(Ordering::SeqCst);
                if began != 0 && now.saturating_sub(began) >= STUCK_NS && self.has_others(seat) {
                    self.clone().replace(at, began);
                }
            }
            watch = locked(&self.watch);
            watch.busy |= self.is_busy();
        }
    }

    /// Returns true if the thread of some seat does not wait for work.
    fn is_busy(&self) -> bool {
        self.idle.load(Ordering::SeqCst) < self.seats.len()
    }

    /// Returns true if subtasks of a seat are ready, or a time has come that one waits for.
    fn has_others(&self, seat: &Seat) -> bool {
        let due = || seat.queue().ready.first_due();
        seat.len.load(Ordering::SeqCst) > 0 || due().is_some_and(|due| due <= Instant::now())
    }

    /// Gives the seat of a step that takes long to a spare thread. Without one, all stays as it is.
    fn replace(self: Arc<Self>, at: usize, began: u64) {
        let spare = locked(&self.spares).pop();
        let Some(spare) = spare.or_else(|| self.clone().spawn(None).ok()) else {
            return;
        };
        let seat = &self.seats[at];
        let taken = seat
            .began
            .compare_exchange(began, 0, Ordering::SeqCst, Ordering::SeqCst);
        if taken.is_err() {
            // The step is over.
            locked(&self.spares).push(spare);
            return;
        }
        let term = seat.term.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = spare.seat.send((at, term));
    }
}

#[cfg(test)]
mod tests;
