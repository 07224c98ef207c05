//! A round that every subtask has acknowledged: what a checkpoint or savepoint is written from.
//!
//! How it came about is decided by the job's protocol (`jobs::life`).

use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use crate::dataflow::control::SubtaskSnapshot;

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

/// A round that was given up before every subtask had acknowledged it.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Its number.
    pub id: CheckpointId,
    /// Who had not acknowledged.
    pub missing: Vec<SubtaskId>,
}

impl Rounds {
    /// No round and no subtask yet; the first round gets the number `next`.
    #[must_use]
    pub const fn new(next: CheckpointId) -> Self {
        Self {
            sources: BTreeSet::new(),
            all: BTreeSet::new(),
            ended: BTreeSet::new(),
            next,
            active: BTreeMap::new(),
        }
    }

    /// Subtasks that run from now on, and those of them that have a source. They take part in rounds that begin later.
    pub fn started(&mut self, subtasks: &[SubtaskId], sources: &BTreeSet<SubtaskId>) {
        for subtask in subtasks {
            self.all.insert(*subtask);
            self.ended.remove(subtask);
        }
        self.sources.extend(sources);
    }

    /// Begins a round.
    pub fn begin(&mut self, kind: SnapshotKind, now_ms: i64, deadline_ns: u64) -> Begun {
        let id = self.next;
        self.next = id.next();
        let round = Round {
            kind,
            triggered_ms: now_ms,
            deadline_ns,
            missing: self.all.clone(),
            snapshots: vec![],
        };
        self.active.insert(id, round);
        Begun {
            id,
            targets: self.sources.union(&self.ended).copied().collect(),
        }
    }

    /// The greatest number that a round has had.
    #[must_use]
    pub const fn last_id(&self) -> CheckpointId {
        CheckpointId(self.next.0.saturating_sub(1))
    }

    /// Rounds from now on have numbers greater than this one.
    pub fn skip_to(&mut self, id: CheckpointId) {
        self.next = self.next.max(id.next());
    }

    /// A subtask's part has come. The round, when it was the last one.
    pub fn snapshot(&mut self, snapshot: SubtaskSnapshot) -> Option<Acknowledged> {
        let id = snapshot.id;
        let round = self.active.get_mut(&id)?;
        if round.missing.remove(&snapshot.subtask) {
            round.snapshots.push(snapshot);
        }
        if !round.missing.is_empty() {
            return None;
        }
        let mut round = self.active.remove(&id)?;
        round.snapshots.sort_by_key(|snapshot| snapshot.subtask);
        Some(Acknowledged {
            id,
            kind: round.kind,
            triggered_ms: round.triggered_ms,
            deadline_ns: round.deadline_ns,
            snapshots: round.snapshots,
        })
    }

    /// The inputs of a subtask have ended. The rounds it must be triggered for directly, since it still owes them.
    pub fn ended(&mut self, subtask: SubtaskId) -> Vec<CheckpointId> {
        self.ended.insert(subtask);
        let owed = self.active.iter().filter(|(_, round)| round.missing.contains(&subtask));
        owed.map(|(id, _)| *id).collect()
    }

    /// Whether everything has ended.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        self.ended.len() == self.all.len()
    }

    /// Gives a round up, for any reason; none where every subtask had acknowledged it.
    pub fn abort(&mut self, id: CheckpointId) -> Option<GivenUp> {
        let round = self.active.remove(&id)?;
        Some(GivenUp {
            id,
            missing: round.missing.into_iter().collect(),
        })
    }

    /// Gives up the rounds whose time is over.
    pub fn expire(&mut self, now_ns: u64) -> Vec<GivenUp> {
        let over = self.active.iter().filter(|(_, round)| now_ns >= round.deadline_ns);
        let over: Vec<CheckpointId> = over.map(|(id, _)| *id).collect();
        over.into_iter().filter_map(|id| self.abort(id)).collect()
    }

    /// When the next round is over, monotonic nanoseconds.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.active.values().map(|round| round.deadline_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn subtask(chain: u32) -> SubtaskId {
        SubtaskId { chain, index: 0 }
    }

    fn part(chain: u32, id: CheckpointId) -> SubtaskSnapshot {
        SubtaskSnapshot::new(subtask(chain), id)
    }

    fn rounds() -> Rounds {
        let mut rounds = Rounds::new(CheckpointId(8));
        rounds.started(&[subtask(0), subtask(1)], &[subtask(0)].into());
        rounds
    }

    #[test]
    fn a_round_is_complete_when_every_subtask_has_acknowledged() {
        let mut rounds = rounds();
        let begun = rounds.begin(SnapshotKind::Checkpoint, 5, 100);
        assert_eq!(
            begun,
            Begun {
                id: CheckpointId(8),
                targets: vec![subtask(0)]
            }
        );
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
        assert_eq!(rounds.begin(SnapshotKind::Savepoint, 6, 100).id, CheckpointId(9));
    }

    #[test]
    fn rounds_overlap() {
        let mut rounds = rounds();
        let first = rounds.begin(SnapshotKind::Checkpoint, 5, 100).id;
        let second = rounds.begin(SnapshotKind::Checkpoint, 6, 200).id;
        assert!(rounds.snapshot(part(0, first)).is_none());
        assert!(rounds.snapshot(part(0, second)).is_none());
        assert_eq!(rounds.next_deadline_ns(), Some(100));
        assert_eq!(rounds.snapshot(part(1, first)).map(|done| done.id), Some(first));
        assert_eq!(rounds.next_deadline_ns(), Some(200));
        assert_eq!(rounds.ended(subtask(1)), [second]);
        assert_eq!(rounds.snapshot(part(1, second)).map(|done| done.id), Some(second));
    }

    #[test]
    fn who_has_ended_is_triggered_directly() {
        let mut rounds = rounds();
        assert_eq!(rounds.ended(subtask(0)), []);
        let begun = rounds.begin(SnapshotKind::Checkpoint, 5, 100);
        assert_eq!(begun.targets, [subtask(0)]);
        assert_eq!(
            rounds.ended(subtask(1)),
            [begun.id],
            "it ended with the round under way"
        );
        assert!(rounds.all_ended());
        rounds.abort(begun.id);
        let last = rounds.begin(SnapshotKind::EndOfInput, 6, 100);
        assert_eq!(last.targets, [subtask(0), subtask(1)]);
        // One that runs again has not ended.
        rounds.started(&[subtask(1)], &BTreeSet::new());
        assert!(!rounds.all_ended());
        assert_eq!(rounds.begin(SnapshotKind::Checkpoint, 7, 100).targets, [subtask(0)]);
    }

    #[test]
    fn time_runs_out() {
        let mut rounds = rounds();
        rounds.begin(SnapshotKind::Checkpoint, 5, 100);
        rounds.snapshot(part(0, CheckpointId(8)));
        assert_eq!(rounds.expire(99), []);
        assert_eq!(
            rounds.expire(100),
            [GivenUp {
                id: CheckpointId(8),
                missing: vec![subtask(1)]
            }]
        );
        assert!(rounds.snapshot(part(1, CheckpointId(8))).is_none(), "too late");
        rounds.skip_to(CheckpointId(20));
        assert_eq!(rounds.begin(SnapshotKind::Checkpoint, 6, 100).id, CheckpointId(21));
    }
}
