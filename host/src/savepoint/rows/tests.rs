//! Round trips in both layouts, files as other readers see them, and refused input.

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use proptest::prelude::*;
use regraft_model::key_group::KeyGroup;
use regraft_model::key_group::{hash32, key_group, range_of};
use regraft_model::schema::{EnumType, StructType, Variant};
use regraft_model::value::{Value, encode, encode_key};

use super::*;

/// Reads a file without a limit of memory.
fn read_state_file(
    file: impl Into<FileParts>,
    spec: &StateFileSpec<'_>,
    range: KeyGroupRange,
    groups: &[GroupExtent],
) -> Result<Vec<StateRows>, RowsError> {
    super::read_state_file(
        file,
        spec,
        range,
        groups,
        &crate::savepoint::budget::Budget::unlimited(),
    )
}

mod kinds;

fn field(name: &str, ty: Type) -> Field {
    Field {
        name: name.into(),
        ty,
        aliases: vec![],
        default: false,
    }
}

fn spec<'a>(layout: Layout, key: &'a Field, value: &'a Type) -> StateFileSpec<'a> {
    StateFileSpec {
        layout,
        state: "count",
        key,
        entries: Entries::None,
        value,
        schema: 1,
        expires: false,
    }
}

/// Groups rows by key group, as a state backend returns them.
fn grouped(rows: &[(Vec<u8>, Vec<u8>)], max_parallelism: u32) -> Vec<StateRows> {
    let mut groups: std::collections::BTreeMap<u16, StateRows> = std::collections::BTreeMap::new();
    for (key, value) in rows {
        let group = key_group(hash32(key), max_parallelism);
        let rows = groups
            .entry(group.0)
            .or_insert_with(|| StateRows::new(group, RowsOf::State(0)));
        rows.keys.push(key);
        rows.values.push(value);
        rows.schemas.push(1);
    }
    groups.into_values().collect()
}

fn write(spec: &StateFileSpec<'_>, groups: &[StateRows]) -> EncodedStateFile {
    let mut writer = StateFileWriter::new(spec).expect("schema");
    for rows in groups {
        writer.write_group(rows).expect("rows of their types");
    }
    writer.finish().expect("in memory")
}

fn all(groups: &[StateRows]) -> Vec<(u16, Vec<u8>, Vec<u8>, u16)> {
    let mut rows = Vec::new();
    for group in groups {
        for i in 0..group.len() {
            let (key, value) = (group.keys.get(i).to_vec(), group.values.get(i).to_vec());
            rows.push((group.group.0, key, value, group.schemas[i]));
        }
    }
    rows
}

const EVERYTHING: KeyGroupRange = KeyGroupRange { first: 0, last: 127 };

fn check(spec: &StateFileSpec<'_>, rows: &[(Vec<u8>, Vec<u8>)]) {
    let groups = grouped(rows, 128);
    let file = write(spec, &groups);
    assert_eq!(file.entries, rows.len() as u64);
    let read = read_state_file(file.bytes.clone(), spec, EVERYTHING, &file.groups).expect("just written");
    let mut expected = all(&groups);
    expected.sort();
    assert_eq!(all(&read), expected, "{spec:?}");
    for range in [
        KeyGroupRange { first: 0, last: 40 },
        KeyGroupRange { first: 41, last: 127 },
    ] {
        let part = read_state_file(file.bytes.clone(), spec, range, &file.groups).expect("just written");
        let expected: Vec<_> = expected
            .iter()
            .filter(|row| range.contains(KeyGroup(row.0)))
            .cloned()
            .collect();
        assert_eq!(all(&part), expected);
    }
}

#[test]
fn files_with_lists_of_bytes_give_the_bytes_of_bytes() {
    let (key, list) = (field("k", Type::U64), Type::List(Box::new(Type::U8)));
    let rows = |ty: &Type, value: &Value| {
        let row = |n: u64| {
            let (mut key, mut bytes) = (vec![], vec![]);
            encode_key(&Type::U64, &Value::Unsigned(n), &mut key).expect("a key");
            encode(ty, value, &mut bytes).expect("a value");
            (key, bytes)
        };
        (0..9).map(row).collect::<Vec<_>>()
    };
    let items = Value::Sequence([0u8, 251, 255].map(|n| Value::Unsigned(n.into())).to_vec());
    let (of_list, of_bytes) = (
        rows(&list, &items),
        rows(&Type::Bytes, &Value::Bytes(vec![0, 251, 255])),
    );
    assert_eq!(of_list, of_bytes);
    for layout in [Layout::Canonical, Layout::Native] {
        check(&spec(layout, &key, &list), &of_list);
        check(&spec(layout, &key, &Type::Bytes), &of_bytes);
    }
}

fn arb_type() -> impl Strategy<Value = Type> {
    use Type::*;
    let scalars = vec![
        Unit, Bool, U8, U16, U32, U64, I8, I16, I32, I64, F32, F64, Char, String, Bytes,
    ];
    prop::sample::select(scalars).prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| Option(Box::new(t))),
            inner.clone().prop_map(|t| List(Box::new(t))),
            (inner.clone(), inner.clone()).prop_map(|(k, v)| Map(Box::new(k), Box::new(v))),
            inner.clone().prop_map(|v| Map(Box::new(String), Box::new(v))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Tuple),
            (prop::collection::vec(inner.clone(), 1..4), any::<bool>()).prop_map(|(types, odd)| {
                // Names that collide with the file's own columns, with each other except for case, and with the key.
                let names = if odd {
                    ["_key_group", "K", "_exact", "count"]
                } else {
                    ["a", "b", "c", "d"]
                };
                let fields = types.into_iter().zip(names).map(|(t, name)| field(name, t)).collect();
                Struct(StructType {
                    name: "S".into(),
                    fields,
                })
            }),
            inner.prop_map(|t| {
                let variant = |name: &str, newtype| Variant {
                    name: name.into(),
                    newtype,
                    tuple: None,
                    fields: None,
                    aliases: vec![],
                };
                Enum(EnumType {
                    name: "E".into(),
                    variants: vec![variant("A", std::option::Option::None), variant("B", Some(t))],
                })
            }),
        ]
    })
}

/// Generates values of a type, including NaNs with any bits and unordered maps.
fn arb_value(ty: &Type) -> BoxedStrategy<Value> {
    match ty {
        Type::Unit => Just(Value::Unit).boxed(),
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::U8 => any::<u8>().prop_map(|n| Value::Unsigned(n.into())).boxed(),
        Type::U16 => any::<u16>().prop_map(|n| Value::Unsigned(n.into())).boxed(),
        Type::U32 => any::<u32>().prop_map(|n| Value::Unsigned(n.into())).boxed(),
        Type::U64 => any::<u64>().prop_map(Value::Unsigned).boxed(),
        Type::I8 => any::<i8>().prop_map(|n| Value::Signed(n.into())).boxed(),
        Type::I16 => any::<i16>().prop_map(|n| Value::Signed(n.into())).boxed(),
        Type::I32 => any::<i32>().prop_map(|n| Value::Signed(n.into())).boxed(),
        Type::I64 => any::<i64>().prop_map(Value::Signed).boxed(),
        Type::F32 => any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))).boxed(),
        Type::F64 => any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))).boxed(),
        Type::Char => any::<char>().prop_map(Value::Char).boxed(),
        Type::String => ".{0,8}".prop_map(Value::Text).boxed(),
        Type::Bytes => prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::Bytes).boxed(),
        Type::Option(inner) => prop::option::of(arb_value(inner))
            .prop_map(|v| Value::Option(v.map(Box::new)))
            .boxed(),
        Type::List(item) => prop::collection::vec(arb_value(item), 0..4)
            .prop_map(Value::Sequence)
            .boxed(),
        Type::Map(key, value) => prop::collection::vec((arb_value(key), arb_value(value)), 0..4)
            .prop_map(Value::Map)
            .boxed(),
        Type::Tuple(items) => items
            .iter()
            .map(arb_value)
            .collect::<Vec<_>>()
            .prop_map(Value::Sequence)
            .boxed(),
        Type::Struct(s) => s
            .fields
            .iter()
            .map(|f| arb_value(&f.ty))
            .collect::<Vec<_>>()
            .prop_map(Value::Sequence)
            .boxed(),
        Type::Enum(e) => prop_oneof![
            Just(Value::Enum(0, Box::new(Value::Unit))),
            arb_value(e.variants[1].newtype.as_ref().expect("as made")).prop_map(|v| Value::Enum(1, Box::new(v))),
        ]
        .boxed(),
    }
}

fn arb_rows() -> impl Strategy<Value = (Type, Type, Vec<(Value, Value)>)> {
    (arb_type(), arb_type()).prop_flat_map(|(key, value)| {
        let rows = prop::collection::vec((arb_value(&key), arb_value(&value)), 0..12);
        (Just(key), Just(value), rows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_to_the_bit((key, value, rows) in arb_rows()) {
        let mut bytes: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (k, v) in &rows {
            let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
            encode_key(&key, k, &mut key_bytes).expect("of its type");
            encode(&value, v, &mut value_bytes).expect("of its type");
            if bytes.iter().all(|(other, _)| *other != key_bytes) {
                bytes.push((key_bytes, value_bytes));
            }
        }
        let key = field("k", key);
        check(&spec(Layout::Native, &key, &value), &bytes);
        // A key that JSON cannot represent exactly is refused when it is written; every other row comes back.
        let canonical = spec(Layout::Canonical, &key, &value);
        bytes.retain(|(k, v)| {
            let mut writer = StateFileWriter::new(&canonical).expect("schema");
            let written = grouped(&[(k.clone(), v.clone())], 128).iter().try_for_each(|g| writer.write_group(g));
            !matches!(written, Err(RowsError::InexactKey { .. }))
        });
        check(&canonical, &bytes);
    }

    #[test]
    fn damaged_files_are_an_error_or_other_rows_but_never_a_panic(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let key = field("word", Type::String);
        let rows: Vec<_> = (0..50u8).map(|i| (format!("w{i}").into_bytes(), vec![i])).collect();
        for layout in [Layout::Canonical, Layout::Native] {
            let spec = spec(layout, &key, &Type::U64);
            let file = write(&spec, &grouped(&rows, 128));
            let mut bytes = file.bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = read_state_file(Bytes::from(bytes), &spec, EVERYTHING, &file.groups);
            let cut = read_state_file(file.bytes.slice(..at), &spec, EVERYTHING, &file.groups);
            prop_assert!(cut.is_err());
        }
    }
}

#[test]
fn ordinary_readers_see_word_and_count() {
    let key = field("word", Type::String);
    let spec = spec(Layout::Canonical, &key, &Type::U64);
    let rows = [(b"b".to_vec(), vec![2]), (b"a".to_vec(), vec![3])];
    let file = write(&spec, &grouped(&rows, 128));
    let reader = SerializedFileReader::new(file.bytes).expect("Parquet");
    let seen: Vec<_> = reader
        .get_row_iter(None)
        .expect("rows")
        .map(|row| row.expect("row"))
        .map(|row| {
            (
                row.get_int(0).expect("group"),
                row.get_string(1).expect("word").clone(),
                row.get_ulong(2).expect("count"),
            )
        })
        .collect();
    assert_eq!(seen, [(69, "b".to_owned(), 2), (88, "a".to_owned(), 3)]);
    let names: Vec<_> = reader
        .metadata()
        .file_metadata()
        .schema()
        .get_fields()
        .iter()
        .map(|f| f.name().to_owned())
        .collect();
    assert_eq!(names, ["_key_group", "word", "count"]);
}

#[test]
fn columns_of_structs_options_and_nested_values() {
    let key = field(
        "user",
        Type::Struct(StructType {
            name: "K".into(),
            fields: vec![field("id", Type::U32)],
        }),
    );
    let fields = vec![
        field("clicks", Type::U64),
        field("last", Type::Option(Box::new(Type::I64))),
        field("pages", Type::Map(Box::new(Type::String), Box::new(Type::U32))),
        field("ID", Type::Bool),
        field("_x", Type::F32),
    ];
    let value = Type::Struct(StructType {
        name: "Session".into(),
        fields,
    });
    let schema = columns::schema_of(&spec(Layout::Canonical, &key, &value)).expect("schema");
    let mut text = Vec::new();
    parquet::schema::printer::print_schema(&mut text, &schema);
    assert_eq!(
        String::from_utf8(text).expect("text"),
        "message state {\n  REQUIRED INT32 _key_group;\n  REQUIRED INT32 id (INTEGER(32,false));\n  \
         REQUIRED INT64 clicks (INTEGER(64,false));\n  OPTIONAL INT64 last (INTEGER(64,true));\n  \
         REQUIRED BYTE_ARRAY pages (JSON);\n  REQUIRED BOOLEAN value_ID;\n  REQUIRED FLOAT value__x;\n  \
         OPTIONAL BYTE_ARRAY _exact;\n}\n"
    );
}

#[test]
fn absent_cells_and_other_schemas_are_left_out() {
    let key = field("k", Type::U64);
    let mut groups = grouped(
        &[
            (7u64.to_le_bytes().to_vec(), vec![1]),
            (8u64.to_le_bytes().to_vec(), vec![2]),
        ],
        1,
    );
    groups[0].schemas = vec![0, 1];
    let spec1 = spec(Layout::Canonical, &key, &Type::U8);
    assert_eq!(write(&spec1, &groups).entries, 1);
    groups[0].schemas = vec![2, 1];
    assert_eq!(write(&spec1, &groups).entries, 1);
    let native = spec(Layout::Native, &key, &Type::U8);
    let file = write(&native, &groups);
    let read = read_state_file(file.bytes, &native, EVERYTHING, &file.groups).expect("just written");
    assert_eq!(read[0].schemas, [2, 1]);
}

#[test]
fn row_groups_end_at_key_groups_and_large_groups_are_cut() {
    let key = field("k", Type::U64);
    let spec = spec(Layout::Canonical, &key, &Type::U64);
    let group = |group: u16, rows: u64| {
        let mut keyed = StateRows::new(KeyGroup(group), RowsOf::State(0));
        for i in 0..rows {
            keyed.keys.push(&i.to_be_bytes());
            keyed.values.push(&[1]);
            keyed.schemas.push(1);
        }
        keyed
    };
    let groups = [group(1, 40_000), group(2, 40_000), group(5, 300_000), group(6, 1)];
    let file = write(&spec, &groups);
    let extents: Vec<_> = file
        .groups
        .iter()
        .map(|e| (e.first_group, e.last_group, e.row_group, e.rows))
        .collect();
    assert_eq!(
        extents,
        [
            (1, 1, 0, 40_000),
            (2, 2, 1, 40_000),
            (5, 5, 2, 262_144),
            (5, 5, 3, 37_856),
            (6, 6, 4, 1)
        ]
    );
    let read = read_state_file(file.bytes, &spec, KeyGroupRange { first: 5, last: 5 }, &file.groups).expect("read");
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].keys.len(), 300_000);
}

#[test]
fn a_share_of_the_key_groups_is_read_from_little_more_than_its_share_of_the_file() {
    let key = field("k", Type::U64);
    let spec = spec(Layout::Native, &key, &Type::U64);
    let rows: Vec<_> = (0..400_000u64).map(|i| (i.to_le_bytes().to_vec(), vec![7])).collect();
    let file = write(&spec, &grouped(&rows, 128));
    let whole = read_state_file(file.bytes.clone(), &spec, EVERYTHING, &file.groups).expect("just written");
    for parallelism in [1, 2, 3, 4, 5, 8] {
        let mut read = vec![];
        for range in (0..parallelism).map(|index| range_of(index, parallelism, 128)) {
            let wanted = file
                .groups
                .iter()
                .filter(|extent| extent.range().intersect(range).is_some());
            let places = wanted.filter_map(|extent| extent.place.as_ref()).chain([&file.footer]);
            let parts: Vec<_> = places
                .map(|place| {
                    let bytes = file.bytes.slice(place.offset as usize..place.range().end as usize);
                    assert_eq!(checksum(&bytes), place.checksum);
                    (place.offset, bytes)
                })
                .collect();
            let bytes: usize = parts.iter().map(|(_, bytes)| bytes.len()).sum();
            let share = file.bytes.len() as f64 * f64::from(range.count() as u32) / 128.0;
            assert!(
                (bytes as f64) < 1.1 * share + 10_000.0,
                "{parallelism}: {bytes} for {share}"
            );
            let parts = FileParts::new(file.bytes.len() as u64, parts);
            read.extend(read_state_file(parts.clone(), &spec, range, &file.groups).expect("its own"));
            let other = read_state_file(parts, &spec, EVERYTHING, &file.groups);
            assert_eq!(other.is_ok(), parallelism == 1, "only its own");
        }
        assert_eq!(all(&read), all(&whole));
    }
}

#[test]
fn errors_say_state_group_and_type() {
    let key = field("k", Type::String);
    let spec = spec(Layout::Canonical, &key, &Type::U64);
    let text = |rows: &[(Vec<u8>, Vec<u8>)]| {
        let mut writer = StateFileWriter::new(&spec).expect("schema");
        writer
            .write_group(&grouped(rows, 128)[0])
            .expect_err("wrong rows")
            .to_string()
    };
    assert_eq!(
        text(&[(b"a".to_vec(), vec![251, 1])]),
        "state \"count\": a value of key group 88 is not a u64: the value ends after 2 bytes, inside a u64"
    );
    assert_eq!(
        text(&[(b"a\xff".to_vec(), vec![1])]),
        "state \"count\": a key of key group 82 is not a string: found invalid utf-8 sequence of 1 bytes from index 1 where UTF-8 text was expected"
    );
    let file = write(&spec, &grouped(&[(b"a".to_vec(), vec![1])], 128));
    let other = StateFileSpec {
        value: &Type::Bool,
        ..spec
    };
    let error = read_state_file(file.bytes.clone(), &other, EVERYTHING, &file.groups).expect_err("other type");
    assert_eq!(error.to_string(), "column \"count\": expected BOOLEAN, found INT64");
    let error = read_state_file(file.bytes, &spec, EVERYTHING, &[]).expect_err("other groups");
    assert_eq!(error.to_string(), "state \"count\": expected 0 row groups, found 1");
}

#[test]
#[allow(clippy::print_stderr, reason = "a measurement: run with --nocapture")]
fn speed() {
    let key = field("k", Type::U64);
    let count = if cfg!(debug_assertions) { 100_000u64 } else { 2_000_000 };
    let mut rows = Vec::new();
    for i in 0..count {
        let mut value = Vec::new();
        encode(&Type::U64, &Value::Unsigned(i % 1000), &mut value).expect("u64");
        rows.push((i.to_le_bytes().to_vec(), value));
    }
    let groups = grouped(&rows, 128);
    for layout in [Layout::Canonical, Layout::Native] {
        let spec = spec(layout, &key, &Type::U64);
        let start = std::time::Instant::now();
        let file = write(&spec, &groups);
        let written = start.elapsed();
        let start = std::time::Instant::now();
        let read = read_state_file(file.bytes.clone(), &spec, EVERYTHING, &file.groups).expect("just written");
        let rate = |time: std::time::Duration| count as f64 / time.as_secs_f64() / 1e6;
        eprintln!(
            "{layout}: write {:.2}M/s read {:.2}M/s, {} bytes",
            rate(written),
            rate(start.elapsed()),
            file.bytes.len()
        );
        assert_eq!(read.iter().map(|rows| rows.keys.len() as u64).sum::<u64>(), count);
    }
}

#[test]
fn a_cancelled_file_stops_at_the_next_key_group() {
    use crate::environment::cancel::Cancellation;
    let key = field("k", Type::String);
    let spec = spec(Layout::Native, &key, &Type::U64);
    let rows: Vec<_> = (0..50u8).map(|i| (format!("w{i}").into_bytes(), vec![i])).collect();
    let groups = grouped(&rows, 128);
    let cancellation = Cancellation::default();
    let mut writer = StateFileWriter::new(&spec)
        .expect("schema")
        .cancelled_by(cancellation.clone());
    writer.write_group(&groups[0]).expect("not cancelled");
    cancellation.cancel();
    assert!(matches!(writer.write_group(&groups[1]), Err(RowsError::Cancelled)));
    let error = writer.finish().expect_err("rows are pending").to_string();
    assert_eq!(error, "writing the state file was cancelled");
}

/// A list of structs with one field, which JSON takes hundreds of bytes for.
fn many_objects(count: u32) -> (Type, Vec<u8>) {
    let item = Type::Struct(StructType {
        name: "Item".into(),
        fields: vec![field("n", Type::U8)],
    });
    let bytes = [&[252], count.to_le_bytes().as_slice(), &vec![7; count as usize]].concat();
    (Type::List(Box::new(item)), bytes)
}

#[test]
fn a_value_with_huge_json_is_restored_from_its_bytes() {
    let key = field("word", Type::String);
    let (value, large) = many_objects(200_000);
    let small = vec![1, 7];
    let rows = [(b"large".to_vec(), large.clone()), (b"small".to_vec(), small)];
    let spec = spec(Layout::Canonical, &key, &value);
    check(&spec, &rows);
    let file = write(&spec, &grouped(&rows, 128));
    let reader = SerializedFileReader::new(file.bytes.clone()).expect("Parquet");
    let read = reader.get_row_iter(None).expect("rows").map(|row| row.expect("row"));
    let json: BTreeMap<String, String> = read
        .map(|row| {
            let text = |column| row.get_string(column).expect("text").clone();
            (text(1), text(2))
        })
        .collect();
    assert_eq!(json["large"], "null");
    assert_eq!(json["small"], r#"[{"n":7}]"#);
    // A machine that has room for the rows has room for reading them.
    let budget = crate::savepoint::budget::Budget::new(4 << 20);
    let read = super::read_state_file(file.bytes, &spec, EVERYTHING, &file.groups, &budget);
    assert_eq!(read.expect("fits").len(), 2);
}

#[test]
fn a_key_with_huge_json_is_refused() {
    let (key, _) = many_objects(0);
    let key = field("objects", key);
    let bytes = [&200_000u64.to_le_bytes()[..], &vec![7; 200_000]].concat();
    let spec = spec(Layout::Canonical, &key, &Type::U8);
    let mut writer = StateFileWriter::new(&spec).expect("schema");
    let refused = grouped(&[(bytes, vec![1])], 128)
        .iter()
        .try_for_each(|rows| writer.write_group(rows));
    assert!(matches!(refused, Err(RowsError::InexactKey { .. })), "{refused:?}");
}

#[test]
fn rows_are_counted_as_what_they_take_in_memory() {
    let (key, map_key) = (field("word", Type::String), Type::U32);
    let spec = StateFileSpec {
        entries: Entries::Map(&map_key),
        ..spec(Layout::Native, &key, &Type::U8)
    };
    let mut rows = StateRows::new(KeyGroup(88), RowsOf::State(0));
    for n in 0..10_000u32 {
        rows.keys.push(b"a");
        rows.entry_keys.push(&n.to_le_bytes());
        rows.values.push(&[1]);
        rows.schemas.push(1);
    }
    let file = write(&spec, &[rows]);
    let budget = crate::savepoint::budget::Budget::new(10_000_000);
    let read = super::read_state_file(file.bytes, &spec, EVERYTHING, &file.groups, &budget);
    assert_eq!(read.expect("room").len(), 1);
    // An entry takes 80 bytes in memory beside its key and value.
    assert!(budget.take(10_000_000 - 800_000).is_err());
    assert!(budget.take(10_000_000 - 1_100_000).is_ok());
}
