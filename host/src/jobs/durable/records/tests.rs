//! Records of attempts, versions and ends.

use super::*;

fn directory() -> JobDirectory {
    JobDirectory::new(&Storage::in_memory("ckpt"), JobId::from_bits(7)).expect("a directory")
}

fn attempt(number: u32, nonce: &str) -> AttemptRecord {
    AttemptRecord {
        attempt: AttemptId(number),
        restored: None,
        since: None,
        starting: false,
        last_id: CheckpointId(0),
        started_at: 5,
        nonce: nonce.to_owned(),
        known: KnownAttempts::default(),
        ended: None,
    }
}

#[tokio::test]
async fn an_attempt_is_begun_by_one_alone() {
    let directory = directory();
    assert_eq!(directory.newest_attempt().await.expect("read"), None);
    directory.create_attempt(&attempt(1, "a")).await.expect("created");
    directory
        .create_attempt(&attempt(1, "a"))
        .await
        .expect("the same again");
    let refused = directory.create_attempt(&attempt(1, "b")).await.expect_err("taken");
    assert_eq!(
        refused.to_string(),
        "store:///ckpt/00000000000000000000000000000007/attempts/1.json has been written by another host: it runs this job now, and two must not"
    );
    directory.create_attempt(&attempt(10, "b")).await.expect("created");
    let refused = directory.settle_attempt(&attempt(1, "a")).await.expect_err("too late");
    assert!(matches!(refused, RecordError::Taken { .. }));
    let of = |attempt: u32| Takeover {
        attempt: AttemptId(attempt),
        restored: None,
    };
    assert_eq!(directory.takeover().await.expect("read"), Some(of(10)));
    let job = JobRecord {
        job_id: JobId::from_bits(7),
        name: "words".to_owned(),
        started_at: 0,
        origin: None,
        process: None,
    };
    directory.write_job(&job).await.expect("written");
    let claim = AttemptRecord {
        since: Some(of(10)),
        ..attempt(11, "c")
    };
    directory.begin_attempt(&claim).await.expect("created");
    assert_eq!(directory.takeover().await.expect("read"), Some(of(10)), "not yet");
    let since = Some(of(11));
    let settled = AttemptRecord { since, ..claim };
    directory.settle_attempt(&settled).await.expect("settled");
    assert_eq!(directory.takeover().await.expect("read"), since);
    assert_eq!(directory.numbers(ATTEMPTS).await.expect("listed"), [11]);
    directory.storage().delete("job.json").await.expect("deleted");
    let ended = directory.settle_attempt(&settled).await.expect_err("the job has ended");
    assert!(matches!(ended, RecordError::Taken { .. }));
    assert!(directory.numbers(ATTEMPTS).await.expect("listed").is_empty());
    directory.create_attempt(&attempt(10, "b")).await.expect("created");
    // A late one must not get the number of one that has been forgotten.
    let late = directory.create_attempt(&attempt(2, "a")).await.expect_err("too late");
    assert!(matches!(late, RecordError::Taken { .. }) && !late.may_pass());
    let newest = directory.newest_attempt().await.expect("read").expect("one");
    assert_eq!((newest.attempt, newest.nonce.as_str()), (AttemptId(10), "b"));
}

#[tokio::test]
async fn the_newest_version_counts_and_is_never_overwritten() {
    let directory = directory();
    let version = |number, nonce: &str| VersionRecord {
        version: JobVersion(number),
        checkpoint_id: None,
        modules: BTreeMap::new(),
        nonce: nonce.to_owned(),
    };
    for number in 1..=10 {
        directory.create_version(&version(number, "a")).await.expect("created");
    }
    assert!(directory.create_version(&version(10, "b")).await.is_err());
    let newest = directory.newest_version().await.expect("read").expect("one");
    assert_eq!((newest.version, newest.nonce.as_str()), (JobVersion(10), "a"));
}

#[tokio::test]
async fn a_cleared_directory_still_says_that_the_job_has_ended() {
    let directory = directory();
    directory.storage().put("shared/00ff.wasm", "wasm").await.expect("put");
    directory.storage().put("chk-3/_metadata", "x").await.expect("put");
    directory.storage().put("chk-12/_metadata", "x").await.expect("put");
    assert_eq!(
        directory.checkpoints().await.expect("listed"),
        [CheckpointId(12), CheckpointId(3)]
    );
    let end = EndRecord {
        status: JobStatus::Finished,
        ended_at: 9,
        savepoint: None,
        failure: None,
        failure_kind: None,
        keeps: false,
    };
    directory.write_end(&end).await.expect("written");
    directory.clear().await.expect("cleared");
    assert_eq!(directory.end().await.expect("read"), Some(end));
    let left = directory.storage().list("").await.expect("listed");
    assert_eq!(
        left.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(),
        ["ended.json"]
    );
}

#[test]
fn the_end_of_a_failed_job_has_the_kind_of_its_failure() {
    let end = EndRecord {
        status: JobStatus::Failed,
        ended_at: 9,
        savepoint: None,
        failure: Some("a panic".to_owned()),
        failure_kind: Some(ErrorKind::Bug),
        keeps: false,
    };
    let mut value = serde_json::to_value(&end).expect("JSON");
    assert_eq!(value["failure_kind"], "bug");
    assert_eq!(serde_json::from_value::<EndRecord>(value.clone()).expect("read"), end);
    // As hosts wrote it before there was a kind.
    value.as_object_mut().expect("an object").remove("failure_kind");
    let old: EndRecord = serde_json::from_value(value).expect("read");
    assert_eq!((old.failure, old.failure_kind), (end.failure, None));
}

#[tokio::test]
async fn a_damaged_record_is_named() {
    let directory = directory();
    directory.storage().put("job.json", "{\"job").await.expect("put");
    let error = directory.job().await.expect_err("damaged").to_string();
    assert!(
        error.starts_with("store:///ckpt/00000000000000000000000000000007/job.json is damaged: EOF while parsing"),
        "{error}"
    );
}
