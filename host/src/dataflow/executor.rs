//! Runs subtasks on threads of their own: guests compute there, and never on an I/O thread.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use regraft_model::time::Clock;

use super::control::{Event, EventSink, Mailbox, SubtaskId};
use super::failure::{Cause, SubtaskFailure};
use super::subtask::{Step, Subtask};
use crate::state::backend::StateBackend;

/// A waiting subtask is stepped at least this often, in case a wake-up was missed.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Runs the subtasks of a job.
pub trait Executor: Send + Sync {
    /// Starts all subtasks. Setting `cancelled` ends each of them between two steps. The last act of each is to report
    /// [`Event::Finished`] or [`Event::Failed`].
    ///
    /// # Errors
    /// [`NotStarted`] where there is no thread for one of them. Then `cancelled` is set, and those that had been started end
    /// as soon as they are woken.
    fn start(
        &self,
        subtasks: Vec<Subtask>,
        clock: &Arc<dyn Clock>,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Box<dyn Running>, NotStarted>;
}

/// Failure to start subtasks.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct NotStarted {
    /// The subtask without a thread, the reason, and a remedy.
    pub message: String,
    /// The subtasks that had been started.
    pub running: Box<dyn Running>,
}

impl std::fmt::Debug for NotStarted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotStarted")
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// Handle to subtasks that were started.
pub trait Running: Send {
    /// Waits until all have ended. May block. The memory of their state may be freed a moment later.
    fn join(self: Box<Self>);
}

/// A subtask together with what drives it: one turn is one step.
pub struct Driven {
    subtask: Subtask,
    events: EventSink,
    cancelled: Arc<AtomicBool>,
}

/// The result of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Work was done: take another turn.
    Again,
    /// Nothing to do: take another turn when the mailbox wakes, or at this monotonic time in nanoseconds.
    Wait(Option<u64>),
    /// The subtask has ended and has reported it.
    Over,
}

impl Driven {
    /// Wraps a subtask that has not run yet.
    #[must_use]
    pub fn new(mut subtask: Subtask, events: &EventSink, cancelled: &Arc<AtomicBool>) -> Self {
        subtask.set_cancelled(cancelled);
        Self {
            subtask,
            events: events.clone(),
            cancelled: cancelled.clone(),
        }
    }

    /// Returns the id of the subtask.
    #[must_use]
    pub const fn id(&self) -> SubtaskId {
        self.subtask.id()
    }

    /// Returns the mailbox, whose flag wakes the subtask.
    #[must_use]
    pub fn mailbox(&self) -> Arc<Mailbox> {
        self.subtask.mailbox()
    }

    /// Ends the subtask after [`Turn::Over`], and returns the keyed state that it had.
    #[must_use]
    pub fn into_state(self) -> Vec<Box<dyn StateBackend>> {
        self.subtask.into_state()
    }

    /// Returns true if it is to end at its next turn.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Takes one step, and reports the end of the subtask. A panic of the host is reported as a failure of the subtask.
    /// Must not be called again after [`Turn::Over`].
    pub fn turn(&mut self) -> Turn {
        if self.is_cancelled() {
            self.subtask.cancel();
            (self.events)(Event::Finished(self.id()));
            return Turn::Over;
        }
        let subtask = &mut self.subtask;
        let step = catch_unwind(AssertUnwindSafe(|| subtask.step())).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let cause = Cause::Panic(message.unwrap_or_else(|| "no message".to_owned()));
            Err(SubtaskFailure::new(
                self.subtask.uid(),
                self.subtask.id().index,
                "step",
                cause,
            ))
        });
        match step {
            Ok(Step::Progress) => Turn::Again,
            Ok(Step::Idle(until)) => Turn::Wait(until),
            Ok(Step::Finished) => {
                (self.events)(Event::Finished(self.id()));
                Turn::Over
            }
            Err(failure) => {
                self.subtask.cancel();
                (self.events)(match failure.cause {
                    Cause::Cancelled => Event::Finished(self.id()),
                    _ => Event::Failed(Box::new(failure)),
                });
                Turn::Over
            }
        }
    }
}

/// Limit of subtasks that run in this process at the same time, over all of its jobs. Each of them is a thread with a few
/// memory mappings, and a process that runs out of these aborts.
pub const THREADS_MAX: usize = 8192;

/// Subtasks that run in this process.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// An executor with one thread per subtask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Threads;

/// A place among the threads of this process, which is free again when it is dropped.
struct Place;

impl Place {
    /// Takes a place, if there is one.
    fn take() -> Option<Self> {
        let one_more = |count| (count < THREADS_MAX).then_some(count + 1);
        let taken = THREADS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// For each thread, a channel that is closed when its subtask has ended.
#[derive(Debug)]
struct RunningThreads(Vec<Receiver<Infallible>>);

impl Executor for Threads {
    fn start(
        &self,
        subtasks: Vec<Subtask>,
        clock: &Arc<dyn Clock>,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Box<dyn Running>, NotStarted> {
        let count = subtasks.len();
        let mut running = Vec::with_capacity(count);
        for mut subtask in subtasks {
            let name = format!("{}#{}", subtask.uid(), subtask.id().index);
            match spawn(&name, subtask, clock, events, cancelled) {
                Ok(thread) => running.push(thread),
                Err(why) => {
                    cancelled.store(true, Ordering::Relaxed);
                    let message = format!("no thread for subtask {name}, one of {count}: {why}");
                    let running = Box::new(RunningThreads(running));
                    return Err(NotStarted { message, running });
                }
            }
        }
        Ok(Box::new(RunningThreads(running)))
    }
}

/// Starts the thread of a subtask, or says why there is none.
fn spawn(
    name: &str,
    subtask: Subtask,
    clock: &Arc<dyn Clock>,
    events: &EventSink,
    cancelled: &Arc<AtomicBool>,
) -> Result<Receiver<Infallible>, String> {
    let place = Place::take().ok_or_else(|| {
        format!("{THREADS_MAX} run in this process already, which is the limit; lower the parallelism of its jobs, or run some of them in another host")
    })?;
    let (driven, clock) = (Driven::new(subtask, events, cancelled), clock.clone());
    // Log lines of a subtask belong to the job that it was started for.
    let span = tracing::Span::current();
    let (over, is_over) = channel();
    let body = move || {
        let state = span.in_scope(|| run(driven, &*clock));
        // Gigabytes of state are freed within seconds, which the end of a job does not wait for.
        drop(over);
        drop((state, place));
    };
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(body);
    spawned.map(|_| is_over).map_err(|error| {
        format!("{error}; lower the job's parallelism, or raise the limit on threads (`ulimit -u`, pids.max of the cgroup) or memory of this process")
    })
}

impl Running for RunningThreads {
    fn join(self: Box<Self>) {
        for is_over in self.0 {
            // Nothing is ever sent: this waits until the other end is dropped, also by a panic.
            let _ = is_over.recv();
        }
    }
}

/// Runs a subtask to its end, and returns its keyed state.
fn run(mut driven: Driven, clock: &dyn Clock) -> Vec<Box<dyn StateBackend>> {
    let mailbox = driven.mailbox();
    loop {
        match driven.turn() {
            Turn::Again => {}
            Turn::Wait(until) => {
                let now = clock.monotonic_ns();
                let limit = until.map_or(WAIT_MAX, |at| {
                    Duration::from_nanos(at.saturating_sub(now)).min(WAIT_MAX)
                });
                mailbox.wake.wait(limit);
            }
            Turn::Over => return driven.into_state(),
        }
    }
}
