//! Half-written states of the catalog, and the shapes of its files.

use super::*;
use crate::graph::Overrides;
use crate::graph::job_graph::{Artifact, SettingOrigin};
use crate::jobs::status::JobStatus;
use crate::serve::submission::Allow;

fn record(bits: u128, created_at: i64) -> CatalogRecord {
    CatalogRecord {
        job_id: JobId::from_bits(bits),
        name: format!("job-{bits}"),
        created_at,
        submission: Submission {
            file: "job.toml".to_owned(),
            text: "name = \"a\"".to_owned(),
            base_dir: "/jobs".into(),
            overrides: Overrides::default(),
            modules: BTreeMap::new(),
            restore: None,
            savepoint_at_end: None,
            allow: Allow::default(),
        },
    }
}

fn components() -> BTreeMap<String, Bytes> {
    BTreeMap::from([("00ff".to_owned(), Bytes::from_static(b"wasm"))])
}

#[tokio::test]
async fn jobs_come_back_in_order_with_what_was_noted() {
    let storage = Storage::in_memory("jobs");
    let catalog = Catalog::new(storage.clone());
    for (bits, at) in [(2, 10), (1, 20), (3, 15)] {
        catalog.create(&record(bits, at), &components()).await.expect("created");
    }
    catalog.accepted(JobId::from_bits(1)).await.expect("noted");
    let known = |n| KnownSavepoint {
        checkpoint_id: CheckpointId(n),
        path: format!("file:///sp-{n}"),
    };
    for n in [10, 9] {
        catalog.savepoint(JobId::from_bits(1), &known(n)).await.expect("noted");
    }
    storage.put(&of(JobId::from_bits(3), ENDED), "{}").await.expect("put");
    let contents = catalog.load().await.expect("loaded");
    assert!(contents.damaged.is_empty());
    let names: Vec<&str> = contents.jobs.iter().map(|job| job.record.name.as_str()).collect();
    assert_eq!(names, ["job-2", "job-3", "job-1"]);
    let progress: Vec<Progress> = contents.jobs.iter().map(|job| job.progress.clone()).collect();
    let ended = Progress::Ended(None);
    assert_eq!(progress, [Progress::Submitted, ended, Progress::Accepted]);
    assert_eq!(contents.jobs[2].savepoints, [known(9), known(10)]);
    let component = catalog.component(JobId::from_bits(2), "00ff").await.expect("there");
    assert_eq!(component.as_ref(), b"wasm");
}

#[tokio::test]
async fn half_a_submission_and_half_a_removal_are_no_job() {
    let storage = Storage::in_memory("jobs");
    let catalog = Catalog::new(storage.clone());
    let (submitted, removed) = (JobId::from_bits(1), JobId::from_bits(2));
    storage
        .put(&of(submitted, "modules/00ff.wasm"), "w")
        .await
        .expect("put");
    catalog.create(&record(2, 5), &components()).await.expect("created");
    catalog.accepted(removed).await.expect("noted");
    storage.delete(&of(removed, JOB)).await.expect("deleted");
    assert!(catalog.load().await.expect("loaded").jobs.is_empty());
    assert!(
        storage.list("").await.expect("listed").is_empty(),
        "and nothing is left of them"
    );
}

#[tokio::test]
async fn a_damaged_record_keeps_no_other_job_and_stays() {
    let storage = Storage::in_memory("jobs");
    let catalog = Catalog::new(storage.clone());
    catalog.create(&record(1, 5), &components()).await.expect("created");
    storage.put(&of(JobId::from_bits(2), JOB), "{").await.expect("put");
    let contents = catalog.load().await.expect("loaded");
    assert_eq!(contents.jobs.len(), 1);
    let said = contents.damaged[0].to_string();
    assert!(
        said.starts_with("store:///jobs/00000000000000000000000000000002/job.json is damaged: EOF while parsing")
            && said.contains("start it anew from a savepoint"),
        "{said}"
    );
    assert_eq!(catalog.load().await.expect("again").damaged.len(), 1);
}

#[tokio::test]
async fn the_same_job_is_not_taken_in_twice() {
    let catalog = Catalog::new(Storage::in_memory("jobs"));
    catalog.create(&record(1, 5), &components()).await.expect("created");
    let again = catalog
        .create(&record(1, 6), &components())
        .await
        .expect_err("there is one");
    assert!(again.to_string().ends_with("job.json already exists"), "{again}");
    catalog.remove(JobId::from_bits(1)).await.expect("removed");
    assert!(catalog.load().await.expect("loaded").jobs.is_empty());
}

/// `job.json` and `ended.json` as version 0.1.0 wrote them.
const JOB_JSON: &str = include_str!("tests/job.json");
const ENDED_JSON: &str = include_str!("tests/ended.json");

#[tokio::test]
async fn files_of_an_earlier_version_are_read_and_keep_their_shape() {
    let storage = Storage::in_memory("jobs");
    let job: JobId = "5e1f3c0a9b7d42e6a8c1d0f2b4e69731".parse().expect("an id");
    storage.put(&of(job, JOB), JOB_JSON).await.expect("put");
    storage.put(&of(job, ENDED), ENDED_JSON).await.expect("put");
    let contents = Catalog::new(storage).load().await.expect("loaded");
    assert!(contents.damaged.is_empty(), "{:?}", contents.damaged);
    let found = &contents.jobs[0];
    let overrides = &found.record.submission.overrides;
    assert_eq!(overrides.arguments, ["--loud"]);
    assert_eq!(overrides.modules[0].artifact, Artifact::Crate("/client/count".into()));
    let restore = found.record.submission.restore.as_ref().expect("a savepoint");
    assert_eq!(restore.options.drop_state, ["count/seen"]);
    let Progress::Ended(Some(ended)) = &found.progress else {
        panic!("it has ended: {:?}", found.progress)
    };
    assert_eq!(ended.job.status, JobStatus::Failed);
    assert_eq!(ended.job.recent[1].failure.as_deref(), Some("the disk is full"));
    assert_eq!(ended.job.settings["parallelism"].origin, SettingOrigin::CommandLine);
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert_eq!(text(json(&JobFile::from(&found.record))), JOB_JSON.trim_end());
    assert_eq!(text(json(&EndedFile::from(&**ended))), ENDED_JSON.trim_end());
}
