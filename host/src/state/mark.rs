//! Generations: what a mark has seen, what has changed since, and which removals have still to be told.
//!
//! A mark adds one to the generation. Everything that is kept carries a [`Stamp`], so a mark costs nothing: what is older
//! is as it was then. Increments live from the same stamps. Design notes 0003 and 0007 have the reasons.

use regraft_model::id::CheckpointId;

/// When something was last written: twice the generation, and one more where an earlier generation had it, or may have.
/// 0 is never.
pub type Stamp = u32;

/// Completed rounds that may still be a base: more than can be under way at once.
const COMPLETED_MAX: usize = 8;

/// What a write needs to know of the marks.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// The stamp of what is new.
    pub now: Stamp,
    /// The oldest stamp that the sweep under way hands out; the greatest of all where there is none, or the key group has
    /// been swept.
    pub from: Stamp,
    /// Whether any round may become a base, so that removals have to be remembered.
    pub keep: bool,
}

impl Mark {
    /// Whether what has this stamp belongs to the sweep: before it changes it has to be saved.
    #[inline]
    #[must_use]
    pub const fn saves(self, stamp: Stamp) -> bool {
        stamp >= self.from && stamp < self.now
    }

    /// The new stamp of what is written again.
    #[inline]
    #[must_use]
    pub const fn rewritten(self, old: Stamp) -> Stamp {
        if old >= self.now { old } else { self.now + 1 }
    }

    /// Whether something with this stamp has to be remembered when it is removed: no mark has seen what is new.
    #[inline]
    #[must_use]
    pub const fn remembers(self, old: Stamp) -> bool {
        self.keep && old != self.now
    }
}

/// A round whose mark may be, or become, a base.
#[derive(Debug, Clone, Copy)]
struct Round {
    id: CheckpointId,
    /// Writes up to this generation are in it.
    generation: u32,
    completed: bool,
    /// How many changes there had been at its mark.
    changes: u64,
}

/// The marks of a backend.
#[derive(Debug)]
pub struct Marks {
    generation: u32,
    /// In order of their marks.
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
    /// The stamp of what is new.
    #[inline]
    #[must_use]
    pub const fn now(&self) -> Stamp {
        self.generation * 2
    }

    /// Whether any round may become a base.
    #[inline]
    #[must_use]
    pub const fn keep(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// What has been written until now, with so many changes, is the state of this completed round, or of none that is
    /// known.
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

    /// A mark, after so many changes. Answers the base, where it can be one and no more than `most` changes have come since
    /// its mark, and the oldest stamp that the sweep is to hand out.
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
        // Barriers come in order of their rounds, and a base is the last completed one of its time: none before this one
        // will be asked for again.
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

    /// The round may be a base from now on.
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

    /// The round will be no base.
    pub fn aborted(&mut self, id: CheckpointId) {
        self.rounds.retain(|round| round.id != id);
    }

    /// No round will be a base: removals need not be remembered.
    pub fn forget(&mut self) {
        self.rounds.clear();
    }

    /// Whether the round can be a base.
    #[must_use]
    pub fn can_base(&self, id: CheckpointId) -> bool {
        self.rounds.iter().any(|round| round.id == id && round.completed)
    }

    /// Removals with a lesser stamp are in every round that may be a base, and can be forgotten.
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
        // Two rounds on the same base: the second was triggered before the first was completed.
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
        // Written again, it is still what a mark has seen.
        assert!(mark(&marks).remembers(mark(&marks).rewritten(old)));
        assert!(!mark(&marks).remembers(mark(&marks).rewritten(new)));
    }
}
