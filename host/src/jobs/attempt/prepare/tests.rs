//! Savepoints that another process may still be writing while an attempt begins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::snapshot::SnapshotKind;

use super::*;
use crate::connectors::BUILT_IN;
use crate::dataflow::workers::Workers;
use crate::environment::real::RealEnvironment;
use crate::graph::{Overrides, parse_job};
use crate::jobs::durable::job::HostContext;
use crate::jobs::durable::records::{AttemptRecord, JobRecord};
use crate::jobs::start::assemble;
use crate::storage::LocalStores;

/// Pending output of the first attempt, relative to the sink's directory.
const PENDING: &str = ".pending/00000000000000000000000000000007/out-0-v1-a1-0.json";

/// A job in a directory of its own. Its first attempt has begun a savepoint that names pending output, and was killed.
struct Killed {
    dir: tempfile::TempDir,
    job: Arc<Job>,
}

impl Killed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let text = r#"name = "killed"
            [[source]]
            uid = "numbers"
            connector = "generator"
            key = "id"
            fields = [{ name = "id", type = "u64", range = [0, 9] }]
            [[sink]]
            uid = "out"
            connector = "file"
            path = "out"
            format = "json"
            inputs = ["numbers"]
        "#;
        let graph = parse_job(text, "job.toml", dir.path(), &Overrides::default(), BUILT_IN);
        let graph = graph.unwrap_or_else(|error| panic!("{error}")).0;
        let host = HostContext {
            environment: Arc::new(RealEnvironment::default()),
            stores: Arc::new(LocalStores::default()),
            executor: Arc::new(Workers::default()),
            checkpoint_dir: dir.path().join("checkpoints"),
            recovers: true,
        };
        let job = Arc::new(assemble(&host, JobId::from_bits(7), graph).expect("a job").0);
        let killed = Self { dir, job };
        killed.put(&Path::new("out").join(PENDING), "a record\n");
        killed.put(Path::new("saved/operators/numbers/1"), "half of a file");
        killed.record().await;
        killed
    }

    async fn record(&self) {
        let directory = &self.job.directory;
        let job = JobRecord {
            job_id: self.job.job_id,
            name: "killed".to_owned(),
            started_at: 0,
            origin: None,
            process: None,
        };
        directory.write_job(&job).await.expect("written");
        self.record_version(1, BTreeMap::new()).await;
        let attempt = AttemptRecord {
            attempt: AttemptId(1),
            restored: None,
            since: None,
            starting: false,
            last_id: CheckpointId(0),
            started_at: 0,
            nonce: "a".to_owned(),
            known: KnownAttempts::default(),
            ended: None,
        };
        directory.create_attempt(&attempt).await.expect("created");
        let handle = serde_json::json!({ "pending": PENDING, "final": "part-out-0-000000-5-0.json" });
        let savepoint = SavepointRecord {
            checkpoint_id: CheckpointId(5),
            attempt: AttemptId(1),
            kind: SnapshotKind::Savepoint,
            path: self.path("saved").display().to_string(),
            handles: BTreeMap::from([(OperatorUid::new("out").expect("a uid"), vec![handle])]),
            complete: false,
            dropped: false,
        };
        directory.write_savepoint(&savepoint).await.expect("written");
    }

    async fn record_version(&self, number: u32, modules: BTreeMap<OperatorUid, String>) {
        let version = VersionRecord {
            version: JobVersion(number),
            checkpoint_id: None,
            modules,
            nonce: "a".to_owned(),
        };
        let created = self.job.directory.create_version(&version).await;
        created.expect("created");
    }

    async fn newest_attempt(&self) -> AttemptId {
        let newest = self.job.directory.newest_attempt().await;
        newest.expect("read").expect("one").attempt
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &Path, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
        std::fs::write(path, text).expect("written");
    }

    fn has(&self, name: impl AsRef<Path>) -> bool {
        self.path(name).exists()
    }

    fn wish(&self) -> Wish {
        Wish {
            regions: self.job.plan.region_indices().collect(),
            known: vec![],
            after: AttemptId(0),
            last_id: CheckpointId(0),
            committed: None,
        }
    }
}

#[tokio::test]
async fn output_of_a_savepoint_that_is_completed_while_an_attempt_begins_stays_pending() {
    let killed = Killed::new().await;
    let durable = Durable::read(&killed.job).await.expect("read");
    killed.put(Path::new("saved/_metadata"), "{}");
    let (wish, pending) = (killed.wish(), CommitPermit::none());
    let taken = take_over(&killed.job, &durable, &wish, AttemptId(2), Some(0), &pending);
    taken.await.expect("taken over");
    assert!(killed.has(Path::new("out").join(PENDING)), "the savepoint names it");
    assert!(killed.has("saved/operators/numbers/1"));
    let left = killed.job.directory.savepoints().await.expect("read");
    assert_eq!(left.len(), 1, "the next attempt must know of it, too");
}

#[tokio::test]
async fn a_savepoint_that_may_still_be_written_stays_until_an_attempt_is_recorded() {
    let killed = Killed::new().await;
    // An attempt cannot be built as long as its version has a module that this host does not load.
    let unknown = BTreeMap::from([(OperatorUid::new("numbers").expect("a uid"), "00ff".to_owned())]);
    killed.record_version(2, unknown).await;
    assert!(prepare(&killed.job, &killed.wish()).await.is_err());
    assert_eq!(killed.newest_attempt().await, AttemptId(1));
    assert!(
        killed.has("saved/operators/numbers/1"),
        "another host may be writing it: no attempt is recorded"
    );
    killed.record_version(3, BTreeMap::new()).await;
    if let Err(error) = prepare(&killed.job, &killed.wish()).await {
        panic!("{error}");
    }
    assert_eq!(killed.newest_attempt().await, AttemptId(2));
    assert!(!killed.has("saved/operators/numbers/1") && !killed.has(Path::new("out").join(PENDING)));
    let left = killed.job.directory.savepoints().await.expect("read");
    assert_eq!(left, []);
}
