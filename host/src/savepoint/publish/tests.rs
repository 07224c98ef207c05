//! Order of writes, publishing twice, and removal.

use super::remove_partial;
use crate::savepoint::budget::Budget;
use crate::savepoint::dispose::dispose;
use crate::savepoint::load::Savepoint;
use crate::savepoint::test_data::{self, publish};
use crate::storage::{LocalStores, Storage, paths};
use bytes::Bytes;

#[tokio::test]
async fn metadata_comes_last_and_a_lost_answer_is_no_error() {
    let storage = test_data::storage();
    let mut metadata = test_data::write_files(&storage).await;
    assert!(!storage.exists(paths::METADATA).await.expect("exists"));
    let bytes = publish(&storage, &metadata).await.expect("sound");
    assert_eq!(storage.size(paths::METADATA).await.expect("size"), Some(bytes));
    assert_eq!(publish(&storage, &metadata).await.expect("the same again"), bytes);
    metadata.label = Some("other".into());
    let error = publish(&storage, &metadata).await.expect_err("another one is there");
    assert_eq!(
        error.to_string(),
        "store:///savepoint-a1b2c3-000000000001/_metadata already exists"
    );
    assert!(!remove_partial(&storage).await.expect("complete"));
    assert_eq!(
        Savepoint::load(storage.clone()).await.expect("complete").metadata.label,
        None
    );
}

#[tokio::test]
async fn a_savepoint_with_a_missing_or_short_file_is_not_published() {
    let storage = test_data::storage();
    let metadata = test_data::write_files(&storage).await;
    let path = metadata.modules[0].path.clone();
    let url = storage.url_of(&path);
    storage.put(&path, Bytes::from_static(b"tes")).await.expect("put");
    let error = publish(&storage, &metadata).await.expect_err("short");
    assert_eq!(
        error.to_string(),
        format!("{url} is damaged: expected 4 bytes, found 3. Use another copy of it.")
    );
    storage.delete(&path).await.expect("delete");
    let error = publish(&storage, &metadata).await.expect_err("missing");
    assert_eq!(
        error.to_string(),
        format!("{url} is missing, but _metadata lists it. A savepoint is moved or copied as a whole directory.")
    );
    assert!(!storage.exists(paths::METADATA).await.expect("exists"));
    assert!(remove_partial(&storage).await.expect("partial"));
    assert_eq!(storage.list("").await.expect("list"), []);
}

#[tokio::test]
async fn a_moved_savepoint_is_opened_by_directory_file_and_url() {
    let from = test_data::savepoint().await;
    let dir = tempfile::tempdir().expect("temp dir");
    let moved = dir.path().join("a b/moved");
    let to = Storage::open(moved.to_str().expect("UTF-8")).expect("path");
    for object in from.storage.list("").await.expect("list") {
        from.storage.copy(&object.name, &to, &object.name).await.expect("copy");
    }
    for location in [
        moved.display().to_string(),
        format!("{}/", moved.display()),
        format!("{}/_metadata", moved.display()),
        to.url(),
    ] {
        let opened = Savepoint::open(&LocalStores::default(), &location)
            .await
            .expect("moved");
        assert_eq!(opened.metadata, from.metadata);
        assert_eq!(opened.url(), to.url());
        let state = &opened.metadata.operators[2].states[0];
        let file = &state.files[1];
        let rows = opened
            .read_rows(state, file, file.key_groups, &Budget::unlimited())
            .await
            .expect("rows");
        assert_eq!(
            rows.iter().map(|rows| rows.keys.len() as u64).sum::<u64>(),
            file.entries
        );
    }
    std::fs::write(moved.join("mine.txt"), "kept").expect("write");
    let moved_to = Savepoint::load(to.clone()).await.expect("moved");
    assert_eq!(dispose(&moved_to).await.expect("dispose"), ["mine.txt"]);
    assert_eq!(std::fs::read_dir(&moved).expect("still there").count(), 1);
    std::fs::remove_file(moved.join("mine.txt")).expect("remove");
    assert!(dispose(&moved_to).await.expect("again").is_empty());
    assert!(!moved.exists());
    let error = Savepoint::open(&LocalStores::default(), &to.url())
        .await
        .expect_err("gone");
    assert_eq!(
        error.to_string(),
        format!(
            "{}/_metadata does not exist. Expected a savepoint or checkpoint directory, or its _metadata file: one without _metadata was never completed.",
            to.url()
        )
    );
}

#[tokio::test]
async fn two_hosts_publish_once() {
    let one = Storage::in_memory("sp");
    let two = one.clone();
    let metadata = test_data::write_files(&one).await;
    let mut other = metadata.clone();
    other.checkpoint_id = other.checkpoint_id.next();
    let (a, b) = tokio::join!(publish(&one, &metadata), publish(&two, &other));
    assert!(a.is_ok() != b.is_ok());
}
