//! Makes savepoints as an attacker can: every checksum is correct, and the content is anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::FileReader as _;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use regraft::savepoint::metadata::{checksum, seal};
use regraft::savepoint::rows::{
    EncodedStateFile, Entries, GroupExtent, Layout, Place, StateFileSpec, StateFileWriter, StateRows,
};
use regraft::state::rows::RowsOf;
use regraft_model::key_group::{KeyGroup, hash32, key_group};
use regraft_model::schema::{Field, Type};
use serde_json::{Value, json};

/// Path of the file with the keyed state.
pub const STATE: &str = "operators/count-0-00000000-0000-4000-8000-000000000001.count.parquet";
/// Path of the file with the positions.
pub const POSITIONS: &str = "operators/lines-0-00000000-0000-4000-8000-000000000002.positions.parquet";
/// Places of these files in `_metadata`.
pub const STATE_AT: &str = "/operators/1/states/0/files/0";
pub const POSITIONS_AT: &str = "/operators/0/states/0/files/0";
/// Number of key groups.
pub const MAX_PARALLELISM: u32 = 128;

/// A savepoint of a job `lines` → `count` → `out` on disk, whose `_metadata` can be changed.
pub struct Forged {
    pub dir: PathBuf,
    /// Payload of `_metadata`.
    pub payload: Value,
}

/// A row to be written: key group, key, value.
pub type Row = (u16, Vec<u8>, Vec<u8>);

/// A row as it is in the file: key group, key, value, number of its schema.
pub type RawRow = (i32, Bytes, Bytes, i32);

/// The way in which values are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Each one after the other, and compressed.
    Plain,
    /// Equal ones once.
    Dictionary,
}

impl Forged {
    /// Makes a sound savepoint: 100 words with their counts, and the positions of three files.
    pub fn new(dir: &Path) -> Self {
        let mut forged = Self {
            dir: dir.to_owned(),
            payload: payload(),
        };
        std::fs::create_dir_all(dir.join("operators")).expect("directory");
        let words: Vec<Row> = (0..100).map(|n| counted(&format!("w{n}"), n)).collect();
        forged.put_state(&words);
        let splits: Vec<Row> = ["a", "b", "c"].map(|name| position(name, &at(3, 1))).into();
        forged.put_positions(&splits);
        forged.seal();
        forged
    }

    /// Returns the savepoint's path as an argument.
    pub fn path(&self) -> &str {
        self.dir.to_str().expect("UTF-8")
    }

    /// Writes `_metadata` with a correct checksum.
    pub fn seal(&self) {
        std::fs::write(self.dir.join("_metadata"), seal(&self.payload.to_string())).expect("written");
    }

    /// Writes rows as the keyed state, in the order of their key groups.
    pub fn put_state(&mut self, rows: &[Row]) {
        let key = field("word", Type::String);
        let file = encode(&key, Entries::None, &Type::Bytes, rows);
        self.put_file(STATE_AT, STATE, &file, 127);
    }

    /// Writes rows as the positions of the source.
    pub fn put_positions(&mut self, rows: &[Row]) {
        let key = field("split", Type::String);
        let file = encode(&key, Entries::None, &Type::String, rows);
        self.put_file(POSITIONS_AT, POSITIONS, &file, 0);
    }

    /// Writes a state file and its entry in `_metadata`, which is not sealed yet.
    pub fn put_file(&mut self, at: &str, path: &str, file: &EncodedStateFile, last_group: u16) {
        std::fs::write(self.dir.join(path), &file.bytes).expect("written");
        *self.at(at) = json!({
            "path": path, "subtask": 0, "schema": 0, "key_groups": {"first": 0, "last": last_group},
            "groups": file.groups, "entries": file.entries, "bytes": file.bytes.len(),
            "checksum": checksum(&file.bytes), "footer": file.footer,
        });
    }

    /// Writes rows as they are, without the checks of the host's own writer, as a file with one row group.
    pub fn put_raw(&mut self, at: &str, path: &str, rows: &[RawRow], how: Packing) {
        let bytes = raw_file(rows, how);
        let group = |row: Option<&RawRow>| row.map_or(0, |row| row.0 as u16);
        self.put_bytes(
            at,
            path,
            &bytes,
            [group(rows.first()), group(rows.last())],
            rows.len() as u64,
        );
    }

    /// Writes any bytes that end as a Parquet file does as a state file with one row group of these key groups.
    pub fn put_bytes(&mut self, at: &str, path: &str, bytes: &[u8], groups: [u16; 2], rows: u64) {
        let len = bytes.len();
        let footer_len = bytes[len - 8..].first_chunk().copied().map_or(0, u32::from_le_bytes);
        let footer = len - 8 - footer_len as usize;
        let place = |from: usize, to: usize| Place {
            offset: from as u64,
            bytes: (to - from) as u64,
            checksum: checksum(&bytes[from..to]),
        };
        let extent = GroupExtent {
            first_group: groups[0],
            last_group: groups[1],
            row_group: 0,
            rows,
            place: Some(place(4, footer)),
        };
        let file = EncodedStateFile {
            bytes: bytes.to_vec().into(),
            groups: vec![extent],
            footer: place(footer, len),
            entries: rows,
        };
        let last_group = if at == POSITIONS_AT { 0 } else { 127 };
        self.put_file(at, path, &file, last_group);
    }

    /// Makes it a savepoint of a job that reads lines and prints them, whose files match a glob.
    pub fn only_source(&mut self, glob: &str) {
        self.at("/operators").as_array_mut().expect("operators").truncate(1);
        let graph = self.at("/graph").as_array_mut().expect("nodes");
        graph.remove(1);
        graph[1]["inputs"][0]["from"] = json!("lines");
        *self.at("/operators/0/source/identity") = json!({ "path": glob, "key": "none" });
    }

    /// Returns a part of `_metadata`.
    pub fn at(&mut self, pointer: &str) -> &mut Value {
        self.payload.pointer_mut(pointer).expect("such a part")
    }
}

/// Returns a file whose pages of keys begin with these bytes over and over, instead of their heads.
pub fn with_heads(pattern: &[u8], bytes: usize) -> Vec<u8> {
    // Text that does not compress.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let key = Bytes::from_iter(std::iter::repeat_with(&mut next).take(bytes));
    let mut file = raw_file(&[(0, key, Bytes::from_static(&[0]), 1)], Packing::Plain);
    let reader = SerializedFileReader::new(Bytes::from(file.clone())).expect("readable");
    let (start, len) = reader.metadata().row_group(0).column(1).byte_range();
    for (byte, other) in file
        .iter_mut()
        .skip(start as usize)
        .take(len as usize)
        .zip(pattern.iter().cycle())
    {
        *byte = *other;
    }
    file
}

/// Returns a file without rows whose columns are nested in so many groups.
pub fn nested_columns(levels: u32) -> Vec<u8> {
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    footer.extend([levels as u8 | 0x80, (levels >> 7) as u8 | 0x80, (levels >> 14) as u8]);
    // Each has a name of one byte, and one child.
    footer.extend([0x48, 1, b'a', 0x15, 2, 0].repeat(levels as usize));
    footer.push(0);
    let len = (footer.len() as u32).to_le_bytes();
    [b"PAR1", footer.as_slice(), &len, b"PAR1"].concat()
}

/// Returns a row of keyed state in the key group that it belongs to.
pub fn counted(word: &str, count: u8) -> Row {
    let key = word.as_bytes().to_vec();
    (key_group(hash32(&key), MAX_PARALLELISM).0, key, vec![1, count])
}

/// Returns a row as it is in the file.
pub fn raw((group, key, value): Row) -> RawRow {
    (i32::from(group), key.into(), value.into(), 1)
}

/// Returns a row with the position of a split.
pub fn position(split: &str, position: &str) -> Row {
    (0, split.as_bytes().to_vec(), text(position.as_bytes()))
}

/// Returns the text of a file's position.
pub fn at(offset: u64, line: u64) -> String {
    json!({ "offset": offset, "line": line }).to_string()
}

/// Encodes a text as a value: its length, then its bytes.
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = match u16::try_from(bytes.len()) {
        Ok(len @ 0..251) => vec![len as u8],
        Ok(len) => [&[251], len.to_le_bytes().as_slice()].concat(),
        Err(_) => [&[252], (bytes.len() as u32).to_le_bytes().as_slice()].concat(),
    };
    encoded.extend_from_slice(bytes);
    encoded
}

pub fn field(name: &str, ty: Type) -> Field {
    Field {
        name: name.to_owned(),
        ty,
        aliases: vec![],
        default: false,
    }
}

/// Encodes rows in the native layout.
fn encode(key: &Field, entries: Entries<'_>, value: &Type, rows: &[Row]) -> EncodedStateFile {
    let spec = StateFileSpec {
        layout: Layout::Native,
        state: "any",
        key,
        entries,
        value,
        schema: 1,
        expires: false,
    };
    let mut writer = StateFileWriter::new(&spec).expect("a schema");
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.0);
    for group in rows.chunk_by(|a, b| a.0 == b.0) {
        let mut columns = StateRows::new(KeyGroup(group[0].0), RowsOf::State(0));
        for (_, key, value) in group {
            columns.keys.push(key);
            columns.values.push(value);
            columns.schemas.push(1);
        }
        writer.write_group(&columns).expect("rows");
    }
    writer.finish().expect("in memory")
}

/// Encodes rows in the native layout, in any order.
fn raw_file(rows: &[RawRow], how: Packing) -> Vec<u8> {
    let schema = "message state { required int32 _key_group; required binary _key; required binary _value; required int32 _schema; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("a level")))
        .set_dictionary_enabled(how == Packing::Dictionary)
        .set_dictionary_page_size_limit(64 << 20)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_write_batch_size(16)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let ints = |of: fn(&RawRow) -> i32| rows.iter().map(of).collect::<Vec<i32>>();
    let bytes = |of: fn(&RawRow) -> &Bytes| {
        rows.iter()
            .map(|row| ByteArray::from(of(row).clone()))
            .collect::<Vec<_>>()
    };
    let columns = [
        Ok(ints(|row| row.0)),
        Err(bytes(|row| &row.1)),
        Err(bytes(|row| &row.2)),
        Ok(ints(|row| row.3)),
    ];
    for cells in columns {
        let mut column = group.next_column().expect("a column").expect("one more");
        match (column.untyped(), cells) {
            (ColumnWriter::Int32ColumnWriter(writer), Ok(cells)) => writer.write_batch(&cells, None, None),
            (ColumnWriter::ByteArrayColumnWriter(writer), Err(cells)) => writer.write_batch(&cells, None, None),
            _ => unreachable!("the schema has these columns"),
        }
        .expect("written");
        column.close().expect("closed");
    }
    group.close().expect("closed");
    writer.into_inner().expect("in memory")
}

fn payload() -> Value {
    let (text, bytes) = (Type::String, Type::Bytes);
    let state = |name: &str, kind: &str, key: &str, schema: &Type| {
        json!({
            "name": name, "kind": kind, "schema": schema, "digest": schema.digest().to_string(), "schemas": [schema],
            "key": field(key, Type::String), "key_digest": text.digest().to_string(), "files": [null],
        })
    };
    let node = |uid: &str, kind: &str, from: &[&str]| {
        let inputs: Vec<Value> = from.iter().map(|from| json!({"from": from, "by": "key"})).collect();
        json!({ "uid": uid, "kind": kind, "parallelism": 1, "inputs": inputs })
    };
    json!({
        "format": "native", "kind": "savepoint", "trigger": "manual", "owner": "user",
        "job_name": "forged", "job_id": "a1b2c3d4e5f60718293a4b5c6d7e8f90", "attempt": 1, "job_version": 1,
        "checkpoint_id": 7, "triggered_at_ms": 1000, "completed_at_ms": 1036, "host_version": "0.1.0",
        "wit_version": "0.2.0", "job_file": "name = \"forged\"\n", "max_parallelism": MAX_PARALLELISM,
        "graph": [
            node("lines", "source", &[]), node("count", "operator", &["lines"]), node("out", "sink", &["count"]),
        ],
        "operators": [
            {
                "uid": "lines", "kind": "source", "parallelism": 1,
                "states": [state("position", "positions", "split", &text)],
                "source": {"connector": "file", "identity": {"path": "in/*.txt", "key": "none"}},
            },
            {
                "uid": "count", "kind": "operator", "parallelism": 1,
                "states": [state("count", "value", "word", &bytes)],
            },
            {
                "uid": "out", "kind": "sink", "parallelism": 1,
                "sink": {"connector": "file", "identity": {"path": "out"}, "handles": []},
            },
        ],
    })
}
