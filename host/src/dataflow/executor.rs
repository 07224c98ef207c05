//! Runs subtasks on threads of their own: guests compute there, and never on an I/O thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use regraft_model::time::Clock;

use super::control::{Event, EventSink, Mailbox, SubtaskId};
use super::failure::{Cause, SubtaskFailure};
use super::subtask::{Step, Subtask};

/// A waiting subtask is stepped at least this often, in case a wake-up was missed.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Runs the subtasks of a job.
pub trait Executor: Send + Sync {
    /// Starts all subtasks. Setting `cancelled` ends each of them between two steps. The last act of each is to report
    /// [`Event::Finished`] or [`Event::Failed`].
    ///
    /// # Errors
    /// The operating system's error, where a thread cannot be created.
    fn start(
        &self,
        subtasks: Vec<Subtask>,
        clock: &Arc<dyn Clock>,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> std::io::Result<Box<dyn Running>>;
}

/// Handle to subtasks that were started.
pub trait Running: Send {
    /// Waits until all have ended. May block.
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

/// An executor with one thread per subtask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Threads;

#[derive(Debug)]
struct RunningThreads(Vec<std::thread::JoinHandle<()>>);

impl Executor for Threads {
    fn start(
        &self,
        subtasks: Vec<Subtask>,
        clock: &Arc<dyn Clock>,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> std::io::Result<Box<dyn Running>> {
        let mut handles = Vec::with_capacity(subtasks.len());
        for mut subtask in subtasks {
            let name = format!("{}#{}", subtask.uid(), subtask.id().index);
            let (driven, clock) = (Driven::new(subtask, events, cancelled), clock.clone());
            let thread = std::thread::Builder::new().name(name);
            // Log lines of a subtask belong to the job that it was started for.
            let span = tracing::Span::current();
            handles.push(thread.spawn(move || span.in_scope(|| run(driven, &*clock)))?);
        }
        Ok(Box::new(RunningThreads(handles)))
    }
}

impl Running for RunningThreads {
    fn join(self: Box<Self>) {
        for handle in self.0 {
            // A panic has been caught and reported inside the thread.
            let _ = handle.join();
        }
    }
}

fn run(mut driven: Driven, clock: &dyn Clock) {
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
            Turn::Over => return,
        }
    }
}
