//! Pending timers of one operator in one subtask.
//!
//! They are kept by key group, so that they are saved and moved like state, and ordered by time, so that they fire in
//! order.
//! A timer is a key, a name and a time.
//! Timers whose name the operator does not declare are kept but never fire.
//! Stamps and saved timers are as with entries (design notes 0003 and 0007).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};

use regraft_model::key_group::{KeyGroup, hash32};
use regraft_model::time::TimeDomain;

use super::backend::{BoundTimer, DueTimers};
use super::entries::Counts;
use super::mark::{Mark, Stamp};
use super::rows::{REMOVED, RowsOf, StateRows, timer_entry};

/// A timer of a given name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    time: i64,
    key: Box<[u8]>,
}

/// The timers of one name in one key group.
#[derive(Debug, Default)]
struct Queue {
    pending: BTreeMap<Timer, Stamp>,
    /// Removals that a later increment still has to record.
    removed: BTreeMap<Timer, Stamp>,
    /// Timers as they were at the mark, with true if they were pending then.
    saved: Vec<(Timer, bool)>,
    /// Time under which the queue is listed in [`Timers::firsts`].
    first: Option<i64>,
}

/// The first time of a queue, with the position of its key group and the number of its name.
type First = (i64, u32, u16);

/// All timers of a backend.
#[derive(Debug, Default)]
pub struct Timers {
    /// All names ever seen; the position is the name's number.
    names: Vec<String>,
    /// Name and domain of each declared timer.
    bound: Vec<(u16, TimeDomain)>,
    /// Queues by key group and number of the name.
    groups: Vec<Vec<Queue>>,
    /// First times of the queues that may fire, by domain.
    firsts: [BTreeSet<First>; 2],
    counts: Counts,
    /// Approximate memory of all timers, in bytes.
    bytes: usize,
}

/// Approximate memory of a timer without its key, in bytes.
pub(super) const TIMER_BYTES: usize = 64;

const fn domain_index(domain: TimeDomain) -> usize {
    match domain {
        TimeDomain::Event => 0,
        TimeDomain::Processing => 1,
    }
}

impl Timers {
    /// Returns an empty set of timers for `groups` key groups.
    #[must_use]
    pub fn new(groups: usize) -> Self {
        Self {
            groups: (0..groups).map(|_| vec![]).collect(),
            ..Self::default()
        }
    }

    /// Returns the number of pending timers and of remembered removals.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the approximate memory of the timers, in bytes, without what is saved for a sweep.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    fn number(&mut self, name: &str) -> u16 {
        let at = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        at as u16
    }

    /// Binds the timers that the operator declares.
    pub fn bind(&mut self, timers: &[BoundTimer]) {
        self.bound = vec![];
        for timer in timers {
            let number = self.number(&timer.name);
            self.bound.push((number, timer.domain));
        }
        self.firsts = Default::default();
        for group in 0..self.groups.len() {
            for name in 0..self.groups[group].len() {
                self.groups[group][name].first = None;
                self.settle(group, name as u16);
            }
        }
    }

    /// Updates the listing of a queue after its first timer may have changed.
    fn settle(&mut self, group: usize, name: u16) {
        let Some((_, domain)) = self.bound.iter().find(|(bound, _)| *bound == name) else {
            return;
        };
        let queue = &mut self.groups[group][usize::from(name)];
        let first = queue.pending.first_key_value().map(|(timer, _)| timer.time);
        if first != queue.first {
            let firsts = &mut self.firsts[domain_index(*domain)];
            if let Some(old) = queue.first {
                firsts.remove(&(old, group as u32, name));
            }
            firsts.extend(first.map(|first| (first, group as u32, name)));
            queue.first = first;
        }
    }

    fn queue(&mut self, group: usize, name: u16) -> &mut Queue {
        let queues = &mut self.groups[group];
        if queues.len() <= usize::from(name) {
            queues.resize_with(usize::from(name) + 1, Queue::default);
        }
        &mut queues[usize::from(name)]
    }

    fn register(&mut self, group: usize, name: u16, time: i64, key: &[u8], mark: Mark) {
        let timer = Timer { time, key: key.into() };
        let queue = self.queue(group, name);
        if queue.pending.contains_key(&timer) {
            return;
        }
        let mut stamp = mark.now;
        if let Some(old) = queue.removed.remove(&timer) {
            if mark.saves(old) {
                queue.saved.push((timer.clone(), false));
            }
            stamp = mark.rewritten(old);
            self.counts.removed -= 1;
            self.bytes -= TIMER_BYTES + key.len();
        }
        self.queue(group, name).pending.insert(timer, stamp);
        self.counts.live += 1;
        self.bytes += TIMER_BYTES + key.len();
        self.settle(group, name);
    }

    fn remove(&mut self, group: usize, name: u16, time: i64, key: &[u8], mark: Mark) {
        let timer = Timer { time, key: key.into() };
        let queue = self.queue(group, name);
        let Some(stamp) = queue.pending.remove(&timer) else {
            return;
        };
        if mark.saves(stamp) {
            queue.saved.push((timer.clone(), true));
        }
        self.counts.live -= 1;
        if mark.remembers(stamp) {
            self.queue(group, name).removed.insert(timer, mark.rewritten(stamp));
            self.counts.removed += 1;
        } else {
            self.bytes -= TIMER_BYTES + key.len();
        }
        self.settle(group, name);
    }

    /// Registers or deletes a timer, given its position among the declared ones and the position of its key group.
    pub fn apply(&mut self, group: usize, register: bool, id: u32, time: i64, key: &[u8], mark: Mark) {
        let name = self.bound[id as usize].0;
        if register {
            self.register(group, name, time, key, mark);
        } else {
            self.remove(group, name, time, key, mark);
        }
    }

    /// Loads a row from a file: adds a timer, whose name need not be declared, or removes one.
    pub fn load(&mut self, group: usize, name: &str, time: i64, key: &[u8], schema: u16, mark: Mark) {
        let name = self.number(name);
        if schema == REMOVED {
            self.remove(group, name, time, key, mark);
        } else {
            self.register(group, name, time, key, mark);
        }
    }

    /// Returns the time of the first declared timer of a domain.
    #[must_use]
    pub fn next(&self, domain: TimeDomain) -> Option<i64> {
        self.firsts[domain_index(domain)].first().map(|first| first.0)
    }

    /// Returns the time of the last declared timer of a domain.
    #[must_use]
    pub fn last(&self, domain: TimeDomain) -> Option<i64> {
        let queues = self.firsts[domain_index(domain)].iter();
        let queues = queues.map(|(_, group, name)| &self.groups[*group as usize][usize::from(*name)]);
        queues
            .filter_map(|queue| queue.pending.last_key_value())
            .map(|(timer, _)| timer.time)
            .max()
    }

    /// Returns the first due timers in order of (time, key), up to `max` and before a key occurs again.
    #[must_use]
    pub fn due(&self, domain: TimeDomain, up_to: i64, max: usize) -> Option<DueTimers> {
        let firsts = self.firsts[domain_index(domain)].range(..=(up_to, u32::MAX, u16::MAX));
        let mut queues: Vec<_> = firsts
            .map(|(_, group, name)| (*name, self.groups[*group as usize][usize::from(*name)].pending.keys()))
            .collect();
        let mut heads = BinaryHeap::new();
        for (i, (name, queue)) in queues.iter_mut().enumerate() {
            heads.extend(queue.next().map(|timer| Reverse((timer, *name, i))));
        }
        let mut due = DueTimers::default();
        let mut keys = HashSet::new();
        while let Some(Reverse((timer, name, i))) = heads.pop() {
            if timer.time > up_to || due.times.len() == max || !keys.insert(&timer.key) {
                break;
            }
            let id = self.bound.iter().position(|(bound, _)| *bound == name);
            due.timer_ids.extend(id.map(|id| id as u32));
            due.key_index.push(due.times.len() as u32);
            due.times.push(timer.time);
            due.keys.column.push(&timer.key);
            due.keys.hashes.push(hash32(&timer.key));
            heads.extend(queues[i].1.next().map(|timer| Reverse((timer, name, i))));
        }
        (!due.times.is_empty()).then_some(due)
    }

    /// Returns the number of due timers.
    #[must_use]
    pub fn due_count(&self, domain: TimeDomain, up_to: i64) -> usize {
        let firsts = self.firsts[domain_index(domain)].range(..=(up_to, u32::MAX, u16::MAX));
        let queues = firsts.map(|(_, group, name)| &self.groups[*group as usize][usize::from(*name)].pending);
        let of = |pending: &BTreeMap<Timer, Stamp>| pending.keys().take_while(|timer| timer.time <= up_to).count();
        queues.map(of).sum()
    }

    /// Returns the timers of a key group as of the mark, and forgets the saved ones. Includes removals if `removals` is
    /// true.
    pub fn sweep(&mut self, position: usize, group: KeyGroup, mark: Mark, removals: bool) -> StateRows {
        let mut rows = StateRows::new(group, RowsOf::Timers);
        let mut entry = vec![];
        for (queue, name) in self.groups[position].iter_mut().zip(&self.names) {
            let mut push = |timer: &Timer, pending: bool| {
                if pending || removals {
                    entry.clear();
                    timer_entry(timer.time, name, &mut entry);
                    rows.keys.push(&timer.key);
                    rows.entry_keys.push(&entry);
                    rows.values.push(&[]);
                    rows.schemas.push(if pending { 1 } else { REMOVED });
                }
            };
            for (timer, _) in queue.pending.iter().filter(|(_, stamp)| mark.saves(**stamp)) {
                push(timer, true);
            }
            for (timer, _) in queue.removed.iter().filter(|(_, stamp)| mark.saves(**stamp)) {
                push(timer, false);
            }
            for (timer, pending) in std::mem::take(&mut queue.saved) {
                push(&timer, pending);
            }
        }
        rows
    }

    /// Forgets the removals of a key group that are contained in every possible base.
    pub fn clean(&mut self, position: usize, settled: Stamp) {
        for queue in &mut self.groups[position] {
            let (before, bytes) = (queue.removed.len(), &mut self.bytes);
            queue.removed.retain(|timer, stamp| {
                let kept = *stamp >= settled;
                *bytes -= if kept { 0 } else { TIMER_BYTES + timer.key.len() };
                kept
            });
            self.counts.removed -= before - queue.removed.len();
        }
    }

    /// Forgets the timers saved for a key group.
    pub fn drop_saved(&mut self, position: usize) {
        for queue in &mut self.groups[position] {
            queue.saved = vec![];
        }
    }
}
