//! Barrier alignment over the inputs of one subtask, as a pure state machine.
//!
//! A channel that has delivered the barrier of the round waits until all others have; an ended channel counts as aligned.
//! A barrier of a later round gives the earlier one up: its source never saw it.

use regraft_model::id::CheckpointId;

/// The alignment of a subtask's inputs.
#[derive(Debug)]
pub struct Alignment {
    ended: Vec<bool>,
    round: Option<Round>,
    /// The last round that is done with, aligned or given up: its barriers may still come.
    done: CheckpointId,
}

#[derive(Debug)]
struct Round {
    id: CheckpointId,
    seen: Vec<bool>,
}

/// What to do after an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aligned {
    /// Go on.
    NotYet,
    /// Every input is at the barrier: take the snapshot.
    Now(CheckpointId),
}

impl Alignment {
    /// For a number of channels.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        Self {
            ended: vec![false; channels],
            round: None,
            done: CheckpointId(0),
        }
    }

    /// A barrier came from a channel.
    pub fn barrier(&mut self, channel: usize, id: CheckpointId) -> Aligned {
        if id <= self.done {
            return Aligned::NotYet;
        }
        if self.round.as_ref().is_none_or(|round| round.id < id) {
            self.round = Some(Round {
                id,
                seen: vec![false; self.ended.len()],
            });
        }
        if let Some(round) = self.round.as_mut().filter(|round| round.id == id) {
            round.seen[channel] = true;
        }
        self.check()
    }

    /// A channel has ended.
    pub fn end(&mut self, channel: usize) -> Aligned {
        self.ended[channel] = true;
        self.check()
    }

    fn check(&mut self) -> Aligned {
        let Some(round) = &self.round else {
            return Aligned::NotYet;
        };
        if round.seen.iter().zip(&self.ended).all(|(seen, ended)| *seen || *ended) {
            let id = round.id;
            self.done = id;
            self.round = None;
            return Aligned::Now(id);
        }
        Aligned::NotYet
    }

    /// The round is given up.
    pub fn abort(&mut self, id: CheckpointId) {
        self.done = self.done.max(id);
        if self.round.as_ref().is_some_and(|round| round.id == id) {
            self.round = None;
        }
    }

    /// Whether a channel may be read: it has not ended, and it is not waiting at a barrier.
    #[must_use]
    pub fn is_open(&self, channel: usize) -> bool {
        !self.ended[channel] && self.round.as_ref().is_none_or(|round| !round.seen[channel])
    }

    /// Whether some channel waits for others.
    #[must_use]
    pub fn is_aligning(&self) -> bool {
        self.round.is_some()
    }

    /// Whether all have ended.
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
        assert_eq!(a.barrier(0, ONE), Aligned::NotYet);
        assert!(!a.is_open(0) && a.is_open(1));
        assert_eq!(a.barrier(1, ONE), Aligned::Now(ONE));
        assert!(a.is_open(0) && a.is_open(1));
    }

    #[test]
    fn an_ended_input_counts_as_aligned() {
        let mut a = Alignment::new(2);
        assert_eq!(a.barrier(0, ONE), Aligned::NotYet);
        assert_eq!(a.end(1), Aligned::Now(ONE));
        assert_eq!(a.barrier(0, TWO), Aligned::Now(TWO));
        assert!(!a.all_ended());
        assert_eq!(a.end(0), Aligned::NotYet);
        assert!(a.all_ended());
    }

    #[test]
    fn a_later_round_and_an_abort_release_waiting_inputs() {
        let mut a = Alignment::new(2);
        a.barrier(0, ONE);
        assert_eq!(a.barrier(1, TWO), Aligned::NotYet);
        assert!(a.is_open(0) && !a.is_open(1));
        a.abort(TWO);
        assert!(a.is_open(1));
        assert_eq!(a.barrier(0, TWO), Aligned::NotYet);
        assert!(
            a.is_open(0),
            "a late barrier of a round that was given up stops nothing"
        );
    }

    proptest! {
        /// Whatever the delays, a snapshot holds exactly what stood before the barrier on every channel.
        #[test]
        fn no_record_is_counted_in_two_rounds(
            lengths in prop::collection::vec(prop::collection::vec(0usize..5, 3), 1..5),
            picks in prop::collection::vec(0usize..5, 200),
        ) {
            let channels = lengths.len();
            // Each channel: records of round 1, barrier 1, records of round 2, barrier 2, … then the end.
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
                let aligned = match queues[channel].pop_front() {
                    Some(Some(round)) => {
                        prop_assert_eq!(round, current);
                        Aligned::NotYet
                    }
                    Some(None) => {
                        at[channel] += 1;
                        alignment.barrier(channel, CheckpointId(at[channel] - 1))
                    }
                    None => alignment.end(channel),
                };
                if let Aligned::Now(id) = aligned {
                    prop_assert_eq!(id.0, current);
                    current += 1;
                }
            }
            prop_assert_eq!(current, 4);
            prop_assert!(alignment.all_ended());
        }
    }
}
