//! Rows of every kind of state: round trips in both layouts, and files as other readers see them.

use super::*;
use crate::state::rows::{NEVER, REMOVED, timer_entry};
use parquet::record::Field as Cell;

/// Kinds of rows, with their types.
#[derive(Debug, Clone)]
enum Kind {
    Value,
    List,
    Map(Type),
    Timers,
    Items,
}

impl Kind {
    const fn entries(&self) -> Entries<'_> {
        match self {
            Self::Value => Entries::None,
            Self::List => Entries::List,
            Self::Map(key) => Entries::Map(key),
            Self::Timers => Entries::Timers,
            Self::Items => Entries::Items,
        }
    }
}

/// Key, entry key, value, schema, time of expiry.
type Row = (Vec<u8>, Vec<u8>, Vec<u8>, u16, i64);

fn encoded_key(ty: &Type, value: &Value) -> Vec<u8> {
    let mut bytes = vec![];
    encode_key(ty, value, &mut bytes).expect("of its type");
    bytes
}

fn arb_entry(kind: &Kind) -> BoxedStrategy<Vec<u8>> {
    match kind {
        Kind::Value | Kind::Items => Just(vec![]).boxed(),
        Kind::List => prop_oneof![0u64..4, any::<u64>()]
            .prop_map(|index| index.to_be_bytes().to_vec())
            .boxed(),
        Kind::Map(ty) => {
            let ty = ty.clone();
            arb_value(&ty).prop_map(move |value| encoded_key(&ty, &value)).boxed()
        }
        Kind::Timers => (prop_oneof![-3i64..3, any::<i64>()], "(gap|alarm|.{0,3})")
            .prop_map(|(time, name)| {
                let mut entry = vec![];
                timer_entry(time, &name, &mut entry);
                entry
            })
            .boxed(),
    }
}

fn arb_state() -> impl Strategy<Value = (Kind, Type, Type, Vec<Row>)> {
    let kind = prop_oneof![
        Just(Kind::Value),
        Just(Kind::List),
        arb_type().prop_map(Kind::Map),
        Just(Kind::Timers),
        Just(Kind::Items)
    ];
    (kind, arb_type(), arb_type()).prop_flat_map(|(kind, key, value)| {
        let (key, value) = match kind {
            Kind::Timers => (key, Type::Unit),
            Kind::Items => (Type::U64, value),
            _ => (key, value),
        };
        let (key_of, value_of) = (key.clone(), value.clone());
        let keys = match kind {
            Kind::Items => (0u64..600).prop_map(Value::Unsigned).boxed(),
            _ => arb_value(&key),
        };
        let expires = prop_oneof![Just(NEVER), any::<i64>()];
        let row = (keys, arb_entry(&kind), arb_value(&value), expires);
        let row = row.prop_map(move |(key, entry, value, expires)| {
            let mut bytes = vec![];
            encode(&value_of, &value, &mut bytes).expect("of its type");
            (encoded_key(&key_of, &key), entry, bytes, 1, expires)
        });
        (Just(kind), Just(key), Just(value), prop::collection::vec(row, 0..24))
    })
}

/// Groups rows by key group, in no particular order, as a backend returns them.
fn by_group(kind: &Kind, rows: &[Row], expires: bool) -> Vec<StateRows> {
    let of = match kind {
        Kind::Timers => RowsOf::Timers,
        _ => RowsOf::State(0),
    };
    let mut groups: std::collections::BTreeMap<u16, StateRows> = std::collections::BTreeMap::new();
    for (key, entry, value, schema, time) in rows {
        let group = match kind {
            Kind::Items => KeyGroup(0),
            _ => key_group(hash32(key), 128),
        };
        let rows = groups.entry(group.0).or_insert_with(|| StateRows::new(group, of));
        rows.keys.push(key);
        rows.values.push(value);
        rows.schemas.push(*schema);
        if kind.entries().have_keys() {
            rows.entry_keys.push(entry);
        }
        if expires {
            rows.expires.push(*time);
        }
    }
    groups.into_values().collect()
}

fn all_rows(groups: &[StateRows]) -> Vec<Row> {
    let row = |rows: &StateRows, i: usize| {
        (
            rows.keys.get(i).to_vec(),
            rows.entry_key(i).unwrap_or_default().to_vec(),
            rows.values.get(i).to_vec(),
            rows.schemas[i],
            rows.expires_at(i),
        )
    };
    groups
        .iter()
        .flat_map(|rows| (0..rows.len()).map(move |i| row(rows, i)))
        .collect()
}

fn spec_of<'a>(layout: Layout, kind: &'a Kind, key: &'a Field, value: &'a Type, expires: bool) -> StateFileSpec<'a> {
    StateFileSpec {
        layout,
        state: if matches!(kind, Kind::Timers) {
            "timers"
        } else {
            "state"
        },
        key,
        entries: kind.entries(),
        value,
        schema: 1,
        expires,
    }
}

/// Checks that rows that are written and read come back in order of key group, key and entry.
fn round_trip(spec: &StateFileSpec<'_>, kind: &Kind, rows: &[Row], expires: bool) {
    let groups = by_group(kind, rows, expires);
    let file = write(spec, &groups);
    let read = read_state_file(file.bytes.clone(), spec, EVERYTHING, &file.groups).expect("just written");
    let mut expected = rows.to_vec();
    if !expires {
        expected.iter_mut().for_each(|row| row.4 = NEVER);
    }
    let position = |row: &Row| u64::from_le_bytes(row.0[..8].try_into().expect("a u64"));
    match kind {
        Kind::Items => expected.sort_by_key(position),
        _ => expected.sort_by_key(|row| (key_group(hash32(&row.0), 128), row.0.clone(), row.1.clone())),
    }
    assert_eq!(all_rows(&read), expected, "{spec:?}");
    assert!(
        read.iter()
            .all(|rows| matches!(kind, Kind::Timers) == (rows.of == RowsOf::Timers))
    );
    let mut parts = vec![];
    for (first, last) in [(0, 70), (71, 127)] {
        let range = KeyGroupRange { first, last };
        parts.extend(read_state_file(file.bytes.clone(), spec, range, &file.groups).expect("just written"));
    }
    assert_eq!(all_rows(&parts), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_every_kind_come_back_to_the_bit((kind, key, value, mut rows) in arb_state(), expires: bool) {
        rows.sort();
        rows.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
        let key = field("key", key);
        let canonical = spec_of(Layout::Canonical, &kind, &key, &value, expires);
        let kept: Vec<Row> = rows.iter().filter(|row| {
            // Keys that JSON cannot represent exactly are refused; every other row comes back.
            let mut writer = StateFileWriter::new(&canonical).expect("schema");
            let groups = by_group(&kind, std::slice::from_ref(row), expires);
            !matches!(writer.write_group(&groups[0]), Err(RowsError::InexactKey { .. }))
        }).cloned().collect();
        round_trip(&canonical, &kind, &kept, expires);
        for (i, row) in rows.iter_mut().enumerate() {
            if i % 3 == 1 {
                // Only native files have removals and other schemas.
                (row.2, row.3, row.4) = (vec![], REMOVED, NEVER);
            } else if i % 3 == 2 {
                row.3 = 7;
            }
        }
        round_trip(&spec_of(Layout::Native, &kind, &key, &value, expires), &kind, &rows, expires);
    }

    #[test]
    fn damage_is_an_error_or_other_rows_but_never_a_panic(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let key = field("word", Type::String);
        for kind in [Kind::List, Kind::Map(Type::String), Kind::Timers] {
            let entry = |i: u8| match kind {
                Kind::Map(_) => format!("m{i}").into_bytes(),
                Kind::Timers => [&[128, 0, 0, 0, 0, 0, 0, i], b"gap".as_slice()].concat(),
                _ => u64::from(i).to_be_bytes().to_vec(),
            };
            let value = if matches!(kind, Kind::Timers) { vec![] } else { vec![3] };
            let ty = if matches!(kind, Kind::Timers) { Type::Unit } else { Type::U64 };
            let rows: Vec<Row> = (0..40u8).map(|i| (vec![b'a' + i % 7], entry(i), value.clone(), 1, 5)).collect();
            for layout in [Layout::Canonical, Layout::Native] {
                let spec = spec_of(layout, &kind, &key, &ty, true);
                let file = write(&spec, &by_group(&kind, &rows, true));
                let mut bytes = file.bytes.to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                let _ = read_state_file(Bytes::from(bytes), &spec, EVERYTHING, &file.groups);
                prop_assert!(read_state_file(file.bytes.slice(..at), &spec, EVERYTHING, &file.groups).is_err());
            }
        }
    }
}

/// Returns the names of a file's columns, and its rows as another reader sees them.
fn seen(file: &EncodedStateFile) -> (Vec<String>, Vec<Vec<Cell>>) {
    let reader = SerializedFileReader::new(file.bytes.clone()).expect("Parquet");
    let schema = reader.metadata().file_metadata().schema_descr();
    let names = schema.columns().iter().map(|column| column.name().to_owned()).collect();
    let rows = reader.get_row_iter(None).expect("rows").map(|row| row.expect("row"));
    let rows = rows.map(|row| row.get_column_iter().map(|(_, cell)| cell.clone()).collect());
    (names, rows.collect())
}

#[test]
fn ordinary_readers_see_entries() {
    let key = field("user", Type::String);
    let time = 1_735_690_000_000;
    let text = |text: &str| Cell::Str(text.into());
    let kind = Kind::Map(Type::String);
    let rows = [
        (b"a".to_vec(), b"y".to_vec(), vec![2], 1, NEVER),
        (b"a".to_vec(), b"x".to_vec(), vec![1], 1, time),
    ];
    let spec = spec_of(Layout::Canonical, &kind, &key, &Type::U64, true);
    let (names, cells) = seen(&write(&spec, &by_group(&kind, &rows, true)));
    assert_eq!(names, ["_key_group", "user", "map_key", "state", "_expires"]);
    let expected = [
        vec![
            Cell::Int(88),
            text("a"),
            text("x"),
            Cell::ULong(1),
            Cell::TimestampMillis(time),
        ],
        vec![Cell::Int(88), text("a"), text("y"), Cell::ULong(2), Cell::Null],
    ];
    assert_eq!(cells, expected);

    let rows = [300u64, 2].map(|i| (b"a".to_vec(), i.to_be_bytes().to_vec(), vec![5], 1, NEVER));
    let spec = spec_of(Layout::Canonical, &Kind::List, &key, &Type::U64, false);
    let (names, cells) = seen(&write(&spec, &by_group(&Kind::List, &rows, false)));
    assert_eq!(names, ["_key_group", "user", "index", "state"]);
    assert_eq!([&cells[0][2], &cells[1][2]], [&Cell::ULong(2), &Cell::ULong(300)]);

    let timer = |time, name| {
        let mut entry = vec![];
        timer_entry(time, name, &mut entry);
        (b"a".to_vec(), entry, vec![], 1, NEVER)
    };
    let rows = [timer(5, "gap"), timer(-7, "gap"), timer(5, "alarm")];
    let spec = spec_of(Layout::Canonical, &Kind::Timers, &key, &Type::Unit, false);
    let (names, cells) = seen(&write(&spec, &by_group(&Kind::Timers, &rows, false)));
    assert_eq!(names, ["_key_group", "user", "timer", "time"]);
    let timers: Vec<_> = cells.iter().map(|row| row[2..].to_vec()).collect();
    let expected = [("gap", -7), ("alarm", 5), ("gap", 5)].map(|(name, time)| vec![text(name), Cell::Long(time)]);
    assert_eq!(timers, expected);

    let rows = [256u64, 1, 3].map(|i| (i.to_le_bytes().to_vec(), vec![], vec![9], 1, NEVER));
    let index = field("index", Type::U64);
    let spec = spec_of(Layout::Canonical, &Kind::Items, &index, &Type::U64, false);
    let (names, cells) = seen(&write(&spec, &by_group(&Kind::Items, &rows, false)));
    assert_eq!(names, ["_key_group", "index", "state"]);
    let positions: Vec<_> = cells.iter().map(|row| row[1].clone()).collect();
    assert_eq!(
        positions,
        [1, 3, 256].map(Cell::ULong),
        "in order of the position, not of its bytes"
    );
}

#[test]
fn names_of_entry_columns_give_way() {
    let names = |kind: &Kind, key: &str, value: &Type| {
        let key = field(key, Type::U64);
        let spec = spec_of(Layout::Canonical, kind, &key, value, true);
        let schema = columns::schema_of(&spec).expect("schema");
        let fields = schema.get_fields().iter();
        fields
            .map(|field| field.name().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let pair = Type::Struct(StructType {
        name: "Pair".into(),
        fields: vec![field("id", Type::U32), field("state", Type::Option(Box::new(Type::U8)))],
    });
    let map = Kind::Map(pair.clone());
    assert_eq!(
        names(&map, "id", &Type::U8),
        "_key_group id map_id state value_state _expires"
    );
    assert_eq!(
        names(&Kind::Map(Type::U8), "map_key", &Type::U8),
        "_key_group map_key map_map_key state _expires"
    );
    assert_eq!(
        names(&Kind::List, "INDEX", &Type::U8),
        "_key_group INDEX list_index state _expires"
    );
    assert_eq!(
        names(&Kind::Timers, "time", &Type::Unit),
        "_key_group time timer timer_time _expires"
    );
    let nested = Kind::Map(Type::List(Box::new(Type::U8)));
    assert_eq!(names(&nested, "k", &Type::U8), "_key_group k map_key state _expires");
}

#[test]
fn errors_say_what_of_a_row_is_wrong() {
    let key = field("k", Type::String);
    let error = |kind: &Kind, entry: &[u8], layout, expires: i64| {
        let spec = spec_of(layout, kind, &key, &Type::U64, false);
        let rows = [(b"a".to_vec(), entry.to_vec(), vec![1], 1, expires)];
        let groups = by_group(kind, &rows, expires != NEVER);
        let mut writer = StateFileWriter::new(&spec).expect("schema");
        if let Err(error) = writer.write_group(&groups[0]) {
            return error.to_string();
        }
        let file = writer.finish().expect("in memory");
        let read = read_state_file(file.bytes, &spec, EVERYTHING, &file.groups);
        read.expect_err("wrong rows").to_string()
    };
    assert_eq!(
        error(&Kind::List, b"1234567", Layout::Canonical, NEVER),
        "state \"state\": the entry of a row of key group 88 is not a list index: found 7 bytes where an index of 8 bytes was expected"
    );
    assert_eq!(
        error(&Kind::List, b"1234567", Layout::Native, NEVER),
        "state \"state\": the entry of a row of key group 88 is not a list index: found 7 bytes where an index of 8 bytes was expected"
    );
    assert_eq!(
        error(&Kind::Timers, b"1234567", Layout::Native, NEVER),
        "state \"timers\": the entry of a row of key group 88 is not a timer: found 7 bytes where a time and a name was expected"
    );
    assert_eq!(
        error(&Kind::Map(Type::U32), b"\x01", Layout::Canonical, NEVER),
        "state \"state\": the entry of a row of key group 88 is not a map key u32: the value ends after 1 bytes, inside a u32"
    );
    assert_eq!(
        error(&Kind::Value, b"", Layout::Canonical, 5),
        "state \"state\": a row of key group 88 expires, and the file has no column for that"
    );
    let nan = Kind::Map(Type::Tuple(vec![Type::F64]));
    assert_eq!(
        error(
            &nan,
            &f64::from_bits(0x7ff8_dead_beef_0001).to_le_bytes(),
            Layout::Canonical,
            NEVER
        ),
        "state \"state\": a map key of key group 88 cannot be written as JSON without loss. Use --type native for this savepoint."
    );
}
