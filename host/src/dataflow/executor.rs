//! The contract of what drives subtasks: the workers of this process, or a simulation.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regraft_model::time::Clock;

use super::control::{Event, EventSink, Mailbox, SubtaskId};
use super::failure::{Cause, SubtaskFailure};
use super::subtask::{Step, Subtask};
use crate::state::backend::StateBackend;

/// Runs the subtasks of a job.
pub trait Executor: Send + Sync {
    /// Starts all subtasks. Setting `cancelled` ends each of them between two steps. The last act of each is to report
    /// [`Event::Finished`] or [`Event::Failed`].
    ///
    /// # Errors
    /// [`NotStarted`] where one of them cannot run. Then `cancelled` is set, and those that had been started end as soon as
    /// they are woken.
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
    /// Reason, and a remedy.
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
            self.cancel();
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
                self.cancel();
                (self.events)(match failure.cause {
                    Cause::Cancelled => Event::Finished(self.id()),
                    _ => Event::Failed(Box::new(failure)),
                });
                Turn::Over
            }
        }
    }

    /// Drops output that is not prepared. A panic in there ends nothing else than the subtask.
    fn cancel(&mut self) {
        let subtask = &mut self.subtask;
        let _ = catch_unwind(AssertUnwindSafe(|| subtask.cancel()));
    }
}
