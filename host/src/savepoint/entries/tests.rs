//! Entries of every kind, from files written as checkpoints and savepoints write them.

use bytes::Bytes;
use regraft_model::id::SubtaskIndex;
use regraft_model::key_group::{KeyGroup, hash32, key_group};
use regraft_model::value::{encode, encode_key};

use super::*;
use crate::savepoint::metadata::{SavedStateKind, StateFile};
use crate::savepoint::publish;
use crate::savepoint::rows::{Layout, RowsOf, StateFileSpec, StateFileWriter};
use crate::savepoint::test_data::{self, uid};
use crate::state::rows::timer_entry;

/// A row of a file: key, entry key, value as a `u64` (`None` if removed), time of expiry.
type Written<'a> = (&'a str, Vec<u8>, Option<u64>, i64);

fn state(kind: SavedStateKind) -> StateEntry {
    let ty = if kind == SavedStateKind::Timers {
        Type::Unit
    } else {
        Type::U64
    };
    let mut state = test_data::state_entry("s", ty, vec![]);
    state.kind = kind;
    state.map_key = (kind == SavedStateKind::Map).then_some(Type::String);
    if !kind.is_keyed() {
        (state.key, state.key_digest) = (None, None);
    }
    state
}

async fn put(savepoint: &Savepoint, state: &mut StateEntry, subtask: u32, increment: bool, rows: &[Written<'_>]) {
    let key_field = state.key_field();
    let spec = StateFileSpec {
        layout: Layout::Native,
        state: "s",
        key: &key_field,
        entries: state.entries_of_key(),
        value: &state.schema,
        schema: 1,
        expires: true,
    };
    let mut groups: BTreeMap<u16, StateRows> = BTreeMap::new();
    for (key, entry, value, expires) in rows {
        let mut key_bytes = vec![];
        let group = if state.kind.is_keyed() {
            key_bytes.extend_from_slice(key.as_bytes());
            key_group(hash32(&key_bytes), 128)
        } else {
            let position = Value::Unsigned(key.parse().expect("a position"));
            encode_key(&Type::U64, &position, &mut key_bytes).expect("u64");
            KeyGroup(0)
        };
        let rows = groups
            .entry(group.0)
            .or_insert_with(|| StateRows::new(group, RowsOf::State(0)));
        let mut bytes = vec![];
        if let (Some(value), false) = (value, state.kind == SavedStateKind::Timers) {
            encode(&Type::U64, &Value::Unsigned(*value), &mut bytes).expect("u64");
        }
        rows.keys.push(&key_bytes);
        if state.entries_of_key().have_keys() {
            rows.entry_keys.push(entry);
        }
        rows.values.push(&bytes);
        rows.schemas.push(u16::from(value.is_some()));
        rows.expires.push(*expires);
    }
    let mut writer = StateFileWriter::new(&spec).expect("schema");
    groups.values().for_each(|rows| writer.write_group(rows).expect("rows"));
    let file = writer.finish().expect("in memory");
    let path = format!("operators/{}-{subtask}", state.files.len());
    savepoint
        .storage
        .put(&path, Bytes::clone(&file.bytes))
        .await
        .expect("put");
    let range = KeyGroupRange { first: 0, last: 127 };
    let mut file: StateFile = publish::state_file(path, file, SubtaskIndex(subtask), 0, range);
    file.increment = increment;
    state.files.push(file);
}

async fn native() -> Savepoint {
    let mut savepoint = test_data::savepoint().await;
    savepoint.metadata.format = Layout::Native;
    savepoint
}

async fn lines(savepoint: &Savepoint, state: &StateEntry) -> Vec<String> {
    let entries = read(savepoint, &uid("count"), state, &Budget::unlimited())
        .await
        .expect("sound");
    entries.iter().map(|entry| entry.line(|ms| ms.to_string())).collect()
}

#[tokio::test]
async fn entries_of_every_kind_in_order() {
    let savepoint = native().await;
    let timer = |time, name| {
        let mut entry = vec![];
        timer_entry(time, name, &mut entry);
        entry
    };
    let index = |index: u64| index.to_be_bytes().to_vec();
    let mut map = state(SavedStateKind::Map);
    let rows = [
        ("a", b"y".to_vec(), Some(2), NEVER),
        ("a", b"x".to_vec(), Some(1), 77),
        ("b", b"z".to_vec(), Some(3), NEVER),
    ];
    put(&savepoint, &mut map, 0, false, &rows).await;
    assert_eq!(
        lines(&savepoint, &map).await,
        [r#""b"["z"]: 3"#, r#""a"["x"]: 1 (expires at 77)"#, r#""a"["y"]: 2"#]
    );
    let mut list = state(SavedStateKind::List);
    let rows = [
        ("a", index(300), Some(2), NEVER),
        ("a", index(7), Some(1), NEVER),
        ("b", index(1), Some(3), NEVER),
    ];
    put(&savepoint, &mut list, 0, false, &rows).await;
    assert_eq!(
        lines(&savepoint, &list).await,
        [r#""b"[0]: 3"#, r#""a"[0]: 1"#, r#""a"[1]: 2"#]
    );
    let mut timers = state(SavedStateKind::Timers);
    let rows = [
        ("a", timer(5, "gap"), Some(0), NEVER),
        ("a", timer(-5, "gap"), Some(0), NEVER),
    ];
    put(&savepoint, &mut timers, 0, false, &rows).await;
    assert_eq!(
        lines(&savepoint, &timers).await,
        [r#""a" gap at -5"#, r#""a" gap at 5"#]
    );
    let mut items = state(SavedStateKind::OperatorList);
    put(&savepoint, &mut items, 1, false, &[("0", vec![], Some(9), NEVER)]).await;
    let rows = [("256", vec![], Some(8), NEVER), ("1", vec![], Some(7), NEVER)];
    put(&savepoint, &mut items, 0, false, &rows).await;
    assert_eq!(lines(&savepoint, &items).await, ["[0]: 7", "[1]: 8", "[2]: 9"]);
}

#[tokio::test]
async fn increments_replace_and_remove() {
    let savepoint = native().await;
    let mut value = state(SavedStateKind::Value);
    let rows = [("a", vec![], Some(1), NEVER), ("b", vec![], Some(2), NEVER)];
    put(&savepoint, &mut value, 0, false, &rows).await;
    let rows = [("a", vec![], None, NEVER), ("b", vec![], Some(5), NEVER)];
    put(&savepoint, &mut value, 0, true, &rows).await;
    put(&savepoint, &mut value, 0, true, &[("c", vec![], Some(6), NEVER)]).await;
    let mut lines = lines(&savepoint, &value).await;
    lines.sort();
    assert_eq!(lines, [r#""b": 5"#, r#""c": 6"#]);
}

#[tokio::test]
async fn a_value_that_is_none_names_the_state() {
    let savepoint = native().await;
    let mut value = state(SavedStateKind::Value);
    put(&savepoint, &mut value, 0, false, &[("a", vec![], Some(1), NEVER)]).await;
    (value.schema, value.schemas) = (Type::String, vec![Type::String]);
    let error = read(&savepoint, &uid("count"), &value, &Budget::unlimited())
        .await
        .expect_err("no string");
    assert_eq!(
        error.to_string(),
        "store:///savepoint-a1b2c3-000000000001/operators/0-0 cannot be read: state \"count/s\": a value of key group 88 is not a string: the value ends after 1 bytes, inside a string"
    );
}
