//! Runs subtasks on threads of their own: guests compute there, and never on an I/O thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use regraft_model::time::Clock;

use super::control::{Event, EventSink};
use super::failure::{Cause, SubtaskFailure};
use super::subtask::{Step, Subtask};

/// A subtask is stepped at least this often, in case a wake-up rule was missed.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Runs the subtasks of a job.
pub trait Executor: Send + Sync {
    /// Starts all subtasks. `cancelled` ends each of them between two steps. Each tells [`Event::Finished`] or
    /// [`Event::Failed`] as the last thing it does.
    ///
    /// # Errors
    /// The system's, where it gives no thread.
    fn start(
        &self,
        subtasks: Vec<Subtask>,
        clock: &Arc<dyn Clock>,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> std::io::Result<Box<dyn Running>>;
}

/// Subtasks that were started.
pub trait Running: Send {
    /// Waits until all have ended. May block.
    fn join(self: Box<Self>);
}

/// A thread for each subtask.
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
            let (clock, events, cancelled) = (clock.clone(), events.clone(), cancelled.clone());
            let name = format!("{}#{}", subtask.uid(), subtask.id().index);
            let thread = std::thread::Builder::new().name(name);
            // What a subtask logs is of the job that it was started for.
            let span = tracing::Span::current();
            handles.push(thread.spawn(move || span.in_scope(|| run(subtask, &*clock, &events, &cancelled)))?);
        }
        Ok(Box::new(RunningThreads(handles)))
    }
}

impl Running for RunningThreads {
    fn join(self: Box<Self>) {
        for handle in self.0 {
            // A panic has been caught and told inside.
            let _ = handle.join();
        }
    }
}

fn run(mut subtask: Subtask, clock: &dyn Clock, events: &EventSink, cancelled: &AtomicBool) {
    let (id, mailbox) = (subtask.id(), subtask.mailbox());
    loop {
        if cancelled.load(Ordering::Relaxed) {
            subtask.cancel();
            events(Event::Finished(id));
            return;
        }
        let step = catch_unwind(AssertUnwindSafe(|| subtask.step())).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(SubtaskFailure {
                uid: subtask.uid(),
                subtask: id.index,
                doing: "step",
                record: None,
                cause: Cause::Panic(message.unwrap_or_else(|| "no message".to_owned())),
            })
        });
        match step {
            Ok(Step::Progress) => {}
            Ok(Step::Idle(until)) => {
                let now = clock.monotonic_ns();
                let limit = until.map_or(WAIT_MAX, |at| {
                    Duration::from_nanos(at.saturating_sub(now)).min(WAIT_MAX)
                });
                mailbox.wake.wait(limit);
            }
            Ok(Step::Finished) => {
                events(Event::Finished(id));
                return;
            }
            Err(failure) => {
                subtask.cancel();
                events(Event::Failed(Box::new(failure)));
                return;
            }
        }
    }
}
