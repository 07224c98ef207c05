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
    /// Notified when there is something to write, and when all is written.
    changed: Condvar,
}

struct State<K> {
    waiting: VecDeque<(K, Logged)>,
    bytes: usize,
    dropped: BTreeMap<K, u64>,
    /// True while the writer writes what it has taken.
    writing: bool,
}

impl<K: Ord + Clone + Send + 'static> LogQueue<K> {
    /// Starts a thread that writes. Without a thread, nothing is written and all lines are dropped.
    pub fn start(name: &str, mut write: impl FnMut(K, Logged) + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                bytes: 0,
                dropped: BTreeMap::new(),
                writing: false,
            }),
            changed: Condvar::new(),
        });
        let own = shared.clone();
        let writing = move || {
            loop {
                let (key, logged) = own.next();
                write(key, logged);
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
            return;
        }
        if let Some(dropped) = state.dropped.remove(&key) {
            state.waiting.push_back((key.clone(), Logged::Dropped(dropped)));
        }
        state.bytes += text.len();
        state.waiting.push_back((key, Logged::Text(text)));
        drop(state);
        self.0.changed.notify_all();
    }

    /// Says that no more lines come for a while.
    pub fn end(&self, key: K) {
        self.0.state().waiting.push_back((key, Logged::End));
        self.0.changed.notify_all();
    }

    /// Waits until all is written, but no longer than this. Returns true if it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.0.state();
        while !state.waiting.is_empty() || state.writing || !state.dropped.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl<K: Ord + Clone> Shared<K> {
    fn state(&self) -> std::sync::MutexGuard<'_, State<K>> {
        // Every critical section leaves the state consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next item. The last one is written by now.
    fn next(&self) -> (K, Logged) {
        let mut state = self.state();
        state.writing = false;
        loop {
            if let Some((key, logged)) = state.waiting.pop_front() {
                if let Logged::Text(text) = &logged {
                    state.bytes -= text.len();
                }
                state.writing = true;
                return (key, logged);
            }
            // All that had room is written, so there is room again.
            if let Some((key, dropped)) = state.dropped.pop_first() {
                state.writing = true;
                return (key, Logged::Dropped(dropped));
            }
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
}
