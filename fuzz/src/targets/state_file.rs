//! A state file: Parquet with a checksum, which an attacker can make as well as the file.
//!
//! An input is a line of JSON with what `_metadata` says of the file, followed by the file.

use bytes::Bytes;
use regraft::savepoint::budget::Budget;
use regraft::savepoint::rows::{
    EncodedStateFile, Entries, GroupExtent, Layout, RowsError, RowsOf, StateFileSpec, StateFileWriter, StateRows,
    read_state_file,
};
use regraft::state::rows::{NEVER, timer_entry};
use regraft_model::key_group::{KeyGroup, KeyGroupRange, hash32, key_group};
use regraft_model::schema::{Field, Type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::typed::{self, WORDS};
use super::{Target, check_error};
use crate::random::Random;
use crate::{mutate, tree};

pub(super) const TARGET: Target = Target {
    name: "state-file",
    run,
    mutate: change,
    generate,
    len_max: 32 << 10,
    memory_max: |len| (64 << 20) + len * 2000,
};

/// The parts of `_metadata` that are needed to read a file.
struct Known {
    layout: Layout,
    state: String,
    key: Field,
    entries: Kind,
    value: Type,
    schema: u16,
    range: KeyGroupRange,
    groups: Vec<GroupExtent>,
}

/// The columns of a row beside its key and value.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    None,
    List,
    Map(Type),
    Timers,
    Items,
}

impl Known {
    fn read(line: &[u8]) -> Option<Self> {
        let json: Value = serde_json::from_slice(line).ok()?;
        let part = |name: &str| json.get(name).cloned();
        Some(Self {
            layout: serde_json::from_value(part("layout")?).ok()?,
            state: serde_json::from_value(part("state")?).ok()?,
            key: serde_json::from_value(part("key")?).ok()?,
            entries: match part("entries") {
                Some(entries) => serde_json::from_value(entries).ok()?,
                None => Kind::None,
            },
            value: serde_json::from_value(part("value")?).ok()?,
            schema: serde_json::from_value(part("schema")?).ok()?,
            range: serde_json::from_value(part("range")?).ok()?,
            groups: serde_json::from_value(part("groups")?).ok()?,
        })
    }

    fn write(&self) -> Value {
        json!({
            "layout": self.layout, "state": self.state, "key": self.key, "entries": self.entries, "value": self.value,
            "schema": self.schema, "range": self.range, "groups": self.groups,
        })
    }

    const fn spec(&self) -> StateFileSpec<'_> {
        StateFileSpec {
            layout: self.layout,
            state: self.state.as_str(),
            key: &self.key,
            entries: match &self.entries {
                Kind::None => Entries::None,
                Kind::List => Entries::List,
                Kind::Map(key) => Entries::Map(key),
                Kind::Timers => Entries::Timers,
                Kind::Items => Entries::Items,
            },
            value: &self.value,
            schema: self.schema,
            expires: true,
        }
    }
}

/// Splits an input into the line and the file.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

fn join(line: &Value, file: &[u8]) -> Vec<u8> {
    [line.to_string().as_bytes(), b"\n", file].concat()
}

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let (line, file) = split(data);
    let Ok(mut json) = serde_json::from_slice::<Value>(line) else {
        return mutate::text(random, data, other, &WORDS);
    };
    let mut file = file.to_vec();
    match random.below(8) {
        0 | 1 => tree::change(random, &mut json, &WORDS),
        2 => mutate::bytes(random, &mut file, split(other).1),
        3 => {
            // The file of one input with the line of another one.
            if let Ok(foreign) = serde_json::from_slice(split(other).0) {
                json = foreign;
            }
        }
        4 => {
            // The head of the first page.
            let len = file.len().min(60);
            let mut head: Vec<u8> = file.drain(..len).collect();
            mutate::bytes(random, &mut head, b"\x00\x15\x80\xff");
            file.splice(..0, head);
        }
        _ => {
            // Behind the pages: the footer, which says where they are.
            let footer = file.len().checked_sub(8).and_then(|at| {
                let len = u32::from_le_bytes(*file[at..].first_chunk()?) as usize;
                at.checked_sub(len)
            });
            let mut tail = file.split_off(footer.unwrap_or(file.len() / 2));
            let end = tail.split_off(tail.len().saturating_sub(8));
            mutate::bytes(random, &mut tail, b"\x00\x15\x80\xff");
            // Most often the length of the footer is corrected.
            let len = u32::try_from(tail.len()).unwrap_or(0).to_le_bytes();
            file.extend(tail);
            file.extend(if random.one_in(8) {
                end
            } else {
                [&len, b"PAR1".as_slice()].concat()
            });
        }
    }
    *data = join(&json, &file);
}

fn generate(random: &mut Random) -> Vec<u8> {
    let mut known = Known {
        layout: if random.one_in(3) {
            Layout::Native
        } else {
            Layout::Canonical
        },
        state: (*random.pick(&["count", "key", "_exact", "Key", ""])).to_owned(),
        key: Field {
            name: "key".to_owned(),
            ty: typed::ty(random, 2),
            aliases: vec![],
            default: false,
        },
        entries: match random.below(6) {
            0 => Kind::List,
            1 => Kind::Map(typed::ty(random, 2)),
            2 => Kind::Timers,
            3 => Kind::Items,
            _ => Kind::None,
        },
        value: typed::ty(random, 3),
        schema: 1,
        range: KeyGroupRange { first: 0, last: 127 },
        groups: vec![],
    };
    match known.entries {
        Kind::Timers => known.value = Type::Unit,
        Kind::Items => known.key.ty = Type::U64,
        _ => {}
    }
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..random.length(40) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let made = typed::value(random, &known.key.ty);
        regraft_model::value::encode_key(&known.key.ty, &made, &mut key).expect("of its type");
        let made = typed::value(random, &known.value);
        regraft_model::value::encode(&known.value, &made, &mut value).expect("of its type");
        let group = match known.entries {
            Kind::Items => 0,
            _ => key_group(hash32(&key), 128).0,
        };
        let expires = if random.one_in(3) { 1_700_000_000_000 } else { NEVER };
        rows.push((group, key, entry(random, &known.entries), value, 1, expires));
    }
    rows.sort();
    rows.dedup_by(|a, b| (&a.1, &a.2) == (&b.1, &b.2));
    let file = encode(&known, &rows);
    let (groups, bytes) = file.map_or_else(|_| (vec![], Bytes::new()), |file| (file.groups, file.bytes));
    known.groups = groups;
    join(&known.write(), &bytes)
}

fn entry(random: &mut Random, kind: &Kind) -> Vec<u8> {
    let mut entry = Vec::new();
    match kind {
        Kind::None | Kind::Items => {}
        Kind::List => entry.extend((random.below(300) as u64).to_be_bytes()),
        Kind::Map(ty) => {
            let made = typed::value(random, ty);
            regraft_model::value::encode_key(ty, &made, &mut entry).expect("of its type");
        }
        Kind::Timers => timer_entry(
            random.below(300) as i64 - 100,
            random.pick::<&str>(&["gap", "alarm", ""]),
            &mut entry,
        ),
    }
    entry
}

/// A row: key group, key, entry key, value, schema number, expiry time.
type Row = (u16, Vec<u8>, Vec<u8>, Vec<u8>, u16, i64);

fn encode(known: &Known, rows: &[Row]) -> Result<EncodedStateFile, RowsError> {
    let mut writer = StateFileWriter::new(&known.spec())?;
    for group in rows.chunk_by(|a, b| a.0 == b.0) {
        let mut columns = StateRows::new(KeyGroup(group[0].0), RowsOf::State(0));
        for (_, key, entry, value, schema, expires) in group {
            columns.keys.push(key);
            if known.spec().entries.have_keys() {
                columns.entry_keys.push(entry);
            }
            columns.values.push(value);
            columns.schemas.push(*schema);
            columns.expires.push(*expires);
        }
        writer.write_group(&columns)?;
    }
    writer.finish()
}

/// Returns all rows, in order.
fn all(read: &[StateRows]) -> Vec<Row> {
    let rows = read.iter().flat_map(|rows| {
        let row = |i| {
            (
                rows.group.0,
                rows.keys.get(i).to_vec(),
                rows.entry_key(i).unwrap_or_default().to_vec(),
                rows.values.get(i).to_vec(),
                rows.schemas[i],
                rows.expires_at(i),
            )
        };
        (0..rows.len()).map(row)
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort();
    rows
}

fn run(data: &[u8]) -> bool {
    let (line, file) = split(data);
    let Some(known) = Known::read(line) else { return false };
    if known.layout == Layout::Canonical && known.schema == 0 {
        // A `_metadata` that says so is not accepted: rows would have no schema.
        return false;
    }
    let budget = Budget::new((48 << 20) + data.len() as u64 * 1000);
    let read = read_state_file(
        Bytes::copy_from_slice(file),
        &known.spec(),
        known.range,
        &known.groups,
        &budget,
    );
    let rows = match read {
        Ok(rows) => rows,
        Err(error) => {
            check_error(&error.to_string(), "", 4000 + 20 * data.len());
            return false;
        }
    };
    for group in &rows {
        assert!(
            known.range.contains(group.group),
            "key group {} is not wanted",
            group.group.0
        );
        let columns = [group.keys.len(), group.values.len(), group.schemas.len()];
        assert!(columns.iter().all(|len| *len == group.len()) && !group.is_empty());
    }
    assert!(
        rows.is_sorted_by(|a, b| a.group.0 < b.group.0),
        "a key group is there twice, or out of order"
    );
    let rows = all(&rows);
    match encode(&known, &rows) {
        Ok(file) => {
            let again = read_state_file(
                file.bytes,
                &known.spec(),
                known.range,
                &file.groups,
                &Budget::unlimited(),
            );
            assert_eq!(rows, all(&again.expect("what was written can be read")));
        }
        // Another tool may write keys in a JSON form that is not restored byte for byte.
        Err(RowsError::InexactKey { .. }) => {}
        Err(error) => panic!("what was read cannot be written: {error}"),
    }
    true
}
