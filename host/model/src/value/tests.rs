//! Round trips of values of arbitrary types, compared with bincode's own encoding.

use super::*;
use crate::schema::{EnumType, Variant};
use proptest::prelude::*;

fn field(name: &str, ty: Type) -> Field {
    Field {
        name: name.into(),
        ty,
        aliases: vec![],
        default: false,
    }
}

fn arb_type() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![
        Just(Type::Unit),
        Just(Type::Bool),
        Just(Type::U8),
        Just(Type::U16),
        Just(Type::U32),
        Just(Type::U64),
        Just(Type::I8),
        Just(Type::I16),
        Just(Type::I32),
        Just(Type::I64),
        Just(Type::F32),
        Just(Type::F64),
        Just(Type::Char),
        Just(Type::String),
        Just(Type::Bytes),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| Type::Option(Box::new(t))),
            inner.clone().prop_map(|t| Type::List(Box::new(t))),
            inner
                .clone()
                .prop_map(|t| Type::Map(Box::new(Type::String), Box::new(t))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Type::Tuple),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|types| {
                let fields = types
                    .into_iter()
                    .enumerate()
                    .map(|(i, t)| field(&format!("f{i}"), t))
                    .collect();
                Type::Struct(StructType {
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
                Type::Enum(EnumType {
                    name: "E".into(),
                    variants: vec![variant("A", None), variant("B", Some(t))],
                })
            }),
        ]
    })
}

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
        Type::F32 => (-1e30f32..1e30).prop_map(Value::F32).boxed(),
        Type::F64 => (-1e300f64..1e300).prop_map(Value::F64).boxed(),
        Type::Char => any::<char>().prop_map(Value::Char).boxed(),
        Type::String => "\\PC{0,8}".prop_map(Value::Text).boxed(),
        Type::Bytes => prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::Bytes).boxed(),
        Type::Option(inner) => prop::option::of(arb_value(inner))
            .prop_map(|v| Value::Option(v.map(Box::new)))
            .boxed(),
        Type::List(item) => prop::collection::vec(arb_value(item), 0..4)
            .prop_map(Value::Sequence)
            .boxed(),
        Type::Map(_, value) => prop::collection::btree_map("[a-z]{0,4}", arb_value(value), 0..4)
            .prop_map(|m| Value::Map(m.into_iter().map(|(k, v)| (Value::Text(k), v)).collect()))
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
        Type::Enum(e) => {
            let held = e.variants[1].newtype.clone().unwrap_or(Type::Unit);
            prop_oneof![
                Just(Value::Enum(0, Box::new(Value::Unit))),
                arb_value(&held).prop_map(|v| Value::Enum(1, Box::new(v))),
            ]
            .boxed()
        }
    }
}

fn typed_value() -> impl Strategy<Value = (Type, Value)> {
    arb_type().prop_flat_map(|ty| {
        let value = arb_value(&ty);
        (Just(ty), value)
    })
}

proptest! {
    #[test]
    fn encode_then_decode_is_identity((ty, value) in typed_value()) {
        let mut bytes = Vec::new();
        encode(&ty, &value, &mut bytes).expect("of its type");
        prop_assert_eq!(decode(&ty, &bytes), Ok(value.clone()));
        let mut key = Vec::new();
        encode_key(&ty, &value, &mut key).expect("of its type");
        prop_assert_eq!(decode_key(&ty, &key), Ok(value));
    }

    #[test]
    fn json_round_trips((ty, value) in typed_value()) {
        let json = to_json(&ty, &value).to_string();
        let text = serde_json::to_string(&text::Json(&ty, &value)).expect("JSON");
        prop_assert_eq!(&json, &text);
        let parsed = serde_json::from_str(&json).expect("JSON");
        prop_assert_eq!(from_json(&ty, &parsed), Ok(value));
    }

    #[test]
    fn any_bytes_decode_or_fail((ty, _) in typed_value(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let bound = parts::PartsBound::new(ty.clone()).check(&bytes);
        prop_assert_eq!(bound.is_err(), matches!(decode(&ty, &bytes), Err(ValueError::Parts { .. })));
        if let Ok(value) = decode(&ty, &bytes) {
            let mut again = Vec::new();
            encode(&ty, &value, &mut again).expect("decoded");
            prop_assert_eq!(decode(&ty, &again).is_ok(), true);
        }
    }
}

#[test]
fn bytes_are_bincodes() {
    // Encoded by bincode 2.0.1, standard configuration, from ("ab", 300u64, -3i32, Some(1u8)).
    let ty = Type::Tuple(vec![
        Type::String,
        Type::U64,
        Type::I32,
        Type::Option(Box::new(Type::U8)),
    ]);
    let bytes = [2, b'a', b'b', 251, 44, 1, 5, 1, 1];
    let value = decode(&ty, &bytes).expect("bincode");
    assert_eq!(to_json(&ty, &value).to_string(), r#"["ab",300,-3,1]"#);
    let mut out = Vec::new();
    encode(&ty, &value, &mut out).expect("of its type");
    assert_eq!(out, bytes);
}

#[test]
fn errors_say_what_was_expected() {
    assert_eq!(
        decode(&Type::U64, &[253, 1]).map_err(|e| e.to_string()),
        Err("the value ends after 2 bytes, inside a u64".to_owned())
    );
    assert_eq!(
        decode(&Type::U8, &[1, 2]).map_err(|e| e.to_string()),
        Err("1 bytes follow the value".to_owned())
    );
    assert_eq!(
        decode(&Type::Bool, &[7]).map_err(|e| e.to_string()),
        Err("found 7 where bool was expected".to_owned())
    );
}

/// A type whose serde implementation drives bincode, as a guest's would.
#[derive(serde::Serialize, Debug, Clone)]
struct Sample {
    text: String,
    numbers: Vec<u64>,
    signed: i32,
    maybe: Option<u16>,
    letter: char,
    kind: Kind,
    float: f64,
}

#[derive(serde::Serialize, Debug, Clone)]
enum Kind {
    Plain,
    Held(i64),
    Pair(u8, bool),
    Named { x: f32 },
}

fn sample_type() -> Type {
    let variant = |name: &str, newtype, tuple, fields| Variant {
        name: name.into(),
        newtype,
        tuple,
        fields,
        aliases: vec![],
    };
    let kind = Type::Enum(EnumType {
        name: "Kind".into(),
        variants: vec![
            variant("Plain", None, None, None),
            variant("Held", Some(Type::I64), None, None),
            variant("Pair", None, Some(vec![Type::U8, Type::Bool]), None),
            variant("Named", None, None, Some(vec![field("x", Type::F32)])),
        ],
    });
    let fields = vec![
        field("text", Type::String),
        field("numbers", Type::List(Box::new(Type::U64))),
        field("signed", Type::I32),
        field("maybe", Type::Option(Box::new(Type::U16))),
        field("letter", Type::Char),
        field("kind", kind),
        field("float", Type::F64),
    ];
    Type::Struct(StructType {
        name: "Sample".into(),
        fields,
    })
}

fn arb_sample() -> impl Strategy<Value = Sample> {
    let kind = prop_oneof![
        Just(Kind::Plain),
        any::<i64>().prop_map(Kind::Held),
        any::<(u8, bool)>().prop_map(|(a, b)| Kind::Pair(a, b)),
        any::<i16>().prop_map(|x| Kind::Named { x: x.into() }),
    ];
    let numbers = prop::collection::vec(any::<u64>(), 0..5);
    (
        ".{0,9}",
        numbers,
        any::<i32>(),
        any::<Option<u16>>(),
        any::<char>(),
        kind,
        -1e300f64..1e300,
    )
        .prop_map(|(text, numbers, signed, maybe, letter, kind, float)| Sample {
            text,
            numbers,
            signed,
            maybe,
            letter,
            kind,
            float,
        })
}

proptest! {
    /// The layout is bincode's, not merely one of our own: bytes that bincode wrote decode to the value that serde's
    /// JSON shows, and are encoded again bit by bit.
    /// This holds for values and, in fixed width, for keys.
    #[test]
    fn what_was_written_by_bincode_is_read_and_written_again(sample in arb_sample()) {
        let ty = sample_type();
        let value_bytes = bincode::serde::encode_to_vec(&sample, bincode::config::standard()).expect("encoded");
        let value = decode(&ty, &value_bytes).expect("decoded");
        let expected = serde_json::to_value(&sample).expect("JSON");
        prop_assert_eq!(to_json(&ty, &value), expected);
        let mut again = vec![];
        encode(&ty, &value, &mut again).expect("of its type");
        prop_assert_eq!(&again, &value_bytes);
        let fixed = bincode::config::standard().with_fixed_int_encoding();
        let key_bytes = bincode::serde::encode_to_vec(&sample, fixed).expect("encoded");
        prop_assert_eq!(decode_key(&ty, &key_bytes), Ok(value));
    }
}

/// The byte vectors of `docs/formats/vectors.json`, which the SDK has to give, too (`guest-sdk/tests/vectors.rs`).
#[test]
fn every_vector_is_the_hosts_encoding() {
    #[derive(serde::Deserialize)]
    struct Vector {
        r#as: String,
        r#type: Type,
        json: serde_json::Value,
        hex: String,
    }
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../../../docs/formats/vectors.json")).expect("vectors");
    assert!(vectors.len() > 80);
    for Vector {
        r#as,
        r#type: ty,
        json,
        hex: expected,
    } in vectors
    {
        let value = from_json(&ty, &json).expect("a value of its type");
        let mut bytes = vec![];
        let decoded = if r#as == "key" {
            encode_key(&ty, &value, &mut bytes).expect("of its type");
            decode_key(&ty, &bytes)
        } else {
            encode(&ty, &value, &mut bytes).expect("of its type");
            decode(&ty, &bytes)
        };
        assert_eq!(hex(&bytes), expected, "{ty} {json}");
        assert_eq!(decoded, Ok(value), "{ty} {expected}");
    }
}

#[test]
fn a_list_of_bytes_has_the_bytes_of_bytes() {
    let list = Type::List(Box::new(Type::U8));
    let items = Value::Sequence([1u8, 255, 7].map(|n| Value::Unsigned(n.into())).to_vec());
    let (mut of_list, mut of_bytes) = (vec![], vec![]);
    encode(&list, &items, &mut of_list).expect("a list");
    encode(&Type::Bytes, &Value::Bytes(vec![1, 255, 7]), &mut of_bytes).expect("bytes");
    assert_eq!(of_list, of_bytes);
}

fn units(count: usize) -> Type {
    Type::Tuple(vec![Type::Unit; count])
}

fn list(item: Type) -> Type {
    Type::List(Box::new(item))
}

#[test]
fn a_few_bytes_are_no_tree_of_any_size() {
    let refused = |ty: Type, bytes: &[u8]| {
        let error = decode(&ty, bytes).expect_err("too many parts");
        assert_eq!(parts::PartsBound::new(ty.clone()).check(bytes), Err(error.clone()));
        let all = parts::PartsBound::new(ty).check_all(bytes.len() + 1, [&[0][..], bytes].into_iter());
        assert_eq!(all, Err((1, error.clone())));
        error.to_string()
    };
    // A list of 65,535 items of 401 parts and no bytes.
    let text = refused(list(units(400)), &[251, 255, 255]);
    assert!(
        text.starts_with("the value of 3 bytes has more than 268 parts: expected at most 256 and 4 for each byte, "),
        "{text}"
    );
    refused(list(Type::Unit), &[251, 0, 2]);
    refused(Type::Map(Box::new(Type::Unit), Box::new(Type::Unit)), &[251, 0, 2]);
    // Lists in lists: each one is short.
    refused(list(list(Type::Unit)), &[4, 100, 100, 100, 100]);
    // An item with a byte that brings many parts with it, also as names.
    refused(list(Type::Tuple(vec![Type::U8, units(100)])), &[3, 1, 1, 1]);
    let name = "n".repeat(255);
    let record = Type::Struct(StructType {
        name: "R".into(),
        fields: vec![field(&name, Type::U8)],
    });
    refused(list(record), &[&[100][..], &[1; 100]].concat());
}

#[test]
fn what_people_store_has_few_parts() {
    let closed = |ty: Type, bytes: &[u8]| {
        let bound = parts::PartsBound::new(ty.clone());
        assert_eq!(bound.check(bytes), Ok(()));
        assert!(decode(&ty, bytes).is_ok(), "{ty}");
    };
    closed(list(Type::Bool), &[&[251, 232, 3][..], &[1; 1000]].concat());
    closed(
        list(Type::Option(Box::new(Type::Unit))),
        &[&[251, 232, 3][..], &[1; 1000]].concat(),
    );
    closed(list(Type::Unit), &[250]);
    closed(units(200), &[]);
    closed(list(sample_type()), &[0]);
    let point = Type::Struct(StructType {
        name: "Point".into(),
        fields: vec![field("x", Type::I8), field("y", Type::I8)],
    });
    closed(list(point), &[&[251, 244, 1][..], &[1; 1000]].concat());
}

#[test]
fn a_long_text_is_cut() {
    let text = Value::Text("ä".repeat(150));
    let json = text::Json(&Type::String, &text);
    assert_eq!(text::cut(&json, 302), format!("\"{}\"", "ä".repeat(150)));
    assert_eq!(text::cut(&json, 200), format!("\"{}… (302 bytes)", "ä".repeat(99)));
    let error = encode(&Type::U8, &text, &mut vec![])
        .expect_err("not of the type")
        .to_string();
    assert!(error.ends_with("ä… (302 bytes) as u8"), "{error}");
    let bytes: Vec<u8> = (0..100).collect();
    assert_eq!(text::Hex(&bytes).to_string(), hex(&bytes));
}

proptest! {
    #[test]
    fn json_takes_no_more_than_it_is_weighed((ty, value) in typed_value()) {
        let mut bytes = vec![];
        encode(&ty, &value, &mut bytes).expect("of its type");
        let json = to_json(&ty, &value).to_string();
        let weight = json_bytes(&ty, &bytes, Integers::Variable).expect("of its type");
        prop_assert!(weight >= json.len() as u64, "{} bytes weigh {weight}: {json}", json.len());
        let mut decoder = Decoder::new(&bytes, Integers::Variable);
        decoder.json_bytes(&ty).expect("of its type");
        prop_assert_eq!(decoder.finish(), Ok(()));
    }
}
