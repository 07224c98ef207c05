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
    let contents = catalog.load().await;
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
    assert!(catalog.load().await.jobs.is_empty());
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
    let contents = catalog.load().await;
    assert_eq!(contents.jobs.len(), 1);
    let said = contents.damaged[0].to_string();
    assert!(
        said.starts_with("store:///jobs/00000000000000000000000000000002/job.json is damaged: EOF while parsing")
            && said.contains("start it anew from a savepoint"),
        "{said}"
    );
    assert_eq!(catalog.load().await.damaged.len(), 1);
}

#[tokio::test]
async fn notes_of_starts_and_of_the_host_last_until_they_are_removed() {
    let storage = Storage::in_memory("jobs");
    let catalog = Catalog::new(storage.clone());
    let job = JobId::from_bits(1);
    catalog.create(&record(1, 5), &components()).await.expect("created");
    assert_eq!(catalog.host_starts().await.expect("noted"), LastEnd::Clean);
    assert_eq!(catalog.host_starts().await.expect("noted"), LastEnd::Died);
    catalog.host_ends().await.expect("noted");
    assert_eq!(catalog.host_starts().await.expect("noted"), LastEnd::Clean);
    let note = |starting, deaths| StartNote { starting, deaths };
    catalog.note_start(job, note(false, 2)).await.expect("noted");
    assert_eq!(catalog.load().await.jobs[0].start, Some(note(false, 2)));
    storage.put(&of(job, STARTING), "{\"sta").await.expect("put");
    assert_eq!(catalog.load().await.jobs[0].start, Some(note(true, 0)), "half a note");
    catalog.forget_start(job).await.expect("removed");
    assert_eq!(catalog.load().await.jobs[0].start, None);
}

#[cfg(unix)]
#[tokio::test]
async fn whatever_stands_in_the_directory_keeps_no_other_job() {
    let dir = tempfile::tempdir().expect("temp dir");
    let at = |name: &str| dir.path().join(name);
    let catalog = Catalog::new(Storage::open(&dir.path().to_string_lossy()).expect("opened"));
    catalog.create(&record(1, 5), &components()).await.expect("created");
    let own = std::fs::read(at(&of(JobId::from_bits(1), JOB))).expect("there");
    let in_place = |bits: u128, write: &dyn Fn(&std::path::Path)| {
        let path = at(&of(JobId::from_bits(bits), JOB));
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        write(&path);
    };
    let fifo = |path: &std::path::Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
        assert!(made.success());
    };
    in_place(2, &fifo);
    in_place(3, &|path| {
        std::os::unix::fs::symlink("/dev/zero", path).expect("linked")
    });
    in_place(4, &|path| std::fs::create_dir(path).expect("created"));
    in_place(5, &|path| {
        let huge = std::fs::File::create(path).expect("created");
        huge.set_len(1 << 40).expect("sparse");
    });
    in_place(6, &|path| std::fs::write(path, &own).expect("written"));
    in_place(7, &|path| std::fs::write(path, b"\xff\0").expect("written"));
    std::os::unix::fs::symlink(
        at(&JobId::from_bits(1).to_string()),
        at(&JobId::from_bits(8).to_string()),
    )
    .expect("linked");
    std::fs::write(at("notes.txt"), "of the operator").expect("written");
    std::fs::write(at(&JobId::from_bits(9).to_string()), "a file").expect("written");
    let contents = tokio::time::timeout(std::time::Duration::from_secs(20), catalog.load()).await;
    let contents = contents.expect("nothing is waited for");
    assert_eq!(contents.jobs.len(), 1, "{:?}", contents.damaged);
    let said: Vec<String> = contents.damaged.iter().map(ToString::to_string).collect();
    for (bits, expected) in [
        (2, "it is not a regular file"),
        (3, "it is a symbolic link, which is not followed"),
        (4, "it is not a regular file"),
        (5, "it has 1099511627776 bytes, and a record has at most"),
        (6, "it is that of job 00000000000000000000000000000001"),
        (7, "expected value"),
    ] {
        let job = JobId::from_bits(bits).to_string();
        let found = said
            .iter()
            .find(|said| said.contains(&job) && said.contains("/job.json is damaged"));
        assert!(found.is_some_and(|said| said.contains(expected)), "{bits}: {said:?}");
    }
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
    assert!(catalog.load().await.jobs.is_empty());
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
    let contents = Catalog::new(storage).load().await;
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
