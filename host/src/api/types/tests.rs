//! The JSON of each shape that scripts rely on, and conversions both ways.

use std::path::PathBuf;
use std::sync::Arc;

use regraft_model::id::{AttemptId, OperatorUid};
use regraft_model::snapshot::SnapshotKind;
use serde_json::json;

use super::*;
use crate::graph::job_graph::{Artifact, EffectiveSetting, NodeKind as GraphNodeKind, SettingOrigin};
use crate::graph::{ModuleOverride, Overrides, parse_job};
use crate::jobs::handle::JobError;
use crate::jobs::observe::{NodeRole, ObservedNode, PastRound, RoundSummary, SubtaskRound};
use crate::jobs::start::RestoreFrom;
use crate::savepoint::restore::RestoreOptions;
use crate::serve::operations::OperationProgress;
use crate::serve::submission::{Allow, Submission};

fn uid(text: &str) -> OperatorUid {
    OperatorUid::new(text).expect("a uid")
}

fn observed() -> ObservedJob {
    let round = |id, failure: Option<&str>| PastRound {
        checkpoint_id: CheckpointId(id),
        kind: SnapshotKind::Checkpoint,
        triggered_at: 5,
        duration_ms: 6,
        bytes: 7,
        full_bytes: 8,
        path: failure.is_none().then(|| "file:///chk-3".to_owned()),
        failure: failure.map(str::to_owned),
        subtasks: vec![SubtaskRound {
            uid: uid("count"),
            subtask: 1,
            align_ms: 0.5,
            sync_ms: 1.5,
            async_ms: 2.5,
            bytes: 9,
            state_bytes: 10,
        }],
    };
    let setting = EffectiveSetting {
        value: "2".to_owned(),
        origin: SettingOrigin::CommandLine,
    };
    ObservedJob {
        status: JobStatus::Running,
        restored_from: Some("file:///sp".to_owned()),
        last_round: Some(RoundSummary {
            checkpoint_id: CheckpointId(3),
            kind: SnapshotKind::Checkpoint,
            completed_at: 11,
            bytes: 7,
            full_bytes: 8,
            duration_ms: 6,
            sync_ms: 1.5,
            align_ms: 0.5,
            path: "file:///chk-3".to_owned(),
        }),
        rounds: 1,
        recent: vec![round(3, None), round(4, Some("the disk is full"))],
        attempt: AttemptId(2),
        restarts: 1,
        last_failure: Some("a trap".to_owned()),
        nodes: vec![ObservedNode {
            uid: uid("count"),
            role: NodeRole::Operator,
            parallelism: 2,
            module: Some("00ff00".to_owned()),
            states: vec!["count".to_owned()],
            target: Some(PathBuf::from("/dead")),
            records_in: 12,
            records_out: 13,
            keys: 14,
            state_bytes: 19,
            watermark: Some(16),
            late: 17,
            counters: [("seen".to_owned(), 18)].into(),
            gauges: [("size".to_owned(), vec![Some(1.5), None])].into(),
            dead_letters: 15,
        }],
        settings: [("parallelism".to_owned(), setting)].into(),
        ..ObservedJob::bare(JobId::from_bits(1), "words", 4, None)
    }
}

#[test]
fn info_keeps_its_shape() {
    let part = json!({ "uid": "count", "subtask": 1, "align_ms": 0.5, "sync_ms": 1.5, "async_ms": 2.5, "bytes": 9,
        "state_bytes": 10 });
    let expected = json!({
        "job_id": "00000000000000000000000000000001", "name": "words", "status": "RUNNING", "parallelism": 0,
        "max_parallelism": 0, "started_at": 4, "restored_from": "file:///sp", "version": 1, "records_in": 0,
        "records_out": 0, "dead_letters": 0,
        "last_checkpoint": { "checkpoint_id": 3, "kind": "checkpoint", "completed_at": 11, "bytes": 7, "full_bytes": 8,
            "duration_ms": 6, "sync_ms": 1.5, "align_ms": 0.5, "path": "file:///chk-3" },
        "checkpoints": 1,
        "recent_checkpoints": [
            { "checkpoint_id": 3, "kind": "checkpoint", "status": "COMPLETED", "triggered_at": 5, "duration_ms": 6,
                "bytes": 7, "full_bytes": 8, "path": "file:///chk-3", "failure": null, "subtasks": [part] },
            { "checkpoint_id": 4, "kind": "checkpoint", "status": "FAILED", "triggered_at": 5, "duration_ms": 6,
                "bytes": 7, "full_bytes": 8, "path": null, "failure": "the disk is full", "subtasks": [part] }],
        "attempt": 2, "restarts": 1, "last_failure": "a trap", "failure": null,
        "operators": [{ "uid": "count", "kind": "operator", "parallelism": 2, "module": "00ff00", "states": ["count"],
            "target": "/dead", "records_in": 12, "records_out": 13, "keys": 14, "state_bytes": 19, "dead_letters": 15, "watermark": 16, "late": 17,
            "counters": { "seen": 18 }, "gauges": { "size": [1.5, null] } }],
        "settings": { "parallelism": { "value": "2", "origin": "command line" } },
    });
    let view = JobView::from(observed());
    assert_eq!(serde_json::to_value(&view).expect("JSON"), expected);
    assert_eq!(serde_json::from_value::<JobView>(expected).expect("read"), view);
    assert_eq!(
        serde_json::to_value(JobSummary::from(observed())).expect("JSON"),
        json!({ "job_id": "00000000000000000000000000000001", "name": "words", "status": "RUNNING", "parallelism": 0,
            "started_at": 4, "restored_from": "file:///sp", "version": 1 })
    );
}

#[test]
fn a_triggered_savepoint_has_its_status_beside_its_facts() {
    let check = |progress: OperationProgress, expected: serde_json::Value| {
        let status = TriggerStatus::of(progress).expect("a savepoint's");
        assert_eq!(serde_json::to_value(&status).expect("JSON"), expected);
        assert_eq!(serde_json::from_value::<TriggerStatus>(expected).expect("read"), status);
    };
    check(OperationProgress::InProgress, json!({ "status": "IN_PROGRESS" }));
    let error = Arc::new(JobError::failed("no").on(&uid("count")).into());
    check(
        OperationProgress::Failed(error),
        json!({ "status": "FAILED", "cause": { "kind": "failed", "message": "no", "uid": "count", "path": null } }),
    );
    let report = crate::jobs::handle::SnapshotReport {
        job_id: JobId::from_bits(1),
        path: "file:///sp".to_owned(),
        checkpoint_id: CheckpointId(3),
        format: "native".to_owned(),
        bytes: 4,
        duration_ms: 5,
        align_ms: 0.5,
        sync_ms: 1.5,
        swap_ms: 2.5,
        gaps: vec![crate::jobs::handle::Gap {
            uid: uid("count"),
            subtask: 1,
            gap_ms: 6.5,
            usual_ms: 7.5,
        }],
        version: JobVersion(2),
    };
    check(
        OperationProgress::Completed(operations::Outcome::Saved(report)),
        json!({ "status": "COMPLETED", "job_id": "00000000000000000000000000000001", "path": "file:///sp",
            "checkpoint_id": 3, "format": "native", "bytes": 4, "duration_ms": 5, "align_ms": 0.5, "sync_ms": 1.5,
            "swap_ms": 2.5, "gaps": [{ "uid": "count", "subtask": 1, "gap_ms": 6.5, "usual_ms": 7.5 }], "version": 2 }),
    );
}

#[test]
fn an_operation_has_its_result_apart() {
    let view = |progress| {
        serde_json::to_value(OperationView {
            trigger_id: "ab".to_owned(),
            kind: operations::OperationKind::Cancel.into(),
            job_id: JobId::from_bits(1),
            progress,
        })
        .expect("JSON")
    };
    let expected = |rest: serde_json::Value| {
        let mut all = json!({ "trigger_id": "ab", "kind": "cancel", "job_id": "00000000000000000000000000000001" });
        for (key, value) in rest.as_object().expect("an object") {
            all[key] = value.clone();
        }
        all
    };
    assert_eq!(
        view(OperationProgress::InProgress.into()),
        expected(json!({ "status": "IN_PROGRESS" }))
    );
    let job = JobView::from(observed());
    let completed = OperationProgress::Completed(operations::Outcome::Ended(Box::new(observed())));
    assert_eq!(
        view(completed.into()),
        expected(json!({ "status": "COMPLETED", "result": job }))
    );
}

#[test]
fn a_failure_is_problem_details_with_the_members_of_the_command_line() {
    let problem = Problem {
        title: "Conflict".to_owned(),
        status: 409,
        detail: "no".to_owned(),
        error: ErrorBody::new(ErrorKind::Failed, "no"),
    };
    assert_eq!(
        serde_json::to_value(problem).expect("JSON"),
        json!({ "title": "Conflict", "status": 409, "detail": "no", "kind": "failed", "message": "no", "uid": null, "path": null })
    );
}

#[test]
fn checkpoints_are_the_hosts_and_savepoints_the_users() {
    let listed = |owner, trigger| ListedSnapshot {
        owner,
        trigger,
        checkpoint_id: CheckpointId(3),
        completed_at_ms: 4,
        bytes: 5,
        url: "file:///x".to_owned(),
    };
    let check = |owner, trigger, expected: [&str; 3]| {
        let row = serde_json::to_value(SnapshotRow::from(listed(owner, trigger))).expect("JSON");
        let [kind, owner, trigger] = expected;
        assert_eq!(
            row,
            json!({ "kind": kind, "owner": owner, "trigger": trigger, "checkpoint_id": 3, "completed_at": 4, "bytes": 5,
                "path": "file:///x" })
        );
    };
    use crate::savepoint::metadata::Trigger;
    check(Owner::Host, Trigger::Periodic, ["checkpoint", "host", "periodic"]);
    check(Owner::User, Trigger::EndOfInput, ["savepoint", "user", "end-of-input"]);
}

#[test]
fn a_log_is_read_from_its_end_where_nothing_is_asked_for() {
    let part = |lines, from| logs::LogPart::from(LogQuery { lines, from });
    assert_eq!(part(None, None), logs::LogPart::Last(LOG_LINES));
    assert_eq!(part(Some(7), None), logs::LogPart::Last(7));
    assert_eq!(part(Some(7), Some(9)), logs::LogPart::From(9));
}

const JOB: &str = r#"
name = "words"
[[source]]
uid = "lines"
connector = "file"
path = "in/*"
[[operator]]
uid = "count"
crate = "count"
inputs = ["lines"]
[[sink]]
uid = "out"
connector = "print"
inputs = ["count"]
"#;

fn submission() -> Submission {
    Submission {
        file: "job.toml".to_owned(),
        text: JOB.to_owned(),
        base_dir: "/client/jobs".into(),
        overrides: Overrides {
            name: Some("other".to_owned()),
            entry: Some("words".to_owned()),
            prefer: None,
            parallelism: Some(3),
            set: vec!["checkpoint.interval=7s".to_owned(), "lines.path=there/*".to_owned()],
            modules: vec![ModuleOverride {
                uid: uid("count"),
                artifact: Artifact::Module("/client/count-v2.wasm".into()),
                text: "count=count-v2.wasm".to_owned(),
            }],
            arguments: vec!["--loud".to_owned()],
            environment: vec![("REGRAFT_CHECKPOINT_TIMEOUT".to_owned(), "9s".to_owned())],
            config: Some(("/data/config.toml".into(), "[checkpoint]\nretain = 5\n".to_owned())),
            current_dir: "/client".into(),
        },
        modules: [(uid("count"), "00ff".to_owned())].into(),
        restore: Some(RestoreFrom {
            location: "/sp".to_owned(),
            options: RestoreOptions {
                allow_non_restored: true,
                drop_state: vec!["count/seen".to_owned()],
            },
            allow_later_output: true,
        }),
        savepoint_at_end: Some("/end".to_owned()),
        allow: Allow {
            same_name: true,
            shared_output: false,
        },
    }
}

#[test]
fn a_submitted_job_is_the_one_that_the_command_line_would_have_read() {
    let sent = submission();
    let text = serde_json::to_string(&SubmitRequest::from(&sent)).expect("JSON");
    let request: SubmitRequest = serde_json::from_str(&text).expect("read");
    let back = Submission::from(request);
    assert_eq!(format!("{back:?}"), format!("{sent:?}"));
    let (here, _) = parse_job(
        JOB,
        "job.toml",
        "/client/jobs".as_ref(),
        &sent.overrides,
        crate::connectors::BUILT_IN,
    )
    .expect("a job");
    let there = back.graph().expect("a job");
    assert_eq!(format!("{there:?}"), format!("{here:?}"));
    assert_eq!((there.name.as_str(), there.parallelism), ("other", 3));
    let GraphNodeKind::Operator(count) = &there.nodes[1].kind else {
        panic!("an operator")
    };
    assert_eq!(count.artifact, Artifact::Module("/client/count-v2.wasm".into()));
}

#[test]
fn a_submission_with_an_unknown_key_is_refused() {
    let error = serde_json::from_str::<SubmitRequest>(r#"{"file":"a","tekst":""}"#).expect_err("no such key");
    assert!(error.to_string().contains("unknown field `tekst`"), "{error}");
}
