//! A bounded queue of log lines, which a thread of its own writes.
//!
//! Logging does not block: a stopped terminal, an unread pipe or a hanging disk delays no job, request or signal. Lines that
//! find the queue full are dropped and counted, and the count is logged once there is room again.
//! Lines of different streams (`K`) are counted apart.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limit of the lines that wait, in bytes.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// An item for the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logged {
    /// A line, or several.
    Text(String),
    /// So many lines were dropped before the next one.
    Dropped(u64),
    /// No more lines come for a while.
    End,
}

/// Queue with its writer. It lives as long as the process.
pub struct LogQueue<K>(Arc<Shared<K>>);

impl<K> std::fmt::Debug for LogQueue<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogQueue").finish_non_exhaustive()
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    /// Notified when there is something to write, and when an item that was waited for is written.
    changed: Condvar,
}

struct State<K> {
    waiting: VecDeque<(K, Logged)>,
    bytes: usize,
    /// Items that were ever put into `waiting`.
    queued: u64,
    /// Items of these that are written.
    written: u64,
    /// Lines that were dropped, and not yet counted in an item.
    dropped: BTreeMap<K, u64>,
    /// Lines that were ever dropped.
    dropped_ever: u64,
    /// Lines of these whose count is written.
    told: u64,
    /// Number of threads in `flush`.
    flushing: usize,
}

impl<K: Ord + Clone + Send + 'static> LogQueue<K> {
    /// Starts a thread that writes. Without a thread, nothing is written and all lines are dropped.
    pub fn start(name: &str, mut write: impl FnMut(K, Logged) + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                bytes: 0,
                queued: 0,
                written: 0,
                dropped: BTreeMap::new(),
                dropped_ever: 0,
                told: 0,
                flushing: 0,
            }),
            changed: Condvar::new(),
        });
        let own = shared.clone();
        let writing = move || {
            loop {
                let (key, logged, done) = own.next();
                write(key, logged);
                own.written(done);
            }
        };
        // The machine has no thread left: the lines are dropped, and the process goes on.
        let _ = std::thread::Builder::new().name(name.to_owned()).spawn(writing);
        Self(shared)
    }

    /// Adds text, or drops it if there is no room.
    pub fn push(&self, key: K, text: String) {
        let mut state = self.0.state();
        if state.bytes + text.len() > WAITING_BYTES_MAX {
            *state.dropped.entry(key).or_default() += 1;
            state.dropped_ever += 1;
            return;
        }
        if let Some(dropped) = state.dropped.remove(&key) {
            state.queue(key.clone(), Logged::Dropped(dropped));
        }
        state.bytes += text.len();
        state.queue(key, Logged::Text(text));
        drop(state);
        self.0.changed.notify_all();
    }

    /// Says that no more lines come for a while.
    pub fn end(&self, key: K) {
        self.0.state().queue(key, Logged::End);
        self.0.changed.notify_all();
    }

    /// Waits until everything logged before this call is written, but no longer than this. Returns true if it is. Lines that
    /// are logged meanwhile are not waited for. Blocks the thread.
    pub fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.0.state();
        let (queued, dropped) = (state.queued, state.dropped_ever);
        state.flushing += 1;
        while state.written < queued || state.told < dropped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.flushing -= 1;
                return false;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.flushing -= 1;
        true
    }
}

impl<K> State<K> {
    fn queue(&mut self, key: K, logged: Logged) {
        self.queued += 1;
        self.waiting.push_back((key, logged));
    }
}

/// What is done once an item is written.
struct Done {
    /// True for an item that was waiting, false for a count of lines that were dropped after all of these.
    queued: bool,
    /// Number of dropped lines that it counts.
    told: u64,
}

impl<K: Ord + Clone> Shared<K> {
    fn state(&self) -> std::sync::MutexGuard<'_, State<K>> {
        // Every critical section leaves the state consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next item.
    fn next(&self) -> (K, Logged, Done) {
        let mut state = self.state();
        loop {
            if let Some((key, logged)) = state.waiting.pop_front() {
                let told = match &logged {
                    Logged::Text(text) => {
                        state.bytes -= text.len();
                        0
                    }
                    Logged::Dropped(lines) => *lines,
                    Logged::End => 0,
                };
                return (key, logged, Done { queued: true, told });
            }
            // All that had room is written, so there is room again.
            if let Some((key, dropped)) = state.dropped.pop_first() {
                let done = Done {
                    queued: false,
                    told: dropped,
                };
                return (key, Logged::Dropped(dropped), done);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that an item is written.
    fn written(&self, Done { queued, told }: Done) {
        let mut state = self.state();
        state.written += u64::from(queued);
        state.told += told;
        if state.flushing > 0 {
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A writer that writes an item for each permit.
    fn permitted() -> (LogQueue<u32>, Sender<()>, Receiver<(u32, Logged)>) {
        let (permit, permits) = channel::<()>();
        let (tell, told) = channel();
        let queue = LogQueue::start("log", move |key, logged| {
            let _ = permits.recv();
            let _ = tell.send((key, logged));
        });
        (queue, permit, told)
    }

    #[test]
    fn a_writer_that_is_stuck_holds_nothing_up_and_the_lines_that_are_dropped_are_told_of() {
        let (queue, permit, told) = permitted();
        let line = "x".repeat(WAITING_BYTES_MAX / 4);
        for key in [1, 1, 1, 1, 1, 1, 2, 1, 2] {
            queue.push(key, line.clone());
        }
        assert!(!queue.flush(Duration::from_millis(10)));
        drop(permit);
        assert!(queue.flush(Duration::from_secs(20)), "it is written at last");
        let told: Vec<(u32, Logged)> = told.try_iter().collect();
        let texts = told
            .iter()
            .filter(|(_, logged)| matches!(logged, Logged::Text(_)))
            .count() as u64;
        let dropped = |wanted: u32| {
            let of = told.iter().filter(|(key, _)| *key == wanted);
            let counts = of.filter_map(|(_, logged)| match logged {
                Logged::Dropped(count) => Some(*count),
                _ => None,
            });
            counts.sum::<u64>()
        };
        assert!(
            dropped(2) == 2 && dropped(1) >= 2,
            "{dropped:?}",
            dropped = (dropped(1), dropped(2))
        );
        assert_eq!(texts + dropped(1) + dropped(2), 9, "none is lost without a word");
    }

    #[test]
    fn lines_are_written_in_order_with_the_dropped_ones_told_of_in_their_place() {
        let (queue, permit, told) = permitted();
        queue.push(1, "a".to_owned());
        let huge = "x".repeat(WAITING_BYTES_MAX + 1);
        queue.push(1, huge);
        queue.push(1, "b".to_owned());
        queue.end(1);
        drop(permit);
        assert!(queue.flush(Duration::from_secs(20)));
        let told: Vec<Logged> = told.try_iter().map(|(_, logged)| logged).collect();
        let text = |text: &str| Logged::Text(text.to_owned());
        assert_eq!(told, [text("a"), Logged::Dropped(1), text("b"), Logged::End]);
    }

    #[test]
    fn only_lines_that_came_before_are_waited_for() {
        let (queue, permit, told) = permitted();
        queue.push(1, "before".to_owned());
        permit.send(()).expect("it writes");
        assert!(queue.flush(Duration::from_secs(20)));
        // Another stream logs on and on, and its lines are dropped meanwhile.
        queue.push(1, "before".to_owned());
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| queue.flush(Duration::from_secs(20)));
            while queue.0.state().flushing == 0 {
                std::thread::yield_now();
            }
            for _ in 0..9 {
                queue.push(2, "x".repeat(WAITING_BYTES_MAX / 4));
            }
            permit.send(()).expect("it writes");
            assert!(flushing.join().expect("no panic"));
        });
        assert_eq!(told.try_iter().count(), 2);
        drop(permit);
    }
}
