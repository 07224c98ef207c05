//! Handles of file sinks: what is accepted becomes paths, and must not lead out of the sink's directory.
//!
//! An input is a handle as JSON.

use regraft::connectors::file::handle::check_handle;
use regraft_model::id::{JobId, OperatorUid};
use serde_json::{Value, json};

use super::{Target, check_error};
use crate::random::Random;
use crate::{mutate, tree};

pub(super) const TARGET: Target = Target {
    name: "handle",
    run,
    mutate: change,
    generate,
    len_max: 16 << 10,
    memory_max: |len| (1 << 20) + len * 100,
};

/// Job and sink of the handles in the corpus.
const JOB: u128 = 7;
const UID: &str = "out";

const PENDING: &str = ".pending/00000000000000000000000000000007";
const WORDS: [&str; 20] = [
    "pending",
    "final",
    "bytes",
    "checksum",
    "0123456789abcdef",
    "/",
    "..",
    "../",
    "./",
    "\0",
    "\\",
    ".pending",
    ".pending/00000000000000000000000000000007/out-0-v1-a1-0.tsv",
    ".pending/00000000000000000000000000000008/out-0-v1-a1-0.tsv",
    "out-0-v1-a1-0.tsv",
    "part-out-0-abcdef-3-0.tsv",
    "part-out-0-abcdef012345-3-0.tsv",
    "a1-",
    "kept-",
    "/etc/passwd",
];

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let Ok(mut value) = serde_json::from_slice::<Value>(data) else {
        return mutate::text(random, data, other, &WORDS);
    };
    // Mostly within the two names.
    let key = *random.pick(&["pending", "final", "pending", "final", "checksum"]);
    match value.get_mut(key) {
        Some(Value::String(text)) if !random.one_in(6) => {
            let mut bytes = std::mem::take(text).into_bytes();
            mutate::text(random, &mut bytes, other, &WORDS);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        _ => tree::change(random, &mut value, &WORDS),
    }
    *data = value.to_string().into_bytes();
}

fn generate(random: &mut Random) -> Vec<u8> {
    let pending = format!("{PENDING}/{}", random.pick(&WORDS));
    json!({ "pending": pending, "final": random.pick(&WORDS) })
        .to_string()
        .into_bytes()
}

fn run(data: &[u8]) -> bool {
    let Ok(handle) = serde_json::from_slice::<Value>(data) else {
        return false;
    };
    let uid = OperatorUid::new(UID).expect("a uid");
    match check_handle(&handle, JobId::from_bits(JOB), &uid) {
        Err(error) => {
            check_error(&error.to_string(), "expected", 2_000);
            false
        }
        Ok((pending, committed)) => {
            let below = pending.strip_prefix(PENDING).expect("it is a part of this job");
            let names: Vec<&str> = below.split('/').collect();
            assert!(names.len() == 2 || names.len() == 3, "{pending:?}");
            for name in names[1..].iter().chain([&committed.as_str()]) {
                let plain = |c: char| c != '/' && c != '\\' && !c.is_control();
                let is_name = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
                assert!(is_name, "{name:?} is no name");
            }
            assert!(committed.starts_with("part-out-"), "{committed:?}");
            true
        }
    }
}
