//! The splits of a source as a snapshot has them: rows of a file of positions, and their positions as a file source takes
//! them. Whatever they say, only files that the source's own glob matches are opened.
//!
//! An input is a JSON list. An item has a `split`, and its `position` as JSON, or as `text` that is to be JSON.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regraft::connector::source::{Polled, SourceConnector as _, SourceContext, SplitState};
use regraft::connectors::file::settings::{FileSource, LineKey, OnTruncate};
use regraft::environment::files::{FileId, FileInfo, FileKind, FileSystem, ReadFile, WriteFile};
use regraft::savepoint::budget::Budget;
use regraft::savepoint::metadata::StateFile;
use regraft::savepoint::positions::PositionsOf;
use regraft::state::rows::{RowsOf, StateRows};
use regraft_model::id::SubtaskIndex;
use regraft_model::key_group::{KeyGroup, KeyGroupRange};
use regraft_model::schema::Type;
use regraft_model::value::{self, Value as Encoded};
use serde_json::{Value, json};

use super::{Target, check_error};
use crate::random::Random;
use crate::{mutate, tree};

pub(super) const TARGET: Target = Target {
    name: "splits",
    run,
    mutate: change,
    generate,
    len_max: 32 << 10,
    memory_max: |len| (16 << 20) + len * 1000,
};

const WORDS: [&str; 16] = [
    "split",
    "position",
    "text",
    "offset",
    "line",
    "file",
    "path",
    "/in/a.txt",
    "/in/b.txt",
    "/in/../etc/secret.txt",
    "/in//a.txt",
    "/etc/secret.txt",
    "1.1.0.4.0.0.0",
    "1.3.0.c.0.0.0",
    "{\"offset\":0,\"line\":0}",
    "..",
];

/// The files that there are: two that the source reads, and one that it must not.
const FILES: [(&str, &str); 3] = [
    ("/in/a.txt", "1\n2\n3\n"),
    ("/in/b.txt", "7\n"),
    ("/etc/secret.txt", "root:secret\n"),
];

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    match serde_json::from_slice::<Value>(data) {
        Ok(mut value) if !random.one_in(6) => {
            for _ in 0..1 + random.length(3) {
                tree::change(random, &mut value, &WORDS);
            }
            *data = value.to_string().into_bytes();
        }
        _ => mutate::text(random, data, other, &WORDS),
    }
}

fn generate(random: &mut Random) -> Vec<u8> {
    let item = |random: &mut Random| {
        let (name, _) = *random.pick(&FILES);
        let inode = random.below(4);
        json!({
            "split": *random.pick(&WORDS),
            "position": {
                "offset": random.below(9), "line": random.below(3), "path": name,
                "file": format!("1.{inode}.0.{:x}.0.0.{:016x}", random.below(20), random.below(3)),
            },
        })
    };
    let items: Vec<Value> = (0..random.length(5)).map(|_| item(random)).collect();
    Value::from(items).to_string().into_bytes()
}

fn run(data: &[u8]) -> bool {
    let Ok(Value::Array(items)) = serde_json::from_slice(data) else {
        return false;
    };
    let saved = match positions(&items) {
        Ok(saved) => saved,
        Err(error) => {
            check_error(&error, "", 2000 + 20 * data.len());
            return false;
        }
    };
    let mut is_accepted = false;
    for (watch, on_truncate) in [
        (false, OnTruncate::Fail),
        (true, OnTruncate::Fail),
        (true, OnTruncate::Restart),
    ] {
        is_accepted |= read(&saved, watch, on_truncate, data.len());
    }
    is_accepted
}

/// Takes the splits through the rows of a file, as a restore does.
fn positions(items: &[Value]) -> Result<Vec<SplitState>, String> {
    let mut rows = StateRows::new(KeyGroup(0), RowsOf::State(0));
    for item in items {
        let text = match (&item["text"], &item["position"]) {
            (Value::String(text), _) => text.clone(),
            (_, position) => position.to_string(),
        };
        let mut encoded = vec![];
        value::encode(&Type::String, &Encoded::Text(text), &mut encoded).expect("a text");
        rows.keys.push(item["split"].as_str().unwrap_or_default().as_bytes());
        rows.values.push(&encoded);
        rows.schemas.push(1);
    }
    let file = StateFile {
        path: "positions".to_owned(),
        subtask: SubtaskIndex(0),
        schema: 0,
        key_groups: KeyGroupRange { first: 0, last: 0 },
        groups: vec![],
        entries: items.len() as u64,
        bytes: 0,
        checksum: String::new(),
        footer: None,
        increment: false,
    };
    let mut positions = PositionsOf::default();
    positions.add(&file, &[rows], &Budget::new(8 << 20))?;
    Ok(positions.splits().collect())
}

/// Opens the source with the splits and reads a little. Returns true if it takes them.
fn read(saved: &[SplitState], watch: bool, on_truncate: OnTruncate, len: usize) -> bool {
    let source = FileSource {
        path: "/in/*.txt".to_owned(),
        relative: Some(("in/*.txt".to_owned(), PathBuf::from("/"))),
        watch,
        poll: Duration::from_nanos(1),
        key: LineKey::None,
        on_truncate,
        max_record: 1000,
    };
    let files: Arc<dyn FileSystem> = Arc::new(Files);
    let assigned = match source.assign(&*files, saved.to_vec()) {
        Ok(assigned) => assigned,
        Err(error) => {
            check_error(&error.to_string(), "", 4000 + 20 * len);
            return false;
        }
    };
    let context = SourceContext {
        files,
        subtask: 0,
        parallelism: 1,
        timestamp: None,
        known: Arc::new(assigned.clone()),
    };
    let Ok(mut reader) = source.reader(&context, assigned) else {
        return false;
    };
    for now in 1..8 {
        match reader.poll(2, now) {
            Ok(Polled::Batch(batch)) => {
                let is_secret = batch.values.iter().any(|line| line.starts_with(b"root"));
                assert!(!is_secret, "a file outside of the glob was read");
            }
            Ok(Polled::Idle(_)) => {}
            Ok(Polled::Exhausted) | Err(_) => break,
        }
    }
    for state in reader.snapshot() {
        assert!(
            reader.position(&state.split).is_some(),
            "{:?} is not found",
            state.split
        );
    }
    true
}

/// A file system with [`FILES`]. It panics if a file outside of the glob is opened.
#[derive(Debug)]
struct Files;

#[derive(Debug)]
struct File(usize);

fn info(at: usize) -> FileInfo {
    FileInfo {
        kind: FileKind::File,
        len: FILES[at].1.len() as u64,
        id: FileId {
            device: 1,
            inode: at as u64 + 1,
            born_ns: 0,
        },
        modified_ns: 1,
        changed_ns: 1,
    }
}

/// Returns the number of a file. `..` and empty parts lead where they do on a real one.
fn find(path: &Path) -> io::Result<usize> {
    let mut parts = vec![];
    for part in path.to_string_lossy().split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part.to_owned()),
        }
    }
    let path = format!("/{}", parts.join("/"));
    let at = FILES.iter().position(|(name, _)| *name == path);
    at.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl ReadFile for File {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = FILES[self.0].1.as_bytes();
        let rest = content
            .get(usize::try_from(position).unwrap_or(usize::MAX)..)
            .unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn info(&self) -> io::Result<FileInfo> {
        Ok(info(self.0))
    }
}

fn unused<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl FileSystem for Files {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let name = path.to_str().and_then(|path| path.strip_prefix("/in/"));
        let is_in_glob = name.is_some_and(|name| name.ends_with(".txt") && !name.contains('/'));
        assert!(is_in_glob, "{} was opened", path.display());
        Ok(Box::new(File(find(path)?)))
    }

    fn is_link(&self, _: &Path) -> io::Result<bool> {
        Ok(false)
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        if path == Path::new("/") || path == Path::new("/in") {
            let kind = FileKind::Dir;
            return Ok(FileInfo { kind, ..info(0) });
        }
        find(path).map(info)
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        unused()
    }

    fn append(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        unused()
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        unused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        unused()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unused()
    }

    fn rename_new(&self, _: &Path, _: &Path) -> io::Result<()> {
        unused()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        unused()
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        unused()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        unused()
    }

    fn exists(&self, path: &Path) -> bool {
        find(path).is_ok()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        match path == Path::new("/in") {
            true => Ok(vec!["a.txt".to_owned(), "b.txt".to_owned()]),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
