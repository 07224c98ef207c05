//! A small savepoint for tests: source `lines`, stateful operator `count` at parallelism 2, sink `out`.

use bytes::Bytes;
use regraft_model::describe::{Description, StateDescription, StateKind, WIT_VERSION};
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid, SubtaskIndex};
use regraft_model::key_group::{hash32, key_group, range_of};
use regraft_model::schema::{Field, Type};
use serde_json::json;

use super::load::Savepoint;
use super::metadata::{
    EntryKind, GraphEdge, GraphNode, Metadata, MetadataError, OperatorEntry, Owner, SavedStateKind, SinkEntry,
    SnapshotKind, SourceEntry, SplitEntry, StateEntry, StateFile, Trigger,
};
use super::publish;
use super::rows::{Entries, Layout, RowsOf, StateFileSpec, StateFileWriter, StateRows};
use crate::environment::real::RealEnvironment;
use crate::graph::job_graph::SettingOrigin;
use crate::storage::{Storage, paths};

pub(super) fn uid(text: &str) -> OperatorUid {
    OperatorUid::new(text).expect("uid")
}

pub(super) fn field(name: &str, ty: Type) -> Field {
    Field {
        name: name.into(),
        ty,
        aliases: vec![],
        default: false,
    }
}

pub(super) fn storage() -> Storage {
    Storage::in_memory("savepoint-a1b2c3-000000000001")
}

/// Declaration of `count`.
pub(super) fn description() -> Description {
    Description {
        wit: WIT_VERSION.into(),
        key: Some(field("word", Type::String)),
        states: vec![StateDescription {
            name: "count".into(),
            kind: StateKind::Value,
            schema: Type::U64,
            map_key: None,
            travels: true,
            ttl_ms: None,
            version: None,
        }],
        ..Description::default()
    }
}

/// Words `w0`, `w1`, … in the key groups of a subtask, each counted as often as its number.
pub(super) fn rows(words: u8, subtask: u32) -> Vec<StateRows> {
    let range = range_of(subtask, 2, 128);
    let group_rows = |group| {
        let mut rows = StateRows::new(group, RowsOf::State(0));
        for i in 0..words {
            let word = format!("w{i}");
            if key_group(hash32(word.as_bytes()), 128) == group {
                rows.keys.push(word.as_bytes());
                rows.values.push(&[i]);
                rows.schemas.push(1);
            }
        }
        rows
    };
    range
        .iter()
        .map(group_rows)
        .filter(|rows: &StateRows| !rows.is_empty())
        .collect()
}

async fn state_file(storage: &Storage, subtask: u32) -> StateFile {
    let key = field("word", Type::String);
    let spec = StateFileSpec {
        layout: Layout::Canonical,
        state: "count",
        key: &key,
        entries: Entries::None,
        value: &Type::U64,
        schema: 1,
        expires: false,
    };
    let mut writer = StateFileWriter::new(&spec).expect("schema");
    for rows in rows(200, subtask) {
        writer.write_group(&rows).expect("rows");
    }
    let name = paths::StateFileName::State("count");
    let path = paths::state_file(&uid("count"), SubtaskIndex(subtask), u128::from(subtask), name);
    let file = writer.finish().expect("in memory");
    storage.put(&path, file.bytes.clone()).await.expect("put");
    publish::state_file(path, file, SubtaskIndex(subtask), 1, range_of(subtask, 2, 128))
}

fn node(name: &str, kind: EntryKind, parallelism: u32, from: &[&str]) -> GraphNode {
    let edge = |from: &&str| GraphEdge {
        from: uid(from),
        port: None,
        by: "key".into(),
    };
    GraphNode {
        uid: uid(name),
        kind,
        parallelism,
        inputs: from.iter().map(edge).collect(),
    }
}

pub(super) fn entry(name: &str, kind: EntryKind, parallelism: u32) -> OperatorEntry {
    OperatorEntry {
        uid: uid(name),
        kind,
        parallelism,
        module: None,
        description: None,
        states: vec![],
        source: None,
        sink: None,
        watermarks: vec![],
        finished: false,
        finished_subtasks: vec![],
        subtasks: vec![],
    }
}

/// The entry of a keyed state.
pub(super) fn state_entry(name: &str, schema: Type, files: Vec<StateFile>) -> StateEntry {
    let key = field("word", Type::String);
    StateEntry {
        name: name.into(),
        kind: SavedStateKind::Value,
        digest: schema.digest().to_string(),
        schemas: vec![schema.clone()],
        schema,
        key_digest: Some(key.ty.digest().to_string()),
        key: Some(key),
        map_key: None,
        timers: vec![],
        files,
        empty: vec![],
    }
}

/// Writes all files but `_metadata`, and answers that.
pub(super) async fn write_files(storage: &Storage) -> Metadata {
    let sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let module = publish::module_file(paths::module(sha256), sha256, b"test");
    storage
        .put(&module.path, Bytes::from_static(b"test"))
        .await
        .expect("put");
    let files = vec![state_file(storage, 0).await, state_file(storage, 1).await];
    let splits = ["b.txt", "a.txt", "c.txt"].map(|name| SplitEntry {
        split: name.into(),
        position: json!({"offset": 10, "line": 2}),
        finished: name == "c.txt",
    });
    let mut lines = entry("lines", EntryKind::Source, 1);
    lines.source = Some(SourceEntry {
        connector: "file".into(),
        identity: json!({"path": "in/*.txt"}),
        splits: splits.to_vec(),
        state: serde_json::Value::Null,
    });
    let mut count = entry("count", EntryKind::Operator, 2);
    count.module = Some(sha256.into());
    count.description = Some(description());
    count.states = vec![state_entry("count", Type::U64, files)];
    count.watermarks = vec![5, 3];
    let mut out = entry("out", EntryKind::Sink, 1);
    out.sink = Some(SinkEntry {
        connector: "file".into(),
        identity: json!({"path": "out"}),
        handles: vec![json!({"pending": "out/.pending/p1"})],
        state: serde_json::Value::Null,
    });
    let parallelism = [("parallelism".into(), "2".into())].into();
    Metadata {
        format: Layout::Canonical,
        kind: SnapshotKind::Savepoint,
        trigger: Trigger::Manual,
        owner: Owner::User,
        label: None,
        job_name: "word-count".into(),
        job_id: JobId::from_bits(0xa1b2_c3d4_e5f6_0718_293a_4b5c_6d7e_8f90),
        attempt: AttemptId(1),
        job_version: JobVersion(1),
        lineage: vec![],
        checkpoint_id: CheckpointId(7),
        triggered_at_ms: 1_000,
        completed_at_ms: 1_036,
        host_version: "0.1.0".into(),
        wit_version: WIT_VERSION.into(),
        job_file: "name = \"word-count\"\n".into(),
        settings: [(SettingOrigin::CommandLine, parallelism)].into(),
        graph: vec![
            node("lines", EntryKind::Source, 1, &[]),
            node("split", EntryKind::Operator, 1, &["lines"]),
            node("count", EntryKind::Operator, 2, &["split"]),
            node("out", EntryKind::Sink, 1, &["count"]),
        ],
        arguments: vec!["--fast".into()],
        max_parallelism: 128,
        modules: vec![module],
        operators: vec![lines, entry("split", EntryKind::Operator, 1), count, out],
    }
}

/// A published savepoint.
pub(crate) async fn savepoint() -> Savepoint {
    let storage = storage();
    let metadata = write_files(&storage).await;
    publish(&storage, &metadata).await.expect("sound");
    Savepoint { storage, metadata }
}

/// Publishes where nothing has to be tried again.
pub(super) async fn publish(storage: &Storage, metadata: &Metadata) -> Result<u64, MetadataError> {
    let published = publish::publish(&RealEnvironment::default(), storage, metadata).await?;
    Ok(published.bytes)
}
