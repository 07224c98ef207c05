//! Checkpoints of a job whose state is a plain map.
//!
//! The tests check which files are written and merged, what is left after a crash at every request to the store, and
//! that each checkpoint restores the map as it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{Either, select};
use object_store::memory::InMemory;
use regraft_model::id::CheckpointId;
use regraft_model::snapshot::SnapshotKind;

use self::gate::{Fate, Gate};
use self::job::Job;
use super::*;
use crate::checkpoint::chain;
use crate::environment::immediate::Immediate;
use crate::savepoint::budget::Budget;
use crate::savepoint::load::Savepoint;

mod gate;
mod job;

const BASE: &str = "ckpt/00000000000000000000000000000007";

struct Disk(Arc<InMemory>, Arc<Immediate>);

impl Disk {
    fn new() -> Self {
        Self(Arc::new(InMemory::new()), Arc::default())
    }

    fn storage(&self) -> Storage {
        Storage::with_store(self.0.clone(), BASE).expect("location")
    }

    /// Opens a store of the checkpoints, as a host does that has just started.
    fn open(&self, gate: Arc<Gate>, retain: u32) -> CheckpointStore {
        self.open_while(gate, retain, &Arc::new(AtomicBool::new(true)))
    }

    /// Like [`Disk::open`], for a host that may lose the job to another one.
    fn open_while(&self, gate: Arc<Gate>, retain: u32, ours: &Arc<AtomicBool>) -> CheckpointStore {
        let storage = Storage::with_store(gate, BASE).expect("location");
        let ours = ours.clone();
        let still_ours: StillOurs = Arc::new(move || {
            let ours = ours.load(Ordering::Relaxed);
            Box::pin(async move { Ok(ours) })
        });
        CheckpointStore::new(self.1.clone(), storage, retain, still_ours)
    }

    async fn names(&self) -> Vec<String> {
        let all = self.storage().list("").await.expect("list");
        all.into_iter().map(|object| object.name).collect()
    }

    /// Returns the size of all objects in bytes.
    async fn bytes(&self) -> u64 {
        self.storage()
            .list("")
            .await
            .expect("list")
            .iter()
            .map(|object| object.bytes)
            .sum()
    }

    async fn checkpoint(&self, id: CheckpointId) -> Savepoint {
        let at = self.storage().child(&paths::checkpoint_name(id)).expect("name");
        Savepoint::load(at).await.expect("complete")
    }
}

/// Takes a checkpoint: stores it, commits it and does the work that follows.
async fn checkpoint(job: &mut Job, kept: &CheckpointStore) -> Result<Stored, StoreFailure> {
    let id = job.next_id();
    let base = kept.begin(id, SnapshotKind::Checkpoint, &job.facts);
    let round = job.round(id, SnapshotKind::Checkpoint, base);
    let stored = kept
        .store(round, &job.facts, job.how(), &Cancellation::default())
        .await?;
    kept.confirm(id);
    kept.remove_old().await;
    kept.merge_long().await;
    Ok(stored)
}

/// Changes every `step`th of `keys` keys, from `first` on.
fn change(job: &mut Job, keys: u64, first: u64, step: usize) {
    for key in (first..keys).step_by(step) {
        *job.state.entry((0, key)).or_insert(key) += 1_000_000;
    }
}

#[tokio::test]
async fn a_checkpoint_holds_what_has_changed_and_restores_to_all_there_is() {
    let (disk, mut job) = (Disk::new(), Job::new(2, &["sum", "last"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 2);
    change(&mut job, 3000, 0, 1);
    job.state.insert((1, 5), 5);
    checkpoint(&mut job, &kept).await.expect("stored");
    let first = disk.names().await;
    assert_eq!(
        first.iter().filter(|name| name.starts_with("shared/count-")).count(),
        3,
        "{first:?}"
    );
    change(&mut job, 3000, 7, 100);
    job.state.retain(|(state, key), _| *state != 0 || *key % 50 != 3);
    job.state.remove(&(1, 5));
    let second = checkpoint(&mut job, &kept).await.expect("stored");
    // Nothing has changed.
    let third = checkpoint(&mut job, &kept).await.expect("stored");
    assert_eq!(kept.completed(), [CheckpointId(2), CheckpointId(3)]);
    assert!(
        third.bytes < second.bytes && third.bytes > 0,
        "{} < {}",
        third.bytes,
        second.bytes
    );
    assert_eq!(third.subtasks[&job::uid("count")][0].written_bytes, 0);
    assert!(third.subtasks[&job::uid("count")][0].state_bytes > 3_000);
    for id in [2, 3].map(CheckpointId) {
        let saved = disk.checkpoint(id).await;
        for parallelism in [1, 2, 3, 5] {
            assert_eq!(
                job.restored(&saved, parallelism).await,
                job.marks[&id],
                "{id} at {parallelism}"
            );
        }
    }
    // The component is in the shared directory once, and not written again.
    let modules: Vec<_> = disk
        .names()
        .await
        .into_iter()
        .filter(|name| name.ends_with(".wasm"))
        .collect();
    assert!(modules.len() == 1 && modules[0].starts_with("shared/"), "{modules:?}");
}

/// Positions are increments as keyed state is, at any length of the chain.
#[tokio::test]
async fn positions_of_many_splits_are_written_as_far_as_they_have_changed() {
    let (disk, mut job) = (Disk::new(), Job::new(2, &["sum"]));
    job.has_positions = true;
    let kept = disk.open(Gate::new(disk.0.clone(), None), 2);
    change(&mut job, 3000, 0, 1);
    let full = checkpoint(&mut job, &kept).await.expect("stored");
    let (mut written, mut longest) = (vec![], 0);
    for round in 0..60u64 {
        change(&mut job, 3000, round % 7, 1000);
        job.state.retain(|(_, key), _| *key != round * 11 + 1);
        let stored = checkpoint(&mut job, &kept).await.expect("stored");
        written.push(stored.subtasks[&job::uid("in")][0].written_bytes);
        let saved = disk.checkpoint(*kept.completed().last().expect("one")).await;
        assert_eq!(Job::positions_of(&saved).await, job.state, "round {round}");
        let entry = saved.metadata.operator("in").expect("entry");
        longest = longest.max(entry.states[0].files.len());
        assert!(saved.metadata.problems().is_empty());
    }
    let full = full.subtasks[&job::uid("in")][0].written_bytes;
    assert!(written.iter().all(|bytes| bytes * 4 < full), "{full}: {written:?}");
    assert!(written.iter().filter(|bytes| **bytes > 0).count() > 30, "{written:?}");
    assert!(longest < 40, "{longest}");
    // Nothing has changed, so nothing is written.
    let idle = checkpoint(&mut job, &kept).await.expect("stored");
    assert_eq!(idle.subtasks[&job::uid("in")][0].written_bytes, 0);
}

/// Of a million keys, one percent changes between two checkpoints.
#[tokio::test]
async fn one_percent_of_a_million_keys_is_less_than_three_percent_of_the_bytes() {
    const KEYS: u64 = 1_000_000;
    let (disk, mut job) = (Disk::new(), Job::new(2, &["sum"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    change(&mut job, KEYS, 0, 1);
    let full = checkpoint(&mut job, &kept).await.expect("stored");
    change(&mut job, KEYS, 42, 100);
    let next = checkpoint(&mut job, &kept).await.expect("stored");
    let share = next.bytes as f64 / full.bytes as f64;
    assert!(
        share < 0.03 && share > 0.001,
        "{} of {} bytes: {share:.4}",
        next.bytes,
        full.bytes
    );
    let saved = disk.checkpoint(CheckpointId(2)).await;
    assert_eq!(job.restored(&saved, 2).await, job.state);
}

#[tokio::test]
async fn after_a_hundred_checkpoints_the_chain_is_short() {
    const KEYS: u64 = 40_000;
    let (disk, mut job) = (Disk::new(), Job::new(1, &["sum"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    change(&mut job, KEYS, 0, 1);
    let full = checkpoint(&mut job, &kept).await.expect("stored").full_bytes;
    let mut most = (0, 0);
    for round in 0..100 {
        change(&mut job, KEYS, round % 97, 100);
        let stored = checkpoint(&mut job, &kept).await.expect("stored");
        let saved = disk.checkpoint(*kept.completed().last().expect("one")).await;
        let files = saved.metadata.operator("count").expect("entry").states[0].files.len();
        most = (files.max(most.0), stored.full_bytes.max(most.1));
    }
    assert!(most.0 <= chain::longest(most.1) && most.0 < 16, "{} files", most.0);
    assert!(most.1 < 5 * full / 2, "{} bytes of {full}", most.1);
    let saved = disk.checkpoint(CheckpointId(101)).await;
    assert_eq!(job.restored(&saved, 1).await, job.state);
    // Besides the files of the newest checkpoint there are only those that wait for the next one.
    let waiting: BTreeSet<String> = kept
        .book()
        .merged
        .values()
        .filter_map(|m| m.name().map(str::to_owned))
        .collect();
    let referred: BTreeSet<String> = shared_names(&saved.metadata);
    for name in disk.names().await {
        let shared = name.strip_prefix("shared/");
        let known = shared.is_none_or(|name| referred.contains(name) || waiting.contains(name));
        assert!(known && (shared.is_some() || name == "chk-101/_metadata"), "{name}");
    }
    kept.leave().await;
    assert_eq!(disk.names().await.len(), referred.len() + 1);
}

#[tokio::test]
async fn a_failed_round_is_no_base_and_leaves_nothing() {
    let (disk, mut job) = (Disk::new(), Job::new(2, &["sum"]));
    let requests = {
        // Number of requests for the first checkpoint.
        let (disk, mut job) = (Disk::new(), Job::new(2, &["sum"]));
        let gate = Gate::new(disk.0.clone(), None);
        change(&mut job, 500, 0, 1);
        checkpoint(&mut job, &disk.open(gate.clone(), 1)).await.expect("stored");
        gate.requests.load(Ordering::Relaxed)
    };
    change(&mut job, 500, 0, 1);
    let mut unsure = 0;
    for (at, fate) in (0..requests).flat_map(|at| [(at, Fate::Fail(5)), (at, Fate::Full(1)), (at, Fate::Fail(3))]) {
        let gate = Gate::new(disk.0.clone(), Some((at, fate)));
        let kept = disk.open(gate.clone(), 1);
        let stored = checkpoint(&mut job, &kept).await;
        let id = *job.marks.keys().next_back().expect("a round");
        if fate == Fate::Fail(3) {
            assert!(stored.is_ok(), "it is tried again: {stored:?}");
        }
        if let Err(error) = stored {
            let text = error.to_string();
            let (said, path) = match fate {
                Fate::Full(_) => ("no space left writing ", ""),
                _ => ("500 Internal Server Error (tried 5 times)", "store:///ckpt/"),
            };
            assert!(text.contains(said) && text.contains(path), "{at}: {text}");
            // The components of the job may be there, since it needs them again.
            let needless = |names: Vec<String>| names.into_iter().filter(|name| !name.ends_with(".wasm")).count();
            assert_eq!(kept.begin(id.next(), SnapshotKind::Checkpoint, &job.facts), None);
            if text.contains("/_metadata") && fate == Fate::Fail(5) {
                // It may be there as far as the host can tell, so it is deleted when there is a newer one.
                unsure += 1;
                assert!(needless(disk.names().await) > 0, "{at}");
                kept.give_up(id.next()).await;
                assert!(needless(disk.names().await) > 0, "{at}");
                let ours = checkpoint(&mut job, &kept).await.expect("stored");
                assert_eq!(disk.bytes().await, ours.full_bytes, "{at}");
                disk.storage().delete_prefix("").await.expect("cleared");
            } else {
                assert_eq!(needless(disk.names().await), 0, "{at}: {:?}", disk.names().await);
            }
        } else {
            let saved = disk.checkpoint(id).await;
            assert_eq!(job.restored(&saved, 2).await, job.state);
            assert_eq!(kept.begin(id.next(), SnapshotKind::Checkpoint, &job.facts), Some(id));
            disk.storage().delete_prefix("").await.expect("cleared");
        }
    }
    assert!(unsure > 0);
}

#[tokio::test]
async fn a_host_that_is_cut_off_deletes_nothing_that_another_goes_on_from() {
    let (disk, mut job) = (Disk::new(), Job::new(1, &["sum"]));
    let ours = Arc::new(AtomicBool::new(true));
    let kept = disk.open_while(Gate::new(disk.0.clone(), None), 1, &ours);
    change(&mut job, 400, 0, 1);
    for round in 0..3 {
        change(&mut job, 400, round, 9);
        checkpoint(&mut job, &kept).await.expect("stored");
    }
    // Another host goes on from the third checkpoint, and this one does not know it.
    let third = disk.checkpoint(CheckpointId(3)).await;
    let state = job.marks[&CheckpointId(3)].clone();
    ours.store(false, Ordering::Relaxed);
    for round in 3..40 {
        change(&mut job, 400, round, 2);
        checkpoint(&mut job, &kept).await.expect("stored");
    }
    kept.give_up(CheckpointId(99)).await;
    kept.leave().await;
    assert_eq!(job.restored(&third, 2).await, state, "all of its files are there");
    // The host that runs the job removes what the other one has left.
    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    let found = kept.recover(Some(CheckpointId(3)), [], &[]).await.expect("recovered");
    assert_eq!(found.kept, [CheckpointId(3)]);
    assert_eq!(disk.names().await.len(), shared_names(&third.metadata).len() + 1);
    assert_eq!(job.restored(&third, 3).await, state);
}

/// Takes several checkpoints, with merges and deletions, until a crash. Returns the newest one known to be complete.
async fn run_until_crash(disk: &Disk, gate: &Arc<Gate>, job: &mut Job, retain: u32) -> Option<CheckpointId> {
    let kept = disk.open(gate.clone(), retain);
    let newest = std::sync::Mutex::new(None);
    let dies = std::future::poll_fn(|_| match gate.has_struck() {
        true => std::task::Poll::Ready(()),
        false => std::task::Poll::Pending,
    });
    let rounds = Box::pin(async {
        change(job, 400, 0, 1);
        for round in 0..14 {
            change(job, 400, round, 9);
            job.state.remove(&(0, round * 3));
            checkpoint(job, &kept).await.expect("stored");
            *newest.lock().expect("lock") = kept.completed().last().copied();
        }
        kept.leave().await;
    });
    match select(rounds, dies).await {
        Either::Left(_) | Either::Right(_) => *newest.lock().expect("lock"),
    }
}

#[tokio::test]
async fn a_crash_at_any_request_leaves_what_the_next_start_removes() {
    for retain in [1, 3] {
        let requests = {
            let (disk, mut job) = (Disk::new(), Job::new(1, &["sum"]));
            let gate = Gate::new(disk.0.clone(), None);
            run_until_crash(&disk, &gate, &mut job, retain).await;
            gate.requests.load(Ordering::Relaxed)
        };
        assert!(requests > 60, "{requests}");
        let mut outcomes = BTreeSet::new();
        for (at, fate) in (0..requests).flat_map(|at| [(at, Fate::DieBefore), (at, Fate::DieAfter)]) {
            let (disk, mut job) = (Disk::new(), Job::new(1, &["sum"]));
            let gate = Gate::new(disk.0.clone(), Some((at, fate)));
            let known = run_until_crash(&disk, &gate, &mut job, retain).await;
            for foreign in ["chk-x/keep", "shared/keep.parquet", "versions/1.json", "chk-2.json"] {
                disk.storage().put(foreign, "mine").await.expect("put");
            }
            let kept = disk.open(Gate::new(disk.0.clone(), None), retain);
            let found = kept
                .recover(Some(CheckpointId(u64::MAX)), [], &[])
                .await
                .expect("recovered");
            let newest = found.kept.last().copied();
            assert!(newest >= known, "{at} {fate:?}: {newest:?} of {known:?}");
            assert!(found.damaged.is_empty() && found.kept.len() <= retain as usize);
            outcomes.insert(newest.map(|id| id.0) > known.map(|id| id.0));
            let mut expected: BTreeSet<String> = ["chk-x/keep", "shared/keep.parquet", "versions/1.json", "chk-2.json"]
                .map(str::to_owned)
                .into();
            for id in found.kept {
                let saved = disk.checkpoint(id).await;
                assert_eq!(job.restored(&saved, 3).await, job.marks[&id], "{at} {fate:?}: {id}");
                expected.extend(
                    shared_names(&saved.metadata)
                        .into_iter()
                        .map(|name| format!("shared/{name}")),
                );
                expected.insert(format!("chk-{id}/_metadata"));
            }
            assert_eq!(disk.names().await, Vec::from_iter(expected), "{at} {fate:?}");
        }
        assert_eq!(
            outcomes.len(),
            2,
            "sometimes the answer of the last `_metadata` is lost, sometimes not"
        );
    }
}

#[tokio::test]
async fn a_recovered_job_goes_on_with_its_chain() {
    let (disk, mut job) = (Disk::new(), Job::new(1, &["sum"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    change(&mut job, 4000, 0, 1);
    checkpoint(&mut job, &kept).await.expect("stored");
    change(&mut job, 2000, 1, 100);
    checkpoint(&mut job, &kept).await.expect("stored");

    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    let found = kept.recover(Some(CheckpointId(2)), [], &[]).await.expect("recovered");
    assert_eq!(found.kept, [CheckpointId(2)]);
    assert_eq!(
        kept.begin(CheckpointId(9), SnapshotKind::Savepoint, &job.facts),
        None,
        "savepoints are full"
    );
    assert_eq!(
        kept.begin(CheckpointId(9), SnapshotKind::Checkpoint, &job.facts),
        Some(CheckpointId(2))
    );
    // A job with other states starts again with a full checkpoint, and its rounds must not claim to be increments.
    job.declare(&["sum", "more"], b"other");
    assert_eq!(kept.begin(CheckpointId(10), SnapshotKind::Checkpoint, &job.facts), None);
    job.declare(&["sum"], b"count");
    let id = job.next_id();
    let round = job.round(id, SnapshotKind::Checkpoint, Some(CheckpointId(2)));
    let error = kept
        .store(round, &job.facts, job.how(), &Cancellation::default())
        .await
        .expect_err("without begin");
    assert_eq!(
        error.to_string(),
        "subtask 0 of operator \"count\" gave the changes since checkpoint 2, which is not kept; this is a bug in Regraft, please report it"
    );
    change(&mut job, 2000, 2, 100);
    let stored = checkpoint(&mut job, &kept).await.expect("stored");
    assert!(
        stored.bytes < stored.full_bytes / 3,
        "{} of {}",
        stored.bytes,
        stored.full_bytes
    );
    let saved = disk.checkpoint(CheckpointId(4)).await;
    assert_eq!(job.restored(&saved, 2).await, job.state);
    // Another attempt starts from nothing, so nothing on disk counts.
    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    let found = kept.recover(None, ["ab".to_owned()], &[]).await.expect("recovered");
    assert!(
        found.kept.is_empty() && disk.bytes().await == 0,
        "{:?}",
        disk.names().await
    );
}

#[tokio::test]
async fn rounds_overlap_and_keep_what_they_build_on() {
    let (disk, mut job) = (Disk::new(), Job::new(1, &["sum"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    change(&mut job, 300, 0, 1);
    checkpoint(&mut job, &kept).await.expect("stored");
    let mut begun = vec![];
    for first in [1, 2] {
        change(&mut job, 300, first, 10);
        let id = job.next_id();
        begun.push((id, kept.begin(id, SnapshotKind::Checkpoint, &job.facts)));
    }
    assert_eq!(
        begun,
        [
            (CheckpointId(2), Some(CheckpointId(1))),
            (CheckpointId(3), Some(CheckpointId(1)))
        ]
    );
    // The second checkpoint is given up, while the third is still based on the first.
    kept.give_up(CheckpointId(2)).await;
    kept.remove_old().await;
    kept.merge_long().await;
    let round = job.round(CheckpointId(3), SnapshotKind::Checkpoint, Some(CheckpointId(1)));
    kept.store(round, &job.facts, job.how(), &Cancellation::default())
        .await
        .expect("stored");
    // Both are stored but not committed: a crash would find them, and the next round is based on the first.
    kept.remove_old().await;
    kept.merge_long().await;
    assert_eq!(kept.completed(), [CheckpointId(1)]);
    change(&mut job, 300, 5, 10);
    let id = job.next_id();
    assert_eq!(
        kept.begin(id, SnapshotKind::Checkpoint, &job.facts),
        Some(CheckpointId(1))
    );
    kept.confirm(CheckpointId(3));
    kept.remove_old().await;
    kept.merge_long().await;
    assert_eq!(kept.completed(), [CheckpointId(3)]);
    let round = job.round(id, SnapshotKind::Checkpoint, Some(CheckpointId(1)));
    kept.store(round, &job.facts, job.how(), &Cancellation::default())
        .await
        .expect("stored: its base is still claimed");
    kept.confirm(id);
    kept.remove_old().await;
    kept.merge_long().await;
    let saved = disk.checkpoint(id).await;
    assert_eq!(job.restored(&saved, 2).await, job.state);
    assert_eq!(disk.names().await.len(), shared_names(&saved.metadata).len() + 1);
}

#[tokio::test]
async fn a_cancelled_round_leaves_nothing_that_was_written_for_it() {
    let (disk, mut job) = (Disk::new(), Job::new(2, &["sum"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    change(&mut job, 300, 0, 1);
    checkpoint(&mut job, &kept).await.expect("stored");
    let before = disk.names().await;
    change(&mut job, 300, 1, 10);
    let id = job.next_id();
    let base = kept.begin(id, SnapshotKind::Checkpoint, &job.facts);
    let round = job.round(id, SnapshotKind::Checkpoint, base);
    let cancellation = Cancellation::default();
    cancellation.cancel();
    let failure = kept.store(round, &job.facts, job.how(), &cancellation).await;
    let failure = failure.expect_err("it is cancelled");
    assert!(matches!(failure, StoreFailure::Cancelled) && failure.at_fault().is_none());
    assert_eq!(failure.to_string(), "it was cancelled while it was being written");
    assert_eq!(disk.names().await, before);
}

#[tokio::test]
async fn a_checkpoint_that_was_moved_alone_names_what_it_misses() {
    let (disk, mut job) = (Disk::new(), Job::new(1, &["sum"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 1);
    change(&mut job, 10, 0, 1);
    checkpoint(&mut job, &kept).await.expect("stored");
    let text = disk.storage().read("chk-1/_metadata").await.expect("read");
    let elsewhere = Storage::with_store(disk.0.clone(), "moved").expect("location");
    elsewhere.put("chk-1/_metadata", text).await.expect("put");
    let moved = Savepoint::load(elsewhere.child("chk-1").expect("name"))
        .await
        .expect("it reads");
    let state = &moved.metadata.operator("count").expect("entry").states[0];
    let file = &state.files[0];
    let error = moved
        .read_rows(state, file, file.key_groups, &Budget::unlimited())
        .await
        .expect_err("its files are not here");
    let name = paths::in_shared(&file.path).expect("shared");
    assert_eq!(
        error.to_string(),
        format!(
            "store:///moved/shared/{name} is missing, but the checkpoint's _metadata refers to it. A checkpoint shares files with others of its job and cannot be moved alone: restore it from where it was written, or take a savepoint, which can be moved."
        )
    );
}

#[tokio::test]
async fn a_clock_that_is_set_back_during_a_round_fails_nothing() {
    let (disk, mut job) = (Disk::new(), Job::new(2, &["sum", "last"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 2);
    let id = job.next_id();
    let base = kept.begin(id, SnapshotKind::Checkpoint, &job.facts);
    let round = job.round(id, SnapshotKind::Checkpoint, base);
    let triggered_ms = round.triggered_ms;
    let how = StoreAs {
        completed_ms: triggered_ms - 5,
        ..job.how()
    };
    let stored = kept.store(round, &job.facts, how, &Cancellation::default()).await;
    stored.expect("stored");
    assert_eq!(disk.checkpoint(id).await.metadata.completed_at_ms, triggered_ms);
}

#[tokio::test]
async fn nothing_is_built_on_a_checkpoint_whose_files_are_gone() {
    let (disk, mut job) = (Disk::new(), Job::new(2, &["sum", "last"]));
    let kept = disk.open(Gate::new(disk.0.clone(), None), 2);
    change(&mut job, 300, 0, 1);
    checkpoint(&mut job, &kept).await.expect("stored");
    change(&mut job, 300, 1, 50);
    kept.look_at_base().await;
    assert!(kept.has_base(SnapshotKind::Checkpoint), "all is there");
    checkpoint(&mut job, &kept).await.expect("stored");
    let shared = disk.storage().child(paths::SHARED_DIR).expect("a name");
    let files = shared.list("").await.expect("listed");
    for gone in files.iter().filter(|file| !file.name.ends_with(".wasm")).take(1) {
        shared.delete(&gone.name).await.expect("deleted");
    }
    kept.look_at_base().await;
    assert!(!kept.has_base(SnapshotKind::Checkpoint), "one file is missing");
}
