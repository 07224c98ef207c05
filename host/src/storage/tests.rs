//! One suite for local directories and for a given store, and the texts of errors.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::environment::cancel::Cancellation;

async fn conformance(storage: &Storage) {
    let read_error = storage.read("a/b").await.expect_err("not there");
    assert!(read_error.is_not_found());
    assert_eq!(read_error.to_string(), format!("{}/a/b does not exist", storage.url()));
    assert_eq!(storage.list("").await.expect("empty"), []);
    storage.delete("a/b").await.expect("nothing to delete");
    storage.delete_prefix("a").await.expect("nothing to delete");

    storage.put("a/b", "one").await.expect("put");
    storage.put("a/b", "two").await.expect("over it");
    assert_eq!(storage.read("a/b").await.expect("read"), "two");
    let error = storage.create_if_absent("a/b", "three").await.expect_err("there");
    assert_eq!(error.to_string(), format!("{}/a/b already exists", storage.url()));
    assert_eq!(storage.read("a/b").await.expect("read"), "two");
    storage.create_if_absent("a/c~2e", "x").await.expect("create");
    storage.put("d", "four").await.expect("put");

    assert!(storage.exists("a/b").await.expect("exists"));
    assert!(!storage.exists("a").await.expect("a prefix is no object"));
    assert_eq!(storage.size("d").await.expect("size"), Some(4));
    let names = |objects: Vec<object::StoredObject>| objects.into_iter().map(|object| object.name).collect::<Vec<_>>();
    assert_eq!(names(storage.list("").await.expect("list")), ["a/b", "a/c~2e", "d"]);
    assert_eq!(names(storage.list("a").await.expect("list")), ["a/b", "a/c~2e"]);
    assert_eq!(
        storage.list_names().await.expect("list"),
        (vec!["a".to_owned()], vec!["d".to_owned()])
    );

    let child = storage.child("a").expect("name");
    assert_eq!((child.name(), child.url()), ("a", format!("{}/a", storage.url())));
    assert_eq!(child.parent().expect("parent").url(), storage.url());
    storage.copy("d", &child, "copy").await.expect("copy");
    storage.put("d", "changed").await.expect("put");
    assert_eq!(child.read("copy").await.expect("read"), "four");
    assert!(storage.child("../x").is_err() && storage.read("/x").await.is_err() && storage.read("a//b").await.is_err());

    let parts = child.read_ranges("copy", &[1..3, 0..4, 3..4]).await.expect("read");
    assert_eq!(parts, ["ou", "four", "r"]);
    assert!(
        child.read_ranges("copy", &[0..1, 9..12]).await.is_err(),
        "it is too short"
    );
    let absent = child
        .read_ranges("nothing", &[0..1, 1..2])
        .await
        .expect_err("not there");
    assert!(absent.is_not_found(), "{absent}");

    let whole = async |bytes: u64| {
        let mut read = vec![];
        let done = child
            .read_blocks("copy", bytes, |block| read.extend_from_slice(block))
            .await;
        done.map(|()| read)
    };
    assert_eq!(whole(4).await.expect("read"), b"four");
    for bytes in [3, 5, 1 << 62] {
        let found = format!("{}/copy has 4 bytes, expected {bytes}", child.url());
        assert_eq!(whole(bytes).await.expect_err("another size").to_string(), found);
        let parts = child.read_parts("copy", bytes, &[0..1, 1..2]).await;
        assert_eq!(parts.expect_err("another size").to_string(), found);
    }
    let parts = child.read_parts("copy", 4, &[1..3, 0..1]).await;
    assert_eq!(parts.expect("read"), ["ou", "f"]);
    assert!(child.read_parts("copy", 4, &[0..1, 1..5]).await.is_err());
    assert!(
        child
            .read_blocks("nothing", 4, |_| ())
            .await
            .expect_err("not there")
            .is_not_found()
    );
    for outside in ["../d", "x/../../d", "./copy", "/copy"] {
        assert!(child.remove(outside).await.is_err(), "{outside}");
        assert!(child.is_plain_file(outside).await.is_err(), "{outside}");
    }
    assert!(storage.exists("d").await.expect("it was not removed"));

    storage.delete_prefix("a").await.expect("delete");
    assert_eq!(names(storage.list("").await.expect("list")), ["d"]);
    storage.delete("d").await.expect("delete");
    storage.remove_if_empty().await.expect("empty");
}

#[tokio::test]
async fn directories_conform() {
    let dir = tempfile::tempdir().expect("temp dir");
    // Characters that URLs and object stores treat specially.
    let odd = dir.path().join("a b%20#ä");
    let storage = Storage::open(odd.to_str().expect("UTF-8")).expect("path");
    conformance(&storage).await;
    assert!(!odd.exists(), "empty directories are removed");
    assert!(storage.url().starts_with("file:///") && storage.url().ends_with("a%20b%2520%23%C3%A4"));
    assert_eq!(
        Storage::open(&storage.url()).expect("its own URL").local_dir(),
        Some(odd)
    );
}

#[tokio::test]
async fn given_stores_conform() {
    conformance(&Storage::with_store(Arc::new(InMemory::new()), "base/x").expect("location")).await;
}

#[tokio::test]
async fn half_written_files_are_deleted_too() {
    let dir = tempfile::tempdir().expect("temp dir");
    let storage = Storage::open(dir.path().to_str().expect("UTF-8")).expect("path");
    std::fs::create_dir(dir.path().join("sp")).expect("dir");
    std::fs::write(dir.path().join("sp/x.parquet#1"), "half").expect("write");
    storage.delete_prefix("sp").await.expect("delete");
    assert!(!dir.path().join("sp").exists());
    storage.delete_half_written().await.expect("nothing there");
    std::fs::create_dir_all(dir.path().join("job/shared")).expect("dir");
    for name in ["job/shared/x.parquet#12", "job/y#1", "job/kept#x", "job/kept"] {
        std::fs::write(dir.path().join(name), "half").expect("write");
    }
    storage.delete_half_written().await.expect("delete");
    let left = |name: &str| dir.path().join(name).exists();
    assert!(!left("job/shared/x.parquet#12") && !left("job/y#1") && left("job/kept#x") && left("job/kept"));
}

#[test]
fn locations_are_paths_or_file_urls() {
    let dir = |location: &str| {
        Storage::open(location)
            .map(|storage| storage.url())
            .map_err(|e| e.to_string())
    };
    assert_eq!(dir("/a/./b/../c/"), Ok("file:///a/c".into()));
    assert_eq!(dir("file:///a%20b"), Ok("file:///a%20b".into()));
    assert_eq!(dir("file:/a"), Ok("file:///a".into()));
    assert_eq!(dir("file://localhost/a"), Ok("file:///a".into()));
    let here = std::env::current_dir()
        .expect("current directory")
        .canonicalize()
        .expect("it exists");
    assert_eq!(
        Storage::open("x/y").expect("relative").local_dir(),
        Some(here.join("x/y"))
    );
    assert_eq!(
        dir("s3://bucket/sp"),
        Err("cannot open s3://bucket/sp: the scheme \"s3\" is not supported. Supported today: a plain path, or file:///PATH.".into())
    );
    assert_eq!(
        dir(""),
        Err("\"\" is not a location: it is empty. Give a plain path, or file:///PATH.".into())
    );
    assert_eq!(
        dir("file://host/a"),
        Err("\"file://host/a\" is not a location: a file URL needs an absolute path. Give a plain path, or file:///PATH.".into())
    );
    assert_eq!(
        dir("file:///a%2"),
        Err("\"file:///a%2\" is not a location: a % in a URL needs two hex digits after it. Give a plain path, or file:///PATH.".into())
    );
}

#[test]
fn causes_are_said_in_plain_words() {
    let text = |kind: std::io::ErrorKind| {
        let source = object_store::Error::Generic {
            store: "x",
            source: Box::new(std::io::Error::from(kind)),
        };
        StoreError::from_object_store(source, "write", "file:///a/b".into(), 12).to_string()
    };
    assert_eq!(
        text(std::io::ErrorKind::StorageFull),
        "no space left writing file:///a/b (12 bytes needed). Free some space, or choose another directory."
    );
    assert_eq!(
        text(std::io::ErrorKind::PermissionDenied),
        "no permission to write file:///a/b. Check its owner and mode, or choose another directory."
    );
    assert_eq!(
        text(std::io::ErrorKind::TimedOut),
        "cannot write file:///a/b: timed out"
    );
}

#[tokio::test]
async fn a_large_file_is_written_in_blocks_until_it_is_cancelled() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = Storage::open(dir.path().to_str().expect("UTF-8")).expect("a path");
    let bytes = bytes::Bytes::from((0..20u32 << 20).map(|i| (i >> 9) as u8).collect::<Vec<u8>>());
    let cancellation = Cancellation::default();
    let put = |name| storage.put_unless_cancelled(name, bytes.clone(), &cancellation);
    put("whole").await.expect("written");
    assert!(storage.read("whole").await.expect("read") == bytes);
    // The first step of the write is under way when it is cancelled.
    let (written, ()) = tokio::join!(put("part"), async { cancellation.cancel() });
    let error = written.expect_err("cancelled");
    assert!(matches!(error, StoreError::Cancelled { .. }) && !error.may_pass());
    assert_eq!(
        error.to_string(),
        format!("the work on {}/part was cancelled", storage.url())
    );
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("list").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    put("small").await.expect_err("nothing begins any more");
}
