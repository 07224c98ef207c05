//! Fuzz target for the declarations of a component, the JSON text that its `describe` returns.
//!
//! Checks that an accepted description survives a round trip through JSON, in which savepoints and components store it, and
//! that it does not contradict itself.

use regraft_guest_runtime::describe::{compare, complete, parse, to_json};
use regraft_model::describe::interface;
use serde_json::{Value, json};

use super::{Target, check_error};
use crate::random::Random;
use crate::{mutate, tree};

pub(super) const TARGET: Target = Target {
    name: "describe",
    run,
    mutate: change,
    generate,
    len_max: 32 << 10,
    memory_max: |len| (1 << 20) + len * 1000,
};

/// Keys and words of a description.
const WORDS: [&str; 46] = [
    "wit",
    "0.2.0",
    "sdk",
    "encoding",
    "bincode2",
    "calls",
    "timers",
    "ending",
    "operator-state",
    "key",
    "name",
    "type",
    "string",
    "bytes",
    "u64",
    "states",
    "kind",
    "value",
    "list",
    "map",
    "schema",
    "travels",
    "width",
    "ttl",
    "inputs",
    "outputs",
    "columns",
    "text",
    "struct",
    "fields",
    "option",
    "tuple",
    "enum",
    "operator_states",
    "union",
    "broadcast",
    "private_state",
    "must",
    "imports",
    "time",
    "event",
    "processing",
    "reader",
    "migrates",
    "combines",
    "digest",
];

fn generate(random: &mut Random) -> Vec<u8> {
    let mut description = json!({
        "wit": "0.2.0", "encoding": "bincode2", "key": { "name": "word", "type": "string" },
        "states": [{ "name": "count", "kind": "value", "schema": "u64", "travels": true }],
    });
    tree::change(random, &mut description, &WORDS);
    description.to_string().into_bytes()
}

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    match serde_json::from_slice::<Value>(data) {
        Ok(mut description) if random.below(4) > 0 => {
            tree::change(random, &mut description, &WORDS);
            *data = description.to_string().into_bytes();
        }
        _ => mutate::text(random, data, other, &WORDS),
    }
}

fn run(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let taken = parse(&text).and_then(|description| complete(description, &interface::ALL));
    let description = match taken {
        Ok(description) => description,
        Err(error) => {
            check_error(&error.to_string(), "", 20_000);
            return false;
        }
    };
    let written = to_json(&description);
    let again = parse(&written).and_then(|description| complete(description, &interface::ALL));
    let again = again.unwrap_or_else(|error| panic!("what was written is refused: {error}"));
    assert_eq!(again, description);
    compare(&again, &description).unwrap_or_else(|error| panic!("it contradicts itself: {error}"));
    true
}
