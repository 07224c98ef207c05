//! Checkpoint rounds as a pure state machine: facts in, decisions out. The workflow around it does the I/O.
//!
//! One round at a time. A round is: triggered at the sources, acknowledged by every subtask, then stored,
//! then committed. A subtask whose inputs have all ended gets no barrier from them, so it is triggered directly.

use std::collections::BTreeSet;

use regraft_model::id::CheckpointId;

use crate::dataflow::control::{SubtaskId, SubtaskSnapshot};
use regraft_model::snapshot::SnapshotKind;

/// The rounds of one attempt of a job.
#[derive(Debug)]
pub struct Rounds {
    sources: BTreeSet<SubtaskId>,
    all: BTreeSet<SubtaskId>,
    ended: BTreeSet<SubtaskId>,
    next: CheckpointId,
    active: Option<Round>,
}

/// A round under way.
#[derive(Debug)]
pub struct Round {
    /// Its number.
    pub id: CheckpointId,
    /// What it is for.
    pub kind: SnapshotKind,
    /// Milliseconds since the Unix epoch.
    pub triggered_ms: i64,
    /// When it is given up, monotonic nanoseconds.
    pub deadline_ns: u64,
    missing: BTreeSet<SubtaskId>,
    snapshots: Vec<SubtaskSnapshot>,
}

/// A round that every subtask has acknowledged.
#[derive(Debug)]
pub struct Acknowledged {
    /// Its number.
    pub id: CheckpointId,
    /// What it is for.
    pub kind: SnapshotKind,
    /// Milliseconds since the Unix epoch.
    pub triggered_ms: i64,
    /// In order of subtask.
    pub snapshots: Vec<SubtaskSnapshot>,
}

/// A round that begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its number.
    pub id: CheckpointId,
    /// Who gets the trigger.
    pub targets: Vec<SubtaskId>,
}

/// A round that ran out of time.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired {
    /// Its number.
    pub id: CheckpointId,
    /// Who had not acknowledged.
    pub missing: Vec<SubtaskId>,
}

impl Rounds {
    /// No round yet; the first one gets the number `next`.
    #[must_use]
    pub fn new(all: BTreeSet<SubtaskId>, sources: BTreeSet<SubtaskId>, next: CheckpointId) -> Self {
        Self {
            sources,
            all,
            ended: BTreeSet::new(),
            next,
            active: None,
        }
    }

    /// Begins a round, unless one is under way.
    pub fn begin(&mut self, kind: SnapshotKind, now_ms: i64, deadline_ns: u64) -> Option<Begun> {
        if self.active.is_some() {
            return None;
        }
        let id = self.next;
        self.next = id.next();
        let missing = self.all.clone();
        self.active = Some(Round {
            id,
            kind,
            triggered_ms: now_ms,
            deadline_ns,
            missing,
            snapshots: vec![],
        });
        Some(Begun {
            id,
            targets: self.sources.union(&self.ended).copied().collect(),
        })
    }

    /// The round under way.
    #[must_use]
    pub const fn active(&self) -> Option<&Round> {
        self.active.as_ref()
    }

    /// A subtask's part has come. The round, when it was the last one.
    pub fn snapshot(&mut self, snapshot: SubtaskSnapshot) -> Option<Acknowledged> {
        let round = self.active.as_mut().filter(|round| round.id == snapshot.id)?;
        if round.missing.remove(&snapshot.subtask) {
            round.snapshots.push(snapshot);
        }
        if !round.missing.is_empty() {
            return None;
        }
        let mut round = self.active.take()?;
        round.snapshots.sort_by_key(|snapshot| snapshot.subtask);
        Some(Acknowledged {
            id: round.id,
            kind: round.kind,
            triggered_ms: round.triggered_ms,
            snapshots: round.snapshots,
        })
    }

    /// The inputs of a subtask have ended. The round it must be triggered for directly, if it still owes one.
    pub fn ended(&mut self, subtask: SubtaskId) -> Option<CheckpointId> {
        self.ended.insert(subtask);
        self.active
            .as_ref()
            .filter(|round| round.missing.contains(&subtask))
            .map(|round| round.id)
    }

    /// Whether everything has ended.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        self.ended.len() == self.all.len()
    }

    /// Gives the round under way up, for any reason.
    pub fn abort(&mut self) -> Option<Expired> {
        let round = self.active.take()?;
        Some(Expired {
            id: round.id,
            missing: round.missing.into_iter().collect(),
        })
    }

    /// Gives the round under way up when its time is over.
    pub fn expire(&mut self, now_ns: u64) -> Option<Expired> {
        if self.active.as_ref().is_some_and(|round| now_ns >= round.deadline_ns) {
            self.abort()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn subtask(chain: u32) -> SubtaskId {
        SubtaskId { chain, index: 0 }
    }

    fn part(chain: u32, id: CheckpointId) -> SubtaskSnapshot {
        SubtaskSnapshot {
            subtask: subtask(chain),
            id,
            source: None,
            keyed: vec![],
            operator: vec![],
            sinks: vec![],
            watermark: 0,
            finished: vec![],
            align_ns: 0,
            sync_ns: 0,
            swap_ns: 0,
            async_ns: 0,
        }
    }

    fn rounds() -> Rounds {
        Rounds::new([0, 1].map(subtask).into(), [subtask(0)].into(), CheckpointId(8))
    }

    #[test]
    fn a_round_is_complete_when_every_subtask_has_acknowledged() {
        let mut rounds = rounds();
        let begun = rounds.begin(SnapshotKind::Checkpoint, 5, 100).expect("begun");
        assert_eq!(
            begun,
            Begun {
                id: CheckpointId(8),
                targets: vec![subtask(0)]
            }
        );
        assert_eq!(rounds.begin(SnapshotKind::Savepoint, 5, 100), None, "one at a time");
        assert!(rounds.snapshot(part(1, CheckpointId(8))).is_none());
        assert!(
            rounds.snapshot(part(1, CheckpointId(8))).is_none(),
            "the same one again changes nothing"
        );
        assert!(
            rounds.snapshot(part(0, CheckpointId(7))).is_none(),
            "a part of an earlier round"
        );
        let done = rounds.snapshot(part(0, CheckpointId(8))).expect("complete");
        assert_eq!(
            done.snapshots.iter().map(|s| s.subtask).collect::<Vec<_>>(),
            [subtask(0), subtask(1)]
        );
        assert_eq!(
            rounds.begin(SnapshotKind::Savepoint, 6, 100).map(|b| b.id),
            Some(CheckpointId(9))
        );
    }

    #[test]
    fn who_has_ended_is_triggered_directly() {
        let mut rounds = rounds();
        assert_eq!(rounds.ended(subtask(0)), None);
        let begun = rounds.begin(SnapshotKind::Checkpoint, 5, 100).expect("begun");
        assert_eq!(begun.targets, [subtask(0)]);
        assert_eq!(
            rounds.ended(subtask(1)),
            Some(begun.id),
            "it ended with the round under way"
        );
        assert!(rounds.all_ended());
        rounds.abort();
        let last = rounds.begin(SnapshotKind::EndOfInput, 6, 100).expect("begun");
        assert_eq!(last.targets, [subtask(0), subtask(1)]);
    }

    #[test]
    fn time_runs_out() {
        let mut rounds = rounds();
        rounds.begin(SnapshotKind::Checkpoint, 5, 100);
        rounds.snapshot(part(0, CheckpointId(8)));
        assert_eq!(rounds.expire(99), None);
        assert_eq!(
            rounds.expire(100),
            Some(Expired {
                id: CheckpointId(8),
                missing: vec![subtask(1)]
            })
        );
        assert!(rounds.snapshot(part(1, CheckpointId(8))).is_none(), "too late");
    }
}
