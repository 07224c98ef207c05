//! Every reason in full in both places, the shape of a verdict, and that a restore and an upgrade agree.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;
use regraft_model::describe::{Description, OperatorStateDescription, StateDescription, StateKind, TimerDescription};
use regraft_model::id::OperatorUid;
use regraft_model::schema::Type;
use serde_json::json;

use super::*;
use crate::savepoint::metadata::{EntryKind, Metadata, OperatorEntry, SavedStateKind, StateEntry};
use crate::savepoint::test_data::{self, field, uid};

const URL: &str = "file:///sp";

fn node(name: &str, kind: EntryKind) -> NewNode {
    NewNode {
        uid: uid(name),
        kind,
        parallelism: 2,
        description: None,
        connector: None,
        identity: json!(null),
    }
}

/// A job of which `count` has a state of every kind that there are rules for.
fn job() -> NewJob {
    let mut lines = node("lines", EntryKind::Source);
    lines.connector = Some("file".into());
    lines.identity = json!({"path": "in/*.txt"});
    let mut declared = test_data::description();
    declared.states.push(StateDescription {
        name: "seen".into(),
        kind: StateKind::Map,
        map_key: Some(Type::String),
        travels: false,
        ..declared.states[0].clone()
    });
    declared.timers.push(timer("gap", "event"));
    declared.operator_states.push(operator_state("table", "broadcast"));
    let mut count = node("count", EntryKind::Operator);
    count.description = Some(declared);
    let mut out = node("out", EntryKind::Sink);
    out.connector = Some("file".into());
    out.identity = json!({"path": "out"});
    NewJob {
        nodes: vec![lines, count, out],
        max_parallelism: 128,
    }
}

fn timer(name: &str, time: &str) -> TimerDescription {
    TimerDescription {
        name: name.into(),
        time: time.into(),
    }
}

fn operator_state(name: &str, kind: &str) -> OperatorStateDescription {
    OperatorStateDescription {
        name: name.into(),
        kind: kind.into(),
        schema: Type::U64,
    }
}

fn declared(job: &mut NewJob) -> &mut Description {
    job.nodes[1].description.as_mut().expect("an operator")
}

/// The same facts, as a savepoint has them.
fn saved(running: &Existing) -> Existing {
    let mut saved = running.clone();
    saved.place = Place::Savepoint(URL.into());
    let size = Some(Size { keys: 2, bytes: 30 });
    for uid in &mut saved.uids {
        uid.size = size;
        uid.pending_parts = usize::from(uid.kind == EntryKind::Sink);
        uid.states.iter_mut().for_each(|state| state.size = size);
    }
    saved
}

fn dropping(names: &[&str]) -> RestoreOptions {
    RestoreOptions {
        allow_non_restored: false,
        drop_state: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// Checks code and text of the only problem of a change, in a savepoint and in a running job.
#[track_caller]
fn check(code: &str, options: &RestoreOptions, change: impl Fn(&mut NewJob), in_savepoint: &str, running: &str) {
    let mut new = job();
    change(&mut new);
    let existing = Existing::running(&job());
    for (existing, expected) in [(saved(&existing), in_savepoint), (existing, running)] {
        let verdict = compare(&existing, &new, options);
        let problems: Vec<_> = verdict
            .problems()
            .map(|problem| (problem.code(), problem.to_string()))
            .collect();
        assert_eq!(problems, [(code, expected.to_owned())]);
    }
}

#[test]
fn problems_of_the_job() {
    let no = RestoreOptions::default();
    check(
        "max-parallelism",
        &no,
        |job| job.max_parallelism = 256,
        "max parallelism: expected 128, as in the savepoint; the job has 256. It is fixed for the life of the state: set max-parallelism = 128. The offline rewrite, `regraft state edit file:///sp --max-parallelism 256 -o NEW`, is not implemented yet.",
        "max parallelism: expected 128, as in the running job; the new job has 256. It is fixed for the life of the state: set max-parallelism = 128. The offline rewrite, `regraft state edit SAVEPOINT --max-parallelism 256 -o NEW`, is not implemented yet.",
    );
    check(
        "parallelism",
        &no,
        |job| job.nodes[1].parallelism = 129,
        "uid \"count\": expected parallelism 1 to 128, the max parallelism; the job has 129. Lower it.",
        "uid \"count\": expected parallelism 1 to 128, the max parallelism; the new job has 129. Lower it.",
    );
    check(
        "unknown-drop",
        &dropping(&["coutn"]),
        |_| (),
        "--drop-state coutn: the savepoint has no such state. Expected one of: lines, count, count/count, count/seen, count/timers, count/table, count/gap, out; did you mean count?",
        "--drop-state coutn: the running job has no such state. Expected one of: lines, count, count/count, count/seen, count/timers, count/table, count/gap, out; did you mean count?",
    );
}

#[test]
fn problems_of_a_uid() {
    let no = RestoreOptions::default();
    check(
        "uid-absent",
        &no,
        |job| drop(job.nodes.remove(1)),
        "uid \"count\": the savepoint has state of this operator (2 keys, 30 bytes); the job has no such uid. Add it, or drop its state with --drop-state count, or that of all absent uids with -n/--allow-non-restored-state.",
        "uid \"count\": the running job has state of this operator; the new job has no such uid. Add it, or drop its state: stop the job, and start the new one with run -s SAVEPOINT --drop-state count, or that of all absent uids with -n/--allow-non-restored-state.",
    );
    check(
        "uid-absent",
        &no,
        |job| drop(job.nodes.pop()),
        "uid \"out\": the savepoint has state of this sink (2 keys, 30 bytes, 1 part(s) of output that is not committed); the job has no such uid. Add it, or drop its state with --drop-state out, or that of all absent uids with -n/--allow-non-restored-state.",
        "uid \"out\": the running job has state of this sink; the new job has no such uid. Add it, or drop its state: stop the job, and start the new one with run -s SAVEPOINT --drop-state out, or that of all absent uids with -n/--allow-non-restored-state.",
    );
    check(
        "node-kind",
        &no,
        |job| job.nodes[2].kind = EntryKind::Operator,
        "uid \"out\": expected a sink, as in the savepoint; the job has a different node (operator) of that uid. Give it another uid, or drop the old state with --drop-state out.",
        "uid \"out\": expected a sink, as in the running job; the new job has a different node (operator) of that uid. Give it another uid, or drop the old state: stop the job, and start the new one with run -s SAVEPOINT --drop-state out.",
    );
    check(
        "identity",
        &no,
        |job| job.nodes[0].identity = json!({"path": "other"}),
        "uid \"lines\": expected source file {\"path\":\"in/*.txt\"}, as in the savepoint; the job has file {\"path\":\"other\"}. Change it back, or start it afresh with --drop-state lines.",
        "uid \"lines\": expected source file {\"path\":\"in/*.txt\"}, as in the running job; the new job has file {\"path\":\"other\"}. Change it back, or start it afresh: stop the job, and start the new one with run -s SAVEPOINT --drop-state lines.",
    );
    let (string, u64) = (Type::String.digest(), Type::U64.digest());
    check(
        "key-type",
        &no,
        |job| declared(job).key = Some(field("id", Type::U64)),
        &format!(
            "uid \"count\": expected key string (digest {string}), as in the savepoint; this component has key u64 (digest {u64}). Keys do not migrate: deploy a component with that key, or drop the state with --drop-state count."
        ),
        &format!(
            "uid \"count\": expected key string (digest {string}), as in the running job; this component has key u64 (digest {u64}). Keys do not migrate: deploy a component with that key, or drop the state: stop the job, and start the new one with run -s SAVEPOINT --drop-state count."
        ),
    );
}

#[test]
fn problems_of_a_state() {
    let no = RestoreOptions::default();
    let (string, u64, i64) = (Type::String.digest(), Type::U64.digest(), Type::I64.digest());
    check(
        "state-undeclared",
        &no,
        |job| drop(declared(job).states.remove(0)),
        "uid \"count\": the savepoint has state \"count\" (2 keys, 30 bytes); this component does not declare it. Deploy a component that does, or drop the state with --drop-state count/count.",
        "uid \"count\": the running job has state \"count\"; this component does not declare it. Deploy a component that does, or drop the state: stop the job, and start the new one with run -s SAVEPOINT --drop-state count/count.",
    );
    check(
        "state-kind",
        &no,
        |job| declared(job).operator_states[0].kind = "list".into(),
        "uid \"count\": state \"table\": expected an operator-broadcast state, as in the savepoint; this component declares an operator-list state. Deploy a component that declares an operator-broadcast state, or drop the state with --drop-state count/table.",
        "uid \"count\": state \"table\": expected an operator-broadcast state, as in the running job; this component declares an operator-list state. Deploy a component that declares an operator-broadcast state, or drop the state: stop the job, and start the new one with run -s SAVEPOINT --drop-state count/table.",
    );
    check(
        "map-key-type",
        &no,
        |job| declared(job).states[1].map_key = Some(Type::U64),
        &format!(
            "uid \"count\": state \"seen\": expected map key string (digest {string}), as in the savepoint; this component has map key u64 (digest {u64}). Keys do not migrate: deploy a component with that map key, or drop the state with --drop-state count/seen."
        ),
        &format!(
            "uid \"count\": state \"seen\": expected map key string (digest {string}), as in the running job; this component has map key u64 (digest {u64}). Keys do not migrate: deploy a component with that map key, or drop the state: stop the job, and start the new one with run -s SAVEPOINT --drop-state count/seen."
        ),
    );
    check(
        "schema",
        &no,
        |job| declared(job).states[0].schema = Type::I64,
        &format!(
            "uid \"count\": state \"count\": expected schema u64 (digest {u64}), as in the savepoint; this component reads i64 (digest {i64}). Deploy a component that reads u64, or drop the state with --drop-state count/count."
        ),
        &format!(
            "uid \"count\": state \"count\": expected schema u64 (digest {u64}), as in the running job; this component reads i64 (digest {i64}). Deploy a component that reads u64, or drop the state: stop the job, and start the new one with run -s SAVEPOINT --drop-state count/count."
        ),
    );
}

#[test]
fn problems_of_a_timer() {
    let no = RestoreOptions::default();
    check(
        "timer-undeclared",
        &no,
        |job| declared(job).timers.clear(),
        "uid \"count\": the savepoint has pending timers \"gap\"; this component does not declare the timer. Deploy a component that does, or drop its pending timers with --drop-state count/gap.",
        "uid \"count\": the running job may have pending timers \"gap\"; this component does not declare the timer. Deploy a component that does, or drop its pending timers: stop the job, and start the new one with run -s SAVEPOINT --drop-state count/gap.",
    );
    check(
        "timer-time",
        &no,
        |job| declared(job).timers[0].time = "processing".into(),
        "uid \"count\": the savepoint has pending timers \"gap\" by event time; this component declares the timer by processing time. Deploy a component that declares it by event time, give the new one another name, or drop its pending timers with --drop-state count/gap.",
        "uid \"count\": the running job may have pending timers \"gap\" by event time; this component declares the timer by processing time. Deploy a component that declares it by event time, give the new one another name, or drop its pending timers: stop the job, and start the new one with run -s SAVEPOINT --drop-state count/gap.",
    );
}

#[test]
fn a_refusal_lists_all_problems_and_names_the_uid_that_they_share() {
    let mut new = job();
    declared(&mut new).timers.clear();
    declared(&mut new).operator_states.clear();
    let existing = Existing::running(&job());
    let refusal = compare(&existing, &new, &RestoreOptions::default())
        .accepted()
        .expect_err("two");
    assert_eq!((refusal.problems.len(), refusal.uid()), (2, Some("count".to_owned())));
    let lines: Vec<String> = refusal.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "the upgrade is refused, and the job goes on as it was:");
    assert_eq!(lines[1], format!("  {}", refusal.problems[0]));
    new.max_parallelism = 256;
    let refusal = compare(&saved(&existing), &new, &RestoreOptions::default())
        .accepted()
        .expect_err("three");
    assert_eq!((refusal.problems.len(), refusal.uid()), (3, None));
    assert!(
        refusal
            .to_string()
            .starts_with("cannot restore from file:///sp:\n  max parallelism: ")
    );
}

#[test]
fn each_uid_and_each_state_has_its_verdict() {
    let mut new = job();
    let changed = declared(&mut new);
    changed.states[0].schema = Type::I64;
    changed.states[1].name = "met".into();
    changed.timers[0].time = "processing".into();
    changed.timers.push(timer("due", "event"));
    new.nodes[2] = node("report", EntryKind::Sink);
    new.nodes.push(node("split", EntryKind::Operator));
    let options = dropping(&["count/seen", "count/gap", "out"]);
    let verdict = compare(&saved(&Existing::running(&job())), &new, &options);
    let uids: Vec<_> = verdict
        .uids
        .iter()
        .map(|of_uid| (of_uid.uid.as_str(), of_uid.action))
        .collect();
    assert_eq!(
        uids,
        [
            ("lines", Action::Kept),
            ("count", Action::Incompatible),
            ("out", Action::Dropped),
            ("report", Action::New),
            ("split", Action::New)
        ]
    );
    let of_count = verdict.uid(&uid("count")).expect("it was there");
    let states: Vec<_> = of_count
        .states
        .iter()
        .map(|of| (of.state.as_str(), of.kind, of.fate))
        .collect();
    assert_eq!(
        states,
        [
            ("count", SavedStateKind::Value, Fate::Incompatible),
            ("seen", SavedStateKind::Map, Fate::Dropped),
            ("gap", SavedStateKind::Timers, Fate::Dropped),
            ("table", SavedStateKind::OperatorBroadcast, Fate::AsIs),
            ("met", SavedStateKind::Map, Fate::New),
            ("due", SavedStateKind::Timers, Fate::New),
        ]
    );
    assert_eq!(of_count.states[0].reasons.len(), 1);
    assert_eq!(of_count.states[1].size, Some(Size { keys: 2, bytes: 30 }));
    // Another key concerns every keyed state, and is told once.
    let mut new = job();
    declared(&mut new).key = None;
    let verdict = compare(&Existing::running(&job()), &new, &RestoreOptions::default());
    let of_count = verdict.uid(&uid("count")).expect("it was there");
    let fates: Vec<_> = of_count.states.iter().map(|of| of.fate).collect();
    assert_eq!(
        fates,
        [Fate::Incompatible, Fate::Incompatible, Fate::Incompatible, Fate::AsIs]
    );
    assert_eq!(verdict.problems().count(), 1);
}

static SAVEPOINT: LazyLock<Metadata> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(test_data::write_files(&test_data::storage()))
});

/// A savepoint of a job whose only node with state is `count`, with those of its timers pending that `pending` has.
fn savepoint(old: &Description, pending: &[&str]) -> Metadata {
    let state = |name: &str, kind: SavedStateKind, schema: &Type| {
        let key = old.key.clone().filter(|_| kind.is_keyed());
        StateEntry {
            kind,
            key_digest: key.as_ref().map(|key| key.ty.digest().to_string()),
            key,
            ..test_data::state_entry(name, schema.clone(), vec![])
        }
    };
    let mut states: Vec<StateEntry> = Vec::new();
    for declared in &old.states {
        let entry = state(&declared.name, declared.kind.into(), &declared.schema);
        let map_key = declared.map_key.clone();
        states.push(StateEntry { map_key, ..entry });
    }
    if !old.timers.is_empty() {
        let declared = old.timers.iter().map(|timer| timer.name.clone());
        let timers = declared.filter(|name| pending.contains(&name.as_str())).collect();
        let entry = state("timers", SavedStateKind::Timers, &Type::Unit);
        states.push(StateEntry { timers, ..entry });
    }
    for declared in &old.operator_states {
        let kind = SavedStateKind::of_operator(&declared.kind);
        states.push(state(&declared.name, kind, &declared.schema));
    }
    let mut metadata = SAVEPOINT.clone();
    metadata.operators = vec![OperatorEntry {
        description: Some(old.clone()),
        states,
        ..test_data::entry("count", EntryKind::Operator, 2)
    }];
    metadata
}

fn only_count(declared: Description) -> NewJob {
    let mut count = node("count", EntryKind::Operator);
    count.description = Some(declared);
    NewJob {
        nodes: vec![count],
        max_parallelism: 128,
    }
}

fn any_type() -> impl Strategy<Value = Type> {
    prop::sample::select(vec![Type::U64, Type::I64, Type::String])
}

fn any_state(name: &'static str) -> impl Strategy<Value = StateDescription> {
    let kinds = prop::sample::select(vec![StateKind::Value, StateKind::List, StateKind::Map]);
    (kinds, any_type(), any_type()).prop_map(move |(kind, schema, map_key)| StateDescription {
        name: name.into(),
        kind,
        schema,
        map_key: (kind == StateKind::Map).then_some(map_key),
        travels: false,
        ttl_ms: None,
        version: None,
    })
}

/// Few names and types, so that two of them often have a state, a timer or a type in common.
fn any_description() -> impl Strategy<Value = Description> {
    let key = prop::option::weighted(0.9, any_type());
    let maybe = |name| prop::option::of(any_state(name));
    let times = prop::sample::select(vec!["event", "processing"]);
    let any_timer = |name: &'static str| prop::option::of(times.clone().prop_map(move |time| timer(name, time)));
    let kinds = prop::sample::select(vec!["list", "union", "broadcast"]);
    let any_operator_state =
        |name: &'static str| prop::option::of(kinds.clone().prop_map(move |kind| operator_state(name, kind)));
    let states = (maybe("a"), maybe("b"), maybe("c"));
    let timers = (any_timer("a"), any_timer("t"));
    let operator_states = (any_operator_state("a"), any_operator_state("x"));
    (key, states, timers, operator_states).prop_map(|(key, states, timers, operator_states)| Description {
        key: key.map(|ty| field("key", ty)),
        states: [states.0, states.1, states.2].into_iter().flatten().collect(),
        timers: [timers.0, timers.1].into_iter().flatten().collect(),
        operator_states: [operator_states.0, operator_states.1].into_iter().flatten().collect(),
        ..Description::default()
    })
}

/// The new job: mostly the same node, now and then another kind of node or none.
fn any_job() -> impl Strategy<Value = NewJob> {
    (any_description(), 0..10u8).prop_map(|(declared, other)| {
        let mut job = only_count(declared);
        match other {
            0 => job.nodes.clear(),
            1 => job.nodes[0].kind = EntryKind::Sink,
            _ => {}
        }
        job
    })
}

/// The reasons without sizes, which a running job does not know.
fn reasons(verdict: &Verdict) -> BTreeSet<String> {
    let plain = |problem: &Problem| {
        let mut reason = problem.reason.clone();
        if let Reason::StateUndeclared { size, .. } | Reason::UidAbsent { size, .. } = &mut reason {
            *size = None;
        }
        format!("{:?} {reason:?}", problem.uid)
    };
    verdict.problems().map(plain).collect()
}

fn is_about_timer(problem: &Problem, pending: &[&str]) -> bool {
    match &problem.reason {
        Reason::TimerUndeclared { timer } | Reason::TimerTime { timer, .. } => pending.contains(&timer.as_str()),
        _ => false,
    }
}

proptest! {
    #[test]
    fn an_upgrade_refuses_what_a_restore_refuses_and_timers_that_may_be_pending(
        old in any_description(), new in any_job(), pending in prop::sample::subsequence(vec!["a", "t"], 0..=2),
    ) {
        let no = RestoreOptions::default();
        let restore = compare(&Existing::saved(URL, &savepoint(&old, &pending)), &new, &no);
        let mut upgrade = compare(&Existing::running(&only_count(old)), &new, &no);
        // The one rule that differs: whether timers of a running job are pending is not known.
        for of_uid in &mut upgrade.uids {
            for of_state in &mut of_uid.states {
                of_state.reasons.retain(|problem| {
                    let is_timer = is_about_timer(problem, &["a", "t"]);
                    !is_timer || is_about_timer(problem, &pending)
                });
            }
        }
        prop_assert_eq!(reasons(&upgrade), reasons(&restore));
    }

    #[test]
    fn a_flag_only_ever_allows_more(
        old in any_description(), new in any_job(),
        few in prop::sample::subsequence(vec!["count", "count/a", "count/b", "count/c", "count/t", "count/x"], 0..=3),
        more in prop::sample::subsequence(vec!["count", "count/a", "count/b", "count/c", "count/t", "count/x"], 0..=6),
        allow in any::<bool>(),
    ) {
        let metadata = savepoint(&old, &["a", "t"]);
        for existing in [Existing::saved(URL, &metadata), Existing::running(&only_count(old.clone()))] {
            // A name that nothing has is a mistake, and refused as one.
            let is_known = |name: &&str| existing.uids.iter().any(|of| {
                let names = of.states.iter().flat_map(|state| {
                    let timers = state.timers.iter().map(|timer| &timer.name);
                    std::iter::once(&state.name).chain(timers)
                });
                of.is_stateful && (*name == "count" || names.into_iter().any(|known| **name == format!("count/{known}")))
            });
            let few: Vec<&str> = few.iter().copied().filter(is_known).collect();
            let mut all = few.clone();
            all.extend(more.iter().copied().filter(is_known));
            let before = compare(&existing, &new, &dropping(&few));
            let after = compare(&existing, &new, &RestoreOptions { allow_non_restored: allow, ..dropping(&all) });
            prop_assert!(reasons(&after).is_subset(&reasons(&before)), "{after:?}\n{before:?}");
        }
    }

    #[test]
    fn a_uid_is_incompatible_where_it_has_a_problem(old in any_description(), new in any_job()) {
        let verdict = compare(&Existing::running(&only_count(old)), &new, &RestoreOptions::default());
        for of_uid in &verdict.uids {
            let own = verdict.problems().filter(|problem| problem.uid.as_ref() == Some(&of_uid.uid)).count();
            prop_assert_eq!(of_uid.action == Action::Incompatible, own > 0);
        }
        prop_assert_eq!(verdict.accepted().is_ok(), verdict.problems().next().is_none());
    }
}

#[test]
fn a_uid_without_state_is_kept_or_gone_without_a_flag() {
    let old = only_count(Description::default());
    let none = NewJob {
        nodes: vec![],
        max_parallelism: 128,
    };
    let action = |new: &NewJob| {
        let verdict = compare(&Existing::running(&old), new, &RestoreOptions::default());
        verdict.accepted().expect("nothing is lost");
        verdict
            .uid(&OperatorUid::new("count").expect("uid"))
            .expect("it was there")
            .action
    };
    assert_eq!((action(&old), action(&none)), (Action::Kept, Action::Dropped));
}
