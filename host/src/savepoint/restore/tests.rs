//! Plans at every parallelism, and that a restore is refused by the verdict.

use std::collections::BTreeMap;

use proptest::prelude::*;
use regraft_model::describe::{OperatorStateDescription, TimerDescription};
use regraft_model::id::SubtaskIndex;
use regraft_model::key_group::{KeyGroup, range_of};
use regraft_model::schema::Type;
use serde_json::json;

use super::*;
use crate::savepoint::compat::{Problem, Reason, Refusal};
use crate::savepoint::metadata::{Metadata, OperatorEntry, StateEntry};
use crate::savepoint::rows::GroupExtent;
use crate::savepoint::test_data::{self, description, uid};

async fn sample() -> Metadata {
    test_data::write_files(&test_data::storage()).await
}

fn node(name: &str, kind: EntryKind, parallelism: u32) -> NewNode {
    NewNode {
        uid: uid(name),
        kind,
        parallelism,
        description: None,
        connector: None,
        identity: json!(null),
    }
}

fn same_job(parallelism: u32) -> NewJob {
    let mut lines = node("lines", EntryKind::Source, parallelism);
    lines.connector = Some("file".into());
    lines.identity = json!({"path": "in/*.txt"});
    let mut count = node("count", EntryKind::Operator, parallelism);
    count.description = Some(description());
    let mut out = node("out", EntryKind::Sink, 1);
    out.connector = Some("file".into());
    out.identity = json!({"path": "out"});
    NewJob {
        nodes: vec![lines, node("split", EntryKind::Operator, 1), count, out],
        max_parallelism: 128,
    }
}

fn plan(metadata: &Metadata, job: &NewJob, options: &RestoreOptions) -> Result<RestorePlan, Refusal> {
    plan_restore("file:///sp", metadata, job, options)
}

fn drop_state(names: &[&str]) -> RestoreOptions {
    RestoreOptions {
        allow_non_restored: false,
        drop_state: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

#[tokio::test]
async fn the_same_job_restores_everything() {
    let metadata = sample().await;
    let plan = plan(&metadata, &same_job(2), &RestoreOptions::default()).expect("the same job");
    assert_eq!(plan.next_checkpoint, CheckpointId(8));
    assert_eq!((plan.empty.len(), plan.dropped.len()), (0, 0));
    let names: Vec<_> = plan.operators.iter().map(|operator| operator.uid.as_str()).collect();
    assert_eq!(names, ["lines", "split", "count", "out"]);
    let splits = |i: usize| {
        plan.operators[0].subtasks[i]
            .splits
            .iter()
            .map(|s| s.split.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!((splits(0), splits(1)), (vec!["a.txt", "c.txt"], vec!["b.txt"]));
    assert_eq!(plan.operators[2].watermark, 3);
    for (subtask, file) in plan.operators[2]
        .subtasks
        .iter()
        .zip(&metadata.operators[2].states[0].files)
    {
        assert_eq!(subtask.reads.len(), 1);
        assert_eq!(subtask.reads[0].file, *file);
        assert_eq!(subtask.reads[0].part, Part::KeyGroups(file.key_groups));
    }
    assert_eq!(plan.operators[3].sink, metadata.operators[3].sink);
}

/// A state written by `p` subtasks, with an entry in every key group.
fn written_by(p: u32, max: u32) -> StateEntry {
    let files = (0..p).map(|subtask| {
        let range = range_of(subtask, p, max);
        let extent = GroupExtent {
            first_group: range.first,
            last_group: range.last,
            row_group: 0,
            rows: 1,
            place: None,
        };
        StateFile {
            path: format!("operators/{subtask}"),
            subtask: SubtaskIndex(subtask),
            schema: 1,
            key_groups: range,
            groups: vec![extent],
            entries: 1,
            bytes: 1,
            checksum: "0".repeat(16),
            footer: None,
            increment: false,
        }
    });
    test_data::state_entry("count", Type::U64, files.collect())
}

proptest! {
    #[test]
    fn every_key_group_is_read_once_by_its_owner(p in 1u32..40, to in 1u32..40, max in 40u32..300) {
        let node = NewNode { parallelism: to, ..node("count", EntryKind::Operator, to) };
        let state = written_by(p, max);
        let subtasks = assign::subtasks(&node, &test_data::entry("count", EntryKind::Operator, p), &[&state], max);
        prop_assert_eq!(subtasks.len(), to as usize);
        let mut read: BTreeMap<u16, u32> = BTreeMap::new();
        for subtask in &subtasks {
            for part in &subtask.reads {
                let Part::KeyGroups(range) = part.part else { return Err(TestCaseError::fail("keyed")) };
                for group in range.iter() {
                    prop_assert!(subtask.key_groups.contains(group));
                    prop_assert!(part.file.key_groups.contains(group));
                    *read.entry(group.0).or_default() += 1;
                }
            }
        }
        prop_assert_eq!(read.len(), max as usize);
        prop_assert!(read.values().all(|times| *times == 1));
    }

    #[test]
    fn list_items_are_shared_evenly_and_union_and_broadcast_go_to_all(
        sizes in prop::collection::vec(0u64..20, 1..6), to in 1u32..8,
    ) {
        let node = node("count", EntryKind::Operator, to);
        let entry = test_data::entry("count", EntryKind::Operator, sizes.len() as u32);
        let mut state = written_by(sizes.len() as u32, 128);
        for (file, size) in state.files.iter_mut().zip(&sizes) {
            file.entries = *size;
        }
        let total: u64 = sizes.iter().sum();
        let items = |state: &StateEntry, entry: &OperatorEntry| -> Vec<Vec<(u32, u64)>> {
            let read = |read: &StateRead| match &read.part {
                Part::Items(range) => range.clone().map(|i| (read.file.subtask.0, i)).collect::<Vec<_>>(),
                Part::KeyGroups(_) => vec![],
            };
            assign::subtasks(&node, entry, &[state], 128).iter().map(|s| s.reads.iter().flat_map(read).collect()).collect()
        };
        state.kind = SavedStateKind::OperatorList;
        let all: Vec<_> = (0u32..).zip(&sizes).flat_map(|(s, n)| (0..*n).map(move |i| (s, i))).collect();
        let shares = items(&state, &entry);
        prop_assert_eq!(shares.concat(), all.clone());
        let (least, most) = (shares.iter().map(Vec::len).min(), shares.iter().map(Vec::len).max());
        prop_assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1);
        // One that has finished is given its own and nothing else, where there are as many of them.
        let partly = OperatorEntry { finished_subtasks: vec![0], ..entry.clone() };
        let owns = items(&state, &partly);
        if to == entry.parallelism {
            prop_assert!((0u32..).zip(&owns).all(|(own, share)| share.iter().all(|(subtask, _)| *subtask == own)));
            prop_assert_eq!(owns.concat(), all.clone());
        } else {
            prop_assert_eq!(owns, shares);
        }
        state.kind = SavedStateKind::OperatorUnion;
        prop_assert!(items(&state, &entry).iter().all(|share| *share == all));
        state.kind = SavedStateKind::OperatorBroadcast;
        let first = sizes.iter().find(|size| **size > 0).copied().unwrap_or(0);
        prop_assert!(items(&state, &entry).iter().all(|share| share.len() as u64 == first));
        prop_assert!(first <= total);
    }
}

#[tokio::test]
async fn all_problems_are_listed_at_once() {
    let metadata = sample().await;
    let bytes = metadata.operators[2].bytes();
    let mut job = same_job(200);
    job.max_parallelism = 256;
    job.nodes.remove(2);
    job.nodes[0].identity = json!({"path": "other/*.txt"});
    job.nodes[2].kind = EntryKind::Operator;
    let refusal = plan(&metadata, &job, &drop_state(&["coutn"])).expect_err("all wrong");
    assert_eq!(
        refusal.to_string(),
        format!(
            "cannot restore from file:///sp:
  max parallelism: expected 128, as in the savepoint; the job has 256. It is fixed for the life of the state: set max-parallelism = 128. The offline rewrite, `regraft state edit file:///sp --max-parallelism 256 -o NEW`, is not implemented yet.
  uid \"lines\": expected parallelism 1 to 128, the max parallelism; the job has 200. Lower it.
  --drop-state coutn: the savepoint has no such state. Expected one of: lines, count, count/count, out; did you mean count?
  uid \"lines\": expected source file {{\"path\":\"in/*.txt\"}}, as in the savepoint; the job has file {{\"path\":\"other/*.txt\"}}. Change it back, or start it afresh with --drop-state lines.
  uid \"count\": the savepoint has state of this operator (200 keys, {bytes} bytes); the job has no such uid. Add it, or drop its state with --drop-state count, or that of all absent uids with -n/--allow-non-restored-state.
  uid \"out\": expected a sink, as in the savepoint; the job has a different node (operator) of that uid. Give it another uid, or drop the old state with --drop-state out."
        )
    );
}

#[tokio::test]
async fn a_list_of_u8_and_bytes_are_one_schema() {
    let metadata = sample().await;
    for [saved, declared] in [
        [Type::List(Box::new(Type::U8)), Type::Bytes],
        [Type::Bytes, Type::List(Box::new(Type::U8))],
    ] {
        let mut metadata = metadata.clone();
        let state = &mut metadata.operators[2].states[0];
        state.digest = saved.digest_as_written().to_string();
        (state.schema, state.schemas) = (saved.clone(), vec![saved]);
        let mut job = same_job(1);
        job.nodes[2].description.as_mut().expect("operator").states[0].schema = declared;
        assert!(plan(&metadata, &job, &RestoreOptions::default()).is_ok());
    }
}

#[tokio::test]
async fn what_is_dropped_is_said() {
    let metadata = sample().await;
    let bytes = metadata.operators[2].bytes();
    let mut job = same_job(1);
    job.nodes.remove(2);
    let absent = RestoreOptions {
        allow_non_restored: true,
        ..RestoreOptions::default()
    };
    let dropped = DroppedState {
        uid: uid("count"),
        state: None,
        keys: 200,
        bytes,
    };
    assert_eq!(
        plan(&metadata, &job, &absent).expect("allowed").dropped,
        std::slice::from_ref(&dropped)
    );
    assert_eq!(
        plan(&metadata, &job, &drop_state(&["count"])).expect("allowed").dropped,
        [dropped]
    );
    // -n is for absent uids only.
    let mut job = same_job(1);
    job.nodes[2].description.as_mut().expect("operator").states[0].schema = Type::I64;
    assert!(plan(&metadata, &job, &absent).is_err());
    let planned = plan(&metadata, &job, &drop_state(&["count/count"])).expect("allowed");
    assert_eq!(
        planned.dropped,
        [DroppedState {
            uid: uid("count"),
            state: Some("count".into()),
            keys: 200,
            bytes
        }]
    );
    assert_eq!(planned.operators[2].new_states, ["count"]);
    assert!(planned.operators[2].subtasks[0].reads.is_empty());
    // A uid that is dropped or new starts empty.
    job.nodes[2] = node("tally", EntryKind::Operator, 1);
    let planned = plan(&metadata, &job, &absent).expect("allowed");
    assert_eq!(planned.empty, [uid("tally")]);
}

#[tokio::test]
async fn timers_that_are_no_longer_declared_need_a_flag() {
    let mut metadata = sample().await;
    let entry = &mut metadata.operators[2];
    let mut timers = entry.states[0].clone();
    timers.kind = SavedStateKind::Timers;
    timers.name = "timers".into();
    timers.timers = vec!["gap".into()];
    entry.states.push(timers);
    let timer = TimerDescription {
        name: "gap".into(),
        time: "event".into(),
    };
    entry.description.as_mut().expect("operator").timers.push(timer.clone());
    let mut job = same_job(1);
    let refusal = plan(&metadata, &job, &RestoreOptions::default()).expect_err("gap is gone");
    assert_eq!(
        refusal.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "uid \"count\": the savepoint has pending timers \"gap\"; this component does not declare the timer. Deploy a component that does, or drop its pending timers with --drop-state count/gap."
        ]
    );
    let planned = plan(&metadata, &job, &drop_state(&["count/gap"])).expect("allowed");
    assert_eq!(planned.operators[2].dropped_timers, ["gap"]);
    job.nodes[2].description.as_mut().expect("operator").timers.push(timer);
    assert!(plan(&metadata, &job, &RestoreOptions::default()).is_ok());
    let timers = &mut job.nodes[2].description.as_mut().expect("operator").timers;
    timers[0].time = "processing".into();
    let refusal = plan(&metadata, &job, &RestoreOptions::default()).expect_err("by another clock");
    assert_eq!(
        refusal.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "uid \"count\": the savepoint has pending timers \"gap\" by event time; this component declares the timer by processing time. Deploy a component that declares it by event time, give the new one another name, or drop its pending timers with --drop-state count/gap."
        ]
    );
    let planned = plan(&metadata, &job, &drop_state(&["count/gap"])).expect("allowed");
    assert_eq!(planned.operators[2].dropped_timers, ["gap"]);
}

#[tokio::test]
async fn operator_states_are_compared_by_their_own_names() {
    let mut metadata = sample().await;
    let entry = &mut metadata.operators[2];
    let mut seen = entry.states[0].clone();
    (seen.kind, seen.key, seen.key_digest) = (SavedStateKind::OperatorUnion, None, None);
    entry.states.push(seen);
    assert_eq!(metadata.problems().len(), 4, "{:?}", metadata.problems());
    let mut job = same_job(1);
    let refusal = plan(&metadata, &job, &RestoreOptions::default()).expect_err("not declared");
    assert!(matches!(
        refusal.problems.as_slice(),
        [Problem {
            reason: Reason::StateUndeclared { .. },
            ..
        }]
    ));
    let declared = OperatorStateDescription {
        name: "count".into(),
        kind: "union".into(),
        schema: Type::U64,
    };
    job.nodes[2]
        .description
        .as_mut()
        .expect("operator")
        .operator_states
        .push(declared);
    let planned = plan(&metadata, &job, &RestoreOptions::default()).expect("declared");
    assert_eq!(planned.operators[2].subtasks[0].reads.len(), 4);
    let keyed = &planned.operators[2].subtasks[0].reads[0].part;
    assert_eq!(*keyed, Part::KeyGroups(range_of(0, 2, 128)));
    assert!(range_of(0, 2, 128).contains(KeyGroup(5)));
}

#[tokio::test]
async fn subtasks_that_have_finished_alone_are_finished_at_the_same_parallelism() {
    let mut metadata = sample().await;
    let mut finished = |all: bool, some: &[u32], parallelism: u32| {
        let saved = metadata.operators.iter_mut().find(|entry| entry.uid == uid("count"));
        let saved = saved.expect("an operator");
        assert_eq!(saved.parallelism, 2);
        (saved.finished, saved.finished_subtasks) = (all, some.to_vec());
        let plan = plan(&metadata, &same_job(parallelism), &RestoreOptions::default()).expect("the same job");
        plan.operators[2].finished.clone()
    };
    assert_eq!(finished(false, &[1], 2), [1]);
    assert_eq!(finished(false, &[1], 3), [0; 0]);
    assert_eq!(finished(true, &[], 3), [0, 1, 2]);
    assert_eq!(finished(false, &[], 2), [0; 0]);
}
