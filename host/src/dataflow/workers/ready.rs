//! The queue of one seat: subtasks that are ready to be stepped, in which regions take turns, and those that wait for a
//! time. Pure: it holds numbers and times, and knows no thread.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Number of a region that shares its turns: all subtasks that were started together.
pub type Party = u64;

/// Subtasks that are ready or wait, by the queue of each party. `T` is a subtask.
#[derive(Debug)]
pub struct Ready<T> {
    /// Parties with ready subtasks, in the order of their turns. None is empty.
    parties: VecDeque<(Party, VecDeque<T>)>,
    len: usize,
    /// Subtasks that wait, by time and number.
    waiting: BTreeMap<(Instant, u64), T>,
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self {
            parties: VecDeque::new(),
            len: 0,
            waiting: BTreeMap::new(),
        }
    }
}

impl<T> Ready<T> {
    /// Returns the number of ready subtasks.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Appends a ready subtask to those of its party, whose turn comes after those of all others that are here.
    pub fn push(&mut self, party: Party, subtask: T) {
        self.len += 1;
        match self.parties.iter_mut().find(|(known, _)| *known == party) {
            Some((_, queue)) => queue.push_back(subtask),
            None => self.parties.push_back((party, VecDeque::from([subtask]))),
        }
    }

    /// Puts a ready subtask first of all: it has just been given input by the one that runs here, which is still in the
    /// cache.
    pub fn push_next(&mut self, party: Party, subtask: T) {
        self.len += 1;
        let at = self.parties.iter().position(|(known, _)| *known == party);
        let (_, mut queue) = at.and_then(|at| self.parties.remove(at)).unwrap_or_default();
        queue.push_front(subtask);
        self.parties.push_front((party, queue));
    }

    /// Takes the next subtask of the party whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let (_, queue) = self.parties.front_mut()?;
        let subtask = queue.pop_front();
        if queue.is_empty() {
            self.parties.pop_front();
        }
        self.len -= usize::from(subtask.is_some());
        subtask
    }

    /// Takes the subtask that would run here last, for another seat.
    pub fn steal(&mut self) -> Option<T> {
        let (_, queue) = self.parties.back_mut()?;
        let subtask = queue.pop_back();
        if queue.is_empty() {
            self.parties.pop_back();
        }
        self.len -= usize::from(subtask.is_some());
        subtask
    }

    /// Ends the turn of a party: it comes after all others.
    pub fn end_turn(&mut self, party: Party) {
        if self.parties.front().is_some_and(|(first, _)| *first == party) {
            self.parties.rotate_left(1);
        }
    }

    /// Lets a subtask wait for a time, under a number of its own.
    pub fn wait(&mut self, until: Instant, number: u64, subtask: T) {
        self.waiting.insert((until, number), subtask);
    }

    /// Ends a wait.
    pub fn forget(&mut self, until: Instant, number: u64) {
        self.waiting.remove(&(until, number));
    }

    /// Returns the earliest time that a subtask waits for.
    pub fn first_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((until, _), _)| *until)
    }

    /// Takes a subtask whose time has come.
    pub fn take_due(&mut self, now: Instant) -> Option<T> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// Counts the parties that were ever seen, so that seats are dealt out in turn.
#[derive(Debug, Default)]
pub struct Parties {
    next: Party,
    /// Seat of the next subtask.
    seat: usize,
}

impl Parties {
    /// Enters a party of `subtasks`, and returns its number with the seat of each subtask, in turn over all seats.
    /// `alone`: no other party runs.
    pub fn enter(&mut self, subtasks: usize, seats: usize, alone: bool) -> (Party, Vec<usize>) {
        self.next += 1;
        if alone {
            self.seat = 0;
        }
        let homes = (0..subtasks).map(|i| (self.seat + i) % seats).collect();
        self.seat = (self.seat + subtasks) % seats;
        (self.next, homes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn all(ready: &mut Ready<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| ready.pop()).collect()
    }

    #[test]
    fn parties_take_turns_however_many_subtasks_they_have() {
        let mut ready = Ready::default();
        for subtask in ["a1", "a2", "a3"] {
            ready.push(1, subtask);
        }
        ready.push(2, "b1");
        assert_eq!(ready.pop(), Some("a1"));
        ready.end_turn(1);
        assert_eq!(ready.pop(), Some("b1"));
        // Its turn was not over, but it has nothing left; and what ended its turn before stays where it is.
        ready.end_turn(2);
        assert_eq!((ready.len(), all(&mut ready)), (2, vec!["a2", "a3"]));
        assert_eq!(ready.len(), 0);
    }

    #[test]
    fn a_consumer_runs_next_and_a_thief_takes_from_the_end() {
        let mut ready = Ready::default();
        ready.push(2, "b");
        ready.push(1, "a1");
        ready.push_next(1, "consumer");
        assert_eq!(ready.steal(), Some("b"));
        assert_eq!(all(&mut ready), ["consumer", "a1"]);
        assert_eq!(ready.steal(), None);
    }

    #[test]
    fn waits_end_in_the_order_of_their_times() {
        let (mut ready, now) = (Ready::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        ready.wait(at(5), 1, "later");
        ready.wait(at(2), 2, "sooner");
        ready.wait(at(2), 3, "forgotten");
        ready.forget(at(2), 3);
        assert_eq!(ready.first_due(), Some(at(2)));
        assert_eq!((ready.take_due(at(1)), ready.take_due(at(2))), (None, Some("sooner")));
        assert_eq!((ready.take_due(at(4)), ready.take_due(at(9))), (None, Some("later")));
        assert_eq!(ready.len(), 0, "the caller decides whether it is ready");
    }

    #[test]
    fn seats_are_dealt_out_in_turn() {
        let mut parties = Parties::default();
        assert_eq!(parties.enter(4, 2, true), (1, vec![0, 1, 0, 1]));
        assert_eq!(parties.enter(1, 2, false), (2, vec![0]));
        assert_eq!(parties.enter(2, 2, false), (3, vec![1, 0]));
        assert_eq!(parties.enter(1, 2, true), (4, vec![0]));
    }
}
