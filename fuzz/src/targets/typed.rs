//! Random types and values; and a target: a value by its schema, decoded without the guest that wrote it.
//!
//! An input is a line of JSON with the type, followed by the bytes.

use std::collections::BTreeSet;

use regraft_model::schema::{EnumType, Field, StructType, Type, Variant};
use regraft_model::value::{self, Value, ValueError, decode, decode_key, encode, encode_key, from_json, to_json};

use super::{Target, check_error};
use crate::random::Random;
use crate::{mutate, tree};

pub(super) const TARGET: Target = Target {
    name: "value",
    run,
    mutate: change,
    generate,
    len_max: 8 << 10,
    memory_max: |len| (32 << 20) + len * 4000,
};

/// Words of types, and of descriptions of files.
pub(super) const WORDS: [&str; 36] = [
    "unit",
    "bool",
    "u8",
    "u16",
    "u32",
    "u64",
    "i8",
    "i16",
    "i32",
    "i64",
    "f32",
    "f64",
    "char",
    "string",
    "bytes",
    "option",
    "list",
    "map",
    "tuple",
    "struct",
    "enum",
    "name",
    "fields",
    "variants",
    "newtype",
    "type",
    "canonical",
    "native",
    "count",
    "key",
    "_exact",
    "first",
    "last",
    "groups",
    "row_group",
    "rows",
];

const SCALARS: [Type; 15] = [
    Type::Unit,
    Type::Bool,
    Type::U8,
    Type::U16,
    Type::U32,
    Type::U64,
    Type::I8,
    Type::I16,
    Type::I32,
    Type::I64,
    Type::F32,
    Type::F64,
    Type::Char,
    Type::String,
    Type::Bytes,
];

fn field(random: &mut Random, number: usize, ty: Type) -> Field {
    let name = if random.one_in(8) {
        "_Exact".to_owned()
    } else {
        format!("f{number}")
    };
    Field {
        name,
        ty,
        aliases: vec![],
        default: false,
    }
}

/// Draws a type of at most this depth.
pub(super) fn ty(random: &mut Random, depth: usize) -> Type {
    if depth == 0 || random.one_in(2) {
        return random.pick(&SCALARS).clone();
    }
    let depth = depth - 1;
    let several = |random: &mut Random| (0..random.below(4)).map(|_| ty(random, depth)).collect::<Vec<_>>();
    match random.below(6) {
        0 => Type::Option(Box::new(ty(random, depth))),
        1 => Type::List(Box::new(ty(random, depth))),
        2 => Type::Map(Box::new(ty(random, depth)), Box::new(ty(random, depth))),
        3 => Type::Tuple(several(random)),
        4 => {
            let types = several(random);
            let fields = types
                .into_iter()
                .enumerate()
                .map(|(i, ty)| field(random, i, ty))
                .collect();
            Type::Struct(StructType {
                name: "S".to_owned(),
                fields,
            })
        }
        _ => {
            let types = several(random);
            let variants = types.into_iter().enumerate().map(|(i, ty)| Variant {
                name: format!("V{i}"),
                newtype: (i % 2 == 0).then_some(ty),
                tuple: None,
                fields: None,
                aliases: vec![],
            });
            let mut variants: Vec<Variant> = variants.collect();
            let empty = Variant {
                name: "E".to_owned(),
                newtype: None,
                tuple: None,
                fields: None,
                aliases: vec![],
            };
            variants.push(empty);
            Type::Enum(EnumType {
                name: "E".to_owned(),
                variants,
            })
        }
    }
}

/// Draws a value of a type.
pub(super) fn value(random: &mut Random, ty: &Type) -> Value {
    let bits = if random.one_in(2) {
        random.number()
    } else {
        random.length(300) as u64
    };
    let text = |random: &mut Random| {
        (0..random.length(12))
            .map(|_| *random.pick(&['a', 'é', '\0', '"', '😀']))
            .collect()
    };
    match ty {
        Type::Unit => Value::Unit,
        Type::Bool => Value::Bool(bits % 2 == 1),
        Type::U8 => Value::Unsigned(u64::from(bits as u8)),
        Type::U16 => Value::Unsigned(u64::from(bits as u16)),
        Type::U32 => Value::Unsigned(u64::from(bits as u32)),
        Type::U64 => Value::Unsigned(bits),
        Type::I8 => Value::Signed(i64::from(bits as i8)),
        Type::I16 => Value::Signed(i64::from(bits as i16)),
        Type::I32 => Value::Signed(i64::from(bits as i32)),
        Type::I64 => Value::Signed(bits as i64),
        Type::F32 => Value::F32(f32::from_bits(bits as u32)),
        Type::F64 => Value::F64(f64::from_bits(bits)),
        Type::Char => Value::Char(*random.pick(&['a', 'é', '\0', '😀'])),
        Type::String => Value::Text(text(random)),
        Type::Bytes => Value::Bytes(bits.to_le_bytes()[..random.below(9)].to_vec()),
        Type::Option(inner) => Value::Option(random.one_in(2).then(|| Box::new(value(random, inner)))),
        Type::List(item) => Value::Sequence((0..random.length(6)).map(|_| value(random, item)).collect()),
        Type::Map(key, held) => Value::Map(
            (0..random.length(6))
                .map(|_| (value(random, key), value(random, held)))
                .collect(),
        ),
        Type::Tuple(items) => Value::Sequence(items.iter().map(|item| value(random, item)).collect()),
        Type::Struct(of) => Value::Sequence(of.fields.iter().map(|field| value(random, &field.ty)).collect()),
        Type::Enum(of) => {
            let at = random.below(of.variants.len());
            let held = of.variants[at]
                .newtype
                .as_ref()
                .map_or(Value::Unit, |ty| value(random, ty));
            Value::Enum(at as u32, Box::new(held))
        }
    }
}

fn generate(random: &mut Random) -> Vec<u8> {
    let ty = ty(random, 4);
    let mut data = format!("{}\n", ty.to_json()).into_bytes();
    let made = value(random, &ty);
    encode(&ty, &made, &mut data).expect("of its type");
    data
}

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let mut rest = data.split_off(end);
    match serde_json::from_slice(data) {
        Ok(mut json) if random.one_in(3) => {
            tree::change(random, &mut json, &WORDS);
            *data = json.to_string().into_bytes();
        }
        Ok(_) => mutate::bytes(random, &mut rest, other),
        Err(_) => mutate::text(random, data, other, &WORDS),
    }
    data.append(&mut rest);
}

fn run(data: &[u8]) -> bool {
    let (line, bytes) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let Ok(ty) = serde_json::from_slice::<Type>(line) else {
        return false;
    };
    let key = decode_key(&ty, bytes).map(|key| again(&ty, &key, encode_key, decode_key));
    let bound = value::parts::PartsBound::new(ty.clone()).check(bytes);
    let is_bounded = !matches!(decode(&ty, bytes), Err(ValueError::Parts { .. }));
    assert_eq!(bound.is_ok(), is_bounded, "checked as it is decoded");
    let value = decode(&ty, bytes).map(|value| again(&ty, &value, encode, decode));
    for read in [&key, &value] {
        if let Err(error) = read {
            check_error(&error.to_string(), "", 1000);
        }
    }
    key.is_ok() || value.is_ok()
}

/// Returns true if fields of a struct, or variants of an enum, have the same name anywhere in the type.
fn names_twice(ty: &Type) -> bool {
    let fields_twice = |fields: &[Field]| {
        let names: BTreeSet<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        names.len() < fields.len() || fields.iter().any(|field| names_twice(&field.ty))
    };
    match ty {
        Type::Option(inner) | Type::List(inner) => names_twice(inner),
        Type::Map(key, held) => names_twice(key) || names_twice(held),
        Type::Tuple(items) => items.iter().any(names_twice),
        Type::Struct(of) => fields_twice(&of.fields),
        Type::Enum(of) => {
            let names: BTreeSet<&str> = of.variants.iter().map(|variant| variant.name.as_str()).collect();
            let held = |variant: &Variant| {
                variant.newtype.as_ref().is_some_and(names_twice)
                    || variant.tuple.iter().flatten().any(names_twice)
                    || variant.fields.as_ref().is_some_and(|fields| fields_twice(fields))
            };
            names.len() < of.variants.len() || of.variants.iter().any(held)
        }
        _ => false,
    }
}

type Encode = fn(&Type, &Value, &mut Vec<u8>) -> Result<(), value::ValueError>;
type Decode = fn(&Type, &[u8]) -> Result<Value, value::ValueError>;

/// Checks that a value that was read can be written and read again, and rendered as JSON.
fn again(ty: &Type, value: &Value, encode: Encode, decode: Decode) {
    let mut bytes = Vec::new();
    encode(ty, value, &mut bytes).expect("what was read can be written");
    let read = decode(ty, &bytes).expect("what was written can be read");
    // Compared as text, since NaN is not equal to itself.
    assert_eq!(format!("{value:?}"), format!("{read:?}"));
    if names_twice(ty) {
        // Its fields cannot be told apart by name, so JSON has no place for all of them.
        return;
    }
    let json = to_json(ty, value);
    let text = json.to_string();
    let written = serde_json::to_string(&value::text::Json(ty, value)).expect("JSON");
    assert_eq!(written, text, "written without a tree it is the same");
    let parsed: serde_json::Value = match serde_json::from_str(&text) {
        Ok(parsed) => parsed,
        // Nested deeper than the JSON parser's limit.
        Err(error) => return check_error(&error.to_string(), "recursion", 200),
    };
    assert_eq!(parsed, json, "JSON comes back");
    let back = from_json(ty, &parsed).expect("what was shown can be read");
    assert_eq!(to_json(ty, &back), json, "shown again it is the same");
}
