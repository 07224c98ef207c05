//! Generations, which tell what a mark has seen, what has changed since, and which removals still have to be recorded.
//!
//! A mark increments the generation.
//! All stored items carry a [`Stamp`], so a mark costs nothing: items with older stamps are as they were then.
//! Increments are made from the same stamps.
//! Design notes 0003 and 0007 have the reasons.

use regraft_model::id::CheckpointId;

/// Time of an item's last write: twice the generation, plus one if the item was, or may have been, there in an earlier
/// generation.
///
/// 0 means never.
pub type Stamp = u32;

/// Maximum number of completed rounds kept as possible bases; more than can be in progress at once.
const COMPLETED_MAX: usize = 8;

/// The state of the marks, as far as a write depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Stamp of new items.
    pub now: Stamp,
    /// The oldest stamp that the sweep in progress hands out; [`Stamp::MAX`] if there is no sweep, or it has passed the
    /// key group.
    pub from: Stamp,
    /// True if a round may become a base, so that removals have to be remembered.
    pub keep: bool,
}

impl Mark {
    /// Returns true if an item with this stamp belongs to the sweep and must be saved before it changes.
    #[inline]
    #[must_use]
    pub const fn saves(self, stamp: Stamp) -> bool {
        stamp >= self.from && stamp < self.now
    }

    /// Returns the new stamp of an item that is written again.
    #[inline]
    #[must_use]
    pub const fn rewritten(self, old: Stamp) -> Stamp {
        if old >= self.now { old } else { self.now + 1 }
    }

    /// Returns true if the removal of an item with this stamp has to be remembered. No mark has seen a new item.
    #[inline]
    #[must_use]
    pub const fn remembers(self, old: Stamp) -> bool {
        self.keep && old != self.now
    }
}

/// A round whose mark is or may become a base.
#[derive(Debug, Clone, Copy)]
struct Round {
    id: CheckpointId,
    /// The round contains writes up to this generation.
    generation: u32,
    completed: bool,
    /// Number of changes before its mark.
    changes: u64,
}

/// The marks of a backend.
#[derive(Debug)]
pub struct Marks {
    generation: u32,
    /// Rounds in order of their marks.
    rounds: Vec<Round>,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            generation: 1,
            rounds: vec![],
        }
    }
}

const fn stamp_after(generation: u32) -> Stamp {
    (generation + 1) * 2
}

impl Marks {
    /// Returns the stamp of new items.
    #[inline]
    #[must_use]
    pub const fn now(&self) -> Stamp {
        self.generation * 2
    }

    /// Returns true if a round may become a base.
    #[inline]
    #[must_use]
    pub const fn keep(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Records that everything written so far, in `changes` changes, is the state of a completed round, or of an
    /// unknown one.
    pub fn loaded(&mut self, round: Option<CheckpointId>, changes: u64) {
        let generation = self.generation;
        self.rounds.extend(round.map(|id| Round {
            id,
            generation,
            completed: true,
            changes,
        }));
        self.generation += 1;
    }

    /// Begins a round, after `changes` changes.
    ///
    /// Returns the base, or `None` if it is not available or more than `most` changes were made since its mark, and the
    /// oldest stamp that the sweep has to hand out.
    pub fn begin(
        &mut self,
        id: CheckpointId,
        base: Option<CheckpointId>,
        changes: u64,
        most: u64,
    ) -> (Option<CheckpointId>, Stamp) {
        let at = base.and_then(|base| self.rounds.iter().position(|round| round.id == base && round.completed));
        let few = at.filter(|at| changes - self.rounds[*at].changes <= most);
        let from = few.map_or(1, |at| stamp_after(self.rounds[at].generation));
        // Barriers come in order of their rounds, and a base is the last round completed at the time: an earlier one
        // will not be asked for again.
        self.rounds.drain(..at.unwrap_or(0));
        self.rounds.push(Round {
            id,
            generation: self.generation,
            completed: false,
            changes,
        });
        self.generation += 1;
        (base.filter(|_| few.is_some()), from)
    }

    /// Records that the round may be a base.
    pub fn completed(&mut self, id: CheckpointId) {
        if let Some(round) = self.rounds.iter_mut().find(|round| round.id == id) {
            round.completed = true;
        }
        let completed = self.rounds.iter().filter(|round| round.completed).count();
        if completed > COMPLETED_MAX
            && let Some(first) = self.rounds.iter().position(|round| round.completed)
        {
            self.rounds.remove(first);
        }
    }

    /// Forgets a round that was given up and will not be a base.
    pub fn aborted(&mut self, id: CheckpointId) {
        self.rounds.retain(|round| round.id != id);
    }

    /// Forgets all rounds, so that none will be a base and removals need not be remembered.
    pub fn forget(&mut self) {
        self.rounds.clear();
    }

    /// Returns true if the round can be a base.
    #[must_use]
    pub fn can_base(&self, id: CheckpointId) -> bool {
        self.rounds.iter().any(|round| round.id == id && round.completed)
    }

    /// Returns the stamp below which removals are contained in every possible base, and can be forgotten.
    #[must_use]
    pub fn settled(&self) -> Stamp {
        let oldest = self.rounds.iter().map(|round| stamp_after(round.generation)).min();
        oldest.unwrap_or(Stamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(n: u64) -> CheckpointId {
        CheckpointId(n)
    }

    #[test]
    fn a_completed_round_is_a_base_until_a_later_one_was() {
        let mut marks = Marks::default();
        assert_eq!(marks.begin(id(1), Some(id(0)), 0, 0), (None, 1));
        assert!(!marks.can_base(id(1)));
        marks.completed(id(1));
        assert!(marks.can_base(id(1)));
        // Two rounds with the same base: the second was triggered before the first was completed.
        let from = stamp_after(1);
        assert_eq!(marks.begin(id(2), Some(id(1)), 0, 0), (Some(id(1)), from));
        marks.completed(id(2));
        assert_eq!(marks.begin(id(3), Some(id(1)), 0, 0), (Some(id(1)), from));
        assert_eq!(marks.settled(), from);
        marks.aborted(id(3));
        assert!(!marks.can_base(id(3)));
        assert_eq!(marks.begin(id(4), Some(id(2)), 0, 0), (Some(id(2)), stamp_after(2)));
        assert!(!marks.can_base(id(1)));
        assert_eq!(marks.settled(), stamp_after(2));
        marks.forget();
        assert!(!marks.can_base(id(2)) && marks.settled() == Stamp::MAX);
    }

    #[test]
    fn rounds_that_nobody_bases_on_are_forgotten() {
        let mut marks = Marks::default();
        for n in 1..100 {
            assert_eq!(marks.begin(id(n), None, 0, 0).0, None);
            marks.completed(id(n));
        }
        assert_eq!(marks.rounds.len(), COMPLETED_MAX);
        assert!(marks.can_base(id(92)) && !marks.can_base(id(91)));
    }

    #[test]
    fn what_no_mark_has_seen_leaves_no_trace() {
        let mut marks = Marks::default();
        let mark = |marks: &Marks| Mark {
            now: marks.now(),
            from: Stamp::MAX,
            keep: marks.keep(),
        };
        let first = marks.now();
        assert!(!mark(&marks).remembers(first));
        assert_eq!(marks.begin(id(1), None, 0, 0), (None, 1));
        let (old, new) = (first, marks.now());
        assert!(mark(&marks).remembers(old) && !mark(&marks).remembers(new));
        // Writing an item again does not change that a mark has seen it.
        assert!(mark(&marks).remembers(mark(&marks).rewritten(old)));
        assert!(!mark(&marks).remembers(mark(&marks).rewritten(new)));
    }
}
