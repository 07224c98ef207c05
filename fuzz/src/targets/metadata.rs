//! `_metadata`, with and without a correct checksum, and the decisions that are based on it.
//!
//! An input is the payload, or the whole file. Its checksum is corrected, since an attacker can do that too.

use regraft::cli::state::text::text;
use regraft::savepoint::load::Savepoint;
use regraft::savepoint::metadata::{Metadata, MetadataError, Owner, seal};
use regraft::savepoint::restore::{NewJob, NewNode, RestoreOptions, plan_restore};
use regraft::savepoint::show::show;
use regraft::storage::Storage;
use regraft_model::schema::Type;
use serde_json::{Value, json};

use super::{Target, check_error};
use crate::random::Random;
use crate::{mutate, tree};

pub(super) const TARGET: Target = Target {
    name: "metadata",
    run,
    mutate: change,
    generate,
    len_max: 64 << 10,
    memory_max: |len| (8 << 20) + len * 2000,
};

/// Keys and words of the format.
const WORDS: [&str; 66] = [
    "format",
    "canonical",
    "native",
    "kind",
    "checkpoint",
    "savepoint",
    "stop",
    "upgrade",
    "end-of-input",
    "trigger",
    "manual",
    "periodic",
    "owner",
    "user",
    "host",
    "label",
    "job_name",
    "job_id",
    "lineage",
    "checkpoint_id",
    "graph",
    "uid",
    "count",
    "lines",
    "out",
    "source",
    "operator",
    "sink",
    "parallelism",
    "inputs",
    "from",
    "port",
    "by",
    "key",
    "modules",
    "sha256",
    "path",
    "bytes",
    "checksum",
    "operators",
    "states",
    "value",
    "list",
    "map",
    "timers",
    "operator-list",
    "operator-union",
    "operator-broadcast",
    "positions",
    "schema",
    "schemas",
    "files",
    "key_groups",
    "groups",
    "entries",
    "splits",
    "position",
    "handles",
    "identity",
    "watermarks",
    "finished",
    "finished_subtasks",
    "../x",
    "_metadata",
    "u64",
    "string",
];

const PAYLOAD: &[u8] = b",\"payload\":";

/// Returns the payload of a whole file, or all bytes of anything else.
fn payload(data: &[u8]) -> &[u8] {
    let at = data.windows(PAYLOAD.len()).position(|window| window == PAYLOAD);
    match at {
        Some(at) if data.starts_with(b"{\"format_version\"") => {
            let rest = &data[at + PAYLOAD.len()..];
            rest.strip_suffix(b"}\n").unwrap_or(rest)
        }
        _ => data,
    }
}

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    if !random.one_in(8)
        && let Ok(mut value) = serde_json::from_slice::<Value>(payload(data))
    {
        for _ in 0..1 + random.length(3) {
            tree::change(random, &mut value, &WORDS);
        }
        mend(random, &mut value);
        *data = value.to_string().into_bytes();
    } else {
        mutate::text(random, data, other, &WORDS);
    }
}

/// Often repairs values that a change has made inconsistent, so that not all inputs fail on the same few checks.
fn mend(random: &mut Random, root: &mut Value) {
    if random.one_in(3) {
        return;
    }
    for entry in items(root, "operators") {
        for state in items(entry, "states") {
            mend_state(state);
        }
    }
}

fn items<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

fn set(value: &mut Value, key: &str, new: Value) {
    if let Some(entries) = value.as_object_mut() {
        entries.insert(key.to_owned(), new);
    }
}

fn mend_state(state: &mut Value) {
    let digest = |ty: Option<&Value>| {
        let ty: Type = serde_json::from_value(ty?.clone()).ok()?;
        Some(json!(ty.digest().to_string()))
    };
    if let Some(newest) = items(state, "schemas").last().cloned() {
        set(state, "schema", newest);
    }
    if let Some(digest) = digest(state.get("schema")) {
        set(state, "digest", digest);
    }
    if let Some(digest) = digest(state.pointer("/key/type")) {
        set(state, "key_digest", digest);
    }
    for file in items(state, "files") {
        let rows = items(file, "groups").filter_map(|group| group.get("rows")?.as_u64());
        let rows = rows.fold(0, u64::saturating_add);
        set(file, "entries", json!(rows));
    }
}

fn generate(random: &mut Random) -> Vec<u8> {
    let mut value = json!({});
    for _ in 0..random.length(40) {
        tree::change(random, &mut value, &WORDS);
    }
    value.to_string().into_bytes()
}

const PATH: &str = "file:///sp/_metadata";

fn run(data: &[u8]) -> bool {
    check(data, Metadata::from_text(data, PATH));
    let Ok(payload) = std::str::from_utf8(payload(data)) else {
        return false;
    };
    let mended = seal(payload);
    check(mended.as_bytes(), Metadata::from_text(mended.as_bytes(), PATH))
}

fn check(file: &[u8], read: Result<Metadata, MetadataError>) -> bool {
    match read {
        Err(error) => {
            check_error(&error.to_string(), PATH, 2000 + file.len() * 200);
            false
        }
        Ok(metadata) => {
            assert_eq!(metadata.problems(), Vec::<String>::new());
            let text = metadata.to_text(PATH).expect("what was read can be written");
            let again = Metadata::from_text(text.as_bytes(), PATH).expect("what was written can be read");
            // Compared as text, since a NaN in a position is not equal to itself.
            assert_eq!(text, again.to_text(PATH).expect("as before"));
            check_use(metadata);
            true
        }
    }
}

/// Uses a `_metadata` as a host does once it has accepted it.
fn check_use(metadata: Metadata) {
    for (path, _) in metadata.files() {
        // A host's own snapshots share files; a user's savepoint can be moved as it is.
        let shared = path
            .strip_prefix("../shared/")
            .filter(|_| metadata.owner == Owner::Host);
        let path = shared.unwrap_or(path);
        let inside = path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
        assert!(inside, "{path:?} leads out of the savepoint");
    }
    for parallelism in [None, Some(1), Some(metadata.max_parallelism.min(5))] {
        check_restore(&metadata, parallelism);
    }
    let storage = Storage::open("/sp").expect("a path");
    let shown = show(&Savepoint { storage, metadata });
    check_error(&text(&shown, &[]), "", usize::MAX);
}

/// Plans a restore into the same job, at the same parallelism or another one.
fn check_restore(metadata: &Metadata, parallelism: Option<u32>) {
    let nodes = metadata.operators.iter().map(|entry| NewNode {
        uid: entry.uid.clone(),
        kind: entry.kind,
        parallelism: parallelism.unwrap_or(entry.parallelism),
        description: entry.description.clone(),
        connector: match (&entry.source, &entry.sink) {
            (Some(source), _) => Some(source.connector.clone()),
            (None, sink) => sink.as_ref().map(|sink| sink.connector.clone()),
        },
        identity: match (&entry.source, &entry.sink) {
            (Some(source), _) => source.identity.clone(),
            (None, sink) => sink.as_ref().map(|sink| sink.identity.clone()).unwrap_or_default(),
        },
    });
    let job = NewJob {
        nodes: nodes.collect(),
        max_parallelism: metadata.max_parallelism,
    };
    match plan_restore(PATH, metadata, &job, &RestoreOptions::default()) {
        Err(refusal) => check_error(&refusal.to_string(), PATH, 4000 + metadata.operators.len() * 4000),
        Ok(plan) => {
            for operator in &plan.operators {
                let node = job
                    .nodes
                    .iter()
                    .find(|node| node.uid == operator.uid)
                    .expect("of the job");
                assert_eq!(operator.subtasks.len(), node.parallelism as usize, "{}", operator.uid);
            }
        }
    }
}
