//! One round as data: from its trigger to its commit, one phase after the other.
//!
//! ```text
//! Acking → Storing → Recording → Queued → Committing → (over)
//!             └─────────────────────┘  an upgrade only
//! ```
//!
//! A phase holds what is known in it, and nothing else. A round that cannot go on until the job does is `Held`, or `Recorded`
//! where it is an upgrade that has come about.

use std::collections::BTreeSet;

use regraft_model::id::CheckpointId;

use super::reason::Trouble;
use crate::checkpoint::round::Acknowledged;
use crate::checkpoint::store::Stored;
use crate::dataflow::control::SubtaskSnapshot;
use crate::graph::plan::{Plan, SubtaskId};
use crate::jobs::observe::SubtaskRound;
use crate::jobs::request::{Asked, SnapshotRequest};
use crate::savepoint::permit::CommitPermit;

/// A round that is not over.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) asked: Asked,
    /// Monotonic nanoseconds.
    pub(super) started_ns: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) triggered_ms: i64,
    /// When it expires if it is not durable by then, monotonic nanoseconds.
    pub(super) deadline_ns: u64,
    pub(super) phase: Phase,
    /// Answer to its requester when the job runs again, if the round has not succeeded then.
    pub(super) trouble: Option<Trouble>,
}

/// Progress of a round.
#[derive(Debug)]
pub(super) enum Phase {
    /// Some subtask has not acknowledged its barrier.
    Acking(Acking),
    /// Its files are being written.
    Storing(Saved),
    /// It is durable, and its modules are becoming the job's.
    Recording(Saved, CommitPermit),
    /// It is durable, and waits for an earlier one to be committed.
    Queued(Saved, CommitPermit),
    /// Its output is becoming visible.
    Committing(Saved),
    /// Nothing happens to it until the job runs again; `None` if it was never acknowledged.
    Held(Option<Saved>),
    /// Its modules are the job's. The next attempt runs them, and commits its output.
    Recorded(Saved),
}

/// The parts that have come, and the subtasks that owe theirs.
#[derive(Debug)]
pub(super) struct Acking {
    pub(super) missing: BTreeSet<SubtaskId>,
    pub(super) snapshots: Vec<SubtaskSnapshot>,
}

/// An acknowledged round.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// URL of its directory, once that is known.
    pub(super) url: Option<String>,
    /// Size of the files written for it; 0 until it is durable.
    pub(super) bytes: u64,
    /// Size of all files that it refers to; 0 until it is durable.
    pub(super) full_bytes: u64,
    /// From trigger to durable; 0 until it is durable.
    pub(super) duration_ms: u64,
    /// The longest alignment, the longest pause and the longest replacement of modules in a subtask, milliseconds.
    pub(super) align_ms: f64,
    pub(super) sync_ms: f64,
    pub(super) swap_ms: f64,
    pub(super) subtasks: Vec<SubtaskRound>,
}

impl Acking {
    /// Takes a subtask's part; true if it was the last one.
    pub(super) fn take(&mut self, snapshot: SubtaskSnapshot) -> bool {
        if self.missing.remove(&snapshot.subtask) {
            self.snapshots.push(snapshot);
        }
        self.missing.is_empty()
    }
}

impl Round {
    /// The acknowledged or durable round; `None` while subtasks owe their parts.
    pub(super) fn saved(&self) -> Option<&Saved> {
        match &self.phase {
            Phase::Acking(_) | Phase::Held(None) => None,
            Phase::Storing(saved)
            | Phase::Recording(saved, _)
            | Phase::Queued(saved, _)
            | Phase::Committing(saved)
            | Phase::Recorded(saved)
            | Phase::Held(Some(saved)) => Some(saved),
        }
    }

    /// The same, to be changed.
    pub(super) fn saved_mut(&mut self) -> Option<&mut Saved> {
        match &mut self.phase {
            Phase::Acking(_) | Phase::Held(None) => None,
            Phase::Storing(saved)
            | Phase::Recording(saved, _)
            | Phase::Queued(saved, _)
            | Phase::Committing(saved)
            | Phase::Recorded(saved)
            | Phase::Held(Some(saved)) => Some(saved),
        }
    }

    /// Leaves its phase for `Held`, with what is saved of it.
    pub(super) fn hold(&mut self) {
        self.phase = Phase::Held(self.take_saved());
    }

    /// Leaves its phase for `Recorded`.
    pub(super) fn hold_recorded(&mut self) {
        self.phase = Phase::Recorded(self.take_saved().unwrap_or_default());
    }

    /// Takes what is saved of it, and leaves it in a phase without that.
    pub(super) fn take_saved(&mut self) -> Option<Saved> {
        match std::mem::replace(&mut self.phase, Phase::Held(None)) {
            Phase::Acking(_) => None,
            Phase::Storing(saved)
            | Phase::Recording(saved, _)
            | Phase::Queued(saved, _)
            | Phase::Committing(saved)
            | Phase::Recorded(saved) => Some(saved),
            Phase::Held(saved) => saved,
        }
    }

    pub(super) const fn is_acking(&self) -> bool {
        matches!(self.phase, Phase::Acking(_))
    }

    /// True if it is durable and on its way to its commit.
    pub(super) const fn is_committing(&self) -> bool {
        matches!(
            self.phase,
            Phase::Recording(..) | Phase::Queued(..) | Phase::Committing(_)
        )
    }

    /// Returns when it expires, monotonic nanoseconds; `None` if it does not any more.
    ///
    /// It must be known of a round that ends the job whether it is durable, so it does not expire while it is stored. Others
    /// expire then once their directory is known, which the report names.
    pub(super) fn expires_ns(&self) -> Option<u64> {
        let stops = matches!(self.asked.request, SnapshotRequest::Stop { .. });
        let expires = match &self.phase {
            Phase::Acking(_) => true,
            Phase::Storing(saved) => saved.url.is_some() && !stops,
            _ => false,
        };
        expires.then_some(self.deadline_ns)
    }

    /// URL of its directory; empty until that is known.
    pub(super) fn url(&self) -> String {
        self.saved().and_then(|saved| saved.url.clone()).unwrap_or_default()
    }
}

impl Saved {
    /// A round that every subtask has acknowledged.
    pub(super) fn acknowledged(snapshots: &[SubtaskSnapshot], plan: &Plan) -> Self {
        let ms = |ns: u64| ns as f64 / 1e6;
        let longest = |of: fn(&SubtaskSnapshot) -> u64| ms(snapshots.iter().map(of).max().unwrap_or(0));
        let parts = snapshots.iter().flat_map(|part| {
            plan.uids(part.subtask).iter().map(|uid| SubtaskRound {
                uid: uid.clone(),
                subtask: part.subtask.index,
                align_ms: ms(part.align_ns),
                sync_ms: ms(part.sync_ns),
                async_ms: ms(part.async_ns),
                bytes: 0,
                state_bytes: 0,
            })
        });
        Self {
            align_ms: longest(|part| part.align_ns),
            sync_ms: longest(|part| part.sync_ns),
            swap_ms: longest(|part| part.swap_ns),
            subtasks: parts.collect(),
            ..Self::default()
        }
    }

    /// The round is durable.
    pub(super) fn durable(&mut self, stored: &Stored, duration_ms: u64) {
        (self.bytes, self.full_bytes, self.duration_ms) = (stored.bytes, stored.full_bytes, duration_ms);
        for part in &mut self.subtasks {
            let records = stored.subtasks.get(&part.uid);
            if let Some(record) = records.and_then(|records| records.get(part.subtask as usize)) {
                (part.bytes, part.state_bytes) = (record.written_bytes, record.state_bytes);
            }
        }
    }
}

/// Puts the parts of a complete round together, in order of subtask.
pub(super) fn acknowledged(id: CheckpointId, round: &Round, mut snapshots: Vec<SubtaskSnapshot>) -> Acknowledged {
    snapshots.sort_by_key(|snapshot| snapshot.subtask);
    Acknowledged {
        id,
        kind: round.asked.request.kind(),
        triggered_ms: round.triggered_ms,
        snapshots,
    }
}
