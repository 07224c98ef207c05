//! Barrier alignment over the inputs of one subtask, as a pure state machine.
//!
//! In an aligned round, a channel that has delivered the barrier is held back until all others have; an ended channel
//! counts as aligned. A round that is not aligned holds no channel back, and is complete when all have delivered its
//! barrier.
//!
//! Several rounds can be under way. Barriers of one channel come in the order of their rounds. So a barrier of a later
//! round means that its channel will never deliver an earlier one that is still missing: the source never saw it, and
//! the earlier round is dropped.

use regraft_model::id::CheckpointId;

/// Alignment of the inputs of one subtask.
#[derive(Debug)]
pub struct Alignment {
    ended: Vec<bool>,
    /// Rounds under way, in ascending order.
    rounds: Vec<Round>,
    /// The last completed round; barriers of earlier ones are ignored.
    done: CheckpointId,
    /// Abandoned rounds after `done`, whose barriers may still come.
    aborted: Vec<CheckpointId>,
}

#[derive(Debug)]
struct Round {
    id: CheckpointId,
    seen: Vec<bool>,
    /// True if channels that have delivered the barrier are held back.
    waits: bool,
}

/// The outcome of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aligned {
    /// No round is complete.
    NotYet,
    /// Every input has reached the barrier of this round: take the snapshot.
    Now(CheckpointId),
}

impl Alignment {
    /// Alignment over a number of channels.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        Self {
            ended: vec![false; channels],
            rounds: vec![],
            done: CheckpointId(0),
            aborted: vec![],
        }
    }

    /// Handles a barrier from a channel. `waits`: the round is aligned.
    pub fn barrier(&mut self, channel: usize, id: CheckpointId, waits: bool) -> Aligned {
        self.rounds.retain(|round| round.id >= id || round.seen[channel]);
        if id > self.done && !self.aborted.contains(&id) {
            let at = self.rounds.partition_point(|round| round.id < id);
            if self.rounds.get(at).is_none_or(|round| round.id != id) {
                let seen = vec![false; self.ended.len()];
                self.rounds.insert(at, Round { id, seen, waits });
            }
            self.rounds[at].seen[channel] = true;
        }
        self.next_complete()
    }

    /// Handles the end of a channel.
    pub fn end(&mut self, channel: usize) -> Aligned {
        self.ended[channel] = true;
        self.next_complete()
    }

    /// Returns the first complete round, once. The end of a channel can complete several, so this is called until it
    /// returns [`Aligned::NotYet`].
    pub fn next_complete(&mut self) -> Aligned {
        let complete = |round: &Round| round.seen.iter().zip(&self.ended).all(|(seen, ended)| *seen || *ended);
        let Some(at) = self.rounds.iter().position(complete) else {
            return Aligned::NotYet;
        };
        let id = self.rounds[at].id;
        self.done = id;
        self.rounds.drain(..=at);
        self.aborted.retain(|aborted| *aborted > id);
        Aligned::Now(id)
    }

    /// Drops an aborted round.
    pub fn abort(&mut self, id: CheckpointId) {
        self.rounds.retain(|round| round.id != id);
        if id > self.done && !self.aborted.contains(&id) {
            self.aborted.push(id);
        }
    }

    /// Returns true if the channel may be read: it has neither ended nor is held back at a barrier.
    #[must_use]
    pub fn is_open(&self, channel: usize) -> bool {
        !self.ended[channel] && !self.rounds.iter().any(|round| round.waits && round.seen[channel])
    }

    /// Returns true if a round is under way: some channel has delivered a barrier that others have not.
    #[must_use]
    pub fn is_aligning(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Returns true if all channels have ended.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        self.ended.iter().all(|ended| *ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: CheckpointId = CheckpointId(1);
    const TWO: CheckpointId = CheckpointId(2);

    #[test]
    fn waits_for_all_inputs() {
        let mut a = Alignment::new(2);
        assert_eq!(a.barrier(0, ONE, true), Aligned::NotYet);
        assert!(!a.is_open(0) && a.is_open(1));
        assert_eq!(a.barrier(1, ONE, true), Aligned::Now(ONE));
        assert!(a.is_open(0) && a.is_open(1));
    }

    #[test]
    fn an_ended_input_counts_as_aligned() {
        let mut a = Alignment::new(2);
        assert_eq!(a.barrier(0, ONE, true), Aligned::NotYet);
        assert_eq!(a.end(1), Aligned::Now(ONE));
        assert_eq!(a.barrier(0, TWO, true), Aligned::Now(TWO));
        assert!(!a.all_ended());
        assert_eq!(a.end(0), Aligned::NotYet);
        assert!(a.all_ended());
    }

    #[test]
    fn a_later_round_and_an_abort_release_waiting_inputs() {
        let mut a = Alignment::new(2);
        a.barrier(0, ONE, true);
        assert_eq!(a.barrier(1, TWO, true), Aligned::NotYet);
        assert!(a.is_open(0) && !a.is_open(1));
        a.abort(TWO);
        assert!(a.is_open(1));
        assert_eq!(a.barrier(0, TWO, true), Aligned::NotYet);
        assert!(
            a.is_open(0),
            "a late barrier of a round that was given up stops nothing"
        );
    }

    #[test]
    fn a_round_that_is_not_aligned_stops_nobody() {
        let mut a = Alignment::new(2);
        assert_eq!(a.barrier(0, ONE, false), Aligned::NotYet);
        assert_eq!(a.barrier(0, TWO, false), Aligned::NotYet);
        assert!(a.is_open(0) && a.is_open(1) && a.is_aligning());
        assert_eq!(a.barrier(1, ONE, false), Aligned::Now(ONE));
        assert_eq!(a.barrier(1, TWO, false), Aligned::Now(TWO));
        assert!(!a.is_aligning());
    }

    #[test]
    fn the_end_of_an_input_completes_all_that_wait_for_it() {
        let mut a = Alignment::new(2);
        a.barrier(0, ONE, false);
        a.barrier(0, TWO, false);
        assert_eq!(a.end(1), Aligned::Now(ONE));
        assert_eq!(a.next_complete(), Aligned::Now(TWO));
        assert_eq!(a.next_complete(), Aligned::NotYet);
    }

    #[test]
    fn a_later_round_that_is_given_up_leaves_an_earlier_one_alone() {
        let mut a = Alignment::new(2);
        a.barrier(0, ONE, false);
        a.barrier(0, TWO, false);
        a.abort(TWO);
        assert_eq!(a.barrier(1, ONE, false), Aligned::Now(ONE));
        assert_eq!(a.barrier(1, TWO, false), Aligned::NotYet);
        assert!(!a.is_aligning(), "no input waits for a round that was given up");
    }

    proptest! {
        /// For any interleaving, a snapshot holds what came before the barrier on every channel; and in aligned rounds
        /// nothing else.
        #[test]
        fn no_record_is_missed_or_counted_in_two_rounds(
            waits: bool,
            lengths in prop::collection::vec(prop::collection::vec(0usize..5, 3), 1..5),
            picks in prop::collection::vec(0usize..5, 200),
        ) {
            let channels = lengths.len();
            // Each channel holds the records of round 1, barrier 1, the records of round 2, barrier 2, and so on, then
            // the end.
            let mut queues: Vec<std::collections::VecDeque<Option<u64>>> = lengths
                .iter()
                .map(|rounds| {
                    let round = |(r, n): (usize, &usize)| {
                        std::iter::repeat_n(Some(r as u64 + 1), *n).chain([None])
                    };
                    rounds.iter().enumerate().flat_map(round).collect()
                })
                .collect();
            let mut at = vec![1u64; channels];
            let mut alignment = Alignment::new(channels);
            let mut current = 1;
            for pick in picks.into_iter().chain((0..400).map(|i| i % 5)) {
                let channel = pick % channels;
                if !alignment.is_open(channel) {
                    continue;
                }
                let mut aligned = match queues[channel].pop_front() {
                    Some(Some(round)) => {
                        prop_assert!(round == current || (!waits && round > current));
                        Aligned::NotYet
                    }
                    Some(None) => {
                        at[channel] += 1;
                        alignment.barrier(channel, CheckpointId(at[channel] - 1), waits)
                    }
                    None => alignment.end(channel),
                };
                while let Aligned::Now(id) = aligned {
                    prop_assert_eq!(id.0, current);
                    prop_assert!(at.iter().all(|next| *next > current));
                    current += 1;
                    aligned = alignment.next_complete();
                }
            }
            prop_assert_eq!(current, 4);
            prop_assert!(alignment.all_ended());
        }
    }
}
