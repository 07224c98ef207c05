//! A subtask among the workers: whether it runs, is ready or waits, and what is to be done when it has ended.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use regraft_model::time::Clock;

use super::Pool;
use super::ready::Party;
use crate::dataflow::control::{Mailbox, Waiter, locked};
use crate::dataflow::executor::Driven;
use crate::state::backend::StateBackend;

/// Waits to be woken.
const IDLE: u8 = 0;
/// Is in the queue of a seat, or about to be entered.
const READY: u8 = 1;
/// A worker steps it.
const RUNNING: u8 = 2;

/// One subtask.
pub(super) struct Task {
    pub(super) number: u64,
    pub(super) party: Party,
    /// Seat where it is stepped unless another has nothing to do.
    pub(super) home: usize,
    pub(super) pool: Arc<Pool>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) clock: Arc<dyn Clock>,
    /// Log lines of a subtask belong to the job that it was started for.
    pub(super) span: tracing::Span,
    /// Time under which it waits in the queue of its home; changed under that queue's lock.
    pub(super) due: Mutex<Option<Instant>>,
    state: AtomicU8,
    /// The subtask itself; `None` once it has ended.
    pub(super) stepped: Mutex<Option<Stepped>>,
}

/// A subtask that has not ended.
pub(super) struct Stepped {
    pub(super) driven: Driven,
    /// Closed when it has ended.
    pub(super) over: Sender<Infallible>,
    pub(super) place: Place,
}

impl Task {
    pub(super) fn new(
        number: u64,
        party: Party,
        home: usize,
        pool: &Arc<Pool>,
        clock: &Arc<dyn Clock>,
        stepped: Stepped,
    ) -> Self {
        Self {
            number,
            party,
            home,
            pool: pool.clone(),
            mailbox: stepped.driven.mailbox(),
            clock: clock.clone(),
            span: tracing::Span::current(),
            due: Mutex::default(),
            state: AtomicU8::new(READY),
            stepped: Mutex::new(Some(stepped)),
        }
    }

    /// Makes a waiting subtask ready; returns false if it is no waiting one.
    pub(super) fn becomes_ready(&self) -> bool {
        self.state
            .compare_exchange(IDLE, READY, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    pub(super) fn runs(&self) {
        self.state.store(RUNNING, Ordering::SeqCst);
    }

    pub(super) fn stays_ready(&self) {
        self.state.store(READY, Ordering::SeqCst);
    }

    /// Lets it wait to be woken. Returns false if it has been woken meanwhile, and is ready.
    pub(super) fn waits(&self) -> bool {
        self.state.store(IDLE, Ordering::SeqCst);
        // A wake-up before the line above found it running, and left the flag.
        !(self.mailbox.wake.is_raised() && self.becomes_ready())
    }
}

impl Waiter for Task {
    fn woken(self: Arc<Self>) {
        if self.becomes_ready() {
            let pool = self.pool.clone();
            pool.enter(self);
        }
    }
}

/// A place among the subtasks of this process, which is free again when it is dropped.
pub(super) struct Place;

/// Frees what an ended subtask held, and then tells those that wait for its end.
pub(super) fn free(stepped: Stepped) {
    let Stepped { driven, over, place } = stepped;
    let state: Vec<Box<dyn StateBackend>> = driven.into_state();
    // Gigabytes of state are freed within seconds, which neither the end of a job nor another subtask waits for.
    drop(over);
    if state.is_empty() {
        return;
    }
    let later = move || drop((state, place));
    // Without a thread for it, it is freed here.
    let _ = std::thread::Builder::new().name("free state".to_owned()).spawn(later);
}

impl Task {
    /// Takes out what is stepped, for the one worker that runs it.
    pub(super) fn stepped(&self) -> std::sync::MutexGuard<'_, Option<Stepped>> {
        locked(&self.stepped)
    }
}
